//! How many pages of EL2's pool the map's and the tables' splits take.
//!
//! A region whose frames differ takes a page for its entries; a region of which the host may reach a part only, a
//! page for its descriptors. EL2's own table has descriptors for each frame that it maps, and none else. A few pages
//! are kept back for the call that brings new ones.

use super::memory::{Layout, Memory, Piece};
use super::{Holding, World};

/// How many pages a call may take.
#[derive(Clone, Copy, Debug)]
pub(super) struct Budget {
    free: u64,
    left: Option<u64>,
}

impl Budget {
    /// What can be taken now.
    pub(super) fn available(self) -> u64 {
        self.left.map_or(self.free, |left| left.min(self.free))
    }

    /// Goes from `before` pages in use to `after`.
    pub(super) fn settle(&mut self, before: u64, after: u64) {
        self.free = self.free + before - after;
        self.left = self.left.map(|left| left + before - after);
    }

    /// Frames came to the pool.
    pub(super) fn add(&mut self, frames: u64) {
        self.free += frames;
    }
}

impl Memory {
    /// Pages of the pool, free and used.
    #[must_use]
    pub fn pool_total(&self, layout: &Layout) -> u64 {
        layout.boot_pages + self.count(|holding| holding == Holding::Pool)
    }

    /// Pages of the pool that are tables, or entries of the map.
    #[must_use]
    pub fn pool_used(&self, layout: &Layout) -> u64 {
        let set = |flags: &[bool]| flags.iter().filter(|flag| **flag).count() as u64;
        let (regions, uppers) = self.el2_tables(layout);
        layout.fixed_pages
            + self.spare
            + self.vms.pages()
            + set(&self.split_in_map)
            + set(&self.split_for_host)
            + regions
            + uppers
    }

    /// Whether a top-up finds the pages that it takes, those of the map and the host first: each kind in the pool or, if
    /// that has too few, among those kept back.
    pub(super) fn draw(&mut self, budget: Budget, kinds: [u64; 2]) -> bool {
        let mut pool = budget.available();
        let mut spare = self.spare;
        for pages in kinds {
            let source = if pool >= pages { &mut pool } else { &mut spare };
            let Some(left) = source.checked_sub(pages) else {
                return false;
            };
            *source = left;
        }
        self.spare = spare;
        true
    }

    /// Keeps as many pages back as there should be, as far as there are any.
    pub(super) fn refill(&mut self, layout: &Layout, budget: &mut Budget) {
        let pages = (layout.spare - self.spare).min(budget.available());
        self.spare += pages;
        budget.settle(0, pages);
    }

    pub(super) fn budget(&self, layout: &Layout, world: &World) -> Budget {
        Budget {
            free: self.pool_total(layout) - self.pool_used(layout),
            left: world.pool_limit,
        }
    }

    pub(super) fn count(&self, which: impl Fn(Holding) -> bool) -> u64 {
        self.frames.iter().filter(|holding| which(**holding)).count() as u64
    }

    /// Whether EL2 maps a frame of the region.
    fn el2_in_region(&self, layout: &Layout, region: usize) -> bool {
        let frames = self.region(layout, region);
        frames.iter().any(|frame| frame.el2_reaches() == Some(true))
    }

    /// Tables of EL2's that hold descriptors of frames, and those above them below the root.
    fn el2_tables(&self, layout: &Layout) -> (u64, u64) {
        let mut tables = 0;
        let mut uppers = 0;
        let mut last = None;
        for (region, start) in layout.regions.iter().enumerate() {
            if self.el2_in_region(layout, region) {
                tables += 1;
                let upper = start / layout.upper;
                if last != Some(upper) {
                    uppers += 1;
                    last = Some(upper);
                }
            }
        }
        (tables, uppers)
    }

    /// Pages that entries for each frame of the piece's region take, if it has none yet.
    pub(super) fn pages_for_entries(&self, piece: Piece) -> u64 {
        u64::from(!piece.whole && !self.split_in_map[piece.region])
    }

    /// Pages that it takes to give the host a part of a region, or take it away.
    pub(super) fn pages_for_host(&self, piece: Piece) -> u64 {
        u64::from(!piece.whole && !self.split_for_host[piece.region])
    }

    /// Pages that it takes to map frames of the piece's region at EL2.
    pub(super) fn pages_for_el2(&self, layout: &Layout, piece: Piece) -> u64 {
        if self.el2_in_region(layout, piece.region) {
            return 0;
        }
        let upper = layout.regions[piece.region] / layout.upper;
        let neighbors = layout.regions.iter().enumerate();
        let has_upper = neighbors
            .filter(|(_, start)| **start / layout.upper == upper)
            .any(|(region, _)| self.el2_in_region(layout, region));
        1 + u64::from(!has_upper)
    }
}
