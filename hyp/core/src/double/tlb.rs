//! Translations that CPUs may hold.
//!
//! A CPU may walk a table at any time and for any address, and hold what it found, whole translations and tables
//! on the way to them, until an invalidation that covers it completes (Arm ARM DDI 0487, D8.16). This TLB holds
//! all that it may: after every step it walks the watched addresses, from the roots and from every table that
//! it already holds, and keeps each result beside those before. So a wrong order or a missing or too narrow
//! invalidation is certain to leave something behind, and to be found:
//!
//! - two translations of one address that no CPU may hold at once: break-before-make was skipped;
//! - a translation that the table does not give any more when the debt is said to be paid;
//! - a table that is freed while walks may still read it;
//! - a frame that is scrubbed or cleaned while the host or a guest may still write to it.
//!
//! The decoder is this file's own, so that it does not believe the engine.

use crate::addr::{FRAME_SHIFT, Frame, FrameSpan, Ipa};
use crate::geometry::Geometry;
use crate::hardware::{Extent, Regime, TablePage};
use crate::pgtable::{Format, Table};
use std::vec::Vec;

/// What translations of one address may not differ in: the output address in bits 47:12, the shareability in 9:8,
/// the memory type in 5:2 (of which a stage 1 has the low three).
const STRICT: u64 = 0x0000_ffff_ffff_f33c;

/// A translation of the addresses of one leaf.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Translation {
    /// Whose.
    pub regime: Regime,
    /// The first address of the leaf.
    pub start: u64,
    /// Bytes of the leaf.
    pub bytes: u64,
    /// Its level.
    pub level: u8,
    /// Its descriptor.
    pub descriptor: u64,
}

impl Translation {
    /// The first frame that it leads to.
    #[must_use]
    pub fn frame(&self) -> Frame {
        Frame::new((self.descriptor & 0x0000_ffff_ffff_f000) >> FRAME_SHIFT).expect("36 bits")
    }

    fn overlaps(&self, start: u64, end: u64) -> bool {
        self.start < end && start < self.start + self.bytes
    }
}

/// A table that a walk has read on its way.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Visited {
    regime: Regime,
    start: u64,
    bytes: u64,
    level: u8,
    page: TablePage,
}

/// A table that is walked for some addresses.
#[derive(Debug)]
struct Watch {
    regime: Regime,
    root: TablePage,
    start_level: u8,
    ia_bits: u32,
    accessed: u64,
    addresses: Vec<u64>,
}

/// Where a walk starts: at a root, or at a table that a CPU holds.
#[derive(Clone, Copy, Debug)]
pub(super) struct Start {
    regime: Regime,
    page: TablePage,
    level: u8,
    /// Whether `page` is the first of several that lie side by side.
    is_root: bool,
    address: u64,
    accessed: u64,
}

/// What a walk found.
#[derive(Debug)]
pub(super) struct Walk {
    start: Start,
    visited: Vec<Visited>,
    leaf: Option<Translation>,
}

impl Start {
    /// Walks as the hardware does. `read` reads an entry of a table.
    pub(super) fn walk<G: Geometry>(self, read: impl Fn(TablePage, usize) -> Option<u64>) -> Walk {
        let mut visited = Vec::new();
        let mut page = self.page;
        let mut level = self.level;
        let leaf = loop {
            let shift = G::level_shift(level);
            let index = self.address >> shift;
            if self.is_root && level == self.level {
                let table = index >> G::BITS_PER_LEVEL;
                page = TablePage::new(page.frame().checked_add(table).expect("a root below 2^48"));
            }
            let low = (index & (G::ENTRIES as u64 - 1)) as usize;
            let Some(raw) = read(page, low) else {
                break None;
            };
            let start = index << shift;
            let bytes = 1 << shift;
            match (raw & 0b11, level) {
                (0b11, 0..=2) => {
                    page = TablePage::new(
                        Frame::new((raw & 0x0000_ffff_ffff_f000) >> FRAME_SHIFT).expect("36 bits"),
                    );
                    level += 1;
                    visited.push(Visited {
                        regime: self.regime,
                        start,
                        bytes,
                        level,
                        page,
                    });
                }
                // A leaf without the access flag faults and is not held.
                (0b11, 3) | (0b01, 1..=2) if raw & self.accessed != 0 => {
                    break Some(Translation {
                        regime: self.regime,
                        start,
                        bytes,
                        level,
                        descriptor: raw,
                    });
                }
                _ => break None,
            }
        };
        Walk {
            start: self,
            visited,
            leaf,
        }
    }
}

/// All that CPUs may hold.
#[derive(Debug, Default)]
pub(super) struct Tlb {
    watches: Vec<Watch>,
    translations: Vec<Translation>,
    visited: Vec<Visited>,
    /// How many invalidations there were. An invalidation waits for the walks under way: one that began before it
    /// leaves nothing behind.
    invalidations: u64,
}

impl Tlb {
    pub(super) fn is_idle(&self) -> bool {
        self.watches.is_empty()
    }

