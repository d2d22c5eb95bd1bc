//! The order of things: exact sequences of stores, barriers, invalidations and frees.

use super::*;
use LargestLeaf::{Page, Region};
use Told::{Fill, Free, Invalidate, Publish, Set};

const GIB: u64 = 1 << 30;
const BLOCK: u64 = 2 << 20;
const BASE: u64 = GIB;

/// A host's table with a GiB of RAM in blocks, watched at the edges of the second block and of a page in it.
fn booted() -> (Machine<Arm4K>, HostTable) {
    let hw = Machine::with_pool(64);
    let table = host_table(&hw);
    table
        .apply(&hw, span(BASE, GIB >> 12), map(BASE, Region))
        .unwrap()
        .complete(&hw);
    let block = BASE + BLOCK;
    hw.watch(
        &table,
        [
            BASE,
            block,
            block + 0x6000,
            block + 0x7000,
            block + BLOCK - 1,
            block + BLOCK,
        ]
        .map(ipa),
    );
    let _ = hw.take_log();
    (hw, table)
}

#[test]
fn mapping_what_was_unmapped_is_published_and_owes_nothing() {
    let hw = Machine::with_pool(8);
    let table = host_table(&hw);
    let owed = table.apply(&hw, span(BASE, 512 + 1), map(BASE, Region)).unwrap();
    assert!(owed.is_empty());
    assert_eq!(
        told(&hw),
        [
            // The tables are filled before anything leads to them: lower levels are linked first.
            Set(BASE, 1, Kind::Zero, Kind::Table),
            Set(BASE, 2, Kind::Zero, Kind::Leaf),
            Set(BASE + BLOCK, 2, Kind::Zero, Kind::Table),
            Set(BASE + BLOCK, 3, Kind::Zero, Kind::Leaf),
            Publish,
            Set(0, 0, Kind::Zero, Kind::Table),
            Publish,
        ]
    );
}

#[test]
fn a_page_unmapped_from_a_block_is_one_break_before_make_and_owes_nothing_more() {
    let (hw, table) = booted();
    let page = BASE + BLOCK + 0x7000;
    let owed = table.apply(&hw, span(page, 1), unmap(5, Page)).unwrap();
    assert!(
        owed.is_empty(),
        "the block's invalidation has covered the page, which was never linked again"
    );
    assert_eq!(
        told(&hw),
        [
            Set(BASE + BLOCK, 2, Kind::Leaf, Kind::Zero),
            Invalidate(BASE + BLOCK, 512, Some(2)),
            Fill(BASE + BLOCK, 3),
            Set(page, 3, Kind::Leaf, Kind::Annotated),
            Publish,
            Set(BASE + BLOCK, 2, Kind::Zero, Kind::Table),
            Publish,
        ]
    );
    hw.assert_coherent();
}

#[test]
fn pages_unmapped_from_a_table_are_stored_and_then_invalidated_at_once() {
    let (hw, table) = booted();
    let page = BASE + BLOCK + 0x6000;
    table
        .apply(&hw, span(page + 0x8000, 1), unmap(5, Page))
        .unwrap()
        .complete(&hw);
    let _ = hw.take_log();
    table
        .apply(&hw, span(page, 2), unmap(5, Page))
        .unwrap()
        .complete(&hw);
    assert_eq!(
        told(&hw),
        [
            Set(page, 3, Kind::Leaf, Kind::Annotated),
            Set(page + 0x1000, 3, Kind::Leaf, Kind::Annotated),
            Invalidate(page, 2, Some(3)),
        ]
    );
    hw.assert_coherent();
}

#[test]
fn a_table_unmapped_whole_is_freed_after_the_invalidation_that_carries_no_level() {
    let (hw, table) = booted();
    let block = BASE + BLOCK;
    table
        .apply(&hw, span(block, 1), unmap(5, Page))
        .unwrap()
        .complete(&hw);
    let _ = hw.take_log();
    table
        .apply(&hw, span(block, 512), unmap(6, Region))
        .unwrap()
        .complete(&hw);
    assert_eq!(
        told(&hw),
        [
            Set(block, 2, Kind::Table, Kind::Annotated),
            Invalidate(block, 512, None),
            Free,
        ]
    );
    hw.assert_coherent();
}

