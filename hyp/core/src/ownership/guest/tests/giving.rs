//! Frames that change their owner: donated, relinquished, taken back, taken by force.

use super::*;
use crate::double::Contents;
use crate::ownership::Refusal;
use crate::ownership::guest::GuestAccess::Read;
use crate::ownership::guest::table::OWN_MEMORY;
use crate::ownership::guest::{GuestOutcome, GuestVerdict};
use crate::state::State;
use crate::vm::GuestAnnotation;
use hyp_abi::Status;
use sha2::Digest;

/// What the guest's table says where nothing is.
fn hole(annotation: GuestAnnotation) -> Descriptor<crate::pgtable::Stage2> {
    Descriptor::Invalid(annotation.encode())
}

fn leaf(number: u64) -> Descriptor<crate::pgtable::Stage2> {
    Descriptor::Leaf {
        pa: frame(number).address(),
        attributes: OWN_MEMORY,
    }
}

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
