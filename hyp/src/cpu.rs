//! What the CPUs are: their ID registers read, judged by hyp-core, and kept.

#![expect(
    unsafe_code,
    reason = "reads ID registers that the register crate does not have"
)]

use crate::{barrier, fixup};
use aarch64_cpu::registers::{
    CurrentEL, HCR_EL2, ID_AA64DFR0_EL1, ID_AA64DFR1_EL1, ID_AA64ISAR0_EL1, ID_AA64ISAR1_EL1,
    ID_AA64MMFR0_EL1, ID_AA64MMFR1_EL1, ID_AA64MMFR2_EL1, ID_AA64PFR0_EL1, ID_AA64PFR1_EL1, MIDR_EL1,
    MPIDR_EL1, PAR_EL1,
};
use core::arch::asm;
use core::sync::atomic::{AtomicBool, Ordering};
use hyp_core::addr::Ipa;
use hyp_core::errata::{Errata, Midr};
use hyp_core::machine::{CpuFeatures, CpuIdentity};
use hyp_core::trap::guest_id::is_shown_no_less;
use hyp_core::trap::guest_traps::{GuestSettings, Watchers};
use hyp_core::trap::host_traps::Settings;
use hyp_core::trap::id::IdRegisters;
use hyp_core::trap::inject::PstateFeatures;
use hyp_core::trap::syndrome::SystemRegister;
use spin::Once;
use tock_registers::interfaces::{Readable, Writeable};

/// What the first CPU has. The others must have it too.
static FEATURES: Once<CpuFeatures> = Once::new();

/// The ID registers of the first CPU.
static FIRST: Once<IdRegisters> = Once::new();

/// Whether some CPU must be told twice to forget a translation.
static REPEATS_TLBI: AtomicBool = AtomicBool::new(false);

/// Whether some CPU walks stage 1 on speculation while another VMID is loaded.
static SPECULATES_AT: AtomicBool = AtomicBool::new(false);

/// Whether some CPU needs barriers around a read of PAR_EL1.
static FENCES_PAR: AtomicBool = AtomicBool::new(false);

/// Whether some CPU has a profiler or a trace unit that writes to memory through the host's tables.
static WRITES_BEHIND: AtomicBool = AtomicBool::new(false);

macro_rules! read_raw {
    ($register:expr) => {{
        let value: u64;
        // SAFETY: reading an ID register changes nothing; those that do not exist yet read as zero.
        unsafe { asm!(concat!("mrs {}, ", $register), out(reg) value, options(nomem, nostack, preserves_flags)) };
        value
    }};
}

/// `AT` found nothing.
#[derive(Clone, Copy, Debug)]
struct Untranslated;

/// PAR_EL1 after `AT`, if it found something.
///
/// The walk goes through tables of the host's, which it may change meanwhile, and which may lie where nothing answers:
/// then `AT` takes an external abort, to EL2 (Arm ARM DDI 0487, "Address translation instructions").
macro_rules! translate {
    ($operation:literal, $address:expr) => {{
        let address: u64 = $address;
        fixup::survive(|| {
            let aborted: u64;
            // SAFETY: translates; what it found is in PAR_EL1, and an abort is fixed up.
            unsafe {
                asm!(
                    "mov {aborted}, #1",
                    concat!("2: at ", $operation, ", {address}"),
                    "isb",
                    "mov {aborted}, xzr",
                    "3:",
                    ".pushsection .fixup, \"a\"",
                    ".balign 4",
                    ".long 2b - .",
                    ".long 3b - .",
                    ".popsection",
                    address = in(reg) address,
                    aborted = out(reg) aborted,
                    options(nostack, preserves_flags),
                )
            };
            let found = with_par_fenced(|| PAR_EL1.get());
            // PAR_EL1.F (bit 0): it failed.
            if aborted | found & 1 == 0 { Ok(found) } else { Err(Untranslated) }
        })
    }};
}

/// What this CPU is, to be judged by.
pub(crate) fn identity() -> CpuIdentity {
    CpuIdentity {
        current_el: CurrentEL.get(),
        hcr_el2: HCR_EL2.get(),
        id: id_registers(),
    }
}

/// Keeps what the first CPU has. Runs on it.
pub(crate) fn set_features(features: CpuFeatures) {
    FEATURES.call_once(|| features);
    FIRST.call_once(id_registers);
}

