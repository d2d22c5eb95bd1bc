//! Frames with a memory error, or an interrupt, met on their way to the pool.

use super::{HOST_REGION, System, assert_sound, machine, picture, span};
use crate::addr::Frame;
use crate::double::Contents;
use crate::hardware::Hardware;
use crate::map::{Entry, OwnershipMap};
use crate::ownership::Refusal;
use crate::state::{HypUse, State};
use hyp_abi::Status;

fn frame(number: u64) -> Frame {
    span(number, 1).start()
}

fn entry(system: &System, frame: Frame) -> Entry {
    let region = system.map().lock(system.hardware(), frame).unwrap();
    region.entry(OwnershipMap::<crate::geometry::Arm4K>::index_of(frame))
}

#[test]
fn a_broken_frame_is_met_alone_and_never_the_pools() {
    for (start, frames, broken) in [
        (3, 1, 3),
        (3, 40, 3),
        (3, 40, 20),
        (3, 40, 42),
        (0, 512, 0),
        (0, 512, 300),
        (0, 512, 511),
        (500, 40, 511),
        (500, 40, 512),
    ] {
        let system = machine();
        let hw = system.hardware();
        let given = span(HOST_REGION + start, frames);
        let bad = frame(HOST_REGION + broken);
        given.iter().for_each(|frame| hw.write(frame, frame.number()));
        hw.poison(bad);
        let (_, total) = hw.pool_pages();
        let mut next = given.start().number();
        let mut met = 0;
        while next < given.end_number() {
            match system.pool_top_up(span(next, given.end_number() - next)) {
                Ok(done) => next += done,
                Err(refusal) => {
                    assert_eq!((refusal, next), (Status::Poisoned.into(), bad.number()));
                    met += 1;
                    next += 1;
                }
            }
            // What is not done is the host's, and as it was.
            for number in next..given.end_number() {
                let frame = frame(number);
                let is_met = number == bad.number() && entry(&system, frame) != Entry::plain(State::Host);
                assert!(
                    is_met || hw.contents(frame) == Contents::Written(number),
                    "{number:#x}"
                );
            }
            assert_sound(&system);
        }
        assert_eq!(met, 1, "{start} {frames} {broken}");
        for frame in given.iter() {
            let wanted = match frame == bad {
                true => Entry::plain(State::Poisoned),
                false => Entry::hyp(HypUse::Pool),
            };
            assert_eq!(entry(&system, frame), wanted);
        }
        assert_eq!(hw.pool_pages().1, total + frames - 1);
        let again = system.pool_top_up(span(bad.number(), 1));
        assert_eq!(again, Err(Status::Poisoned.into()));
    }
}

#[test]
fn all_frames_may_be_broken() {
    let system = machine();
    let hw = system.hardware();
    let given = span(HOST_REGION, 512);
    given.iter().for_each(|frame| hw.poison(frame));
    let (free, total) = hw.pool_pages();
    for number in 0..512 {
        let rest = span(HOST_REGION + number, 512 - number);
        assert_eq!(system.pool_top_up(rest), Err(Status::Poisoned.into()));
    }
    assert_sound(&system);
    // The region's node and the host's table of it: the last call was for a single page, after which nothing is folded.
    assert_eq!(hw.pool_pages(), (free - 2, total));
}

#[test]
fn a_top_up_that_an_interrupt_stops_gives_the_rest_back_as_it_was() {
    let whole = {
        let system = machine();
        assert_eq!(system.pool_top_up(span(HOST_REGION, 1024)), Ok(1024));
        system.hardware().pages_in_use()
    };
    for polls in [0, 1, 30, 31, 32] {
        let system = machine();
        let hw = system.hardware();
        let given = span(HOST_REGION, 1024);
        given.iter().for_each(|frame| hw.write(frame, frame.number()));
        let mut done = 0;
        while done < given.frames() {
            hw.interrupt_after(Some(polls));
            let rest = span(HOST_REGION + done, given.frames() - done);
            let now = system.pool_top_up(rest).unwrap();
            assert!((1..=16 * (polls + 1)).contains(&now), "{now} in {polls} polls");
            done += now;
            hw.interrupt_after(None);
            for number in HOST_REGION + done..given.end_number() {
                assert_eq!(entry(&system, frame(number)), Entry::plain(State::Host));
                assert_eq!(hw.contents(frame(number)), Contents::Written(number));
            }
            assert_sound(&system);
        }
        assert_eq!(hw.pages_in_use(), whole, "no table is left of the parts");
    }
}

#[test]
fn a_top_up_that_lacks_the_pages_for_a_broken_frame_begins_nothing() {
    let region = span(HOST_REGION, 512);
    for allowed in 0..4 {
        let system = machine();
        let hw = system.hardware();
        hw.write(region.start(), 7);
        hw.limit_pool(Some(allowed));
        let before = picture(&system);
        let Err(Refusal { status, pages_needed }) = system.pool_top_up(region) else {
            panic!("{allowed} pages do for a node, a table of the host's, and two of EL2's");
        };
        assert_eq!(status, Status::NoMemory);
        assert!(pages_needed > allowed);
        assert_eq!(picture(&system), before);
        assert_eq!(hw.contents(region.start()), Contents::Written(7));
        hw.limit_pool(None);
        assert_sound(&system);
    }
}
