//! The fine-grained traps while the host runs: none.
//!
//! Most bits of these registers trap when set, and stay zero. Those whose name begins with `n` trap when clear:
//! they are set for the features that this code knows and the CPU has. A feature that this code does not know
//! stays closed, and its registers are UNDEFINED to the host.
//!
//! Source: Arm ARM DDI 0487, D24.2, HFGRTR_EL2, HFGWTR_EL2, HFGITR_EL2, HDFGRTR_EL2, HDFGWTR_EL2, HAFGRTR_EL2 and
//! the second set of FEAT_FGT2.

use super::id::IdRegisters;

/// The fine-grained trap registers, with FEAT_FGT.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct FineGrainedTraps {
    /// HFGRTR_EL2: reads.
    pub hfgrtr_el2: u64,
    /// HFGWTR_EL2: writes.
    pub hfgwtr_el2: u64,
    /// HFGITR_EL2: instructions.
    pub hfgitr_el2: u64,
    /// HDFGRTR_EL2: reads of debug, trace and PMU registers.
    pub hdfgrtr_el2: u64,
    /// HDFGWTR_EL2: writes of them.
    pub hdfgwtr_el2: u64,
    /// HAFGRTR_EL2: reads of the activity monitors, with FEAT_AMUv1.
    pub hafgrtr_el2: Option<u64>,
    /// The second set, with FEAT_FGT2.
    pub second: Option<SecondSet>,
}

/// The fine-grained trap registers that FEAT_FGT2 adds.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct SecondSet {
    /// HFGRTR2_EL2.
    pub hfgrtr2_el2: u64,
    /// HFGWTR2_EL2.
    pub hfgwtr2_el2: u64,
    /// HFGITR2_EL2.
    pub hfgitr2_el2: u64,
    /// HDFGRTR2_EL2.
    pub hdfgrtr2_el2: u64,
    /// HDFGWTR2_EL2.
    pub hdfgwtr2_el2: u64,
}

/// A row of a table below: whether the CPU has the feature, and the bits that open it.
type Row = (bool, u64);

fn open(rows: &[Row]) -> u64 {
    rows.iter()
        .filter(|(present, _)| *present)
        .fold(0, |value, (_, bits)| value | bits)
}

impl FineGrainedTraps {
    /// The registers for the CPU that `id` describes, or `None` if it has no FEAT_FGT.
    #[must_use]
    pub fn new(id: &IdRegisters) -> Option<Self> {
        if id.fgt() == 0 {
            return None;
        }
        let registers = open(&registers(id));
        Some(Self {
            hfgrtr_el2: registers,
            hfgwtr_el2: registers,
            hfgitr_el2: open(&[
                // nGCSPUSHM_EL1, nGCSSTR_EL1, nGCSEPP.
                (id.gcs() != 0, 0b111 << 57),
                // nBRBINJ, nBRBIALL.
                (id.brbe() != 0, 0b11 << 55),
            ]),
            hdfgrtr_el2: open(&[
                // nBRBIDR, nBRBCTL, nBRBDATA.
                (id.brbe() != 0, 0b111 << 59),
                inverse_event_filter(id),
            ]),
            hdfgwtr_el2: open(&[
                // nBRBCTL, nBRBDATA; what nBRBIDR guards is read-only.
                (id.brbe() != 0, 0b11 << 60),
                inverse_event_filter(id),
            ]),
            hafgrtr_el2: (id.amu() != 0).then_some(0),
            second: (id.fgt() >= 2).then(|| SecondSet::new(id)),
        })
    }
}

/// The bits that HFGRTR_EL2 and HFGWTR_EL2 share.
fn registers(id: &IdRegisters) -> [Row; 7] {
    [
        // nACCDATA_EL1 (FEAT_LS64_ACCDATA).
        (id.ls64() >= 3, 1 << 50),
        // nGCS_EL0, nGCS_EL1.
        (id.gcs() != 0, 0b11 << 52),
        // nSMPRI_EL1, nTPIDR2_EL0.
        (id.sme() != 0, 0b11 << 54),
        // nRCWMASK_EL1.
        (id.the() != 0, 1 << 56),
        // nPIRE0_EL1, nPIR_EL1.
        (id.s1pie() != 0, 0b11 << 57),
        // nPOR_EL0, nPOR_EL1.
        (id.s1poe() != 0, 0b11 << 59),
        // nMAIR2_EL1, nAMAIR2_EL1.
        (id.aie() != 0, 0b11 << 62),
    ]
}

