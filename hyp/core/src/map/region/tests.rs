//! The count of neighbours that differ, and what folds.

use super::*;
use crate::double::Machine;
use crate::geometry::Tiny;
use crate::map::OwnershipMap;
use std::vec::Vec;

const FRAMES: usize = Tiny::ENTRIES;

fn map(words: &[AtomicU64]) -> OwnershipMap<'_, Tiny> {
    let start = Frame::new(16).unwrap();
    OwnershipMap::new(words, [FrameSpan::new(start, Tiny::REGION_FRAMES).unwrap()]).unwrap()
}

/// Every run of frames of a region.
fn runs() -> Vec<(usize, usize)> {
    (0..FRAMES)
        .flat_map(|first| (1..=FRAMES - first).map(move |count| (first, count)))
        .collect()
}

#[test]
fn the_count_of_differing_neighbours_follows_every_change() {
    let shared = Entry::plain(State::HostSharedHyp);
    for before in runs() {
        for (first, count) in runs() {
            for entry in [
                shared,
                Entry::plain(State::Host),
                Entry::plain(State::Relinquished),
                Entry::guest(false, 7, 32),
            ] {
                let hw = Machine::<Tiny>::with_pool(1);
                let words = [AtomicU64::new(0)];
                let map = map(&words);
                let mut region = map.lock(&hw, Frame::new(16).unwrap()).unwrap();
                let mut node = hw.allocate_page();
                let mut wanted = [Entry::plain(State::Host); FRAMES];
                for ((first, count), entry) in [(before, shared), ((first, count), entry)] {
                    if let Some(folded) = region.set(first, count, entry, &mut node) {
                        node = Some(folded.0);
                    }
                    for (offset, slot) in wanted[first..first + count].iter_mut().enumerate() {
                        *slot = entry.at(offset);
                    }
                    let (counted, kept) = region.audit_breaks();
                    assert_eq!(counted, kept, "{entry:?} at {first}, {count} frames");
                }
                let found: Vec<_> = (0..FRAMES).map(|index| region.entry(index)).collect();
                assert_eq!(found, wanted);
                let agree = wanted.windows(2).all(|pair| pair[0].agrees_with_next(pair[1]));
                assert_eq!(region.uniform().is_some(), agree);
            }
        }
    }
}

#[test]
fn a_region_keeps_its_node_while_a_frame_of_it_is_pinned_borrowed_or_in_work() {
    use crate::state::{Transit, TransitReason};
    let pinned = Entry::plain(State::HostSharedHyp).with_count(1).unwrap();
    let in_transit = |active| {
        Entry::in_transit(Transit {
            reason: TransitReason::Reclaim,
            active,
            progress: 0,
        })
    };
    for (entry, folds) in [
        (pinned, false),
        (Entry::borrowed(1).unwrap(), false),
        (in_transit(true), false),
        (in_transit(false), true),
        (Entry::plain(State::HostSharedHyp), true),
    ] {
        let hw = Machine::<Tiny>::with_pool(1);
        let words = [AtomicU64::new(0)];
        let map = map(&words);
        let mut region = map.lock(&hw, Frame::new(16).unwrap()).unwrap();
        let mut node = hw.allocate_page();
        for index in 0..FRAMES {
            assert!(region.set(index, 1, entry, &mut node).is_none());
        }
        assert!(region.uniform().is_some());
        match region.fold() {
            Some(node) => {
                assert!(folds, "{entry:?}");
                node.release(&hw);
            }
            None => assert!(!folds, "{entry:?}"),
        }
    }
}
