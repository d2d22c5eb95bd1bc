//! The TLB door: every TLB invalidation of EL2 after the boot is here.
//!
//! The sequences are those of the Arm ARM (DDI 0487, D8.16): stores first (DSB ISHST), then the invalidation, its
//! completion (DSB ISH), then the combined stage-1 entries of the VMID, since an invalidation by IPA need not
//! reach them, and their completion. Which CPUs must be told twice is [`hyp_core::errata`]'s to say.

#![expect(unsafe_code, reason = "TLB invalidations are instructions")]

use crate::barrier::{dsb_ish, dsb_ishst, dsb_nsh, isb};
use crate::cpu;
use crate::percpu::PerCpu;
use crate::vttbr;
use core::arch::asm;
use hyp_abi::Counter;
use hyp_abi::trace::TraceEvent;
use hyp_core::addr::FRAME_SHIFT;
use hyp_core::geometry::{Arm4K, Geometry};
use hyp_core::hardware::{Extent, Regime};

/// More invalidations than this, one by one, cost more than refilling the TLB: then the whole regime goes.
const MOST_SINGLE: u64 = 128;

/// The level hint's granule: 4 KiB (TTL bits 3:2).
const TTL_4K: u64 = 0b01 << 2;

macro_rules! tlbi {
    ($name:ident, $instruction:literal) => {
        #[inline(always)]
        fn $name(argument: u64) {
            // SAFETY: forgetting translations changes no memory; what they led to is found anew in the tables.
            unsafe { asm!($instruction, in(reg) argument, options(nostack, preserves_flags)) };
        }
    };
    ($name:ident, $instruction:literal, alone) => {
        #[inline(always)]
        fn $name() {
            // SAFETY: as above.
            unsafe { asm!($instruction, options(nostack, preserves_flags)) };
        }
    };
}

tlbi!(ipas2e1is, "tlbi ipas2e1is, {}");
tlbi!(ipas2le1is, "tlbi ipas2le1is, {}");
tlbi!(vae2is, "tlbi vae2is, {}");
tlbi!(vale2is, "tlbi vale2is, {}");
// The range forms (FEAT_TLBIRANGE), by number for assemblers that do not know them.
tlbi!(ripas2e1is, "sys #4, c8, c0, #2, {}");
tlbi!(ripas2le1is, "sys #4, c8, c0, #6, {}");
tlbi!(rvae2is, "sys #4, c8, c2, #1, {}");
tlbi!(rvale2is, "sys #4, c8, c2, #5, {}");
tlbi!(vmalle1, "tlbi vmalle1", alone);
tlbi!(vmalle1is, "tlbi vmalle1is", alone);
tlbi!(vmalls12e1is, "tlbi vmalls12e1is", alone);
tlbi!(alle2is, "tlbi alle2is", alone);
tlbi!(alle1is, "tlbi alle1is", alone);

/// Removes translations from the TLBs of all CPUs. See [`hyp_core::Hardware::invalidate`].
pub(crate) fn invalidate(regime: Regime, extent: Extent) {
    let (first, pages) = match extent {
        Extent::Range { start, pages, .. } => (start.value(), pages),
        Extent::All => (0, u64::MAX),
    };
    PerCpu::this().ring.record(TraceEvent::Tlbi, first, pages);
    dsb_ishst();
    match regime {
        Regime::Hyp => match extent {
            Extent::All => counted(alle2is),
            Extent::Range { start, pages, level } => hyp_range(start.value(), pages, level),
        },
        // While a guest is loaded, the host's is another VMID too.
        Regime::Host => vttbr::with_vmid(0, || stage2(extent)),
        Regime::Guest(vmid) => vttbr::with_vmid(vmid, || stage2(extent)),
    }
    isb();
}

/// Invalidates in the VMID that VTTBR_EL2 holds.
fn stage2(extent: Extent) {
    let Extent::Range { start, pages, level } = extent else {
        counted(vmalls12e1is);
        return;
    };
    let leaf = level.is_some();
    let one = if leaf { ipas2le1is } else { ipas2e1is };
    let range = if leaf { ripas2le1is } else { ripas2e1is };
    if !by_address(start.value(), pages, level, one, range) {
        // Stage 1 and stage 2, so nothing is left to do.
        counted(vmalls12e1is);
        return;
    }
    // What combines both stages is tagged with the virtual address, so it goes by VMID.
    counted(vmalle1is);
}

fn hyp_range(start: u64, pages: u64, level: Option<u8>) {
    let leaf = level.is_some();
    let one = if leaf { vale2is } else { vae2is };
    let range = if leaf { rvale2is } else { rvae2is };
    if !by_address(start, pages, level, one, range) {
        counted(alle2is);
    }
}

