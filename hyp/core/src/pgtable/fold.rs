//! Folding: a table whose entries agree becomes the one entry that says the same.

use super::Table;
use super::cursor::Cursor;
use super::descriptor::{Attributes, Descriptor, Format, leaf_descriptor};
use super::obligation::Obligation;
use super::span::IpaSpan;
use super::store::replace;
use crate::addr::Ipa;
use crate::geometry::Geometry;
use crate::hardware::{Hardware, TablePage};
use crate::sync::{AtomicU64, Ordering};

impl<F: Format, G: Geometry> Table<F, G> {
    /// Makes one entry of `level` (1 or 2) out of the table below it that translates `ia`, if its entries agree:
    /// leaves of the next level with equal attributes that map to contiguous memory, aligned as a block must be;
    /// or invalid entries with equal annotations. `None` if there is no such table or it does not agree.
    ///
    /// A block comes in by break-before-make, and is visible to table walks on return; the table is then in the
    /// obligation. The caller holds the lock of all that the entry translates.
    pub fn fold<H: Hardware<Geometry = G>>(&self, hw: &H, ia: Ipa, level: u8) -> Option<Obligation> {
        if !(1..=2).contains(&level) || level < self.start_level {
            return None;
        }
        let mut cursor = Cursor::new(hw, self, self.clip(IpaSpan::page_of(ia))?);
        loop {
            let slot = cursor.slot();
            let raw = slot.load(hw);
            let Descriptor::Table(table) = Descriptor::<F>::decode(raw, slot.level) else {
                return None;
            };
            if slot.level < level {
                cursor.descend(table);
                continue;
            }
            let folded = agreement::<F, G, H>(hw, table, level)?;
            let mut obligation = Obligation::none(self.regime);
            if replace::<F, H>(hw, self.regime, slot, raw, folded, &mut obligation) {
                hw.publish();
            }
            return Some(obligation);
        }
    }
}

/// The descriptor of `level` that says what all entries of `table`, one level below, say together.
fn agreement<F, G, H>(hw: &H, table: TablePage, level: u8) -> Option<u64>
where
    F: Format,
    G: Geometry,
    H: Hardware<Geometry = G>,
{
    let entries = hw.table(table);
    let read = |entry: &AtomicU64| entry.load(Ordering::Relaxed);
    let first = read(entries.first()?);
    let (folded, step) = match Descriptor::<F>::decode(first, level + 1) {
        Descriptor::Table(_) => return None,
        Descriptor::Invalid(annotation) => (annotation.descriptor(), 0),
        Descriptor::Leaf { pa, attributes } if pa.is_aligned(G::level_shift(level)) => (
            leaf_descriptor(pa, level, attributes.to_bits()),
            1 << G::level_shift(level + 1),
        ),
        Descriptor::Leaf { .. } => return None,
    };
    // The address is a field of the descriptor, so the next page's descriptor is this one plus a page.
    let mut expected = first;
    let mut agrees = |entry: &AtomicU64| {
        let agrees = read(entry) == expected;
        expected = expected.wrapping_add(step);
        agrees
    };
    // Eight at once: who ends the use of the last page of a table looks through all of it.
    let (eights, rest) = entries.as_chunks::<8>();
    (eights.iter().all(|eight| eight.iter().all(&mut agrees)) && rest.iter().all(agrees)).then_some(folded)
}
