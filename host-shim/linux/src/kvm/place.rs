//! What others see of a vCPU: where to find it, and what it is asked.

use crate::Linux;
use core::sync::atomic::{AtomicBool, AtomicU64, Ordering};

/// What others see of a vCPU, in any context.
#[derive(Debug)]
pub struct Place<L: Linux> {
    linux: L,
    seat: L::Seat,
    /// Somebody has changed something that the vCPU looks at before it runs.
    asked: AtomicBool,
    /// It runs, or has looked for the last time before it does.
    inside: AtomicBool,
    /// How often another vCPU has turned it on.
    turned_on: AtomicU64,
}

impl<L: Linux> Place<L> {
    /// Of a vCPU that nobody has looked for yet.
    pub fn new(linux: &L) -> Self {
        Self {
            seat: linux.seat(),
            linux: linux.clone(),
            asked: AtomicBool::new(false),
            inside: AtomicBool::new(false),
            turned_on: AtomicU64::new(0),
        }
    }

    /// Where its task waits and runs.
    pub const fn seat(&self) -> &L::Seat {
        &self.seat
    }

    /// Has the vCPU look at what concerns it: it leaves the guest, or stops waiting. What it is to see was changed before.
    /// Called in any context.
    pub fn tell(&self) {
        self.asked.store(true, Ordering::SeqCst);
        self.linux.wake(&self.seat);
        // Either we see that it is inside, or it sees that it is asked.
        if self.inside.load(Ordering::SeqCst) {
            self.linux.interrupt(&self.seat);
        }
    }

    /// Another vCPU has turned it on.
    pub fn turn_on(&self) {
        self.turned_on.fetch_add(1, Ordering::SeqCst);
        self.tell();
    }

    /// How often it was turned on: who finds it off waits for one more.
    pub fn times_on(&self) -> u64 {
        self.turned_on.load(Ordering::SeqCst)
    }

    /// The vCPU begins to look at what concerns it, with interrupts off, and runs if that is not [`Place::is_asked`] anew.
    pub fn look(&self) {
        self.asked.store(false, Ordering::SeqCst);
        self.inside.store(true, Ordering::SeqCst);
    }

    /// It is back.
    pub fn come_out(&self) {
        self.inside.store(false, Ordering::SeqCst);
    }

    /// Whether somebody has changed something since it looked.
    pub fn is_asked(&self) -> bool {
        self.asked.load(Ordering::SeqCst)
    }
}
