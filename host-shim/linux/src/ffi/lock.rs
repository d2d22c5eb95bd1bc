//! The lock: one word of which the kernel lets tasks wait for a bit.
//!
//! To wake nobody costs the kernel a hundred instructions, and nearly always there is nobody: a second bit says whether
//! somebody may wait. It is set by whoever waits once it has queued, and by whoever has waited and now has the lock, since
//! others may have queued behind it. To let go takes both bits away in one step, so that a wake is never left out.

use super::skin;
use core::ffi::c_ulong;
use core::sync::atomic::{AtomicU64, Ordering};
use lock_api::{GuardNoSend, RawMutex};

/// The bit that says that somebody has the lock. The skin knows it too.
const TAKEN: u64 = 1 << 0;
/// The bit that says that somebody may wait. The skin knows it as well.
const WAITED_FOR: u64 = 1 << 1;

/// A lock for tasks, which may sleep with it and while they wait for it.
pub(crate) struct SleepLock {
    word: AtomicU64,
}

impl SleepLock {
    const fn word(&self) -> *mut c_ulong {
        self.word.as_ptr()
    }
}

// SAFETY: the word changes from free to taken in one step, here or in the kernel, so that one task has it at a time.
unsafe impl RawMutex for SleepLock {
    const INIT: Self = Self {
        word: AtomicU64::new(0),
    };

    type GuardMarker = GuardNoSend;

    fn lock(&self) {
        if !self.try_lock() {
            // SAFETY: the word is there as long as the lock is.
            unsafe { skin::fh_lock_wait(self.word()) };
            self.word.fetch_or(WAITED_FOR, Ordering::Relaxed);
        }
    }

    fn try_lock(&self) -> bool {
        self.word.fetch_or(TAKEN, Ordering::Acquire) & TAKEN == 0
    }

    unsafe fn unlock(&self) {
        let word = self.word();
        if self.word.swap(0, Ordering::Release) & WAITED_FOR != 0 {
            // SAFETY: the kernel only takes the address for a name: the lock may be gone by now.
            unsafe { skin::fh_lock_wake(word) };
        }
    }
}
