//! What a CPU can do, judged by its ID registers.
//!
//! The image reads the registers into a [`CpuIdentity`]; [`judge_cpu`] refuses a CPU that Freehold cannot run on
//! and names what the rest of the hypervisor asks of the others. The values of fields: Arm ARM DDI 0487, D24.2 (the ID
//! registers), and D24.1.3 for how to read a value that is not listed: as the highest listed one below it, and as a
//! signed number where the field is one. Errata are not judged here: they go by MIDR_EL1.

use super::refusal::RefusalReason;
use crate::addr::MAX_ADDRESS_BITS;
use crate::trap::id::IdRegisters;

/// CurrentEL.EL.
const CURRENT_EL_SHIFT: u32 = 2;
/// HCR_EL2.E2H.
const HCR_E2H: u64 = 1 << 34;

/// The registers that say what a CPU is, as read at the entry to EL2.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct CpuIdentity {
    /// CurrentEL.
    pub current_el: u64,
    /// HCR_EL2 as it reads back after its E2H bit was written 0. (0 if the CPU is not at EL2.)
    pub hcr_el2: u64,
    /// Its ID registers.
    pub id: IdRegisters,
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
    /// FEAT_SHA256: SHA-256 in vector registers.
    pub sha256: bool,
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
    let id = &identity.id;
    refuse_level(identity)?;
    refuse_granule(id)?;
    if id.gic() == 0 {
        return Err(RefusalReason::NoGicCpuInterface);
    }

    let (pa_range, pa_bits) = physical_addresses(id.pa_range());
    Ok(CpuFeatures {
        pa_bits,
        pa_range,
        vmid_bits: if id.vmid_bits() >= 2 { 16 } else { 8 },
        stage2_write_back: id.fwb() != 0,
        tlbi_level_hint: id.ttl() != 0,
        tlbi_range: id.tlb() >= 2,
        bbm_level: id.bbm().min(2),
        stage2_execute_by_el: id.xnx() != 0,
        enhanced_traps: id.evt() >= 2,
        fine_grained_traps: id.fgt().min(2),
        extended_hcr: id.hcx() != 0,
        enhanced_counter: id.ecv().min(2),
        limited_ordering: id.lo() != 0,
        privileged_access_never: id.pan() != 0,
        ras: id.ras() != 0,
        ssbs: id.ssbs() != 0,
        csv2: id.csv2().min(3),
        csv3: id.csv3() != 0,
        branch_history_by_context: id.ecbhb() != 0,
        clear_branch_history: id.clrbhb() != 0,
        speculation_barrier: id.sb() != 0,
        pointer_authentication: (id.apa() | id.api() | id.apa3()) != 0,
        branch_target_identification: id.bt() != 0,
        random_numbers: id.rndr() != 0,
        simd: !is_negative(id.adv_simd()) && !is_negative(id.fp()),
        sha256: id.sha2() != 0,
        sve: id.sve() != 0,
        sme: id.sme() != 0,
        mte: id.mte() != 0,
        mpam: id.has_mpam(),
        activity_monitors: id.amu() != 0,
        pmu_version: id.pmu_version(),
        statistical_profiling: id.spe() != 0,
        trace_buffer: id.trace_buffer() != 0,
        trace_filter: id.trace_filter() != 0,
        branch_record: id.brbe() != 0,
        gic_v4_1: id.gic() >= 3,
    })
}

/// Refuses a CPU that is not at EL2, or whose EL2 has only the layout of FEAT_VHE.
fn refuse_level(identity: &CpuIdentity) -> Result<(), RefusalReason> {
    match (identity.current_el >> CURRENT_EL_SHIFT & 0b11) as u8 {
        2 => {}
        other => return Err(RefusalReason::NotEl2(other)),
    }
    // E2H0 is signed: 0b1111 and 0b1110 say that FEAT_E2H0 is not there, which makes HCR_EL2.E2H RES1. CPUs that
    // are older than the field and have no other layout show it in the bit itself.
    if is_negative(identity.id.e2h0()) || identity.hcr_el2 & HCR_E2H != 0 {
        return Err(RefusalReason::E2hRes1);
    }
    Ok(())
}

/// Refuses a CPU without the 4 KiB granule at both stages.
fn refuse_granule(id: &IdRegisters) -> Result<(), RefusalReason> {
    let stage1 = !is_negative(id.tgran4());
    // 0 says "as at stage 1", 1 "no", 2 "yes" and 3 "yes, with 52 bits".
    let stage2 = match id.tgran4_stage2() {
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
fn physical_addresses(pa_range: u8) -> (u64, u32) {
    match pa_range {
        0 => (0, 32),
        1 => (1, 36),
        2 => (2, 40),
        3 => (3, 42),
        4 => (4, 44),
        _ => (5, MAX_ADDRESS_BITS),
    }
}

/// Whether a field of four bits is negative as a signed number.
fn is_negative(field: u8) -> bool {
    field & 0b1000 != 0
}

#[cfg(test)]
mod tests;
