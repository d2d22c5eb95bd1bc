//! What EL2's control registers hold while the host runs: as few traps as the promises allow.
//!
//! [`HostTraps::new`] computes every register from the CPU's own ID registers, and the image crate writes them as
//! they are. Each bit that is set has a name and a reason here; every other bit is zero on purpose: what the host
//! does not need trapped is not, and a feature that this code does not know stays closed. Layouts are those of
//! `HCR_EL2.E2H` = 0. A register of a feature that the CPU lacks is `None` and must not be touched.
//!
//! What is barred is what would look into EL2: the PMU stops there, statistical profiling, the trace unit and
//! branch records are prohibited there.
//!
//! Source: Arm ARM DDI 0487, D24.2 and D24.3, the registers by name.

use super::fine_grained::FineGrainedTraps;
use super::id::IdRegisters;
use crate::errata::{Core, Midr};

/// HCR_EL2.VM: stage 2 is on. It also turns the host's invalidations of its data cache into clean and invalidate
/// (DDI 0487, J1.1, `AArch64.DC`), so that none can throw away what EL2 wrote.
pub const HCR_VM: u64 = 1 << 0;
/// HCR_EL2.TID3: reads of the feature ID registers trap, where one of them has something to hide.
pub const HCR_TID3: u64 = 1 << 18;
/// HCR_EL2.TSC: an SMC of EL1 traps, so that PSCI is relayed and the rest is filtered.
pub const HCR_TSC: u64 = 1 << 19;
/// HCR_EL2.TIDCP: the IMPLEMENTATION DEFINED registers and instructions trap, on the cores where some of them
/// show EL1 what is in the caches, EL2's lines too.
pub const HCR_TIDCP: u64 = 1 << 20;
/// HCR_EL2.RW: EL1 is AArch64.
pub const HCR_RW: u64 = 1 << 31;
/// HCR_EL2.TME: transactions are not trapped.
pub const HCR_TME: u64 = 1 << 39;
/// HCR_EL2.APK: the pointer authentication keys are not trapped.
pub const HCR_APK: u64 = 1 << 40;
/// HCR_EL2.API: pointer authentication instructions are not trapped.
pub const HCR_API: u64 = 1 << 41;
/// HCR_EL2.FWB: stage 2 may force write-back. Set when the tables are written for it.
pub const HCR_FWB: u64 = 1 << 46;
/// HCR_EL2.EnSCXT: SCXTNUM_EL0 and SCXTNUM_EL1 are not trapped.
pub const HCR_ENSCXT: u64 = 1 << 53;
/// HCR_EL2.TID5: GMID_EL1 traps. With ATA left at 0, memory has no tags for the host.
pub const HCR_TID5: u64 = 1 << 58;

/// HCRX_EL2.EnAS0: `ST64BV0` is not trapped.
pub const HCRX_ENAS0: u64 = 1 << 0;
/// HCRX_EL2.EnALS: `LD64B` and `ST64B` are not trapped.
pub const HCRX_ENALS: u64 = 1 << 1;
/// HCRX_EL2.EnASR: `ST64BV` is not trapped.
pub const HCRX_ENASR: u64 = 1 << 2;
/// HCRX_EL2.MSCEn: memory copy and set instructions work at EL1 and EL0.
pub const HCRX_MSCEN: u64 = 1 << 11;
/// HCRX_EL2.TCR2En: TCR2_EL1 is not trapped.
pub const HCRX_TCR2EN: u64 = 1 << 14;
/// HCRX_EL2.SCTLR2En: SCTLR2_EL1 is not trapped.
pub const HCRX_SCTLR2EN: u64 = 1 << 15;
/// HCRX_EL2.D128En: the 128-bit translation registers of EL1 are not trapped.
pub const HCRX_D128EN: u64 = 1 << 17;
/// HCRX_EL2.GCSEn: guarded control stacks work at EL1 and EL0.
pub const HCRX_GCSEN: u64 = 1 << 22;
/// HCRX_EL2.EnFPM: FPMR is not trapped.
pub const HCRX_ENFPM: u64 = 1 << 23;
/// HCRX_EL2.PACMEn: `PACM` has its effect at EL1 and EL0.
pub const HCRX_PACMEN: u64 = 1 << 24;

