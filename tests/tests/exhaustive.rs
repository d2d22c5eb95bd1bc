//! Every call in every state that a tiny machine can reach: tables of four entries, regions of four frames.
//!
//! Each search has its own choice of calls, so that all of it stays within reach. Every search says how much it must
//! have seen: one that shrinks is a test that no longer tests.

use freehold_tests::spec::World;
use freehold_tests::spec::explore::{Deed, Report, explore};
use freehold_tests::spec::rig::{Rig, span};
use hyp_abi::{CallId, FRAME_SIZE, FrameRange, HostCall, HostCallId, Status};
use hyp_core::geometry::Tiny;

/// The first frame of RAM. The address space has 64 frames, in four entries of level 1.
const RAM: u64 = 16;

/// A machine of `regions` regions of four frames, of which the first `boot` are EL2's.
fn machine(boot: u64, regions: u64) -> Rig<Tiny> {
    Rig::with_places(&[span(RAM, regions * 4)], span(RAM, boot * 4), 1)
}

fn range(first: u64, frames: u64) -> FrameRange {
    FrameRange::new(first * FRAME_SIZE, frames)
}

/// All runs of frames in `first..end`.
fn runs(first: u64, end: u64) -> Vec<FrameRange> {
    (first..end)
        .flat_map(|start| (1..=end - start).map(move |frames| range(start, frames)))
        .collect()
}

/// The world as it is most of the time, with fewer and fewer pages in the pool, and with interrupts.
fn worlds(limits: u64, interrupts: u64) -> Vec<World> {
    let limits = (0..limits).map(|pages| World {
        pool_limit: Some(pages),
        ..World::default()
    });
    let interrupts = (0..interrupts).map(|polls| World {
        interrupt_after: Some(polls),
        ..World::default()
    });
    [World::default()]
        .into_iter()
        .chain(limits)
        .chain(interrupts)
        .collect()
}

/// Every one of these calls on every range in every world.
fn deeds(calls: &[fn(FrameRange) -> HostCall], ranges: &[FrameRange], worlds: &[World]) -> Vec<Deed> {
    let mut deeds = Vec::new();
    for call in calls {
        for range in ranges {
            for world in worlds {
                deeds.push(Deed::Call(call(*range), world.clone()));
            }
        }
    }
    deeds
}

const SHARING: [fn(FrameRange) -> HostCall; 2] = [HostCall::ShareHyp, HostCall::UnshareHyp];
const GIVING: [fn(FrameRange) -> HostCall; 2] = [HostCall::DonateHyp, HostCall::ReclaimHyp];

/// What a search must have seen: so many states and transitions, each of these calls accepted and refused, and each of
/// these reasons.
fn must_have_seen(report: &Report, states: u64, transitions: u64, statuses: &[Status]) {
    assert!(report.states >= states, "only {} states", report.states);
    assert!(
        report.transitions >= transitions,
        "only {} transitions",
        report.transitions
    );
    for status in statuses {
        assert!(
            report.statuses.contains_key(status),
            "{status:?} was never answered"
        );
    }
    for (call, tally) in &report.calls {
        assert!(tally.accepted > 0, "{call:?} was never accepted");
    }
}

/// Pins of `frames` by the rings of `cpus` CPUs.
fn pins(frames: &[u64], cpus: u64, worlds: &[World]) -> Vec<Deed> {
    let mut deeds = Vec::new();
    for world in worlds {
        for cpu in 0..cpus {
            deeds.push(Deed::Call(HostCall::TraceDetach { cpu }, world.clone()));
            for frame in frames {
                let frame = frame * FRAME_SIZE;
                deeds.push(Deed::Call(HostCall::TraceAttach { cpu, frame }, world.clone()));
            }
        }
    }
    deeds
}

fn drains(worlds: &[World]) -> Vec<Deed> {
    let frames = [0, 1, 2, u64::MAX];
    let calls = frames.map(|frames| HostCall::PoolDrain { frames });
    calls
        .into_iter()
        .flat_map(|call| worlds.iter().map(move |world| Deed::Call(call, world.clone())))
        .collect()
}

