//! Pages that EL2 keeps back for the one call that ends a want of pages: the top-up of the pool.
//!
//! To take a page in, EL2 may need others: a node, a level-3 table of the host's, tables of its own. A pool that is
//! empty to the last page could never be filled again. So a few pages are kept out of it, which only a top-up may
//! use, and which the next frames that it brings replace.

use super::Ownership;
#[cfg(any(test, feature = "doubles"))]
use crate::addr::Frame;
use crate::hardware::{Event, Hardware, LockName, TablePage};
use crate::pgtable::Reserve;
use arrayvec::ArrayVec;
use core::mem;

/// The most that taking in frames of one region can need: a node and a level-3 table of the host's, and EL2's own
/// tables of levels 1 to 3.
const SPARE_PAGES: usize = 5;

/// What is kept back.
#[derive(Debug, Default)]
pub(super) struct Spare {
    pages: ArrayVec<TablePage, SPARE_PAGES>,
    /// How many pages should be here.
    wanted: usize,
}

/// Where the pages of a commit come from.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Source {
    /// The pool.
    Pool,
    /// The pool and, if that is empty, the pages that are kept back.
    PoolOrSpare,
}

impl<H: Hardware> Ownership<'_, H> {
    /// Keeps pages back from now on, so that an empty pool can be topped up. To be called once, at boot.
    pub fn keep_spare(&self) {
        self.with_spare(|spare| spare.wanted = SPARE_PAGES);
        self.refill_spare();
    }

    /// How many pages are kept back.
    #[must_use]
    pub fn spare_pages(&self) -> u64 {
        self.with_spare(|spare| spare.pages.len() as u64)
    }

    /// The frames that are kept back. For tests.
    #[cfg(any(test, feature = "doubles"))]
    #[must_use]
    pub fn spare_frames(&self) -> std::vec::Vec<Frame> {
        self.with_spare(|spare| spare.pages.iter().map(|page| page.frame()).collect())
    }

    /// Keeps these frames back and no others. For tests that go back to an earlier state.
    #[cfg(any(test, feature = "doubles"))]
    pub fn restore_spare(&self, frames: &[Frame]) {
        self.with_spare(|spare| spare.pages = frames.iter().copied().map(TablePage::new).collect());
    }

    /// Takes `pages` zeroed pages; `None`, and none taken, if there are too few.
    pub(super) fn take_pages(&self, pages: u64, source: Source) -> Option<Reserve> {
        let from_pool = Reserve::take(&self.hw, pages);
        if from_pool.is_some() || source == Source::Pool {
            return from_pool;
        }
        self.with_spare(|spare| {
            if (spare.pages.len() as u64) < pages {
                return None;
            }
            let mut reserve = Reserve::new();
            while reserve.pages() < pages {
                reserve.put(&self.hw, spare.pages.pop()?);
            }
            Some(reserve)
        })
    }

    /// Fills up what is kept back, as far as the pool can.
    pub(super) fn refill_spare(&self) {
        self.with_spare(|spare| {
            while spare.pages.len() < spare.wanted {
                let Some(page) = self.hw.allocate_page() else {
                    break;
                };
                spare.pages.push(page);
            }
        });
    }

    /// Exchanges what is kept back for what is free, as far as that goes. To be called when nothing but pages that the boot
    /// reserved is free.
    pub(super) fn renew_spare(&self) {
        self.with_spare(|spare| {
            for kept in &mut spare.pages {
                let Some(page) = self.hw.allocate_page() else {
                    break;
                };
                self.hw.free_page(mem::replace(kept, page));
            }
        });
    }

    fn with_spare<R>(&self, work: impl FnOnce(&mut Spare) -> R) -> R {
        let mut spare = self.spare.lock();
        self.hw.observe(Event::Locked(LockName::Spare));
        let result = work(&mut spare);
        self.hw.observe(Event::Unlocked(LockName::Spare));
        result
    }
}