/// MDCR_EL2.HPMN: all event counters are the host's.
pub const MDCR_HPMN: u64 = 0x1f;
/// MDCR_EL2.E2PB: the profiling buffer is EL1's, is translated by the host's stage 2, and is prohibited at EL2.
pub const MDCR_E2PB_EL1: u64 = 0b11 << 12;
/// MDCR_EL2.HPMD: events are not counted at EL2 (FEAT_PMUv3p1).
pub const MDCR_HPMD: u64 = 1 << 17;
/// MDCR_EL2.HCCD: cycles are not counted at EL2 (FEAT_PMUv3p5).
pub const MDCR_HCCD: u64 = 1 << 23;
/// MDCR_EL2.E2TB: the trace buffer is EL1's, is translated by the host's stage 2, and is prohibited at EL2.
pub const MDCR_E2TB_EL1: u64 = 0b11 << 24;

/// CPTR_EL2 bits 13, 9 and 7:0: RES1.
pub const CPTR_RES1: u64 = 1 << 13 | 1 << 9 | 0xff;
/// CPTR_EL2.TZ: SVE traps. RES1 where there is no SVE.
pub const CPTR_TZ: u64 = 1 << 8;
/// CPTR_EL2.TSM: SME traps. RES1 where there is no SME.
pub const CPTR_TSM: u64 = 1 << 12;

/// ZCR_EL2.LEN and SMCR_EL2.LEN: the longest vectors that the CPU has.
pub const VECTOR_LENGTH_MAX: u64 = 0xf;
/// SMCR_EL2.EZT0: ZT0 is not trapped (FEAT_SME2).
pub const SMCR_EZT0: u64 = 1 << 30;
/// SMCR_EL2.FA64: the whole instruction set is legal in streaming mode (FEAT_SME_FA64).
pub const SMCR_FA64: u64 = 1 << 31;

/// CNTHCTL_EL2.EL1PCTEN: the physical counter is not trapped.
pub const CNTHCTL_EL1PCTEN: u64 = 1 << 0;
/// CNTHCTL_EL2.EL1PCEN: the physical timer is not trapped. It is the host's timer.
pub const CNTHCTL_EL1PCEN: u64 = 1 << 1;

/// PMSCR_EL2.PA: samples of the host may hold physical addresses; to the host they are nothing new, for its
/// stage 2 maps each address to itself.
pub const PMSCR_PA: u64 = 1 << 4;
/// PMSCR_EL2.PCT: PMSCR_EL1.PCT selects the timestamp.
pub const PMSCR_PCT_EL1: u64 = 0b01 << 6;
/// BRBCR_EL2.CC: BRBCR_EL1.CC says whether branch records hold cycle counts.
pub const BRBCR_CC: u64 = 1 << 3;
/// BRBCR_EL2.MPRED: BRBCR_EL1.MPRED says whether they hold mispredictions.
pub const BRBCR_MPRED: u64 = 1 << 4;
/// MPAM2_EL2.EnMPAMSM: MPAMSM_EL1 is not trapped.
pub const MPAM2_ENMPAMSM: u64 = 1 << 50;
/// MPAMIDR_EL1.HAS_HCR: MPAMHCR_EL2 exists.
pub const MPAMIDR_HAS_HCR: u64 = 1 << 17;

/// ICC_SRE_EL2: SRE, DFB, DIB and Enable. The system register interface is used at EL2 and EL1, with no bypass,
/// and ICC_SRE_EL1 is not trapped (IHI 0069, 12.2).
pub const ICC_SRE_ALL: u64 = 0xf;

/// ID_AA64SMFR0_EL1.FA64.
const SMFR0_FA64: u64 = 1 << 63;
/// MIDR_EL1.Implementer of Arm Limited.
const IMPLEMENTER_ARM: u64 = 0x41;

/// Cores on which EL1 can read the arrays of the first two levels of cache, line by line, through RAMINDEX and the
/// IL1DATAn_EL1 and DL1DATAn_EL1 registers (Cortex-A57 and A72 Technical Reference Manuals, 4.3). On Arm's later ones
/// that is for EL3 alone.
const CACHES_OPEN_TO_EL1: [Core; 2] = [Core::CORTEX_A57, Core::CORTEX_A72];

