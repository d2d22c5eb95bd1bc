//! What is owed after a table has changed: a TLB invalidation, and only then the free tables.

use super::reserve::{PageList, Reserve};
use crate::addr::{FRAME_SHIFT, Ipa};
use crate::hardware::{Extent, Hardware, Regime, TablePage};
use core::mem;

/// The addresses whose translations must go.
#[derive(Clone, Copy, Debug)]
struct Hull {
    start: Ipa,
    end: u64,
    /// The level of the leaves that were there, if it was one level and no table went with them.
    level: Option<u8>,
}

/// The debt of a change: translations that TLBs may still hold, and tables that walks may still read.
///
/// Whoever changes a table gets one, and pays it with [`Obligation::complete`] before anybody else may use the
/// memory. Several debts of one regime can be joined and paid at once. An obligation that is dropped unpaid is a
/// bug: with debug assertions it panics.
#[derive(Debug)]
#[must_use = "TLBs still hold the old translations until the obligation is completed"]
pub struct Obligation {
    regime: Regime,
    hull: Option<Hull>,
    detached: PageList,
}

impl Obligation {
    /// Nothing owed in `regime`.
    pub const fn none(regime: Regime) -> Self {
        Self {
            regime,
            hull: None,
            detached: PageList::new(),
        }
    }

    /// Whose translations must go.
    #[must_use]
    pub const fn regime(&self) -> Regime {
        self.regime
    }

    /// The range of translations that must go; `None` if there are none. The level is given only if leaf
    /// descriptors of that level changed, and nothing else.
    #[must_use]
    pub fn extent(&self) -> Option<Extent> {
        self.hull.map(|hull| Extent::Range {
            start: hull.start,
            pages: (hull.end - hull.start.value()) >> FRAME_SHIFT,
            level: hull.level,
        })
    }

    /// How many tables wait to be freed.
    #[must_use]
    pub const fn detached(&self) -> u64 {
        self.detached.len()
    }

    /// Whether nothing is owed.
    #[must_use]
    pub const fn is_empty(&self) -> bool {
        self.hull.is_none() && self.detached.len() == 0
    }

    /// Adds `pages` pages from `start`, whose leaves were of `level`, or of several levels.
    pub(super) fn add(&mut self, start: Ipa, pages: u64, level: Option<u8>) {
        self.merge(Hull {
            start,
            end: start.value() + (pages << FRAME_SHIFT),
            level,
        });
    }

    /// Adds a table that nothing leads to any more but what is cached.
    pub(super) fn detach<H: Hardware>(&mut self, hw: &H, page: TablePage) {
        self.detached.push(hw, page);
    }

    fn merge(&mut self, new: Hull) {
        self.hull = Some(match self.hull {
            None => new,
            Some(old) => Hull {
                start: old.start.min(new.start),
                end: old.end.max(new.end),
                level: if old.level == new.level { old.level } else { None },
            },
        });
    }

    /// Both debts as one: the range covers both, and what lies between. A debt of another regime cannot wait with
    /// this one, and is completed now.
    pub fn join<H: Hardware>(&mut self, hw: &H, mut other: Self) {
        if other.regime != self.regime {
            other.complete(hw);
            return;
        }
        if let Some(hull) = other.hull.take() {
            self.merge(hull);
        }
        self.detached.append(hw, &mut other.detached);
    }

    /// Pays: invalidates, and then frees the detached tables to the pool.
    pub fn complete<H: Hardware>(self, hw: &H) {
        self.settle(hw, |page| hw.free_page(page));
    }

    /// Pays: invalidates, and then puts the detached tables in `reserve`, for a VM that pays for its own tables.
    pub fn complete_into<H: Hardware>(self, hw: &H, reserve: &mut Reserve) {
        self.settle(hw, |page| reserve.put(hw, page));
    }

    fn settle<H: Hardware>(mut self, hw: &H, mut free: impl FnMut(TablePage)) {
        if let Some(extent) = self.extent() {
            hw.invalidate(self.regime, extent);
            self.hull = None;
        }
        let mut detached = mem::take(&mut self.detached);
        while let Some(page) = detached.pop(hw) {
            free(page);
        }
    }
}

impl Drop for Obligation {
    fn drop(&mut self) {
        super::assert_spent(self.is_empty(), "an obligation to invalidate was dropped");
    }
}
