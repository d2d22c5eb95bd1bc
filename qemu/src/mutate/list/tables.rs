//! Errors of the table engine: what is owed to the TLBs and to walkers, and which descriptor says what.

use super::{Layer, Mutation};

const STORE: &str = "hyp/core/src/pgtable/store.rs";
const PLAN: &str = "hyp/core/src/pgtable/plan.rs";
const CHANGE: &str = "hyp/core/src/pgtable/change.rs";
const OBLIGATION: &str = "hyp/core/src/pgtable/obligation.rs";
const FOLD: &str = "hyp/core/src/pgtable/fold.rs";
const RESERVE: &str = "hyp/core/src/pgtable/reserve.rs";

pub(super) const MUTATIONS: &[Mutation] = &[
    // A leaf goes, and nobody owes the TLBs anything for it: the first of the two sites of a TLBI that is missing.
    Mutation {
        name: "unmapped-leaf-owes-nothing",
        like: Some("missing TLBI, first site"),
        file: STORE,
        find: "Descriptor::Leaf { .. } if !is_leaf => {
            store(hw, regime, slot, old, new);
            obligation.add(slot.address(), pages, Some(slot.level));
            false",
        replace: "Descriptor::Leaf { .. } if !is_leaf => {
            store(hw, regime, slot, old, new);
            false",
        caught_by: Layer::Order,
    },
    // Permissions are taken away and CPUs go on with the old ones: the second site.
    Mutation {
        name: "changed-permissions-owe-nothing",
        like: Some("missing TLBI, second site"),
        file: STORE,
        find: "if old & F::ACCESSED != 0 {
            obligation.add(slot.address(), pages, Some(slot.level));",
        replace: "if old & F::ACCESSED != 0 {",
        caught_by: Layer::Order,
    },
    // The break of break-before-make without its first half: the entry stays as it was while the TLBs are invalidated,
    // so that they fill with it again.
    Mutation {
        name: "break-does-not-empty-the-entry",
        like: Some("missing write of 0"),
        file: STORE,
        find: "store(hw, regime, slot, raw, EMPTY);
            hw.invalidate(",
        replace: "hw.invalidate(",
        caught_by: Layer::Order,
    },
    // A leaf that maps elsewhere is written over one that is in use.
    Mutation {
        name: "leaf-replaced-without-break",
        like: Some("missing break"),
        file: STORE,
        find: "if changed & !F::IN_PLACE != 0 {",
        replace: "if false && changed & !F::IN_PLACE != 0 {",
        caught_by: Layer::Order,
    },
    // A block gives way to a table in one store.
    Mutation {
        name: "block-split-without-break",
        like: Some("missing break"),
        file: STORE,
        find: "break_entry(hw, regime, slot, raw, Some(slot.level));
            hw.count(Counter::BlocksSplit, 1);
            EMPTY",
        replace: "hw.count(Counter::BlocksSplit, 1);
            raw",
        caught_by: Layer::Order,
    },
    // A table gives way to a block in one store.
    Mutation {
        name: "table-folded-without-break",
        like: Some("missing break"),
        file: STORE,
        find: "break_entry(hw, regime, slot, old, None);
                store(hw, regime, slot, EMPTY, new);",
        replace: "store(hw, regime, slot, old, new);",
        caught_by: Layer::Order,
    },
    // The break without its second half.
    Mutation {
        name: "break-does-not-invalidate",
        like: Some("missing invalidate"),
        file: STORE,
        find: "hw.invalidate(
        regime,
        Extent::Range {
            start: slot.address(),
            pages: slot.pages(),
            level,
        },
    );",
        replace: "let _ = level;",
        caught_by: Layer::Order,
    },
    // Too few pages are invalidated: all but the last one.
    Mutation {
        name: "invalidation-too-short",
        like: Some("wrong TLBI, first"),
        file: OBLIGATION,
        find: "pages: (hull.end - hull.start.value()) >> FRAME_SHIFT,",
        replace: "pages: (((hull.end - hull.start.value()) >> FRAME_SHIFT) - 1).max(1),",
        caught_by: Layer::Order,
    },
    // The level that goes with an invalidation is not that of all leaves, and TLBs may ignore it for the others.
    Mutation {
        name: "invalidation-with-a-wrong-level",
        like: Some("wrong TLBI, second"),
        file: OBLIGATION,
        find: "level: if old.level == new.level { old.level } else { None },",
        replace: "level: old.level,",
        caught_by: Layer::Unit,
    },
    // A table goes, and only what hangs from it at the level of its entry is invalidated.
    Mutation {
        name: "table-invalidated-as-a-leaf",
        like: Some("wrong TLBI, second"),
        file: STORE,
        find: "obligation.add(slot.address(), pages, None);",
        replace: "obligation.add(slot.address(), pages, Some(slot.level));",
        caught_by: Layer::Order,
    },
    // The page after the right one is invalidated.
    Mutation {
        name: "invalidation-of-the-next-page",
        like: Some("wrong page"),
        file: STORE,
        find: "Descriptor::Leaf { .. } if !is_leaf => {
            store(hw, regime, slot, old, new);
            obligation.add(slot.address(), pages, Some(slot.level));",
        replace: "Descriptor::Leaf { .. } if !is_leaf => {
            store(hw, regime, slot, old, new);
            obligation.add(address(slot.end), pages, Some(slot.level));",
        caught_by: Layer::Order,
    },
    // All parts of a block that is split map to its first page.
    Mutation {
        name: "split-block-maps-one-page-only",
        like: Some("wrong page"),
        file: STORE,
        find: "(leaf_descriptor(pa, level, raw & F::ATTRIBUTES), step),",
        replace: "(leaf_descriptor(pa, level, raw & F::ATTRIBUTES), 0),",
        caught_by: Layer::Specification,
    },
    // The descriptor that leads to a new table may be seen before what is in the table.
    Mutation {
        name: "descriptor-stored-without-order",
        like: Some("plain instead of ordered store"),
        file: STORE,
        find: "entry.store(new, Ordering::Release);",
        replace: "entry.store(new, Ordering::Relaxed);",
        caught_by: Layer::Ordering,
    },
    // A table is linked before what was stored into it is visible to walks.
    Mutation {
        name: "table-linked-before-it-is-published",
        like: Some("plain instead of ordered store"),
        file: PLAN,
        find: "hw.publish();
                store(hw, regime, slot, now, table);",
        replace: "store(hw, regime, slot, now, table);",
        caught_by: Layer::Order,
    },
    // The invalidation names another VMID: a guest's translations outlive its pages.
    Mutation {
        name: "invalidation-under-the-hosts-vmid",
        like: Some("missing VMID switch"),
        file: OBLIGATION,
        find: "hw.invalidate(self.regime, extent);",
        replace: "hw.invalidate(if let Regime::Guest(_) = self.regime { Regime::Host } else { self.regime }, extent);",
        caught_by: Layer::Unit,
    },
    // A table is freed while walks may still read it.
    Mutation {
        name: "table-freed-before-the-invalidation",
        like: None,
        file: OBLIGATION,
        find: "if let Some(extent) = self.extent() {
            hw.invalidate(self.regime, extent);
            self.hull = None;
        }
        let mut detached = mem::take(&mut self.detached);
        while let Some(page) = detached.pop(hw) {
            free(page);
        }",
        replace: "let mut detached = mem::take(&mut self.detached);
        while let Some(page) = detached.pop(hw) {
            free(page);
        }
        if let Some(extent) = self.extent() {
            hw.invalidate(self.regime, extent);
            self.hull = None;
        }",
        caught_by: Layer::Order,
    },
    // What a change has written is not made visible at its end: a CPU may fault on it for ever.
    Mutation {
        name: "change-not-published",
        like: None,
        file: PLAN,
        find: "if unpublished {
            hw.publish();
        }",
        replace: "let _ = unpublished;",
        caught_by: Layer::Order,
    },
    // Of two debts that are joined, the second is forgotten.
    Mutation {
        name: "joined-debt-forgotten",
        like: None,
        file: OBLIGATION,
        find: "if let Some(hull) = other.hull.take() {
            self.merge(hull);
        }",
        replace: "other.hull.take();",
        caught_by: Layer::Order,
    },
    // A table with something mapped below it gives way to a block.
    Mutation {
        name: "table-in-use-taken-for-vacant",
        like: None,
        file: CHANGE,
        find: ".all(|entry| entry.load(Ordering::Relaxed) & 1 == 0)",
        replace: ".any(|entry| entry.load(Ordering::Relaxed) & 1 == 0)",
        caught_by: Layer::Unit,
    },
    // Something is mapped over what is mapped already.
    Mutation {
        name: "mapping-over-a-mapping",
        like: None,
        file: CHANGE,
        find: "(Self::Map { .. }, Descriptor::Leaf { .. }) => {
                return Err(EngineError::Mapped {
                    at: address(slot.from),
                });
            }",
        replace: "",
        caught_by: Layer::Unit,
    },
    // A table becomes a block though its pages do not agree.
    Mutation {
        name: "fold-of-what-differs",
        like: None,
        file: FOLD,
        find: "let agrees = read(entry) == expected;",
        replace: "let agrees = read(entry) & !0xff == expected & !0xff;",
        caught_by: Layer::Unit,
    },
    // Memory that is not aligned as a block must be becomes one.
    Mutation {
        name: "fold-to-a-misaligned-block",
        like: None,
        file: FOLD,
        find: "Descriptor::Leaf { pa, attributes } if pa.is_aligned(G::level_shift(level)) => (",
        replace: "Descriptor::Leaf { pa, attributes } => (",
        caught_by: Layer::Unit,
    },
    // A page that comes back to a reserve keeps the descriptors that it had.
    Mutation {
        name: "reserve-keeps-old-descriptors",
        like: None,
        file: RESERVE,
        find: "entry.store(EMPTY, Ordering::Relaxed);",
        replace: "let _ = entry;",
        caught_by: Layer::Unit,
    },
    // Counting the tables of a change forgets one of its two ends.
    Mutation {
        name: "plan-counts-one-end-only",
        like: None,
        file: CHANGE,
        find: "u64::from(partial_first) + u64::from(partial_last)",
        replace: "u64::from(partial_first)",
        caught_by: Layer::Unit,
    },
    // A plan that falls short of pages keeps those that it got.
    Mutation {
        name: "refused-plan-keeps-pages",
        like: Some("create-VM error keeps donated memory"),
        file: RESERVE,
        find: "reserve.release(hw);
                    return None;",
        replace: "while reserve.list.pop(hw).is_some() {}
                    return None;",
        caught_by: Layer::Unit,
    },
];
