//! Too few pages: a change is refused as a whole, wherever the pool ends.

use super::*;
use LargestLeaf::{Page, Region};

const GIB: u64 = 1 << 30;

/// Every pool that is too small refuses the change and leaves no trace; the first that suffices carries it out.
fn refused_until_enough(
    hw: &Machine<Arm4K>,
    table: &HostTable,
    range: IpaSpan,
    change: Change<Stage2>,
    needed: u64,
) {
    let before = snapshot(hw, table);
    let used = hw.pages_in_use();
    for pages in 0..needed {
        hw.limit_pool(Some(pages));
        let _ = hw.take_log();
        assert_eq!(
            table.apply(hw, range, change).unwrap_err(),
            EngineError::OutOfPages { needed }
        );
        assert_eq!((snapshot(hw, table), hw.pages_in_use()), (before.clone(), used));
        let touched =
            |step: &Step| matches!(step, Step::Invalidate(..) | Step::Core(Event::Descriptor { .. }));
        assert!(!hw.take_log().iter().any(touched));
    }
    hw.limit_pool(Some(needed));
    table.apply(hw, range, change).unwrap().complete(hw);
    assert_ne!(snapshot(hw, table), before);
    hw.limit_pool(None);
}

#[test]
fn mapping_needs_its_tables() {
    let hw = Machine::with_pool(64);
    let table = host_table(&hw);
    // Across the edge of a GiB: two tables of each of the levels 2 and 3, and one of level 1.
    refused_until_enough(&hw, &table, span(GIB - 0x1000, 2), map(0, Page), 5);
}

#[test]
fn unmapping_needs_a_table_for_each_end() {
    let hw = Machine::with_pool(64);
    let table = host_table(&hw);
    table
        .apply(&hw, span(GIB, GIB >> 12), map(GIB, LargestLeaf::Gigabyte))
        .unwrap()
        .complete(&hw);
    // The GiB, and the regions at both ends.
    refused_until_enough(&hw, &table, span(GIB + 0x1000, 1024), unmap(1, Region), 3);
    // The ends lie in tables now; region 10 is a block again.
    refused_until_enough(
        &hw,
        &table,
        span(GIB + ((10 * 512) << 12), 1),
        Change::Protect {
            update: Update::write_protect(),
        },
        1,
    );
}

#[test]
fn a_permit_gives_its_pages_back() {
    let hw = Machine::with_pool(64);
    let table = host_table(&hw);
    let used = hw.pages_in_use();
    let permit = table
        .plan(&hw, span(GIB, 1), map(GIB, Page))
        .unwrap()
        .reserve(&hw)
        .unwrap();
    assert_eq!(hw.pages_in_use(), used + 3);
    permit.abandon(&hw);
    assert_eq!(hw.pages_in_use(), used);
    assert_eq!(tables_below_root(&hw, &table), 0);
}

#[test]
#[should_panic(expected = "a reserve was dropped with pages in it")]
fn a_reserve_that_is_dropped_is_a_bug() {
    let hw = Machine::<Arm4K>::with_pool(4);
    drop(Reserve::take(&hw, 1).unwrap());
}
