//! What a CPU can do, judged by its ID registers.
//!
//! The image reads the registers into a [`CpuIdentity`]; [`judge_cpu`] refuses a CPU that Freehold cannot run on
//! and names what the rest of the hypervisor asks of the others. Field positions and values: Arm ARM DDI 0487,
//! D24.2 (the ID registers), and D24.1.3 for how to read a value that is not listed: as the highest listed one
//! below it, and as a signed number where the field is one. Errata are not judged here: they go by MIDR_EL1.

mod fields;

use super::refusal::RefusalReason;
use crate::addr::MAX_ADDRESS_BITS;
use fields::{CURRENT_EL, DFR0, HCR, ISAR0, ISAR1, ISAR2, MMFR0, MMFR1, MMFR2, MMFR4, PFR0, PFR1};
use tock_registers::LocalRegisterCopy;

/// The registers that say what a CPU is, as read at the entry to EL2.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct CpuIdentity {
    /// CurrentEL.
    pub current_el: u64,
    /// HCR_EL2 as it reads back after its E2H bit was written 0. (0 if the CPU is not at EL2.)
    pub hcr_el2: u64,
    /// ID_AA64PFR0_EL1.
    pub id_aa64pfr0: u64,
    /// ID_AA64PFR1_EL1.
    pub id_aa64pfr1: u64,
    /// ID_AA64DFR0_EL1.
    pub id_aa64dfr0: u64,
    /// ID_AA64ISAR0_EL1.
    pub id_aa64isar0: u64,
    /// ID_AA64ISAR1_EL1.
    pub id_aa64isar1: u64,
    /// ID_AA64ISAR2_EL1.
    pub id_aa64isar2: u64,
    /// ID_AA64MMFR0_EL1.
    pub id_aa64mmfr0: u64,
    /// ID_AA64MMFR1_EL1.
    pub id_aa64mmfr1: u64,
    /// ID_AA64MMFR2_EL1.
    pub id_aa64mmfr2: u64,
    /// ID_AA64MMFR4_EL1.
    pub id_aa64mmfr4: u64,
}

/// What a CPU has that Freehold acts on.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct CpuFeatures {
    /// Physical address bits, as far as they count without FEAT_LPA2: 32, 36, 40, 42, 44 or 48.
    pub pa_bits: u32,
    /// VTCR_EL2.PS and TCR_EL2.PS for [`CpuFeatures::pa_bits`]: the encoding of ID_AA64MMFR0_EL1.PARange.
    pub pa_range: u64,
    /// Bits of a VMID: 8, or 16 with FEAT_VMID16.
    pub vmid_bits: u32,
    /// FEAT_S2FWB: stage 2 can force write-back, and EL2 need not clean what guests wrote past their caches.
    pub stage2_write_back: bool,
    /// FEAT_TTL: TLBIs take a hint of the level.
    pub tlbi_level_hint: bool,
    /// FEAT_TLBIRANGE: TLBIs by range.
    pub tlbi_range: bool,
    /// Support for changing a block's size without break-before-make: 0 (none) to 2 (FEAT_BBML2).
    pub bbm_level: u8,
    /// FEAT_XNX: stage 2 tells execution at EL1 from execution at EL0.
    pub stage2_execute_by_el: bool,
    /// FEAT_EVT: HCR_EL2 has traps for cache maintenance and TLBIs.
    pub enhanced_traps: bool,
    /// FEAT_FGT: 1, FEAT_FGT2: 2, neither: 0. Their trap registers exist only then.
    pub fine_grained_traps: u8,
    /// FEAT_HCX: HCRX_EL2 exists.
    pub extended_hcr: bool,
    /// FEAT_ECV: 1; with CNTPOFF_EL2: 2; neither: 0.
    pub enhanced_counter: u8,
    /// FEAT_LOR: the LORegion registers exist.
    pub limited_ordering: bool,
    /// FEAT_PAN.
    pub privileged_access_never: bool,
    /// FEAT_RAS.
    pub ras: bool,
    /// FEAT_SSBS: the speculative store bypass can be turned off by PSTATE.SSBS.
    pub ssbs: bool,
    /// The level of FEAT_CSV2: from 1 on, branch targets trained elsewhere do not steer EL2.
    pub csv2: u8,
    /// FEAT_CSV3: no speculation past a faulting load.
    pub csv3: bool,
    /// FEAT_ECBHB: branch history of EL1 does not steer EL2.
    pub branch_history_by_context: bool,
    /// FEAT_CLRBHB: the CLRBHB instruction.
    pub clear_branch_history: bool,
    /// FEAT_SB: the SB instruction.
    pub speculation_barrier: bool,
    /// Any form of pointer authentication (FEAT_PAuth).
    pub pointer_authentication: bool,
    /// FEAT_BTI.
    pub branch_target_identification: bool,
    /// FEAT_RNG: RNDR and RNDRRS.
    pub random_numbers: bool,
    /// Floating point and Advanced SIMD.
    pub simd: bool,
    /// FEAT_SVE.
    pub sve: bool,
    /// FEAT_SME.
    pub sme: bool,
    /// FEAT_MTE at any level: the tag registers or instructions exist.
    pub mte: bool,
    /// FEAT_MPAM.
    pub mpam: bool,
    /// FEAT_AMU: the activity monitors.
    pub activity_monitors: bool,
    /// The version of the architected PMU (FEAT_PMUv3 is 1); 0 if there is none.
    pub pmu_version: u8,
    /// FEAT_SPE: the statistical profiling extension.
    pub statistical_profiling: bool,
    /// FEAT_TRBE: the trace buffer.
    pub trace_buffer: bool,
    /// FEAT_TRF: trace filter controls (TRFCR_EL2).
    pub trace_filter: bool,
    /// FEAT_BRBE: the branch record buffer.
    pub branch_record: bool,
    /// FEAT_GICv4p1 or later in the CPU interface, else plain GICv3 or GICv4.0.
    pub gic_v4_1: bool,
}

