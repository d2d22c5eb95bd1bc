//! A place in a table, and the way on from it: every walk of the engine is one of these, none recurses.

use super::Table;
use super::descriptor::{Format, nth_table};
use super::span::IpaSpan;
use crate::addr::{FRAME_SHIFT, Ipa};
use crate::geometry::Geometry;
use crate::hardware::{Hardware, TablePage};
use crate::sync::{AtomicU64, Ordering};
use core::marker::PhantomData;

/// Levels a table can have: 0 to 3.
const LEVELS: usize = 4;

/// One entry of a table, and the part of a walk's range that lies in it.
#[derive(Clone, Copy, Debug)]
pub(super) struct Slot {
    page: TablePage,
    index: usize,
    /// The level of the table that the entry is in.
    pub(super) level: u8,
    /// The first address that the entry translates.
    pub(super) start: u64,
    /// The first address after it.
    pub(super) end: u64,
    /// The first address of the range in this entry.
    pub(super) from: u64,
    /// The first address after the range's part in this entry.
    pub(super) to: u64,
}

impl Slot {
    /// The entry itself.
    #[inline]
    pub(super) fn entry<H: Hardware>(self, hw: &H) -> &AtomicU64 {
        &hw.table(self.page)[self.index]
    }

    /// What the entry says now.
    #[inline]
    pub(super) fn load<H: Hardware>(self, hw: &H) -> u64 {
        self.entry(hw).load(Ordering::Relaxed)
    }

    /// Whether the range covers all of it.
    #[inline]
    pub(super) const fn whole(self) -> bool {
        self.from == self.start && self.to == self.end
    }

    /// The first address that the entry translates.
    #[inline]
    pub(super) fn address(self) -> Ipa {
        address(self.start)
    }

    /// How many pages of addresses the entry translates.
    #[inline]
    pub(super) const fn pages(self) -> u64 {
        (self.end - self.start) >> FRAME_SHIFT
    }
}

/// An address inside a range that was checked.
#[inline]
pub(super) fn address(value: u64) -> Ipa {
    Ipa::new(value).expect("the range ends at or below 2^48")
}

/// A walk over a range, in ascending order. At each entry the walker either descends into the entry's table or
/// moves on.
#[derive(Clone, Copy, Debug)]
pub(super) struct Cursor<G: Geometry> {
    path: [TablePage; LEVELS],
    start_level: u8,
    level: u8,
    at: u64,
    end: u64,
    geometry: PhantomData<G>,
}

impl<G: Geometry> Cursor<G> {
    /// At the root's entry for the first address of `span`, which must lie in the table.
    #[inline]
    pub(super) fn new<F: Format>(table: &Table<F, G>, span: IpaSpan) -> Self {
        Self {
            path: [table.root; LEVELS],
            start_level: table.start_level,
            level: table.start_level,
            at: span.start().value(),
            end: span.end(),
            geometry: PhantomData,
        }
    }

    /// The level of the table that it stands in.
    #[inline]
    pub(super) const fn level(&self) -> u8 {
        self.level
    }

    /// The entry at which it stands.
    #[inline]
    pub(super) fn slot(&self) -> Slot {
        let shift = G::level_shift(self.level);
        let number = self.at >> shift;
        let index = (number & (G::ENTRIES as u64 - 1)) as usize;
        let mut page = self.path[usize::from(self.level)];
        if self.level == self.start_level {
            // The start level may be several tables side by side, which resolve more bits than one table does.
            page =
                nth_table(page, number >> G::BITS_PER_LEVEL).expect("the root's tables are inside 48 bits");
        }
        let start = number << shift;
        let end = start + (1 << shift);
        Slot {
            page,
            index,
            level: self.level,
            start,
            end,
            from: self.at,
            to: end.min(self.end),
        }
    }

    /// Into the table of the entry at which it stands.
    #[inline]
    pub(super) fn descend(&mut self, table: TablePage) {
        self.level += 1;
        self.path[usize::from(self.level)] = table;
    }

    /// Past the entry at which it stands, and up where a table ends. `false` at the end of the range.
    #[inline]
    pub(super) fn advance(&mut self) -> bool {
        let shift = G::level_shift(self.level);
        self.at = ((self.at >> shift) + 1) << shift;
        if self.at >= self.end {
            return false;
        }
        while self.level > self.start_level && self.at & ((1 << G::level_shift(self.level - 1)) - 1) == 0 {
            self.level -= 1;
        }
        true
    }
}