/// What the image crate decides or reads besides the ID registers.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Default)]
pub struct Settings {
    /// Whether the host's stage-2 table is written for FEAT_S2FWB.
    pub force_write_back: bool,
    /// PMCR_EL0, on a CPU with a PMU of the architecture ([`IdRegisters::pmu_version`]); otherwise 0.
    pub pmcr: u64,
    /// MPAMIDR_EL1, on a CPU with MPAM ([`IdRegisters::has_mpam`]); otherwise 0.
    pub mpamidr: u64,
    /// MPIDR_EL1.
    pub mpidr: u64,
}

/// The values of EL2's control registers while the host runs on this CPU.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct HostTraps {
    /// HCR_EL2. Written last: with VM set, the host's stage 2 is in force.
    pub hcr_el2: u64,
    /// HCRX_EL2, with FEAT_HCX.
    pub hcrx_el2: Option<u64>,
    /// CPTR_EL2.
    pub cptr_el2: u64,
    /// MDCR_EL2.
    pub mdcr_el2: u64,
    /// CNTHCTL_EL2.
    pub cnthctl_el2: u64,
    /// CNTVOFF_EL2: virtual time is physical time.
    pub cntvoff_el2: u64,
    /// HSTR_EL2: no trap of AArch32 coprocessor accesses.
    pub hstr_el2: u64,
    /// HACR_EL2: no IMPLEMENTATION DEFINED trap.
    pub hacr_el2: u64,
    /// VPIDR_EL2: MIDR_EL1 as the host reads it is the CPU's own.
    pub vpidr_el2: u64,
    /// VMPIDR_EL2: MPIDR_EL1 as the host reads it is the CPU's own.
    pub vmpidr_el2: u64,
    /// ICC_SRE_EL2, with a system register interface to the GIC. Written before any other ICC or ICH register.
    pub icc_sre_el2: Option<u64>,
    /// ICH_HCR_EL2, with the same: no virtual interrupts and no traps.
    pub ich_hcr_el2: Option<u64>,
    /// ACTLR_EL2, on cores of Arm: EL1 may not write the registers that change how the core works, its caches and
    /// its speculation among it. Elsewhere its meaning is unknown, and it is left as the firmware set it.
    pub actlr_el2: Option<u64>,
    /// ZCR_EL2, with SVE. CPTR_EL2 must be in force (ISB) before.
    pub zcr_el2: Option<u64>,
    /// SMCR_EL2, with SME. CPTR_EL2 must be in force (ISB) before.
    pub smcr_el2: Option<u64>,
    /// PMSCR_EL2, with statistical profiling.
    pub pmscr_el2: Option<u64>,
    /// TRFCR_EL2, with trace filtering: no trace at EL2.
    pub trfcr_el2: Option<u64>,
    /// BRBCR_EL2, with branch records.
    pub brbcr_el2: Option<u64>,
    /// MPAM2_EL2, with MPAM.
    pub mpam2_el2: Option<u64>,
    /// MPAMHCR_EL2, with MPAM whose EL2 can virtualize.
    pub mpamhcr_el2: Option<u64>,
    /// The fine-grained traps, with FEAT_FGT.
    pub fine_grained: Option<FineGrainedTraps>,
}

impl HostTraps {
    /// Computes the registers for the CPU that `id` describes.
    #[must_use]
    pub fn new(id: &IdRegisters, settings: Settings) -> Self {
        let with = |present: bool, value: u64| present.then_some(value);
        Self {
            hcr_el2: hcr(id, settings.force_write_back),
            hcrx_el2: with(id.hcx() != 0, hcrx(id)),
            cptr_el2: cptr(id),
            mdcr_el2: mdcr(id, settings.pmcr),
            cnthctl_el2: CNTHCTL_EL1PCTEN | CNTHCTL_EL1PCEN,
            cntvoff_el2: 0,
            hstr_el2: 0,
            hacr_el2: 0,
            vpidr_el2: id.midr,
            vmpidr_el2: settings.mpidr,
            icc_sre_el2: with(id.gic() != 0, ICC_SRE_ALL),
            ich_hcr_el2: with(id.gic() != 0, 0),
            actlr_el2: with(id.midr >> 24 & 0xff == IMPLEMENTER_ARM, 0),
            zcr_el2: with(id.sve() != 0, VECTOR_LENGTH_MAX),
            smcr_el2: with(id.sme() != 0, smcr(id)),
            pmscr_el2: with(id.spe() != 0, PMSCR_PA | PMSCR_PCT_EL1),
            trfcr_el2: with(id.trace_filter() != 0, 0),
            brbcr_el2: with(id.brbe() != 0, BRBCR_CC | BRBCR_MPRED),
            mpam2_el2: with(id.has_mpam(), if id.sme() != 0 { MPAM2_ENMPAMSM } else { 0 }),
            mpamhcr_el2: with(id.has_mpam() && settings.mpamidr & MPAMIDR_HAS_HCR != 0, 0),
            fine_grained: FineGrainedTraps::new(id),
        }
    }
}

