//! What EL2's control registers hold while a guest runs: what a guest is not shown traps, what it is shown does not.
//!
//! [`GuestTraps::new`] computes every register that differs from what it holds while the host runs
//! ([`super::host_traps`]); the others stay as they are: HSTR_EL2 (zero), HACR_EL2, ACTLR_EL2, VPIDR_EL2 (a guest works
//! around the errata of the CPU that it runs on), ZCR_EL2 and SMCR_EL2 (SVE and SME trap). VMPIDR_EL2 is the vCPU's
//! ([`super::guest_id::mpidr`]), VTCR_EL2 and VTTBR_EL2 are the VM's ([`super::stage2`]), and CNTVOFF_EL2 is the vCPU's. Each bit
//! that is set has a name and a reason here; every other bit is zero on purpose, and where that is not plain the functions
//! below say why. Layouts are those of `HCR_EL2.E2H` = 0. A register of a feature that the CPU lacks is `None` and must not be
//! touched, and no bit is set of a feature that it lacks.
//!
//! Traps are not all. What the host has set up to watch EL1 and EL0 would watch the guest: [`Watchers`] names what the
//! image must turn off before a guest's first instruction, and turn on again after its last.
//!
//! Source: Arm ARM DDI 0487, D24.2 and D24.3, the registers by name.

mod fine_grained;

use super::fine_grained::FineGrainedTraps;
use super::host_traps::{
    CNTHCTL_EL1PCTEN, CPTR_RES1, CPTR_TSM, CPTR_TZ, HCR_API, HCR_APK, HCR_FWB, HCR_RW, HCR_TID3, HCR_TID5,
    HCR_TIDCP, HCR_TSC, HCR_VM, HCRX_MSCEN, MDCR_HCCD, MDCR_HPMD, MDCR_HPMN, MPAMIDR_HAS_HCR,
};
use super::id::IdRegisters;

/// HCR_EL2.SWIO: an invalidation by set and way is clean and invalidate, for what lies in the cache is not the guest's
/// alone. TSW has it trapped before that.
pub const HCR_SWIO: u64 = 1 << 1;
/// HCR_EL2.PTW: a walk of the guest's own tables that goes to a device faults, and does not read it.
pub const HCR_PTW: u64 = 1 << 2;
/// HCR_EL2.FMO: a physical FIQ goes to EL2, for it is the host's. The guest's come from the list registers.
pub const HCR_FMO: u64 = 1 << 3;
/// HCR_EL2.IMO: the same for IRQs. With it, or FMO, writes of ICC_SGI1R_EL1 and its kin trap (IHI 0069, 12.2).
pub const HCR_IMO: u64 = 1 << 4;
/// HCR_EL2.AMO: an SError goes to EL2, for it is the host's, too. DISR_EL1 then means VDISR_EL2 to the guest.
pub const HCR_AMO: u64 = 1 << 5;
/// HCR_EL2.FB: TLB and instruction cache maintenance that is for one CPU is for all, and so is branch predictor
/// maintenance, because the vCPU may have run on another and may go back there.
pub const HCR_FB: u64 = 1 << 9;
/// HCR_EL2.BSU, 0b01: a barrier reaches the inner shareable domain at least, for the same reason.
pub const HCR_BSU_INNER: u64 = 0b01 << 10;
/// HCR_EL2.TWI: `WFI` traps (and `WFIT`): the host can use the CPU meanwhile.
pub const HCR_TWI: u64 = 1 << 13;
/// HCR_EL2.TWE: `WFE` traps (and `WFET`), for the same reason. One whose event has come is not a wait, and does not.
pub const HCR_TWE: u64 = 1 << 14;
/// HCR_EL2.TID1: REVIDR_EL1, AIDR_EL1 and SMIDR_EL1 trap. The last belongs to SME; the others could tell more of the
/// core than the list of features does.
pub const HCR_TID1: u64 = 1 << 16;
/// HCR_EL2.TACR: ACTLR_EL1 traps: it changes how the core works.
pub const HCR_TACR: u64 = 1 << 21;
/// HCR_EL2.TSW: cache maintenance by set and way traps: it reaches lines of everybody, and means nothing to a vCPU
/// that may change CPUs.
pub const HCR_TSW: u64 = 1 << 22;
/// HCR_EL2.TLOR: the LORegion registers trap (FEAT_LOR): they are the host's.
pub const HCR_TLOR: u64 = 1 << 35;
/// HCR_EL2.TERR: the error records trap (FEAT_RAS): they tell of the whole machine.
pub const HCR_TERR: u64 = 1 << 36;

