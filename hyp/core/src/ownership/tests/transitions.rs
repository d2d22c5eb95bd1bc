//! What each transition does: states, contents, who can reach what, sizes, and what happens when pages run out.

use super::{HOST_REGION, RAM, RAM_FRAMES, assert_sound, machine, picture, span};
use crate::addr::Frame;
use crate::double::{Contents, identity};
use crate::hardware::{Hardware, Regime};
use crate::hypercall::host_call;
use crate::map::Entry;
use crate::ownership::Refusal;
use crate::state::{HypUse, State, Transit, TransitReason};
use hyp_abi::{FrameState, HostCall, Status};

fn frame(number: u64) -> Frame {
    Frame::new(number).unwrap()
}

#[test]
fn a_shared_page_goes_through_pin_and_unpin_and_back() {
    let system = machine();
    let page = span(HOST_REGION + 9, 1);
    assert_eq!(system.share_hyp(page), Ok(1));
    assert_eq!(system.share_hyp(page).unwrap_err().status, Status::SharedWithHyp);
    assert_eq!(system.pin(page.start()), Ok(()));
    assert_eq!(system.pin(page.start()), Ok(()));
    assert_eq!(system.unpin(page.start()), Ok(()));
    assert_eq!(system.frame_info(page.start()).unwrap().count, 1);
    assert_eq!(system.unshare_hyp(page).unwrap_err().status, Status::Pinned);
    for refused in [
        system.donate_hyp(page),
        system.share_hyp(page),
        system.pool_top_up(page),
    ] {
        assert_eq!(refused.unwrap_err().status, Status::SharedWithHyp);
    }
    assert_sound(&system);
    assert_eq!(system.unpin(page.start()), Ok(()));
    assert_eq!(system.unpin(page.start()).unwrap_err().status, Status::NotShared);
    assert_eq!(system.unshare_hyp(page), Ok(1));
    assert_eq!(system.unshare_hyp(page).unwrap_err().status, Status::NotShared);
    assert_sound(&system);
}

#[test]
fn donated_frames_are_out_of_reach_and_come_back_zero() {
    let system = machine();
    let hw = system.hardware();
    for pages in [1, 7, 512, 513, 1500] {
        let given = span(HOST_REGION + 3, pages);
        // A sample, and both ends: the double walks the table for each of them after every step.
        let edges = [given.start().number(), given.end_number() - 1].map(frame);
        let sample: std::vec::Vec<Frame> = given.iter().step_by(97).chain(edges).collect();
        hw.watch(
            system.host_table(),
            sample.iter().map(|frame| frame.address().host_ipa()),
        );
        for frame in given.iter() {
            hw.write(frame, frame.number());
        }
        assert_eq!(system.donate_hyp(given), Ok(pages));
        for frame in given.iter() {
            assert_eq!(system.frame_info(frame).unwrap().state, FrameState::NotYours);
        }
        for frame in &sample {
            assert!(hw.reach(Regime::Host, frame.address().host_ipa()).is_empty());
        }
        assert_sound(&system);
        assert_eq!(system.donate_hyp(given).unwrap_err().status, Status::NotOwner);
        assert_eq!(system.reclaim_hyp(given), Ok(pages));
        for frame in given.iter() {
            assert_eq!(hw.contents(frame), Contents::Zero);
            assert!(!hw.is_dirty(frame));
            assert_eq!(system.frame_info(frame).unwrap().state, FrameState::Host);
        }
        assert_sound(&system);
    }
}

#[test]
fn blocks_come_back_when_a_ranged_call_makes_a_region_whole() {
    let system = machine();
    let used = system.hardware().pages_in_use();
    let unaligned = span(HOST_REGION + 100, 512);
    for _ in 0..3 {
        assert_eq!(system.share_hyp(unaligned), Ok(512));
        assert_eq!(system.unshare_hyp(unaligned), Ok(512));
        assert_eq!(system.donate_hyp(unaligned), Ok(512));
        assert_eq!(system.reclaim_hyp(unaligned), Ok(512));
    }
    assert_eq!(
        system.hardware().pages_in_use(),
        used,
        "nodes and tables went back to the pool"
    );
    assert_eq!(system.frame_info(frame(HOST_REGION)).unwrap().agreeing, 2 << 20);
}

