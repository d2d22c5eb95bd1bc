//! An exit: why a vCPU stopped, and the exit record in which the host reads it.
//!
//! The record is written word by word from values that an exit names, never from a copy of the vCPU: what the exit does
//! not need stays in EL2.

use super::context::{GicInterface, VcpuContext};
use crate::addr::Frame;
use crate::hardware::Hardware;
use hyp_abi::run_page::{
    EXIT_ICH_EISR, EXIT_ICH_HCR, EXIT_ICH_MISR, EXIT_LIST, EXIT_LIST_COUNT, EXIT_REASON, EXIT_TIMER_COMPARE,
    EXIT_TIMER_CONTROL, EXIT_VALUE_COUNT, EXIT_VALUES, ExitReason,
};

/// Why a vCPU stopped.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Exit {
    /// The reason.
    pub reason: ExitReason,
    /// Its values; those that the reason does not name are 0.
    pub values: [u64; EXIT_VALUE_COUNT],
}

impl Exit {
    /// An exit with its first values.
    #[must_use]
    #[inline]
    pub const fn new(reason: ExitReason, v0: u64, v1: u64, v2: u64) -> Self {
        Self {
            reason,
            values: [v0, v1, v2, 0, 0, 0, 0],
        }
    }

    /// An exit that has no values.
    #[must_use]
    #[inline]
    pub const fn plain(reason: ExitReason) -> Self {
        Self::new(reason, 0, 0, 0)
    }

    /// Writes the exit record of a vCPU that was put.
    #[inline]
    pub(super) fn write<H: Hardware>(&self, hw: &H, page: Frame, context: &VcpuContext) {
        let store = |word: usize, value: u64| hw.shared_store(page, word, value);
        store(EXIT_REASON, self.reason.into());
        for (number, value) in self.values.iter().enumerate() {
            store(EXIT_VALUES + number, *value);
        }
        let gic = &context.gic;
        store(EXIT_LIST_COUNT, gic.count);
        store(EXIT_ICH_MISR, gic.maintenance);
        store(EXIT_ICH_EISR, gic.ended);
        store(EXIT_ICH_HCR, gic.control & GicInterface::ENDED_ELSEWHERE);
        store(EXIT_TIMER_CONTROL, context.timer.control);
        store(EXIT_TIMER_COMPARE, context.timer.compare);
        for (number, register) in gic.list.iter().take(gic.count as usize).enumerate() {
            store(EXIT_LIST + number, *register);
        }
    }
}
