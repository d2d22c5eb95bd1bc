//! Every call of the host against a frame in every state: the exact answer, and proof that a refusal changed nothing.

use super::{HOST_REGION, System, assert_sound, machine, picture, span};
use crate::addr::{Frame, FrameSpan};
use crate::hypercall::host_call;
use crate::map::Entry;
use crate::state::{HypUse, State, Transit, TransitReason};
use hyp_abi::{FrameRange, HostCall, Status};

/// A frame in the middle of a region, so that calls on it split.
const FRAME: u64 = HOST_REGION + 77;

/// What a frame can be. More than states: what EL2 uses it for and who is at work on it matter too.
fn every_entry() -> std::vec::Vec<Entry> {
    let mut entries: std::vec::Vec<Entry> = State::all()
        .filter(|state| {
            !matches!(
                state,
                State::Hyp
                    | State::InTransit
                    | State::Guest
                    | State::GuestSharedHost
                    | State::HostSharedGuest
            )
        })
        .map(Entry::plain)
        .collect();
    entries.extend([HypUse::Boot, HypUse::Pool, HypUse::Donated].map(Entry::hyp));
    entries.push(Entry::plain(State::HostSharedHyp).with_count(1).unwrap());
    entries.extend([1, 2].map(|borrowers| Entry::borrowed(borrowers).unwrap()));
    entries.push(Entry::guest(false, 3, 1000));
    entries.push(Entry::guest(true, 3, 1000).with_count(1).unwrap());
    for reason in [
        TransitReason::Donate,
        TransitReason::Reclaim,
        TransitReason::Drain,
        TransitReason::TopUp,
    ] {
        for active in [false, true] {
            entries.push(Entry::in_transit(Transit {
                reason,
                active,
                progress: 0,
            }));
        }
    }
    entries
}

/// Puts the frame in a state by hand, with the tables as that state wants them.
fn prepare(entry: Entry) -> System {
    let system = machine();
    system.force(span(FRAME, 1), entry);
    system
}

/// Everything agrees, but that no guest is there to which a frame that was put in a state by hand would belong.
fn assert_sound_but_for_guests(system: &System, entry: Entry) {
    let missing = u64::from(entry.state().is_numbered());
    let found: u64 = system
        .map()
        .regions()
        .map(|region| system.audit(region).unwrap().disagreements)
        .sum();
    assert_eq!(found, missing);
    system.hardware().assert_coherent();
}

/// The status that a call on the frame must answer, or `None` if it must succeed.
fn expected(call: HostCall, entry: Entry) -> Option<Status> {
    let state = entry.state();
    match call {
        HostCall::ShareHyp(_) | HostCall::DonateHyp(_) | HostCall::PoolTopUp(_) => match state {
            State::Host => None,
            State::HostSharedHyp => Some(Status::SharedWithHyp),
            State::HostSharedGuest => Some(Status::SharedWithGuest),
            State::HostSharedSecure | State::HostLentSecure => Some(Status::SharedWithSecure),
            State::Hyp | State::Guest | State::GuestSharedHost | State::Relinquished => {
                Some(Status::NotOwner)
            }
            State::InTransit => Some(Status::Busy),
            State::Poisoned => Some(Status::Poisoned),
            State::Device => Some(Status::NotMemory),
            State::Reserved => Some(Status::Reserved),
        },
        HostCall::UnshareHyp(_) | HostCall::TraceAttach { .. } => match state {
            State::Host => Some(Status::NotShared),
            State::HostSharedHyp => match call {
                HostCall::UnshareHyp(_) if entry.count() > 0 => Some(Status::Pinned),
                _ => None,
            },
            State::HostSharedGuest => Some(Status::SharedWithGuest),
            State::HostSharedSecure | State::HostLentSecure => Some(Status::SharedWithSecure),
            State::Hyp | State::Guest | State::GuestSharedHost | State::Relinquished => {
                Some(Status::NotOwner)
            }
            State::InTransit => Some(Status::Busy),
            State::Poisoned => Some(Status::Poisoned),
            State::Device => Some(Status::NotMemory),
            State::Reserved => Some(Status::Reserved),
        },
        HostCall::ReclaimHyp(_) => match state {
            State::Hyp if entry.hyp_use() == Some(HypUse::Donated) => None,
            State::InTransit => Some(Status::Busy),
            State::Poisoned => Some(Status::Poisoned),
            State::Device => Some(Status::NotMemory),
            State::Reserved => Some(Status::Reserved),
            _ => Some(Status::NotDonated),
        },
        _ => None,
    }
}

