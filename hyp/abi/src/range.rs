//! A run of 4 KiB frames, as a caller names it.

use crate::FRAME_SIZE;

/// A run of frames as it arrives in registers: an allegation. Nothing about it has been checked; the ownership
/// core checks alignment, emptiness, overflow and range before anything else.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct FrameRange {
    /// Physical address of the first frame, in bytes.
    pub base: u64,
    /// How many 4 KiB frames.
    pub frames: u64,
}

impl FrameRange {
    /// A run of `frames` frames from the physical address `base`.
    #[must_use]
    pub const fn new(base: u64, frames: u64) -> Self {
        Self { base, frames }
    }

    /// What is left of the run after its first `done` frames, or `None` if nothing is. Used to resume a ranged
    /// call that reported progress.
    #[must_use]
    pub const fn after(self, done: u64) -> Option<Self> {
        if done >= self.frames {
            return None;
        }
        let Some(bytes) = done.checked_mul(FRAME_SIZE) else {
            return None;
        };
        let Some(base) = self.base.checked_add(bytes) else {
            return None;
        };
        Some(Self {
            base,
            frames: self.frames - done,
        })
    }
}
