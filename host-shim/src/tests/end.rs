//! The end of VMs: everything comes back, whatever was going on.

use super::support::*;
use crate::fake::{Act, Owner};
use crate::vcpu::Entry;
use crate::{Error, Exit, MemfdConfig};
use alloc::sync::Arc;
use alloc::vec::Vec;
use core::sync::atomic::{AtomicBool, Ordering};
use hyp_abi::GuestRange;
use hyp_abi::vm::VmFlags;

extern crate std;

#[test]
fn private_pages_come_back_zero_and_shared_ones_as_they_are() {
    let machine = Machine::new();
    let mut guest = machine.guest(VmFlags::PROTECTED, MemfdConfig::new(4 * P));
    let handle = guest.vm.handle();
    let acts = [Act::Write(GFN, 5), Act::Write(GFN + 1, 6), Act::Share(GFN + 1)];
    machine.fake.program(handle, 0, acts);
    guest.run();
    let frames: Vec<_> = (0..2)
        .map(|page| machine.fake.mapped(handle, GFN + page).unwrap())
        .collect();
    guest.vm.destroy().unwrap();
    assert!(guest.vm.is_gone());
    assert_eq!(guest.file.resident_pages(), 2);
    assert!(machine.fake.is_zero(frames[0]));
    assert_eq!(machine.fake.byte(frames[1], 9), 6);
    assert_eq!(guest.vm.destroy(), Ok(()));
    drop(guest);
    machine.assert_nothing_left();
}

#[test]
fn pinned_pages_hold_up_the_end_and_no_other_page() {
    let machine = Machine::new();
    let mut guest = machine.guest(VmFlags::PROTECTED, MemfdConfig::new(6 * P));
    let handle = guest.vm.handle();
    let acts: Vec<Act> = (0..6)
        .map(|page| Act::Write(GFN + page, 1))
        .chain([Act::Share(GFN + 1), Act::Share(GFN + 3), Act::Share(GFN + 4)])
        .collect();
    machine.fake.program(handle, 0, acts);
    guest.run();
    let pins = [guest.file.pin(P, P).unwrap(), guest.file.pin(3 * P, P).unwrap()];
    assert_eq!(guest.vm.destroy(), Err(Error::FramesLeft(2)));
    for page in [0, 2, 4, 5] {
        assert_eq!(machine.fake.mapped(handle, GFN + page), None);
    }
    assert_eq!(guest.vcpu.run(&Entry::new()), Err(Error::Gone));
    assert!(guest.vm.fault(GFN).is_err());
    let [first, second] = pins;
    drop(first);
    assert!(!guest.vm.is_gone());
    drop(second);
    assert!(guest.vm.is_gone());
    drop(guest);
    machine.assert_nothing_left();
}

#[test]
fn a_file_outlives_its_vm_and_pc09_is_still_a_file() {
    let machine = Machine::new();
    for kind in [VmFlags::PROTECTED, VmFlags::empty()] {
        let Guest { vm, file, vcpu } = machine.guest(kind, MemfdConfig::new(4 * P));
        vm.populate(GuestRange::new(GFN, 4)).unwrap();
        drop((vm, vcpu));
        assert_eq!(machine.fake.vms(), 0);
        file.punch(0, 4 * P).unwrap();
        assert_eq!(file.resident_pages(), 0);
        file.allocate(0, 4 * P).unwrap();
        assert_eq!(file.resident_pages(), 4);
        drop(file);
        machine.assert_nothing_left();
    }
}

#[test]
fn a_vm_that_dies_first_is_no_obstacle_to_a_punch_through_another() {
    let machine = Machine::new();
    let guest = machine.guest(VmFlags::empty(), MemfdConfig::new(2 * P));
    let second = machine.plain();
    let view = guest.file.view_for(&second).unwrap();
    second.add_slot(slot(0, IPA, 2 * P, &view, 0)).unwrap();
    guest.vm.fault(GFN).unwrap();
    second.fault(GFN).unwrap();
    drop(second);
    guest.file.punch(0, P).unwrap();
    drop((guest, view));
    machine.assert_nothing_left();
}

#[test]
fn what_a_live_guest_owns_survives_the_close_of_its_file() {
    let machine = Machine::new();
    let Guest { vm, file, mut vcpu } = machine.guest(VmFlags::PROTECTED, MemfdConfig::new(4 * P));
    machine.fake.program(vm.handle(), 0, [Act::Write(GFN, 1)]);
    let entry = Entry::new();
    vcpu.run_on(&entry, crate::vcpu::PinnedPolicy::Refuse).unwrap();
    drop(file);
    machine.fake.program(vm.handle(), 0, [Act::Expect(GFN, 1)]);
    assert_eq!(vcpu.run(&entry), Ok(Exit::Interrupt));
    assert_eq!(vm.fault(GFN + 1), Err(Error::NoBacking));
    drop((vm, vcpu));
    machine.assert_nothing_left();
}

