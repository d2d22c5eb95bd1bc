//! Guests at run: faults, exits, what is given up.

use super::support::*;
use crate::fake::{Act, Owner};
use crate::memfd::{Attribute, PartialPunch};
use crate::vcpu::{Entry, ListRegisters, PinnedPolicy, RunError};
use crate::{CallError, Error, Exit, MemfdConfig};
use alloc::vec::Vec;
use hyp_abi::run_page::ExitReason;
use hyp_abi::vm::{Permissions, VmFlags, VmStatistic};
use hyp_abi::{CallId, GuestRange, HostCall, Status, VcpuRegister, VmCall, VmCallId};

#[test]
fn pc01_pc02_memory_of_a_protected_guest_is_out_of_the_hosts_reach_until_it_is_shared() {
    let machine = Machine::new();
    let mut guest = machine.guest(VmFlags::PROTECTED, MemfdConfig::new(4 * P));
    let handle = guest.vm.handle();
    machine.fake.program(handle, 0, [Act::Write(GFN, 0x5A)]);
    guest.run();
    let frame = machine.fake.mapped(handle, GFN).unwrap();
    assert_eq!(machine.fake.owner(frame), Owner::Guest { slot: handle.slot });
    assert_eq!(guest.file.attribute(0), Ok(Attribute::Private));
    assert_eq!(guest.file.pin(0, P).err(), Some(Error::NotShared { offset: 0 }));
    machine.fake.program(handle, 0, [Act::Share(GFN)]);
    guest.run();
    assert_eq!(guest.file.attribute(0), Ok(Attribute::Shared));
    let pin = guest.file.pin(0, P).unwrap();
    let mut byte = [0];
    pin.read(100, &mut byte).unwrap();
    assert_eq!(byte, [0x5A]);
    pin.write(0, &[0xA5; P as usize]).unwrap();
    drop(pin);
    machine
        .fake
        .program(handle, 0, [Act::Unshare(GFN), Act::Expect(GFN, 0xA5)]);
    guest.run();
    assert_eq!(guest.file.pin(0, P).err(), Some(Error::NotShared { offset: 0 }));
    assert_eq!(machine.fake.results(handle), [0, 0]);
    drop(guest);
    machine.assert_nothing_left();
}

#[test]
fn pc04_every_other_page_is_shared_and_the_rest_stays_hidden() {
    let machine = Machine::new();
    let mut guest = machine.guest(VmFlags::PROTECTED, MemfdConfig::new(8 * P));
    let acts: Vec<Act> = (0..8)
        .map(|page| Act::Write(GFN + page, page as u8 + 1))
        .chain((0..8).step_by(2).map(|page| Act::Share(GFN + page)))
        .collect();
    machine.fake.program(guest.vm.handle(), 0, acts);
    guest.run();
    for page in 0..8 {
        let offset = page * P;
        if page % 2 == 1 {
            assert_eq!(guest.file.pin(offset, P).err(), Some(Error::NotShared { offset }));
            continue;
        }
        let mut byte = [0];
        guest.file.pin(offset, P).unwrap().read(0, &mut byte).unwrap();
        assert_eq!(byte, [page as u8 + 1]);
    }
    assert_eq!(
        guest.file.pin(0, 8 * P).err(),
        Some(Error::NotShared { offset: P })
    );
    // The first page was unpinned again.
    machine.fake.program(guest.vm.handle(), 0, [Act::Unshare(GFN)]);
    guest.run();
    assert_eq!(machine.fake.results(guest.vm.handle()).last(), Some(&0));
    drop(guest);
    machine.assert_nothing_left();
}

#[test]
fn sharing_an_absent_page_faults_it_in_first() {
    let machine = Machine::new();
    let mut guest = machine.guest(VmFlags::PROTECTED, MemfdConfig::new(4 * P));
    machine.fake.program(guest.vm.handle(), 0, [Act::Share(GFN + 3)]);
    guest.run();
    assert_eq!(machine.fake.results(guest.vm.handle()), [0]);
    assert_eq!(guest.file.attribute(3 * P), Ok(Attribute::Shared));
}

