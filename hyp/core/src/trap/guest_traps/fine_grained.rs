//! The fine-grained traps while a guest runs.
//!
//! Those whose name begins with `n` trap when clear, and stay clear: each guards a feature that a guest is not shown.
//! Those that trap when set are set for registers that are hidden from guests and have no other trap on some CPU, or
//! whose other trap is a bit that opens a feature by the way (`HCR_EL2.EnSCXT`): two locks on one door. Debug, the PMU,
//! profiling and trace need none, for MDCR_EL2 and CPTR_EL2 trap all of it. Instructions are never trapped here.

use crate::trap::fine_grained::{FineGrainedTraps, SecondSet};
use crate::trap::id::IdRegisters;

/// HFGRTR_EL2.APDAKey to APIBKey: the keys of pointer authentication.
const KEYS: u64 = 0x1f << 4;
/// HFGRTR_EL2.LORC_EL1, LOREA_EL1, LORN_EL1, LORSA_EL1.
const LOREGIONS: u64 = 1 << 19 | 1 << 20 | 1 << 22 | 1 << 23;
/// HFGRTR_EL2.LORID_EL1, which is read-only.
const LOREGION_ID: u64 = 1 << 21;
/// HFGRTR_EL2.SCXTNUM_EL1, SCXTNUM_EL0.
const CONTEXT_NUMBERS: u64 = 0b11 << 30;
/// HFGRTR_EL2.ERRSELR_EL1, ERXCTLR_EL1, ERXSTATUS_EL1, ERXMISCn_EL1, ERXPFGCTL_EL1, ERXPFGCDN_EL1, ERXADDR_EL1.
const ERROR_RECORDS: u64 = 1 << 41 | 0b111 << 43 | 0b111 << 47;
/// HFGRTR_EL2.ERRIDR_EL1, ERXFR_EL1, ERXPFGF_EL1, which are read-only.
const ERROR_RECORD_IDS: u64 = 1 << 40 | 1 << 42 | 1 << 46;

/// The registers for the CPU that `id` describes, or `None` if it has no FEAT_FGT.
pub(super) fn fine_grained(id: &IdRegisters, pointer_authentication: bool) -> Option<FineGrainedTraps> {
    if id.fgt() == 0 {
        return None;
    }
    let (mut hfgrtr_el2, mut hfgwtr_el2) = (0, 0);
    for (hidden, both, read_only) in [
        (id.pointer_authentication() && !pointer_authentication, KEYS, 0),
        (id.lo() != 0, LOREGIONS, LOREGION_ID),
        (id.context_numbers(), CONTEXT_NUMBERS, 0),
        (id.ras() != 0, ERROR_RECORDS, ERROR_RECORD_IDS),
    ] {
        if hidden {
            hfgrtr_el2 |= both | read_only;
            hfgwtr_el2 |= both;
        }
    }
    Some(FineGrainedTraps {
        hfgrtr_el2,
        hfgwtr_el2,
        hfgitr_el2: 0,
        hdfgrtr_el2: 0,
        hdfgwtr_el2: 0,
        hafgrtr_el2: (id.amu() != 0).then_some(0),
        second: (id.fgt() >= 2).then_some(SecondSet {
            hfgrtr2_el2: 0,
            hfgwtr2_el2: 0,
            hfgitr2_el2: 0,
            hdfgrtr2_el2: 0,
            hdfgwtr2_el2: 0,
        }),
    })
}
