//! The cases, with every value that a load may answer.

use hyp_abi::FRAME_SIZE;
use hyp_core::addr::{Frame, FrameSpan, Ipa, PhysAddr};
use hyp_core::double::Machine;
use hyp_core::geometry::{Geometry, Tiny};
use hyp_core::hardware::{Hardware, Regime, TablePage};
use hyp_core::map::{Entry, OwnershipMap, Replaced};
use hyp_core::pgtable::{Annotation, Change, IpaSpan, LargestLeaf, Stage2, Stage2Attributes, Table};
use hyp_core::state::State;
use hyp_core::sync::{AtomicBool, AtomicU64, Ordering};
use loom::model::Builder;
use loom::thread;
use std::sync::Arc;

/// Frames of a region.
const REGION: u64 = Tiny::REGION_FRAMES;

fn explore(case: impl Fn() + Send + Sync + 'static) {
    let mut builder = Builder::new();
    builder.max_branches = 10_000;
    builder.preemption_bound = Some(3);
    builder.check(case);
}

fn frame(number: u64) -> Frame {
    Frame::new(number).expect("a small number")
}

/// A CPU takes a region's lock after another one has shared a frame of it under that lock: it finds the frame shared.
/// Nobody waits for the lock, since the library does not end a loop that waits.
#[test]
fn who_takes_a_lock_finds_the_entries_that_were_written_under_it() {
    explore(|| {
        let hw = Machine::<Tiny>::with_pool(2);
        hw.record(false);
        let region = FrameSpan::new(frame(16), REGION).expect("a region");
        let words = vec![AtomicU64::new(0)].leak();
        let map = OwnershipMap::<Tiny>::new(words, [region]).expect("one region");
        let shared = Entry::plain(State::HostSharedHyp);
        // The region has its node, so that what changes are entries, not the word that is the lock.
        let mut node = hw.allocate_page();
        let folded = map
            .lock(&hw, frame(16))
            .and_then(|mut region| region.set(3, 1, shared, &mut node));
        assert!(folded.is_none() && node.is_none());

        let system = Arc::new((hw, map, AtomicBool::new(false)));
        let second = {
            let system = Arc::clone(&system);
            thread::spawn(move || {
                let (hw, map, done) = &*system;
                // It orders nothing: only the lock does.
                if done.load(Ordering::Relaxed) {
                    let region = map.lock(hw, frame(16)).expect("a region");
                    assert_eq!(region.entry(1), shared, "the entry as it was before the lock");
                }
            })
        };
        let (hw, map, done) = &*system;
        let mut region = map.lock(hw, frame(16)).expect("a region");
        let replaced = region.replace_one(1, Entry::plain(State::Host), shared);
        assert_eq!(replaced, Replaced::Done);
        drop(region);
        done.store(true, Ordering::Relaxed);
        second.join().expect("no CPU panics");
    });
}

/// One CPU takes a page out of a block; another one walks to a page beside it, as the hardware does: it finds the block,
/// or nothing while the block is broken, or a table with the page in it, and never a table without.
#[test]
fn a_walk_that_finds_a_table_finds_what_was_stored_into_it() {
    explore(|| {
        let hw = Arc::new(Machine::<Tiny>::with_pool(8));
        hw.record(false);
        let table =
            Table::<Stage2, Tiny>::new(hw.allocate_root(1), 1, 18, Regime::Host).expect("level 1 has room");
        let block = IpaSpan::new(Ipa::default(), REGION).expect("a region");
        let map = Change::Map {
            pa: PhysAddr::default(),
            attributes: Stage2Attributes::HOST_MEMORY,
            largest: LargestLeaf::Region,
        };
        table
            .apply(&*hw, block, map)
            .expect("there are pages")
            .complete(&*hw);
        let walker = {
            let hw = Arc::clone(&hw);
            thread::spawn(move || walk(&hw, table.root(), 3 * FRAME_SIZE))
        };
        let page = IpaSpan::new(Ipa::default(), 1).expect("a page");
        let unmap = Change::Unmap {
            annotation: Annotation::NONE,
            largest: LargestLeaf::Page,
        };
        table
            .apply(&*hw, page, unmap)
            .expect("there are pages")
            .complete(&*hw);
        let (level, descriptor) = walker.join().expect("no CPU panics");
        assert!(
            descriptor & 1 != 0 || level == 2,
            "a table was found in which the page is missing"
        );
    });
}

/// A walk of the hardware: where it ends, and what it finds there. A walker reads a table after the descriptor that
/// leads to it (Arm ARM DDI 0487, B2.3: the address depends on it), for which the acquiring load stands.
fn walk(hw: &Machine<Tiny>, root: TablePage, address: u64) -> (u8, u64) {
    let mut page = root;
    for level in 1..=3 {
        let index = address >> Tiny::level_shift(level);
        let raw = hw.table(page)[index as usize & (Tiny::ENTRIES - 1)].load(Ordering::Acquire);
        if raw & 0b11 != 0b11 || level == 3 {
            return (level, raw);
        }
        page = TablePage::new(Frame::new((raw & 0x0000_ffff_ffff_f000) / FRAME_SIZE).expect("36 bits"));
    }
    unreachable!("a walk ends at level 3")
}