#[test]
fn what_is_loaded_is_what_the_guest_finds_and_the_rest_is_zero() {
    let machine = Machine::new();
    for kind in [VmFlags::PROTECTED, VmFlags::empty()] {
        let vm = machine.vm(kind);
        let file = machine.file(&vm, 4);
        vm.add_slot(slot(0, IPA, 4 * P, &file, 0)).unwrap();
        let mut vcpu = vm.create_vcpu(0).unwrap();
        assert_eq!(vm.load(IPA + 1, &[1]), Err(Error::InvalidArgument));
        assert_eq!(vm.load(IPA + 4 * P, &[1]), Err(Error::NoBacking));
        vm.load(IPA, &[7; P as usize]).unwrap();
        vm.load(IPA + P, &[8]).unwrap();
        assert_eq!(vm.digest(), Err(Error::WrongState));
        vm.launch(IPA, 5).unwrap();
        assert_eq!(vm.digest().unwrap()[..9], [1, 0, 0, 0, 0, 0, 0, 0, 2]);
        let last = machine.fake.mapped(vm.handle(), GFN + 1).unwrap();
        assert_eq!((machine.fake.byte(last, 0), machine.fake.byte(last, 1)), (8, 0));
        machine
            .fake
            .program(vm.handle(), 0, [Act::Expect(GFN, 7), Act::Expect(GFN + 2, 0)]);
        let exit = vcpu.run_on(&Entry::new(), PinnedPolicy::Refuse);
        assert_eq!(exit, Ok(Exit::Interrupt));
        if kind == VmFlags::PROTECTED {
            assert_eq!(vm.load(IPA + 3 * P, &[1]), Err(Error::WrongState));
        }
        drop((vm, vcpu, file));
        machine.assert_nothing_left();
    }
}

#[test]
fn before_the_launch_only_what_is_named_is_given() {
    // What is digested must not depend on the blocks that could be had.
    let machine = Machine::new();
    let vm = machine.protected();
    let config = MemfdConfig {
        order: 9,
        ..MemfdConfig::new(512 * P)
    };
    let file = machine.file_with(&vm, config);
    vm.add_slot(slot(0, IPA, 512 * P, &file, 0)).unwrap();
    vm.load(IPA, &[1; 2 * P as usize]).unwrap();
    vm.load(IPA + 4 * P, &[2; P as usize]).unwrap();
    vm.populate(GuestRange::new(GFN + 8, 1)).unwrap();
    let given: Vec<u64> = (0..512)
        .filter(|page| machine.fake.mapped(vm.handle(), GFN + page).is_some())
        .collect();
    assert_eq!(given, [0, 1, 4, 8]);
    assert_eq!(vm.load(IPA, &[1]), Err(Error::InUse { offset: 0 }));
    drop((vm, file));
    machine.assert_nothing_left();
}

#[test]
fn a_page_that_is_given_after_the_launch_is_not_zeroed_twice() {
    let machine = Machine::new();
    let guest = machine.guest(VmFlags::PROTECTED, MemfdConfig::new(P));
    guest.file.allocate(0, P).unwrap();
    guest.vm.fault(GFN).unwrap();
    // EL2 zeroed it: the host did not, and the page is zero.
    let frame = machine.fake.mapped(guest.vm.handle(), GFN).unwrap();
    assert!(machine.fake.is_zero(frame));
}

#[test]
fn pages_that_el2_lacks_for_a_guests_call_are_given() {
    let machine = Machine::new();
    let config = MemfdConfig {
        order: 9,
        ..MemfdConfig::new(512 * P)
    };
    let mut guest = machine.guest(VmFlags::PROTECTED, config);
    // The block takes no page of the reserve; sharing a page of it does.
    machine
        .fake
        .program(guest.vm.handle(), 0, [Act::Write(GFN, 1), Act::Share(GFN + 5)]);
    guest.run();
    assert_eq!(machine.fake.results(guest.vm.handle()), [0]);
    assert!(guest.vm.statistic(VmStatistic::PagesTotal).unwrap() >= 4);
    drop(guest);
    machine.assert_nothing_left();
}

