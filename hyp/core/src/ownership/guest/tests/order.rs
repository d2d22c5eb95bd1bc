//! The one order: revoke, invalidate, scrub or clean, map entry, grant. And the locks.

use super::*;
use crate::double::Step;
use crate::hardware::{Event, LockName};
use crate::ownership::guest::GuestOutcome;
use crate::state::State;
use Did::{Contents, Enters, GuestForgets, GuestGains, GuestLoses, HostForgets, HostGains, HostLoses};
use hyp_abi::vm::Permissions;

/// The kinds of step whose order the rule is about.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Did {
    HostLoses,
    HostForgets,
    HostGains,
    GuestLoses,
    GuestForgets,
    GuestGains,
    Contents,
    Enters(State),
}

/// Whether a descriptor maps something where nothing was mapped; a table that comes in does not, its entries do.
const fn gains(level: u8, old: u64, new: u64) -> bool {
    old & 1 == 0 && new & 1 != 0 && (level == 3 || new & 2 == 0)
}

fn kinds(log: &[Step]) -> Vec<Did> {
    let mut kinds = Vec::new();
    for step in log {
        let kind = match *step {
            Step::Core(Event::Descriptor {
                regime,
                level,
                old,
                new,
                ..
            }) if gains(level, old, new) || old & 1 != 0 && new & 1 == 0 => match (regime, new & 1 != 0) {
                (Regime::Host, true) => HostGains,
                (Regime::Host, false) => HostLoses,
                (Regime::Guest(_), true) => GuestGains,
                (Regime::Guest(_), false) => GuestLoses,
                (Regime::Hyp, _) => continue,
            },
            Step::Invalidate(Regime::Host, _) => HostForgets,
            Step::Invalidate(Regime::Guest(_), _) => GuestForgets,
            Step::Scrub(_) | Step::Clean(_) => Contents,
            Step::Core(Event::Transition { to, .. }) => Enters(State::try_from(to).unwrap()),
            _ => continue,
        };
        if kinds.last() != Some(&kind) {
            kinds.push(kind);
        }
    }
    kinds
}

fn logged(system: &System, work: impl FnOnce()) -> Vec<Did> {
    system.hardware().record(true);
    work();
    kinds(&system.hardware().take_log())
}

/// A single page by its short way and its long one, and a whole region.
const SIZES: [(u64, u64); 3] = [(1, 1), (2, 1), (1, 512)];

/// A machine whose guest has `frames` frames at its memory's start. A single page has its node and tables.
fn with_frames(frames: u64) -> (System, u64, FrameSpan) {
    let (system, vm) = with_vm(PROTECTED);
    let given = if frames == 1 {
        system
            .guest_donate(vm, span(HOST_REGION + 40, 2), MEMORY + 40)
            .unwrap();
        system.guest_lend(1, range(MEMORY + 41, 1));
        span(HOST_REGION + 5, 1)
    } else {
        span(HOST_REGION, frames)
    };
    (system, vm, given)
}

#[test]
fn every_transition_keeps_the_one_order() {
    for (_, frames) in SIZES {
        let (system, vm, given) = with_frames(frames);
        let donated = logged(&system, || {
            assert_eq!(system.guest_donate(vm, given, MEMORY), Ok(frames))
        });
        assert_eq!(
            donated,
            [
                HostLoses,
                HostForgets,
                Enters(State::InTransit),
                Contents,
                Enters(State::Guest),
                GuestGains
            ]
        );
        let lent = logged(&system, || {
            assert_eq!(
                system.guest_lend(1, range(MEMORY, frames)),
                GuestOutcome::Done(frames)
            );
        });
        assert_eq!(lent, [Enters(State::GuestSharedHost), HostGains]);
        let unlent = logged(&system, || {
            assert_eq!(
                system.guest_unlend(1, range(MEMORY, frames)),
                GuestOutcome::Done(frames)
            );
        });
        assert_eq!(unlent, [HostLoses, HostForgets, Enters(State::Guest)]);
        let forced = logged(&system, || {
            assert_eq!(system.force_reclaim(given.start()), Ok(()))
        });
        let lost = [GuestLoses, GuestForgets];
        assert_eq!(forced[..2], lost);
        let end = [Enters(State::InTransit), Contents, Enters(State::Host), HostGains];
        assert_eq!(forced[forced.len() - 4..], end);
        let next = (frames > 1).then_some(range(MEMORY + 1, frames - 1));
        let Some(next) = next else { continue };
        assert_eq!(system.guest_lend(1, next), GuestOutcome::Done(next.frames));
        let given_up = logged(&system, || {
            assert_eq!(system.guest_relinquish(1, next), GuestOutcome::Done(next.frames));
        });
        assert_eq!(
            given_up[..6],
            [
                GuestLoses,
                GuestForgets,
                HostLoses,
                HostForgets,
                Enters(State::InTransit),
                Contents
            ]
        );
        let span = span(given.start().number() + 1, next.frames);
        let taken = logged(&system, || assert_eq!(system.take_back(span), Ok(next.frames)));
        assert_eq!(taken[..2], [Enters(State::Host), HostGains]);
    }
}

