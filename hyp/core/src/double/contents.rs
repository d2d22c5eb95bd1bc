//! What frames hold, as far as tests care: whose words they are, and whether a cache still has them.

use crate::addr::{Frame, FrameSpan};
use crate::hardware::ExternalAbort;
use std::collections::{BTreeMap, BTreeSet};

/// What a frame holds.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Default)]
pub enum Contents {
    /// What it held when the machine started.
    #[default]
    Original,
    /// What [`Machine::write`](super::Machine::write) was last given for it.
    Written(u64),
    /// What EL2 keeps to itself: the frame was in its pool.
    Hyp,
    /// Zeros.
    Zero,
}

/// All frames of the machine.
#[derive(Clone, Debug, Default)]
pub(super) struct Memory {
    contents: BTreeMap<Frame, Contents>,
    dirty: BTreeSet<Frame>,
    poisoned: BTreeSet<Frame>,
    words: BTreeMap<(Frame, usize), u64>,
}

impl Memory {
    pub(super) fn contents(&self, frame: Frame) -> Contents {
        self.contents.get(&frame).copied().unwrap_or_default()
    }

    /// What the frame holds, for somebody who reads it.
    pub(super) fn read(&self, frame: Frame) -> Result<Contents, ExternalAbort> {
        if self.poisoned.contains(&frame) {
            return Err(ExternalAbort { frame });
        }
        Ok(self.contents(frame))
    }

    /// A word of a page that host and EL2 use together. Words are apart from what the frame holds else.
    pub(super) fn word(&self, frame: Frame, word: usize) -> u64 {
        self.words.get(&(frame, word)).copied().unwrap_or_default()
    }

    /// Writes such a word.
    pub(super) fn set_word(&mut self, frame: Frame, word: usize, value: u64) {
        self.words.insert((frame, word), value);
    }

    pub(super) fn write(&mut self, frame: Frame, what: u64) {
        self.contents.insert(frame, Contents::Written(what));
        self.dirty.insert(frame);
    }

    pub(super) fn is_dirty(&self, frame: Frame) -> bool {
        self.dirty.contains(&frame)
    }

    pub(super) fn poison(&mut self, frame: Frame) {
        self.poisoned.insert(frame);
    }

    pub(super) fn mend(&mut self, frame: Frame) {
        self.poisoned.remove(&frame);
    }

    /// EL2 begins to keep its own data in the frames.
    pub(super) fn occupy(&mut self, frames: FrameSpan) {
        for frame in frames.iter() {
            self.contents.insert(frame, Contents::Hyp);
            self.dirty.insert(frame);
        }
    }

    /// Zeroes frames one after the other, up to one that is poisoned.
    pub(super) fn scrub(&mut self, frames: FrameSpan) -> Result<(), ExternalAbort> {
        for frame in frames.iter() {
            if self.poisoned.contains(&frame) {
                return Err(ExternalAbort { frame });
            }
            self.contents.insert(frame, Contents::Zero);
            self.dirty.remove(&frame);
        }
        Ok(())
    }

    pub(super) fn clean(&mut self, frames: FrameSpan) {
        for frame in frames.iter() {
            self.dirty.remove(&frame);
        }
    }
}
