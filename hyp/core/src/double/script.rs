//! What a test scripts, and what the core counts: interrupts, counters, totals, trace rings.

use super::held;
use crate::addr::Frame;
use core::array;
use core::sync::atomic::{AtomicI64, AtomicU64, AtomicUsize, Ordering};
use hyp_abi::{Counter, Features};
use std::sync::Mutex;
use std::vec::Vec;

/// CPUs of the machine.
pub(super) const CPUS: usize = 8;

/// States that the running totals tell apart.
const STATES: usize = 16;

/// The script and the counts. Plain atomics: no schedule is explored around them.
#[derive(Debug)]
pub(super) struct Script {
    cpu: AtomicUsize,
    polls: Mutex<Option<u64>>,
    counters: [[AtomicU64; Counter::COUNT]; CPUS],
    totals: [AtomicI64; STATES],
    rings: Mutex<[Option<Frame>; CPUS]>,
    features: Mutex<Features>,
}

impl Default for Script {
    fn default() -> Self {
        Self {
            cpu: AtomicUsize::new(0),
            polls: Mutex::new(None),
            counters: array::from_fn(|_| array::from_fn(|_| AtomicU64::new(0))),
            totals: array::from_fn(|_| AtomicI64::new(0)),
            rings: Mutex::new([None; CPUS]),
            features: Mutex::new(Features::empty()),
        }
    }
}

impl Script {
    pub(super) fn interrupt_after(&self, polls: Option<u64>) {
        *held(&self.polls) = polls;
    }

    pub(super) fn poll(&self) -> bool {
        match &mut *held(&self.polls) {
            None => false,
            Some(0) => true,
            Some(left) => {
                *left -= 1;
                false
            }
        }
    }

    pub(super) fn set_cpu(&self, cpu: usize) {
        assert!(cpu < CPUS, "the machine has {CPUS} CPUs");
        self.cpu.store(cpu, Ordering::Relaxed);
    }

    pub(super) fn count(&self, counter: Counter, amount: u64) {
        let cpu = self.cpu.load(Ordering::Relaxed);
        self.counters[cpu][counter as usize].fetch_add(amount, Ordering::Relaxed);
    }

    pub(super) fn counter(&self, cpu: usize, counter: Counter) -> Option<u64> {
        let counters = self.counters.get(cpu)?;
        Some(counters[counter as usize].load(Ordering::Relaxed))
    }

    pub(super) fn tally(&self, frames: u64, from: u8, to: u8) {
        let frames = i64::try_from(frames).expect("fewer than 2^36 frames");
        self.totals[usize::from(from)].fetch_sub(frames, Ordering::Relaxed);
        self.totals[usize::from(to)].fetch_add(frames, Ordering::Relaxed);
    }

    /// The total of a state, which starts at zero and so may be "negative": the sum wraps as on the machine.
    pub(super) fn tallied(&self, state: u8) -> u64 {
        self.totals[usize::from(state)]
            .load(Ordering::Relaxed)
            .cast_unsigned()
    }

    pub(super) fn attach(&self, cpu: usize, ring: Frame) -> bool {
        let slot = &mut held(&self.rings)[cpu];
        let free = slot.is_none();
        if free {
            *slot = Some(ring);
        }
        free
    }

    pub(super) fn ring(&self, cpu: usize) -> Option<Frame> {
        held(&self.rings)[cpu]
    }

    pub(super) fn detach(&self, cpu: usize, ring: Frame) -> bool {
        let slot = &mut held(&self.rings)[cpu];
        let found = *slot == Some(ring);
        if found {
            *slot = None;
        }
        found
    }

    pub(super) fn rings(&self) -> Vec<Option<Frame>> {
        held(&self.rings).to_vec()
    }

    pub(super) fn totals(&self) -> Vec<i64> {
        let totals = self.totals.iter();
        totals.map(|total| total.load(Ordering::Relaxed)).collect()
    }

    /// Goes back to these rings and totals.
    pub(super) fn restore(&self, rings: &[Option<Frame>], totals: &[i64]) {
        held(&self.rings).copy_from_slice(rings);
        for (total, old) in self.totals.iter().zip(totals) {
            total.store(*old, Ordering::Relaxed);
        }
    }

    pub(super) fn set_features(&self, features: Features) {
        *held(&self.features) = features;
    }

    pub(super) fn features(&self) -> Features {
        *held(&self.features)
    }
}
