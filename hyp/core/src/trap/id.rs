//! The ID registers of one CPU, and the fields of them that anything here is decided by.
//!
//! The image crate reads the registers; an encoding that the CPU does not define reads as zero (DDI 0487, D23.3,
//! the ID space is RAZ), so a field here is zero where its feature is absent.

/// ID registers of one CPU, as they were read.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Default)]
pub struct IdRegisters {
    /// MIDR_EL1.
    pub midr: u64,
    /// ID_AA64PFR0_EL1.
    pub pfr0: u64,
    /// ID_AA64PFR1_EL1.
    pub pfr1: u64,
    /// ID_AA64PFR2_EL1 (S3_0_C0_C4_2).
    pub pfr2: u64,
    /// ID_AA64SMFR0_EL1 (S3_0_C0_C4_5).
    pub smfr0: u64,
    /// ID_AA64DFR0_EL1.
    pub dfr0: u64,
    /// ID_AA64DFR1_EL1.
    pub dfr1: u64,
    /// ID_AA64ISAR0_EL1.
    pub isar0: u64,
    /// ID_AA64ISAR1_EL1.
    pub isar1: u64,
    /// ID_AA64ISAR2_EL1 (S3_0_C0_C6_2).
    pub isar2: u64,
    /// ID_AA64ISAR3_EL1 (S3_0_C0_C6_3).
    pub isar3: u64,
    /// ID_AA64MMFR0_EL1.
    pub mmfr0: u64,
    /// ID_AA64MMFR1_EL1.
    pub mmfr1: u64,
    /// ID_AA64MMFR2_EL1.
    pub mmfr2: u64,
    /// ID_AA64MMFR3_EL1 (S3_0_C0_C7_3).
    pub mmfr3: u64,
    /// ID_AA64MMFR4_EL1 (S3_0_C0_C7_4).
    pub mmfr4: u64,
}

