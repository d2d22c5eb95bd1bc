//! Descriptors: what one 64-bit entry of a table says, in every format.
//!
//! The formats share their skeleton (Arm ARM DDI 0487, D8.3): bit 0 is "valid", bit 1 tells a table or a page
//! from a block, bits 47:12 are the address. What differs is the attributes of a leaf, and those belong to the
//! [`Format`]. All bits but bit 0 of an invalid descriptor are ours: an [`Annotation`].

use crate::addr::{Frame, PhysAddr};
use crate::hardware::TablePage;
use core::fmt::Debug;
use core::marker::PhantomData;

/// Bit 0: the descriptor is valid.
const VALID: u64 = 1 << 0;
/// Bit 1 of a valid descriptor: a table above level 3, and what a page must have at level 3.
const TABLE_OR_PAGE: u64 = 1 << 1;
/// Bits 47:12: the output address or the next table, for the 4 KiB granule without FEAT_LPA2.
const ADDRESS: u64 = 0x0000_ffff_ffff_f000;

/// The descriptor that maps nothing and says nothing.
pub(super) const EMPTY: u64 = 0;

/// The level whose descriptors map single pages.
pub(super) const PAGE_LEVEL: u8 = 3;

/// The attribute bits of a leaf, typed by its format.
pub trait Attributes: Copy + Eq + Debug + Send + Sync + 'static {
    /// The bits in their places in a leaf descriptor; none outside [`Format::ATTRIBUTES`].
    #[must_use]
    fn to_bits(self) -> u64;

    /// The attributes of a leaf descriptor. Bits that belong to no attribute are dropped.
    #[must_use]
    fn from_bits(descriptor: u64) -> Self;
}

/// A descriptor format: which bits of a leaf mean what.
pub trait Format: Copy + Debug + Eq + Send + Sync + 'static {
    /// What a leaf says beside its address.
    type Attributes: Attributes;

    /// All attribute bits of a leaf.
    const ATTRIBUTES: u64;

    /// Those attribute bits that may change while the descriptor is valid, with a TLB invalidation after: the
    /// permissions and software's own bits. A change of any other one is a break-before-make (Arm ARM DDI 0487,
    /// D8.16.1).
    const IN_PLACE: u64;

    /// The access flag. A leaf without it faults and is never held in a TLB, so that setting it needs no
    /// invalidation (Arm ARM DDI 0487, D8.5.1).
    const ACCESSED: u64;

    /// How many tables the start level may have: 16 for a stage 2 (Arm ARM DDI 0487, D8.2.2), 1 for a stage 1.
    const MAX_ROOT_TABLES: u64;
}

/// What the software bits of an invalid descriptor say: 63 bits that the hardware ignores. The engine copies it
/// when it splits the entry, and else leaves its meaning to its callers.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Default)]
pub struct Annotation(u64);

impl Annotation {
    /// Nothing to say: the descriptor is zero.
    pub const NONE: Self = Self(0);

    /// The annotation `value`, or `None` if it has more than 63 bits.
    #[must_use]
    #[inline]
    pub const fn new(value: u64) -> Option<Self> {
        if value >> 63 == 0 { Some(Self(value)) } else { None }
    }

    /// The annotation as a number below 2^63.
    #[must_use]
    #[inline]
    pub const fn value(self) -> u64 {
        self.0
    }

    /// The invalid descriptor that carries it.
    #[inline]
    pub(super) const fn descriptor(self) -> u64 {
        self.0 << 1
    }
}

/// What an entry of a table says.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Descriptor<F: Format> {
    /// Maps nothing.
    Invalid(Annotation),
    /// A page or a block.
    Leaf {
        /// The first address that it maps to.
        pa: PhysAddr,
        /// How.
        attributes: F::Attributes,
    },
    /// A table of the next level.
    Table(TablePage),
}

impl<F: Format> Descriptor<F> {
    /// What `raw` says as an entry of a table of `level` (0 to 3), as the hardware would read it: an encoding that
    /// is reserved at that level is invalid.
    #[must_use]
    #[inline]
    pub fn decode(raw: u64, level: u8) -> Self {
        let wide = raw & TABLE_OR_PAGE != 0;
        if raw & VALID == 0 || (level == PAGE_LEVEL && !wide) || (level == 0 && !wide) {
            Self::Invalid(Annotation(raw >> 1))
        } else if wide && level < PAGE_LEVEL {
            Self::Table(table_page(raw))
        } else {
            Self::Leaf {
                pa: output_address(raw),
                attributes: F::Attributes::from_bits(raw),
            }
        }
    }

