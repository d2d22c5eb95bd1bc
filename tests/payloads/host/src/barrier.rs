//! A barrier for CPUs.

use crate::sysreg;
use core::sync::atomic::{AtomicUsize, Ordering};

/// Holds CPUs until a number of them has come, then lets all go on, any number of times.
#[derive(Debug)]
pub(crate) struct Barrier {
    count: usize,
    arrived: AtomicUsize,
    round: AtomicUsize,
}

impl Barrier {
    /// A barrier for `count` CPUs.
    pub(crate) const fn new(count: usize) -> Self {
        Self {
            count,
            arrived: AtomicUsize::new(0),
            round: AtomicUsize::new(0),
        }
    }

    /// Waits for the others.
    pub(crate) fn wait(&self) {
        let round = self.round.load(Ordering::Acquire);
        if self.arrived.fetch_add(1, Ordering::AcqRel) + 1 == self.count {
            self.arrived.store(0, Ordering::Relaxed);
            self.round.store(round.wrapping_add(1), Ordering::Release);
        } else {
            while self.round.load(Ordering::Acquire) == round {
                sysreg::relax();
            }
        }
    }
}