/// Invalidates a range with the instruction for one address or, where the CPUs have it, the one for a range.
/// Answers `false`, and does nothing, if there is too much to do one by one.
fn by_address(start: u64, pages: u64, level: Option<u8>, one: fn(u64), range: fn(u64)) -> bool {
    let step = level.map_or(1, Arm4K::level_frames);
    let singles = pages.div_ceil(step);
    let first = start >> FRAME_SHIFT;
    if singles > 1 && cpu::features().tlbi_range {
        return by_range(first, pages, level, one, range);
    }
    if singles > MOST_SINGLE {
        return false;
    }
    let hint = level_hint(level);
    let invalidate_all = || (0..singles).for_each(|index| one((first + index * step) | hint));
    invalidate_all();
    dsb_ish();
    count(singles);
    if cpu::repeats_tlbi() {
        invalidate_all();
        dsb_ish();
        count(singles);
    }
    true
}

/// The forms for ranges (Arm ARM DDI 0487, D8.16.3.5): `(NUM + 1) * 2^(5 * SCALE + 1)` pages, BaseADDR in bits
/// 36:0, TTL in 38:37, NUM in 43:39, SCALE in 45:44, TG in 47:46. An odd page is left to the form for one.
fn by_range(first: u64, pages: u64, level: Option<u8>, one: fn(u64), range: fn(u64)) -> bool {
    const GRANULE_4K: u64 = 0b01 << 46;
    const MOST: u64 = 32 << 16;
    if pages > MOST {
        return false;
    }
    let hint = level
        .filter(|_| cpu::features().tlbi_level_hint)
        .map_or(0, u64::from);
    let rounds = if cpu::repeats_tlbi() { 2 } else { 1 };
    for _ in 0..rounds {
        let mut at = first;
        let mut left = pages;
        let mut issued = 0;
        while left > 1 {
            // The largest scale whose unit fits; what that leaves is for the smaller ones.
            let scale = (0..4_u64)
                .rev()
                .find(|scale| left >> (5 * scale + 1) != 0)
                .unwrap_or(0);
            let number = (left >> (5 * scale + 1)).min(32);
            range(at | hint << 37 | (number - 1) << 39 | scale << 44 | GRANULE_4K);
            at += number << (5 * scale + 1);
            left -= number << (5 * scale + 1);
            issued += 1;
        }
        if left == 1 {
            one(at | level_hint(level));
            issued += 1;
        }
        dsb_ish();
        count(issued);
    }
    true
}

/// Bits 47:44 of the argument: the granule and the level, where the CPU looks at them (FEAT_TTL).
fn level_hint(level: Option<u8>) -> u64 {
    match level {
        Some(level @ 1..=3) if cpu::features().tlbi_level_hint => (TTL_4K | u64::from(level)) << 44,
        _ => 0,
    }
}

fn counted(invalidate: fn()) {
    invalidate();
    dsb_ish();
    count(1);
    if cpu::repeats_tlbi() {
        invalidate();
        dsb_ish();
        count(1);
    }
}

fn count(amount: u64) {
    PerCpu::this().count(Counter::TlbInvalidations, amount);
}

/// Removes every translation of EL1 and EL0, of all VMIDs, on all CPUs: the last thing before the end.
pub(crate) fn invalidate_everything_below() {
    dsb_ishst();
    alle1is();
    dsb_ish();
    isb();
}

/// Removes what this CPU holds of the guest that is loaded: translations, and instructions by virtual address. Another
/// vCPU of it has other tables, and not everything in a TLB is tagged with an ASID.
pub(crate) fn forget_loaded_guest() {
    let rounds = if cpu::repeats_tlbi() { 2 } else { 1 };
    for _ in 0..rounds {
        vmalle1();
        dsb_nsh();
        count(1);
    }
    // SAFETY: instructions are found anew in memory.
    unsafe { asm!("ic iallu", options(nostack, preserves_flags)) };
    dsb_nsh();
    isb();
}

/// Removes what the instruction caches of all CPUs hold.
pub(crate) fn invalidate_code() {
    // SAFETY: as above.
    unsafe { asm!("ic ialluis", options(nostack, preserves_flags)) };
    dsb_ish();
    isb();
}

/// Removes every translation of this CPU that concerns EL1, EL0 or EL2: what a CPU does that comes in.
pub(crate) fn forget_this_cpu() {
    // SAFETY: as for the others.
    unsafe {
        asm!(
            "tlbi alle2",
            "tlbi alle1",
            "ic iallu",
            "dsb nsh",
            "isb",
            options(nostack, preserves_flags)
        )
    };
}
