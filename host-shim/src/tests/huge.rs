//! Files of huge blocks.

use super::support::*;
use crate::fake::{Act, Owner};
use crate::memfd::{Attribute, PartialPunch};
use crate::provider::{HugePool, Provider, Source};
use crate::{Error, GuestMemfd, MemfdConfig, REGION_ORDER};
use alloc::sync::Arc;
use alloc::vec::Vec;
use hyp_abi::GuestRange;
use hyp_abi::vm::VmFlags;

const REGION: u64 = 512;

fn config(regions: u64, partial_punch: PartialPunch) -> MemfdConfig {
    MemfdConfig {
        order: REGION_ORDER,
        partial_punch,
        ..MemfdConfig::new(regions * REGION * P)
    }
}

#[test]
fn a_fault_gives_the_whole_block() {
    let machine = Machine::new();
    for kind in [VmFlags::PROTECTED, VmFlags::empty()] {
        let guest = machine.guest(kind, config(2, PartialPunch::Split));
        guest.vm.fault(GFN + 5).unwrap();
        let first = machine.fake.mapped(guest.vm.handle(), GFN).unwrap();
        assert_eq!(first.number() % REGION, 0);
        for page in 0..REGION {
            let frame = machine.fake.mapped(guest.vm.handle(), GFN + page).unwrap();
            assert_eq!(frame, first.after(page));
        }
        assert_eq!(machine.fake.mapped(guest.vm.handle(), GFN + REGION), None);
        drop(guest);
        machine.assert_nothing_left();
    }
}

#[test]
fn a_block_that_does_not_fit_the_slot_is_given_in_part() {
    let machine = Machine::new();
    let vm = machine.protected();
    let file = machine.file_with(&vm, config(1, PartialPunch::Split));
    vm.add_slot(slot(0, IPA + P, 10 * P, &file, 7 * P)).unwrap();
    vm.add_slot(slot(1, IPA + 64 * P, 10 * P, &file, 100 * P))
        .unwrap();
    let mut vcpu = vm.create_vcpu(0).unwrap();
    vm.launch(IPA, 0).unwrap();
    machine.fake.program(vm.handle(), 0, [Act::Write(GFN + 3, 1)]);
    vcpu.run_on(&crate::vcpu::Entry::new(), crate::vcpu::PinnedPolicy::Refuse)
        .unwrap();
    let mapped: Vec<u64> = (0..128)
        .filter(|page| machine.fake.mapped(vm.handle(), GFN + page).is_some())
        .collect();
    assert_eq!(mapped, (1..11).collect::<Vec<_>>());
    assert_eq!(file.attribute(6 * P), Ok(Attribute::Host));
    assert_eq!(file.attribute(7 * P), Ok(Attribute::Private));
    vm.fault(GFN + 64).unwrap();
    assert_eq!(file.attribute(109 * P), Ok(Attribute::Private));
    drop((vm, vcpu, file));
    machine.assert_nothing_left();
}

#[test]
fn a_partial_punch_is_rejected_where_that_is_the_policy() {
    let machine = Machine::new();
    let vm = machine.protected();
    let file = machine.file_with(&vm, config(2, PartialPunch::Reject));
    file.allocate(0, file.size()).unwrap();
    let rejected = |page| Err(Error::PartOfHugePage { offset: page * P });
    assert_eq!(file.punch(P, P), rejected(0));
    assert_eq!(file.punch(0, (REGION + 1) * P), rejected(REGION));
    assert_eq!(file.resident_pages(), 2 * REGION);
    file.punch(0, REGION * P).unwrap();
    assert_eq!(file.resident_pages(), REGION);
    drop((file, vm));
    machine.assert_nothing_left();
}

