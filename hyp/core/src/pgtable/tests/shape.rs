//! Which tables can be, what a walk finds, and how many pages changes take.

use super::*;
use LargestLeaf::{Gigabyte, Page, Region};

const GIB: u64 = 1 << 30;
const BLOCK: u64 = 2 << 20;

#[test]
fn roots_are_as_many_tables_as_the_input_takes() {
    let stage2 = |level, bits| Table::<Stage2, Arm4K>::root_tables(level, bits);
    // Start level 1 resolves bits 38:30, and with concatenation up to bit 42.
    assert_eq!(stage2(1, 31), Some(1));
    assert_eq!(stage2(1, 39), Some(1));
    assert_eq!(stage2(1, 40), Some(2));
    assert_eq!(stage2(1, 42), Some(8));
    assert_eq!(stage2(1, 43), Some(16));
    assert_eq!(stage2(1, 44), None);
    assert_eq!(stage2(2, 30), Some(1));
    assert_eq!(stage2(2, 34), Some(16));
    assert_eq!(stage2(2, 35), None);
    assert_eq!(stage2(0, 48), Some(1));
    // One entry is no table, an address has 48 bits, and level 3 is no start level.
    assert_eq!(stage2(0, 39), None);
    assert_eq!(stage2(0, 49), None);
    assert_eq!(stage2(0, u32::MAX), None);
    assert_eq!(stage2(3, 16), None);
    let hyp = |level, bits| Table::<HypStage1, Arm4K>::root_tables(level, bits);
    assert_eq!(hyp(1, 39), Some(1));
    assert_eq!(hyp(1, 40), None);
}

#[test]
fn roots_are_aligned_to_their_whole_size() {
    let at = |number| {
        let root = TablePage::new(Frame::new(number).unwrap());
        Table::<Stage2, Arm4K>::new(root, 1, 42, Regime::Host).is_some()
    };
    assert!(at(0x100) && at(0x108));
    for number in 0x101..0x108 {
        assert!(!at(number));
    }
}

#[test]
fn spans_are_whole_pages_inside_48_bits() {
    assert!(IpaSpan::new(ipa(0x1000), 0).is_none());
    assert!(IpaSpan::new(ipa(0x1001), 1).is_none());
    assert!(IpaSpan::new(ipa(0), 1 << 36).is_some());
    assert!(IpaSpan::new(ipa(0x1000), 1 << 36).is_none());
    assert!(IpaSpan::new(ipa(0xffff_ffff_f000), 1).is_some());
    assert!(IpaSpan::new(ipa(0xffff_ffff_f000), 2).is_none());
    assert!(IpaSpan::new(ipa(0x1000), u64::MAX).is_none());
}

#[test]
fn a_walk_finds_the_entry_that_decides() {
    let hw = Machine::with_pool(16);
    let table = host_table(&hw);
    let absent = table.walk(&hw, ipa(GIB)).unwrap();
    assert_eq!((absent.start, absent.level, absent.pages), (ipa(0), 0, 1 << 27));
    table
        .apply(&hw, span(GIB, 513), map(3 * GIB, Region))
        .unwrap()
        .complete(&hw);
    let block = table.walk(&hw, ipa(GIB + 0x1_2345)).unwrap();
    assert_eq!((block.start, block.level, block.pages), (ipa(GIB), 2, 512));
    let page = table.walk(&hw, ipa(GIB + BLOCK + 0xfff)).unwrap();
    assert_eq!((page.start, page.level, page.pages), (ipa(GIB + BLOCK), 3, 1));
    assert_eq!(
        page.descriptor,
        Descriptor::Leaf {
            pa: pa(3 * GIB + BLOCK),
            attributes: RAM
        }
    );
    let next = table.walk(&hw, ipa(GIB + BLOCK + 0x1000)).unwrap();
    assert!(!next.descriptor.is_valid());
    assert_eq!(table.walk(&hw, ipa(1 << 40)), None);
}

