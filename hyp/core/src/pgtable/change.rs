//! What can be done to a range of a table, judged entry by entry.
//!
//! The same judgement serves the plan, which only counts, and the commit, which writes; so the two cannot
//! disagree as long as nobody else writes between them.

use super::cursor::{Slot, address};
use super::descriptor::{Annotation, Attributes, Descriptor, Format, PAGE_LEVEL, Update, leaf_descriptor};
use super::span::IpaSpan;
use super::{EngineError, LargestLeaf, Table};
use crate::addr::PhysAddr;
use crate::geometry::Geometry;
use crate::hardware::{Hardware, TablePage};
use crate::sync::Ordering;

/// A change to a range of a table.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Change<F: Format> {
    /// Maps the range, which must be unmapped throughout, to physical addresses from `pa` on. Annotations give
    /// way. A table below which nothing is mapped gives way to a block.
    Map {
        /// Where the first address goes; page-aligned.
        pa: PhysAddr,
        /// How it is mapped.
        attributes: F::Attributes,
        /// The largest leaf that may be made.
        largest: LargestLeaf,
    },
    /// Unmaps what is mapped of the range and annotates all of it.
    Unmap {
        /// What the invalid descriptors say.
        annotation: Annotation,
        /// The largest entry that may be written: tables that hang from larger ones stay.
        largest: LargestLeaf,
    },
    /// Changes the attributes of what is mapped of the range. A block of which the range covers a part is split.
    Protect {
        /// How.
        update: Update<F>,
    },
    /// Makes sure that the range is translated by tables down to those that `leaves` may sit in, and changes no
    /// translation. Blocks larger than `leaves` are split.
    Populate {
        /// The largest leaf that is left.
        leaves: LargestLeaf,
    },
}

/// What to do about one entry.
#[derive(Clone, Copy, Debug)]
pub(super) enum Verdict {
    /// Nothing.
    Keep,
    /// Go into its table.
    Descend(TablePage),
    /// Give it this descriptor.
    Write(u64),
    /// Put a table in its place that translates just as it does, and go into that.
    Split,
}

/// What entries of a level need a table below them, when all of a range hangs from one entry that is split.
#[derive(Clone, Copy)]
enum Need {
    /// Those that the range touches.
    Touched,
    /// Those that the range covers in part.
    Partial,
    /// None.
    Nothing,
}

impl<F: Format> Change<F> {
    /// Judges the entry `slot`, which says `raw`, for a change of `span`.
    ///
    /// # Errors
    /// [`EngineError::Mapped`] if something is to be mapped where something is mapped.
    #[inline(always)]
    pub(super) fn judge<G, H>(
        &self,
        hw: &H,
        span: IpaSpan,
        slot: Slot,
        raw: u64,
    ) -> Result<Verdict, EngineError>
    where
        G: Geometry,
        H: Hardware<Geometry = G>,
    {
        let descriptor = Descriptor::<F>::decode(raw, slot.level);
        Ok(match (*self, descriptor) {
            (Self::Map { .. }, Descriptor::Leaf { .. }) => {
                return Err(EngineError::Mapped {
                    at: address(slot.from),
                });
            }
            (
                Self::Map {
                    pa,
                    attributes,
                    largest,
                },
                _,
            ) => {
                let target = PhysAddr::new(pa.value() + (slot.from - span.start().value()))
                    .expect("the plan has checked the last physical address");
                let fits = slot.whole()
                    && largest.allows(slot.level)
                    && target.is_aligned(G::level_shift(slot.level));
                match descriptor {
                    Descriptor::Table(table) if !(fits && is_vacant(hw, table)) => Verdict::Descend(table),
                    _ if fits => Verdict::Write(leaf_descriptor(target, slot.level, attributes.to_bits())),
                    _ => Verdict::Split,
                }
            }
            (Self::Unmap { annotation, .. }, Descriptor::Invalid(old)) if old == annotation => Verdict::Keep,
            (Self::Unmap { annotation, largest }, _) if slot.whole() && largest.allows(slot.level) => {
                Verdict::Write(annotation.descriptor())
            }
            (Self::Unmap { .. } | Self::Protect { .. }, Descriptor::Table(table)) => Verdict::Descend(table),
            (Self::Unmap { .. }, _) => Verdict::Split,
            (Self::Protect { .. }, Descriptor::Invalid(_)) => Verdict::Keep,
            (Self::Protect { update }, Descriptor::Leaf { .. }) => match update.apply(raw) {
                same if same == raw => Verdict::Keep,
                new if slot.whole() => Verdict::Write(new),
                _ => Verdict::Split,
            },
            (Self::Populate { leaves }, _) if leaves.allows(slot.level) => Verdict::Keep,
            (Self::Populate { .. }, Descriptor::Table(table)) => Verdict::Descend(table),
            (Self::Populate { .. }, _) => Verdict::Split,
        })
    }

    /// How many tables it takes to split the entry `slot` and carry out a change of `span` below it.
    pub(super) fn tables_below<G: Geometry>(&self, span: IpaSpan, slot: Slot) -> u64 {
        let mut tables = 1;
        for level in slot.level + 1..PAGE_LEVEL {
            let shift = G::level_shift(level);
            let first = slot.from >> shift;
            let last = (slot.to - 1) >> shift;
            tables += match self.need::<G>(span, level) {
                Need::Nothing => 0,
                Need::Touched => last - first + 1,
                Need::Partial => {
                    let partial_first = slot.from != first << shift;
                    let partial_last = slot.to != (last + 1) << shift;
                    if first == last {
                        u64::from(partial_first || partial_last)
                    } else {
                        u64::from(partial_first) + u64::from(partial_last)
                    }
                }
            };
        }
        tables
    }

    /// Which entries of `level`, in a table that is new, need a table of their own.
    fn need<G: Geometry>(&self, span: IpaSpan, level: u8) -> Need {
        let whole_entries_fit = match *self {
            Self::Map { pa, largest, .. } => {
                let offset = pa.value().wrapping_sub(span.start().value());
                largest.allows(level) && offset & ((1 << G::level_shift(level)) - 1) == 0
            }
            Self::Unmap { largest, .. } => largest.allows(level),
            Self::Protect { .. } => true,
            Self::Populate { leaves } if leaves.allows(level) => return Need::Nothing,
            Self::Populate { .. } => false,
        };
        if whole_entries_fit {
            Need::Partial
        } else {
            Need::Touched
        }
    }

    /// Checks what can be checked without a look at the table.
    pub(super) fn check<G: Geometry>(&self, table: &Table<F, G>, span: IpaSpan) -> Result<(), EngineError> {
        if !table.contains(span) {
            return Err(EngineError::OutOfRange);
        }
        if let Self::Map { pa, .. } = *self {
            if !pa.is_aligned(crate::addr::FRAME_SHIFT) {
                return Err(EngineError::Misaligned);
            }
            let bytes = span.end() - span.start().value();
            if pa.checked_add(bytes - 1).is_none() {
                return Err(EngineError::OutOfRange);
            }
        }
        Ok(())
    }
}

/// Whether every entry of a table is invalid.
fn is_vacant<H: Hardware>(hw: &H, table: TablePage) -> bool {
    hw.table(table)
        .iter()
        .all(|entry| entry.load(Ordering::Relaxed) & 1 == 0)
}