#[test]
fn blocks_unmapped_one_by_one_are_invalidated_together() {
    let (hw, table) = booted();
    let mut owed = Obligation::none(Regime::Host);
    for number in [2, 3, 0, 1] {
        let part = table
            .apply(&hw, span(BASE + number * BLOCK, 512), unmap(0, Region))
            .unwrap();
        owed.join(&hw, part);
    }
    assert_eq!(
        owed.extent(),
        Some(Extent::Range {
            start: ipa(BASE),
            pages: 4 * 512,
            level: Some(2)
        })
    );
    owed.complete(&hw);
    assert_eq!(
        told(&hw),
        [
            Set(BASE + 2 * BLOCK, 2, Kind::Leaf, Kind::Zero),
            Set(BASE + 3 * BLOCK, 2, Kind::Leaf, Kind::Zero),
            Set(BASE, 2, Kind::Leaf, Kind::Zero),
            Set(BASE + BLOCK, 2, Kind::Leaf, Kind::Zero),
            Invalidate(BASE, 4 * 512, Some(2)),
        ]
    );
    hw.assert_coherent();
}

#[test]
fn tables_unmapped_one_by_one_are_freed_after_one_invalidation() {
    let (hw, table) = booted();
    let range = span(BASE, 3 * 512);
    table
        .apply(&hw, range, Change::Populate { leaves: Page })
        .unwrap()
        .complete(&hw);
    let used = hw.pages_in_use();
    let mut owed = Obligation::none(Regime::Host);
    for number in 0..3 {
        let block = span(BASE + number * BLOCK, 512);
        owed.join(&hw, table.apply(&hw, block, unmap(0, Region)).unwrap());
    }
    assert_eq!((owed.detached(), hw.pages_in_use()), (3, used));
    let _ = hw.take_log();
    owed.complete(&hw);
    assert_eq!(told(&hw), [Invalidate(BASE, 3 * 512, None), Free, Free, Free]);
    assert_eq!(hw.pages_in_use(), used - 3);
    hw.assert_coherent();
}

#[test]
fn leaves_of_two_levels_are_invalidated_without_a_level() {
    let (hw, table) = booted();
    table
        .apply(&hw, span(BASE + BLOCK - 0x1000, 1), unmap(0, Page))
        .unwrap()
        .complete(&hw);
    let owed = table
        .apply(&hw, span(BASE + BLOCK - 0x2000, 514), unmap(0, Region))
        .unwrap();
    assert_eq!(
        owed.extent(),
        Some(Extent::Range {
            start: ipa(BASE + BLOCK - 0x2000),
            pages: 514,
            level: None
        })
    );
    owed.complete(&hw);
    hw.assert_coherent();
}

#[test]
fn a_debt_of_another_regime_is_paid_when_it_is_joined() {
    let (hw, table) = booted();
    let guest: HostTable = Table::new(hw.allocate_root(1), 1, 39, Regime::Guest(3)).unwrap();
    guest
        .apply(&hw, span(0, 1), map(BASE, Page))
        .unwrap()
        .complete(&hw);
    let _ = hw.take_log();
    let mut owed = table.apply(&hw, span(BASE, 512), unmap(0, Region)).unwrap();
    let other = guest.apply(&hw, span(0, 1), unmap(0, Page)).unwrap();
    owed.join(&hw, other);
    let invalidated =
        |regime| move |step: &Step| matches!(step, Step::Invalidate(found, _) if *found == regime);
    let log = hw.take_log();
    assert!(log.iter().any(invalidated(Regime::Guest(3))));
    assert!(!log.iter().any(invalidated(Regime::Host)));
    owed.complete(&hw);
    assert!(hw.take_log().iter().any(invalidated(Regime::Host)));
}

#[test]
fn folding_breaks_the_table_before_the_block_is_made_and_frees_it_last() {
    let (hw, table) = booted();
    let block = BASE + BLOCK;
    table
        .apply(&hw, span(block, 512), Change::Populate { leaves: Page })
        .unwrap()
        .complete(&hw);
    let _ = hw.take_log();
    let owed = table.fold(&hw, ipa(block + 0x3000), 2).unwrap();
    assert_eq!((owed.extent(), owed.detached()), (None, 1));
    owed.complete(&hw);
    assert_eq!(
        told(&hw),
        [
            Set(block, 2, Kind::Table, Kind::Zero),
            Invalidate(block, 512, None),
            Set(block, 2, Kind::Zero, Kind::Leaf),
            Publish,
            Free,
        ]
    );
    hw.assert_coherent();
}