/// Defines an accessor for one four-bit field.
macro_rules! fields {
    ($($(#[doc = $doc:literal])* $name:ident = $register:ident[$shift:literal];)*) => {
        impl IdRegisters {
            $(
                $(#[doc = $doc])*
                #[must_use]
                #[inline]
                pub const fn $name(&self) -> u8 {
                    (self.$register >> $shift) as u8 & 0xf
                }
            )*
        }
    };
}

fields! {
    /// ID_AA64PFR0_EL1.CSV3.
    csv3 = pfr0[60];
    /// ID_AA64PFR0_EL1.CSV2.
    csv2 = pfr0[56];
    /// ID_AA64PFR0_EL1.DIT.
    dit = pfr0[48];
    /// ID_AA64PFR0_EL1.AMU.
    amu = pfr0[44];
    /// ID_AA64PFR0_EL1.MPAM: the major version.
    mpam = pfr0[40];
    /// ID_AA64PFR0_EL1.SVE.
    sve = pfr0[32];
    /// ID_AA64PFR0_EL1.RAS.
    ras = pfr0[28];
    /// ID_AA64PFR0_EL1.GIC: a system register interface, if not zero.
    gic = pfr0[24];
    /// ID_AA64PFR0_EL1.AdvSIMD: signed, negative if there is none.
    adv_simd = pfr0[20];
    /// ID_AA64PFR0_EL1.FP: signed, negative if there is none.
    fp = pfr0[16];
    /// ID_AA64PFR1_EL1.DF2.
    double_fault2 = pfr1[56];
    /// ID_AA64PFR1_EL1.PFAR.
    pfar = pfr1[60];
    /// ID_AA64PFR1_EL1.THE.
    the = pfr1[48];
    /// ID_AA64PFR1_EL1.GCS.
    gcs = pfr1[44];
    /// ID_AA64PFR1_EL1.NMI.
    nmi = pfr1[36];
    /// ID_AA64PFR1_EL1.CSV2_frac.
    csv2_frac = pfr1[32];
    /// ID_AA64PFR1_EL1.SME.
    sme = pfr1[24];
    /// ID_AA64PFR1_EL1.MPAM_frac: the minor version.
    mpam_frac = pfr1[16];
    /// ID_AA64PFR1_EL1.MTE: 1 is the instructions alone, 2 and more is tags in memory.
    mte = pfr1[8];
    /// ID_AA64PFR1_EL1.SSBS.
    ssbs = pfr1[4];
    /// ID_AA64PFR1_EL1.BT: branch target identification.
    bt = pfr1[0];
    /// ID_AA64PFR2_EL1.FPMR.
    fpmr = pfr2[32];
    /// ID_AA64SMFR0_EL1.SMEver.
    sme_version = smfr0[56];
    /// ID_AA64DFR0_EL1.BRBE.
    brbe = dfr0[52];
    /// ID_AA64DFR0_EL1.TraceBuffer.
    trace_buffer = dfr0[44];
    /// ID_AA64DFR0_EL1.TraceFilt.
    trace_filter = dfr0[40];
    /// ID_AA64DFR0_EL1.PMSVer: the Statistical Profiling Extension.
    spe = dfr0[32];
    /// ID_AA64DFR0_EL1.PMSS: PMU snapshots.
    pmu_snapshot = dfr0[16];
    /// ID_AA64DFR0_EL1.PMUVer: 15 is IMPLEMENTATION DEFINED, and none of ours.
    pmu = dfr0[8];
    /// ID_AA64DFR0_EL1.TraceVer: whether the trace unit has system registers.
    trace_version = dfr0[4];
    /// ID_AA64DFR1_EL1.EBEP.
    ebep = dfr1[48];
    /// ID_AA64DFR1_EL1.ITE: instrumentation trace.
    instrumentation_trace = dfr1[44];
    /// ID_AA64DFR1_EL1.PMICNTR.
    pmu_instruction_counter = dfr1[36];
    /// ID_AA64ISAR0_EL1.RNDR: random numbers.
    rndr = isar0[60];
    /// ID_AA64ISAR0_EL1.TLB: 1 is the outer shareable TLBIs, 2 adds TLBIs by range.
    tlb = isar0[56];
    /// ID_AA64ISAR0_EL1.SHA2: 1 is FEAT_SHA256, 2 adds FEAT_SHA512.
    sha2 = isar0[12];
    /// ID_AA64ISAR0_EL1.TME.
    tme = isar0[24];
    /// ID_AA64ISAR1_EL1.LS64.
    ls64 = isar1[60];
    /// ID_AA64ISAR1_EL1.SB: the speculation barrier.
    sb = isar1[36];
    /// ID_AA64ISAR1_EL1.GPI.
    gpi = isar1[28];
    /// ID_AA64ISAR1_EL1.GPA.
    gpa = isar1[24];
    /// ID_AA64ISAR1_EL1.API.
    api = isar1[8];
    /// ID_AA64ISAR1_EL1.APA.
    apa = isar1[4];
    /// ID_AA64ISAR2_EL1.CLRBHB.
    clrbhb = isar2[28];
    /// ID_AA64ISAR2_EL1.MOPS.
    mops = isar2[16];
    /// ID_AA64ISAR2_EL1.APA3.
    apa3 = isar2[12];
    /// ID_AA64ISAR2_EL1.GPA3.
    gpa3 = isar2[8];
    /// ID_AA64ISAR3_EL1.PACM.
    pacm = isar3[12];
    /// ID_AA64MMFR0_EL1.ECV: 1 is FEAT_ECV, 2 adds CNTPOFF_EL2.
    ecv = mmfr0[60];
    /// ID_AA64MMFR0_EL1.FGT: 1 is FEAT_FGT, 2 is FEAT_FGT2.
    fgt = mmfr0[56];
    /// ID_AA64MMFR0_EL1.TGran4_2: the 4 KiB granule at stage 2; 0 is "as at stage 1", 1 "not there".
    tgran4_stage2 = mmfr0[40];
    /// ID_AA64MMFR0_EL1.TGran4: the 4 KiB granule; signed, negative if it is not there.
    tgran4 = mmfr0[28];
    /// ID_AA64MMFR0_EL1.PARange: the size of physical addresses.
    pa_range = mmfr0[0];
    /// ID_AA64MMFR1_EL1.ECBHB.
    ecbhb = mmfr1[60];
    /// ID_AA64MMFR1_EL1.HCX.
    hcx = mmfr1[40];
    /// ID_AA64MMFR1_EL1.XNX: stage 2 tells execution at EL1 from execution at EL0.
    xnx = mmfr1[28];
    /// ID_AA64MMFR1_EL1.PAN.
    pan = mmfr1[20];
    /// ID_AA64MMFR1_EL1.LO: LORegions.
    lo = mmfr1[16];
    /// ID_AA64MMFR1_EL1.VMIDBits: 2 is VMIDs of 16 bits.
    vmid_bits = mmfr1[4];
    /// ID_AA64MMFR2_EL1.EVT: traps of cache maintenance and TLBIs; 2 is all of them.
    evt = mmfr2[56];
    /// ID_AA64MMFR2_EL1.BBM: what a change of a block's size needs.
    bbm = mmfr2[52];
    /// ID_AA64MMFR2_EL1.TTL: TLBIs take a hint of the level.
    ttl = mmfr2[48];
    /// ID_AA64MMFR2_EL1.FWB: stage 2 can force write-back.
    fwb = mmfr2[40];
    /// ID_AA64MMFR2_EL1.UAO.
    uao = mmfr2[4];
    /// ID_AA64MMFR3_EL1.D128.
    d128 = mmfr3[32];
    /// ID_AA64MMFR3_EL1.AIE.
    aie = mmfr3[24];
    /// ID_AA64MMFR3_EL1.S1POE.
    s1poe = mmfr3[16];
    /// ID_AA64MMFR3_EL1.S1PIE.
    s1pie = mmfr3[8];
    /// ID_AA64MMFR3_EL1.SCTLRX.
    sctlr2 = mmfr3[4];
    /// ID_AA64MMFR3_EL1.TCRX.
    tcr2 = mmfr3[0];
    /// ID_AA64MMFR4_EL1.E2H0: signed, negative if HCR_EL2.E2H is RES1.
    e2h0 = mmfr4[24];
}

impl IdRegisters {
    /// Those of a CPU in which every field is zero.
    pub const NONE: Self = Self {
        midr: 0,
        pfr0: 0,
        pfr1: 0,
        pfr2: 0,
        smfr0: 0,
        dfr0: 0,
        dfr1: 0,
        isar0: 0,
        isar1: 0,
        isar2: 0,
        isar3: 0,
        mmfr0: 0,
        mmfr1: 0,
        mmfr2: 0,
        mmfr3: 0,
        mmfr4: 0,
    };

    /// Whether the CPU has a PMU of the architecture, and which version; 0 if it has none.
    #[must_use]
    pub const fn pmu_version(&self) -> u8 {
        match self.pmu() {
            0xf => 0,
            version => version,
        }
    }

    /// Whether the CPU has pointer authentication, of any algorithm, for addresses or generic.
    #[must_use]
    pub const fn pointer_authentication(&self) -> bool {
        (self.apa() | self.api() | self.apa3() | self.gpa() | self.gpi() | self.gpa3()) != 0
    }

    /// Whether memory has tags (FEAT_MTE2 and later).
    #[must_use]
    pub const fn memory_tags(&self) -> bool {
        self.mte() >= 2
    }

    /// Whether SCXTNUM_ELx exist (FEAT_CSV2_2 or FEAT_CSV2_1p2).
    #[must_use]
    pub const fn context_numbers(&self) -> bool {
        self.csv2() >= 2 || (self.csv2() == 1 && self.csv2_frac() >= 2)
    }

    /// Whether the CPU has MPAM, of any version.
    #[must_use]
    pub const fn has_mpam(&self) -> bool {
        (self.mpam() | self.mpam_frac()) != 0
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_implementation_defined_pmu_is_none() {
        for (field, version) in [(0, 0), (1, 1), (6, 6), (0xf, 0)] {
            let id = IdRegisters {
                dfr0: field << 8,
                ..IdRegisters::default()
            };
            assert_eq!(id.pmu_version(), version);
        }
    }

    #[test]
    fn every_algorithm_of_pointer_authentication_counts() {
        for (isar1, isar2) in [
            (1 << 4, 0),
            (1 << 8, 0),
            (1 << 24, 0),
            (1 << 28, 0),
            (0, 1 << 8),
            (0, 1 << 12),
        ] {
            let id = IdRegisters {
                isar1,
                isar2,
                ..IdRegisters::default()
            };
            assert!(id.pointer_authentication());
        }
        assert!(!IdRegisters::default().pointer_authentication());
    }

    #[test]
    fn context_numbers_come_with_two_versions_of_csv2() {
        for (csv2, frac, expected) in [
            (0, 2, false),
            (1, 0, false),
            (1, 1, false),
            (1, 2, true),
            (2, 0, true),
        ] {
            let id = IdRegisters {
                pfr0: csv2 << 56,
                pfr1: frac << 32,
                ..IdRegisters::default()
            };
            assert_eq!(id.context_numbers(), expected);
        }
    }
}
