//! Atomics and locks, behind one door.
//!
//! Under `--cfg shuttle` they are those of a test library that explores schedules, so that those of the very same code
//! can be searched: shuttle, in which every CPU sees every store at once, or with `--cfg loom` as well loom, in which
//! a CPU may see a store late unless its ordering forbids that. Everywhere else an atomic is the CPU's and a lock is a
//! fair ticket lock.

#[cfg(loom)]
use loom as explorer;
#[cfg(all(shuttle, not(loom)))]
use shuttle as explorer;

#[cfg(not(shuttle))]
pub use core::sync::atomic::{AtomicBool, AtomicU32, AtomicU64, AtomicUsize, Ordering};
#[cfg(shuttle)]
pub use explorer::sync::atomic::{AtomicBool, AtomicU32, AtomicU64, AtomicUsize, Ordering};

/// Threads of the machine below, where tests have CPUs.
#[cfg(shuttle)]
pub use explorer::thread;
#[cfg(all(any(test, feature = "doubles"), not(shuttle)))]
pub use std::thread;

/// A lock around the data that it guards. Fair: CPUs get it in the order in which they asked.
#[derive(Debug)]
pub struct Lock<T> {
    #[cfg(not(shuttle))]
    inner: spin::Mutex<T>,
    #[cfg(shuttle)]
    inner: explorer::sync::Mutex<T>,
}

/// What a taken [`Lock`] gives: the data, until it is dropped.
#[cfg(not(shuttle))]
pub type LockGuard<'a, T> = spin::MutexGuard<'a, T>;
/// What a taken [`Lock`] gives: the data, until it is dropped.
#[cfg(shuttle)]
pub type LockGuard<'a, T> = explorer::sync::MutexGuard<'a, T>;

impl<T> Lock<T> {
    /// A free lock around `value`.
    #[cfg(not(shuttle))]
    pub const fn new(value: T) -> Self {
        Self {
            inner: spin::Mutex::new(value),
        }
    }

    /// A free lock around `value`.
    #[cfg(shuttle)]
    pub fn new(value: T) -> Self {
        Self {
            inner: explorer::sync::Mutex::new(value),
        }
    }

    /// Takes the lock, waiting for it as long as it must.
    #[cfg(not(shuttle))]
    #[inline]
    pub fn lock(&self) -> LockGuard<'_, T> {
        self.inner.lock()
    }

    /// Takes the lock, waiting for it as long as it must.
    #[cfg(shuttle)]
    pub fn lock(&self) -> LockGuard<'_, T> {
        // A poisoned lock means that a test thread has panicked already; its data is looked at no more.
        self.inner
            .lock()
            .unwrap_or_else(std::sync::PoisonError::into_inner)
    }
}

/// Tells the CPU that this is a loop which waits for another CPU.
#[inline]
pub fn spin_hint() {
    #[cfg(not(shuttle))]
    core::hint::spin_loop();
    #[cfg(shuttle)]
    thread::yield_now();
}