#[test]
fn a_single_page_never_folds_and_collapse_does() {
    let system = machine();
    let used = system.hardware().pages_in_use();
    let page = span(HOST_REGION + 5, 1);
    system.donate_hyp(page).unwrap();
    system.reclaim_hyp(page).unwrap();
    assert_eq!(
        system.hardware().pages_in_use(),
        used + 2,
        "node and table stay for the next time"
    );
    assert_eq!(system.collapse(span(HOST_REGION + 1, 511)), Ok(511));
    assert_eq!(
        system.hardware().pages_in_use(),
        used + 2,
        "a region that lies only partly in the range is left"
    );
    assert_eq!(system.collapse(span(HOST_REGION, 512)), Ok(512));
    assert_eq!(system.hardware().pages_in_use(), used);
    assert_sound(&system);
}

#[test]
fn the_pool_takes_pages_and_gives_them_back_zero() {
    let system = machine();
    let hw = system.hardware();
    let (free, total) = hw.pool_pages();
    let given = span(HOST_REGION + 16, 64);
    assert_eq!(system.pool_top_up(given), Ok(64));
    assert_eq!(hw.pool_pages().1, total + 64);
    assert_eq!(
        system.reclaim_hyp(span(HOST_REGION + 16, 1)).unwrap_err().status,
        Status::NotDonated
    );
    assert_sound(&system);
    let mut back = 0;
    while let Some((start, frames)) = system.pool_drain(1000).unwrap() {
        for offset in 0..frames {
            let frame = frame(start.frame().number() + offset);
            assert!(given.contains(frame), "only what was donated is given back");
            assert_eq!(hw.contents(frame), Contents::Zero);
        }
        back += frames;
        assert_sound(&system);
    }
    assert_eq!(back, 64);
    system.collapse(span(HOST_REGION, 512)).unwrap();
    assert_eq!(hw.pool_pages(), (free, total));
    assert_eq!(
        system.pool_drain(1),
        Ok(None),
        "EL2 keeps what it reserved at boot"
    );
}

/// A host that gave EL2 pages while those of the boot were in use did not get all of them back, for what EL2 keeps back
/// for itself had been made up for from them.
#[test]
fn what_is_kept_back_does_not_keep_pages_of_the_hosts() {
    let system = machine();
    let hw = system.hardware();
    system.keep_spare();
    let used: std::vec::Vec<_> = core::iter::from_fn(|| hw.allocate_page()).collect();
    let given = span(HOST_REGION, 512);
    assert_eq!(system.pool_top_up(given), Ok(512));
    assert!(system.spare_frames().iter().any(|frame| given.contains(*frame)));
    for page in used {
        hw.free_page(page);
    }
    let mut back = 0;
    while let Some((_, frames)) = system.pool_drain(1000).unwrap() {
        back += frames;
        assert_eq!(system.spare_pages(), 5);
        assert_sound(&system);
    }
    assert_eq!(back, 512);
}

