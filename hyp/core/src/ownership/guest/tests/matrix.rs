//! Every call against every state of a frame, and of a guest's page: the exact answer, and proof that a refusal changed
//! nothing.

use super::*;
use crate::ownership::Refusal;
use crate::ownership::guest::GuestOutcome;
use crate::pgtable::{Change, LargestLeaf};
use crate::state::{HypUse, State, Transit, TransitReason};
use crate::vm::GuestAnnotation;
use hyp_abi::Status;

/// A frame in the middle of a region, so that calls on it split.
const FRAME: u64 = HOST_REGION + 77;

/// What a frame can be. The guests that these frames name do not live: slot 9 is empty.
fn every_entry() -> Vec<Entry> {
    let numbered = |state: State| matches!(state, State::Guest | State::GuestSharedHost);
    let mut entries: Vec<Entry> = State::all()
        .filter(|state| !matches!(state, State::Hyp | State::InTransit) && !numbered(*state))
        .map(Entry::plain)
        .collect();
    entries.extend([HypUse::Boot, HypUse::Pool, HypUse::Donated].map(Entry::hyp));
    entries.push(Entry::plain(State::HostSharedHyp).with_count(1).unwrap());
    entries.push(Entry::borrowed(2).unwrap());
    entries.push(Entry::guest(false, 9, 1000));
    entries.push(Entry::guest(true, 9, 1000));
    entries.push(Entry::guest(true, 9, 1000).with_count(1).unwrap());
    for reason in [
        TransitReason::Donate,
        TransitReason::Reclaim,
        TransitReason::GuestDonate,
        TransitReason::GuestReclaim,
        TransitReason::GuestForce,
        TransitReason::GuestRelinquish,
        TransitReason::TopUp,
    ] {
        entries.push(Entry::in_transit(Transit {
            reason,
            active: true,
            progress: 0,
        }));
    }
    entries
}

type GuestCall = fn(&System) -> GuestOutcome;
type HostCall = fn(&System, u64, u64) -> Result<u64, Refusal>;

fn answers(entry: Entry) -> [(&'static str, bool, HostCall, Result<u64, Status>); 6] {
    let state = entry.state();
    let plain = state.host_refusal().map_or(Ok(1), Err);
    let pinned = entry.count() > 0;
    let (pin, unpin) = match state {
        State::GuestSharedHost => (Ok(1), if pinned { Ok(1) } else { Err(Status::NotPinned) }),
        _ => (Err(Status::NotShared), Err(Status::NotPinned)),
    };
    [
        (
            "donate",
            true,
            |system, vm, at| system.guest_donate(vm, span(at, 1), MEMORY),
            plain,
        ),
        (
            "share",
            false,
            |system, vm, at| system.guest_share(vm, span(at, 1), MEMORY, 7),
            if state == State::HostSharedGuest {
                Ok(1)
            } else {
                plain
            },
        ),
        ("pin", true, |system, _, at| system.pin_shared(span(at, 1)), pin),
        (
            "unpin",
            true,
            |system, _, at| system.unpin_shared(span(at, 1)),
            unpin,
        ),
        (
            "take back",
            true,
            |system, _, at| system.take_back(span(at, 1)),
            match state {
                State::Relinquished => Ok(1),
                State::Poisoned => Err(Status::Poisoned),
                _ => Err(Status::NotRelinquished),
            },
        ),
        (
            "force",
            true,
            |system, _, at| system.force_reclaim(frame(at)).map(|()| 1),
            match state {
                // The guest that it names is not there to be asked.
                State::InTransit | State::Guest => Err(Status::Busy),
                _ => Err(Status::NotOwner),
            },
        ),
    ]
}

#[test]
fn every_call_on_every_state_of_a_frame_answers_what_it_documents() {
    for entry in every_entry() {
        for (name, protected, call, wanted) in answers(entry) {
            for neighbours in [false, true] {
                let (system, vm) = with_vm(Kind {
                    protected,
                    ..PROTECTED
                });
                system.force(span(FRAME, 1), entry);
                if neighbours && protected {
                    // The short way is open.
                    system.guest_donate(vm, span(FRAME + 3, 1), MEMORY + 3).unwrap();
                }
                let before = everything(&system);
                let what = std::format!("{name} of {entry:?}");
                let answer = call(&system, vm, FRAME).map_err(|refusal| refusal.status);
                assert_eq!(answer, wanted, "{what}");
                if wanted.is_err() {
                    assert_eq!(everything(&system), before, "{what}: a refusal changed something");
                }
            }
        }
    }
}

#[test]
fn frames_that_are_no_ram_are_refused() {
    let (system, vm) = with_vm(PROTECTED);
    let before = everything(&system);
    let no_ram = Err(Status::NotMemory.into());
    for at in [0, 0x900, (1 << 36) - 1] {
        assert_eq!(system.guest_donate(vm, span(at, 1), MEMORY), no_ram);
        assert_eq!(system.pin_shared(span(at, 1)), no_ram);
        assert_eq!(system.unpin_shared(span(at, 1)), no_ram);
        assert_eq!(system.take_back(span(at, 1)), no_ram);
        assert_eq!(system.force_reclaim(frame(at)), Err(Status::NotMemory.into()));
    }
    assert_eq!(everything(&system), before);
}

/// What can be at a page of a protected guest's memory.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum At {
    Annotated(GuestAnnotation),
    Private,
    InBlock,
    Lent,
    Pinned,
}