/// Judges a CPU.
///
/// # Errors
/// The reason why Freehold cannot run on it.
pub fn judge_cpu(identity: &CpuIdentity) -> Result<CpuFeatures, RefusalReason> {
    let pfr0: LocalRegisterCopy<u64, PFR0::Register> = LocalRegisterCopy::new(identity.id_aa64pfr0);
    let pfr1: LocalRegisterCopy<u64, PFR1::Register> = LocalRegisterCopy::new(identity.id_aa64pfr1);
    let dfr0: LocalRegisterCopy<u64, DFR0::Register> = LocalRegisterCopy::new(identity.id_aa64dfr0);
    let isar0: LocalRegisterCopy<u64, ISAR0::Register> = LocalRegisterCopy::new(identity.id_aa64isar0);
    let isar1: LocalRegisterCopy<u64, ISAR1::Register> = LocalRegisterCopy::new(identity.id_aa64isar1);
    let isar2: LocalRegisterCopy<u64, ISAR2::Register> = LocalRegisterCopy::new(identity.id_aa64isar2);
    let mmfr0: LocalRegisterCopy<u64, MMFR0::Register> = LocalRegisterCopy::new(identity.id_aa64mmfr0);
    let mmfr1: LocalRegisterCopy<u64, MMFR1::Register> = LocalRegisterCopy::new(identity.id_aa64mmfr1);
    let mmfr2: LocalRegisterCopy<u64, MMFR2::Register> = LocalRegisterCopy::new(identity.id_aa64mmfr2);

    refuse_level(identity)?;
    refuse_granule(mmfr0)?;
    if pfr0.read(PFR0::GIC) == 0 {
        return Err(RefusalReason::NoGicCpuInterface);
    }

    let (pa_range, pa_bits) = physical_addresses(mmfr0.read(MMFR0::PARange));
    Ok(CpuFeatures {
        pa_bits,
        pa_range,
        vmid_bits: if mmfr1.read(MMFR1::VMIDBits) >= 2 { 16 } else { 8 },
        stage2_write_back: mmfr2.is_set(MMFR2::FWB),
        tlbi_level_hint: mmfr2.is_set(MMFR2::TTL),
        tlbi_range: isar0.read(ISAR0::TLB) >= 2,
        bbm_level: level(mmfr2.read(MMFR2::BBM), 2),
        stage2_execute_by_el: mmfr1.is_set(MMFR1::XNX),
        enhanced_traps: mmfr2.read(MMFR2::EVT) >= 2,
        fine_grained_traps: level(mmfr0.read(MMFR0::FGT), 2),
        extended_hcr: mmfr1.is_set(MMFR1::HCX),
        enhanced_counter: level(mmfr0.read(MMFR0::ECV), 2),
        limited_ordering: mmfr1.is_set(MMFR1::LO),
        privileged_access_never: mmfr1.is_set(MMFR1::PAN),
        ras: pfr0.is_set(PFR0::RAS),
        ssbs: pfr1.is_set(PFR1::SSBS),
        csv2: level(pfr0.read(PFR0::CSV2), 3),
        csv3: pfr0.is_set(PFR0::CSV3),
        branch_history_by_context: mmfr1.is_set(MMFR1::ECBHB),
        clear_branch_history: isar2.is_set(ISAR2::CLRBHB),
        speculation_barrier: isar1.is_set(ISAR1::SB),
        pointer_authentication: isar1.is_set(ISAR1::APA)
            || isar1.is_set(ISAR1::API)
            || isar2.is_set(ISAR2::APA3),
        branch_target_identification: pfr1.is_set(PFR1::BT),
        random_numbers: isar0.is_set(ISAR0::RNDR),
        simd: !is_negative(pfr0.read(PFR0::AdvSIMD)) && !is_negative(pfr0.read(PFR0::FP)),
        sve: pfr0.is_set(PFR0::SVE),
        sme: pfr1.is_set(PFR1::SME),
        mte: pfr1.is_set(PFR1::MTE),
        mpam: pfr0.is_set(PFR0::MPAM) || pfr1.is_set(PFR1::MPAM_frac),
        activity_monitors: pfr0.is_set(PFR0::AMU),
        pmu_version: match dfr0.read(DFR0::PMUVer) {
            // A PMU of the implementer's own.
            0xf => 0,
            version => level(version, 0xe),
        },
        statistical_profiling: dfr0.is_set(DFR0::PMSVer),
        trace_buffer: dfr0.is_set(DFR0::TraceBuffer),
        trace_filter: dfr0.is_set(DFR0::TraceFilt),
        branch_record: dfr0.is_set(DFR0::BRBE),
        gic_v4_1: pfr0.read(PFR0::GIC) >= 3,
    })
}

