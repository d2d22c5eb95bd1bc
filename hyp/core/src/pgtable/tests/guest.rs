//! What guests' tables need: VMIDs, concatenated roots, annotations, permissions, a reserve of their own.

use super::*;
use LargestLeaf::{Page, Region};

const VMID: Regime = Regime::Guest(7);
const GIB: u64 = 1 << 30;
const BLOCK: u64 = 2 << 20;

/// A guest's table of 40 bits from level 1: two concatenated tables.
fn guest() -> (Machine<Arm4K>, HostTable) {
    let hw = Machine::with_pool(64);
    let tables = HostTable::root_tables(1, 40).unwrap();
    let table = Table::new(hw.allocate_root(tables), 1, 40, VMID).unwrap();
    (hw, table)
}

#[test]
fn concatenated_roots_translate_across_their_seams() {
    let hw = Machine::with_pool(256);
    for bits in 39..=43 {
        let tables = HostTable::root_tables(1, bits).unwrap();
        let table: HostTable = Table::new(hw.allocate_root(tables), 1, bits, VMID).unwrap();
        for seam in 0..tables {
            // The last page before each seam, and the first after it.
            let end = (seam + 1) << 39;
            let last = end.min(1 << bits) - 0x1000;
            for (address, to) in [(last, 0x4000_0000), (seam << 39, 0x4000_1000)] {
                table
                    .apply(&hw, span(address, 1), map(to, Page))
                    .unwrap()
                    .complete(&hw);
                let entry = table.walk(&hw, ipa(address)).unwrap();
                assert_eq!((entry.start, entry.level), (ipa(address), 3));
                assert_eq!(
                    entry.descriptor,
                    Descriptor::Leaf {
                        pa: pa(to),
                        attributes: RAM
                    }
                );
            }
        }
        let leaves = table
            .entries(&hw, table.span())
            .filter(|entry| matches!(entry.descriptor, Descriptor::Leaf { .. }));
        assert_eq!(leaves.count() as u64, 2 * tables);
        table
            .apply(&hw, table.span(), unmap(0, Page))
            .unwrap()
            .complete(&hw);
    }
}

#[test]
fn a_range_crosses_a_seam() {
    let (hw, table) = guest();
    let seam = 1 << 39;
    table
        .apply(&hw, span(seam - BLOCK, 1024), map(GIB, Region))
        .unwrap()
        .complete(&hw);
    hw.watch(&table, [seam - 0x1000, seam].map(ipa));
    let reached = hw.reach(VMID, ipa(seam))[0];
    assert_eq!((reached.frame(), reached.level), (frame(GIB + BLOCK), 2));
    table
        .apply(&hw, span(seam - 0x1000, 2), unmap(1, Region))
        .unwrap()
        .complete(&hw);
    hw.assert_coherent();
    assert!(hw.reach(VMID, ipa(seam)).is_empty());
}

#[test]
fn invalidations_name_the_guest() {
    let (hw, table) = guest();
    table
        .apply(&hw, span(GIB, 512), map(GIB, Region))
        .unwrap()
        .complete(&hw);
    let _ = hw.take_log();
    table
        .apply(&hw, span(GIB, 1), unmap(3, Page))
        .unwrap()
        .complete(&hw);
    table
        .apply(&hw, span(GIB + 0x1000, 1), unmap(3, Page))
        .unwrap()
        .complete(&hw);
    let regimes: Vec<Regime> = hw
        .take_log()
        .iter()
        .filter_map(|step| match step {
            Step::Invalidate(regime, _) => Some(*regime),
            _ => None,
        })
        .collect();
    assert_eq!(regimes, [VMID, VMID]);
}

#[test]
fn an_annotation_outlives_the_split_of_its_entry() {
    let (hw, table) = guest();
    let lost = |value| Descriptor::Invalid(Annotation::new(value).unwrap());
    table
        .apply(&hw, span(GIB, 512), unmap(0x7_0001, Region))
        .unwrap()
        .complete(&hw);
    assert_eq!(table.walk(&hw, ipa(GIB)).unwrap().level, 2);
    table
        .apply(&hw, span(GIB + 0x5000, 1), map(GIB, Page))
        .unwrap()
        .complete(&hw);
    for page in 0..512 {
        let entry = table.walk(&hw, ipa(GIB + (page << 12))).unwrap();
        assert_eq!(entry.level, 3);
        assert_eq!(entry.descriptor == lost(0x7_0001), page != 5);
    }
    table
        .apply(&hw, span(GIB + 0x5000, 1), unmap(0x7_0001, Page))
        .unwrap()
        .complete(&hw);
    table.fold(&hw, ipa(GIB), 2).unwrap().complete(&hw);
    let entry = table.walk(&hw, ipa(GIB)).unwrap();
    assert_eq!((entry.level, entry.descriptor), (2, lost(0x7_0001)));
}

