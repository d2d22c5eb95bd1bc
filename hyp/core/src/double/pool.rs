//! The pool of table pages: which frames are free, which are out, and how many may yet go out.

use crate::addr::{Frame, FrameSpan};
use std::collections::BTreeSet;

/// The pool.
#[derive(Clone, Debug)]
pub(super) struct Pool {
    boot: FrameSpan,
    free: BTreeSet<Frame>,
    used: BTreeSet<Frame>,
    left: Option<u64>,
    /// Frames in the block that one call of `remove` answers from.
    block: u64,
}

impl Pool {
    /// A pool of what EL2 reserved at boot.
    pub(super) fn new(boot: FrameSpan, block: u64) -> Self {
        Self {
            boot,
            free: boot.iter().collect(),
            used: BTreeSet::new(),
            left: None,
            block,
        }
    }

    /// Lets it give out at most this many more.
    pub(super) fn limit(&mut self, pages: Option<u64>) {
        self.left = pages;
    }

    pub(super) fn take(&mut self) -> Option<Frame> {
        let left = match self.left {
            Some(0) => return None,
            left => left.map(|left| left - 1),
        };
        let frame = self.free.pop_first()?;
        self.left = left;
        self.used.insert(frame);
        Some(frame)
    }

    pub(super) fn take_aligned(&mut self, count: u64) -> Option<Frame> {
        let left = match self.left {
            Some(left) => Some(left.checked_sub(count)?),
            None => None,
        };
        let first = self.free.iter().copied().find(|first| {
            first.number().is_multiple_of(count)
                && FrameSpan::new(*first, count)
                    .is_some_and(|span| span.iter().all(|frame| self.free.contains(&frame)))
        })?;
        for frame in FrameSpan::new(first, count)?.iter() {
            self.free.remove(&frame);
            self.used.insert(frame);
        }
        self.left = left;
        Some(first)
    }

    /// Takes a frame back.
    pub(super) fn give(&mut self, frame: Frame) {
        assert!(self.used.remove(&frame), "{frame:?} was freed, but is not in use");
        self.free.insert(frame);
        self.left = self.left.map(|left| left + 1);
    }

    pub(super) fn add(&mut self, frames: FrameSpan) {
        for frame in frames.iter() {
            assert!(!self.used.contains(&frame), "{frame:?} is a table already");
            assert!(self.free.insert(frame), "{frame:?} is in the pool already");
        }
    }

    /// Removes at most `limit` free frames that lie in one block and were added after boot.
    pub(super) fn remove(&mut self, limit: u64) -> Option<FrameSpan> {
        let first = *self.free.iter().find(|frame| !self.boot.contains(**frame))?;
        let block_end = (first.number() / self.block + 1) * self.block;
        let mut count = 0;
        while count < limit && first.number() + count < block_end {
            let Some(frame) = first.checked_add(count) else {
                break;
            };
            if self.boot.contains(frame) || !self.free.remove(&frame) {
                break;
            }
            count += 1;
        }
        FrameSpan::new(first, count)
    }

    pub(super) fn is_used(&self, frame: Frame) -> bool {
        self.used.contains(&frame)
    }

    pub(super) fn free(&self) -> u64 {
        self.free.len() as u64
    }

    pub(super) fn in_use(&self) -> u64 {
        self.used.len() as u64
    }

    pub(super) fn boot_pages(&self) -> u64 {
        self.boot.frames()
    }
}
