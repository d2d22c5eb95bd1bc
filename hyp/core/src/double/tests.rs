//! The double finds what it is there to find: each test does one thing wrong, by hand and past the engine.

use super::*;
use crate::geometry::Arm4K;
use crate::pgtable::{Change, Descriptor, IpaSpan, LargestLeaf, Obligation, Stage2, Stage2Attributes};

const BLOCK: u64 = 2 << 20;

/// A stage 2 that maps the region at 2 MiB to 4 MiB, by a block or by pages, and is watched at its sixth page.
fn watched(largest: LargestLeaf) -> (Machine<Arm4K>, Table<Stage2, Arm4K>, TablePage) {
    let hw = Machine::with_pool(16);
    let root = hw.allocate_root(1);
    let table = Table::new(root, 2, 30, Regime::Host).unwrap();
    let change = Change::Map {
        pa: crate::PhysAddr::new(2 * BLOCK).unwrap(),
        attributes: Stage2Attributes::HOST_MEMORY,
        largest,
    };
    table.apply(&hw, region(), change).unwrap().complete(&hw);
    hw.watch(&table, [watched_page()]);
    (hw, table, root)
}

fn region() -> IpaSpan {
    IpaSpan::new(Ipa::new(BLOCK).unwrap(), 512).unwrap()
}

fn watched_page() -> Ipa {
    Ipa::new(BLOCK + 0x5000).unwrap()
}

/// Stores past the engine's door, and lets the CPUs look.
fn poke(hw: &Machine<Arm4K>, page: TablePage, index: usize, raw: u64) {
    hw.table(page)[index].store(raw, Ordering::Relaxed);
    hw.publish();
}

fn range(level: Option<u8>) -> Extent {
    Extent::Range {
        start: region().start(),
        pages: 512,
        level,
    }
}

#[test]
fn a_stale_translation_is_still_reached() {
    let (hw, _, root) = watched(LargestLeaf::Region);
    poke(&hw, root, 1, 0);
    let held = hw.reach(Regime::Host, watched_page());
    assert_eq!(held.len(), 1);
    assert_eq!(held[0].frame().number(), (2 * BLOCK) >> 12);
    hw.invalidate(Regime::Host, range(Some(2)));
    assert!(hw.reach(Regime::Host, watched_page()).is_empty());
    hw.assert_coherent();
}

#[test]
#[should_panic(expected = "does not give")]
fn a_missing_invalidation_is_found() {
    let (hw, _, root) = watched(LargestLeaf::Region);
    poke(&hw, root, 1, 0);
    hw.assert_coherent();
}

#[test]
#[should_panic(expected = "does not give")]
fn an_invalidation_of_another_regime_is_found() {
    let (hw, _, root) = watched(LargestLeaf::Region);
    poke(&hw, root, 1, 0);
    hw.invalidate(Regime::Guest(1), Extent::All);
    hw.assert_coherent();
}

#[test]
#[should_panic(expected = "does not give")]
fn an_invalidation_of_a_wrong_level_is_found() {
    let (hw, _, root) = watched(LargestLeaf::Region);
    poke(&hw, root, 1, 0);
    hw.invalidate(Regime::Host, range(Some(3)));
    hw.assert_coherent();
}

#[test]
#[should_panic(expected = "no break before make")]
fn a_block_that_replaces_a_table_is_found() {
    let (hw, _, root) = watched(LargestLeaf::Page);
    poke(&hw, root, 1, (2 * BLOCK) | 0x7fd);
}

#[test]
#[should_panic(expected = "no break before make")]
fn an_output_address_that_changes_is_found() {
    let (hw, _, root) = watched(LargestLeaf::Region);
    poke(&hw, root, 1, (4 * BLOCK) | 0x7fd);
}

#[test]
#[should_panic(expected = "may read it")]
fn a_table_freed_too_early_is_found() {
    let (hw, table, root) = watched(LargestLeaf::Page);
    let mut entries = table.entries(&hw, region());
    let Some(Descriptor::Table(page)) = entries.next().map(|entry| entry.descriptor) else {
        panic!("the region has a table");
    };
    poke(&hw, root, 1, 0);
    hw.free_page(page);
}

