//! What the shim needs of the kernel that it lives in, apart from memory to give away.

use crate::{Hypercall, Pfn};
use core::fmt::Debug;
use thiserror::Error;

/// The host cannot reach a frame: EL2 took it, a guest has it, or nothing is mapped there.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Error)]
#[error("the host cannot reach the frame")]
pub struct NotReachable;

/// How the kernel reaches the contents of frames. The shim only asks it for frames that the host may touch; should
/// EL2 have taken one all the same, an implementation with exception fixups can say so.
///
/// A frame that is written may be given to a guest next: EL2 cleans the caches itself. Of one that is only lent they are
/// cleaned here.
pub trait HostMemory {
    /// Copies bytes from `offset` in a frame on. They do not run past its end.
    ///
    /// # Errors
    /// [`NotReachable`].
    fn read(&self, frame: Pfn, offset: usize, into: &mut [u8]) -> Result<(), NotReachable>;

    /// Copies bytes to a frame, from `offset` on. They do not run past its end.
    ///
    /// # Errors
    /// [`NotReachable`].
    fn write(&self, frame: Pfn, offset: usize, from: &[u8]) -> Result<(), NotReachable>;

    /// Zeroes `frames` frames.
    ///
    /// # Errors
    /// [`NotReachable`].
    fn zero(&self, frame: Pfn, frames: u64) -> Result<(), NotReachable>;

    /// Cleans the caches of `frames` frames to the point of coherency: a guest that has its own caches off reads what was
    /// written. Asked for what the guest borrows; what it is given EL2 cleans.
    fn clean(&self, _frame: Pfn, _frames: u64) {}

    /// Loads the 64-bit word of number `index` of a run page, in one access that is made exactly once.
    fn load_word(&self, frame: Pfn, index: usize) -> u64;

    /// Stores the 64-bit word of number `index` of a run page, in one access that is made exactly once.
    fn store_word(&self, frame: Pfn, index: usize, value: u64);
}

/// The kernel: the way to EL2, the way to memory, and how to wait.
pub trait Kernel: Hypercall + HostMemory + Send + Sync + Debug + 'static {
    /// Its lock. Whoever has one allocates memory and calls EL2; where that may sleep, so must whoever waits for it.
    type Lock: lock_api::RawMutex + Send + Sync;

    /// Called again and again while something waits for another CPU. A kernel that may have preempted the one that
    /// is waited for yields here.
    fn relax(&self) {
        core::hint::spin_loop();
    }

    /// Whether the caller is to end at once, so that nobody is left for whom to go on with what takes long.
    fn is_killed(&self) -> bool {
        false
    }

    /// Does something during which this CPU is neither interrupted nor preempted. It does not sleep, and has a lock that
    /// whoever interrupts may want. Called in any context.
    fn uninterrupted(&self, work: &mut dyn FnMut()) {
        work();
    }
}