/// The ID registers of the first CPU: what guests see is computed from them, wherever they run.
///
/// # Panics
/// Before [`set_features`], which is the first thing of the boot.
pub(crate) fn first_id_registers() -> &'static IdRegisters {
    FIRST
        .get()
        .expect("the boot reads the first CPU's registers before anything asks for them")
}

/// What the CPUs have.
///
/// # Panics
/// Before [`set_features`], which is the first thing of the boot.
#[inline]
pub(crate) fn features() -> &'static CpuFeatures {
    FEATURES
        .get()
        .expect("the boot sets the features before anything asks for them")
}

/// Takes the errata of this CPU into account, for all CPUs: an invalidation is broadcast by one and obeyed by all. So
/// it does what writes on its own.
pub(crate) fn note_errata() {
    let watchers = Watchers::of(&id_registers());
    if watchers.profiling || watchers.trace_buffer {
        WRITES_BEHIND.store(true, Ordering::Relaxed);
    }
    let errata = errata();
    if errata.repeat_tlbi {
        REPEATS_TLBI.store(true, Ordering::Relaxed);
    }
    if errata.speculative_at {
        SPECULATES_AT.store(true, Ordering::Relaxed);
    }
    if errata.par_read {
        FENCES_PAR.store(true, Ordering::Relaxed);
    }
}

/// Does `read`, which reads PAR_EL1, between barriers where some CPU needs them (Cortex-A77 erratum 1508412).
#[inline(always)]
pub(crate) fn with_par_fenced<R>(read: impl FnOnce() -> R) -> R {
    let fenced = FENCES_PAR.load(Ordering::Relaxed);
    if fenced {
        barrier::dmb_sy();
    }
    let result = read();
    if fenced {
        barrier::dmb_sy();
    }
    result
}

/// What is wrong with this CPU.
pub(crate) fn errata() -> Errata {
    Errata::of(Midr::new(MIDR_EL1.get()))
}

/// Whether a TLB invalidation must be issued twice.
#[inline]
pub(crate) fn repeats_tlbi() -> bool {
    REPEATS_TLBI.load(Ordering::Relaxed)
}

/// Whether stage-1 walks must be off while a VMID is loaded whose EL1 state is not.
pub(crate) fn speculates_at() -> bool {
    SPECULATES_AT.load(Ordering::Relaxed)
}

/// Whether a profiler or a trace unit may have records of the host's that it has yet to write.
pub(crate) fn writes_behind() -> bool {
    WRITES_BEHIND.load(Ordering::Relaxed)
}

/// MPIDR_EL1 of this CPU.
pub(crate) fn mpidr() -> u64 {
    MPIDR_EL1.get()
}

/// The ID registers of this CPU.
pub(crate) fn id_registers() -> IdRegisters {
    IdRegisters {
        midr: MIDR_EL1.get(),
        pfr0: ID_AA64PFR0_EL1.get(),
        pfr1: ID_AA64PFR1_EL1.get(),
        // Encodings for assemblers that do not know the names.
        pfr2: read_raw!("S3_0_C0_C4_2"),
        smfr0: read_raw!("S3_0_C0_C4_5"),
        dfr0: ID_AA64DFR0_EL1.get(),
        dfr1: ID_AA64DFR1_EL1.get(),
        isar0: ID_AA64ISAR0_EL1.get(),
        isar1: ID_AA64ISAR1_EL1.get(),
        isar2: read_raw!("S3_0_C0_C6_2"),
        isar3: read_raw!("S3_0_C0_C6_3"),
        mmfr0: ID_AA64MMFR0_EL1.get(),
        mmfr1: ID_AA64MMFR1_EL1.get(),
        mmfr2: ID_AA64MMFR2_EL1.get(),
        mmfr3: read_raw!("S3_0_C0_C7_3"),
        mmfr4: read_raw!("S3_0_C0_C7_4"),
    }
}

/// What the traps depend on beside the ID registers.
pub(crate) fn trap_settings() -> Settings {
    let id = id_registers();
    Settings {
        // The host chooses its memory types; FEAT_S2FWB is for guests.
        force_write_back: false,
        // PMCR_EL0 and MPAMIDR_EL1 exist only with their features.
        pmcr: if id.pmu_version() == 0 {
            0
        } else {
            read_raw!("pmcr_el0")
        },
        mpamidr: if id.has_mpam() {
            read_raw!("S3_0_C10_C4_4")
        } else {
            0
        },
        mpidr: mpidr(),
    }
}

/// What the traps of guests depend on beside the ID registers.
pub(crate) fn guest_trap_settings() -> GuestSettings {
    let host = trap_settings();
    GuestSettings {
        force_write_back: false,
        pointer_authentication: features().pointer_authentication,
        pmcr: host.pmcr,
        mpamidr: host.mpamidr,
    }
}