#[test]
fn pages_that_are_given_up_are_taken_back_zero_and_freed() {
    let machine = Machine::new();
    let mut guest = machine.guest(VmFlags::PROTECTED, MemfdConfig::new(8 * P));
    let handle = guest.vm.handle();
    let acts = (0..8).map(|page| Act::Write(GFN + page, 9));
    machine.fake.program(handle, 0, acts);
    guest.run();
    let frame = machine.fake.mapped(handle, GFN + 2).unwrap();
    machine
        .fake
        .program(handle, 0, [Act::Share(GFN + 3), Act::Relinquish(GFN + 2, 4)]);
    guest.run();
    assert_eq!(machine.fake.owner(frame), Owner::Host);
    assert_eq!(guest.file.resident_pages(), 4);
    assert_eq!(guest.file.attribute(3 * P), Ok(Attribute::Absent));
    assert_eq!(guest.vm.take_relinquished(GuestRange::new(GFN, 8)), Ok(0));
    assert_eq!(guest.vm.statistic(VmStatistic::Relinquished), Ok(4));
    machine.fake.program(handle, 0, [Act::Expect(GFN + 2, 0)]);
    guest.run();
    drop(guest);
    machine.assert_nothing_left();
}

#[test]
fn a_broken_page_that_is_given_up_is_nobodys_and_the_others_are_freed() {
    let machine = Machine::new();
    let mut guest = machine.guest(VmFlags::PROTECTED, MemfdConfig::new(8 * P));
    let handle = guest.vm.handle();
    let acts = (0..8).map(|page| Act::Write(GFN + page, 9));
    machine.fake.program(handle, 0, acts);
    guest.run();
    let broken = machine.fake.mapped(handle, GFN + 3).unwrap();
    machine.fake.break_frame(broken);
    machine.fake.program(handle, 0, [Act::Relinquish(GFN + 2, 4)]);
    guest.run();
    assert_eq!(machine.fake.owner(broken), Owner::Poisoned);
    for (page, attribute) in [
        (2, Attribute::Absent),
        (3, Attribute::Poisoned),
        (5, Attribute::Absent),
    ] {
        assert_eq!(guest.file.attribute(page * P), Ok(attribute), "{page}");
    }
    assert_eq!(guest.vm.statistic(VmStatistic::Relinquished), Ok(4));
}

#[test]
fn exits_that_are_not_about_memory_come_to_the_caller() {
    let machine = Machine::new();
    let mut guest = machine.guest(VmFlags::PROTECTED, MemfdConfig::new(4 * P));
    let handle = guest.vm.handle();
    machine.fake.program(
        handle,
        0,
        [
            Act::Write(GFN, 1),
            Act::Exit(ExitReason::MmioWrite, [0x900_0000, 4, 0x41, 0, 0, 0, 0]),
            Act::Exit(ExitReason::MmioRead, [0x900_0018, 2, 0, 0, 0, 0, 0]),
            Act::Exit(ExitReason::HostService, [0xc600_4680, 1, 2, 3, 4, 5, 6]),
        ],
    );
    let mut run = |entry: Entry| guest.vcpu.run_on(&entry, PinnedPolicy::Refuse).unwrap();
    assert_eq!(
        run(Entry::new()),
        Exit::MmioWrite {
            ipa: 0x900_0000,
            bytes: 4,
            value: 0x41
        }
    );
    assert_eq!(
        run(Entry::new().stored()),
        Exit::MmioRead {
            ipa: 0x900_0018,
            bytes: 2
        }
    );
    assert_eq!(
        run(Entry::new().loaded(0x60)),
        Exit::HostService {
            function: 0xc600_4680,
            arguments: [1, 2, 3, 4, 5, 6]
        }
    );
    assert_eq!(run(Entry::new().served([11, 0, 0, 0])), Exit::Interrupt);
    assert_eq!(machine.fake.results(handle), [0, 0x60, 11]);
}

