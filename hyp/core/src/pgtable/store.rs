//! The door through which descriptors are written, and break-before-make, which is here and nowhere else.

use super::cursor::{Slot, address};
use super::descriptor::{Descriptor, EMPTY, Format, PAGE_LEVEL, leaf_descriptor};
use super::obligation::Obligation;
use crate::addr::Ipa;
use crate::geometry::Geometry;
use crate::hardware::{Event, Extent, Hardware, Regime, TablePage};
use crate::sync::{AtomicU64, Ordering};
use hyp_abi::Counter;

/// Writes a descriptor. Every descriptor of every table is written here.
///
/// Release: a walk that finds a new table finds what was stored into it before (the walker is an observer, and
/// its reads of the next level depend on its read of this one).
#[inline]
pub(super) fn write<H: Hardware>(hw: &H, regime: Regime, place: (&AtomicU64, Ipa, u8), old: u64, new: u64) {
    let (entry, address, level) = place;
    entry.store(new, Ordering::Release);
    hw.observe(Event::Descriptor {
        regime,
        address,
        level,
        old,
        new,
    });
}

/// Writes the descriptor of `slot`.
#[inline]
pub(super) fn store<H: Hardware>(hw: &H, regime: Regime, slot: Slot, old: u64, new: u64) {
    write(hw, regime, (slot.entry(hw), slot.address(), slot.level), old, new);
}

/// Fills `page`, which is zero and in no table, with entries that translate as `raw` does in `slot`.
pub(super) fn fill<F: Format, G: Geometry, H: Hardware<Geometry = G>>(
    hw: &H,
    regime: Regime,
    slot: Slot,
    raw: u64,
    page: TablePage,
) {
    let level = slot.level + 1;
    if raw == EMPTY || level > PAGE_LEVEL {
        return;
    }
    let step = 1_u64 << G::level_shift(level);
    let (mut new, stride) = match Descriptor::<F>::decode(raw, slot.level) {
        Descriptor::Leaf { pa, .. } => (leaf_descriptor(pa, level, raw & F::ATTRIBUTES), step),
        _ => (raw, 0),
    };
    let mut start = slot.start;
    for entry in hw.table(page) {
        write(hw, regime, (entry, address(start), level), EMPTY, new);
        // A block begins at a multiple of its size and ends below 2^48, so its parts differ in address bits only.
        new = new.wrapping_add(stride);
        start = start.wrapping_add(step);
    }
}

/// Takes a leaf out of use before a table comes in its place, and says what the entry then holds. An invalid
/// entry is out of use as it is.
pub(super) fn break_leaf<F: Format, H: Hardware>(hw: &H, regime: Regime, slot: Slot, raw: u64) -> u64 {
    match Descriptor::<F>::decode(raw, slot.level) {
        Descriptor::Leaf { .. } => {
            break_entry(hw, regime, slot, raw, Some(slot.level));
            hw.count(Counter::BlocksSplit, 1);
            EMPTY
        }
        _ => raw,
    }
}

/// Break: the entry is empty, and no TLB holds what it said (Arm ARM DDI 0487, D8.16.1).
fn break_entry<H: Hardware>(hw: &H, regime: Regime, slot: Slot, raw: u64, level: Option<u8>) {
    store(hw, regime, slot, raw, EMPTY);
    hw.invalidate(
        regime,
        Extent::Range {
            start: slot.address(),
            pages: slot.pages(),
            level,
        },
    );
}

/// Gives an entry that is in use a new descriptor that is a leaf or invalid, and notes what is owed. Says whether
/// the new descriptor must yet be published.
pub(super) fn replace<F: Format, H: Hardware>(
    hw: &H,
    regime: Regime,
    slot: Slot,
    old: u64,
    new: u64,
    obligation: &mut Obligation,
) -> bool {
    let is_leaf = Descriptor::<F>::decode(new, slot.level).is_valid();
    let pages = slot.pages();
    match Descriptor::<F>::decode(old, slot.level) {
        Descriptor::Invalid(_) => {
            store(hw, regime, slot, old, new);
            is_leaf
        }
        Descriptor::Leaf { .. } if !is_leaf => {
            store(hw, regime, slot, old, new);
            obligation.add(slot.address(), pages, Some(slot.level));
            false
        }
        Descriptor::Leaf { .. } => {
            let changed = old ^ new;
            if changed & !F::IN_PLACE != 0 {
                break_entry(hw, regime, slot, old, Some(slot.level));
                store(hw, regime, slot, EMPTY, new);
                return true;
            }
            store(hw, regime, slot, old, new);
            // What had no access flag was in no TLB.
            if old & F::ACCESSED != 0 {
                obligation.add(slot.address(), pages, Some(slot.level));
                return false;
            }
            true
        }
        Descriptor::Table(table) => {
            if is_leaf {
                break_entry(hw, regime, slot, old, None);
                store(hw, regime, slot, EMPTY, new);
                hw.count(Counter::BlocksFolded, 1);
            } else {
                store(hw, regime, slot, old, new);
                obligation.add(slot.address(), pages, None);
            }
            detach::<F, H>(hw, table, slot.level + 1, obligation);
            is_leaf
        }
    }
}

/// Puts a table of `level`, and all below it, into the obligation. As deep as a table has levels.
pub(super) fn detach<F: Format, H: Hardware>(
    hw: &H,
    table: TablePage,
    level: u8,
    obligation: &mut Obligation,
) {
    if level < PAGE_LEVEL {
        for entry in hw.table(table) {
            let raw = entry.load(Ordering::Relaxed);
            if let Descriptor::Table(child) = Descriptor::<F>::decode(raw, level) {
                detach::<F, H>(hw, child, level + 1, obligation);
            }
        }
    }
    obligation.detach(hw, table);
}
