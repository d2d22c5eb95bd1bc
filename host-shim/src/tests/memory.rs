//! What happens when there is no memory, at every place where some is wanted.

use super::support::*;
use crate::fake::{Act, Owner};
use crate::memfd::{MemfdFlags, PartialPunch};
use crate::provider::{CarveOut, Source};
use crate::vcpu::{Entry, PinnedPolicy};
use crate::{Error, GuestMemfd, MemfdConfig, Pfn, RangeError};
use alloc::sync::Arc;
use hyp_abi::vm::VmFlags;
use hyp_abi::{CallId, GuestRange, HostCallId, Status, VmCallId};

/// A whole life, with memory of its own kind.
fn life(machine: &Machine, kind: VmFlags, order: u8) -> Result<(), Error> {
    let vm = machine.try_vm(kind)?;
    let config = MemfdConfig {
        order,
        partial_punch: PartialPunch::Split,
        flags: MemfdFlags::all(),
        ..MemfdConfig::new(1024 * P)
    };
    let file = GuestMemfd::create(&vm, config, machine.source())?;
    vm.add_slot(slot(0, IPA, 1024 * P, &file, 0))?;
    let mut vcpus = [vm.create_vcpu(0)?, vm.create_vcpu(1)?];
    vm.load(IPA, &[1; 3 * P as usize])?;
    vm.launch(IPA, 0)?;
    let handle = vm.handle();
    let protected = kind == VmFlags::PROTECTED;
    machine
        .fake
        .program(handle, 0, [Act::Write(GFN + 600, 1), Act::Write(GFN + 4, 1)]);
    if protected {
        machine
            .fake
            .program(handle, 0, [Act::Share(GFN + 601), Act::Share(GFN)]);
    }
    let run = |vcpu: &mut crate::Vcpu<_>| {
        vcpu.run_on(&Entry::new(), PinnedPolicy::Refuse)
            .map(drop)
            .map_err(|stopped| stopped.error)
    };
    run(&mut vcpus[0])?;
    let pin = file.pin(601 * P, P)?;
    if protected {
        machine.fake.program(handle, 1, [Act::Relinquish(GFN + 600, 1)]);
        run(&mut vcpus[1])?;
    } else {
        file.punch(600 * P, P)?;
    }
    vm.populate(GuestRange::new(GFN, 16))?;
    drop(pin);
    vm.destroy()
}

#[test]
fn wherever_memory_runs_out_nothing_is_left_behind() {
    for kind in [VmFlags::PROTECTED, VmFlags::empty()] {
        for order in [0, 9] {
            let mut failures = 0;
            for allocations in 0.. {
                let machine = Machine::new();
                machine.fail_after(allocations);
                let result = life(&machine, kind, order);
                machine.never_fail();
                machine.assert_nothing_left();
                match result {
                    Ok(()) => break,
                    Err(Error::NoMemory) => failures += 1,
                    Err(error) => panic!("{error} after {allocations} allocations"),
                }
            }
            assert!(failures > 3, "{failures} failures, {kind:?}, order {order}");
        }
    }
}

#[test]
fn a_reserve_of_many_pages_is_filled_from_an_empty_pool() {
    let machine = Machine::new();
    let vm = machine.protected();
    machine.host.drain().unwrap();
    let before = machine.host.given_frames();
    assert_eq!(vm.top_up(200), Ok(200));
    // No page was moved twice, and the pool was given little more than it lacked.
    assert!((200..=216).contains(&(machine.host.given_frames() - before)));
    vm.destroy().unwrap();
    machine.assert_nothing_left();
}

#[test]
fn a_vm_that_could_not_end_for_want_of_memory_ends_when_there_is_some() {
    let machine = Machine::new();
    let config = MemfdConfig {
        order: 9,
        ..MemfdConfig::new(512 * P)
    };
    let Guest { vm, file, vcpu } = machine.guest(VmFlags::PROTECTED, config);
    vm.fault(GFN).unwrap();
    machine
        .fake
        .refuse_next(CallId::Vm(VmCallId::Reclaim), Status::NoMemory);
    machine.fail_after(0);
    assert_eq!(vm.destroy(), Err(Error::NoMemory));
    assert!(!vm.is_gone());
    machine.never_fail();
    vm.destroy().unwrap();
    drop((vm, file, vcpu));
    machine.assert_nothing_left();
}

#[test]
fn a_file_that_could_not_be_taken_from_a_plain_guest_is_kept_for_it() {
    let machine = Machine::new();
    let Guest { vm, file, vcpu } = machine.guest(VmFlags::empty(), MemfdConfig::new(4 * P));
    vm.populate(GuestRange::new(GFN, 4)).unwrap();
    machine
        .fake
        .refuse_next(CallId::Vm(VmCallId::Unshare), Status::NoMemory);
    machine.fail_after(0);
    drop(file);
    machine.never_fail();
    // The guest still borrows all of it, so none of it is free.
    assert!(machine.fake.mapped(vm.handle(), GFN).is_some());
    drop((vm, vcpu));
    machine.assert_nothing_left();
}

