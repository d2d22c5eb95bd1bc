//! The table engine: one for the host's and the guests' stage 2 and for EL2's own stage 1.
//!
//! A [`Table`] has a [`Format`] ([`Stage2`] or [`HypStage1`]) and a geometry. A [`Change`] of a range is planned,
//! given its table pages, and committed; then it cannot fail, and what it owes the TLBs comes out as an
//! [`Obligation`]:
//!
//! `table.plan(…)? → plan.reserve(hw)? → permit.commit(hw) → obligation.complete(hw)`
//!
//! Locks are the caller's. From plan to commit it holds a lock that keeps all others from writing the entries that
//! translate the range and the tables below them; for a reader ([`Table::walk`], [`Table::entries`]) the same lock
//! keeps tables from being freed under it. Where ranges under different locks hang from common upper tables, the
//! upper tables are made first ([`Change::Populate`]) and no change may write above [`LargestLeaf`].

mod access;
mod change;
mod cursor;
mod descriptor;
mod dismantle;
mod entries;
mod fold;
mod hyp_stage1;
mod obligation;
mod page;
mod plan;
mod reserve;
mod span;
mod stage2;
mod store;

#[cfg(test)]
mod tests;

pub use change::Change;
pub use descriptor::{Annotation, Attributes, Descriptor, Format, Update};
pub use entries::{Entries, Entry};
pub use hyp_stage1::{HypAccess, HypAttributes, HypMemory, HypStage1, MAIR};
pub use obligation::Obligation;
pub use page::PageEntry;
pub use plan::{Permit, Plan};
pub(crate) use reserve::PageList;
pub use reserve::Reserve;
pub use span::IpaSpan;
pub use stage2::{Execute, Shareability, Stage2, Stage2Access, Stage2Attributes, Stage2Memory, Xnx};

use crate::addr::{FRAME_SHIFT, Ipa, MAX_ADDRESS_BITS};
use crate::geometry::Geometry;
use crate::hardware::{Hardware, Regime, TablePage};
use crate::sync::Ordering;
use core::marker::PhantomData;
use descriptor::{nth_table, table_of};
use thiserror::Error;

/// Why the engine refuses. A refused change has changed nothing.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Error)]
pub enum EngineError {
    /// The range does not lie in the table's input addresses, or its target not in 48 bits.
    #[error("the range leaves the address space")]
    OutOfRange,
    /// The physical address is not that of a page.
    #[error("the physical address is not page-aligned")]
    Misaligned,
    /// Something is mapped already where something was to be mapped.
    #[error("{at} is mapped already")]
    Mapped {
        /// The first such address.
        at: Ipa,
    },
    /// There are too few table pages.
    #[error("the change takes {needed} table pages")]
    OutOfPages {
        /// How many the change takes in all.
        needed: u64,
    },
}

/// The largest leaf, or invalid entry, that a change may write.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
#[repr(u8)]
pub enum LargestLeaf {
    /// Level 1: 1 GiB.
    Gigabyte = 1,
    /// Level 2: a region, 2 MiB.
    Region = 2,
    /// Level 3: pages.
    Page = 3,
}

impl LargestLeaf {
    /// Whether an entry of `level` may be written.
    #[inline]
    const fn allows(self, level: u8) -> bool {
        level >= self as u8
    }
}

/// A table of translations: where its root is, and what it translates.
///
/// It holds no lock and no page itself; see the module's documentation for what a caller must hold.
#[derive(Clone, Copy, Debug)]
pub struct Table<F: Format, G: Geometry> {
    root: TablePage,
    start_level: u8,
    ia_bits: u32,
    regime: Regime,
    kind: PhantomData<(F, G)>,
}

impl<F: Format, G: Geometry> Table<F, G> {
    /// The table whose start level is `start_level` (0 to 2) and which translates addresses of `ia_bits` bits.
    ///
    /// `root` is the first of [`Table::root_tables`] pages that lie side by side: a stage 2 may resolve up to four
    /// bits more at its start level than one table has room for (Arm ARM DDI 0487, D8.2.2). They are aligned to
    /// their whole size. `None` if they are not, or if no such table can be.
    #[must_use]
    pub const fn new(root: TablePage, start_level: u8, ia_bits: u32, regime: Regime) -> Option<Self> {
        let Some(tables) = Self::root_tables(start_level, ia_bits) else {
            return None;
        };
        if !root.frame().number().is_multiple_of(tables) {
            return None;
        }
        Some(Self {
            root,
            start_level,
            ia_bits,
            regime,
            kind: PhantomData,
        })
    }