/// Refuses a CPU that is not at EL2, or whose EL2 has only the layout of FEAT_VHE.
fn refuse_level(identity: &CpuIdentity) -> Result<(), RefusalReason> {
    let current_el: LocalRegisterCopy<u64, CURRENT_EL::Register> =
        LocalRegisterCopy::new(identity.current_el);
    let mmfr4: LocalRegisterCopy<u64, MMFR4::Register> = LocalRegisterCopy::new(identity.id_aa64mmfr4);
    let hcr: LocalRegisterCopy<u64, HCR::Register> = LocalRegisterCopy::new(identity.hcr_el2);
    match current_el.read(CURRENT_EL::EL) {
        2 => {}
        other => return Err(RefusalReason::NotEl2(level(other, 3))),
    }
    // E2H0 is signed: 0b1111 and 0b1110 say that FEAT_E2H0 is not there, which makes HCR_EL2.E2H RES1. CPUs that
    // are older than the field and have no other layout show it in the bit itself.
    if is_negative(mmfr4.read(MMFR4::E2H0)) || hcr.is_set(HCR::E2H) {
        return Err(RefusalReason::E2hRes1);
    }
    Ok(())
}

/// Refuses a CPU without the 4 KiB granule at both stages.
fn refuse_granule(mmfr0: LocalRegisterCopy<u64, MMFR0::Register>) -> Result<(), RefusalReason> {
    let stage1 = !is_negative(mmfr0.read(MMFR0::TGran4));
    // 0 says "as at stage 1", 1 "no", 2 "yes" and 3 "yes, with 52 bits".
    let stage2 = match mmfr0.read(MMFR0::TGran4_2) {
        0 => stage1,
        1 => false,
        _ => true,
    };
    if !stage1 {
        return Err(RefusalReason::NoStage1Granule);
    }
    if !stage2 {
        return Err(RefusalReason::NoStage2Granule);
    }
    Ok(())
}

/// PARange's value and bits, cut to the 48 bits that descriptors hold without FEAT_LPA2.
fn physical_addresses(pa_range: u64) -> (u64, u32) {
    match pa_range {
        0 => (0, 32),
        1 => (1, 36),
        2 => (2, 40),
        3 => (3, 42),
        4 => (4, 44),
        _ => (5, MAX_ADDRESS_BITS),
    }
}

/// A level of a feature, cut to the highest one known here.
fn level(field: u64, highest: u8) -> u8 {
    u8::try_from(field).unwrap_or(highest).min(highest)
}

/// Whether a field of four bits is negative as a signed number.
fn is_negative(field: u64) -> bool {
    field & 0b1000 != 0
}

#[cfg(test)]
mod tests;