/// HCRX_EL2.TALLINT: a write that sets PSTATE.ALLINT traps (FEAT_NMI): it would mask what a guest is not shown.
pub const HCRX_TALLINT: u64 = 1 << 6;

/// CPTR_EL2.TFP: floating point and Advanced SIMD trap, until the image has saved the host's registers and loaded the
/// guest's. It then clears this bit, and none else.
pub const CPTR_TFP: u64 = 1 << 10;
/// CPTR_EL2.TTA: the registers of the trace unit trap.
pub const CPTR_TTA: u64 = 1 << 20;
/// CPTR_EL2.TAM: the activity monitors trap (FEAT_AMUv1).
pub const CPTR_TAM: u64 = 1 << 30;

/// MDCR_EL2.TPMCR: PMCR_EL0 traps.
pub const MDCR_TPMCR: u64 = 1 << 5;
/// MDCR_EL2.TPM: all registers of the PMU trap. The counters are the host's.
pub const MDCR_TPM: u64 = 1 << 6;
/// MDCR_EL2.TDA: the breakpoints, the watchpoints and MDSCR_EL1 trap. The registers hold what the host has in them.
pub const MDCR_TDA: u64 = 1 << 9;
/// MDCR_EL2.TDOSA: the OS lock and the registers of powering down trap.
pub const MDCR_TDOSA: u64 = 1 << 10;
/// MDCR_EL2.TDRA: MDRAR_EL1 traps, which says where the debug registers lie in memory.
pub const MDCR_TDRA: u64 = 1 << 11;
/// MDCR_EL2.TPMS: the sampling controls trap (FEAT_SPE). Those of the buffer do because E2PB is 0.
pub const MDCR_TPMS: u64 = 1 << 14;
/// MDCR_EL2.TTRF: TRFCR_EL1 traps (FEAT_TRF).
pub const MDCR_TTRF: u64 = 1 << 19;
/// MDCR_EL2.TDCC: the debug communications channel traps (FEAT_FGT; TDA has most of it trapped before).
pub const MDCR_TDCC: u64 = 1 << 27;

/// ICC_SRE_EL2: SRE, DFB, DIB, and not Enable: ICC_SRE_EL1 traps, where it is not fixed, for what a guest wrote there
/// would hold for the host (IHI 0069, 12.2).
pub const ICC_SRE_GUEST: u64 = 0b0111;

/// ICH_HCR_EL2.En: the virtual CPU interface works.
pub const ICH_HCR_EN: u64 = 1 << 0;
/// What the host may say in ICH_HCR_EL2: which maintenance interrupts are on (UIE to VGrp1DIE, bits 7:1), and EOIcount
/// (bits 31:27). Traps of the interface (TC, TALL0, TALL1, TSEI, TDIR) and what GICv4 adds are not its to choose.
pub const ICH_HCR_HOST: u64 = 0x1f << 27 | 0x7f << 1;

/// MPAM2_EL2.TRAPMPAM1EL1: MPAM1_EL1 traps.
pub const MPAM2_TRAPMPAM1EL1: u64 = 1 << 48;
/// MPAM2_EL2.TRAPMPAM0EL1: MPAM0_EL1 traps.
pub const MPAM2_TRAPMPAM0EL1: u64 = 1 << 49;
/// MPAM2_EL2.TIDR: MPAMIDR_EL1 traps, on CPUs with MPAMIDR_EL1.HAS_TIDR.
pub const MPAM2_TIDR: u64 = 1 << 58;
/// MPAMIDR_EL1.HAS_TIDR.
pub const MPAMIDR_HAS_TIDR: u64 = 1 << 58;
/// MPAMHCR_EL2.TRAP_MPAMIDR_EL1: MPAMIDR_EL1 traps.
pub const MPAMHCR_TRAP_MPAMIDR: u64 = 1 << 31;

/// What the image decides or reads besides the ID registers.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Default)]
pub struct GuestSettings {
    /// Whether guests' stage-2 tables are written for FEAT_S2FWB.
    pub force_write_back: bool,
    /// Whether guests have pointer authentication: whether the CPU that booted has it, for that is what they are shown
    /// ([`super::guest_id`]).
    pub pointer_authentication: bool,
    /// PMCR_EL0, on a CPU with a PMU of the architecture ([`IdRegisters::pmu_version`]); otherwise 0.
    pub pmcr: u64,
    /// MPAMIDR_EL1, on a CPU with MPAM ([`IdRegisters::has_mpam`]); otherwise 0.
    pub mpamidr: u64,
}

