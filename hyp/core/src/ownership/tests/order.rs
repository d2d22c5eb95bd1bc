//! The one order: revoke, invalidate, scrub, map entry, grant. And the locks: which, and in which order.

use super::{HOST_REGION, System, machine, span};
use crate::addr::FrameSpan;
use crate::double::Step;
use crate::hardware::{Event, LockName, Regime};
use std::vec::Vec;

/// The kinds of step whose order the rule is about.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Kind {
    Revoke,
    Invalidate,
    Scrub,
    Entry,
    Grant,
}

fn host_kinds(log: &[Step], frames: FrameSpan) -> Vec<Kind> {
    let first = frames.start().address().value();
    let end = first + frames.bytes();
    let inside = |address: u64| (first..end).contains(&address);
    let mut kinds = Vec::new();
    for step in log {
        let kind = match step {
            Step::Core(Event::Descriptor {
                regime: Regime::Host,
                address,
                old,
                new,
                ..
            }) => {
                let loses = old & 1 != 0 && new & 1 == 0;
                let gains = old & 1 == 0 && new & 1 != 0 && inside(address.value());
                if loses {
                    Kind::Revoke
                } else if gains {
                    Kind::Grant
                } else {
                    continue;
                }
            }
            Step::Invalidate(Regime::Host, _) => Kind::Invalidate,
            Step::Scrub(_) => Kind::Scrub,
            Step::Core(Event::Transition { .. }) => Kind::Entry,
            _ => continue,
        };
        if kinds.last() != Some(&kind) {
            kinds.push(kind);
        }
    }
    kinds
}

fn logged(system: &System, work: impl FnOnce(&System)) -> Vec<Step> {
    system.hardware().record(true);
    work(system);
    system.hardware().take_log()
}

#[test]
fn donating_revokes_invalidates_and_then_enters() {
    for frames in [span(HOST_REGION, 512), span(HOST_REGION, 3 * 512)] {
        let system = machine();
        let log = logged(&system, |system| {
            assert_eq!(system.donate_hyp(frames), Ok(frames.frames()))
        });
        let kinds = host_kinds(&log, frames);
        let last_entry = log
            .iter()
            .rposition(|step| matches!(step, Step::Core(Event::Transition { to: 5, .. })));
        let last_invalidate = log
            .iter()
            .rposition(|step| matches!(step, Step::Invalidate(Regime::Host, _)));
        assert!(last_invalidate < last_entry, "{kinds:?}");
        assert_eq!(kinds[0], Kind::Revoke);
    }
}

#[test]
fn a_ranged_donation_pays_for_one_invalidation() {
    let system = machine();
    let frames = span(HOST_REGION, 4 * 512);
    let log = logged(&system, |system| {
        assert_eq!(system.donate_hyp(frames), Ok(4 * 512))
    });
    let invalidations = log
        .iter()
        .filter(|step| matches!(step, Step::Invalidate(..)))
        .count();
    assert_eq!(invalidations, 1);
}

#[test]
fn no_frame_becomes_el2s_before_the_hosts_translations_are_gone() {
    let system = machine();
    let frames = span(HOST_REGION + 40, 2000);
    let log = logged(&system, |system| assert_eq!(system.donate_hyp(frames), Ok(2000)));
    let invalidated = log
        .iter()
        .rposition(|step| matches!(step, Step::Invalidate(Regime::Host, _)))
        .unwrap();
    let entered = log
        .iter()
        .position(|step| matches!(step, Step::Core(Event::Transition { to: 5, .. })))
        .unwrap();
    assert!(invalidated < entered);
}

#[test]
fn reclaiming_scrubs_enters_and_then_grants() {
    for frames in [
        span(HOST_REGION + 7, 1),
        span(HOST_REGION + 7, 30),
        span(HOST_REGION, 512),
    ] {
        let system = machine();
        system.donate_hyp(frames).unwrap();
        let log = logged(&system, |system| {
            assert_eq!(system.reclaim_hyp(frames), Ok(frames.frames()))
        });
        let scrubbed = log
            .iter()
            .rposition(|step| matches!(step, Step::Scrub(_)))
            .unwrap();
        let entered = log
            .iter()
            .position(|step| matches!(step, Step::Core(Event::Transition { to: 0, .. })))
            .unwrap();
        let granted = log
            .iter()
            .position(|step| match step {
                Step::Core(Event::Descriptor {
                    regime: Regime::Host,
                    old,
                    new,
                    ..
                }) => old & 1 == 0 && new & 1 != 0,
                _ => false,
            })
            .unwrap();
        assert!(
            scrubbed < entered && entered < granted,
            "scrub {scrubbed}, entry {entered}, grant {granted}"
        );
    }
}