#[test]
fn reclaiming_keeps_the_one_order() {
    for frames in [1, 30, 512] {
        let (system, vm, given) = with_frames(frames);
        system.guest_donate(vm, given, MEMORY).unwrap();
        die(&system);
        let reclaimed = logged(&system, || {
            assert_eq!(system.guest_reclaim(vm, range(MEMORY, frames)), Ok(frames));
        });
        let order = [
            GuestLoses,
            GuestForgets,
            Enters(State::InTransit),
            Contents,
            Enters(State::Host),
            HostGains,
        ];
        assert_eq!(reclaimed[..6], order);
    }
    let (system, vm, given) = with_frames(30);
    system.guest_donate(vm, given, MEMORY).unwrap();
    system.guest_lend(1, range(MEMORY, 30));
    die(&system);
    let reclaimed = logged(&system, || {
        assert_eq!(system.guest_reclaim(vm, range(MEMORY, 30)), Ok(30));
    });
    assert_eq!(reclaimed[..3], [GuestLoses, GuestForgets, Enters(State::Host)]);
}

#[test]
fn borrowing_keeps_the_one_order() {
    let all = Permissions::all().bits();
    for frames in [1, 30, 512] {
        let (system, vm) = with_vm(OPEN);
        let lent = span(HOST_REGION, frames);
        let shared = logged(&system, || {
            assert_eq!(system.guest_share(vm, lent, MEMORY, all), Ok(frames))
        });
        assert_eq!(shared, [Enters(State::HostSharedGuest), GuestGains]);
        let unshared = logged(&system, || {
            assert_eq!(system.guest_unshare(vm, range(MEMORY, frames)), Ok(frames));
        });
        assert_eq!(unshared[..3], [GuestLoses, GuestForgets, Enters(State::Host)]);
    }
}

#[test]
fn a_region_costs_one_invalidation_and_so_does_a_page() {
    for frames in [1, 300, 512] {
        let (system, vm, given) = with_frames(frames);
        let count = |work: &dyn Fn()| {
            system.hardware().record(true);
            work();
            let log = system.hardware().take_log();
            let invalidations = log.iter().filter(|step| matches!(step, Step::Invalidate(..)));
            invalidations.count()
        };
        // A part of a host's block breaks that first, which is the one.
        assert_eq!(
            count(&|| assert_eq!(system.guest_donate(vm, given, MEMORY), Ok(frames))),
            1
        );
        assert_eq!(
            count(&|| {
                system.guest_lend(1, range(MEMORY, frames));
            }),
            0
        );
        assert_eq!(
            count(&|| {
                system.guest_unlend(1, range(MEMORY, frames));
            }),
            1
        );
    }
}

#[test]
fn contents_are_touched_under_no_lock_and_locks_are_taken_in_order() {
    let system = machine();
    let vm = create(
        &system,
        1,
        Kind {
            life: Life::Created,
            ..PROTECTED
        },
    );
    let open = create(&system, 2, OPEN);
    let hw = system.hardware();
    hw.record(true);
    system
        .guest_donate(vm, span(HOST_REGION + 3, 600), MEMORY + 3)
        .unwrap();
    of_vm(&system, 1, |vm| vm.life = LAUNCHED);
    system
        .guest_donate(vm, span(HOST_REGION + 603, 1), MEMORY + 603)
        .unwrap();
    system
        .guest_donate(vm, span(HOST_REGION + 604, 1), MEMORY + 604)
        .unwrap();
    system
        .guest_donate(vm, span(HOST_REGION + 1024, 512), MEMORY + 1024)
        .unwrap();
    for frames in [1, 700] {
        system.guest_lend(1, range(MEMORY + 5, frames));
        system.pin_shared(span(HOST_REGION + 5, 1)).unwrap();
        system.unpin_shared(span(HOST_REGION + 5, 1)).unwrap();
        system.guest_unlend(1, range(MEMORY + 5, frames));
    }
    system.guest_relinquish(1, range(MEMORY + 20, 10));
    system.take_back(span(HOST_REGION + 20, 10)).unwrap();
    system.force_reclaim(frame(HOST_REGION + 8)).unwrap();
    system.guest_guard_map(1, range(0, 2000));
    system
        .guest_share(open, span(HOST_REGION + 1536, 700), 5, 7)
        .unwrap();
    system.guest_set_permissions(open, range(7, 300), 1).unwrap();
    system.guest_test_age(open, range(0, 1000)).unwrap();
    system.guest_unshare(open, range(5, 700)).unwrap();
    system.guest_audit(vm, range(MEMORY, 2000)).unwrap();
    system.audit(span(HOST_REGION, 2000)).unwrap();
    system.judge_guest_abort(1, ipa(MEMORY), crate::ownership::GuestAccess::Read);
    die(&system);
    system.guest_reclaim(vm, range(MEMORY, 1)).unwrap();
    system.guest_reclaim(vm, range(MEMORY, 2000)).unwrap();
    let mut held: Vec<LockName> = Vec::new();
    let mut taken = 0;
    for step in hw.take_log() {
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
                    .expect("given back once");
                held.remove(at);
            }
            Step::Scrub(_) | Step::Clean(_) => assert!(held.is_empty(), "contents touched under {held:?}"),
            _ => {}
        }
    }
    assert!(held.is_empty());
    assert!(taken > 100);
}

