//! Pins against everything that would take the page.

use super::support::*;
use crate::fake::{Act, Owner};
use crate::vcpu::{Entry, PinnedPolicy};
use crate::{Error, Exit, MemfdConfig};
use hyp_abi::vm::VmFlags;
use hyp_abi::{CallId, Status, VmCallId};

fn sharing(machine: &Machine) -> Guest {
    let mut guest = machine.guest(VmFlags::PROTECTED, MemfdConfig::new(4 * P));
    let acts = [Act::Write(GFN, 1), Act::Share(GFN), Act::Share(GFN + 1)];
    machine.fake.program(guest.vm.handle(), 0, acts);
    guest.run();
    machine.fake.results(guest.vm.handle());
    guest
}

#[test]
fn a_pinned_page_is_not_punched() {
    let machine = Machine::new();
    let vm = machine.plain();
    let config = MemfdConfig {
        flags: crate::memfd::MemfdFlags::all(),
        ..MemfdConfig::new(4 * P)
    };
    let file = machine.file_with(&vm, config);
    file.allocate(0, 4 * P).unwrap();
    let first = file.pin(2 * P, P).unwrap();
    let second = file.pin(2 * P, 2 * P).unwrap();
    assert_eq!(file.punch(0, 4 * P), Err(Error::Pinned { offset: 2 * P }));
    assert_eq!(file.resident_pages(), 4);
    drop(first);
    assert_eq!(file.punch(2 * P, P), Err(Error::Pinned { offset: 2 * P }));
    drop(second);
    file.punch(0, 4 * P).unwrap();
    assert_eq!(file.resident_pages(), 0);
    drop((file, vm));
    machine.assert_nothing_left();
}

#[test]
fn a_guest_that_wants_a_pinned_page_is_refused() {
    let machine = Machine::new();
    let mut guest = sharing(&machine);
    let handle = guest.vm.handle();
    let pin = guest.file.pin(0, P).unwrap();
    machine
        .fake
        .program(handle, 0, [Act::Unshare(GFN), Act::Relinquish(GFN, 1)]);
    guest.run();
    assert_eq!(machine.fake.results(handle), [-3, -3]);
    drop(pin);
    machine.fake.program(handle, 0, [Act::Unshare(GFN)]);
    guest.run();
    assert_eq!(machine.fake.results(handle), [0]);
    drop(guest);
    machine.assert_nothing_left();
}

#[test]
fn the_caller_may_unpin_and_let_the_guest_try_again() {
    let machine = Machine::new();
    let mut guest = sharing(&machine);
    let handle = guest.vm.handle();
    let pin = guest.file.pin(0, P).unwrap();
    machine.fake.program(handle, 0, [Act::Unshare(GFN)]);
    let exit = guest.vcpu.run_on(&Entry::new(), PinnedPolicy::Return);
    assert_eq!(exit, Ok(Exit::Pinned { gfn: GFN }));
    drop(pin);
    let exit = guest.vcpu.run_on(&Entry::new().retry(), PinnedPolicy::Return);
    assert_eq!(exit, Ok(Exit::Interrupt));
    assert_eq!(machine.fake.results(handle), [0]);
}

#[test]
fn pins_are_counted_page_by_page() {
    let machine = Machine::new();
    let guest = sharing(&machine);
    let handle = guest.vm.handle();
    let frame = machine.fake.mapped(handle, GFN).unwrap();
    let pins = [guest.file.pin(0, P).unwrap(), guest.file.pin(0, 2 * P).unwrap()];
    let slot = handle.slot;
    assert_eq!(machine.fake.owner(frame), Owner::GuestShared { slot, pins: 2 });
    assert_eq!(pins[1].frames().count(), 2);
    drop(pins);
    assert_eq!(machine.fake.owner(frame), Owner::GuestShared { slot, pins: 0 });
}

#[test]
fn a_pin_that_is_refused_in_the_middle_pins_nothing() {
    let machine = Machine::new();
    let guest = sharing(&machine);
    let handle = guest.vm.handle();
    assert_eq!(
        guest.file.pin(0, 3 * P).err(),
        Some(Error::NotShared { offset: 2 * P })
    );
    // The guest may also take a page back between the host's look and the host's pin.
    machine
        .fake
        .refuse_next(CallId::Vm(VmCallId::PinShared), Status::NotShared);
    assert_eq!(guest.file.pin(0, P).err(), Some(Error::NotShared { offset: 0 }));
    for gfn in [GFN, GFN + 1] {
        let frame = machine.fake.mapped(handle, gfn).unwrap();
        let slot = handle.slot;
        assert_eq!(machine.fake.owner(frame), Owner::GuestShared { slot, pins: 0 });
    }
}

#[test]
fn a_pin_outlives_its_file_and_its_vm() {
    let machine = Machine::new();
    let Guest { vm, file, vcpu } = sharing(&machine);
    let frame = machine.fake.mapped(vm.handle(), GFN).unwrap();
    let pin = file.pin(0, P).unwrap();
    drop((vm, vcpu, file));
    // The VM is dying, and its other pages are back.
    assert_eq!(machine.fake.vms(), 1);
    let mut byte = [0];
    pin.read(0, &mut byte).unwrap();
    assert_eq!(byte, [1]);
    pin.write(0, &[2]).unwrap();
    drop(pin);
    // What the guest shared keeps its contents.
    assert_eq!(machine.fake.byte(frame, 0), 2);
    machine.assert_nothing_left();
}

#[test]
fn a_pin_that_el2_does_not_take_off_is_taken_off_later() {
    let machine = Machine::new();
    let guest = sharing(&machine);
    let pin = guest.file.pin(0, P).unwrap();
    machine
        .fake
        .refuse_next(CallId::Vm(VmCallId::UnpinShared), Status::NoMemory);
    machine.fail_after(0);
    drop(pin);
    machine.never_fail();
    assert_eq!(guest.file.punch(0, P), Err(Error::Pinned { offset: 0 }));
    drop(guest);
    machine.assert_nothing_left();
}
