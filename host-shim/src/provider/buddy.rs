//! Blocks of any size, by the buddy system.

use super::{Allocated, Contents, Provider};
use crate::sync::SpinMutex;
use crate::{Block, MAX_ORDER, Pfn};
use buddy_system_allocator::FrameAllocator;
use core::fmt;
use core::ops::RangeInclusive;

const ORDERS: usize = MAX_ORDER as usize + 1;

/// Blocks of 4 KiB to 1 GiB out of whatever ranges of frames it was given.
pub struct Buddy(SpinMutex<State>);

struct State {
    allocator: FrameAllocator<ORDERS>,
    free: u64,
}

impl Buddy {
    /// A provider without a frame.
    #[must_use]
    pub const fn new() -> Self {
        Self(SpinMutex::new(State {
            allocator: FrameAllocator::new(),
            free: 0,
        }))
    }

    /// Gives it `frames` frames from `first` on. They are the host's, and it has had none of them before.
    pub fn add(&self, first: Pfn, frames: u64) {
        let mut state = self.0.lock();
        // Frame numbers have 40 bits, and the shim lives where addresses have 64.
        let start = first.number() as usize;
        state.allocator.add_frame(start, start + frames as usize);
        state.free += frames;
    }

    /// How many frames are free.
    #[must_use]
    pub fn free_frames(&self) -> u64 {
        self.0.lock().free
    }
}

impl Default for Buddy {
    fn default() -> Self {
        Self::new()
    }
}

impl fmt::Debug for Buddy {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Buddy")
            .field("free", &self.free_frames())
            .finish()
    }
}

impl Provider for Buddy {
    fn orders(&self) -> RangeInclusive<u8> {
        0..=MAX_ORDER
    }

    fn allocate(&self, order: u8, _: Contents) -> Option<Allocated> {
        if order > MAX_ORDER {
            return None;
        }
        let mut state = self.0.lock();
        let number = state.allocator.alloc(1 << order)?;
        state.free -= 1 << order;
        let pfn = Pfn::new(number as u64)?;
        Some(Allocated { pfn, zeroed: false })
    }

    fn free(&self, block: Block) {
        let mut state = self.0.lock();
        state
            .allocator
            .dealloc(block.pfn.number() as usize, 1 << block.order);
        state.free += block.frames();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_block_freed_in_parts_is_whole_again() {
        let buddy = Buddy::new();
        buddy.add(Pfn::new(0x200).unwrap(), 512);
        let block = buddy.allocate(9, Contents::Any).unwrap();
        assert_eq!(block.pfn.number() % 512, 0);
        assert_eq!(buddy.allocate(0, Contents::Any), None);
        for frame in (0..512).rev() {
            buddy.free(Block::frame(block.pfn.after(frame)));
        }
        assert_eq!(buddy.free_frames(), 512);
        assert_eq!(buddy.allocate(9, Contents::Any), Some(block));
    }

    #[test]
    fn an_order_that_no_provider_has_is_refused() {
        let buddy = Buddy::default();
        buddy.add(Pfn::new(0).unwrap(), 1024);
        assert_eq!(buddy.allocate(19, Contents::Any), None);
        assert_eq!(buddy.allocate(18, Contents::Any), None);
        assert_eq!(buddy.free_frames(), 1024);
    }
}