#[test]
fn annotating_what_is_not_mapped_owes_nothing() {
    let (hw, table) = guest();
    let owed = table.apply(&hw, span(GIB, 1), unmap(9, Page)).unwrap();
    assert!(owed.is_empty());
    let again = table.plan(&hw, span(GIB, 1), unmap(9, Page)).unwrap();
    assert!(again.is_empty() && again.tables() == 0);
}

#[test]
fn permissions_hold_for_their_range_only() {
    let (hw, table) = guest();
    table
        .apply(&hw, span(GIB, 1024), map(GIB, Region))
        .unwrap()
        .complete(&hw);
    let protect = Change::Protect {
        update: Update::write_protect().then(Update::execute(Execute::El0(Xnx::found()))),
    };
    table
        .apply(&hw, span(GIB + 0x3000, 512), protect)
        .unwrap()
        .complete(&hw);
    for page in 0..1024 {
        let entry = table.walk(&hw, ipa(GIB + (page << 12))).unwrap();
        let Descriptor::Leaf { pa: to, attributes } = entry.descriptor else {
            panic!("protection unmaps nothing");
        };
        let inside = (3..515).contains(&page);
        assert_eq!(to, pa(GIB + (page << 12)));
        assert_eq!(attributes.access().contains(Stage2Access::WRITE), !inside);
        assert_eq!(attributes.execute() == Execute::All, !inside);
        assert!(attributes.access().contains(Stage2Access::READ));
    }
    let relax = Change::Protect {
        update: Update::allow(Stage2Access::WRITE).then(Update::execute(Execute::All)),
    };
    table.apply(&hw, span(GIB, 1024), relax).unwrap().complete(&hw);
    for block in [GIB, GIB + BLOCK] {
        table.fold(&hw, ipa(block), 2).unwrap().complete(&hw);
    }
}

#[test]
fn a_vm_pays_for_its_tables_from_its_own_reserve() {
    let (hw, table) = guest();
    let mut own = Reserve::take(&hw, 3).unwrap();
    hw.limit_pool(Some(0));
    let used = hw.pages_in_use();
    let inner = GIB + 5 * BLOCK + 0x3000;
    let plan = table.plan(&hw, span(inner, 1), map(GIB, Page)).unwrap();
    assert_eq!(plan.tables(), 2);
    plan.reserve_from(&hw, &mut own)
        .unwrap()
        .commit(&hw)
        .complete(&hw);
    assert_eq!(own.pages(), 1);
    let needed = table
        .plan(&hw, span(2 * GIB, 1), map(GIB, Page))
        .unwrap()
        .reserve_from(&hw, &mut own)
        .unwrap_err();
    assert_eq!(needed, EngineError::OutOfPages { needed: 2 });
    assert_eq!(own.pages(), 1);
    let permit = table
        .plan(&hw, span(GIB + BLOCK, 1), map(GIB, Page))
        .unwrap()
        .reserve_from(&hw, &mut own)
        .unwrap();
    assert_eq!(own.pages(), 0);
    permit.abandon_into(&hw, &mut own);
    table
        .apply(&hw, span(GIB, GIB >> 12), unmap(0, LargestLeaf::Gigabyte))
        .unwrap()
        .complete_into(&hw, &mut own);
    assert_eq!((own.pages(), hw.pages_in_use()), (3, used));
    // What came back is zero, and serves again.
    table
        .plan(&hw, span(GIB, 1), map(GIB, Page))
        .unwrap()
        .reserve_from(&hw, &mut own)
        .unwrap()
        .commit(&hw)
        .complete(&hw);
    let entries = table.entries(&hw, span(GIB, GIB >> 12));
    let leaves = entries.filter(|entry| matches!(entry.descriptor, Descriptor::Leaf { .. }));
    assert_eq!(leaves.count(), 1);
    own.release(&hw);
}