#[test]
fn an_account_at_its_limit_refuses_and_is_charged_for_nothing() {
    use crate::account::{Counted, Purpose};
    let machine = Machine::new();
    let vm = machine.protected();
    let account = Arc::new(Counted::new(3));
    let source = Source::new(machine.provider.clone(), account.clone());
    let file = GuestMemfd::create(&vm, MemfdConfig::new(8 * P), source).unwrap();
    assert_eq!(file.allocate(0, 8 * P), Err(Error::OverLimit));
    assert_eq!(account.charged(Purpose::Guest), 3);
    file.punch(P, P).unwrap();
    file.allocate(4 * P, P).unwrap();
    drop(file);
    assert_eq!(account.total(), 0);
}

#[test]
fn a_carve_out_backs_a_guest() {
    let machine = Machine::new();
    // Frames that the buddy never hands out again.
    let block = machine
        .source()
        .allocate(crate::account::Purpose::Guest, 9, crate::provider::Contents::Any)
        .unwrap();
    let carve_out = Arc::new(CarveOut::new(block.pfn, 512));
    let vm = machine.protected();
    let source = Source::new(carve_out.clone(), Arc::new(crate::account::Unlimited));
    let file = GuestMemfd::create(&vm, MemfdConfig::new(600 * P), source).unwrap();
    vm.add_slot(slot(0, IPA, 600 * P, &file, 0)).unwrap();
    let stopped = vm.populate(GuestRange::new(GFN, 600)).unwrap_err();
    assert_eq!((stopped.done, stopped.error), (512, Error::NoMemory));
    drop((vm, file));
    assert_eq!(carve_out.free_frames(), 512);
}

#[test]
fn the_pool_gives_back_what_it_was_given_and_keeps_what_others_gave() {
    let machine = Machine::new();
    let foreign = Pfn::new(crate::fake::FIRST + crate::fake::FRAMES - 1).unwrap();
    let hypervisor = machine.host.hypervisor();
    hypervisor.pool_top_up(foreign.range(1)).unwrap();
    machine.host.supply(5).unwrap();
    assert!(machine.host.given_frames() >= 5);
    let given = machine.host.given_frames();
    assert_eq!(machine.host.drain(), Ok(given));
    assert_eq!(machine.host.given_frames(), 0);
    assert_eq!(machine.fake.taken(), 1);
}

#[test]
fn what_the_pool_refuses_is_free_again() {
    let machine = Machine::new();
    machine
        .fake
        .refuse_next(CallId::Host(HostCallId::PoolTopUp), Status::SharedWithHyp);
    let error = machine.host.supply(8).unwrap_err();
    assert_eq!(error.status(), Some(Status::SharedWithHyp));
    machine.assert_nothing_left();
}

#[test]
fn a_frame_that_breaks_on_its_way_to_the_pool_is_lost_and_no_other() {
    for broken in [0, 3, 7] {
        let machine = Machine::new();
        // Which frames come next is the source's affair; it gives the same ones again.
        let block = machine
            .source()
            .allocate(
                crate::account::Purpose::Hypervisor,
                3,
                crate::provider::Contents::Any,
            )
            .unwrap();
        let pfn = Pfn::new(block.pfn.number() + broken).unwrap();
        let block = crate::Block::new(block.pfn, 3);
        machine.source().free(crate::account::Purpose::Hypervisor, block);
        machine.fake.break_frame(pfn);
        machine.host.supply(8).unwrap();
        assert!(machine.host.given_frames() >= 8);
        assert_eq!(machine.fake.owner(pfn), Owner::Poisoned);
        let given = machine.host.given_frames();
        assert_eq!(machine.host.drain(), Ok(given));
        assert_eq!(machine.fake.taken(), 1, "the broken one is nobody's");
    }
}

#[test]
fn a_frame_that_is_busy_is_tried_again() {
    let machine = Machine::new();
    let guest = machine.guest(VmFlags::PROTECTED, MemfdConfig::new(P));
    for _ in 0..50 {
        machine
            .fake
            .refuse_next(CallId::Vm(VmCallId::Donate), Status::Busy);
    }
    guest.vm.fault(GFN).unwrap();
    let error = RangeError {
        done: 3,
        error: crate::CallError::NoProgress,
    };
    assert_eq!(Error::from(error).errno(), 5);
    drop(guest);
    machine.assert_nothing_left();
}

#[test]
fn an_el2_that_is_never_satisfied_is_not_fed_for_ever() {
    let machine = Machine::new();
    let guest = machine.guest(VmFlags::PROTECTED, MemfdConfig::new(P));
    for _ in 0..100 {
        machine
            .fake
            .refuse_next(CallId::Vm(VmCallId::Donate), Status::NoMemory);
    }
    assert_eq!(guest.vm.fault(GFN), Err(Error::NoMemory));
}
