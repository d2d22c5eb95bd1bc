//! A fixed range of frames that the kernel's allocator never saw.

use super::{Allocated, Contents, Provider};
use crate::range_set::RangeSet;
use crate::sync::SpinMutex;
use crate::{Block, MAX_ORDER, Pfn};
use core::ops::RangeInclusive;

/// Frames of one fixed range: memory carved out at boot, or a persistent-memory device. There is no page structure and
/// perhaps no mapping of the host behind them. The lowest free block that fits is handed out.
#[derive(Debug)]
pub struct CarveOut {
    first: u64,
    end: u64,
    free: SpinMutex<RangeSet>,
}

impl CarveOut {
    /// A provider of `frames` frames from `first` on.
    #[must_use]
    pub fn new(first: Pfn, frames: u64) -> Self {
        let (first, end) = (first.number(), first.number() + frames);
        let mut free = RangeSet::new();
        free.insert(first..end);
        Self {
            first,
            end,
            free: SpinMutex::new(free),
        }
    }

    /// How many frames are free.
    #[must_use]
    pub fn free_frames(&self) -> u64 {
        self.free.lock().len()
    }
}

impl Provider for CarveOut {
    fn orders(&self) -> RangeInclusive<u8> {
        0..=MAX_ORDER
    }

    fn allocate(&self, order: u8, _: Contents) -> Option<Allocated> {
        if order > MAX_ORDER {
            return None;
        }
        let frames = 1 << order;
        let mut free = self.free.lock();
        let start = free.iter().find_map(|range| {
            let start = range.start.next_multiple_of(frames);
            (start + frames <= range.end).then_some(start)
        })?;
        free.remove(start..start + frames);
        Some(Allocated {
            pfn: Pfn::new(start)?,
            zeroed: false,
        })
    }

    fn free(&self, block: Block) {
        let start = block.pfn.number();
        let range = start..start + block.frames();
        debug_assert!(
            self.first <= range.start && range.end <= self.end,
            "only what was carved out comes back"
        );
        self.free.lock().insert(range);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn blocks_are_aligned_and_come_back() {
        let carve_out = CarveOut::new(Pfn::new(3).unwrap(), 13);
        let block = carve_out.allocate(2, Contents::Any).unwrap();
        assert_eq!(block.pfn.number(), 4);
        assert_eq!(carve_out.allocate(0, Contents::Any).unwrap().pfn.number(), 3);
        assert_eq!(carve_out.allocate(3, Contents::Any).unwrap().pfn.number(), 8);
        assert_eq!(carve_out.free_frames(), 0);
        assert_eq!(carve_out.allocate(0, Contents::Any), None);
        carve_out.free(Block::new(Pfn::new(4).unwrap(), 1));
        assert_eq!(carve_out.free_frames(), 2);
        assert_eq!(carve_out.allocate(1, Contents::Any).unwrap().pfn.number(), 4);
    }
}
