//! The locks of this crate.
//!
//! What belongs to a VM or a file is behind a [`Mutex`] of the kernel's own kind, [`Kernel::Lock`]: while it is held
//! memory is allocated, and EL2 is called, and on a kernel that preempts its holder others must sleep rather than spin.
//!
//! The guest's GIC has a [`SpinMutex`]: it is held for a few instructions, nothing is allocated meanwhile, and where a
//! kernel could preempt or interrupt its holder whoever calls the GIC keeps interrupts off.
//!
//! The providers that need nothing of a kernel ([`Buddy`](crate::provider::Buddy) and its like) have one as well, and
//! allocate under it. They are for a kernel that neither preempts nor sleeps; another has a provider of its own.

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
