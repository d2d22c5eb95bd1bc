//! Free physical frames, for the cases to give away.
#![expect(unsafe_code, reason = "reads and writes frames that it has handed out")]

use crate::{boot, machine::Machine};
use arrayvec::ArrayVec;
use core::ops::Range;
use core::ptr::with_exposed_provenance_mut;
use hyp_abi::{FRAME_SIZE, FrameRange};
use spin::mutex::TicketMutex;

static FREE: TicketMutex<ArrayVec<Range<u64>, 128>> = TicketMutex::new(ArrayVec::new_const());

/// Frames in one piece that a case has to itself. They go back to the free ones by [`Frames::free`] only: a case
/// that fails may leave them in any state, so what is not given back is never used again.
#[must_use]
#[derive(Debug)]
pub(crate) struct Frames(FrameRange);

/// Collects what is free: RAM without the reservations, the image, the tree and the ramdisk.
pub(crate) fn init(machine: &Machine) {
    let mut free: ArrayVec<Range<u64>, 128> = machine.memory.iter().cloned().collect();
    let image = boot::image();
    for taken in machine.reserved.iter().chain([&image]) {
        let taken = taken.start / FRAME_SIZE * FRAME_SIZE..taken.end.next_multiple_of(FRAME_SIZE);
        let mut left = ArrayVec::new();
        for range in &free {
            let before = range.start..range.end.min(taken.start);
            let after = range.start.max(taken.end)..range.end;
            left.extend([before, after].into_iter().filter(|part| part.start < part.end));
        }
        free = left;
    }
    *FREE.lock() = free;
}

/// Takes `count` frames in one piece whose address is a multiple of `alignment` bytes, a power of two.
pub(crate) fn allocate_aligned(count: u64, alignment: u64) -> Option<Frames> {
    let size = count * FRAME_SIZE;
    let mut free = FREE.lock();
    // From the top of the highest range that fits: what the loaders use is at the bottom.
    for index in (0..free.len()).rev() {
        let range = free[index].clone();
        let Some(start) = range
            .end
            .checked_sub(size)
            .map(|start| start / alignment * alignment)
        else {
            continue;
        };
        if start < range.start {
            continue;
        }
        free[index].end = start;
        let after = start + size..range.end;
        if after.start < after.end {
            free.insert(index + 1, after);
        }
        if free[index].is_empty() {
            free.remove(index);
        }
        return Some(Frames(FrameRange::new(start, count)));
    }
    None
}

/// Takes `count` frames in one piece.
pub(crate) fn allocate(count: u64) -> Option<Frames> {
    allocate_aligned(count, FRAME_SIZE)
}

/// How many frames are free.
pub(crate) fn free_frames() -> u64 {
    FREE.lock()
        .iter()
        .map(|range| (range.end - range.start) / FRAME_SIZE)
        .sum()
}

impl Frames {
    /// The frames.
    pub(crate) fn range(&self) -> FrameRange {
        self.0
    }

    /// Physical address of frame number `index` of these.
    pub(crate) fn frame(&self, index: u64) -> u64 {
        assert!(index < self.0.frames, "there are fewer frames");
        self.0.base + index * FRAME_SIZE
    }

    /// Frame number `index` of these, as a range.
    pub(crate) fn one(&self, index: u64) -> FrameRange {
        FrameRange::new(self.frame(index), 1)
    }

    /// Frames that came back from EL2's pool and are this payload's to use.
    pub(crate) fn adopt(range: FrameRange) -> Self {
        Self(range)
    }

    /// `count` of these from number `first` on. The others are given back.
    pub(crate) fn part(self, first: u64, count: u64) -> Self {
        let Self(FrameRange { base, frames }) = self;
        assert!(first + count <= frames, "there are fewer frames");
        let cut = |from: u64, to: u64| Self(FrameRange::new(base + from * FRAME_SIZE, to - from));
        for rest in [cut(0, first), cut(first + count, frames)] {
            if rest.0.frames > 0 {
                rest.free();
            }
        }
        cut(first, first + count)
    }

    /// Frame number `index` of these, to fill or look at. It is not given back by itself.
    pub(crate) fn part_of(&self, index: u64) -> Self {
        Self(self.one(index))
    }

    /// Gives the frames back. They must be the host's own again, as they were.
    pub(crate) fn free(self) {
        let range = self.0.base..self.0.base + self.0.frames * FRAME_SIZE;
        let mut free = FREE.lock();
        let at = free
            .iter()
            .position(|other| other.start > range.start)
            .unwrap_or(free.len());
        if free.try_insert(at, range).is_err() {
            return;
        }
        let mut index = at.saturating_sub(1);
        while index + 1 < free.len() {
            if free[index].end == free[index + 1].start {
                free[index].end = free[index + 1].end;
                free.remove(index + 1);
            } else {
                index += 1;
            }
        }
    }

    /// Writes `value` to every eight bytes of the frames, mixed with their address.
    pub(crate) fn fill(&self, value: u64) {
        for address in self.words() {
            // SAFETY: the frame is RAM that the machine says is there, mapped one to one, and this value's alone.
            unsafe { with_exposed_provenance_mut::<u64>(address as usize).write_volatile(value ^ address) };
        }
    }

    /// Writes zeroes to the frames.
    pub(crate) fn zero(&self) {
        for address in self.words() {
            // SAFETY: as in `fill`.
            unsafe { with_exposed_provenance_mut::<u64>(address as usize).write_volatile(0) };
        }
    }

    /// Reads every eight bytes and returns the address and contents of the first that `expected` finds wrong.
    pub(crate) fn find_wrong(&self, expected: impl Fn(u64) -> u64) -> Option<(u64, u64)> {
        self.words().find_map(|address| {
            // SAFETY: as in `fill`.
            let value = unsafe { with_exposed_provenance_mut::<u64>(address as usize).read_volatile() };
            (value != expected(address)).then_some((address, value))
        })
    }

    /// Every eight bytes of the frames, in order.
    pub(crate) fn contents(&self) -> impl Iterator<Item = u64> + use<> {
        self.words().map(|address| {
            // SAFETY: as in `fill`.
            unsafe { with_exposed_provenance_mut::<u64>(address as usize).read_volatile() }
        })
    }

    /// Writes code to the start of frame number `index` and makes it visible to fetches.
    pub(crate) fn write_code(&self, index: u64, code: &[u32]) {
        let address = self.frame(index);
        for (position, instruction) in code.iter().enumerate() {
            let at = with_exposed_provenance_mut::<u32>(address as usize + position * 4);
            // SAFETY: as in `fill`.
            unsafe { at.write_volatile(*instruction) };
        }
        crate::sysreg::synchronize_code(address);
    }

    fn words(&self) -> impl Iterator<Item = u64> + use<> {
        (self.0.base..self.0.base + self.0.frames * FRAME_SIZE).step_by(8)
    }
}