#[test]
fn list_registers_go_in_with_one_entry_and_come_back() {
    let machine = Machine::new();
    let mut guest = machine.guest(VmFlags::PROTECTED, MemfdConfig::new(4 * P));
    let list: ListRegisters = [0x5000_0000_0000_001b, 7].into_iter().collect();
    guest.vcpu.run(&Entry::new().interrupts(0, &list)).unwrap();
    assert_eq!(guest.vcpu.interrupts().unwrap().list, list);
    // The next entry leaves them alone.
    guest.vcpu.run(&Entry::new()).unwrap();
    assert_eq!(guest.vcpu.interrupts().unwrap().list, list);
}

#[test]
fn the_timer_is_due_or_has_a_deadline_or_neither() {
    use crate::vcpu::Interrupts;
    let timer = |timer_control| Interrupts {
        timer_control,
        timer_compare: 55,
        ..Interrupts::default()
    };
    for (control, due, deadline) in [
        (0b000, false, None),
        (0b001, false, Some(55)),
        (0b011, false, None),
        (0b101, true, None),
        (0b111, false, None),
        (0b100, false, None),
    ] {
        let interrupts = timer(control);
        assert_eq!(
            (interrupts.timer_is_due(), interrupts.timer_deadline()),
            (due, deadline)
        );
    }
}

#[test]
fn a_fault_that_cannot_be_served_is_told_and_can_be_refused() {
    let machine = Machine::new();
    let mut guest = machine.guest(VmFlags::PROTECTED, MemfdConfig::new(4 * P));
    machine
        .fake
        .program(guest.vm.handle(), 0, [Act::Write(GFN + 4, 1)]);
    let stopped = guest.vcpu.run_on(&Entry::new(), PinnedPolicy::Refuse);
    let Err(RunError {
        exit: Some(Exit::MemoryFault { gfn, .. }),
        error: Error::NoBacking,
    }) = stopped
    else {
        panic!("{stopped:?}");
    };
    assert_eq!(gfn, GFN + 4);
    let exit = guest.vcpu.run_on(&Entry::new().refuse(), PinnedPolicy::Refuse);
    assert_eq!(exit, Ok(Exit::Interrupt));
    assert_eq!(machine.fake.results(guest.vm.handle()), [-3]);
}

#[test]
fn ar06_a_plain_guest_gets_a_permission_back_when_it_faults() {
    let machine = Machine::new();
    let mut guest = machine.guest(VmFlags::empty(), MemfdConfig::new(4 * P));
    let handle = guest.vm.handle();
    guest.vm.populate(GuestRange::new(GFN, 4)).unwrap();
    let read_only = Permissions::READ | Permissions::EXECUTE;
    guest
        .vm
        .set_permissions(GuestRange::new(GFN, 4), read_only)
        .unwrap();
    machine
        .fake
        .program(handle, 0, [Act::Write(GFN, 3), Act::Expect(GFN, 3)]);
    guest.run();
    guest.file.punch(0, P).unwrap();
    assert_eq!(machine.fake.mapped(handle, GFN), None);
    machine.fake.program(handle, 0, [Act::Expect(GFN, 0)]);
    guest.run();
    drop(guest);
    machine.assert_nothing_left();
}

#[test]
fn ar04_a_frame_that_breaks_is_told_and_never_used_again() {
    let machine = Machine::new();
    let guest = machine.guest(VmFlags::PROTECTED, MemfdConfig::new(4 * P));
    guest.file.allocate(0, P).unwrap();
    let frame = guest.file.get_pfn(0).unwrap().pfn();
    machine.fake.break_frame(frame);
    assert_eq!(guest.vm.fault(GFN), Err(Error::Poisoned));
    assert_eq!(guest.vm.fault(GFN), Err(Error::Poisoned));
    assert_eq!(guest.file.attribute(0), Ok(Attribute::Poisoned));
    assert_eq!(Error::Poisoned.errno(), 133);
    let free = machine.provider.buddy.free_frames();
    guest.file.punch(0, P).unwrap();
    assert_eq!(machine.provider.buddy.free_frames(), free);
    // With a frame of its own the guest goes on.
    guest.vm.fault(GFN).unwrap();
    drop(guest);
    assert_eq!(machine.account.charged(crate::account::Purpose::Guest), 0);
    machine.host.drain().unwrap();
    assert_eq!(machine.fake.taken(), 1);
}