#[test]
fn folding_what_maps_nothing_needs_no_break() {
    let (hw, table) = booted();
    let block = BASE + BLOCK;
    table
        .apply(&hw, span(block, 512), unmap(9, Page))
        .unwrap()
        .complete(&hw);
    let _ = hw.take_log();
    table.fold(&hw, ipa(block), 2).unwrap().complete(&hw);
    assert_eq!(
        told(&hw),
        [
            Set(block, 2, Kind::Table, Kind::Annotated),
            Invalidate(block, 512, None),
            Free,
        ]
    );
    assert_eq!(
        table.walk(&hw, ipa(block)).unwrap().descriptor,
        Descriptor::Invalid(Annotation::new(9).unwrap())
    );
}

#[test]
fn a_block_takes_the_place_of_a_table_that_maps_nothing() {
    let (hw, table) = booted();
    let block = BASE + BLOCK;
    table
        .apply(&hw, span(block, 512), unmap(9, Page))
        .unwrap()
        .complete(&hw);
    let _ = hw.take_log();
    let plan = table.plan(&hw, span(block, 512), map(block, Region)).unwrap();
    assert_eq!(plan.tables(), 0);
    plan.reserve(&hw).unwrap().commit(&hw).complete(&hw);
    assert_eq!(
        told(&hw),
        [
            Set(block, 2, Kind::Table, Kind::Zero),
            Invalidate(block, 512, None),
            Set(block, 2, Kind::Zero, Kind::Leaf),
            Publish,
            Free,
        ]
    );
    hw.assert_coherent();
}

#[test]
fn permissions_change_in_place_and_are_invalidated_after() {
    let (hw, table) = booted();
    let change = Change::Protect {
        update: Update::write_protect(),
    };
    table
        .apply(&hw, span(BASE + BLOCK, 512), change)
        .unwrap()
        .complete(&hw);
    assert_eq!(
        told(&hw),
        [
            Set(BASE + BLOCK, 2, Kind::Leaf, Kind::Leaf),
            Invalidate(BASE + BLOCK, 512, Some(2)),
        ]
    );
    hw.assert_coherent();
}

#[test]
fn permissions_of_part_of_a_block_are_part_of_its_split() {
    let (hw, table) = booted();
    let change = Change::Protect {
        update: Update::write_protect(),
    };
    let page = BASE + BLOCK + 0x6000;
    let owed = table.apply(&hw, span(page, 1), change).unwrap();
    assert!(owed.is_empty());
    assert_eq!(
        told(&hw),
        [
            Set(BASE + BLOCK, 2, Kind::Leaf, Kind::Zero),
            Invalidate(BASE + BLOCK, 512, Some(2)),
            Fill(BASE + BLOCK, 3),
            Set(page, 3, Kind::Leaf, Kind::Leaf),
            Publish,
            Set(BASE + BLOCK, 2, Kind::Zero, Kind::Table),
            Publish,
        ]
    );
    hw.assert_coherent();
}

#[test]
fn a_memory_type_changes_by_break_before_make() {
    let (hw, table) = booted();
    let uncached = Stage2Attributes::new(
        Stage2Memory::NonCacheable,
        Stage2Access::all(),
        Execute::All,
        Shareability::Inner,
    );
    let change = Change::Protect {
        update: Update::replace(uncached),
    };
    let owed = table.apply(&hw, span(BASE, 512), change).unwrap();
    assert!(owed.is_empty());
    assert_eq!(
        told(&hw),
        [
            Set(BASE, 2, Kind::Leaf, Kind::Zero),
            Invalidate(BASE, 512, Some(2)),
            Set(BASE, 2, Kind::Zero, Kind::Leaf),
            Publish,
        ]
    );
    hw.assert_coherent();
}

#[test]
fn an_access_flag_is_set_without_an_invalidation_and_cleared_with_one() {
    let (hw, table) = booted();
    let mut seen = 0;
    table
        .take_accessed(&hw, span(BASE, 512), |_| seen += 1)
        .complete(&hw);
    let mark = Change::Protect {
        update: Update::mark_accessed(),
    };
    table.apply(&hw, span(BASE, 512), mark).unwrap().complete(&hw);
    assert_eq!(seen, 1);
    assert_eq!(
        told(&hw),
        [
            Set(BASE, 2, Kind::Leaf, Kind::Leaf),
            Invalidate(BASE, 512, Some(2)),
            Set(BASE, 2, Kind::Leaf, Kind::Leaf),
            Publish,
        ]
    );
    hw.assert_coherent();
}

#[test]
#[should_panic(expected = "an obligation to invalidate was dropped")]
fn an_obligation_that_is_dropped_is_a_bug() {
    let (hw, table) = booted();
    drop(table.apply(&hw, span(BASE, 512), unmap(0, Region)).unwrap());
}