    /// Whether it maps something, itself or below.
    #[must_use]
    #[inline]
    pub const fn is_valid(self) -> bool {
        !matches!(self, Self::Invalid(_))
    }
}

/// The address field of a descriptor.
#[inline]
fn output_address(raw: u64) -> PhysAddr {
    PhysAddr::new(raw & ADDRESS).expect("the field has bits 47:12 only")
}

/// The table that a table descriptor names.
#[inline]
fn table_page(raw: u64) -> TablePage {
    TablePage::new(output_address(raw).frame())
}

/// The table that the descriptor `raw` of a table of `level` names, if it names one.
#[inline]
pub(super) fn table_of(raw: u64, level: u8) -> Option<TablePage> {
    let is_table = raw & (TABLE_OR_PAGE | VALID) == TABLE_OR_PAGE | VALID && level < PAGE_LEVEL;
    is_table.then(|| table_page(raw))
}

/// The descriptor of the table `page`.
#[inline]
pub(super) const fn table_descriptor(page: TablePage) -> u64 {
    page.frame().address().value() | TABLE_OR_PAGE | VALID
}

/// The descriptor of `level` that maps what begins at `pa`, with attribute bits `attributes`.
#[inline]
pub(super) const fn leaf_descriptor(pa: PhysAddr, level: u8, attributes: u64) -> u64 {
    let kind = if level == PAGE_LEVEL {
        TABLE_OR_PAGE | VALID
    } else {
        VALID
    };
    pa.value() | attributes | kind
}

/// A valid leaf's descriptor with its attribute bits replaced.
#[inline]
pub(super) const fn with_attributes<F: Format>(leaf: u64, attributes: u64) -> u64 {
    (leaf & !F::ATTRIBUTES) | attributes
}

/// The link word of a page that is in no table: `next`, in a form that a table walk would take for invalid.
#[inline]
pub(super) const fn link_word(next: Option<TablePage>) -> u64 {
    match next {
        Some(page) => page.frame().address().value() | TABLE_OR_PAGE,
        None => EMPTY,
    }
}

/// The page that a link word names.
#[inline]
pub(super) fn linked_page(word: u64) -> Option<TablePage> {
    (word & TABLE_OR_PAGE != 0).then(|| table_page(word))
}

/// Frames from `frame` on, for tables that lie side by side.
#[inline]
pub(super) const fn nth_table(first: TablePage, number: u64) -> Option<TablePage> {
    match Frame::checked_add(first.frame(), number) {
        Some(frame) => Some(TablePage::new(frame)),
        None => None,
    }
}

/// A change to the attributes of leaves that are there: bits to clear and bits to set. The formats make them.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Update<F: Format> {
    clear: u64,
    set: u64,
    format: PhantomData<F>,
}

impl<F: Format> Update<F> {
    /// Gives leaves these `attributes`, whatever they had.
    #[must_use]
    pub fn replace(attributes: F::Attributes) -> Self {
        Self::bits(F::ATTRIBUTES, attributes.to_bits())
    }

    /// Sets the access flag.
    #[must_use]
    pub const fn mark_accessed() -> Self {
        Self::bits(0, F::ACCESSED)
    }

    /// Clears `clear`, then sets `set`; attribute bits only.
    pub(super) const fn bits(clear: u64, set: u64) -> Self {
        Self {
            clear: clear & F::ATTRIBUTES,
            set: set & F::ATTRIBUTES,
            format: PhantomData,
        }
    }

    /// Both changes as one, `other` after `self`.
    #[must_use]
    pub const fn then(self, other: Self) -> Self {
        Self::bits(self.clear | other.clear, (self.set & !other.clear) | other.set)
    }

    /// The leaf's descriptor after the change.
    #[inline]
    pub(super) const fn apply(self, leaf: u64) -> u64 {
        with_attributes::<F>(leaf, (leaf & F::ATTRIBUTES & !self.clear) | self.set)
    }
}