#[test]
fn a_top_up_revokes_invalidates_proves_and_then_enters() {
    for frames in [
        span(HOST_REGION + 7, 1),
        span(HOST_REGION + 7, 30),
        span(HOST_REGION, 512),
    ] {
        let system = machine();
        let log = logged(&system, |system| {
            assert_eq!(system.pool_top_up(frames), Ok(frames.frames()))
        });
        let invalidated = log
            .iter()
            .rposition(|step| matches!(step, Step::Invalidate(Regime::Host, _)));
        let proven = |step: &Step| matches!(step, Step::Prove(_));
        let first = log.iter().position(proven);
        let last = log.iter().rposition(proven);
        let entered = log
            .iter()
            .position(|step| matches!(step, Step::Core(Event::Transition { to: 5, .. })));
        assert!(invalidated < first && last < entered, "{frames:?}");
        let steps = log.iter().filter_map(|step| match step {
            Step::Prove(frames) => Some(frames.frames()),
            _ => None,
        });
        assert_eq!(steps.sum::<u64>(), frames.frames());
    }
}

#[test]
fn draining_ends_el2s_mapping_before_it_scrubs() {
    let system = machine();
    system.pool_top_up(span(HOST_REGION + 16, 16)).unwrap();
    let log = logged(&system, |system| {
        assert!(system.pool_drain(16).unwrap().is_some())
    });
    let unmapped = log
        .iter()
        .position(|step| matches!(step, Step::Invalidate(Regime::Hyp, _)))
        .unwrap();
    let scrubbed = log
        .iter()
        .position(|step| matches!(step, Step::Scrub(_)))
        .unwrap();
    assert!(unmapped < scrubbed);
}

#[test]
fn nothing_is_scrubbed_under_a_lock_and_locks_are_taken_in_order() {
    let system = machine();
    let log = logged(&system, |system| {
        system.share_hyp(span(HOST_REGION + 3, 600)).unwrap();
        system.pin(span(HOST_REGION + 3, 1).start()).unwrap();
        system.unpin(span(HOST_REGION + 3, 1).start()).unwrap();
        system.unshare_hyp(span(HOST_REGION + 3, 600)).unwrap();
        system.donate_hyp(span(HOST_REGION + 3, 2000)).unwrap();
        system.reclaim_hyp(span(HOST_REGION + 3, 2000)).unwrap();
        system.pool_top_up(span(HOST_REGION + 16, 64)).unwrap();
        while system.pool_drain(16).unwrap().is_some() {}
        system.collapse(span(HOST_REGION, 512)).unwrap();
    });
    let mut held: Vec<LockName> = Vec::new();
    let mut taken = 0;
    for step in log {
        match step {
            Step::Core(Event::Locked(name)) => {
                assert!(
                    held.iter().all(|lock| *lock < name),
                    "{name:?} taken while {held:?} are held"
                );
                held.push(name);
                taken += 1;
            }
            Step::Core(Event::Unlocked(name)) => {
                let at = held
                    .iter()
                    .position(|lock| *lock == name)
                    .expect("a lock is given back once");
                held.remove(at);
            }
            Step::Scrub(_) | Step::Prove(_) => {
                assert!(held.is_empty(), "scrubbed while {held:?} are held");
            }
            _ => {}
        }
    }
    assert!(held.is_empty());
    assert!(taken > 50);
}

#[test]
fn calls_on_different_regions_that_need_no_page_share_no_lock() {
    let system = machine();
    // The regions have their nodes and tables already.
    for region in 0..2 {
        system
            .donate_hyp(span(HOST_REGION + region * 512 + 5, 1))
            .unwrap();
    }
    let locks = |region: u64| {
        let log = logged(&system, |system| {
            let page = span(HOST_REGION + region * 512 + 9, 1);
            system.share_hyp(page).unwrap();
            system.unshare_hyp(page).unwrap();
            system.donate_hyp(page).unwrap();
            system.reclaim_hyp(page).unwrap();
        });
        let mut names: Vec<LockName> = log
            .iter()
            .filter_map(|step| match step {
                Step::Core(Event::Locked(name)) => Some(*name),
                _ => None,
            })
            .collect();
        names.dedup();
        names
    };
    let (first, second) = (locks(0), locks(1));
    assert_eq!(first.len(), 1, "{first:?}");
    assert_eq!(second.len(), 1, "{second:?}");
    assert_ne!(first, second);
}