const EVERYWHERE: [At; 8] = [
    At::Annotated(GuestAnnotation::Absent),
    At::Annotated(GuestAnnotation::Busy),
    At::Annotated(GuestAnnotation::Lost),
    At::Annotated(GuestAnnotation::Device),
    At::Private,
    At::InBlock,
    At::Lent,
    At::Pinned,
];

/// A machine where that is at [`PAGE`].
fn prepare(at: At) -> (System, u64) {
    let (system, vm) = with_vm(PROTECTED);
    let page = span(HOST_REGION + 9, 1);
    match at {
        At::Annotated(annotation) => of_vm(&system, 1, |vm| {
            let hw = system.hardware();
            let page = IpaSpan::new(ipa(PAGE), 1).unwrap();
            let change = Change::Unmap {
                annotation: annotation.encode(),
                largest: LargestLeaf::Page,
            };
            let owed = vm.change(hw, page, change);
            vm.pay(hw, owed);
        }),
        At::InBlock => {
            system.guest_donate(vm, span(HOST_REGION, 512), MEMORY).unwrap();
        }
        At::Private | At::Lent | At::Pinned => {
            system.guest_donate(vm, page, PAGE).unwrap();
            if at != At::Private {
                system.guest_lend(1, range(PAGE, 1));
            }
            if at == At::Pinned {
                system.pin_shared(page).unwrap();
            }
        }
    }
    (system, vm)
}

const PAGE: u64 = MEMORY + 9;

#[test]
fn every_call_of_the_guest_on_every_page_answers_what_it_documents() {
    use GuestAnnotation::{Absent, Busy, Device, Lost};
    use GuestOutcome::{Done, Refused};
    for at in EVERYWHERE {
        let [lend, unlend, relinquish] = match at {
            At::Annotated(Absent) => [GuestOutcome::Absent(PAGE); 3],
            At::Annotated(Busy) => [GuestOutcome::Busy; 3],
            At::Annotated(Lost | Device) => [Refused; 3],
            At::Private | At::InBlock => [Done(1), Refused, Done(1)],
            At::Lent => [Refused, Done(1), Done(1)],
            At::Pinned => [Refused, GuestOutcome::Pinned(PAGE), GuestOutcome::Pinned(PAGE)],
        };
        // Memory is never a device.
        let guard = if at == At::Annotated(Busy) {
            GuestOutcome::Busy
        } else {
            Refused
        };
        let calls: [(GuestCall, GuestOutcome); 5] = [
            (|system| system.guest_lend(1, range(PAGE, 1)), lend),
            (|system| system.guest_unlend(1, range(PAGE, 1)), unlend),
            (|system| system.guest_relinquish(1, range(PAGE, 1)), relinquish),
            (|system| system.guest_guard_map(1, range(PAGE, 1)), guard),
            (|system| system.guest_guard_unmap(1, range(PAGE, 1)), guard),
        ];
        for (number, (call, wanted)) in calls.into_iter().enumerate() {
            let (system, _) = prepare(at);
            let before = everything(&system);
            assert_eq!(call(&system), wanted, "call {number} at {at:?}");
            if wanted != Done(1) {
                assert_eq!(everything(&system), before, "call {number} at {at:?}");
            }
            assert_sound(&system);
        }
    }
}

#[test]
fn every_call_of_the_host_on_every_page_answers_what_it_documents() {
    use GuestAnnotation::{Absent, Busy, Device, Lost};
    for at in EVERYWHERE {
        let donate = match at {
            At::Annotated(Absent) => Ok(1),
            At::Annotated(Busy) => Err(Status::Busy),
            At::Annotated(Lost) => Err(Status::GfnLost),
            At::Annotated(Device) | At::Private | At::InBlock | At::Lent | At::Pinned => {
                Err(Status::GfnMapped)
            }
        };
        let reclaim = match at {
            At::Annotated(Busy) => Err(Status::Busy),
            At::Pinned => Err(Status::Pinned),
            _ => Ok(1),
        };
        for (dying, wanted) in [(false, donate), (true, reclaim)] {
            let (system, vm) = prepare(at);
            if dying {
                die(&system);
            }
            let before = everything(&system);
            let answer = if dying {
                system.guest_reclaim(vm, range(PAGE, 1))
            } else {
                system.guest_donate(vm, span(HOST_REGION + 600, 1), PAGE)
            };
            assert_eq!(answer.map_err(|refusal| refusal.status), wanted, "{at:?}");
            if wanted.is_err() {
                assert_eq!(everything(&system), before, "{at:?}");
            }
            assert_sound(&system);
        }
    }
}

