//! The end of a table: everything below its root is taken out, some tables at a time.

use super::Table;
use super::cursor::address;
use super::descriptor::{Descriptor, EMPTY, Format, PAGE_LEVEL, nth_table};
use super::obligation::Obligation;
use super::store::write;
use crate::geometry::Geometry;
use crate::hardware::{Extent, Hardware, Regime, TablePage};
use crate::sync::Ordering;

/// How far the taking apart of a table came.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Dismantled {
    /// How many tables went back to the pool.
    pub tables: u64,
    /// Whether the root is empty.
    pub whole: bool,
}

/// The work of one step.
struct Step {
    regime: Regime,
    owed: Obligation,
    /// How many tables it may yet take out.
    left: u64,
}

impl<F: Format, G: Geometry> Table<F, G> {
    /// Takes at most `most` tables out, those without tables below them first, has all translations of the regime removed
    /// from the TLBs, and gives what was taken out back to the pool. To be repeated until the root is empty. The caller is
    /// the last who has anything to do with the table, in which nothing is mapped; the root is its to give back.
    pub fn dismantle<H: Hardware<Geometry = G>>(&self, hw: &H, most: u64) -> Dismantled {
        let mut step = Step {
            regime: self.regime,
            owed: Obligation::none(self.regime),
            left: most,
        };
        let shift = G::level_shift(self.start_level) + G::BITS_PER_LEVEL;
        let roots = Self::root_tables(self.start_level, self.ia_bits).unwrap_or(1);
        let whole = (0..roots)
            .filter_map(|number| Some((number, nth_table(self.root, number)?)))
            .all(|(number, page)| step.empty::<F, H>(hw, page, self.start_level, number << shift));
        hw.invalidate(self.regime, Extent::All);
        let tables = step.owed.detached();
        step.owed.complete(hw);
        Dismantled { tables, whole }
    }
}

impl Step {
    /// Empties the entries of `page`, a table of `level` whose first entry translates `start`, after what is below them.
    /// Answers whether all are empty. As deep as a table has levels.
    fn empty<F: Format, H: Hardware>(&mut self, hw: &H, page: TablePage, level: u8, start: u64) -> bool {
        let shift = H::Geometry::level_shift(level);
        for (number, entry) in (0_u64..).zip(hw.table(page)) {
            let raw = entry.load(Ordering::Relaxed);
            if raw == EMPTY {
                continue;
            }
            let start = start + (number << shift);
            let table = match Descriptor::<F>::decode(raw, level) {
                Descriptor::Table(table) => Some(table),
                _ => None,
            };
            if let Some(table) = table {
                let below = level + 1;
                // What a table of the last level says needs no emptying: nobody walks there any more.
                if below < PAGE_LEVEL && !self.empty::<F, H>(hw, table, below, start) || self.left == 0 {
                    return false;
                }
                self.left -= 1;
            }
            write(hw, self.regime, (entry, address(start), level), raw, EMPTY);
            if let Some(table) = table {
                self.owed.detach(hw, table);
            }
        }
        true
    }
}
