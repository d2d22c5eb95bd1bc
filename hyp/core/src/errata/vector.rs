//! What EL2's vectors must do first, against branch predictors that were trained below.
//!
//! Two attacks: branch targets that the host injects (Spectre-v2, CVE-2017-5715), and branch history that makes
//! EL2's own targets collide (Spectre-BHB, CVE-2022-23960). A CPU says by ID register, or is known by its MIDR, to
//! be immune or to need one of the slots below. The choice is made for each CPU.
//!
//! Sources: Arm, "Cache Speculation Side-channels"; Arm, "Spectre-BHB: Speculative Target Reuse Attacks", with its table
//! of loop counts; Arm ARM DDI 0487, ID_AA64PFR0_EL1.CSV2, ID_AA64MMFR1_EL1.ECBHB, ID_AA64ISAR2_EL1.CLRBHB; SMCCC
//! DEN0028, the architecture calls.

use super::{Core, Midr};
use crate::trap::id::IdRegisters;

/// What a vector does before the first indirect branch of EL2.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum VectorSlot {
    /// Nothing.
    None,
    /// `SMC` SMCCC_ARCH_WORKAROUND_1: the firmware invalidates the branch predictor.
    FirmwareWorkaround1,
    /// `SMC` SMCCC_ARCH_WORKAROUND_3: the firmware does that, and clears the branch history.
    FirmwareWorkaround3,
    /// A loop of this many taken branches, then DSB and ISB: new branch history over the old.
    Loop {
        /// How many branches.
        iterations: u8,
    },
    /// `CLRBHB`, then ISB.
    ClearBhb,
}

/// What the firmware said, on this CPU, to SMCCC_ARCH_FEATURES of the two workarounds.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Default)]
pub struct Firmware {
    /// The answer for SMCCC_ARCH_WORKAROUND_1: 0 call it on this CPU, 1 this CPU does not need it, negative there
    /// is none. `None` if the firmware has no SMCCC 1.1.
    pub workaround_1: Option<i32>,
    /// The answer for SMCCC_ARCH_WORKAROUND_3, in the same way.
    pub workaround_3: Option<i32>,
}

/// The answer that says: call the workaround.
const CALL_IT: i32 = 0;
/// The answer that says: this CPU does not need it.
const NOT_NEEDED: i32 = 1;

/// In-order cores and others that do not speculate past an indirect branch of another context.
const IMMUNE_TO_INJECTION: &[Core] = &[
    Core::CORTEX_A35,
    Core::CORTEX_A53,
    Core::CORTEX_A55,
    Core::BRAHMA_B53,
    Core::TSV110,
    Core::KRYO_3XX_SILVER,
    Core::KRYO_4XX_SILVER,
];

/// Cores whose branch history is overwritten by a loop, with its count.
const HISTORY_LOOPS: &[(u8, &[Core])] = &[
    (132, &[Core::CORTEX_X3, Core::NEOVERSE_V2, Core::HIP09]),
    (38, &[Core::CORTEX_A715, Core::CORTEX_A720]),
    (
        32,
        &[
            Core::CORTEX_A78,
            Core::CORTEX_A78AE,
            Core::CORTEX_A78C,
            Core::CORTEX_A710,
            Core::CORTEX_X1,
            Core::CORTEX_X1C,
            Core::CORTEX_X2,
            Core::NEOVERSE_N2,
            Core::NEOVERSE_V1,
            Core::COBALT_100,
        ],
    ),
    (
        24,
        &[
            Core::CORTEX_A76,
            Core::CORTEX_A76AE,
            Core::CORTEX_A77,
            Core::NEOVERSE_N1,
            Core::KRYO_4XX_GOLD,
        ],
    ),
    (11, &[Core::AMPERE1]),
    (8, &[Core::CORTEX_A57, Core::CORTEX_A72]),
];

impl VectorSlot {
    /// The slot for the CPU that `id` describes, under a firmware that answered `firmware`.
    ///
    /// What one slot can do about both attacks is preferred. Where targets can be injected and no firmware prevents
    /// it (an old core, CSV2 = 0), an attacker needs no branch history, and clearing that would buy nothing.
    #[must_use]
    pub fn choose(id: &IdRegisters, firmware: Firmware) -> Self {
        let midr = Midr::new(id.midr);
        let injection = id.csv2() == 0
            && !midr.is_one_of(IMMUNE_TO_INJECTION)
            && firmware.workaround_1 != Some(NOT_NEEDED);
        let call_3 = firmware.workaround_3 == Some(CALL_IT);
        if injection {
            return if call_3 {
                Self::FirmwareWorkaround3
            } else if firmware.workaround_1 == Some(CALL_IT) {
                Self::FirmwareWorkaround1
            } else {
                Self::None
            };
        }
        // CSV2 = 3: branch history of one context has no effect in another. ECBHB: none from below reaches EL2.
        if id.csv2() >= 3 || id.ecbhb() != 0 {
            return Self::None;
        }
        if id.clrbhb() != 0 {
            return Self::ClearBhb;
        }
        if let Some(iterations) = loop_count(midr) {
            return Self::Loop { iterations };
        }
        if call_3 {
            return Self::FirmwareWorkaround3;
        }
        Self::None
    }
}

