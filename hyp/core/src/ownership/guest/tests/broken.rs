//! Frames with a memory error, met on their way between host and guest.

use super::*;
use crate::ownership::Refusal;
use crate::ownership::guest::GuestOutcome;
use crate::state::State;
use crate::vm::GuestAnnotation;
use hyp_abi::Status;

#[test]
fn broken_frames_are_met_alone_and_the_others_go_their_way() {
    for (frames, broken) in [
        (40, 0),
        (40, 20),
        (40, 39),
        (512, 0),
        (512, 300),
        (512, 511),
        (1, 0),
    ] {
        for life in [LAUNCHED, Life::Created] {
            let (system, vm) = with_vm(Kind { life, ..PROTECTED });
            let hw = system.hardware();
            let given = span(HOST_REGION, frames);
            hw.poison(frame(HOST_REGION + broken));
            let mut next = 0;
            let mut met = 0;
            while next < frames {
                let rest = span(HOST_REGION + next, frames - next);
                match system.guest_donate(vm, rest, MEMORY + next) {
                    Ok(done) => next += done,
                    Err(refusal) => {
                        assert_eq!((refusal.status, next), (Status::Poisoned, broken));
                        met += 1;
                        next += 1;
                    }
                }
                assert_sound(&system);
            }
            assert_eq!(met, 1);
            assert_eq!(
                entry(&system, HOST_REGION + broken),
                Entry::plain(State::Poisoned)
            );
            assert_eq!(counts(&system).private, given.frames() - 1);
        }
    }
}

#[test]
fn frames_that_break_in_a_guests_hands_come_back_to_nobody() {
    type Call<'a> = &'a dyn Fn(&System, u64, GuestRange) -> Result<u64, Refusal>;
    let reclaim: Call<'_> = &|system, vm, range| {
        die(system);
        system.guest_reclaim(vm, range)
    };
    let relinquish: Call<'_> = &|system, _, range| match system.guest_relinquish(1, range) {
        GuestOutcome::Done(done) => Ok(done),
        other => panic!("{other:?}"),
    };
    for (frames, broken) in [
        (40, 0),
        (40, 20),
        (40, 39),
        (512, 0),
        (512, 300),
        (512, 511),
        (1, 0),
    ] {
        for (call, final_state, met) in [(reclaim, State::Host, 1), (relinquish, State::Relinquished, 0)] {
            let (system, vm) = with_vm(PROTECTED);
            let hw = system.hardware();
            system
                .guest_donate(vm, span(HOST_REGION, frames), MEMORY)
                .unwrap();
            hw.poison(frame(HOST_REGION + broken));
            let mut next = 0;
            let mut poisoned = 0;
            while next < frames {
                match call(&system, vm, range(MEMORY + next, frames - next)) {
                    Ok(done) => next += done,
                    Err(refusal) => {
                        assert_eq!((refusal.status, next), (Status::Poisoned, broken));
                        poisoned += 1;
                        next += 1;
                    }
                }
                assert_sound(&system);
            }
            assert_eq!((poisoned, counts(&system).left()), (met, 0));
            for number in 0..frames {
                let wanted = if number == broken {
                    State::Poisoned
                } else {
                    final_state
                };
                assert_eq!(entry(&system, HOST_REGION + number), Entry::plain(wanted));
            }
        }
    }
    let (system, vm) = with_vm(PROTECTED);
    system.guest_donate(vm, span(HOST_REGION, 4), MEMORY).unwrap();
    system.hardware().poison(frame(HOST_REGION + 1));
    assert_eq!(
        system.force_reclaim(frame(HOST_REGION + 1)),
        Err(Status::Poisoned.into())
    );
    assert_eq!(mapped(&system, MEMORY + 1), (3, hole(GuestAnnotation::Lost)));
    assert_eq!((counts(&system).private, counts(&system).lost), (3, 1));
    assert_sound(&system);
}

#[test]
fn a_broken_page_that_a_guest_gave_up_is_counted_and_the_host_is_told() {
    let (system, vm) = with_vm(PROTECTED);
    system.guest_donate(vm, span(HOST_REGION, 3), MEMORY).unwrap();
    system.hardware().poison(frame(HOST_REGION + 1));
    let mut done = 0;
    while done < 3 {
        match system.guest_relinquish(1, range(MEMORY + done, 3 - done)) {
            GuestOutcome::Done(more) => done += more,
            other => panic!("{other:?}"),
        }
    }
    assert_eq!(counts(&system).relinquished, 3, "the guest is rid of all of them");
    assert_eq!(counts(&system).left(), 0);
    for broken in [span(HOST_REGION, 3), span(HOST_REGION + 1, 1)] {
        assert_eq!(system.take_back(broken), Err(Status::Poisoned.into()));
    }
    assert_eq!(system.take_back(span(HOST_REGION, 1)), Ok(1));
    assert_eq!(
        entry(&system, HOST_REGION + 1),
        Entry::plain(State::Poisoned),
        "it is not lost: the map has it"
    );
    assert_eq!(system.take_back(span(HOST_REGION + 2, 1)), Ok(1));
    assert_sound(&system);
}
