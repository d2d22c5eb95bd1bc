//! EL2's control registers while the host and while a guest runs: the values are hyp-core's
//! ([`hyp_core::trap::host_traps`], [`hyp_core::trap::guest_traps`]), the writing is here.
//!
//! Encodings stand where the register crate, or the assembler, does not know a name; each is written only where
//! the CPU has it. All layouts are those of E2H = 0.

#![expect(unsafe_code, reason = "writes control registers")]

use crate::barrier::isb;
use crate::percpu::PerCpu;
use crate::vectors::Vectors;
use crate::{cpu, hardening, machine, tlb, vttbr, world};
use core::arch::asm;
use hyp_core::machine::{CpuFeatures, InputSize};
use hyp_core::trap::fine_grained::FineGrainedTraps;
use hyp_core::trap::guest_traps::GuestTraps;
use hyp_core::trap::host_traps::HostTraps;
use hyp_core::trap::stage2;

/// SCTLR_EL1 as the host finds it: MMU and caches off, its RES1 bits 11, 20, 22, 23, 28 and 29 set (Arm ARM DDI
/// 0487, D24.2.150), little-endian.
const SCTLR_EL1_OFF: u64 = 0x30d0_0800;

macro_rules! write_register {
    ($register:literal, $value:expr) => {{
        let value: u64 = $value;
        // SAFETY: the callers write what hyp-core computed for this CPU, and only registers that it has. None of
        // them changes how EL2 itself runs.
        unsafe { asm!(concat!("msr ", $register, ", {}"), in(reg) value, options(nostack, preserves_flags)) };
    }};
}

macro_rules! write_if_there {
    ($($register:literal = $value:expr;)*) => {
        $(if let Some(value) = $value {
            write_register!($register, value);
        })*
    };
}

/// VTCR_EL2 for the host's table: input size and start level as the plan chose them.
#[must_use]
pub(crate) fn vtcr(size: InputSize, features: &CpuFeatures) -> u64 {
    stage2::vtcr(size.bits(), size.start_level(), features.pa_range)
}

/// Makes this CPU, which has `features`, ready for the host: its vectors, its traps, the host's stage 2. What is left is
/// the entry itself.
pub(crate) fn prepare_for_host(this: &PerCpu, features: CpuFeatures) {
    let vectors = Vectors::of(this, hardening::choose());
    vectors.use_for_host();
    isb();
    let traps = HostTraps::new(&cpu::id_registers(), cpu::trap_settings());
    write_traps(&traps);
    if let Some(facts) = machine::facts() {
        write_register!("vtcr_el2", facts.vtcr);
        vttbr::load_host(facts.host_root.start().address().value());
        world::prepare(features, vectors, traps, facts);
    }
    isb();
    tlb::forget_this_cpu();
    reset_el1_controls();
    // Last: from here on the host's stage 2 is in force.
    write_register!("hcr_el2", traps.hcr_el2);
    isb();
}

/// Puts EL1's controls in the state in which a kernel may expect them at its first instruction. What a new feature
/// adds beside SCTLR_EL1 and TCR_EL1 is UNKNOWN after a reset (Arm ARM DDI 0487, D24.2), and counts as soon as HCRX_EL2
/// opens it; a kernel that has never heard of it would not clear it.
fn reset_el1_controls() {
    let id = cpu::id_registers();
    let zero_where = |present: u8| (present != 0).then_some(0);
    write_register!("sctlr_el1", SCTLR_EL1_OFF);
    write_if_there! {
        // TCR2_EL1, SCTLR2_EL1.
        "S3_0_C2_C0_3" = zero_where(id.tcr2());
        "S3_0_C1_C0_3" = zero_where(id.sctlr2());
        // GCSCR_EL1, GCSCRE0_EL1.
        "S3_0_C2_C5_0" = zero_where(id.gcs());
        "S3_0_C2_C5_2" = zero_where(id.gcs());
    }
}

/// Writes CPTR_EL2.
#[inline]
pub(crate) fn write_cptr(value: u64) {
    write_register!("cptr_el2", value);
}