/// How many branches overwrite the branch history of the core, if a loop does.
fn loop_count(midr: Midr) -> Option<u8> {
    HISTORY_LOOPS
        .iter()
        .find(|(_, cores)| midr.is_one_of(cores))
        .map(|(count, _)| *count)
}

#[cfg(test)]
mod tests {
    use super::super::tests::midr;
    use super::*;

    const SILENT: Firmware = Firmware {
        workaround_1: None,
        workaround_3: None,
    };

    fn id(core: Core, csv2: u64) -> IdRegisters {
        IdRegisters {
            midr: u64::from(midr(core, 0, 0).0),
            pfr0: csv2 << 56,
            ..IdRegisters::default()
        }
    }

    #[test]
    fn the_cores_of_the_test_machines_without_firmware() {
        let slot = |core, csv2| VectorSlot::choose(&id(core, csv2), SILENT);
        assert_eq!(slot(Core::CORTEX_A53, 0), VectorSlot::None);
        assert_eq!(slot(Core::CORTEX_A72, 0), VectorSlot::None);
        // From r1p0 on its targets cannot be injected, and its history counts.
        assert_eq!(slot(Core::CORTEX_A72, 1), VectorSlot::Loop { iterations: 8 });
        assert_eq!(slot(Core::CORTEX_A76, 1), VectorSlot::Loop { iterations: 24 });
        assert_eq!(slot(Core::NEOVERSE_N1, 1), VectorSlot::Loop { iterations: 24 });
        let max = IdRegisters {
            midr: 0x000f_0510,
            pfr0: 2 << 56,
            ..IdRegisters::default()
        };
        assert_eq!(VectorSlot::choose(&max, SILENT), VectorSlot::None);
    }

    #[test]
    fn an_old_core_asks_its_firmware() {
        let a72 = id(Core::CORTEX_A72, 0);
        let slot = |workaround_1, workaround_3| {
            VectorSlot::choose(
                &a72,
                Firmware {
                    workaround_1,
                    workaround_3,
                },
            )
        };
        assert_eq!(slot(Some(0), Some(-1)), VectorSlot::FirmwareWorkaround1);
        assert_eq!(slot(Some(0), Some(0)), VectorSlot::FirmwareWorkaround3);
        assert_eq!(slot(Some(1), None), VectorSlot::Loop { iterations: 8 });
        assert_eq!(slot(Some(-1), Some(-1)), VectorSlot::None);
    }

    #[test]
    fn cores_without_a_loop_need_the_firmware() {
        let firmware = Firmware {
            workaround_1: Some(-1),
            workaround_3: Some(0),
        };
        for (core, csv2) in [(Core::CORTEX_A73, 0), (Core::CORTEX_A75, 1)] {
            assert_eq!(
                VectorSlot::choose(&id(core, csv2), firmware),
                VectorSlot::FirmwareWorkaround3
            );
            assert_eq!(VectorSlot::choose(&id(core, csv2), SILENT), VectorSlot::None);
        }
        // Told that this CPU does not need it.
        let firmware = Firmware {
            workaround_1: Some(1),
            workaround_3: Some(1),
        };
        assert_eq!(
            VectorSlot::choose(&id(Core::CORTEX_A75, 1), firmware),
            VectorSlot::None
        );
    }

    #[test]
    fn hardware_that_looks_after_itself_is_left_alone() {
        let mut n2 = id(Core::NEOVERSE_N2, 1);
        assert_eq!(
            VectorSlot::choose(&n2, SILENT),
            VectorSlot::Loop { iterations: 32 }
        );
        n2.isar2 = 1 << 28;
        assert_eq!(VectorSlot::choose(&n2, SILENT), VectorSlot::ClearBhb);
        n2.mmfr1 = 1 << 60;
        assert_eq!(VectorSlot::choose(&n2, SILENT), VectorSlot::None);
        let immune = id(Core::NEOVERSE_N2, 3);
        assert_eq!(VectorSlot::choose(&immune, SILENT), VectorSlot::None);
    }

    #[test]
    fn an_in_order_core_never_calls_for_targets() {
        let firmware = Firmware {
            workaround_1: Some(0),
            workaround_3: Some(-1),
        };
        for core in IMMUNE_TO_INJECTION {
            assert_eq!(VectorSlot::choose(&id(*core, 0), firmware), VectorSlot::None);
        }
    }

    #[test]
    fn no_core_has_two_counts() {
        let mut seen = std::vec::Vec::new();
        for core in HISTORY_LOOPS.iter().flat_map(|(_, cores)| cores.iter()) {
            assert!(!seen.contains(core), "{core:?}");
            seen.push(*core);
        }
    }
}
