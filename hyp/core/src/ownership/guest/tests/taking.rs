//! Frames that guests give up, and that are taken from them: relinquished, reclaimed, by force.

use super::*;
use crate::double::Contents;
use crate::ownership::guest::GuestAccess::Read;
use crate::ownership::guest::{GuestOutcome, GuestVerdict};
use crate::state::State;
use crate::vm::GuestAnnotation;
use hyp_abi::Status;

#[test]
fn a_block_of_which_pages_are_lent_unlent_and_given_up() {
    let (system, vm) = with_vm(PROTECTED);
    let hw = system.hardware();
    let used = hw.pages_in_use();
    let block = span(HOST_REGION, 512);
    watch(&system, block, MEMORY);
    system.guest_donate(vm, block, MEMORY).unwrap();
    let page = frame(HOST_REGION + 77);
    hw.write(page, 5);
    assert_eq!(system.guest_lend(1, range(MEMORY + 77, 1)), GuestOutcome::Done(1));
    assert_eq!(
        mapped(&system, MEMORY + 77).0,
        2,
        "lending does not break the guest's block"
    );
    assert_eq!(entry(&system, page.number()), Entry::guest(true, 1, MEMORY + 77));
    assert_eq!((counts(&system).private, counts(&system).shared), (511, 1));
    assert_sound(&system);
    assert_eq!(
        system.guest_unlend(1, range(MEMORY + 77, 1)),
        GuestOutcome::Done(1)
    );
    assert_eq!(mapped(&system, MEMORY + 77).0, 2);
    assert_eq!(
        hw.contents(page),
        Contents::Written(5),
        "lending keeps the contents"
    );
    assert_sound(&system);
    assert_eq!(
        system.guest_relinquish(1, range(MEMORY + 77, 1)),
        GuestOutcome::Done(1)
    );
    assert_eq!(mapped(&system, MEMORY + 77), (3, hole(GuestAnnotation::Absent)));
    assert_eq!(mapped(&system, MEMORY + 78), (3, leaf(HOST_REGION + 78)));
    assert_eq!(hw.contents(page), Contents::Zero);
    assert_eq!(entry(&system, page.number()), Entry::plain(State::Relinquished));
    assert_eq!((counts(&system).private, counts(&system).relinquished), (511, 1));
    assert_sound(&system);
    assert_eq!(system.take_back(FrameSpan::single(page)), Ok(1));
    assert_eq!(entry(&system, page.number()), Entry::plain(State::Host));
    assert_eq!(
        system.judge_guest_abort(1, ipa(MEMORY + 77), Read),
        GuestVerdict::Missing { gfn: MEMORY + 77 }
    );
    assert_eq!(
        system.guest_donate(vm, FrameSpan::single(page), MEMORY + 77),
        Ok(1)
    );
    assert_sound(&system);
    die(&system);
    assert_eq!(system.guest_reclaim(vm, range(MEMORY, 512)), Ok(512));
    assert_sound(&system);
    assert_eq!(
        pages(&system),
        (PROTECTED.reserve - 2 - 1, 1),
        "the table of level 2 stays"
    );
    assert_eq!(
        hw.pages_in_use(),
        used - 2,
        "the node and the table for the host, which the guest has paid, are in the pool"
    );
}

#[test]
fn a_shared_page_that_is_given_up_is_revoked_and_scrubbed() {
    let (system, vm) = with_vm(PROTECTED);
    let hw = system.hardware();
    let given = span(HOST_REGION + 3, 40);
    watch(&system, given, MEMORY);
    system.guest_donate(vm, given, MEMORY).unwrap();
    assert_eq!(
        system.guest_lend(1, range(MEMORY + 10, 20)),
        GuestOutcome::Done(20)
    );
    hw.write(frame(HOST_REGION + 15), 5);
    assert_eq!(
        system.guest_relinquish(1, range(MEMORY, 40)),
        GuestOutcome::Done(40)
    );
    assert!(given.iter().all(|frame| hw.contents(frame) == Contents::Zero));
    assert_eq!(counts(&system).left(), 0);
    assert_sound(&system);
    assert_eq!(system.take_back(given), Ok(40));
    assert_eq!(system.take_back(given), Err(Status::NotRelinquished.into()));
    assert_sound(&system);
}

