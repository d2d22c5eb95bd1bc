//! What becomes of a guest's access, for every place that it can reach for, and the guard.

use super::*;
use crate::ownership::guest::GuestAccess::{self, Fetch, Read, Write};
use crate::ownership::guest::{GuestOutcome, GuestVerdict};

fn judge(system: &System, gfn: u64) -> [GuestVerdict; 3] {
    [Read, Write, Fetch].map(|access: GuestAccess| system.judge_guest_abort(1, ipa(gfn), access))
}

#[test]
fn an_access_is_judged_by_what_is_there() {
    let (system, vm) = with_vm(PROTECTED);
    system.guest_donate(vm, span(HOST_REGION, 2), MEMORY).unwrap();
    assert_eq!(judge(&system, MEMORY + 1), [GuestVerdict::Retry; 3]);
    let missing = GuestVerdict::Missing { gfn: MEMORY + 2 };
    assert_eq!(judge(&system, MEMORY + 2), [missing; 3]);
    let last = MEMORY + MEMORY_FRAMES - 1;
    assert_eq!(judge(&system, last), [GuestVerdict::Missing { gfn: last }; 3]);
    let device = [GuestVerdict::Mmio, GuestVerdict::Mmio, GuestVerdict::Inject];
    assert_eq!(judge(&system, last + 1), device);
    assert_eq!(judge(&system, MEMORY - 1), device);
    let beyond = Ipa::new(1 << IPA_BITS).unwrap();
    assert_eq!(system.judge_guest_abort(1, beyond, Read), GuestVerdict::Inject);
    assert_eq!(
        system.judge_guest_abort(9, ipa(MEMORY), Read),
        GuestVerdict::Inject
    );
}

#[test]
fn under_the_guard_only_what_the_guest_named_is_a_device() {
    let (system, vm) = with_vm(PROTECTED);
    let device = [GuestVerdict::Mmio, GuestVerdict::Mmio, GuestVerdict::Inject];
    assert_eq!(judge(&system, 0x900), device);
    assert_eq!(
        system.guest_guard_unmap(1, range(0x900, 1)),
        GuestOutcome::Done(1)
    );
    assert!(
        !of_vm(&system, 1, |vm| vm.guard),
        "ending what never was does not begin the guard"
    );
    assert_eq!(system.guest_guard_map(1, range(0x900, 2)), GuestOutcome::Done(2));
    assert_eq!(judge(&system, 0x900), device);
    assert_eq!(judge(&system, 0x902), [GuestVerdict::Inject; 3]);
    assert_eq!(judge(&system, MEMORY), [GuestVerdict::Missing { gfn: MEMORY }; 3]);
    assert_eq!(system.guest_guard_map(1, range(0x901, 2)), GuestOutcome::Done(2));
    assert_eq!(
        system.guest_guard_unmap(1, range(0x900, 1)),
        GuestOutcome::Done(1)
    );
    assert_eq!(judge(&system, 0x900), [GuestVerdict::Inject; 3]);
    // The host puts nothing where the guest expects a device.
    let refused = system.guest_donate(vm, span(HOST_REGION, 1), 0x901);
    assert_eq!(refused, Err(hyp_abi::Status::GfnMapped.into()));
    assert_sound(&system);
}

#[test]
fn a_refused_guard_call_puts_no_guard_in_force() {
    let (system, vm) = with_vm(PROTECTED);
    system.guest_donate(vm, span(HOST_REGION, 1), 0x900).unwrap();
    let before = everything(&system);
    for refused in [
        range(0x900, 1),
        range(0x900, 2),
        range(MEMORY, 1),
        range(1 << 28, 1),
    ] {
        assert_eq!(system.guest_guard_map(1, refused), GuestOutcome::Refused);
    }
    assert_eq!(everything(&system), before);
    // Nor does one that waits for pages.
    let (system, _) = with_vm(Kind {
        reserve: 0,
        ..PROTECTED
    });
    let waiting = system.guest_guard_map(1, range(0x900, 1));
    assert!(matches!(waiting, GuestOutcome::NeedsPages(_)), "{waiting:?}");
    assert!(!of_vm(&system, 1, |vm| vm.guard));
    // Done in part is done.
    let (system, vm) = with_vm(PROTECTED);
    system.guest_donate(vm, span(HOST_REGION, 1), 0x901).unwrap();
    assert_eq!(system.guest_guard_map(1, range(0x900, 2)), GuestOutcome::Done(1));
    assert!(of_vm(&system, 1, |vm| vm.guard));
    assert_sound(&system);
}

#[test]
fn memory_is_never_a_device() {
    let (system, vm) = with_vm(PROTECTED);
    system.guest_donate(vm, span(HOST_REGION, 1), 0x100).unwrap();
    let before = everything(&system);
    for gfn in [MEMORY, MEMORY + MEMORY_FRAMES - 1, 0x100] {
        assert_eq!(system.guest_guard_map(1, range(gfn, 1)), GuestOutcome::Refused);
        assert_eq!(system.guest_guard_unmap(1, range(gfn, 1)), GuestOutcome::Refused);
    }
    assert_eq!(everything(&system), before);
    assert_eq!(
        system.guest_guard_map(1, range(MEMORY - 3, 10)),
        GuestOutcome::Done(3)
    );
    assert_eq!(system.guest_guard_map(1, range(0xff, 3)), GuestOutcome::Done(1));
    assert_sound(&system);
}

#[test]
fn a_wide_device_takes_no_more_tables_than_it_must() {
    let (system, _) = with_vm(PROTECTED);
    let (reserve, _) = pages(&system);
    assert_eq!(
        system.guest_guard_map(1, range(0x1000, 0x2000)),
        GuestOutcome::Done(0x2000)
    );
    assert_eq!(pages(&system), (reserve - 1, 1));
    assert_eq!(
        system.guest_guard_unmap(1, range(0x1001, 1)),
        GuestOutcome::Done(1)
    );
    assert_eq!(judge(&system, 0x1001), [GuestVerdict::Inject; 3]);
    assert_eq!(judge(&system, 0x1002)[0], GuestVerdict::Mmio);
    assert_eq!(pages(&system), (reserve - 2, 2));
    assert_eq!(
        system.guest_guard_unmap(1, range(0x1000, 0x2000)),
        GuestOutcome::Done(0x2000)
    );
    assert_eq!(pages(&system), (reserve - 1, 1));
    assert_sound(&system);
}
