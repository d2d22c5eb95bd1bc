//! The short way to one page: where a table of the last level stands already, its entry is read and written straight.
//!
//! It does what [`Change::Map`](super::Change::Map) and [`Change::Unmap`](super::Change::Unmap) of one page do, without
//! looking a range through twice.

use super::Table;
use super::cursor::Slot;
use super::descriptor::{
    Annotation, Attributes, Descriptor, EMPTY, Format, PAGE_LEVEL, leaf_descriptor, table_descriptor,
    table_of,
};
use super::reserve::Reserve;
use super::store::{store, write};
use crate::addr::{Ipa, PhysAddr};
use crate::geometry::Geometry;
use crate::hardware::{Extent, Hardware, Regime};
use crate::sync::Ordering;
use core::marker::PhantomData;

/// An entry of the last level. Whoever has it holds the lock of what it translates.
#[derive(Clone, Copy, Debug)]
pub struct PageEntry<F: Format> {
    slot: Slot,
    raw: u64,
    regime: Regime,
    format: PhantomData<F>,
}

impl<F: Format, G: Geometry> Table<F, G> {
    /// The entry of the last level that translates `ia`, a multiple of 4 KiB; `None` if no table of that level is there.
    #[must_use]
    #[inline(always)]
    pub fn page<H: Hardware<Geometry = G>>(&self, hw: &H, ia: Ipa) -> Option<PageEntry<F>> {
        let address = ia.value();
        if address >> self.ia_bits != 0 {
            return None;
        }
        let mut level = self.start_level;
        let mut shift = G::level_shift(level);
        let mut page = self.root_table(hw, address)?;
        loop {
            let index = (address >> shift) as usize & (G::ENTRIES - 1);
            let raw = hw.table(page)[index].load(Ordering::Relaxed);
            if level == PAGE_LEVEL {
                return Some(PageEntry {
                    slot: Slot::of_page(page, index, address),
                    raw,
                    regime: self.regime,
                    format: PhantomData,
                });
            }
            page = table_of(raw, level)?;
            level += 1;
            shift -= G::BITS_PER_LEVEL;
        }
    }
}

impl<F: Format, G: Geometry> Table<F, G> {
    /// The entry of the last level that translates `ia`, where nothing but the table of that level is missing: a page of
    /// `reserve` becomes it. `None`, and nothing has changed, if the entry for that table is not empty, or the reserve is.
    ///
    /// The new table maps nothing, so that no translation changes. It becomes visible with what is mapped in it.
    #[must_use]
    pub fn add_page_table<H: Hardware<Geometry = G>>(
        &self,
        hw: &H,
        ia: Ipa,
        reserve: &mut Reserve,
    ) -> Option<PageEntry<F>> {
        const LEVEL: u8 = PAGE_LEVEL - 1;
        let address = ia.value();
        if address >> self.ia_bits != 0 || self.start_level > LEVEL {
            return None;
        }
        let index = |level| (address >> G::level_shift(level)) as usize & (G::ENTRIES - 1);
        let mut page = self.root_table(hw, address)?;
        for level in self.start_level..LEVEL {
            page = table_of(hw.table(page)[index(level)].load(Ordering::Relaxed), level)?;
        }
        let entry = &hw.table(page)[index(LEVEL)];
        if entry.load(Ordering::Relaxed) != EMPTY {
            return None;
        }
        let table = reserve.pop(hw)?;
        // No walk may find the table before its zeroes.
        hw.publish();
        let start = ia.align_down(G::level_shift(LEVEL));
        write(
            hw,
            self.regime,
            (entry, start, LEVEL),
            EMPTY,
            table_descriptor(table),
        );
        Some(PageEntry {
            slot: Slot::of_page(table, index(PAGE_LEVEL), address),
            raw: EMPTY,
            regime: self.regime,
            format: PhantomData,
        })
    }
}

impl<F: Format> PageEntry<F> {
    /// What it says.
    #[must_use]
    #[inline(always)]
    pub fn descriptor(&self) -> Descriptor<F> {
        Descriptor::decode(self.raw, PAGE_LEVEL)
    }

    /// Whether it maps nothing and says nothing.
    #[must_use]
    #[inline(always)]
    pub const fn is_empty(&self) -> bool {
        self.raw == EMPTY
    }

    /// Maps the page, at which nothing is mapped, and makes that visible to table walks.
    #[inline(always)]
    pub fn map<H: Hardware>(self, hw: &H, pa: PhysAddr, attributes: F::Attributes) {
        debug_assert!(self.raw & 1 == 0, "what is mapped is broken first");
        let new = leaf_descriptor(pa, PAGE_LEVEL, attributes.to_bits());
        store(hw, self.regime, self.slot, self.raw, new);
        hw.publish();
    }

    /// Unmaps the page, if something is mapped, and annotates it. No TLB holds what it said when this returns.
    #[inline(always)]
    pub fn unmap<H: Hardware>(self, hw: &H, annotation: Annotation) {
        store(hw, self.regime, self.slot, self.raw, annotation.descriptor());
        if self.raw & 1 != 0 {
            hw.invalidate(
                self.regime,
                Extent::Range {
                    start: self.slot.address(),
                    pages: 1,
                    level: Some(PAGE_LEVEL),
                },
            );
        }
    }
}