/// The values of EL2's control registers while a guest runs on this CPU.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct GuestTraps {
    /// HCR_EL2.
    pub hcr_el2: u64,
    /// HCRX_EL2, with FEAT_HCX.
    pub hcrx_el2: Option<u64>,
    /// CPTR_EL2, until the guest's first use of floating point: then without [`CPTR_TFP`].
    pub cptr_el2: u64,
    /// MDCR_EL2. Written after the [`Watchers`] are off: it takes their buffers from EL1.
    pub mdcr_el2: u64,
    /// CNTHCTL_EL2: the physical timer, which stays the host's and may fire, traps.
    pub cnthctl_el2: u64,
    /// ICC_SRE_EL2, with a system register interface to the GIC.
    pub icc_sre_el2: Option<u64>,
    /// PMSCR_EL2, with statistical profiling: no samples.
    pub pmscr_el2: Option<u64>,
    /// TRFCR_EL2, with trace filtering: no trace at EL2.
    pub trfcr_el2: Option<u64>,
    /// BRBCR_EL2, with branch records: nothing of what they may hold.
    pub brbcr_el2: Option<u64>,
    /// MPAM2_EL2, with MPAM.
    pub mpam2_el2: Option<u64>,
    /// MPAMHCR_EL2, with MPAM whose EL2 can virtualize.
    pub mpamhcr_el2: Option<u64>,
    /// The fine-grained traps, with FEAT_FGT.
    pub fine_grained: Option<FineGrainedTraps>,
}

impl GuestTraps {
    /// Computes the registers for the CPU that `id` describes, which is the one on which the guest runs.
    #[must_use]
    pub fn new(id: &IdRegisters, settings: GuestSettings) -> Self {
        let with = |present: bool, value: u64| present.then_some(value);
        Self {
            hcr_el2: hcr(id, settings),
            hcrx_el2: with(id.hcx() != 0, hcrx(id)),
            cptr_el2: cptr(id),
            mdcr_el2: mdcr(id, settings.pmcr),
            cnthctl_el2: CNTHCTL_EL1PCTEN,
            icc_sre_el2: with(id.gic() != 0, ICC_SRE_GUEST),
            pmscr_el2: with(id.spe() != 0, 0),
            trfcr_el2: with(id.trace_filter() != 0, 0),
            brbcr_el2: with(id.brbe() != 0, 0),
            mpam2_el2: with(id.has_mpam(), mpam2(settings.mpamidr)),
            mpamhcr_el2: with(
                id.has_mpam() && settings.mpamidr & MPAMIDR_HAS_HCR != 0,
                MPAMHCR_TRAP_MPAMIDR,
            ),
            fine_grained: fine_grained::fine_grained(id, settings.pointer_authentication),
        }
    }
}

/// ICH_HCR_EL2 while a guest runs: the interface works, and of what the host asks for, what is its to ask.
#[must_use]
pub const fn ich_hcr(asked: u64) -> u64 {
    ICH_HCR_EN | asked & ICH_HCR_HOST
}

/// What on this CPU the host may have told to watch EL1 and EL0. While a guest runs it must be off: with a protected
/// guest it would show what the guest does, and with any guest it would count for the wrong one.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Default)]
pub struct Watchers {
    /// The PMU counts. Off: PMCR_EL0.E = 0; on again: as it was.
    pub counters: bool,
    /// Statistical profiling takes samples, to addresses of the host's. Off: PMSCR_EL1 = 0, then ISB, `PSB CSYNC`,
    /// `DSB`, so that the last samples are written while the host's stage 2 still translates the buffer's addresses.
    pub profiling: bool,
    /// The trace unit traces EL1 and EL0. Off: TRFCR_EL1 = 0, then ISB, and with a trace buffer `TSB CSYNC`, `DSB`.
    pub trace: bool,
    /// The trace unit writes to a buffer at addresses of the host's.
    pub trace_buffer: bool,
    /// Branches are recorded. Off: BRBCR_EL1 = 0.
    pub branch_records: bool,
}

impl Watchers {
    /// What the CPU that `id` describes has of them.
    #[must_use]
    pub const fn of(id: &IdRegisters) -> Self {
        Self {
            counters: id.pmu_version() != 0,
            profiling: id.spe() != 0,
            trace: id.trace_filter() != 0,
            trace_buffer: id.trace_buffer() != 0,
            branch_records: id.brbe() != 0,
        }
    }
}

