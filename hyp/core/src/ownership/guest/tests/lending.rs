//! What a guest lends to the host, and the pins that hold it.

use super::*;
use crate::double::Contents;
use crate::map::MAX_COUNT;
use crate::ownership::guest::GuestOutcome;
use hyp_abi::Status;

fn with_page() -> (System, FrameSpan) {
    let (system, vm) = with_vm(PROTECTED);
    let page = span(HOST_REGION + 9, 1);
    watch(&system, page, MEMORY);
    system.guest_donate(vm, page, MEMORY).unwrap();
    (system, page)
}

#[test]
fn a_lent_page_is_both_parties_and_goes_back_with_its_contents() {
    let (system, page) = with_page();
    let hw = system.hardware();
    let host_ipa = page.start().address().host_ipa();
    for _ in 0..2 {
        hw.write(page.start(), 7);
        assert_eq!(system.guest_lend(1, range(MEMORY, 1)), GuestOutcome::Done(1));
        assert_eq!(hw.reach(Regime::Host, host_ipa).len(), 1);
        assert_eq!(hw.reach(Regime::Guest(1), ipa(MEMORY)).len(), 1);
        assert_eq!(system.guest_lend(1, range(MEMORY, 1)), GuestOutcome::Refused);
        assert_sound(&system);
        assert_eq!(system.guest_unlend(1, range(MEMORY, 1)), GuestOutcome::Done(1));
        assert!(hw.reach(Regime::Host, host_ipa).is_empty());
        assert_eq!(hw.contents(page.start()), Contents::Written(7));
        assert_eq!(system.guest_unlend(1, range(MEMORY, 1)), GuestOutcome::Refused);
        assert_sound(&system);
    }
}

#[test]
fn a_pinned_page_cannot_be_unshared() {
    let (system, page) = with_page();
    assert_eq!(system.pin_shared(page), Err(Status::NotShared.into()));
    system.guest_lend(1, range(MEMORY, 1));
    assert_eq!(system.unpin_shared(page), Err(Status::NotPinned.into()));
    assert_eq!(system.pin_shared(page), Ok(1));
    assert_eq!(system.pin_shared(page), Ok(1));
    for pins in [2, 1] {
        let before = everything(&system);
        assert_eq!(entry(&system, HOST_REGION + 9).count(), pins);
        for frames in [1, 2] {
            assert_eq!(
                system.guest_unlend(1, range(MEMORY, frames)),
                GuestOutcome::Pinned(MEMORY)
            );
            assert_eq!(
                system.guest_relinquish(1, range(MEMORY, frames)),
                GuestOutcome::Pinned(MEMORY)
            );
        }
        assert_eq!(everything(&system), before);
        assert_eq!(system.unpin_shared(page), Ok(1));
    }
    assert_eq!(system.guest_unlend(1, range(MEMORY, 1)), GuestOutcome::Done(1));
    assert_sound(&system);
}

#[test]
fn too_many_pins_are_refused_and_the_last_one_holds() {
    let (system, page) = with_page();
    system.guest_lend(1, range(MEMORY, 1));
    for _ in 0..MAX_COUNT {
        system.pin_shared(page).unwrap();
    }
    assert_eq!(system.pin_shared(page), Err(Status::CountOverflow.into()));
    for _ in 0..MAX_COUNT {
        system.unpin_shared(page).unwrap();
    }
    assert_eq!(system.unpin_shared(page), Err(Status::NotPinned.into()));
    assert_sound(&system);
}

#[test]
fn frames_with_different_pins_are_pinned_each_for_itself() {
    let (system, vm) = with_vm(PROTECTED);
    system.guest_donate(vm, span(HOST_REGION, 512), MEMORY).unwrap();
    assert_eq!(system.guest_lend(1, range(MEMORY, 512)), GuestOutcome::Done(512));
    assert_eq!(system.pin_shared(span(HOST_REGION + 10, 10)), Ok(10));
    assert_eq!(system.pin_shared(span(HOST_REGION, 512)), Ok(512));
    let pins = |offset| entry(&system, HOST_REGION + offset).count();
    assert_eq!([0, 10, 19, 20, 511].map(pins), [1, 2, 2, 1, 1]);
    assert_eq!(entry(&system, HOST_REGION + 19).gfn(), MEMORY + 19);
    assert_eq!(system.unpin_shared(span(HOST_REGION, 512)), Ok(512));
    assert_eq!(system.guest_unlend(1, range(MEMORY, 512)), GuestOutcome::Done(10));
    assert_eq!(
        system.guest_unlend(1, range(MEMORY + 10, 502)),
        GuestOutcome::Pinned(MEMORY + 10)
    );
    assert_eq!(system.unpin_shared(span(HOST_REGION + 10, 10)), Ok(10));
    assert_eq!(
        system.guest_unlend(1, range(MEMORY + 10, 502)),
        GuestOutcome::Done(502)
    );
    assert_eq!(mapped(&system, MEMORY).0, 2);
    assert_sound(&system);
}

#[test]
fn a_ranged_call_of_the_guest_stops_at_the_first_page_that_it_is_not_for() {
    let (system, vm) = with_vm(PROTECTED);
    system
        .guest_donate(vm, span(HOST_REGION + 3, 10), MEMORY)
        .unwrap();
    system
        .guest_donate(vm, span(HOST_REGION + 30, 10), MEMORY + 10)
        .unwrap();
    assert_eq!(system.guest_lend(1, range(MEMORY, 30)), GuestOutcome::Done(20));
    assert_eq!(
        system.guest_lend(1, range(MEMORY + 20, 10)),
        GuestOutcome::Absent(MEMORY + 20)
    );
    assert_eq!(
        system.guest_lend(1, range(MEMORY + 19, 10)),
        GuestOutcome::Refused
    );
    assert_eq!(
        system.guest_unlend(1, range(MEMORY + 5, 10)),
        GuestOutcome::Done(10)
    );
    assert_eq!(system.guest_unlend(1, range(MEMORY, 10)), GuestOutcome::Done(5));
    assert_eq!(
        system.guest_relinquish(1, range(MEMORY + 5, 100)),
        GuestOutcome::Done(15)
    );
    assert_sound(&system);
}

#[test]
fn ranges_that_are_none_are_refused() {
    let (system, _) = with_page();
    let before = everything(&system);
    let end = 1 << (IPA_BITS - FRAME_SHIFT);
    for (gfn, frames) in [
        (MEMORY, 0),
        (end, 1),
        (end - 1, 2),
        (u64::MAX, 1),
        (u64::MAX, u64::MAX),
        (0, u64::MAX),
        (1 << 52, 1),
    ] {
        for outcome in [
            system.guest_lend(1, range(gfn, frames)),
            system.guest_unlend(1, range(gfn, frames)),
            system.guest_relinquish(1, range(gfn, frames)),
            system.guest_guard_map(1, range(gfn, frames)),
            system.guest_guard_unmap(1, range(gfn, frames)),
        ] {
            assert_eq!(outcome, GuestOutcome::Refused, "{gfn:#x} {frames}");
        }
    }
    assert_eq!(
        system.guest_lend(2, range(MEMORY, 1)),
        GuestOutcome::Refused,
        "no VM lives there"
    );
    assert_eq!(system.guest_lend(0, range(MEMORY, 1)), GuestOutcome::Refused);
    assert_eq!(everything(&system), before);
}