/// 64 random bits of the CPU's own (FEAT_RNG), or `None` if it has none now, or never.
pub(crate) fn random() -> Option<u64> {
    if !features().random_numbers {
        return None;
    }
    let (value, failed): (u64, u64);
    // SAFETY: RNDR, by number, which the CPU has. It sets NZCV to 0b0100 if there is nothing (Arm ARM DDI 0487,
    // D24.2.144).
    unsafe {
        asm!("mrs {}, S3_3_C2_C4_0", "cset {}, eq", out(reg) value, out(reg) failed, options(nomem, nostack))
    };
    (failed == 0).then_some(value)
}

/// The name of this CPU's model, as far as it is known.
pub(crate) fn model_name() -> &'static str {
    let midr = MIDR_EL1.get();
    match (midr >> 24 & 0xff, midr >> 4 & 0xfff) {
        (0x41, 0xd03) => "Cortex-A53",
        (0x41, 0xd05) => "Cortex-A55",
        (0x41, 0xd07) => "Cortex-A57",
        (0x41, 0xd08) => "Cortex-A72",
        (0x41, 0xd0b) => "Cortex-A76",
        (0x41, 0xd0c) => "Neoverse N1",
        (0x00, 0x051) => "QEMU max",
        _ => "of an unknown model",
    }
}

/// Whether a CPU with `features` can do what EL2 does in the first CPU's way, and has what guests are shown, which may come
/// to run on it.
pub(crate) fn can_follow(features: &CpuFeatures) -> bool {
    let first = self::features();
    is_shown_no_less(first_id_registers(), &id_registers())
        && features.pa_bits >= first.pa_bits
        && features.tlbi_range >= first.tlbi_range
        && features.tlbi_level_hint >= first.tlbi_level_hint
        && features.random_numbers >= first.random_numbers
}

/// Where stage 1 of the host, or of the guest that is loaded, takes the virtual address `far`. `None` if nowhere, as far
/// as EL2 can tell.
///
/// EL1 is asked first: it may read whatever EL0 may, but for what FEAT_S1PIE lets EL0 alone read; and EL0 need not be
/// allowed to read what it may execute. AT writes PAR_EL1, which is theirs, so it is put back: they may be in the middle
/// of their own AT.
pub(crate) fn translate_as_el1(far: u64) -> Option<Ipa> {
    let saved = with_par_fenced(|| PAR_EL1.get());
    let found = translate!("s1e1r", far).or_else(|_| translate!("s1e0r", far));
    PAR_EL1.set(saved);
    // PA in bits 47:12.
    Ipa::new(found.ok()? & 0x0000_ffff_ffff_f000 | far & 0xfff)
}

/// The ID register with this encoding, of this CPU.
pub(crate) fn read_id(register: SystemRegister) -> u64 {
    macro_rules! read_group {
        ($($crm:literal: $($op2:literal)*;)*) => {
            match (register.crm, register.op2) {
                $($(($crm, $op2) => read_raw!(concat!("S3_0_C0_C", $crm, "_", $op2)),)*)*
                _ => 0,
            }
        };
    }
    read_group! {
        1: 0 1 2 3 4 5 6 7;
        2: 0 1 2 3 4 5 6 7;
        3: 0 1 2 3 4 5 6 7;
        4: 0 1 2 3 4 5 6 7;
        5: 0 1 2 3 4 5 6 7;
        6: 0 1 2 3 4 5 6 7;
        7: 0 1 2 3 4 5 6 7;
    }
}

/// GCSCR_EL1, or zero on a CPU without FEAT_GCS.
pub(crate) fn gcscr_el1() -> u64 {
    if id_registers().gcs() == 0 {
        0
    } else {
        read_raw!("S3_0_C2_C5_0")
    }
}

/// Which PSTATE fields this CPU has.
pub(crate) fn pstate_features() -> PstateFeatures {
    PstateFeatures::of(&id_registers())
}

/// What waits for this CPU, masked or not: ISR_EL1, with SError in bit 8, IRQ in bit 7, FIQ in bit 6.
#[inline]
pub(crate) fn pending_interrupts() -> u64 {
    let pending: u64;
    // SAFETY: reads a register. Without `pure` it is read each time.
    unsafe { asm!("mrs {}, isr_el1", out(reg) pending, options(nomem, nostack, preserves_flags)) };
    pending
}
