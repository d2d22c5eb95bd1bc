//! The right to change an extent of a file.

use super::extent::{Extent, Page};
use super::inode::Inode;
use crate::frames::aligned_pieces;
use crate::{Block, Kernel, Pfn};
use alloc::sync::Arc;
use alloc::vec::Vec;
use core::ops::Range;

/// An extent that nobody else changes, punches or gives to a guest meanwhile. There is one at a time.
#[derive(Debug)]
pub(crate) struct Hold<K: Kernel> {
    inode: Arc<Inode<K>>,
    start: u64,
    block: Block,
    /// The extent is gone, and what lies there now is not ours.
    over: bool,
}

impl<K: Kernel> Hold<K> {
    pub(super) fn new(inode: &Arc<Inode<K>>, start: u64, block: Block) -> Self {
        Self {
            inode: Arc::clone(inode),
            start,
            block,
            over: false,
        }
    }

    /// The pages of the extent, numbered from the start of the file.
    pub(crate) const fn range(&self) -> Range<u64> {
        self.start..self.start + self.block.frames()
    }

    pub(crate) const fn block(&self) -> Block {
        self.block
    }

    /// The frame of a page of the extent.
    pub(crate) const fn frame(&self, page: u64) -> Pfn {
        self.block.pfn.after(page - self.start)
    }

    pub(crate) fn page(&self, page: u64) -> Page {
        self.with(Page::Fresh, |extent| extent.page(page - self.start))
    }

    /// Runs of equal pages in a part of the extent.
    pub(crate) fn runs(&self, part: Range<u64>) -> Vec<(Range<u64>, Page)> {
        let mut runs = self.with(Vec::new(), |extent| extent.runs(self.inside(&part)));
        for (run, _) in &mut runs {
            *run = run.start + self.start..run.end + self.start;
        }
        runs
    }

    pub(crate) fn set(&self, part: Range<u64>, page: Page) {
        self.with((), |extent| extent.set(self.inside(&part), page));
    }

    pub(super) fn is_all_holes(&self) -> bool {
        self.with(false, |extent| extent.is_all_holes())
    }

    /// The first page of a part that the host has pinned.
    pub(crate) fn first_pinned(&self, part: Range<u64>) -> Option<u64> {
        self.inode.contents.lock().first_pinned(part)
    }

    /// Takes a part from the mappings of user space.
    pub(crate) fn zap(&self, part: Range<u64>) {
        self.inode.zap(part);
    }

    /// Makes every page of a part one whose contents the guest may see.
    pub(crate) fn prepare(&self, part: Range<u64>) -> Result<(), crate::Error> {
        for (run, page) in self.runs(part) {
            match page {
                Page::Fresh => {
                    let frames = run.end - run.start;
                    self.inode.host.kernel().zero(self.frame(run.start), frames)?;
                    self.set(run, Page::Ready);
                }
                Page::Hole => self.set(run, Page::Ready),
                Page::Ready | Page::Private(_) | Page::Poisoned => {}
            }
        }
        Ok(())
    }

    /// Takes the extent out of the file and frees its frames.
    pub(super) fn remove(mut self) {
        if let Some(extent) = self.take() {
            self.inode.free(&extent, 0..extent.frames());
        }
    }

    /// Takes a part out of the file and frees its frames. What is left are extents of their own.
    pub(super) fn split(mut self, part: Range<u64>) {
        let part = self.inside(&part);
        let inode = Arc::clone(&self.inode);
        let extent = {
            let mut contents = inode.contents.lock();
            self.over = true;
            let Some(extent) = contents.remove(self.start) else {
                return;
            };
            for rest in [0..part.start, part.end..extent.frames()] {
                for (run, page) in extent.runs(rest) {
                    // Blocks are aligned in the file and in memory alike, so the file decides for both.
                    for (start, order) in aligned_pieces(self.start + run.start, run.end - run.start) {
                        let block = Block::new(self.frame(start), order);
                        contents.insert(start, Extent::part(block, page));
                    }
                }
            }
            extent
        };
        inode.free(&extent, part);
    }

    const fn inside(&self, part: &Range<u64>) -> Range<u64> {
        part.start - self.start..part.end - self.start
    }

    fn take(&mut self) -> Option<Extent> {
        self.over = true;
        self.inode.contents.lock().remove(self.start)
    }

    fn with<T>(&self, absent: T, look: impl FnOnce(&mut Extent) -> T) -> T {
        match self.inode.contents.lock().at(self.start) {
            Some(extent) => look(extent),
            None => absent,
        }
    }
}

impl<K: Kernel> Drop for Hold<K> {
    fn drop(&mut self) {
        if !self.over {
            self.with((), |extent| extent.held = false);
        }
    }
}