#[test]
fn running_out_of_pages_refuses_and_changes_nothing() {
    type Call<'a> = &'a dyn Fn(&super::System) -> Result<u64, Refusal>;
    let page = span(HOST_REGION + 5, 1);
    let other = span(HOST_REGION + 512 + 5, 1);
    let calls: [(Call<'_>, u64); 4] = [
        (&|system| system.share_hyp(page), 1),
        (&|system| system.donate_hyp(page), 2),
        (&|system| system.pool_top_up(page), 4),
        (&|system| system.reclaim_hyp(span(HOST_REGION + 512, 1)), 2),
    ];
    for (call, needed) in calls {
        for allowed in 0..=needed {
            let system = machine();
            // A region donated whole, so that taking one page back splits it.
            system.donate_hyp(span(HOST_REGION + 512, 512)).unwrap();
            let before = picture(&system);
            let used = system.hardware().pages_in_use();
            system.hardware().limit_pool(Some(allowed));
            let result = call(&system);
            if allowed < needed {
                let refusal = result.unwrap_err();
                assert_eq!(refusal.status, Status::NoMemory);
                assert!(refusal.pages_needed > allowed);
                assert_eq!(picture(&system), before);
                assert_eq!(system.hardware().pages_in_use(), used);
            } else {
                assert_eq!(result, Ok(1));
            }
            system.hardware().limit_pool(None);
            assert_sound(&system);
        }
    }
    // The pages that a call needs are those of its own region.
    let system = machine();
    system.share_hyp(page).unwrap();
    system.hardware().limit_pool(Some(0));
    assert_eq!(system.share_hyp(span(HOST_REGION + 6, 1)), Ok(1));
    assert_eq!(system.share_hyp(other).unwrap_err().status, Status::NoMemory);
}

#[test]
fn interrupts_stop_long_calls_which_are_resumed() {
    let system = machine();
    let hw = system.hardware();
    let given = span(HOST_REGION, 3 * 512);
    for polls in [0, 1, 2, 31, 32, 33] {
        let mut done = 0;
        while done < given.frames() {
            hw.interrupt_after(Some(polls));
            let rest = span(given.start().number() + done, given.frames() - done);
            let now = system.donate_hyp(rest).unwrap();
            assert!(now > 0, "a donation always makes progress");
            done += now;
            assert_sound(&system);
        }
        let mut done = 0;
        let mut calls = 0;
        while done < given.frames() {
            hw.interrupt_after(Some(polls));
            let rest = span(given.start().number() + done, given.frames() - done);
            done += system.reclaim_hyp(rest).unwrap();
            calls += 1;
            assert!(calls <= 3 * 32, "each call scrubs at least 64 KiB");
            assert_sound(&system);
        }
        hw.interrupt_after(None);
        assert!(
            given
                .iter()
                .all(|frame| system.frame_info(frame).unwrap().state == FrameState::Host)
        );
    }
}

#[test]
fn a_parked_region_is_resumed_whole_and_refused_in_part() {
    let system = machine();
    let region = span(HOST_REGION, 512);
    system.donate_hyp(region).unwrap();
    system.hardware().interrupt_after(Some(0));
    assert_eq!(system.reclaim_hyp(region), Ok(0));
    system.hardware().interrupt_after(None);
    assert_eq!(
        system.reclaim_hyp(span(HOST_REGION + 1, 1)).unwrap_err().status,
        Status::Busy
    );
    assert_eq!(system.share_hyp(region).unwrap_err().status, Status::Busy);
    assert_eq!(system.reclaim_hyp(region), Ok(512));
    assert_sound(&system);
}

#[test]
fn a_frame_that_answers_with_an_abort_is_poisoned_and_the_rest_comes_back() {
    for (start, frames, broken) in [
        (3, 40, 20),
        (3, 40, 3),
        (3, 40, 42),
        (0, 512, 0),
        (0, 512, 300),
        (0, 512, 511),
    ] {
        let system = machine();
        let given = span(HOST_REGION + start, frames);
        system.donate_hyp(given).unwrap();
        let bad = frame(HOST_REGION + broken);
        system.hardware().poison(bad);
        let mut next = given.start().number();
        let mut calls = 0;
        while next < given.end_number() {
            calls += 1;
            assert!(calls < 10);
            match system.reclaim_hyp(span(next, given.end_number() - next)) {
                Ok(done) => next += done,
                Err(refusal) => {
                    assert_eq!(refusal.status, Status::Poisoned);
                    // The caller takes what lies before the broken frame by itself, and steps over it.
                    let before = bad.number() - next;
                    if before > 0 {
                        assert_eq!(system.reclaim_hyp(span(next, before)), Ok(before));
                    }
                    next = bad.number() + 1;
                }
            }
            assert_sound(&system);
        }
        assert_eq!(system.frame_info(bad).unwrap().state, FrameState::NotYours);
        assert_eq!(
            system.donate_hyp(span(bad.number(), 1)).unwrap_err().status,
            Status::Poisoned
        );
        let others = given.iter().filter(|frame| *frame != bad);
        assert!(
            others
                .into_iter()
                .all(|frame| system.frame_info(frame).unwrap().state == FrameState::Host)
        );
    }
}

#[test]
fn totals_follow_every_transition() {
    let system = machine();
    let hw = system.hardware();
    let host = |count: u64| assert_eq!(RAM_FRAMES.wrapping_add(hw.tallied(State::Host.into())), count);
    host(RAM_FRAMES - 512);
    system.share_hyp(span(HOST_REGION + 1, 3)).unwrap();
    host(RAM_FRAMES - 515);
    assert_eq!(hw.tallied(State::HostSharedHyp.into()), 3);
    system.donate_hyp(span(HOST_REGION + 512, 700)).unwrap();
    host(RAM_FRAMES - 515 - 700);
    assert_eq!(hw.tallied(State::Hyp.into()), 512 + 700);
    system.reclaim_hyp(span(HOST_REGION + 512, 700)).unwrap();
    system.unshare_hyp(span(HOST_REGION + 1, 3)).unwrap();
    host(RAM_FRAMES - 512);
    assert_eq!(
        (hw.tallied(State::Hyp.into()), hw.tallied(State::InTransit.into())),
        (512, 0)
    );
}

#[test]
fn nobody_reaches_what_el2_reserved_at_boot() {
    let system = machine();
    let boot = span(RAM, 512);
    system.hardware().watch(system.host_table(), [identity(boot)]);
    assert!(system.hardware().reach(Regime::Host, identity(boot)).is_empty());
    for refused in [
        system.share_hyp(boot),
        system.donate_hyp(boot),
        system.pool_top_up(boot),
    ] {
        assert_eq!(refused.unwrap_err().status, Status::NotOwner);
    }
    assert_eq!(system.reclaim_hyp(boot).unwrap_err().status, Status::NotDonated);
    assert!(
        picture(&system)[..512]
            .iter()
            .all(|entry| *entry == Entry::hyp(HypUse::Boot))
    );
}

#[test]
fn a_region_keeps_its_node_while_its_frames_are_in_work() {
    // Two CPUs take back the halves of a region: all its frames are in transit alike, and a third CPU collapses it.
    let system = machine();
    let in_work = Entry::in_transit(Transit {
        reason: TransitReason::Reclaim,
        active: true,
        progress: 0,
    });
    system.force(span(HOST_REGION, 256), in_work);
    system.force(span(HOST_REGION + 256, 256), in_work);
    let used = system.hardware().pages_in_use();
    assert_eq!(system.collapse(span(HOST_REGION, 512)), Ok(512));
    assert_eq!(
        system.hardware().pages_in_use(),
        used,
        "each half still needs the node to end its transit"
    );
}

#[test]
fn unpinning_never_needs_a_page() {
    let system = machine();
    let region = span(HOST_REGION, 512);
    system.share_hyp(region).unwrap();
    for frame in region.iter() {
        system.pin(frame).unwrap();
    }
    system.collapse(region).unwrap();
    system.hardware().limit_pool(Some(0));
    for frame in region.iter() {
        assert_eq!(system.unpin(frame), Ok(()));
    }
    assert_sound(&system);
}

#[test]
fn a_broken_frame_in_a_whole_region_changes_nothing_without_a_page() {
    let system = machine();
    let hw = system.hardware();
    let region = span(HOST_REGION, 512);
    system.donate_hyp(region).unwrap();
    hw.poison(frame(HOST_REGION + 100));
    hw.limit_pool(Some(0));
    let before = picture(&system);
    for _ in 0..2 {
        assert_eq!(system.reclaim_hyp(region), Err(Refusal::no_memory(1)));
        assert_eq!(picture(&system), before);
    }
    hw.limit_pool(None);
    assert_eq!(system.reclaim_hyp(region), Ok(0));
    assert_eq!(system.reclaim_hyp(region).unwrap_err().status, Status::Poisoned);
    assert_sound(&system);
}

#[test]
fn a_second_ring_for_a_cpu_is_refused_and_keeps_no_page() {
    let system = machine();
    let region = span(HOST_REGION, 512);
    let ring = span(HOST_REGION + 600, 1);
    system.share_hyp(region).unwrap();
    system.share_hyp(ring).unwrap();
    let attach = |frame: u64| {
        let call = HostCall::TraceAttach {
            cpu: 1,
            frame: frame << 12,
        };
        host_call(&system, call.encode()).status
    };
    assert_eq!(attach(HOST_REGION + 600), Status::Success);
    let used = system.hardware().pages_in_use();
    assert_eq!(attach(HOST_REGION + 7), Status::WrongTraceState);
    assert_eq!(system.hardware().pages_in_use(), used);
}

/// An exhausted pool could not be topped up: taking a page in needs pages.
#[test]
fn an_empty_pool_can_always_be_topped_up() {
    for (given, again) in [
        (span(HOST_REGION, 512), 0),
        (span(HOST_REGION + 3, 60), 0),
        (span(HOST_REGION + 3, 1), 6),
    ] {
        let system = machine();
        let hw = system.hardware();
        system.keep_spare();
        assert_eq!(system.spare_pages(), 5);
        while hw.allocate_page().is_some() {}
        assert_eq!(
            system.share_hyp(span(HOST_REGION + 700, 1)).unwrap_err().status,
            Status::NoMemory
        );
        assert_eq!(system.pool_top_up(given), Ok(given.frames()));
        // A single page is less than it took to take it in; its neighbors need no more and make up for it.
        for next in 0..again {
            assert_eq!(system.pool_top_up(span(given.end_number() + next, 1)), Ok(1));
        }
        assert_eq!(system.spare_pages(), 5, "what was used is made up for");
        assert_eq!(system.share_hyp(span(HOST_REGION + 700, 1)), Ok(1));
    }
}