#[test]
fn holes_of_a_block_are_remembered_and_free_it_when_they_cover_it() {
    let machine = Machine::new();
    let vm = machine.protected();
    let file = machine.file_with(&vm, config(1, PartialPunch::ZeroOnly));
    file.allocate(0, file.size()).unwrap();
    let frame = file.get_pfn(3 * P).unwrap().pfn();
    file.punch(2 * P, 2 * P).unwrap();
    assert!(machine.fake.is_zero(frame));
    assert_eq!(file.attribute(3 * P), Ok(Attribute::Absent));
    let charged = || machine.account.charged(crate::account::Purpose::Guest);
    assert_eq!((file.resident_pages(), charged()), (REGION - 2, REGION));
    file.punch(0, 2 * P).unwrap();
    file.punch(5 * P, (REGION - 5) * P).unwrap();
    assert_eq!(charged(), REGION);
    file.punch(4 * P, P).unwrap();
    assert_eq!((file.resident_pages(), charged()), (0, 0));
    drop((file, vm));
    machine.assert_nothing_left();
}

#[test]
fn a_hole_is_used_again() {
    let machine = Machine::new();
    let vm = machine.protected();
    let file = machine.file_with(&vm, config(1, PartialPunch::ZeroOnly));
    file.allocate(0, file.size()).unwrap();
    file.punch(2 * P, P).unwrap();
    file.allocate(2 * P, P).unwrap();
    assert_eq!(file.attribute(2 * P), Ok(Attribute::Host));
    file.punch(0, 2 * P).unwrap();
    file.punch(3 * P, (REGION - 3) * P).unwrap();
    // One page keeps the block.
    assert_eq!(file.resident_pages(), 1);
    file.punch(2 * P, P).unwrap();
    drop((file, vm));
    machine.assert_nothing_left();
}

#[test]
fn a_split_punch_frees_the_part_and_keeps_the_rest_where_it_is() {
    let machine = Machine::new();
    for kind in [VmFlags::PROTECTED, VmFlags::empty()] {
        let vm = machine.vm(kind);
        let file = machine.file_with(&vm, config(1, PartialPunch::Split));
        file.allocate(0, file.size()).unwrap();
        let first = file.get_pfn(0).unwrap().pfn();
        file.punch(3 * P, 10 * P).unwrap();
        assert_eq!(file.resident_pages(), REGION - 10);
        assert_eq!(
            machine.account.charged(crate::account::Purpose::Guest),
            REGION - 10
        );
        for page in (0..3).chain(13..REGION) {
            assert_eq!(file.get_pfn(page * P).unwrap().pfn(), first.after(page));
        }
        assert_eq!(file.get_pfn(256 * P).unwrap().order(), 8);
        vm.add_slot(slot(0, IPA, REGION * P, &file, 0)).unwrap();
        vm.populate(GuestRange::new(GFN, REGION)).unwrap();
        drop((file, vm));
        machine.assert_nothing_left();
    }
}

#[test]
fn a_part_that_the_guest_gives_up_is_a_hole_or_freed_by_policy_and_never_refused() {
    for (policy, freed) in [
        (PartialPunch::Reject, 0),
        (PartialPunch::ZeroOnly, 0),
        (PartialPunch::Split, 3),
    ] {
        let machine = Machine::new();
        let mut guest = machine.guest(VmFlags::PROTECTED, config(1, policy));
        let handle = guest.vm.handle();
        machine
            .fake
            .program(handle, 0, [Act::Write(GFN + 4, 1), Act::Relinquish(GFN + 4, 3)]);
        guest.run();
        assert_eq!(guest.file.resident_pages(), REGION - 3);
        let charged = machine.account.charged(crate::account::Purpose::Guest);
        assert_eq!(charged, REGION - freed, "{policy:?}");
        machine.fake.program(handle, 0, [Act::Expect(GFN + 5, 0)]);
        guest.run();
        assert_eq!(guest.file.attribute(5 * P), Ok(Attribute::Private));
        drop(guest);
        machine.assert_nothing_left();
    }
}

#[test]
fn a_pin_in_a_block_refuses_the_punch_of_its_page_alone() {
    let machine = Machine::new();
    let vm = machine.plain();
    let file = machine.file_with(
        &vm,
        MemfdConfig {
            flags: crate::memfd::MemfdFlags::all(),
            ..config(1, PartialPunch::Split)
        },
    );
    let pin = file.pin(7 * P, P).unwrap();
    assert_eq!(file.punch(0, file.size()), Err(Error::Pinned { offset: 7 * P }));
    file.punch(0, 7 * P).unwrap();
    file.punch(8 * P, (REGION - 8) * P).unwrap();
    pin.write(0, &[1]).unwrap();
    drop((pin, file, vm));
    machine.assert_nothing_left();
}

