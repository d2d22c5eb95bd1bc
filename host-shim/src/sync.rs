//! The locks of this crate.
//!
//! What belongs to a VM or a file is behind a [`Mutex`] of the kernel's own kind, [`Kernel::Lock`]: while it is held
//! memory is allocated, and EL2 is called, and on a kernel that preempts its holder others must sleep rather than spin.
//! The providers and the guest's GIC have a [`SpinMutex`], which they hold for a few instructions, and where a kernel could
//! preempt or interrupt its holder it keeps interrupts off.

use crate::Kernel;

/// A lock of the kernel that `K` is.
pub type Mutex<K, T> = lock_api::Mutex<<K as Kernel>::Lock, T>;

/// A lock that spins, and is fair: for a kernel that neither sleeps nor preempts.
pub type SpinLock = spin::Mutex<()>;

/// A lock that is held for a few instructions. Under test it is one that sleeps, since threads that are preempted while they queue for a
/// fair lock keep all others waiting for a whole time slice.
#[cfg(not(test))]
pub(crate) type SpinMutex<T> = lock_api::Mutex<SpinLock, T>;
#[cfg(test)]
pub(crate) type SpinMutex<T> = lock_api::Mutex<parking_lot::RawMutex, T>;