/// HCR_EL2. Bits that stay 0 for a reason: IMO, FMO, AMO (interrupts and SError are the host's), FIEN (the error
/// records' fault injection could strike EL2), ATA (no tags), TACR, TSW, TLOR and the other TID bits.
fn hcr(id: &IdRegisters, force_write_back: bool) -> u64 {
    let mut value = HCR_VM | HCR_TSC | HCR_RW;
    if id.pointer_authentication() {
        value |= HCR_APK | HCR_API;
    }
    if id.context_numbers() {
        value |= HCR_ENSCXT;
    }
    if id.tme() != 0 {
        value |= HCR_TME;
    }
    if id.memory_tags() {
        value |= HCR_TID5 | HCR_TID3;
    }
    if Midr::new(id.midr).is_one_of(&CACHES_OPEN_TO_EL1) {
        value |= HCR_TIDCP;
    }
    if force_write_back {
        value |= HCR_FWB;
    }
    value
}

fn hcrx(id: &IdRegisters) -> u64 {
    let mut value = 0;
    // ID_AA64ISAR1_EL1.LS64: 1 is LD64B and ST64B, 2 adds ST64BV, 3 adds ST64BV0.
    for (level, bit) in [(1, HCRX_ENALS), (2, HCRX_ENASR), (3, HCRX_ENAS0)] {
        if id.ls64() >= level {
            value |= bit;
        }
    }
    for (present, bit) in [
        (id.mops(), HCRX_MSCEN),
        (id.tcr2(), HCRX_TCR2EN),
        (id.sctlr2(), HCRX_SCTLR2EN),
        (id.d128(), HCRX_D128EN),
        (id.gcs(), HCRX_GCSEN),
        (id.fpmr(), HCRX_ENFPM),
        (id.pacm(), HCRX_PACMEN),
    ] {
        if present != 0 {
            value |= bit;
        }
    }
    value
}

fn cptr(id: &IdRegisters) -> u64 {
    let mut value = CPTR_RES1;
    if id.sve() == 0 {
        value |= CPTR_TZ;
    }
    if id.sme() == 0 {
        value |= CPTR_TSM;
    }
    value
}

fn smcr(id: &IdRegisters) -> u64 {
    let mut value = VECTOR_LENGTH_MAX;
    if id.sme_version() != 0 {
        value |= SMCR_EZT0;
    }
    if id.smfr0 & SMFR0_FA64 != 0 {
        value |= SMCR_FA64;
    }
    value
}

/// MDCR_EL2. A PMU older than FEAT_PMUv3p1 cannot be barred here: it counts at EL2 what PMEVTYPER.NSH and
/// PMCCFILTR.NSH ask for. MTPME stays 0: a count over all threads of a core would count a sibling at EL2.
fn mdcr(id: &IdRegisters, pmcr: u64) -> u64 {
    let mut value = 0;
    let pmu = id.pmu_version();
    if pmu != 0 {
        // PMCR_EL0.N, bits 15:11.
        value |= pmcr >> 11 & MDCR_HPMN;
    }
    // ID_AA64DFR0_EL1.PMUVer: 4 is FEAT_PMUv3p1, 6 is FEAT_PMUv3p5.
    if pmu >= 4 {
        value |= MDCR_HPMD;
    }
    if pmu >= 6 {
        value |= MDCR_HCCD;
    }
    if id.spe() != 0 {
        value |= MDCR_E2PB_EL1;
    }
    if id.trace_buffer() != 0 {
        value |= MDCR_E2TB_EL1;
    }
    value
}

#[cfg(test)]
mod tests;