/// nPMSNEVFR_EL1 (FEAT_SPEv1p2, which is PMSVer 3).
fn inverse_event_filter(id: &IdRegisters) -> Row {
    (id.spe() >= 3, 1 << 62)
}

impl SecondSet {
    fn new(id: &IdRegisters) -> Self {
        // nPFAR_EL1 (FEAT_PFAR); nRCWSMASK_EL1 (FEAT_THE).
        let shared = [(id.pfar() != 0, 1 << 0), (id.the() != 0, 1 << 2)];
        // nERXGSR_EL1 is for reads alone (FEAT_RASv2).
        let error_groups = (id.ras() >= 3, 1 << 1);
        let debug = debug_registers(id);
        // nPMSSDATA is for reads alone (FEAT_PMUv3_SS), nPMZR_EL0 for writes (FEAT_PMUv3p9, which is PMUVer 9).
        let snapshots = (id.pmu_snapshot() != 0, 1 << 6);
        let zero_counters = (id.pmu_version() >= 9, 1 << 21);
        Self {
            hfgrtr2_el2: open(&shared) | open(&[error_groups]),
            hfgwtr2_el2: open(&shared),
            hfgitr2_el2: 0,
            hdfgrtr2_el2: open(&debug) | open(&[snapshots]),
            hdfgwtr2_el2: open(&debug) | open(&[zero_counters]),
        }
    }
}

/// The bits that HDFGRTR2_EL2 and HDFGWTR2_EL2 share. The system PMU (nSPM…) stays closed: it counts what the
/// whole system does, EL2 included.
fn debug_registers(id: &IdRegisters) -> [Row; 6] {
    [
        // nPMECR_EL1, nPMIAR_EL1 (FEAT_EBEP).
        (id.ebep() != 0, 0b11),
        // nPMICNTR_EL0, nPMICFILTR_EL0 (FEAT_PMUv3_ICNTR).
        (id.pmu_instruction_counter() != 0, 0b11 << 2),
        // nPMUACR_EL1 (FEAT_PMUv3p9).
        (id.pmu_version() >= 9, 1 << 4),
        // nPMSSCR_EL1 (FEAT_PMUv3_SS).
        (id.pmu_snapshot() != 0, 1 << 7),
        // nPMSDSFR_EL1 (FEAT_SPE_FDS, which comes with FEAT_SPEv1p4, PMSVer 5).
        (id.spe() >= 5, 1 << 19),
        // nTRCITECR_EL1 (FEAT_ITE).
        (id.instrumentation_trace() != 0, 1 << 20),
    ]
}

#[cfg(test)]
mod tests {
    use super::*;

    fn with(id: IdRegisters) -> FineGrainedTraps {
        let id = IdRegisters {
            mmfr0: id.mmfr0 | 1 << 56,
            ..id
        };
        FineGrainedTraps::new(&id).unwrap()
    }

    fn second(id: IdRegisters) -> SecondSet {
        with(IdRegisters { mmfr0: 3 << 56, ..id }).second.unwrap()
    }

    const BARE: fn() -> IdRegisters = IdRegisters::default;

    #[test]
    fn a_cpu_with_nothing_else_has_zeros() {
        assert!(FineGrainedTraps::new(&BARE()).is_none());
        assert_eq!(
            with(BARE()),
            FineGrainedTraps {
                hfgrtr_el2: 0,
                hfgwtr_el2: 0,
                hfgitr_el2: 0,
                hdfgrtr_el2: 0,
                hdfgwtr_el2: 0,
                hafgrtr_el2: None,
                second: None,
            }
        );
        assert_eq!(second(BARE()).hdfgrtr2_el2, 0);
    }

