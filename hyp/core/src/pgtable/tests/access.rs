//! Access flags.

use super::*;
use LargestLeaf::Region;

const GIB: u64 = 1 << 30;

#[test]
fn what_was_used_is_shown_once() {
    let hw = Machine::with_pool(16);
    let table = host_table(&hw);
    table
        .apply(&hw, span(GIB, 512 + 4), map(GIB, Region))
        .unwrap()
        .complete(&hw);
    hw.watch(&table, [GIB, GIB + (513 << 12)].map(ipa));
    let range = span(GIB + 0x5000, 510);
    let look = || {
        let mut seen = Vec::new();
        table
            .take_accessed(&hw, range, |entry| seen.push((entry.start.value(), entry.level)))
            .complete(&hw);
        seen
    };
    // The block counts as a whole; of the pages only those of the range.
    let block_end = GIB + (512 << 12);
    assert_eq!(
        look(),
        [
            (GIB, 2),
            (block_end, 3),
            (block_end + 0x1000, 3),
            (block_end + 0x2000, 3)
        ]
    );
    assert!(look().is_empty());
    hw.assert_coherent();
    assert!(
        hw.reach(Regime::Host, ipa(GIB)).is_empty(),
        "the next access faults"
    );
    let mark = Change::Protect {
        update: Update::mark_accessed(),
    };
    table.apply(&hw, span(GIB, 512), mark).unwrap().complete(&hw);
    assert_eq!(look(), [(GIB, 2)]);
}

#[test]
fn nothing_is_seen_beyond_the_table() {
    let hw = Machine::<Arm4K>::with_pool(4);
    let table = host_table(&hw);
    table
        .take_accessed(&hw, span(1 << 40, 4), |_| panic!("nothing is there"))
        .complete(&hw);
}
