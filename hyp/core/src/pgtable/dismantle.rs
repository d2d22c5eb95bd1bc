//! The end of a table: everything below its root is taken out at once.

use super::Table;
use super::descriptor::{Descriptor, EMPTY, Format, nth_table};
use super::obligation::Obligation;
use super::store::{detach, write};
use crate::addr::Ipa;
use crate::geometry::Geometry;
use crate::hardware::{Extent, Hardware};
use crate::sync::Ordering;

impl<F: Format, G: Geometry> Table<F, G> {
    /// Empties the root, has all translations of the regime removed from the TLBs, and gives every table below the root
    /// back to the pool. Answers how many there were. The caller is the last who has anything to do with the table; the
    /// root is its to give back.
    pub fn dismantle<H: Hardware<Geometry = G>>(&self, hw: &H) -> u64 {
        let mut owed = Obligation::none(self.regime);
        let shift = G::level_shift(self.start_level);
        let tables = Self::root_tables(self.start_level, self.ia_bits).unwrap_or(1);
        let mut address = 0_u64;
        for page in (0..tables).filter_map(|number| nth_table(self.root, number)) {
            for entry in hw.table(page) {
                let raw = entry.load(Ordering::Relaxed);
                if raw != EMPTY {
                    let start = Ipa::new(address).unwrap_or_default();
                    write(hw, self.regime, (entry, start, self.start_level), raw, EMPTY);
                }
                if let Descriptor::Table(table) = Descriptor::<F>::decode(raw, self.start_level) {
                    detach::<F, H>(hw, table, self.start_level + 1, &mut owed);
                }
                address = address.wrapping_add(1 << shift);
            }
        }
        hw.invalidate(self.regime, Extent::All);
        let freed = owed.detached();
        owed.complete(hw);
        freed
    }
}