#[test]
fn where_no_block_is_to_be_had_smaller_ones_take_its_place() {
    let machine = Machine::new();
    let vm = machine.protected();
    // What is left of the machine are single frames.
    let mut taken = Vec::new();
    for order in (0..=REGION_ORDER).rev() {
        while let Some(block) = machine
            .provider
            .buddy
            .allocate(order, crate::provider::Contents::Any)
        {
            taken.push(block.pfn);
        }
    }
    for page in [1, 3, 5, 7] {
        machine
            .provider
            .buddy
            .free(crate::Block::frame(taken[0].after(page)));
    }
    let file = machine.file_with(&vm, config(1, PartialPunch::Split));
    let guard = file.get_pfn(0).unwrap();
    assert_eq!(guard.order(), 0);
}

#[test]
fn a_reserved_pool_gives_whole_blocks_and_nothing_else() {
    let machine = Machine::new();
    let pool = Arc::new(HugePool::reserve(machine.provider.clone(), REGION_ORDER, 2).unwrap());
    let source = || Source::new(pool.clone(), machine.account.clone());
    let vm = machine.protected();
    for wrong in [config(2, PartialPunch::Split), MemfdConfig::new(REGION * P + P)] {
        let created = GuestMemfd::create(&vm, wrong, source());
        assert_eq!(created.err(), Some(Error::InvalidArgument));
    }
    let file = GuestMemfd::create(&vm, config(4, PartialPunch::ZeroOnly), source()).unwrap();
    vm.add_slot(slot(0, IPA, file.size(), &file, 0)).unwrap();
    vm.populate(GuestRange::new(GFN, 2 * REGION)).unwrap();
    let stopped = vm.populate(GuestRange::new(GFN + 2 * REGION, 1)).unwrap_err();
    assert_eq!(stopped.error, Error::NoMemory);
    drop((vm, file));
    assert_eq!(pool.free_blocks(), 2);
    drop(pool);
    machine.assert_nothing_left();
}

#[test]
fn two_vcpus_that_fault_in_one_huge_page_need_one_huge_page() {
    extern crate std;
    for _ in 0..20 {
        let machine = Machine::new();
        let pool = Arc::new(HugePool::reserve(machine.provider.clone(), REGION_ORDER, 1).unwrap());
        let vm = machine.protected();
        let source = Source::new(pool.clone(), machine.account.clone());
        let file = GuestMemfd::create(&vm, config(1, PartialPunch::ZeroOnly), source).unwrap();
        vm.add_slot(slot(0, IPA, file.size(), &file, 0)).unwrap();
        let barrier = std::sync::Barrier::new(4);
        std::thread::scope(|scope| {
            for thread in 0..4 {
                let (vm, barrier) = (&vm, &barrier);
                scope.spawn(move || {
                    barrier.wait();
                    vm.fault(GFN + thread * 100).unwrap();
                });
            }
        });
        let frame = machine.fake.mapped(vm.handle(), GFN + 511).unwrap();
        let slot = vm.handle().slot;
        assert_eq!(machine.fake.owner(frame), Owner::Guest { slot });
        drop((vm, file, pool));
        machine.assert_nothing_left();
    }
}

#[test]
fn a_part_of_a_block_that_is_taken_by_force_is_a_hole() {
    let machine = Machine::new();
    let config = MemfdConfig {
        live_punch: crate::memfd::LivePunch::Force,
        ..config(1, PartialPunch::ZeroOnly)
    };
    let guest = machine.guest(VmFlags::PROTECTED, config);
    guest.vm.fault(GFN).unwrap();
    let frame = machine.fake.mapped(guest.vm.handle(), GFN + 9).unwrap();
    guest.file.punch(9 * P, P).unwrap();
    assert_eq!(guest.file.attribute(9 * P), Ok(Attribute::Absent));
    assert_eq!(machine.fake.owner(frame), Owner::Host);
    assert_eq!(guest.vm.fault(GFN + 9), Err(Error::Lost));
    drop(guest);
    machine.assert_nothing_left();
}