#[test]
fn single_pages_take_no_page_and_no_lock_but_their_vms_and_their_regions() {
    let (system, vm, given) = with_frames(1);
    let hw = system.hardware();
    let used = hw.pages_in_use();
    hw.record(true);
    assert_eq!(system.guest_donate(vm, given, MEMORY), Ok(1));
    assert_eq!(system.guest_lend(1, range(MEMORY, 1)), GuestOutcome::Done(1));
    assert_eq!(system.guest_unlend(1, range(MEMORY, 1)), GuestOutcome::Done(1));
    die(&system);
    assert_eq!(system.guest_reclaim(vm, range(MEMORY, 1)), Ok(1));
    let locks = hw.take_log();
    let strange = locks.iter().any(|step| {
        matches!(step, Step::Core(Event::Locked(name)) if !matches!(name, LockName::Vm(1) | LockName::Region(1)))
    });
    assert!(!strange);
    assert_eq!(hw.pages_in_use(), used);
}

#[test]
fn what_a_guest_may_execute_is_in_no_instruction_cache_as_it_was() {
    let count = |system: &System, work: &dyn Fn()| {
        system.hardware().record(true);
        work();
        let log = system.hardware().take_log();
        let gains = log.iter().position(|step| {
            let Step::Core(Event::Descriptor {
                regime: Regime::Guest(_),
                level,
                old,
                new,
                ..
            }) = *step
            else {
                return false;
            };
            gains(level, old, new)
        });
        let code = log.iter().position(|step| matches!(step, Step::InvalidateCode));
        code.is_some_and(|code| Some(code) < gains)
    };
    let (system, vm) = with_vm(Kind {
        life: Life::Created,
        ..PROTECTED
    });
    assert!(count(&system, &|| {
        system.guest_donate(vm, span(HOST_REGION, 1), MEMORY).unwrap();
    }));
    assert!(count(&system, &|| {
        system
            .guest_donate(vm, span(HOST_REGION + 1, 600), MEMORY + 1)
            .unwrap();
    }));
    let (system, vm) = with_vm(OPEN);
    assert!(count(&system, &|| {
        system.guest_share(vm, span(HOST_REGION, 9), MEMORY, 5).unwrap();
    }));
    assert!(!count(&system, &|| {
        system
            .guest_share(vm, span(HOST_REGION + 9, 9), MEMORY + 9, 3)
            .unwrap();
    }));
}

#[test]
fn of_a_page_that_changes_hands_zeroed_no_instruction_cache_has_the_code() {
    // After the last zero, and before whoever gets the page can reach it: the map says whose it is by then.
    let in_order = |system: &System, work: &dyn Fn()| {
        system.hardware().record(true);
        work();
        let log = system.hardware().take_log();
        let last = |wanted: &dyn Fn(&Step) -> bool| log.iter().rposition(wanted);
        let zeroed = last(&|step| matches!(step, Step::Scrub(_))).unwrap();
        let code = last(&|step| matches!(step, Step::InvalidateCode));
        let given = last(&|step| matches!(step, Step::Core(Event::Transition { .. })));
        assert!(Some(zeroed) < code && code < given, "{zeroed} {code:?} {given:?}");
    };
    for frames in [1, 5, 512] {
        let (system, vm) = with_vm(PROTECTED);
        in_order(&system, &|| {
            system
                .guest_donate(vm, span(HOST_REGION, frames), MEMORY)
                .unwrap();
        });
        in_order(&system, &|| {
            system.guest_relinquish(1, range(MEMORY, 1));
        });
        system
            .guest_donate(vm, span(HOST_REGION + 600, 1), MEMORY + 600)
            .unwrap();
        in_order(&system, &|| {
            system.force_reclaim(frame(HOST_REGION + 600)).unwrap();
        });
        system
            .guest_donate(vm, span(HOST_REGION + 700, frames), MEMORY + 700)
            .unwrap();
        die(&system);
        in_order(&system, &|| {
            system.guest_reclaim(vm, range(MEMORY + 700, frames)).unwrap();
        });
    }
}