#[test]
fn ranges_and_targets_outside_are_refused() {
    let hw = Machine::with_pool(16);
    let table = host_table(&hw);
    let refused = |span, change| {
        let before = snapshot(&hw, &table);
        let error = table.apply(&hw, span, change).unwrap_err();
        assert_eq!(snapshot(&hw, &table), before);
        error
    };
    let last = (1 << 40) - 0x1000;
    assert_eq!(refused(span(last, 2), map(0, Page)), EngineError::OutOfRange);
    assert_eq!(refused(span(1 << 40, 1), unmap(1, Page)), EngineError::OutOfRange);
    assert_eq!(
        refused(span(0, 2), map(0xffff_ffff_f000, Page)),
        EngineError::OutOfRange
    );
    assert_eq!(refused(span(0, 1), map(0x800, Page)), EngineError::Misaligned);
    table
        .apply(&hw, span(last, 1), map(0xffff_ffff_f000, Page))
        .unwrap()
        .complete(&hw);
    assert!(table.entries(&hw, span(1 << 40, 4)).next().is_none());
}

#[test]
fn nothing_is_mapped_over_a_mapping() {
    let hw = Machine::with_pool(16);
    let table = host_table(&hw);
    table
        .apply(&hw, span(GIB + 0x5000, 1), map(GIB, Page))
        .unwrap()
        .complete(&hw);
    let before = snapshot(&hw, &table);
    for (start, pages) in [(GIB, 512), (GIB + 0x5000, 1), (GIB + 0x4000, 2), (0, 1 << 20)] {
        assert_eq!(
            table
                .apply(&hw, span(start, pages), map(0, Gigabyte))
                .unwrap_err(),
            EngineError::Mapped {
                at: ipa(GIB + 0x5000)
            }
        );
    }
    assert_eq!(snapshot(&hw, &table), before);
}

#[test]
fn leaves_are_as_large_as_alignment_and_the_caller_allow() {
    let levels = |start: u64, to: u64, pages: u64, largest: LargestLeaf| {
        let hw = Machine::with_pool(1100);
        let table = host_table(&hw);
        let plan = table.plan(&hw, span(start, pages), map(to, largest)).unwrap();
        let tables = plan.tables();
        plan.reserve(&hw).unwrap().commit(&hw).complete(&hw);
        assert_eq!(tables, tables_below_root(&hw, &table));
        let mut count = [0_u64; 4];
        for entry in table.entries(&hw, span(start, pages)) {
            if matches!(entry.descriptor, Descriptor::Leaf { .. }) {
                count[usize::from(entry.level)] += 1;
            }
        }
        (count[1], count[2], count[3])
    };
    let gib = GIB >> 12;
    assert_eq!(levels(GIB, GIB, gib, Gigabyte), (1, 0, 0));
    assert_eq!(levels(GIB, GIB, gib, Region), (0, 512, 0));
    assert_eq!(levels(GIB, GIB + BLOCK, gib, Gigabyte), (0, 512, 0));
    assert_eq!(levels(GIB, GIB + 0x1000, 512, Gigabyte), (0, 0, 512));
    assert_eq!(levels(GIB, GIB, 512, Page), (0, 0, 512));
    assert_eq!(
        levels(GIB - 0x1000, 3 * GIB - 0x1000, gib + 2, Gigabyte),
        (1, 0, 2)
    );
    assert_eq!(levels(GIB - BLOCK, GIB - BLOCK, 2 * gib, Region), (0, 1024, 0));
    assert_eq!(levels(GIB + 0x1000, GIB + 0x1000, 1024, Region), (0, 1, 512));
}

#[test]
fn upper_tables_that_were_made_first_never_change() {
    let hw = Machine::with_pool(64);
    let table = host_table(&hw);
    let all = span(GIB, 2 * (GIB >> 12));
    table
        .apply(&hw, all, Change::Populate { leaves: Region })
        .unwrap()
        .complete(&hw);
    assert!(!table.walk(&hw, ipa(GIB)).unwrap().descriptor.is_valid());
    let upper = |hw: &Machine<Arm4K>| -> Vec<Entry<Stage2>> {
        snapshot(hw, &table)
            .into_iter()
            .filter(|entry| entry.level < 2)
            .collect()
    };
    let before = upper(&hw);
    for change in [map(GIB, Region), unmap(7, Region), map(GIB, Region)] {
        table.apply(&hw, all, change).unwrap().complete(&hw);
        assert_eq!(upper(&hw), before);
    }
    assert_eq!(
        tables_below_root(&hw, &table),
        3,
        "one of level 1, two of level 2"
    );
    let again = table.plan(&hw, all, Change::Populate { leaves: Region }).unwrap();
    assert!(again.is_empty());
}

