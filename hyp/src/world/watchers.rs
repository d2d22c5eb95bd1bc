//! What would watch a guest for the host: the host's performance counters, profiler, trace and branch records.
//!
//! They stop before the guest is loaded, and what they still have to write is written by then: their buffers are
//! memory of the host's, translated by the host's tables. Which there are, and what turns each of them off, is
//! hyp-core's to say ([`Watchers`]).

#![expect(unsafe_code, reason = "reads and writes system registers by number")]

use super::system::{read_register, write_register};
use crate::barrier::{dsb_nsh, isb};
use core::arch::asm;
use hyp_core::trap::guest_traps::Watchers;

/// PMCR_EL0.E: the counters count.
const PMCR_E: u64 = 1 << 0;

/// What the host had set them to.
#[derive(Debug, Default)]
pub(super) struct Stopped {
    /// PMCR_EL0.
    counters: u64,
    /// PMSCR_EL1.
    profiling: u64,
    /// TRFCR_EL1.
    trace: u64,
    /// BRBCR_EL1.
    branches: u64,
}

/// PSB CSYNC: what the profiler has to write is on its way. A hint, so that it does nothing where there is none.
fn synchronize_profiling() {
    // SAFETY: waits, and changes nothing.
    unsafe { asm!("hint #17", options(nostack, preserves_flags)) };
}

/// TSB CSYNC: the same of the trace unit. Twice in a row: one alone may flush nothing (errata Cortex-A710 2054223,
/// Neoverse N2 2067961).
fn synchronize_trace() {
    // SAFETY: as above.
    unsafe { asm!("hint #18", "hint #18", options(nostack, preserves_flags)) };
}

/// Has everything written that profiler and trace unit hold of EL1 and EL0. They make nothing new at EL2.
#[cold]
pub(crate) fn write_out() {
    synchronize_profiling();
    synchronize_trace();
    dsb_nsh();
}

impl Stopped {
    /// Stops `watchers`.
    #[inline]
    pub(super) fn stop(&mut self, watchers: &Watchers) {
        if watchers.counters {
            self.counters = read_register!("pmcr_el0");
            write_register!("pmcr_el0", self.counters & !PMCR_E);
        }
        if watchers.branch_records {
            self.branches = read_register!("S2_1_C9_C0_0");
            write_register!("S2_1_C9_C0_0", 0);
        }
        if watchers.profiling {
            self.profiling = read_register!("S3_0_C9_C9_0");
            write_register!("S3_0_C9_C9_0", 0);
            isb();
            synchronize_profiling();
        }
        if watchers.trace {
            self.trace = read_register!("S3_0_C1_C2_1");
            write_register!("S3_0_C1_C2_1", 0);
            isb();
        }
        if watchers.trace_buffer {
            synchronize_trace();
        }
        if watchers.profiling || watchers.trace_buffer {
            dsb_nsh();
        }
    }

    /// Lets `watchers` go on. The host's tables are loaded.
    #[inline]
    pub(super) fn resume(&self, watchers: &Watchers) {
        if watchers.profiling || watchers.trace {
            // They must not write before the host's tables are in force.
            isb();
        }
        if watchers.counters {
            write_register!("pmcr_el0", self.counters);
        }
        if watchers.branch_records {
            write_register!("S2_1_C9_C0_0", self.branches);
        }
        if watchers.profiling {
            write_register!("S3_0_C9_C9_0", self.profiling);
        }
        if watchers.trace {
            write_register!("S3_0_C1_C2_1", self.trace);
        }
    }
}
