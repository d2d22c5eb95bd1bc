//! CPUs that change regions side by side, and the same region, each under its region's lock. Under `--cfg shuttle` the
//! schedules are explored; otherwise the threads are the machine's own, and each case is repeated.

use super::*;
use crate::geometry::Tiny;
use crate::sync::Lock;
use LargestLeaf::{Page, Region};
use std::sync::Arc;

#[cfg(shuttle)]
use shuttle::thread;
#[cfg(not(shuttle))]
use std::thread;

#[cfg(shuttle)]
fn explore(case: impl Fn() + Send + Sync + 'static) {
    shuttle::check_random(case, 500);
}

#[cfg(not(shuttle))]
fn explore(case: impl Fn() + Send + Sync + 'static) {
    for _ in 0..if cfg!(miri) { 1 } else { 50 } {
        case();
    }
}

/// Pages of a region.
const PAGES: u64 = Tiny::REGION_FRAMES;

/// Two regions of RAM, next to each other in one level-2 table, and a lock for each.
struct Regions {
    hw: Machine<Tiny>,
    table: Table<Stage2, Tiny>,
    locks: [Lock<()>; 2],
}

impl Regions {
    fn new(pool: u64) -> Arc<Self> {
        let hw = Machine::with_pool(pool);
        hw.record(false);
        let table = Table::new(hw.allocate_root(1), 1, 18, Regime::Host).unwrap();
        table
            .apply(&hw, span(0, 2 * PAGES), map(0, Region))
            .unwrap()
            .complete(&hw);
        hw.watch(&table, [0, (PAGES - 1) << 12, PAGES << 12].map(ipa));
        Arc::new(Self {
            hw,
            table,
            locks: [Lock::new(()), Lock::new(())],
        })
    }

    /// Carries out a change in a region, under its lock.
    fn apply(&self, region: u64, (first, pages): (u64, u64), change: Change<Stage2>) -> bool {
        let _guard = self.locks[region as usize].lock();
        let range = span((region * PAGES + first) << 12, pages);
        match self.table.apply(&self.hw, range, change) {
            Ok(owed) => {
                owed.complete(&self.hw);
                true
            }
            Err(EngineError::OutOfPages { .. }) => false,
            Err(error) => panic!("{error}"),
        }
    }

    fn fold(&self, region: u64) {
        let _guard = self.locks[region as usize].lock();
        if let Some(owed) = self.table.fold(&self.hw, ipa((region * PAGES) << 12), 2) {
            owed.complete(&self.hw);
        }
    }

    /// Takes a page of a region away and gives it back, then makes one block of the region again.
    fn round_trip(&self, region: u64, page: u64) {
        if self.apply(region, (page, 1), unmap(page, Page)) {
            let to = (region * PAGES + page) << 12;
            assert!(self.apply(region, (page, 1), map(to, Page)));
        }
        self.fold(region);
    }

    /// Everything is as it was: two blocks, and no page lost.
    fn assert_as_at_first(&self) {
        let leaves: Vec<_> = self
            .table
            .entries(&self.hw, span(0, 2 * PAGES))
            .filter(|entry| !matches!(entry.descriptor, Descriptor::Table(_)))
            .map(|entry| {
                (
                    entry.start.value() >> 12,
                    entry.level,
                    entry.descriptor.is_valid(),
                )
            })
            .collect();
        assert_eq!(leaves, [(0, 2, true), (PAGES, 2, true)]);
        assert_eq!(self.hw.pages_in_use(), 2, "a root, and a table of level 2");
        self.hw.assert_coherent();
    }
}

/// Runs both and waits for both.
fn both(first: impl FnOnce() + Send + 'static, second: impl FnOnce() + Send + 'static) {
    let first = thread::spawn(first);
    let second = thread::spawn(second);
    first.join().unwrap();
    second.join().unwrap();
}

#[test]
fn neighboring_regions_change_under_their_own_locks() {
    explore(|| {
        let regions = Regions::new(8);
        let (one, other) = (Arc::clone(&regions), Arc::clone(&regions));
        both(move || one.round_trip(0, 3), move || other.round_trip(1, 0));
        regions.assert_as_at_first();
    });
}

#[test]
fn pages_of_one_region_change_one_after_the_other() {
    explore(|| {
        let regions = Regions::new(8);
        let (one, other) = (Arc::clone(&regions), Arc::clone(&regions));
        both(move || one.round_trip(0, 0), move || other.round_trip(0, 3));
        regions.fold(0);
        regions.assert_as_at_first();
    });
}

#[test]
fn the_last_table_page_goes_to_one_of_two() {
    explore(|| {
        let regions = Regions::new(3);
        let (one, other) = (Arc::clone(&regions), Arc::clone(&regions));
        both(move || one.round_trip(0, 3), move || other.round_trip(1, 0));
        regions.assert_as_at_first();
    });
}