#[test]
fn unmapping_everything_gives_every_table_back() {
    let hw = Machine::with_pool(64);
    let table = host_table(&hw);
    let roots = hw.pages_in_use();
    for (start, pages) in [
        (0x1000, 1),
        (GIB + BLOCK, 512),
        (5 * GIB - 0x1000, 2),
        (1 << 39, 3),
    ] {
        table
            .apply(&hw, span(start, pages), map(start, Gigabyte))
            .unwrap()
            .complete(&hw);
    }
    assert_eq!(hw.pages_in_use(), roots + tables_below_root(&hw, &table));
    let whole = table.span();
    table.apply(&hw, whole, unmap(0, Gigabyte)).unwrap().complete(&hw);
    // Level 1 entries are the largest that may be written, so that the level-1 tables stay.
    assert_eq!(hw.pages_in_use(), roots + 2);
    assert!(
        table
            .entries(&hw, whole)
            .all(|entry| !matches!(entry.descriptor, Descriptor::Leaf { .. }))
    );
}

#[test]
fn a_fold_needs_entries_that_agree() {
    let hw = Machine::with_pool(16);
    let table = host_table(&hw);
    table
        .apply(&hw, span(GIB, 512), map(GIB, Page))
        .unwrap()
        .complete(&hw);
    assert!(table.fold(&hw, ipa(GIB), 1).is_none(), "level 2 has a table");
    assert!(table.fold(&hw, ipa(GIB), 3).is_none() && table.fold(&hw, ipa(GIB), 0).is_none());
    assert!(table.fold(&hw, ipa(8 * GIB), 2).is_none() && table.fold(&hw, ipa(1 << 41), 2).is_none());
    let last = span(GIB + BLOCK - 0x1000, 1);
    let protect = |update| Change::Protect { update };
    table
        .apply(&hw, last, protect(Update::write_protect()))
        .unwrap()
        .complete(&hw);
    assert!(table.fold(&hw, ipa(GIB), 2).is_none(), "one page is read-only");
    table
        .apply(&hw, last, protect(Update::replace(RAM)))
        .unwrap()
        .complete(&hw);
    table.apply(&hw, last, unmap(0, Page)).unwrap().complete(&hw);
    assert!(table.fold(&hw, ipa(GIB), 2).is_none(), "one page is absent");
    table.apply(&hw, last, map(3 * GIB, Page)).unwrap().complete(&hw);
    assert!(table.fold(&hw, ipa(GIB), 2).is_none(), "one page is elsewhere");
    table.apply(&hw, last, unmap(0, Page)).unwrap().complete(&hw);
    table
        .apply(&hw, last, map(GIB + BLOCK - 0x1000, Page))
        .unwrap()
        .complete(&hw);
    table.fold(&hw, ipa(GIB + 0x1000), 2).unwrap().complete(&hw);
    assert_eq!(table.walk(&hw, ipa(GIB)).unwrap().level, 2);
    // Contiguous, but not aligned as a block must be.
    table
        .apply(&hw, span(2 * GIB, 512), map(GIB + 0x1000, Page))
        .unwrap()
        .complete(&hw);
    assert!(table.fold(&hw, ipa(2 * GIB), 2).is_none());
}

#[test]
fn a_gigabyte_folds_from_its_regions() {
    let hw = Machine::with_pool(16);
    let table = host_table(&hw);
    table
        .apply(&hw, span(GIB, GIB >> 12), map(4 * GIB, Region))
        .unwrap()
        .complete(&hw);
    table.fold(&hw, ipa(GIB), 1).unwrap().complete(&hw);
    let block = table.walk(&hw, ipa(GIB + 5 * BLOCK)).unwrap();
    assert_eq!((block.level, block.start), (1, ipa(GIB)));
}
