//! A place in a table, and the way on from it: every walk of the engine is one of these, none recurses.

use super::Table;
use super::descriptor::{Format, PAGE_LEVEL, nth_table, table_of};
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
    /// The entry with `index` in `page`, a table of the last level, that translates the page at `address`.
    #[inline(always)]
    pub(super) const fn of_page(page: TablePage, index: usize, address: u64) -> Self {
        let end = address + (1 << FRAME_SHIFT);
        Self {
            page,
            index,
            level: PAGE_LEVEL,
            start: address,
            end,
            from: address,
            to: end,
        }
    }

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
    /// The table of each level that it came through. At the start level, which may be several tables side by side,
    /// the one that it stands in.
    path: [TablePage; LEVELS],
    root: TablePage,
    /// How many tables the root has.
    roots: usize,
    start_level: u8,
    level: u8,
    at: u64,
    end: u64,
    geometry: PhantomData<G>,
}

impl<G: Geometry> Cursor<G> {
    /// At the root's entry for the first address of `span`, which must lie in the table.
    #[inline]
    pub(super) fn new<F: Format, H: Hardware>(hw: &H, table: &Table<F, G>, span: IpaSpan) -> Self {
        let above = G::level_shift(table.start_level) + G::BITS_PER_LEVEL;
        let mut cursor = Self {
            path: [table.root; LEVELS],
            root: table.root,
            roots: 1 << table.ia_bits.saturating_sub(above),
            start_level: table.start_level,
            level: table.start_level,
            at: span.start().value(),
            end: span.end(),
            geometry: PhantomData,
        };
        cursor.find_root(hw);
        cursor
    }

    /// Finds the table of the start level that translates the address at which it stands: one of the root's, also where
    /// the CPU only guesses that there are so many.
    #[inline]
    fn find_root<H: Hardware>(&mut self, hw: &H) {
        let number = self.at >> (G::level_shift(self.start_level) + G::BITS_PER_LEVEL);
        if number != 0 || self.path[usize::from(self.start_level)] != self.root {
            let number = hw.bounded(number as usize, self.roots) as u64;
            self.path[usize::from(self.start_level)] =
                nth_table(self.root, number).expect("the root's tables are inside 48 bits");
        }
    }

    /// The level of the table that it stands in.
    #[inline]
    pub(super) const fn level(&self) -> u8 {
        self.level
    }

    /// The index of the entry at which it stands.
    #[inline]
    fn index(&self) -> usize {
        (self.at >> G::level_shift(self.level)) as usize & (G::ENTRIES - 1)
    }

    /// The entry at which it stands.
    #[inline]
    pub(super) fn slot(&self) -> Slot {
        let bytes = 1 << G::level_shift(self.level);
        let start = self.at & !(bytes - 1);
        let end = start + bytes;
        Slot {
            page: self.path[usize::from(self.level)],
            index: self.index(),
            level: self.level,
            start,
            end,
            from: self.at,
            to: end.min(self.end),
        }
    }

    /// Down through tables as long as the range covers only a part of what they translate: whatever is done about
    /// the range is done below them. Answers what the entry at which it then stands says.
    #[inline]
    pub(super) fn settle<H: Hardware<Geometry = G>>(&mut self, hw: &H) -> u64 {
        loop {
            let page = self.path[usize::from(self.level)];
            let raw = hw.table(page)[self.index()].load(Ordering::Relaxed);
            let Some(table) = table_of(raw, self.level) else {
                return raw;
            };
            let bytes = 1 << G::level_shift(self.level);
            if self.at & (bytes - 1) == 0 && self.end - self.at >= bytes {
                return raw;
            }
            self.descend(table);
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
    pub(super) fn advance<H: Hardware>(&mut self, hw: &H) -> bool {
        let bytes = 1 << G::level_shift(self.level);
        let next = (self.at & !(bytes - 1)) + bytes;
        let more = next < self.end;
        if more {
            self.at = next;
            self.climb(hw);
        }
        more
    }

    /// Up out of the tables that end before the address at which it stands.
    fn climb<H: Hardware>(&mut self, hw: &H) {
        while self.level > self.start_level && self.at & ((1 << G::level_shift(self.level - 1)) - 1) == 0 {
            self.level -= 1;
        }
        if self.level == self.start_level {
            self.find_root(hw);
        }
    }
}