#[test]
fn a_page_that_was_given_up_and_not_taken_comes_back_at_the_end() {
    let machine = Machine::new();
    let mut guest = machine.guest(VmFlags::PROTECTED, MemfdConfig::new(4 * P));
    let handle = guest.vm.handle();
    let acts = (0..4).map(|page| Act::Write(GFN + page, 1));
    machine.fake.program(handle, 0, acts);
    guest.run();
    let frame = machine.fake.mapped(handle, GFN + 1).unwrap();
    machine.fake.program(handle, 0, [Act::Relinquish(GFN + 1, 2)]);
    let exit = guest.vcpu.run(&Entry::new());
    assert_eq!(exit, Ok(Exit::Relinquished(GuestRange::new(GFN + 1, 2))));
    assert_eq!(machine.fake.owner(frame), Owner::Relinquished);
    drop(guest);
    machine.assert_nothing_left();
}

#[test]
fn a_guest_all_of_whose_pages_were_given_up_and_not_taken_ends_too() {
    let machine = Machine::new();
    let mut guest = machine.guest(VmFlags::PROTECTED, MemfdConfig::new(2 * P));
    let handle = guest.vm.handle();
    let acts = [Act::Write(GFN, 1), Act::Write(GFN + 1, 1)];
    machine.fake.program(handle, 0, acts);
    guest.run();
    machine.fake.program(handle, 0, [Act::Relinquish(GFN, 2)]);
    guest.vcpu.run(&Entry::new()).unwrap();
    drop(guest);
    machine.assert_nothing_left();
}

#[test]
fn a_running_vcpu_holds_up_the_end_until_it_stops() {
    let machine = Machine::new();
    let Guest { vm, file, mut vcpu } = machine.guest(VmFlags::PROTECTED, MemfdConfig::new(4 * P));
    vm.fault(GFN).unwrap();
    let (go, there) = (Arc::new(AtomicBool::new(false)), Arc::new(AtomicBool::new(false)));
    machine
        .fake
        .program(vm.handle(), 0, [Act::Loop(go.clone(), there.clone())]);
    std::thread::scope(|scope| {
        let running = scope.spawn(move || vcpu.run(&Entry::new()));
        while !there.load(Ordering::SeqCst) {
            std::thread::yield_now();
        }
        assert_eq!(vm.destroy(), Err(Error::Running));
        drop(vm);
        assert_eq!(machine.fake.vms(), 1);
        go.store(true, Ordering::SeqCst);
        assert_eq!(running.join().unwrap(), Ok(Exit::Interrupt));
    });
    assert_eq!(machine.fake.vms(), 0);
    drop(file);
    machine.assert_nothing_left();
}

#[test]
fn a_frame_that_breaks_at_the_end_is_not_waited_for() {
    let machine = Machine::new();
    let guest = machine.guest(VmFlags::PROTECTED, MemfdConfig::new(4 * P));
    guest.vm.populate(GuestRange::new(GFN, 4)).unwrap();
    let frame = machine.fake.mapped(guest.vm.handle(), GFN + 2).unwrap();
    machine.fake.break_frame(frame);
    guest.vm.destroy().unwrap();
    drop(guest);
    assert_eq!(machine.fake.vms(), 0);
    assert_eq!(machine.fake.owner(frame), Owner::Poisoned);
    machine.host.drain().unwrap();
    assert_eq!(machine.fake.taken(), 1);
    assert_eq!(machine.account.total(), 0);
}

#[test]
fn a_thousand_vms_leave_nothing() {
    let machine = Machine::new();
    for round in 0..1000 {
        let kind = [VmFlags::PROTECTED, VmFlags::empty()][round % 2];
        let guest = machine.guest(kind, MemfdConfig::new(4 * P));
        guest.vm.fault(GFN + round as u64 % 4).unwrap();
    }
    machine.assert_nothing_left();
}

#[test]
fn a_vm_that_was_ended_behind_our_back_is_no_obstacle() {
    let machine = Machine::new();
    let guest = machine.guest(VmFlags::empty(), MemfdConfig::new(4 * P));
    guest.vm.populate(GuestRange::new(GFN, 4)).unwrap();
    let hypervisor = machine.host.hypervisor();
    let handle = guest.vm.handle();
    hypervisor.unshare_guest(handle, GuestRange::new(GFN, 4)).unwrap();
    hypervisor.destroy_vm(handle).unwrap();
    guest.file.punch(0, 2 * P).unwrap();
    assert_eq!(guest.vm.fault(GFN), Err(Error::Gone));
    drop(guest);
    machine.assert_nothing_left();
}

#[test]
fn everything_can_be_used_from_any_cpu() {
    fn anywhere<T: Send + Sync>() {}
    use crate::fake::Fake;
    anywhere::<crate::Vm<Fake>>();
    anywhere::<crate::Vcpu<Fake>>();
    anywhere::<crate::GuestMemfd<Fake>>();
    anywhere::<crate::memfd::Pin<Fake>>();
    anywhere::<crate::memfd::PageGuard<Fake>>();
}