/// Sharing, pins, giving and taking back in one region: split, fold, too few pages, work that is interrupted.
#[test]
fn one_region_shared_pinned_and_given() {
    let mut rig = machine(2, 3);
    let first = RAM + 8;
    let ranges = runs(first, first + 4);
    let worlds = worlds(4, 2);
    let mut todo = deeds(&SHARING, &ranges, &worlds);
    todo.extend(deeds(&GIVING, &ranges, &worlds));
    todo.extend(deeds(&[HostCall::Collapse], &ranges, &worlds));
    todo.extend(pins(&[first, first + 1, first + 3], 3, &worlds));
    let report = explore("shared, pinned, given", &mut rig, &todo, 10_000);
    println!("{:?}\n{:?}", report.calls, report.statuses);
    must_have_seen(
        &report,
        1_300,
        570_000,
        &[Status::NoMemory, Status::Pinned, Status::Busy],
    );
    assert!(report.calls.contains_key(&CallId::Host(HostCallId::TraceDetach)));
}

/// What is tried around the pool: frames that come and go, and become the very tables and entries that splits take.
fn pool_deeds(first: u64) -> Vec<Deed> {
    let ranges = runs(first, first + 4);
    let mut todo = deeds(&GIVING, &ranges, &worlds(0, 2));
    todo.extend(deeds(&SHARING, &ranges, &worlds(0, 0)));
    todo.extend(deeds(&[HostCall::Collapse], &ranges, &worlds(0, 0)));
    todo.extend(deeds(
        &[HostCall::PoolTopUp],
        &runs(first, first + 8),
        &worlds(0, 2),
    ));
    todo.extend(drains(&worlds(0, 0)));
    todo
}

/// A pool of five pages: splitting one region and mapping a frame of it at EL2 takes four of them.
#[test]
fn one_region_and_a_pool_that_runs_dry() {
    let mut rig = machine(2, 4);
    let report = explore("a pool that runs dry", &mut rig, &pool_deeds(RAM + 8), 30_000);
    println!("{:?}\n{:?}", report.calls, report.statuses);
    must_have_seen(&report, 20_300, 4_100_000, &[Status::NoMemory, Status::Busy]);
}

/// A pool of no pages, but for those that are kept back for topping it up.
#[test]
fn one_region_and_a_pool_that_starts_empty() {
    let mut rig = Rig::with_spare(&[span(RAM, 16)], span(RAM, 8));
    let report = explore("a pool that starts empty", &mut rig, &pool_deeds(RAM + 8), 30_000);
    println!("{:?}\n{:?}", report.calls, report.statuses);
    must_have_seen(&report, 3_500, 720_000, &[Status::NoMemory, Status::Busy]);
}

/// Broken memory: a frame of a region, and then a second one, answers with an error when it is scrubbed.
#[test]
fn one_region_with_broken_frames() {
    let mut rig = machine(2, 3);
    let first = RAM + 8;
    let ranges = runs(first, first + 4);
    let worlds = worlds(3, 2);
    let mut todo = deeds(&GIVING, &ranges, &worlds);
    todo.extend(deeds(&[HostCall::PoolTopUp], &ranges, &worlds));
    todo.extend(deeds(&[HostCall::Collapse], &ranges, &worlds[..1]));
    todo.extend(drains(&worlds));
    todo.extend([Deed::Break(first + 1), Deed::Break(first + 2)]);
    let report = explore("broken frames", &mut rig, &todo, 100_000);
    println!("{:?}\n{:?}", report.calls, report.statuses);
    must_have_seen(&report, 470, 102_000, &[Status::NoMemory, Status::Poisoned]);
}

/// Two regions: ranges across their border, and past the last frame of RAM.
#[test]
fn two_regions_and_the_end_of_memory() {
    let mut rig = machine(2, 4);
    let first = RAM + 8;
    let across: Vec<FrameRange> = [
        (0, 1),
        (3, 1),
        (4, 1),
        (7, 1),
        (0, 4),
        (4, 4),
        (0, 8),
        (3, 2),
        (2, 4),
        (0, 6),
        (2, 6),
        (1, 7),
        (3, 5),
        (4, 5),
        (7, 2),
        (8, 1),
    ]
    .map(|(offset, frames)| range(first + offset, frames))
    .into();
    let worlds = worlds(3, 3);
    let mut todo = deeds(&SHARING, &across, &worlds);
    todo.extend(deeds(&GIVING, &across, &worlds));
    todo.extend(deeds(&[HostCall::Collapse], &across, &worlds[..1]));
    let report = explore("two regions", &mut rig, &todo, 100_000);
    println!("{:?}\n{:?}", report.calls, report.statuses);
    must_have_seen(
        &report,
        10_600,
        4_900_000,
        &[Status::NoMemory, Status::NotMemory, Status::Busy],
    );
}
