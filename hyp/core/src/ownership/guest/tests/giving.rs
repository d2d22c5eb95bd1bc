//! Frames that the host gives to guests.

use super::*;
use crate::double::Contents;
use crate::ownership::Refusal;
use crate::ownership::guest::GuestAccess::Read;
use crate::ownership::guest::{GuestOutcome, GuestVerdict};
use crate::state::State;
use hyp_abi::Status;
use sha2::Digest;

#[test]
fn donated_frames_come_zeroed_and_are_the_guests_alone() {
    for (start, gfn, frames) in [
        (HOST_REGION + 5, MEMORY, 1),
        (HOST_REGION + 5, MEMORY + 9, 7),
        (HOST_REGION, MEMORY, 512),
        (HOST_REGION, MEMORY + 100, 512),
        (HOST_REGION + 100, MEMORY + 100, 1200),
        (HOST_REGION + 100, MEMORY + 3, 1200),
    ] {
        let (system, vm) = with_vm(PROTECTED);
        let hw = system.hardware();
        let given = span(start, frames);
        watch(&system, given, gfn);
        for frame in given.iter() {
            hw.write(frame, frame.number());
        }
        assert_eq!(system.guest_donate(vm, given, gfn), Ok(frames));
        for (number, frame) in given.iter().enumerate() {
            let number = number as u64;
            assert_eq!(hw.contents(frame), Contents::Zero);
            assert!(!hw.is_dirty(frame));
            assert_eq!(
                entry(&system, frame.number()),
                Entry::guest(false, 1, gfn + number)
            );
            assert!(hw.reach(Regime::Host, frame.address().host_ipa()).is_empty());
        }
        let reached = hw.reach(Regime::Guest(1), ipa(gfn));
        assert_eq!(reached.len(), 1);
        assert_eq!(
            counts(&system),
            MemoryCounts {
                private: frames,
                ..MemoryCounts::default()
            }
        );
        assert_sound(&system);
        // And back.
        die(&system);
        assert_eq!(system.guest_reclaim(vm, range(gfn, frames)), Ok(frames));
        for frame in given.iter() {
            assert_eq!(hw.contents(frame), Contents::Zero);
            assert_eq!(entry(&system, frame.number()), Entry::plain(State::Host));
        }
        assert_eq!(counts(&system), MemoryCounts::default());
        assert_sound(&system);
    }
}

#[test]
fn a_whole_region_becomes_a_block_where_it_is_aligned() {
    let (system, vm) = with_vm(PROTECTED);
    system.guest_donate(vm, span(HOST_REGION, 512), MEMORY).unwrap();
    assert_eq!(mapped(&system, MEMORY), (2, leaf(HOST_REGION)));
    system
        .guest_donate(vm, span(HOST_REGION + 512, 512), MEMORY + 513)
        .unwrap();
    assert_eq!(mapped(&system, MEMORY + 513), (3, leaf(HOST_REGION + 512)));
    assert_sound(&system);
}

#[test]
fn pages_that_make_a_region_whole_become_a_block_at_the_end_of_a_ranged_call() {
    let (system, vm) = with_vm(PROTECTED);
    let used = system.hardware().pages_in_use();
    watch(&system, span(HOST_REGION, 512), MEMORY);
    for (first, frames) in [(0, 1), (1, 100), (101, 411)] {
        system
            .guest_donate(vm, span(HOST_REGION + first, frames), MEMORY + first)
            .unwrap();
    }
    assert_eq!(mapped(&system, MEMORY + 77), (2, leaf(HOST_REGION)));
    die(&system);
    assert_eq!(system.guest_reclaim(vm, range(MEMORY, 512)), Ok(512));
    assert_eq!(system.hardware().pages_in_use(), used);
    assert_sound(&system);
}

#[test]
fn before_the_launch_contents_are_kept_and_digested_in_their_order() {
    let created = Kind {
        life: Life::Created,
        ..PROTECTED
    };
    let (system, vm) = with_vm(created);
    let hw = system.hardware();
    let mut wanted = Sha256::default();
    for (start, frames, gfn) in [
        (HOST_REGION + 7, 1, MEMORY + 40),
        (HOST_REGION + 8, 1, MEMORY + 39),
        (HOST_REGION + 512, 530, MEMORY + 512),
        (HOST_REGION + 9, 20, MEMORY),
    ] {
        let given = span(start, frames);
        for (number, frame) in (gfn..).zip(given.iter()) {
            hw.write(frame, number * 3);
            let contents = std::format!("{:?}", Contents::Written(number * 3));
            wanted.update(number.to_le_bytes());
            wanted.update(Sha256::digest(contents.as_bytes()));
        }
        assert_eq!(system.guest_donate(vm, given, gfn), Ok(frames));
        for (number, frame) in (gfn..).zip(given.iter()) {
            assert_eq!(hw.contents(frame), Contents::Written(number * 3));
            assert!(
                !hw.is_dirty(frame),
                "what the host wrote is cleaned for a guest with its caches off"
            );
        }
    }
    let found = of_vm(&system, 1, |vm| vm.digest.clone());
    assert_eq!(found.finalize(), wanted.finalize());
    assert_sound(&system);
}