/// Defines the writing of those registers that are not the same for host and guest. The stage 2 that goes with them is
/// loaded next ([`vttbr`]), with the ISB that they need.
macro_rules! differing {
    ($($(#[$doc:meta])* $name:ident: $traps:ty;)*) => {
        $(
            $(#[$doc])*
            #[inline]
            pub(crate) fn $name(traps: &$traps, vtcr: u64) {
                write_register!("vtcr_el2", vtcr);
                write_register!("hcr_el2", traps.hcr_el2);
                write_register!("cptr_el2", traps.cptr_el2);
                write_register!("mdcr_el2", traps.mdcr_el2);
                write_register!("cnthctl_el2", traps.cnthctl_el2);
                write_if_there! {
                    // ICC_SRE_EL2, HCRX_EL2.
                    "S3_4_C12_C9_5" = traps.icc_sre_el2;
                    "S3_4_C1_C2_2" = traps.hcrx_el2;
                    // PMSCR_EL2, TRFCR_EL2, BRBCR_EL2.
                    "S3_4_C9_C9_0" = traps.pmscr_el2;
                    "S3_4_C1_C2_1" = traps.trfcr_el2;
                    "S2_4_C9_C0_0" = traps.brbcr_el2;
                    // MPAM2_EL2, MPAMHCR_EL2.
                    "S3_4_C10_C5_0" = traps.mpam2_el2;
                    "S3_4_C10_C4_0" = traps.mpamhcr_el2;
                }
                if let Some(fine) = &traps.fine_grained {
                    write_fine_grained(fine);
                }
            }
        )*
    };
}

differing! {
    /// Writes EL2's control registers for a guest.
    load_guest: GuestTraps;
    /// Writes EL2's control registers for the host, where they differ for a guest.
    load_host: HostTraps;
}

fn write_traps(traps: &HostTraps) {
    write_register!("cptr_el2", traps.cptr_el2);
    write_if_there! {
        // ICC_SRE_EL2 comes before the registers that it enables.
        "S3_4_C12_C9_5" = traps.icc_sre_el2;
    }
    isb();
    write_register!("mdcr_el2", traps.mdcr_el2);
    write_register!("cnthctl_el2", traps.cnthctl_el2);
    write_register!("cntvoff_el2", traps.cntvoff_el2);
    write_register!("hstr_el2", traps.hstr_el2);
    write_register!("hacr_el2", traps.hacr_el2);
    write_register!("vpidr_el2", traps.vpidr_el2);
    write_register!("vmpidr_el2", traps.vmpidr_el2);
    write_if_there! {
        // HCRX_EL2, ICH_HCR_EL2, ACTLR_EL2.
        "S3_4_C1_C2_2" = traps.hcrx_el2;
        "S3_4_C12_C11_0" = traps.ich_hcr_el2;
        "actlr_el2" = traps.actlr_el2;
        // ZCR_EL2, SMCR_EL2.
        "S3_4_C1_C2_0" = traps.zcr_el2;
        "S3_4_C1_C2_6" = traps.smcr_el2;
        // PMSCR_EL2, TRFCR_EL2, BRBCR_EL2.
        "S3_4_C9_C9_0" = traps.pmscr_el2;
        "S3_4_C1_C2_1" = traps.trfcr_el2;
        "S2_4_C9_C0_0" = traps.brbcr_el2;
        // MPAM2_EL2, MPAMHCR_EL2.
        "S3_4_C10_C5_0" = traps.mpam2_el2;
        "S3_4_C10_C4_0" = traps.mpamhcr_el2;
    }
    if let Some(fine) = &traps.fine_grained {
        write_fine_grained(fine);
    }
}

fn write_fine_grained(traps: &FineGrainedTraps) {
    // HFGRTR_EL2, HFGWTR_EL2, HFGITR_EL2, HDFGRTR_EL2, HDFGWTR_EL2, HAFGRTR_EL2.
    write_register!("S3_4_C1_C1_4", traps.hfgrtr_el2);
    write_register!("S3_4_C1_C1_5", traps.hfgwtr_el2);
    write_register!("S3_4_C1_C1_6", traps.hfgitr_el2);
    write_register!("S3_4_C3_C1_4", traps.hdfgrtr_el2);
    write_register!("S3_4_C3_C1_5", traps.hdfgwtr_el2);
    write_if_there! { "S3_4_C3_C1_6" = traps.hafgrtr_el2; }
    if let Some(second) = &traps.second {
        // HFGRTR2_EL2, HFGWTR2_EL2, HFGITR2_EL2, HDFGRTR2_EL2, HDFGWTR2_EL2.
        write_register!("S3_4_C3_C1_2", second.hfgrtr2_el2);
        write_register!("S3_4_C3_C1_3", second.hfgwtr2_el2);
        write_register!("S3_4_C3_C1_7", second.hfgitr2_el2);
        write_register!("S3_4_C3_C1_0", second.hdfgrtr2_el2);
        write_register!("S3_4_C3_C1_1", second.hdfgwtr2_el2);
    }
}
