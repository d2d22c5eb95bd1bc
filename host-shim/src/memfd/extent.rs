//! A block of frames in a file, and what is known of its pages.

use crate::{Block, Pfn};
use alloc::collections::BTreeMap;
use alloc::vec::Vec;
use core::ops::Range;

/// What a page of a file is. That a guest which is not protected borrows it, is in the slot's record and not here; that
/// a protected guest shares it with the host, EL2 knows.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Page {
    /// The host's, with contents that nobody chose.
    Fresh,
    /// The host's, with contents that the guest may see.
    Ready,
    /// Donated to the VM of that number.
    Private(u64),
    /// The host's and zero: punched, but its block is still in use.
    Hole,
    /// Nobody's any more: a hardware memory error.
    Poisoned,
}

/// The pages of one extent. Most are all alike; the others cost what their runs cost.
#[derive(Debug)]
enum Pages {
    All(Page),
    /// Each run by its first page, counted from the extent's first one. There is always one at 0, and no two
    /// neighbours are alike.
    Runs(BTreeMap<u64, Page>),
}

/// A block of frames in a file.
#[derive(Debug)]
pub(crate) struct Extent {
    pub(super) order: u8,
    /// The first frame; `None` while somebody allocates it, who holds the extent.
    pub(super) pfn: Option<Pfn>,
    pub(super) held: bool,
    pages: Pages,
}

impl Extent {
    /// An extent that its creator holds, until it has frames and afterwards.
    pub(super) const fn filling(order: u8) -> Self {
        Self {
            order,
            pfn: None,
            held: true,
            pages: Pages::All(Page::Fresh),
        }
    }

    /// A part of another extent, that nobody holds.
    pub(super) const fn part(block: Block, page: Page) -> Self {
        Self {
            order: block.order,
            pfn: Some(block.pfn),
            held: false,
            pages: Pages::All(page),
        }
    }

    pub(super) const fn frames(&self) -> u64 {
        1 << self.order
    }

    /// The page at `offset` pages from the extent's start.
    pub(super) fn page(&self, offset: u64) -> Page {
        match &self.pages {
            Pages::All(page) => *page,
            Pages::Runs(runs) => runs
                .range(..=offset)
                .next_back()
                .map_or(Page::Fresh, |(_, page)| *page),
        }
    }

    /// Runs of equal pages in a part of the extent.
    pub(super) fn runs(&self, part: Range<u64>) -> Vec<(Range<u64>, Page)> {
        match &self.pages {
            Pages::All(page) if part.is_empty() => {
                let _ = page;
                Vec::new()
            }
            Pages::All(page) => [(part, *page)].into(),
            Pages::Runs(runs) => {
                let mut found: Vec<(Range<u64>, Page)> = Vec::new();
                let mut at = part.start;
                while at < part.end {
                    let next = runs
                        .range(at + 1..)
                        .next()
                        .map_or(self.frames(), |(next, _)| *next);
                    found.push((at..next.min(part.end), self.page(at)));
                    at = next;
                }
                found
            }
        }
    }

    /// Makes all pages of a part of the extent alike.
    pub(super) fn set(&mut self, part: Range<u64>, page: Page) {
        if part.is_empty() {
            return;
        }
        let frames = self.frames();
        if part == (0..frames) {
            self.pages = Pages::All(page);
            return;
        }
        let after = (part.end < frames).then(|| self.page(part.end));
        let before = part.start.checked_sub(1).map(|before| self.page(before));
        if let Pages::All(all) = self.pages {
            self.pages = Pages::Runs(BTreeMap::from([(0, all)]));
        }
        let Pages::Runs(runs) = &mut self.pages else {
            return;
        };
        // Every boundary in the part and at its ends goes, and those that are needed come back.
        let stale: Vec<u64> = runs
            .range(part.start..=part.end)
            .map(|(start, _)| *start)
            .collect();
        for start in stale {
            runs.remove(&start);
        }
        if before != Some(page) {
            runs.insert(part.start, page);
        }
        if let Some(after) = after.filter(|after| *after != page) {
            runs.insert(part.end, after);
        }
        if runs.len() == 1 {
            self.pages = Pages::All(page);
        }
    }

    /// How many pages are not holes.
    pub(super) fn resident(&self) -> u64 {
        let frames = self.frames();
        match &self.pages {
            Pages::All(Page::Hole) => 0,
            Pages::All(_) => frames,
            Pages::Runs(runs) => {
                let ends = runs.keys().skip(1).copied().chain([frames]);
                let resident = runs
                    .iter()
                    .zip(ends)
                    .filter(|((_, page), _)| **page != Page::Hole);
                resident.map(|((start, _), end)| end - start).sum()
            }
        }
    }

    /// Whether every page is one that the block is not kept for.
    pub(super) fn is_all_holes(&self) -> bool {
        self.runs(0..self.frames())
            .iter()
            .all(|(_, page)| matches!(page, Page::Hole | Page::Poisoned))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn runs_of_pages_split_and_join() {
        let mut extent = Extent::part(Block::new(Pfn::new(0x200).unwrap(), 4), Page::Fresh);
        extent.set(4..8, Page::Ready);
        extent.set(6..10, Page::Hole);
        assert_eq!(
            extent.runs(0..16),
            [
                (0..4, Page::Fresh),
                (4..6, Page::Ready),
                (6..10, Page::Hole),
                (10..16, Page::Fresh)
            ]
        );
        assert_eq!(extent.runs(5..7), [(5..6, Page::Ready), (6..7, Page::Hole)]);
        assert_eq!((extent.page(9), extent.page(10)), (Page::Hole, Page::Fresh));
        extent.set(4..10, Page::Fresh);
        assert!(matches!(extent.pages, Pages::All(Page::Fresh)));
        extent.set(0..15, Page::Hole);
        assert!(!extent.is_all_holes());
        extent.set(15..16, Page::Hole);
        assert!(extent.is_all_holes());
        assert!(extent.runs(3..3).is_empty());
    }

    #[test]
    fn every_sequence_of_changes_agrees_with_a_plain_array() {
        let kinds = [Page::Fresh, Page::Ready, Page::Hole];
        let mut extent = Extent::part(Block::new(Pfn::new(0).unwrap(), 3), Page::Fresh);
        let mut plain = [Page::Fresh; 8];
        let mut seed = 7_u64;
        for _ in 0..2000 {
            seed = seed.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
            let (start, end) = ((seed >> 40) % 9, (seed >> 48) % 9);
            let kind = kinds[(seed >> 56) as usize % 3];
            let part = start.min(end)..start.max(end);
            extent.set(part.clone(), kind);
            plain[part.start as usize..part.end as usize].fill(kind);
            for (offset, page) in plain.iter().enumerate() {
                assert_eq!(extent.page(offset as u64), *page);
            }
            let resident = plain.iter().filter(|page| **page != Page::Hole).count() as u64;
            assert_eq!(extent.resident(), resident);
            let runs = extent.runs(0..8);
            assert!(runs.windows(2).all(|pair| pair[0].1 != pair[1].1), "{runs:?}");
        }
    }
}
