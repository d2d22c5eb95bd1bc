//! What takes long, and who waits for it.

use super::support::*;
use crate::{Error, MemfdConfig};
use hyp_abi::vm::VmFlags;
use hyp_abi::{CallId, GuestRange, Status, VmCallId};

const DIGEST: CallId = CallId::Vm(VmCallId::Digest);

#[test]
fn who_goes_through_a_file_lets_others_have_the_cpu_at_each_block() {
    let machine = Machine::new();
    let guest = machine.guest(VmFlags::PROTECTED, MemfdConfig::new(64 * P));
    let mut before = machine.fake.pauses();
    let mut has_paused = |what: &str| {
        let now = machine.fake.pauses();
        assert!(now - before >= 64, "{what}: {} pauses", now - before);
        before = now;
    };
    guest.file.allocate(0, 64 * P).unwrap();
    has_paused("to allocate");
    guest.vm.populate(GuestRange::new(GFN, 64)).unwrap();
    has_paused("to donate");
    guest.vm.destroy().unwrap();
    has_paused("to end a VM");
    guest.file.punch(0, 64 * P).unwrap();
    has_paused("to punch");
    guest.file.allocate(0, 64 * P).unwrap();
    has_paused("to allocate again");
    drop(guest);
    has_paused("to free a file");
    machine.assert_nothing_left();
}

#[test]
fn who_is_killed_waits_for_nothing() {
    let machine = Machine::new();
    let guest = machine.guest(VmFlags::PROTECTED, MemfdConfig::new(64 * P));
    machine.fake.set_killed(true);
    assert_eq!(guest.file.allocate(0, 64 * P), Err(Error::Interrupted));
    assert_eq!(guest.file.resident_pages(), 0);
    let stopped = guest.vm.populate(GuestRange::new(GFN, 64)).unwrap_err();
    assert_eq!((stopped.done, stopped.error), (0, Error::Interrupted));
    machine.fake.refuse_next(DIGEST, Status::Busy);
    assert_eq!(guest.vm.digest(), Err(Error::Interrupted));
    machine.fake.set_killed(false);
    machine.fake.refuse_next(DIGEST, Status::Busy);
    assert!(guest.vm.digest().is_ok());
    // Its memory comes back also while it is being killed.
    machine.fake.set_killed(true);
    drop(guest);
    machine.assert_nothing_left();
}

#[test]
fn nobody_waits_for_another_cpu_for_ever() {
    let machine = Machine::new();
    let guest = machine.guest(VmFlags::PROTECTED, MemfdConfig::new(P));
    for _ in 0..100_000 {
        machine.fake.refuse_next(DIGEST, Status::Busy);
    }
    let error = guest.vm.digest().unwrap_err();
    assert_eq!(error.status(), Some(Status::Busy));
}