#[test]
fn reclaim_zeroes_what_is_private_and_leaves_what_was_shared() {
    let (system, vm) = with_vm(PROTECTED);
    let hw = system.hardware();
    let given = span(HOST_REGION + 3, 40);
    watch(&system, given, MEMORY);
    system.guest_donate(vm, given, MEMORY).unwrap();
    for frame in given.iter() {
        hw.write(frame, frame.number());
    }
    assert_eq!(
        system.guest_lend(1, range(MEMORY + 10, 20)),
        GuestOutcome::Done(20)
    );
    assert_eq!(
        system.guest_reclaim(vm, range(MEMORY, 40)),
        Err(Status::WrongVmState.into())
    );
    die(&system);
    system.pin_shared(span(HOST_REGION + 3 + 12, 1)).unwrap();
    assert_eq!(system.guest_reclaim(vm, range(MEMORY, 40)), Ok(12));
    assert_eq!(
        system.guest_reclaim(vm, range(MEMORY + 12, 28)),
        Err(Status::Pinned.into())
    );
    assert_eq!(
        system.guest_reclaim(vm, range(MEMORY + 12, 1)),
        Err(Status::Pinned.into())
    );
    system.unpin_shared(span(HOST_REGION + 3 + 12, 1)).unwrap();
    assert_eq!(system.guest_reclaim(vm, range(MEMORY + 12, 1)), Ok(1));
    assert_eq!(system.guest_reclaim(vm, range(MEMORY + 12, 28)), Ok(28));
    for (number, frame) in given.iter().enumerate() {
        let wanted = if (10..30).contains(&number) {
            Contents::Written(frame.number())
        } else {
            Contents::Zero
        };
        assert_eq!(hw.contents(frame), wanted);
    }
    assert_eq!(counts(&system).left(), 0);
    assert_sound(&system);
    let all = 1 << (IPA_BITS - FRAME_SHIFT);
    assert_eq!(
        system.guest_reclaim(vm, range(0, all)),
        Ok(all),
        "where nothing is, all is done"
    );
}

#[test]
fn a_page_that_is_taken_by_force_is_lost_for_good() {
    for given in [span(HOST_REGION, 512), span(HOST_REGION + 70, 20)] {
        let (system, vm) = with_vm(PROTECTED);
        let hw = system.hardware();
        watch(&system, given, MEMORY);
        system.guest_donate(vm, given, MEMORY).unwrap();
        let taken = frame(given.start().number() + 9);
        let gfn = MEMORY + 9;
        hw.write(taken, 1);
        assert_eq!(system.force_reclaim(taken), Ok(()));
        assert_eq!(hw.contents(taken), Contents::Zero);
        assert_eq!(entry(&system, taken.number()), Entry::plain(State::Host));
        assert_eq!(mapped(&system, gfn), (3, hole(GuestAnnotation::Lost)));
        assert_eq!(
            system.judge_guest_abort(1, ipa(gfn), Read),
            GuestVerdict::Lost { gfn }
        );
        assert_eq!(
            (counts(&system).private, counts(&system).lost),
            (given.frames() - 1, 1)
        );
        assert_sound(&system);
        let again = FrameSpan::single(taken);
        assert_eq!(system.guest_donate(vm, again, gfn), Err(Status::GfnLost.into()));
        assert_eq!(system.force_reclaim(taken), Err(Status::NotOwner.into()));
        for outcome in [
            system.guest_lend(1, range(gfn, 1)),
            system.guest_unlend(1, range(gfn, 1)),
            system.guest_relinquish(1, range(gfn, 1)),
            system.guest_guard_map(1, range(gfn, 1)),
        ] {
            assert_eq!(outcome, GuestOutcome::Refused);
        }
        die(&system);
        let frames = given.frames();
        assert_eq!(system.guest_reclaim(vm, range(MEMORY, frames)), Ok(frames));
        assert_sound(&system);
    }
}

#[test]
fn a_table_is_taken_apart_and_every_page_comes_back() {
    let system = machine();
    let hw = system.hardware();
    let used = hw.pages_in_use();
    let vm = create(&system, 1, PROTECTED);
    system
        .guest_donate(vm, span(HOST_REGION + 5, 700), MEMORY + 5)
        .unwrap();
    system.guest_donate(vm, span(HOST_REGION + 1000, 3), 0).unwrap();
    system.force_reclaim(frame(HOST_REGION + 6)).unwrap();
    assert_eq!(system.guest_guard_map(1, range(0x900, 3)), GuestOutcome::Done(3));
    die(&system);
    let all = 1 << (IPA_BITS - FRAME_SHIFT);
    assert_eq!(system.guest_reclaim(vm, range(0, all)), Ok(all));
    system.collapse(span(HOST_REGION, 4 * 512)).unwrap();
    assert!(pages(&system).1 > 0);
    let mut locked = system.vms().lock(hw, vm).unwrap();
    assert!(system.dismantle_guest_table(&mut locked));
    assert_eq!((locked.reserve.pages(), locked.table_pages), (0, 0));
    let home = locked.remove();
    hw.give_root(home.table.root(), 2);
    hw.free_page(hw.vacate(home));
    assert_eq!(hw.pages_in_use(), used);
}

#[test]
fn a_page_of_a_block_that_the_host_gave_whole_comes_back_by_itself() {
    // The guest's pages are mapped one by one and the region has a node, but the host has no table there yet.
    let (system, vm) = with_vm(PROTECTED);
    system
        .guest_donate(vm, span(HOST_REGION, 512), MEMORY + 100)
        .unwrap();
    assert_eq!(
        system.guest_relinquish(1, range(MEMORY + 100, 1)),
        GuestOutcome::Done(1)
    );
    die(&system);
    assert_eq!(system.guest_reclaim(vm, range(MEMORY + 105, 1)), Ok(1));
    assert_eq!(entry(&system, HOST_REGION + 5), Entry::plain(State::Host));
    assert_sound(&system);
}