#[test]
fn what_a_launch_overtakes_is_zeroed_and_not_digested() {
    let created = Kind {
        life: Life::Created,
        ..PROTECTED
    };
    let (system, vm) = with_vm(created);
    let hw = system.hardware();
    for (given, gfn) in [
        (span(HOST_REGION + 7, 1), MEMORY),
        (span(HOST_REGION + 512, 512), MEMORY + 512),
    ] {
        of_vm(&system, 1, |vm| vm.life = Life::Created);
        let digest = of_vm(&system, 1, |vm| vm.digest.clone());
        hw.write(given.start(), 99);
        let (piece, _) = crate::map::OwnershipMap::<Arm4K>::first_piece(given);
        let (moving, keep) = system.begin_donating(vm, piece, gfn, false).unwrap();
        assert!(keep);
        of_vm(&system, 1, |vm| vm.life = LAUNCHED);
        assert_eq!(system.end_donating(moving, keep), Ok(given.frames()));
        assert_eq!(hw.contents(given.start()), Contents::Zero);
        let after = of_vm(&system, 1, |vm| vm.digest.clone());
        assert_eq!(after.finalize(), digest.finalize());
        assert_sound(&system);
    }
}

#[test]
fn a_page_in_transit_is_busy_to_everybody() {
    let (system, vm) = with_vm(PROTECTED);
    let given = span(HOST_REGION + 7, 4);
    let (piece, _) = crate::map::OwnershipMap::<Arm4K>::first_piece(given);
    let (moving, keep) = system.begin_donating(vm, piece, MEMORY, true).unwrap();
    let busy = |result: Result<u64, Refusal>| assert_eq!(result, Err(Status::Busy.into()));
    let before = everything(&system);
    busy(system.guest_donate(vm, span(HOST_REGION + 20, 1), MEMORY));
    busy(system.guest_donate(vm, span(HOST_REGION + 7, 1), MEMORY + 20));
    busy(system.force_reclaim(frame(HOST_REGION + 7)).map(|()| 1));
    assert_eq!(system.guest_lend(1, range(MEMORY, 1)), GuestOutcome::Busy);
    assert_eq!(system.guest_unlend(1, range(MEMORY, 2)), GuestOutcome::Busy);
    assert_eq!(system.guest_relinquish(1, range(MEMORY, 1)), GuestOutcome::Busy);
    assert_eq!(system.guest_guard_map(1, range(MEMORY, 1)), GuestOutcome::Busy);
    assert_eq!(system.judge_guest_abort(1, ipa(MEMORY), Read), GuestVerdict::Busy);
    assert_eq!(everything(&system), before);
    die(&system);
    busy(system.guest_reclaim(vm, range(MEMORY, 4)));
    assert_eq!(counts(&system).left(), 4, "what is in transit keeps the VM");
    assert_eq!(system.end_donating(moving, keep), Ok(4));
    assert_eq!(system.guest_reclaim(vm, range(MEMORY, 4)), Ok(4));
    assert_sound(&system);
}

#[test]
fn a_range_past_the_last_page_is_refused_before_any_of_it_is_done() {
    let last = 1 << (IPA_BITS - FRAME_SHIFT);
    for (kind, protected) in [(PROTECTED, true), (OPEN, false)] {
        let (system, vm) = with_vm(kind);
        let before = everything(&system);
        // The first region would fit.
        for (frames, gfn) in [
            (1024, last - 1023),
            (1024, last - 512),
            (2, last - 1),
            (1, last),
            (2, u64::MAX),
        ] {
            let frames = span(HOST_REGION, frames);
            let result = if protected {
                system.guest_donate(vm, frames, gfn)
            } else {
                system.guest_share(vm, frames, gfn, 1)
            };
            assert_eq!(result, Err(Status::GfnOutOfRange.into()), "{frames:?} {gfn:#x}");
            assert_eq!(everything(&system), before);
        }
    }
}

#[test]
fn nothing_is_put_where_the_guest_lets_the_host_emulate_a_device() {
    for (kind, protected) in [(PROTECTED, true), (OPEN, false)] {
        let (system, vm) = with_vm(kind);
        assert_eq!(system.guest_guard_map(1, range(0x900, 2)), GuestOutcome::Done(2));
        let before = everything(&system);
        for (frames, gfn) in [(1, 0x900), (1, 0x901), (3, 0x8ff)] {
            let frames = span(HOST_REGION, frames);
            let result = if protected {
                system.guest_donate(vm, frames, gfn)
            } else {
                system.guest_share(vm, frames, gfn, 1)
            };
            assert_eq!(result, Err(Status::GfnMapped.into()));
            assert_eq!(everything(&system), before);
        }
        // Once it is none any more, they may.
        assert_eq!(
            system.guest_guard_unmap(1, range(0x900, 1)),
            GuestOutcome::Done(1)
        );
        let result = if protected {
            system.guest_donate(vm, span(HOST_REGION, 1), 0x900)
        } else {
            system.guest_share(vm, span(HOST_REGION, 1), 0x900, 1)
        };
        assert_eq!(result, Ok(1));
    }
}
