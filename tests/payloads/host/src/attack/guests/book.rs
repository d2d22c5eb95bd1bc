//! Which frames of a place its VM was given, and where.

use crate::attack::ground::{TooSmall, take};
use crate::attack::random::Random;
use crate::attack::tally;
use crate::frames::Frames;
use hyp_abi::{FRAME_SIZE, FrameRange};

/// Frames of a place.
const FRAMES: usize = 80;

/// What a place knows of its frames. They are used with its own VM alone.
#[derive(Debug)]
pub(in crate::attack) struct Book {
    frames: FrameRange,
    /// The guest frame number that each was given to the VM at. What became of it then is EL2's to say.
    given: [Option<u64>; FRAMES],
    /// How often each is pinned. Only who holds the book pins and unpins.
    pins: [u64; FRAMES],
    /// How many VMs there have been.
    pub(super) lives: u64,
}

impl Book {
    /// A book of frames that are the host's.
    ///
    /// # Errors
    /// If there are too few.
    pub(super) fn new() -> Result<Self, TooSmall> {
        Ok(Self {
            frames: take(FRAMES as u64, FRAME_SIZE)?,
            given: [None; FRAMES],
            pins: [0; FRAMES],
            lives: 0,
        })
    }

    /// All frames.
    pub(in crate::attack) fn range(&self) -> FrameRange {
        self.frames
    }

    fn frame(&self, index: usize) -> u64 {
        self.frames.base + index as u64 * FRAME_SIZE
    }

    fn index(&self, frame: u64) -> Option<usize> {
        let index = (frame.checked_sub(self.frames.base)? / FRAME_SIZE) as usize;
        (index < FRAMES).then_some(index)
    }

    /// Notes that a frame goes to `gfn`, and returns it. It holds garbage of the host's.
    pub(super) fn give(&mut self, gfn: u64) -> Option<u64> {
        let index = self.given.iter().position(Option::is_none)?;
        self.given[index] = Some(gfn);
        let frame = self.frame(index);
        Frames::adopt(FrameRange::new(frame, 1)).fill(gfn);
        Some(frame)
    }

    /// Notes that the first frames, all of which are the host's, go to `gfn` and on, and returns them as they are.
    pub(super) fn give_first(&mut self, count: u64, gfn: u64) -> FrameRange {
        for (given, gfn) in self.given.iter_mut().zip(gfn..gfn + count) {
            *given = Some(gfn);
        }
        FrameRange::new(self.frames.base, count)
    }

    /// Notes that a frame is the host's again.
    pub(super) fn note_back(&mut self, frame: u64) {
        let Some(index) = self.index(frame) else { return };
        self.given[index] = None;
        let pins = core::mem::take(&mut self.pins[index]);
        if pins != 0 {
            tally::fail(format_args!("{frame:#x} came back with {pins} pins on it"));
        }
    }

    /// Notes that all are.
    pub(super) fn note_all_back(&mut self) {
        for index in 0..FRAMES {
            self.note_back(self.frame(index));
        }
    }

    /// Notes that the first `count` frames from `frame` on were pinned once more.
    pub(super) fn note_pinned(&mut self, frame: u64, count: u64) {
        for address in (frame..).step_by(FRAME_SIZE as usize).take(count as usize) {
            if let Some(index) = self.index(address) {
                self.pins[index] += 1;
            }
        }
    }

    /// Notes that they have one pin less.
    pub(super) fn note_unpinned(&mut self, frame: u64, count: u64) {
        for address in (frame..).step_by(FRAME_SIZE as usize).take(count as usize) {
            let Some(index) = self.index(address) else {
                continue;
            };
            match self.pins[index].checked_sub(1) {
                Some(pins) => self.pins[index] = pins,
                None => tally::fail(format_args!("{address:#x} had no pin that could be taken off")),
            }
        }
    }

    /// How often a frame is pinned.
    pub(super) fn pins(&self, frame: u64) -> u64 {
        self.index(frame).map_or(0, |index| self.pins[index])
    }

    /// The guest frame number of a frame that is pinned.
    pub(super) fn any_pinned(&self) -> Option<u64> {
        let index = self.pins.iter().position(|pins| *pins > 0)?;
        self.given[index]
    }

    /// How many frames there are from `frame` on.
    pub(super) fn frames_from(&self, frame: u64) -> u64 {
        self.index(frame).map_or(1, |index| (FRAMES - index) as u64)
    }

    /// The frame that was given to the VM at `gfn`.
    pub(super) fn frame_at(&self, gfn: u64) -> Option<u64> {
        let index = self.given.iter().position(|given| *given == Some(gfn))?;
        Some(self.frame(index))
    }

    /// Every frame that was given away, and its guest frame number.
    pub(super) fn all_given(&self) -> impl Iterator<Item = (u64, u64)> {
        (0..FRAMES).filter_map(|index| Some((self.frame(index), self.given[index]?)))
    }

    /// One of them.
    pub(super) fn any_given(&self, random: &mut Random) -> Option<(u64, u64)> {
        self.any_given_from(0, random)
    }

    /// One of those that were given to the VM at `gfn` or behind it.
    pub(super) fn any_given_from(&self, gfn: u64, random: &mut Random) -> Option<(u64, u64)> {
        let some = || self.all_given().filter(|(_, at)| *at >= gfn);
        let count = some().count() as u64;
        if count == 0 {
            return None;
        }
        some().nth(random.below(count) as usize)
    }
}