#[test]
fn a_vm_that_was_renamed_is_found_by_everybody() {
    let machine = Machine::new();
    let mut guest = machine.guest(VmFlags::PROTECTED, MemfdConfig::new(4 * P));
    let before = guest.vm.handle();
    let after = guest.vm.rename().unwrap();
    assert_ne!(before, after);
    machine
        .fake
        .program(after, 0, [Act::Write(GFN, 1), Act::Share(GFN)]);
    guest.run();
    drop(guest.file.pin(0, P).unwrap());
    drop(guest);
    machine.assert_nothing_left();
}

#[test]
fn what_the_guest_has_already_is_no_error() {
    let machine = Machine::new();
    let Guest { vm, file, vcpu } = machine.guest(VmFlags::PROTECTED, MemfdConfig::new(2 * P));
    vm.fault(GFN).unwrap();
    vm.fault(GFN).unwrap();
    // Another file takes the place of one that was closed, and the guest still has pages of that.
    machine
        .fake
        .refuse_next(CallId::Vm(VmCallId::Donate), Status::GfnMapped);
    vm.fault(GFN + 1).unwrap();
    assert_eq!(file.attribute(P), Ok(Attribute::Host));
    drop((vm, file, vcpu));
    machine.assert_nothing_left();
}

#[test]
fn a_second_vm_may_borrow_what_the_first_borrows_and_not_own_what_it_owns() {
    let machine = Machine::new();
    let guest = machine.guest(VmFlags::empty(), MemfdConfig::new(2 * P));
    let second = machine.plain();
    let view = guest.file.view_for(&second).unwrap();
    assert!(view.is_same_memory(&guest.file));
    second.add_slot(slot(0, IPA, 2 * P, &view, 0)).unwrap();
    guest.vm.fault(GFN).unwrap();
    second.fault(GFN).unwrap();
    let frame = machine.fake.mapped(second.handle(), GFN).unwrap();
    assert_eq!(machine.fake.owner(frame), Owner::Borrowed { by: 2 });
    guest.file.punch(0, P).unwrap();
    assert_eq!(machine.fake.owner(frame), Owner::Host);
    drop((guest, second, view));
    machine.assert_nothing_left();

    let guest = machine.guest(VmFlags::PROTECTED, MemfdConfig::new(2 * P));
    let second = machine.protected();
    let view = guest.file.view_for(&second).unwrap();
    second.add_slot(slot(0, IPA, 2 * P, &view, 0)).unwrap();
    guest.vm.fault(GFN).unwrap();
    assert_eq!(second.fault(GFN), Err(Error::InUse { offset: 0 }));
    second.fault(GFN + 1).unwrap();
    // Nor may one that is not protected borrow it.
    let third = machine.plain();
    let other = guest.file.view_for(&third).unwrap();
    third.add_slot(slot(0, IPA, 2 * P, &other, 0)).unwrap();
    assert_eq!(third.fault(GFN), Err(Error::InUse { offset: 0 }));
    drop((guest, second, view, third, other));
    machine.assert_nothing_left();
}

#[test]
fn a_block_is_given_in_one_call() {
    let machine = Machine::new();
    let config = MemfdConfig {
        order: 9,
        partial_punch: PartialPunch::Split,
        ..MemfdConfig::new(1024 * P)
    };
    let guest = machine.guest(VmFlags::PROTECTED, config);
    machine.fake.log();
    guest.vm.fault(GFN + 700).unwrap();
    let donations: Vec<_> = machine
        .fake
        .log()
        .into_iter()
        .filter_map(|call| match call {
            HostCall::Vm(VmCall::Donate { range, gfn, .. }) => Some((range.frames, gfn)),
            _ => None,
        })
        .collect();
    assert_eq!(donations, [(512, GFN + 512)]);
    drop(guest);
    machine.assert_nothing_left();
}