#[test]
fn calls_are_refused_to_vms_of_the_other_kind_and_of_another_life() {
    let page = span(HOST_REGION, 1);
    let wrong = |answer: Result<u64, Refusal>, status: Status| assert_eq!(answer, Err(status.into()));
    let (system, vm) = with_vm(OPEN);
    let before = everything(&system);
    wrong(system.guest_donate(vm, page, MEMORY), Status::WrongVmKind);
    wrong(system.guest_reclaim(vm, range(MEMORY, 1)), Status::WrongVmKind);
    for outcome in [
        system.guest_lend(1, range(MEMORY, 1)),
        system.guest_unlend(1, range(MEMORY, 2)),
        system.guest_relinquish(1, range(MEMORY, 1)),
    ] {
        assert_eq!(outcome, GuestOutcome::Refused);
    }
    die(&system);
    wrong(system.guest_share(vm, page, MEMORY, 7), Status::WrongVmState);
    of_vm(&system, 1, |vm| vm.life = LAUNCHED);
    assert_eq!(everything(&system), before);

    let (system, vm) = with_vm(PROTECTED);
    let before = everything(&system);
    wrong(system.guest_share(vm, page, MEMORY, 7), Status::WrongVmKind);
    wrong(system.guest_unshare(vm, range(MEMORY, 1)), Status::WrongVmKind);
    wrong(
        system.guest_set_permissions(vm, range(MEMORY, 1), 7),
        Status::WrongVmKind,
    );
    wrong(
        system.guest_test_age(vm, range(MEMORY, 1)).map(|aged| aged.used),
        Status::WrongVmKind,
    );
    wrong(system.guest_reclaim(vm, range(MEMORY, 1)), Status::WrongVmState);
    die(&system);
    wrong(system.guest_donate(vm, page, MEMORY), Status::WrongVmState);
    of_vm(&system, 1, |vm| vm.life = LAUNCHED);
    assert_eq!(everything(&system), before);
}

#[test]
fn handles_and_ranges_that_name_nothing_are_refused() {
    let end = 1 << (IPA_BITS - FRAME_SHIFT);
    for kind in [PROTECTED, OPEN] {
        let (system, vm) = with_vm(kind);
        let before = everything(&system);
        let calls: Vec<(bool, HostCall)> = std::vec![
            (true, |system, vm, gfn| system.guest_donate(
                vm,
                span(HOST_REGION, 2),
                gfn
            )),
            (false, |system, vm, gfn| system.guest_share(
                vm,
                span(HOST_REGION, 2),
                gfn,
                7
            )),
            (false, |system, vm, gfn| system.guest_unshare(vm, range(gfn, 2))),
            (false, |system, vm, gfn| system.guest_set_permissions(
                vm,
                range(gfn, 2),
                7
            )),
            (false, |system, vm, gfn| system
                .guest_test_age(vm, range(gfn, 2))
                .map(|aged| aged.used)),
        ];
        for (protected, call) in calls {
            for no_vm in [0, 1, vm + 1, vm + 256, u64::MAX] {
                assert_eq!(call(&system, no_vm, MEMORY), Err(Status::NoSuchVm.into()));
            }
            if protected == kind.protected {
                for gfn in [end - 1, end, 1 << 36, 1 << 52, u64::MAX - 1, u64::MAX] {
                    assert_eq!(call(&system, vm, gfn), Err(Status::GfnOutOfRange.into()));
                }
            }
        }
        for empty in [
            system.guest_unshare(vm, range(MEMORY, 0)),
            system.guest_reclaim(vm, range(MEMORY, 0)),
            system.guest_set_permissions(vm, range(MEMORY, 0), 7),
            system.guest_test_age(vm, range(MEMORY, 0)).map(|aged| aged.used),
        ] {
            assert_eq!(empty, Err(Status::EmptyRange.into()));
        }
        assert_eq!(everything(&system), before);
    }
    let (system, vm) = with_vm(PROTECTED);
    die(&system);
    for frames in [2, u64::MAX] {
        let refused = system.guest_reclaim(vm, range(end - 1, frames));
        assert_eq!(refused, Err(Status::GfnOutOfRange.into()));
    }
}

#[test]
fn a_range_with_one_bad_frame_is_refused_whole() {
    for entry in every_entry()
        .into_iter()
        .filter(|entry| entry.state() != State::Host)
    {
        let (system, vm) = with_vm(PROTECTED);
        system.force(span(FRAME, 1), entry);
        let before = everything(&system);
        let around = span(FRAME - 3, 7);
        let refused = system
            .guest_donate(vm, around, MEMORY)
            .map_err(|refusal| refusal.status);
        assert_eq!(refused, Err(entry.state().host_refusal().unwrap()));
        assert_eq!(everything(&system), before);
    }
}