    /// How many pages the start level takes, each a table: 1, or up to 16 for a stage 2. `None` if a table of
    /// `start_level` cannot translate `ia_bits` bits.
    #[must_use]
    pub const fn root_tables(start_level: u8, ia_bits: u32) -> Option<u64> {
        if start_level > 2 || ia_bits > MAX_ADDRESS_BITS {
            return None;
        }
        let entry_bits = FRAME_SHIFT + (3 - start_level as u32) * G::BITS_PER_LEVEL;
        if ia_bits <= entry_bits {
            return None;
        }
        let index_bits = ia_bits - entry_bits;
        let tables = if index_bits <= G::BITS_PER_LEVEL {
            1
        } else {
            match 1_u64.checked_shl(index_bits - G::BITS_PER_LEVEL) {
                Some(tables) => tables,
                None => return None,
            }
        };
        if tables > F::MAX_ROOT_TABLES {
            return None;
        }
        Some(tables)
    }

    /// The table of the root that translates `address`. On paths that the CPU only guesses, too, it is one of the root's:
    /// an entry behind it, taken for a table's, would be followed.
    #[inline(always)]
    fn root_table<H: Hardware<Geometry = G>>(&self, hw: &H, address: u64) -> Option<TablePage> {
        let above = G::level_shift(self.start_level) + G::BITS_PER_LEVEL;
        let tables = 1 << self.ia_bits.saturating_sub(above);
        let number = hw.bounded((address >> above) as usize, tables);
        nth_table(self.root, number as u64)
    }

    /// The first page of the root.
    #[must_use]
    pub const fn root(&self) -> TablePage {
        self.root
    }

    /// The level of the root.
    #[must_use]
    pub const fn start_level(&self) -> u8 {
        self.start_level
    }

    /// The width of the input addresses in bits.
    #[must_use]
    pub const fn ia_bits(&self) -> u32 {
        self.ia_bits
    }

    /// Whose table it is.
    #[must_use]
    pub const fn regime(&self) -> Regime {
        self.regime
    }

    /// All that it translates.
    #[must_use]
    pub fn span(&self) -> IpaSpan {
        IpaSpan::new(Ipa::default(), 1 << (self.ia_bits - FRAME_SHIFT)).expect("ia_bits is at most 48")
    }

    /// Whether it translates all of `span`.
    #[must_use]
    #[inline]
    pub const fn contains(&self, span: IpaSpan) -> bool {
        span.end() <= 1 << self.ia_bits
    }

    /// The part of `span` that it translates; `None` if there is none.
    #[inline]
    fn clip(&self, span: IpaSpan) -> Option<IpaSpan> {
        let end = span.end().min(1 << self.ia_bits);
        let bytes = end.checked_sub(span.start().value())?;
        IpaSpan::new(span.start(), bytes >> FRAME_SHIFT)
    }

    /// The entry that decides how `ia` is translated; `None` if `ia` has more bits than the table translates.
    #[must_use]
    #[inline]
    pub fn walk<H: Hardware<Geometry = G>>(&self, hw: &H, ia: Ipa) -> Option<Entry<F>> {
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
            let Some(table) = table_of(raw, level) else {
                return Some(Entry::new::<G>(ia.align_down(shift), level, raw));
            };
            page = table;
            level += 1;
            shift -= G::BITS_PER_LEVEL;
        }
    }

    /// All entries that translate part of `span`, tables before what is below them, in ascending order. What lies
    /// beyond the table is left out.
    pub fn entries<'h, H: Hardware<Geometry = G>>(&self, hw: &'h H, span: IpaSpan) -> Entries<'h, F, G, H> {
        Entries::new(self, hw, span)
    }

    /// Looks a change through and counts the table pages that it takes. Changes nothing.
    ///
    /// # Errors
    /// [`EngineError::OutOfRange`], [`EngineError::Misaligned`], and for [`Change::Map`] [`EngineError::Mapped`].
    #[inline]
    pub fn plan<H: Hardware<Geometry = G>>(
        &self,
        hw: &H,
        span: IpaSpan,
        change: Change<F>,
    ) -> Result<Plan<'_, F, G>, EngineError> {
        Plan::new(self, hw, span, change)
    }

    /// Plans a change, takes its table pages from the pool, and carries it out.
    ///
    /// # Errors
    /// Those of [`Table::plan`], and [`EngineError::OutOfPages`]. Then nothing has changed.
    pub fn apply<H: Hardware<Geometry = G>>(
        &self,
        hw: &H,
        span: IpaSpan,
        change: Change<F>,
    ) -> Result<Obligation, EngineError> {
        Ok(self.plan(hw, span, change)?.reserve(hw)?.commit(hw))
    }
}

/// With debug assertions on, panics unless `spent`, or unless a panic is what drops the value.
fn assert_spent(spent: bool, what: &str) {
    #[cfg(any(test, feature = "doubles"))]
    if std::thread::panicking() {
        return;
    }
    debug_assert!(spent, "{what}");
}