    #[test]
    fn each_feature_opens_its_own_registers() {
        for (id, expected) in [
            (
                IdRegisters {
                    isar1: 3 << 60,
                    ..BARE()
                },
                0x0004_0000_0000_0000,
            ),
            (
                IdRegisters {
                    pfr1: 1 << 44,
                    ..BARE()
                },
                0x0030_0000_0000_0000,
            ),
            (
                IdRegisters {
                    pfr1: 1 << 24,
                    ..BARE()
                },
                0x00c0_0000_0000_0000,
            ),
            (
                IdRegisters {
                    pfr1: 1 << 48,
                    ..BARE()
                },
                0x0100_0000_0000_0000,
            ),
            (
                IdRegisters {
                    mmfr3: 1 << 8,
                    ..BARE()
                },
                0x0600_0000_0000_0000,
            ),
            (
                IdRegisters {
                    mmfr3: 1 << 16,
                    ..BARE()
                },
                0x1800_0000_0000_0000,
            ),
            (
                IdRegisters {
                    mmfr3: 1 << 24,
                    ..BARE()
                },
                0xc000_0000_0000_0000_u64,
            ),
        ] {
            assert_eq!(with(id).hfgrtr_el2, expected);
            assert_eq!(with(id).hfgwtr_el2, expected);
        }
        assert_eq!(
            with(IdRegisters {
                pfr1: 1 << 44,
                ..BARE()
            })
            .hfgitr_el2,
            0b111 << 57
        );
    }

    #[test]
    fn branch_records_and_profiling_are_the_hosts() {
        let brbe = with(IdRegisters {
            dfr0: 1 << 52,
            ..BARE()
        });
        assert_eq!(brbe.hfgitr_el2, 0b11 << 55);
        assert_eq!(brbe.hdfgrtr_el2, 0b111 << 59);
        assert_eq!(brbe.hdfgwtr_el2, 0b11 << 60);
        for (version, expected) in [(1, 0), (2, 0), (3, 1 << 62), (5, 1 << 62)] {
            let spe = with(IdRegisters {
                dfr0: version << 32,
                ..BARE()
            });
            assert_eq!((spe.hdfgrtr_el2, spe.hdfgwtr_el2), (expected, expected));
        }
        assert_eq!(
            with(IdRegisters {
                pfr0: 1 << 44,
                ..BARE()
            })
            .hafgrtr_el2,
            Some(0)
        );
    }

    #[test]
    fn the_second_set_knows_reads_from_writes() {
        let ras = second(IdRegisters {
            pfr0: 3 << 28,
            ..BARE()
        });
        assert_eq!((ras.hfgrtr2_el2, ras.hfgwtr2_el2), (0b010, 0));
        let the = second(IdRegisters {
            pfr1: 1 << 48 | 1 << 60,
            ..BARE()
        });
        assert_eq!((the.hfgrtr2_el2, the.hfgwtr2_el2), (0b101, 0b101));
        let pmu = second(IdRegisters {
            dfr0: 9 << 8,
            ..BARE()
        });
        assert_eq!((pmu.hdfgrtr2_el2, pmu.hdfgwtr2_el2), (1 << 4, 1 << 4 | 1 << 21));
        let snapshots = second(IdRegisters {
            dfr0: 1 << 16,
            ..BARE()
        });
        assert_eq!(
            (snapshots.hdfgrtr2_el2, snapshots.hdfgwtr2_el2),
            (0b11 << 6, 1 << 7)
        );
        let events = second(IdRegisters {
            dfr1: 1 << 48 | 1 << 36 | 1 << 44,
            ..BARE()
        });
        assert_eq!(events.hdfgrtr2_el2, 0b1111 | 1 << 20);
        let spe = second(IdRegisters {
            dfr0: 5 << 32,
            ..BARE()
        });
        assert_eq!(spe.hdfgwtr2_el2, 1 << 19);
    }

    #[test]
    fn no_bit_that_traps_when_set_is_ever_set() {
        let full = IdRegisters {
            midr: !0,
            pfr0: !0,
            pfr1: !0,
            pfr2: !0,
            smfr0: !0,
            dfr0: !(0xf << 8) | 9 << 8,
            dfr1: !0,
            isar0: !0,
            isar1: !0,
            isar2: !0,
            isar3: !0,
            mmfr0: !0,
            mmfr1: !0,
            mmfr2: !0,
            mmfr3: !0,
            mmfr4: !0,
        };
        let traps = FineGrainedTraps::new(&full).unwrap();
        // The highest positive bits: ERXADDR_EL1 49; DCCVAC 54, COSPRCTX 60, ATS1E1A 62 and PSBCSYNC 63;
        // PMCEIDn_EL0 58, PMBIDR_EL1 63.
        assert_eq!(traps.hfgrtr_el2 & ((1 << 50) - 1), 0);
        assert_eq!(traps.hfgitr_el2 & !(0b1_1111 << 55), 0);
        assert_eq!(traps.hdfgrtr_el2 & (((1 << 59) - 1) | 1 << 63), 0);
        assert_eq!(traps.hdfgwtr_el2 & (((1 << 60) - 1) | 1 << 63), 0);
    }
}
