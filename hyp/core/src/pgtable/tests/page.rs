//! The short way to one page, and the table that it may lack.

use super::*;
use LargestLeaf::{Page, Region};

const GIB: u64 = 1 << 30;
const BLOCK: u64 = 2 << 20;
/// The second page of the second block.
const PLACE: u64 = GIB + BLOCK + 0x1000;

/// A table in which the first page of a GiB is mapped, so that only tables of the last level are missing there.
fn begun() -> (Machine<Arm4K>, HostTable) {
    let hw = Machine::with_pool(64);
    let table = host_table(&hw);
    table
        .apply(&hw, span(GIB, 1), map(GIB, Page))
        .unwrap()
        .complete(&hw);
    (hw, table)
}

#[test]
fn a_page_is_mapped_in_a_table_from_the_reserve() {
    let (hw, table) = begun();
    let mut reserve = Reserve::take(&hw, 2).unwrap();
    assert!(table.page(&hw, ipa(PLACE)).is_none(), "its table is missing");
    let tables = tables_below_root(&hw, &table);
    let _ = hw.take_log();
    let page = table.add_page_table(&hw, ipa(PLACE), &mut reserve).unwrap();
    assert!(page.is_empty());
    page.map(&hw, pa(PLACE), RAM);
    // No walk may find the table before its zeroes, and none need be told to forget that nothing was there.
    assert_eq!(
        told(&hw),
        [
            Told::Publish,
            Told::Set(GIB + BLOCK, 2, Kind::Zero, Kind::Table),
            Told::Set(PLACE, 3, Kind::Zero, Kind::Leaf),
            Told::Publish,
        ]
    );
    let entry = table.walk(&hw, ipa(PLACE)).unwrap();
    assert_eq!((entry.start, entry.level), (ipa(PLACE), 3));
    assert_eq!(
        entry.descriptor,
        Descriptor::Leaf {
            pa: pa(PLACE),
            attributes: RAM
        }
    );
    assert_eq!((tables_below_root(&hw, &table), reserve.pages()), (tables + 1, 1));
    assert!(table.page(&hw, ipa(PLACE + 0x1000)).unwrap().is_empty());
    reserve.release(&hw);
}

#[test]
fn a_table_is_added_only_where_nothing_else_is_missing_and_nothing_stands() {
    let (hw, table) = begun();
    let mut reserve = Reserve::take(&hw, 1).unwrap();
    let blocks = [
        (GIB + 2 * BLOCK, map(GIB, Region)),
        (GIB + 3 * BLOCK, unmap(1, Region)),
    ];
    for (start, change) in blocks {
        table.apply(&hw, span(start, 512), change).unwrap().complete(&hw);
    }
    let before = snapshot(&hw, &table);
    let places = [
        ("a table", GIB),
        ("a block", GIB + 2 * BLOCK),
        ("an annotation", GIB + 3 * BLOCK),
        ("no table of the level above", 5 * GIB),
        ("past the end", 1 << 40),
    ];
    for (what, place) in places {
        assert!(
            table.add_page_table(&hw, ipa(place), &mut reserve).is_none(),
            "{what}"
        );
        assert_eq!(
            (snapshot(&hw, &table), reserve.pages()),
            (before.clone(), 1),
            "{what}"
        );
    }
    let mut empty = Reserve::new();
    assert!(table.add_page_table(&hw, ipa(PLACE), &mut empty).is_none());
    assert_eq!(snapshot(&hw, &table), before);
    reserve.release(&hw);
}

#[test]
fn an_address_past_a_concatenated_root_leads_to_none_of_its_tables() {
    let hw = Machine::<Arm4K>::with_pool(32);
    // Four tables side by side at level 1, each for 512 GiB.
    let root = hw.allocate_root(4);
    let table: Table<Stage2, Arm4K> = Table::new(root, 1, 41, Regime::Host).unwrap();
    for number in 0..4 {
        let found = table.root_table(&hw, number << 39 | 0x1000).unwrap();
        assert_eq!(found.frame().number(), root.frame().number() + number);
    }
    // What a CPU that guesses past the check of the address would do.
    for number in [4, 5, 511] {
        assert_eq!(table.root_table(&hw, number << 39).unwrap().frame(), root.frame());
    }
}
