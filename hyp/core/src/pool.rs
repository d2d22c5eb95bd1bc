//! Single pages in front of an allocator of blocks: taking one and giving it back takes the same few steps, however many
//! are free.
//!
//! An allocator that joins blocks looks for the neighbour of what comes back, and may look through all that is free for
//! it. A page that comes back waits in a list instead, and is the next to be taken. Only who wants a block and finds none
//! has some of the waiting pages joined.

use crate::addr::Frame;
use crate::hardware::{Hardware, TablePage};
use crate::pgtable::PageList;

/// An allocator of blocks of frames. How many there are in one is a power of two, and it is aligned to its whole size.
pub trait Blocks {
    /// A block of `frames` frames, named by its first one, or `None` if there is none.
    fn take(&mut self, frames: u64) -> Option<Frame>;

    /// Takes a block back.
    fn give(&mut self, first: Frame, frames: u64);
}

/// How many waiting pages are joined at once: whoever wants a block waits for no more.
pub const JOINED: u64 = 256;

/// The block that begins with `first`, which was just taken, or else the first one of those that `take` gives: whichever
/// `zero` can zero. `None` if there is none. Blocks are named by their first frame.
///
/// Memory may break while it is in the pool. `zero` answers the first frame that answered with an external abort: with it,
/// the block goes to `set_aside`, which must not give that frame back to where `take` finds it.
#[inline(always)]
pub fn sound_or_another(
    first: Frame,
    take: impl FnMut() -> Option<Frame>,
    zero: impl Fn(Frame) -> Result<(), Frame>,
    mut set_aside: impl FnMut(Frame, Frame),
) -> Option<Frame> {
    match zero(first) {
        Ok(()) => Some(first),
        Err(broken) => {
            set_aside(first, broken);
            another(take, zero, set_aside)
        }
    }
}

/// Apart, so that whoever meets nothing broken does not pay for a loop.
#[cold]
#[inline(never)]
fn another(
    mut take: impl FnMut() -> Option<Frame>,
    zero: impl Fn(Frame) -> Result<(), Frame>,
    mut set_aside: impl FnMut(Frame, Frame),
) -> Option<Frame> {
    loop {
        let first = take()?;
        match zero(first) {
            Ok(()) => return Some(first),
            Err(broken) => set_aside(first, broken),
        }
    }
}

/// Frames in blocks and in single pages, all free.
#[derive(Debug)]
pub struct Stock<B> {
    blocks: B,
    waiting: PageList,
}

impl<B: Blocks> Stock<B> {
    /// What `blocks` has.
    pub const fn new(blocks: B) -> Self {
        Self {
            blocks,
            waiting: PageList::new(),
        }
    }

    /// The allocator of blocks.
    pub const fn blocks(&mut self) -> &mut B {
        &mut self.blocks
    }

    /// A page: the one that came back last, or else one out of a block.
    pub fn take_page<H: Hardware>(&mut self, hw: &H) -> Option<TablePage> {
        self.waiting
            .pop(hw)
            .or_else(|| self.blocks.take(1).map(TablePage::new))
    }

    /// Takes a page back. It is in no table, and no TLB leads to it.
    pub fn give_page<H: Hardware>(&mut self, hw: &H, page: TablePage) {
        self.waiting.push(hw, page);
    }

    /// Takes the frames of a block back, but for one that is broken.
    pub fn give_around<H: Hardware>(&mut self, hw: &H, first: Frame, frames: u64, broken: Frame) {
        let block = (0..frames).filter_map(|index| first.checked_add(index));
        for frame in block.filter(|frame| *frame != broken) {
            self.give_page(hw, TablePage::new(frame));
        }
    }

    /// Joins pages that wait to blocks, [`JOINED`] at most, the last that came first. Answers whether any waited.
    pub fn join<H: Hardware>(&mut self, hw: &H) -> bool {
        let before = self.waiting.len();
        for _ in 0..JOINED {
            let Some(page) = self.waiting.pop(hw) else {
                break;
            };
            self.blocks.give(page.frame(), 1);
        }
        before > 0
    }
}

#[cfg(test)]
mod tests;
