//! How the vectors keep what the host trained from steering EL2's speculation: hyp-core chooses, by this CPU's ID
//! registers and by what its firmware offers ([`hyp_core::errata::vector`]).

use crate::cpu;
use hyp_core::errata::vector::{Firmware, VectorSlot};
use smccc::arch::{self, SMCCC_ARCH_WORKAROUND_1, SMCCC_ARCH_WORKAROUND_3, Version};
use smccc::{Smc, psci};

/// The first version of the SMC Calling Convention that has SMCCC_ARCH_FEATURES.
const SMCCC_1_1: Version = Version { major: 1, minor: 1 };

/// What this CPU's vectors must begin with.
pub(crate) fn choose() -> VectorSlot {
    VectorSlot::choose(&cpu::id_registers(), firmware())
}

fn firmware() -> Firmware {
    // PSCI_FEATURES says whether there is an SMCCC_VERSION to ask; older firmware has neither (DEN0028, 7.3).
    let has_version = psci::psci_features::<Smc>(arch::SMCCC_VERSION).is_ok();
    if !has_version || arch::version::<Smc>().map_or(true, |version| version < SMCCC_1_1) {
        return Firmware::default();
    }
    let ask = |workaround| {
        // A value up to 0x7fff_ffff is a success, whatever an error is called.
        let answer = arch::features::<Smc>(workaround);
        Some(answer.map_or(-1, |value| i32::try_from(value).unwrap_or(-1)))
    };
    Firmware {
        workaround_1: ask(SMCCC_ARCH_WORKAROUND_1),
        workaround_3: ask(SMCCC_ARCH_WORKAROUND_3),
    }
}