#[test]
fn every_call_on_every_state_answers_what_it_documents() {
    let range = FrameRange::new(FRAME << 12, 1);
    let calls = [
        HostCall::ShareHyp(range),
        HostCall::UnshareHyp(range),
        HostCall::DonateHyp(range),
        HostCall::ReclaimHyp(range),
        HostCall::PoolTopUp(range),
        HostCall::Collapse(range),
        HostCall::FrameState { frame: range.base },
        HostCall::Audit(range),
        HostCall::TraceAttach {
            cpu: 0,
            frame: range.base,
        },
        HostCall::TraceDetach { cpu: 0 },
    ];
    for entry in every_entry() {
        for call in calls {
            let system = prepare(entry);
            let before = picture(&system);
            let pages = system.hardware().pages_in_use();
            let answer = host_call(&system, call.encode());
            let what = std::format!("{call:?} on {entry:?}");
            let wanted = match call {
                HostCall::TraceDetach { .. } => Some(Status::WrongTraceState),
                _ => expected(call, entry),
            };
            assert_eq!(answer.status, wanted.unwrap_or(Status::Success), "{what}");
            if wanted.is_some() {
                assert_eq!(picture(&system), before, "{what}: a refusal changed the map");
                assert_eq!(
                    system.hardware().pages_in_use(),
                    pages,
                    "{what}: a refusal kept pages"
                );
            }
            assert_sound_but_for_guests(&system, entry);
        }
    }
}

#[test]
fn a_range_with_one_bad_frame_is_refused_whole() {
    for entry in every_entry()
        .into_iter()
        .filter(|entry| entry.state() != State::Host)
    {
        let system = prepare(entry);
        let before = picture(&system);
        let around = FrameRange::new((FRAME - 3) << 12, 7);
        for call in [
            HostCall::ShareHyp(around),
            HostCall::DonateHyp(around),
            HostCall::PoolTopUp(around),
        ] {
            let answer = host_call(&system, call.encode());
            assert_eq!(
                Some(answer.status),
                expected(call, entry),
                "{call:?} around {entry:?}"
            );
            assert_eq!(picture(&system), before);
        }
        assert_sound_but_for_guests(&system, entry);
    }
}

#[test]
fn bad_ranges_are_refused_by_every_ranged_call() {
    let system = machine();
    let before = picture(&system);
    let ram = HOST_REGION << 12;
    let cases = [
        (ram + 1, 1, Status::Misaligned),
        (ram + 0xfff, 0, Status::Misaligned),
        (u64::MAX, u64::MAX, Status::Misaligned),
        (ram, 0, Status::EmptyRange),
        (ram, u64::MAX, Status::RangeOverflow),
        (ram, 1 << 52, Status::RangeOverflow),
        (1 << 48, 1, Status::RangeOverflow),
        (u64::MAX << 12, 1, Status::RangeOverflow),
        ((1 << 48) - 0x1000, 2, Status::RangeOverflow),
        ((1 << 48) - 0x1000, 1, Status::NotMemory),
        (0, 1, Status::NotMemory),
        (0x0900_0000, 1, Status::NotMemory),
        ((super::RAM + super::RAM_FRAMES) << 12, 1, Status::NotMemory),
        ((super::RAM << 12) - 0x1000, 2, Status::NotMemory),
    ];
    for (base, frames, status) in cases {
        let range = FrameRange::new(base, frames);
        for call in [
            HostCall::ShareHyp(range),
            HostCall::UnshareHyp(range),
            HostCall::DonateHyp(range),
            HostCall::ReclaimHyp(range),
            HostCall::PoolTopUp(range),
            HostCall::Collapse(range),
            HostCall::Audit(range),
        ] {
            assert_eq!(host_call(&system, call.encode()).status, status, "{call:?}");
        }
    }
    assert_eq!(picture(&system), before);
    assert_sound(&system);
}