#[test]
fn what_is_populated_before_the_launch_is_zero_too() {
    let machine = Machine::new();
    for kind in [VmFlags::PROTECTED, VmFlags::empty()] {
        let vm = machine.vm(kind);
        let file = machine.file(&vm, 4);
        vm.add_slot(slot(0, IPA, 4 * P, &file, 0)).unwrap();
        file.allocate(0, 2 * P).unwrap();
        vm.populate(GuestRange::new(GFN, 4)).unwrap();
        for page in 0..4 {
            let frame = machine.fake.mapped(vm.handle(), GFN + page).unwrap();
            assert!(machine.fake.is_zero(frame));
        }
    }
}

#[test]
fn what_el2_refused_to_share_is_shared_when_it_is_asked_again() {
    let machine = Machine::new();
    let guest = machine.guest(VmFlags::empty(), MemfdConfig::new(4 * P));
    machine
        .fake
        .refuse_next(CallId::Vm(VmCallId::Share), Status::CountOverflow);
    let error = guest.vm.fault(GFN).unwrap_err();
    assert_eq!(error.status(), Some(Status::CountOverflow));
    guest.vm.fault(GFN).unwrap();
    assert!(machine.fake.mapped(guest.vm.handle(), GFN).is_some());
}

#[test]
fn a_gate_that_does_not_let_it_through_leaves_it_as_it_was() {
    let machine = Machine::new();
    let mut guest = machine.guest(VmFlags::PROTECTED, MemfdConfig::new(4 * P));
    machine.fake.program(
        guest.vm.handle(),
        0,
        [Act::Exit(ExitReason::MmioRead, [0x100, 4, 0, 0, 0, 0, 0])],
    );
    assert_eq!(guest.vcpu.run_through(|_| ()), Ok(None));
    let asked = core::cell::Cell::new(0);
    let exit = guest.vcpu.run_through(|enter| {
        asked.set(asked.get() + 1);
        enter(&Entry::new());
    });
    assert_eq!(exit, Ok(Some(Exit::MmioRead { ipa: 0x100, bytes: 4 })));
    assert_eq!(asked.get(), 1);
    drop(guest);
    machine.assert_nothing_left();
}

#[test]
fn memory_is_declared_until_the_launch() {
    let machine = Machine::new();
    let vm = machine.protected();
    vm.add_memory(GuestRange::new(0x100, 1)).unwrap();
    let _vcpu = vm.create_vcpu(0).unwrap();
    vm.launch(IPA, 0).unwrap();
    assert_eq!(vm.add_memory(GuestRange::new(0x200, 1)), Err(Error::WrongState));
}

/// What a call answers that EL2 refuses for a reason that has no name of its own.
fn refusal(status: Status) -> Result<(), Error> {
    Err(Error::Call(CallError::Refused { status, detail: 0 }))
}

#[test]
fn registers_of_a_plain_guest_are_read_and_written_and_those_of_a_protected_one_are_not() {
    let machine = Machine::new();
    let mut guest = machine.guest(VmFlags::empty(), MemfdConfig::new(P));
    let register = VcpuRegister::General(5);
    assert_eq!(guest.vcpu.read_register(register), Ok(0));
    guest.vcpu.write_register(register, 17).unwrap();
    assert_eq!(guest.vcpu.read_register(register), Ok(17));
    let refused = guest.vcpu.write_register(VcpuRegister::General(31), 1);
    assert_eq!(refused, refusal(Status::InvalidParameter));
    // Somebody gives the VM a new name meanwhile.
    guest.vm.rename().unwrap();
    assert_eq!(guest.vcpu.read_register(register), Ok(17));
    guest.vm.destroy().unwrap();
    assert_eq!(guest.vcpu.read_register(register), Err(Error::Gone));
    assert_eq!(guest.vcpu.write_register(register, 1), Err(Error::Gone));

    let mut guest = machine.guest(VmFlags::PROTECTED, MemfdConfig::new(P));
    let refused = guest.vcpu.read_register(register).map(drop);
    assert_eq!(refused, refusal(Status::WrongVmKind));
    let refused = guest.vcpu.write_register(register, 1);
    assert_eq!(refused, refusal(Status::WrongVmKind));
}