/// HCR_EL2. Bits that stay 0 for a reason:
/// - TID2, TID4: CTR_EL0, CLIDR_EL1, CCSIDR_EL1 and CSSELR_EL1 are the CPU's own, and EL0 reads the first often;
/// - TEA: a synchronous external abort is the guest's own load, store or walk, and EL2 would only hand it on. (One on a
///   walk of stage 2 comes to EL2 in any case.);
/// - TPCP, TPU, TOCU, TICAB, TTLB, TTLBIS, TTLBOS: maintenance by address, and of its own VMID's TLB entries, is the
///   guest's right;
/// - TVM, TRVM, TDZ, HCD: so are its tables, `DC ZVA`, and `HVC`;
/// - TGE, DC, CD, ID, E2H, NV, NV1, NV2, AT: a guest has an EL1 of its own with caches, and no EL2;
/// - VF, VI, VSE: virtual interrupts come from the list registers;
/// - FIEN, EnSCXT, ATA, TME, AMVOFFEN: 0 has the feature trapped or disabled. DCT has no effect without DC;
/// - TWEDEn: a `WFE` traps at once.
fn hcr(id: &IdRegisters, settings: GuestSettings) -> u64 {
    let mut value = HCR_VM
        | HCR_SWIO
        | HCR_PTW
        | HCR_FMO
        | HCR_IMO
        | HCR_AMO
        | HCR_FB
        | HCR_BSU_INNER
        | HCR_TWI
        | HCR_TWE
        | HCR_TID1
        | HCR_TID3
        | HCR_TSC
        | HCR_TIDCP
        | HCR_TACR
        | HCR_TSW
        | HCR_RW;
    for (present, bits) in [
        (id.lo() != 0, HCR_TLOR),
        (id.ras() != 0, HCR_TERR),
        (id.memory_tags(), HCR_TID5),
        (
            id.pointer_authentication() && settings.pointer_authentication,
            HCR_API | HCR_APK,
        ),
        (settings.force_write_back, HCR_FWB),
    ] {
        if present {
            value |= bits;
        }
    }
    value
}

/// HCRX_EL2. Most bits open a feature, and stay 0. MCE2 stays 0: an exception of a memory operation that changed CPUs is
/// for EL1. So does SMPME: there is no SME. FnXS, CMOW, SnERR, TMEA and PTTWI change what other things do.
fn hcrx(id: &IdRegisters) -> u64 {
    let mut value = 0;
    if id.mops() != 0 {
        value |= HCRX_MSCEN;
    }
    if id.nmi() != 0 {
        value |= HCRX_TALLINT;
    }
    value
}

/// CPTR_EL2. TCPAC stays 0: CPACR_EL1 is the guest's own.
fn cptr(id: &IdRegisters) -> u64 {
    let mut value = CPTR_RES1 | CPTR_TZ | CPTR_TSM | CPTR_TFP;
    if id.trace_version() != 0 {
        value |= CPTR_TTA;
    }
    if id.amu() != 0 {
        value |= CPTR_TAM;
    }
    value
}

/// MDCR_EL2. Bits that stay 0 for a reason: TDE (a `BRK` is for the guest's own kernel, and as MDSCR_EL1 is zero there
/// are no other debug exceptions), HPME, E2PB and E2TB (the buffers' controls trap), EnSPM (the system PMU traps), EBWE,
/// EnSTEPOP and PMEE (what they open is not shown), MTPME and HPMFZO. HPMN stays what the host has: 0 is CONSTRAINED
/// UNPREDICTABLE on most CPUs.
fn mdcr(id: &IdRegisters, pmcr: u64) -> u64 {
    let mut value = MDCR_TDA | MDCR_TDOSA | MDCR_TDRA;
    let pmu = id.pmu_version();
    if pmu != 0 {
        // PMCR_EL0.N, bits 15:11.
        value |= MDCR_TPM | MDCR_TPMCR | pmcr >> 11 & MDCR_HPMN;
    }
    for (present, bit) in [
        // 4 is FEAT_PMUv3p1, 6 is FEAT_PMUv3p5.
        (pmu >= 4, MDCR_HPMD),
        (pmu >= 6, MDCR_HCCD),
        (id.spe() != 0, MDCR_TPMS),
        (id.trace_filter() != 0, MDCR_TTRF),
        (id.fgt() != 0, MDCR_TDCC),
    ] {
        if present {
            value |= bit;
        }
    }
    value
}

/// MPAM2_EL2. EnMPAMSM stays 0, so that MPAMSM_EL1 traps. The partition of EL2 stays the default one, and a guest runs in
/// the one that the host left in MPAM1_EL1 and MPAM0_EL1.
fn mpam2(mpamidr: u64) -> u64 {
    let mut value = MPAM2_TRAPMPAM0EL1 | MPAM2_TRAPMPAM1EL1;
    if mpamidr & MPAMIDR_HAS_TIDR != 0 {
        value |= MPAM2_TIDR;
    }
    value
}

#[cfg(test)]
mod tests;
