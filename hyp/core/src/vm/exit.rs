//! An exit: why a vCPU stopped, and the exit record in which the host reads it.
//!
//! The record is written word by word from values that an exit names, never from a copy of the vCPU: what the exit does
//! not need stays in EL2.

use super::context::{GicInterface, VcpuContext};
use crate::addr::Frame;
use crate::hardware::{ExternalAbort, Hardware};
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
    ///
    /// # Errors
    /// [`ExternalAbort`] if the page cannot be written; a part may have been.
    #[inline]
    pub(super) fn write<H: Hardware>(
        &self,
        hw: &H,
        page: Frame,
        context: &VcpuContext,
    ) -> Result<(), ExternalAbort> {
        let gic = &context.gic;
        let mut words = [0; EXIT_WORDS];
        let mut set = |word: usize, value: u64| words[word - EXIT_REASON] = value;
        set(EXIT_REASON, self.reason.into());
        for (number, value) in self.values.iter().enumerate() {
            set(EXIT_VALUES + number, *value);
        }
        set(EXIT_LIST_COUNT, gic.count);
        set(EXIT_ICH_MISR, gic.maintenance);
        set(EXIT_ICH_EISR, gic.ended);
        set(EXIT_TIMER_CONTROL, context.timer.control);
        set(EXIT_TIMER_COMPARE, context.timer.compare);
        set(EXIT_ICH_HCR, gic.control & GicInterface::ENDED_ELSEWHERE);
        hw.shared_store(page, EXIT_REASON, &words)?;
        match gic.list.get(..gic.count as usize) {
            Some(used @ [_, ..]) => hw.shared_store(page, EXIT_LIST, used),
            _ => Ok(()),
        }
    }
}

/// Words of the exit record in front of the list registers.
const EXIT_WORDS: usize = EXIT_ICH_HCR + 1 - EXIT_REASON;