#[test]
#[should_panic(expected = "may read it")]
fn a_table_is_not_invalidated_by_a_range_with_a_level() {
    let (hw, table, root) = watched(LargestLeaf::Page);
    let mut entries = table.entries(&hw, region());
    let Some(Descriptor::Table(page)) = entries.next().map(|entry| entry.descriptor) else {
        panic!("the region has a table");
    };
    poke(&hw, root, 1, 0);
    hw.invalidate(Regime::Host, range(Some(3)));
    hw.free_page(page);
}

#[test]
#[should_panic(expected = "while a CPU may reach it")]
fn a_frame_scrubbed_too_early_is_found() {
    let (hw, _, root) = watched(LargestLeaf::Region);
    poke(&hw, root, 1, 0);
    let frame = Frame::new(((2 * BLOCK) >> 12) + 5).unwrap();
    let _ = hw.scrub(FrameSpan::single(frame));
}

#[test]
#[should_panic(expected = "is not in use")]
fn a_page_freed_twice_is_found() {
    let hw = Machine::<Arm4K>::with_pool(4);
    let page = hw.allocate_page().unwrap();
    hw.free_page(page);
    hw.free_page(page);
}

#[test]
fn the_pool_gives_up_only_what_was_added() {
    let ram = FrameSpan::new(Frame::new(0x1000).unwrap(), 64).unwrap();
    let boot = FrameSpan::new(Frame::new(0x8000).unwrap(), 4).unwrap();
    let hw = Machine::<Arm4K>::new(&[ram], boot);
    assert_eq!(hw.pool_take(8), None);
    assert_eq!(hw.reserved_bytes(), 4 << 12);
    let added = FrameSpan::new(Frame::new(0x100a).unwrap(), 20).unwrap();
    hw.pool_add(added);
    assert_eq!(hw.pool_pages(), (24, 24));
    assert_eq!(hw.contents(added.start()), Contents::Hyp);
    let page = hw.allocate_page().unwrap();
    assert_eq!(page.frame(), added.start(), "the lowest frame goes out first");
    // Up to the end of the block of 64 KiB, from the first free frame on.
    let taken = hw.pool_take(16).unwrap();
    assert_eq!((taken.start().number(), taken.frames()), (0x100b, 5));
    assert_eq!(hw.pool_take(2).unwrap().frames(), 2);
    assert_eq!(hw.pool_pages(), (24 - 1 - 5 - 2, 24 - 5 - 2));
}

#[test]
fn contents_follow_writes_scrubs_and_aborts() {
    let hw = Machine::<Arm4K>::with_pool(4);
    let frame = |number| Frame::new(number).unwrap();
    let span = FrameSpan::new(frame(10), 4).unwrap();
    hw.write(frame(11), 77);
    assert_eq!(hw.contents(frame(10)), Contents::Original);
    assert_eq!(hw.contents(frame(11)), Contents::Written(77));
    assert!(hw.is_dirty(frame(11)));
    hw.clean(span);
    assert!(!hw.is_dirty(frame(11)));
    hw.poison(frame(12));
    assert_eq!(hw.scrub(span), Err(ExternalAbort { frame: frame(12) }));
    assert_eq!(hw.contents(frame(11)), Contents::Zero);
    assert_eq!(hw.contents(frame(13)), Contents::Original);
}

#[test]
fn interrupts_wait_as_scripted() {
    let hw = Machine::<Arm4K>::with_pool(1);
    assert!(!hw.interrupt_pending());
    hw.interrupt_after(Some(2));
    let polls = [(); 4].map(|()| hw.interrupt_pending());
    assert_eq!(polls, [false, false, true, true]);
    hw.interrupt_after(None);
    assert!(!hw.interrupt_pending());
}

#[test]
fn the_log_has_every_step_until_it_is_taken() {
    let hw = Machine::<Arm4K>::with_pool(4);
    let page = hw.allocate_page().unwrap();
    hw.publish();
    Obligation::none(Regime::Host).complete(&hw);
    hw.free_page(page);
    let pool = [
        Step::Core(Event::Locked(LockName::Pool)),
        Step::Core(Event::Unlocked(LockName::Pool)),
    ];
    assert_eq!(
        hw.take_log(),
        [
            pool[0],
            pool[1],
            Step::Allocate(page),
            Step::Publish,
            Step::Free(page),
            pool[0],
            pool[1]
        ]
    );
    hw.record(false);
    hw.publish();
    assert!(hw.take_log().is_empty());
}