#[test]
fn arguments_that_name_nothing_are_refused() {
    let system = machine();
    let page = HOST_REGION << 12;
    let refused = |call: HostCall| host_call(&system, call.encode()).status;
    assert_eq!(refused(HostCall::PoolDrain { frames: 0 }), Status::EmptyRange);
    assert_eq!(
        refused(HostCall::Statistics { statistic: 8 }),
        Status::InvalidParameter
    );
    assert_eq!(
        refused(HostCall::Statistics { statistic: u64::MAX }),
        Status::InvalidParameter
    );
    for cpu in [8, 1 << 32, u64::MAX] {
        assert_eq!(
            refused(HostCall::Counter { cpu, counter: 0 }),
            Status::InvalidParameter
        );
        assert_eq!(
            refused(HostCall::TraceAttach { cpu, frame: page }),
            Status::InvalidParameter
        );
        assert_eq!(refused(HostCall::TraceDetach { cpu }), Status::InvalidParameter);
    }
    assert_eq!(
        refused(HostCall::Counter {
            cpu: 0,
            counter: hyp_abi::Counter::COUNT as u64
        }),
        Status::InvalidParameter
    );
    assert_eq!(
        refused(HostCall::TraceAttach {
            cpu: 0,
            frame: page + 8
        }),
        Status::Misaligned
    );
    assert_eq!(
        refused(HostCall::FrameState { frame: page + 8 }),
        Status::Misaligned
    );
    assert_eq!(
        refused(HostCall::FrameState { frame: 1 << 48 }),
        Status::RangeOverflow
    );
    assert_eq!(refused(HostCall::FrameState { frame: 0 }), Status::NotMemory);
    for (register, ipa_bits) in [
        (0xc020, 0),
        (0xc020, 49),
        (0xc020, 1 << 32),
        (0xc000, 32),
        (1 << 16 | 0xc020, 32),
    ] {
        let call = HostCall::GuestRegister { register, ipa_bits };
        assert_eq!(refused(call), Status::InvalidParameter, "{call:x?}");
    }
    assert_eq!(
        host_call(&system, [0xC600_4600 + 16, 0, 0, 0, 0, 0, 0]).status,
        Status::NotSupported
    );
}

#[test]
fn the_host_learns_nothing_of_frames_that_are_not_its_own() {
    for entry in every_entry() {
        let system = prepare(entry);
        let info = system.frame_info(Frame::new(FRAME).unwrap()).unwrap();
        assert_eq!(info.state, entry.state().shown_to_host());
        if info.state == hyp_abi::FrameState::NotYours {
            assert_eq!((info.count, info.agreeing), (0, 4096));
        } else {
            assert_eq!(info.count, entry.count());
        }
    }
}

#[test]
fn too_many_pins_are_refused_and_the_last_one_holds() {
    let full = Entry::plain(State::HostSharedHyp)
        .with_count(crate::map::MAX_COUNT)
        .unwrap();
    let system = prepare(full);
    let frame = Frame::new(FRAME).unwrap();
    assert_eq!(system.pin(frame).unwrap_err().status, Status::CountOverflow);
    assert_eq!(
        system.unshare_hyp(FrameSpan::single(frame)).unwrap_err().status,
        Status::Pinned
    );
    system.unpin(frame).unwrap();
    system.pin(frame).unwrap();
    assert_eq!(system.pin(frame).unwrap_err().status, Status::CountOverflow);
}
