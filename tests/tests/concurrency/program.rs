//! Small programs: calls before, and the calls that CPUs make at once.

use super::HOST;
use hyp_abi::{FRAME_SIZE, FrameRange, HostCall};

/// Which calls a program is made of.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Alphabet {
    /// Those on frames of one region, each of which is one step.
    OneRegion,
    /// Those on ranges across two regions, too.
    TwoRegions,
    /// The pool's, and those that take pages from it.
    Pool,
}

/// A program.
#[derive(Clone, Debug)]
pub(super) struct Program {
    /// Calls before, one after the other.
    pub(super) before: Vec<HostCall>,
    /// For each CPU its calls.
    pub(super) courses: Vec<Vec<HostCall>>,
}

/// A run of frames.
pub(super) const fn range(first: u64, frames: u64) -> FrameRange {
    FrameRange::new(first * FRAME_SIZE, frames)
}

/// Numbers that are the same for the same seed (an LCG; the high bits are good enough for picking).
struct Picker(u64);

impl Picker {
    fn below(&mut self, end: u64) -> u64 {
        self.0 = self
            .0
            .wrapping_mul(6_364_136_223_846_793_005)
            .wrapping_add(1_442_695_040_888_963_407);
        (self.0 >> 33) % end
    }

    fn call(&mut self, alphabet: Alphabet) -> HostCall {
        let regions = if alphabet == Alphabet::OneRegion { 1 } else { 2 };
        let frames = regions * 4;
        let (first, count) = match self.below(3) {
            0 => (self.below(frames), 1),
            1 => (4 * self.below(regions), 4),
            _ => {
                let first = self.below(frames);
                (first, 1 + self.below(frames - first))
            }
        };
        let range = range(HOST + first, count);
        let frame = range.base;
        let kinds = match alphabet {
            Alphabet::OneRegion => 9,
            Alphabet::TwoRegions => 10,
            Alphabet::Pool => 14,
        };
        match self.below(kinds) {
            0 => HostCall::ShareHyp(range),
            1 => HostCall::UnshareHyp(range),
            2 | 3 => HostCall::DonateHyp(range),
            4 | 5 => HostCall::ReclaimHyp(range),
            6 => HostCall::Collapse(self::range(HOST, frames)),
            7 => HostCall::FrameState { frame },
            8 => HostCall::TraceAttach {
                cpu: self.below(2),
                frame,
            },
            9 => HostCall::TraceDetach { cpu: self.below(2) },
            10 | 11 => HostCall::PoolTopUp(range),
            _ => HostCall::PoolDrain {
                frames: 1 + self.below(3),
            },
        }
    }
}

impl Program {
    /// The program of a seed: two or three CPUs, two calls each.
    pub(super) fn new(seed: u64, alphabet: Alphabet) -> Self {
        let mut picker = Picker(seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) ^ alphabet as u64);
        let before = (0..3).map(|_| picker.call(alphabet)).collect();
        let cpus = 2 + picker.below(2);
        let courses = (0..cpus)
            .map(|_| (0..2).map(|_| picker.call(alphabet)).collect())
            .collect();
        Self { before, courses }
    }
}
