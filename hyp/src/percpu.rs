//! What belongs to one CPU: its counters, its trace ring, how it starts, its emergency stack.
//!
//! Each CPU has an area of pages in EL2's memory: two of stack, which are mapped only between guard pages (see
//! [`crate::private_area`]), one of this data, at its physical address, one of its [`crate::world`], and with SVE some
//! for the host's vectors. TPIDR_EL2 holds the address of the data.
//! Fields that other CPUs read, or write, are atomics. A counter is only ever written by its own CPU, so it takes
//! a load and a store, not an exclusive access.

#![expect(unsafe_code, reason = "turns TPIDR_EL2 into a reference")]

use crate::secondary::StartArguments;
use crate::trace::Ring;
use crate::world::{World, simd};
use core::arch::asm;
use core::ptr;
use core::sync::atomic::{AtomicU64, Ordering};
use hyp_abi::Counter;
use hyp_core::addr::{FRAME_SIZE, PhysAddr};
use hyp_core::trap::inject::PstateFeatures;
use spin::Once;

/// Bytes of a CPU's stack.
pub(crate) const STACK_SIZE: u64 = 2 * FRAME_SIZE;

/// Bytes of the area of one CPU whose vectors have at most so many bytes: its stack, its data, its world, and room for
/// the vectors.
pub(crate) fn area_size(vector_bytes: u64) -> u64 {
    STACK_SIZE + World::OFFSET + size_of::<World>() as u64 + simd::room(vector_bytes)
}

/// Bytes of the stack on which a CPU reports that its own has run over.
pub(crate) const EMERGENCY_STACK_SIZE: usize = 3584;

/// How many states a frame can have, as far as the totals are concerned.
pub(crate) const STATES: usize = 16;

/// The data of one CPU: one page.
#[derive(Debug)]
#[repr(C, align(4096))]
pub(crate) struct PerCpu {
    /// What the CPU loads before its MMU is on. First, in a cache line of its own.
    pub(crate) start: StartArguments,
    /// How often its vector has the loop run that clears the branch history.
    pub(crate) branch_loops: AtomicU64,
    /// Its number, in the order of the device tree.
    pub(crate) index: usize,
    /// Its MPIDR_EL1, affinity fields only.
    pub(crate) mpidr: u64,
    /// Its counters, by number.
    counters: [AtomicU64; Counter::COUNT],
    /// Frames that came to a state on this CPU less those that left it, modulo 2^64, by the state's number.
    tallies: [AtomicU64; STATES],
    /// Its trace ring.
    pub(crate) ring: Ring,
    /// The last-level entries of its window, by address: 16 of them.
    pub(crate) window: AtomicU64,
    /// The root of the guest that it has loaded, with the number of its pages in the lower bits; or zero.
    pub(crate) guest_root: AtomicU64,
    /// Which PSTATE fields it has: known when it first gets an exception from EL2.
    pub(crate) pstate: Once<PstateFeatures>,
    emergency_stack: EmergencyStack,
}

#[derive(Debug)]
#[repr(C, align(16))]
struct EmergencyStack([u8; EMERGENCY_STACK_SIZE]);

const _: () = assert!(
    size_of::<PerCpu>() as u64 == FRAME_SIZE,
    "the per-CPU data is one page"
);

impl PerCpu {
    /// Where the emergency stack begins.
    pub(crate) const EMERGENCY_OFFSET: usize = core::mem::offset_of!(Self, emergency_stack);

    /// The data of CPU `index`, at a time when it has never run.
    pub(crate) fn new(index: usize, mpidr: u64, start: StartArguments) -> Self {
        Self {
            start,
            branch_loops: AtomicU64::new(0),
            index,
            mpidr,
            counters: [const { AtomicU64::new(0) }; Counter::COUNT],
            tallies: [const { AtomicU64::new(0) }; STATES],
            ring: Ring::default(),
            window: AtomicU64::new(0),
            guest_root: AtomicU64::new(0),
            pstate: Once::new(),
            emergency_stack: EmergencyStack([0; EMERGENCY_STACK_SIZE]),
        }
    }

    /// The data of this CPU.
    ///
    /// Not to be called before [`PerCpu::install`].
    #[inline(always)]
    pub(crate) fn this() -> &'static Self {
        let address: usize;
        // SAFETY: reads a register. It is written once on each CPU, before anything that calls this.
        unsafe {
            asm!("mrs {}, tpidr_el2", out(reg) address, options(pure, nomem, nostack, preserves_flags))
        };
        let data: *const Self = ptr::with_exposed_provenance(address);
        // SAFETY: TPIDR_EL2 holds the address of this CPU's data, which was initialized before the CPU ran, stays
        // where it is, and has no field that is written without an atomic after that.
        unsafe { &*data }
    }

    /// Makes the data at `address` this CPU's.
    ///
    /// # Safety
    /// `address` is that of an initialized [`PerCpu`] which is never moved or written without atomics again.
    pub(crate) unsafe fn install(address: PhysAddr) {
        // SAFETY: nobody has looked at TPIDR_EL2 on this CPU yet.
        unsafe {
            asm!("msr tpidr_el2, {}", "isb", in(reg) address.value(), options(nostack, preserves_flags))
        };
    }

    /// Adds to a counter of this CPU.
    #[inline(always)]
    pub(crate) fn count(&self, counter: Counter, amount: u64) {
        bump(&self.counters[counter as usize], amount);
    }

    /// The value of a counter.
    pub(crate) fn counter(&self, counter: Counter) -> u64 {
        self.counters[counter as usize].load(Ordering::Relaxed)
    }

    /// Moves frames from one state to another in this CPU's totals. States above 15 are none.
    #[inline(always)]
    pub(crate) fn tally(&self, frames: u64, from: u8, to: u8) {
        if let Some(total) = self.tallies.get(usize::from(from)) {
            bump(total, frames.wrapping_neg());
        }
        if let Some(total) = self.tallies.get(usize::from(to)) {
            bump(total, frames);
        }
    }

    /// This CPU's total of a state, modulo 2^64.
    pub(crate) fn tallied(&self, state: u8) -> u64 {
        self.tallies
            .get(usize::from(state))
            .map_or(0, |total| total.load(Ordering::Relaxed))
    }
}

#[inline(always)]
fn bump(counter: &AtomicU64, amount: u64) {
    counter.store(
        counter.load(Ordering::Relaxed).wrapping_add(amount),
        Ordering::Relaxed,
    );
}
