//! Interrupts in the middle of long calls: what is done is done, the rest is as it was, and the call is resumed.

use super::*;
use crate::ownership::guest::GuestOutcome;
use crate::state::State;

/// The guest frame numbers: aligned to the frames, and not.
const PLACES: [u64; 2] = [MEMORY, MEMORY + 100];

/// Polls after which the interrupt comes: at once, between steps, between regions.
const POLLS: [u64; 7] = [0, 1, 2, 30, 31, 32, 33];

/// Does a call on what is left until nothing is.
fn resumed(system: &System, frames: u64, polls: u64, mut call: impl FnMut(u64, u64) -> u64) {
    let hw = system.hardware();
    let mut done = 0;
    let mut calls = 0;
    while done < frames {
        hw.interrupt_after(Some(polls));
        let now = call(done, frames - done);
        assert!(now > 0, "each call makes progress");
        done += now;
        calls += 1;
        assert!(calls <= frames.div_ceil(16), "of 64 KiB at least");
        hw.interrupt_after(None);
        assert_eq!(counts(system).in_transit, 0, "no call leaves memory half way");
    }
    assert_sound(system);
}

fn expect_done(outcome: GuestOutcome) -> u64 {
    match outcome {
        GuestOutcome::Done(done) => done,
        other => panic!("{other:?}"),
    }
}

#[test]
fn long_calls_let_interrupts_through_and_are_resumed() {
    let frames = 2 * 512;
    for gfn in PLACES {
        for polls in POLLS {
            for life in [Life::Created, LAUNCHED] {
                let (system, vm) = with_vm(Kind { life, ..PROTECTED });
                let given = span(HOST_REGION, frames);
                watch(&system, given, gfn);
                resumed(&system, frames, polls, |done, left| {
                    system
                        .guest_donate(vm, span(HOST_REGION + done, left), gfn + done)
                        .unwrap()
                });
                let level = if gfn == MEMORY { 2 } else { 3 };
                assert_eq!(
                    mapped(&system, gfn + 99).0,
                    level,
                    "what was given in parts is one block at last"
                );
                resumed(&system, frames, polls, |done, left| {
                    expect_done(system.guest_lend(1, range(gfn + done, left)))
                });
                resumed(&system, frames, polls, |done, left| {
                    expect_done(system.guest_unlend(1, range(gfn + done, left)))
                });
                resumed(&system, 512, polls, |done, left| {
                    expect_done(system.guest_relinquish(1, range(gfn + done, left)))
                });
                resumed(&system, 512, polls, |done, left| {
                    system.take_back(span(HOST_REGION + done, left)).unwrap()
                });
                die(&system);
                resumed(&system, frames, polls, |done, left| {
                    system.guest_reclaim(vm, range(gfn + done, left)).unwrap()
                });
                let host = Entry::plain(State::Host);
                assert!(given.iter().all(|frame| entry(&system, frame.number()) == host));
                assert_eq!(counts(&system).left(), 0);
            }
        }
    }
}

#[test]
fn a_lent_block_that_is_given_up_in_parts_stays_lent_for_the_rest() {
    let (system, vm) = with_vm(PROTECTED);
    let hw = system.hardware();
    watch(&system, span(HOST_REGION, 512), MEMORY);
    system.guest_donate(vm, span(HOST_REGION, 512), MEMORY).unwrap();
    system.guest_lend(1, range(MEMORY, 512));
    hw.write(frame(HOST_REGION + 16), 3);
    hw.interrupt_after(Some(0));
    assert_eq!(
        system.guest_relinquish(1, range(MEMORY, 512)),
        GuestOutcome::Done(16)
    );
    hw.interrupt_after(None);
    assert_eq!(
        entry(&system, HOST_REGION + 16),
        Entry::guest(true, 1, MEMORY + 16)
    );
    assert_eq!(
        hw.contents(frame(HOST_REGION + 16)),
        crate::double::Contents::Written(3)
    );
    assert_eq!((counts(&system).shared, counts(&system).relinquished), (496, 16));
    assert_sound(&system);
}

#[test]
fn borrowed_ranges_are_resumed_too() {
    let frames = 3 * 512;
    for polls in POLLS {
        let (system, vm) = with_vm(OPEN);
        resumed(&system, frames, polls, |done, left| {
            system
                .guest_share(vm, span(HOST_REGION + 5 + done, left), MEMORY + done, 7)
                .unwrap()
        });
        resumed(&system, frames, polls, |done, left| {
            system
                .guest_set_permissions(vm, range(MEMORY + done, left), 1)
                .unwrap()
        });
        resumed(&system, frames, polls, |done, left| {
            system
                .guest_test_age(vm, range(MEMORY + done, left))
                .unwrap()
                .frames
        });
        resumed(&system, frames, polls, |done, left| {
            system.guest_unshare(vm, range(MEMORY + done, left)).unwrap()
        });
        assert_eq!(counts(&system).left(), 0);
    }
}

/// What may be needed in the middle is taken at the beginning: neither an interrupt nor a broken frame lacks a page.
#[test]
fn a_block_is_taken_apart_without_a_page_from_elsewhere() {
    type Call = fn(&System, u64) -> Result<u64, crate::ownership::Refusal>;
    let donate: Call = |system, vm| system.guest_donate(vm, span(HOST_REGION, 512), MEMORY);
    let reclaim: Call = |system, vm| {
        die(system);
        system.guest_reclaim(vm, range(MEMORY, 512))
    };
    let relinquish: Call = |system, _| match system.guest_relinquish(1, range(MEMORY, 512)) {
        GuestOutcome::NeedsPages(pages) => Err(crate::ownership::Refusal::vm_needs(pages)),
        outcome => Ok(expect_done(outcome)),
    };
    for (call, filled) in [(donate, false), (reclaim, true), (relinquish, true)] {
        for (broken, done) in [(None, 32), (Some(20), 20)] {
            let (pool, reserve) = (0..=4)
                .flat_map(|pool| (0..=4).map(move |reserve| (pool, reserve)))
                .find(|(pool, reserve)| {
                    let (system, vm) = with_vm(PROTECTED);
                    fill(&system, vm, filled, *pool, *reserve);
                    call(&system, vm) == Ok(512)
                })
                .expect("a few pages suffice");
            let (system, vm) = with_vm(PROTECTED);
            fill(&system, vm, filled, pool, reserve);
            let hw = system.hardware();
            match broken {
                Some(number) => hw.poison(frame(HOST_REGION + number)),
                None => hw.interrupt_after(Some(1)),
            }
            assert_eq!(call(&system, vm), Ok(done));
            assert_sound(&system);
        }
    }
}

/// Gives the guest a block, if it is to have one, and leaves so many pages in pool and reserve.
fn fill(system: &System, vm: u64, filled: bool, pool: u64, reserve: u64) {
    if filled {
        system.guest_donate(vm, span(HOST_REGION, 512), MEMORY).unwrap();
    }
    let hw = system.hardware();
    of_vm(system, 1, |vm| {
        let away = vm.reserve.pages() - reserve;
        vm.reserve.split(hw, away).unwrap().release(hw);
    });
    hw.limit_pool(Some(pool));
}
