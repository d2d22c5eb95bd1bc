//! Reading a table: its entries, in order.

use super::Table;
use super::cursor::Cursor;
use super::descriptor::{Descriptor, Format};
use super::span::IpaSpan;
use crate::addr::Ipa;
use crate::geometry::Geometry;
use crate::hardware::Hardware;
use core::marker::PhantomData;

/// An entry of a table.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Entry<F: Format> {
    /// The first address that it translates, or whose table it names.
    pub start: Ipa,
    /// How many pages of addresses.
    pub pages: u64,
    /// The level of the table that it is in, 0 to 3.
    pub level: u8,
    /// What it says.
    pub descriptor: Descriptor<F>,
}

impl<F: Format> Entry<F> {
    /// The entry of `level` that translates from `start` on and says `raw`.
    #[inline]
    pub(super) fn new<G: Geometry>(start: Ipa, level: u8, raw: u64) -> Self {
        Self {
            start,
            pages: G::level_frames(level),
            level,
            descriptor: Descriptor::decode(raw, level),
        }
    }
}

/// The entries of a range of a table; see [`Table::entries`].
#[derive(Debug)]
pub struct Entries<'h, F: Format, G: Geometry, H> {
    hw: &'h H,
    cursor: Option<Cursor<G>>,
    format: PhantomData<F>,
}

impl<'h, F: Format, G: Geometry, H: Hardware<Geometry = G>> Entries<'h, F, G, H> {
    pub(super) fn new(table: &Table<F, G>, hw: &'h H, span: IpaSpan) -> Self {
        Self {
            hw,
            cursor: table.clip(span).map(|span| Cursor::new(hw, table, span)),
            format: PhantomData,
        }
    }
}

impl<F: Format, G: Geometry, H: Hardware<Geometry = G>> Iterator for Entries<'_, F, G, H> {
    type Item = Entry<F>;

    #[inline]
    fn next(&mut self) -> Option<Entry<F>> {
        let cursor = self.cursor.as_mut()?;
        let slot = cursor.slot();
        let entry = Entry::new::<G>(slot.address(), slot.level, slot.load(self.hw));
        if let Descriptor::Table(table) = entry.descriptor {
            cursor.descend(table);
        } else if !cursor.advance(self.hw) {
            self.cursor = None;
        }
        Some(entry)
    }
}