    pub(super) fn watch<F: Format, G: Geometry>(
        &mut self,
        table: &Table<F, G>,
        addresses: impl IntoIterator<Item = Ipa>,
    ) {
        self.watches.push(Watch {
            regime: table.regime(),
            root: table.root(),
            start_level: table.start_level(),
            ia_bits: table.ia_bits(),
            accessed: F::ACCESSED,
            addresses: addresses.into_iter().map(Ipa::value).collect(),
        });
    }

    /// Everywhere that a walk for a watched address may start, and how many invalidations there were.
    pub(super) fn starts(&self) -> (Vec<Start>, u64) {
        let mut starts = Vec::new();
        for watch in &self.watches {
            for &address in &watch.addresses {
                if address >> watch.ia_bits != 0 {
                    continue;
                }
                let root = Start {
                    regime: watch.regime,
                    page: watch.root,
                    level: watch.start_level,
                    is_root: true,
                    address,
                    accessed: watch.accessed,
                };
                starts.push(root);
                let held = self.visited.iter().filter(|held| {
                    held.regime == watch.regime && (held.start..held.start + held.bytes).contains(&address)
                });
                starts.extend(held.map(|held| Start {
                    page: held.page,
                    level: held.level,
                    is_root: false,
                    ..root
                }));
            }
        }
        (starts, self.invalidations)
    }

    /// Holds what walks found that began after so many invalidations. Answers whether more may be found.
    pub(super) fn hold(&mut self, walks: Vec<Walk>, invalidations: u64) -> bool {
        if self.invalidations != invalidations {
            return true;
        }
        let before = (self.visited.len(), self.translations.len());
        for walk in walks {
            for visited in walk.visited {
                if !self.visited.contains(&visited) {
                    self.visited.push(visited);
                }
            }
            if let Some(leaf) = walk.leaf
                && !self.translations.contains(&leaf)
            {
                self.assert_compatible(leaf);
                self.translations.push(leaf);
            }
        }
        before != (self.visited.len(), self.translations.len())
    }

    /// Break-before-make: what is held and `new` may differ in permissions, for a while, and in nothing else.
    fn assert_compatible(&self, new: Translation) {
        for old in &self.translations {
            if old.regime == new.regime && old.overlaps(new.start, new.start + new.bytes) {
                assert!(
                    old.level == new.level && (old.descriptor ^ new.descriptor) & STRICT == 0,
                    "no break before make: a CPU holds {old:x?} and found {new:x?}"
                );
            }
        }
    }

    pub(super) fn invalidate(&mut self, regime: Regime, extent: Extent) {
        self.invalidations += 1;
        match extent {
            Extent::All => {
                self.translations.retain(|held| held.regime != regime);
                self.visited.retain(|held| held.regime != regime);
            }
            Extent::Range {
                start,
                pages,
                level: hint,
            } => {
                let start = start.value();
                let end = start + (pages << FRAME_SHIFT);
                // With a level, the invalidation need not reach what is of another level, nor tables.
                self.translations.retain(|held| {
                    held.regime != regime
                        || !held.overlaps(start, end)
                        || hint.is_some_and(|level| level != held.level)
                });
                self.visited.retain(|held| {
                    held.regime != regime
                        || hint.is_some()
                        || !(held.start < end && start < held.start + held.bytes)
                });
            }
        }
    }

    pub(super) fn reach(&self, regime: Regime, ia: Ipa) -> Vec<Translation> {
        self.translations
            .iter()
            .filter(|held| held.regime == regime && held.overlaps(ia.value(), ia.value() + 1))
            .copied()
            .collect()
    }

    /// Every translation held for a watched address is what the walk from its root gives.
    pub(super) fn assert_coherent(&self, walks: &[Walk]) {
        for walk in walks.iter().filter(|walk| walk.start.is_root) {
            let address = walk.start.address;
            for held in &self.translations {
                if held.regime == walk.start.regime && held.overlaps(address, address + 1) {
                    assert_eq!(
                        Some(*held),
                        walk.leaf,
                        "a CPU may still hold a translation of {address:#x} that the table does not give"
                    );
                }
            }
        }
    }

    pub(super) fn assert_no_walk_reads(&self, page: TablePage) {
        for held in &self.visited {
            assert!(
                held.page != page,
                "{page:?} is freed while a walk of {:#x} in {:?} may read it",
                held.start,
                held.regime
            );
        }
    }

    /// The root of a table goes back to the pool: nothing of its regime may be held any more, and nobody walks it again.
    pub(super) fn forget_root(&mut self, root: TablePage) {
        let gone: Vec<Regime> = self
            .watches
            .iter()
            .filter(|watch| watch.root == root)
            .map(|watch| watch.regime)
            .collect();
        for regime in gone {
            assert!(
                self.translations.iter().all(|held| held.regime != regime)
                    && self.visited.iter().all(|held| held.regime != regime),
                "the root of {regime:?} is freed while CPUs hold translations of it"
            );
        }
        self.watches.retain(|watch| watch.root != root);
    }

    pub(super) fn assert_unreachable(&self, frames: FrameSpan) {
        let start = frames.start().number();
        for held in &self.translations {
            let first = held.frame().number();
            let reaches = first < frames.end_number() && start < first + (held.bytes >> FRAME_SHIFT);
            assert!(
                held.regime == Regime::Hyp || !reaches,
                "{frames:?} is cleared or cleaned while a CPU may reach it by {held:x?}"
            );
        }
    }
}
