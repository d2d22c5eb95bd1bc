//! Slots: what is bound where.

use super::support::*;
use crate::memfd::Attribute;
use crate::vm::{MAX_SLOT_PAGES, MAX_SLOTS};
use crate::{Error, MemfdConfig, SlotConfig};
use alloc::vec::Vec;
use hyp_abi::vm::VmFlags;
use hyp_abi::{GuestRange, HostCall, VmCall};

#[test]
fn gm22_an_offset_at_the_end_of_all_numbers_is_refused() {
    let machine = Machine::new();
    let vm = machine.protected();
    let file = machine.file(&vm, 4);
    for offset in [i64::MAX as u64 / P * P, u64::MAX / P * P, 4 * P, P] {
        let added = vm.add_slot(slot(0, IPA, 4 * P, &file, offset));
        assert_eq!(added, Err(Error::InvalidArgument), "{offset:#x}");
    }
}

#[test]
fn sr01_sr02_sr03_sr04_every_flag_is_refused() {
    let machine = Machine::new();
    let vm = machine.protected();
    let file = machine.file(&vm, 4);
    for bit in 0..32 {
        let config = SlotConfig {
            flags: 1 << bit,
            ..slot(0, IPA, P, &file, 0)
        };
        assert_eq!(vm.add_slot(config), Err(Error::InvalidArgument), "bit {bit}");
    }
    vm.add_slot(slot(0, IPA, P, &file, 0)).unwrap();
}

#[test]
fn sr06_a_file_of_another_vm_is_refused() {
    let machine = Machine::new();
    let (vm, other) = (machine.protected(), machine.protected());
    let file = machine.file(&other, 4);
    assert_eq!(
        vm.add_slot(slot(0, IPA, P, &file, 0)),
        Err(Error::InvalidArgument)
    );
    other.add_slot(slot(0, IPA, P, &file, 0)).unwrap();
}

#[test]
fn sr07_every_misaligned_offset_is_refused() {
    let machine = Machine::new();
    let vm = machine.protected();
    let file = machine.file(&vm, 4);
    for offset in 1..P {
        assert_eq!(
            vm.add_slot(slot(0, IPA, P, &file, offset)),
            Err(Error::InvalidArgument)
        );
    }
    for (ipa, size) in [(IPA + 1, P), (IPA, P + 1), (IPA, 0), (IPA, u64::MAX / P * P)] {
        assert_eq!(
            vm.add_slot(slot(0, ipa, size, &file, 0)),
            Err(Error::InvalidArgument)
        );
    }
    vm.add_slot(slot(0, IPA, P, &file, 0)).unwrap();
}

#[test]
fn sr08_two_slots_have_disjoint_parts_of_one_file() {
    let machine = Machine::new();
    let guest = machine.guest(VmFlags::PROTECTED, MemfdConfig::new(P));
    let file = machine.file(&guest.vm, 4);
    guest
        .vm
        .add_slot(slot(1, IPA + 4 * P, 2 * P, &file, 2 * P))
        .unwrap();
    guest.vm.add_slot(slot(2, IPA + 8 * P, 2 * P, &file, 0)).unwrap();
    guest.vm.fault(GFN + 5).unwrap();
    guest.vm.fault(GFN + 8).unwrap();
    assert_eq!(file.attribute(3 * P), Ok(Attribute::Private));
    assert_eq!(file.attribute(0), Ok(Attribute::Private));
    assert_eq!(file.attribute(P), Ok(Attribute::Absent));
    drop((guest, file));
    machine.assert_nothing_left();
}

#[test]
fn sr09_a_part_of_a_file_that_is_bound_is_not_bound_again() {
    let machine = Machine::new();
    let vm = machine.protected();
    let file = machine.file(&vm, 8);
    vm.add_slot(slot(0, IPA, 4 * P, &file, 0)).unwrap();
    vm.add_slot(slot(1, IPA + 4 * P, 4 * P, &file, 4 * P)).unwrap();
    vm.delete_slot(0).unwrap();
    let far = IPA + 64 * P;
    for (size, offset) in [(4 * P, 2 * P), (8 * P, 0), (P, 7 * P), (2 * P, 6 * P), (P, 5 * P)] {
        assert_eq!(vm.add_slot(slot(0, far, size, &file, offset)), Err(Error::Exists));
    }
    vm.add_slot(slot(0, far, 4 * P, &file, 0)).unwrap();
}

#[test]
fn sr10_addresses_that_overlap_a_slot_are_refused() {
    let machine = Machine::new();
    let vm = machine.protected();
    let (file, other) = (machine.file(&vm, 4), machine.file(&vm, 8));
    vm.add_slot(slot(0, IPA, 4 * P, &file, 0)).unwrap();
    for (ipa, size) in [
        (IPA - 2 * P, 4 * P),
        (IPA + 2 * P, 4 * P),
        (IPA - P, 8 * P),
        (IPA + P, P),
        (IPA, 4 * P),
    ] {
        assert_eq!(vm.add_slot(slot(1, ipa, size, &other, 0)), Err(Error::Exists));
    }
    // The refused attempts left no binding behind.
    vm.add_slot(slot(1, IPA + 4 * P, 8 * P, &other, 0)).unwrap();
    assert_eq!(Error::Exists.errno(), 17);
}

#[test]
fn sr11_there_are_as_many_slots_as_under_kvm() {
    let machine = Machine::new();
    let vm = machine.protected();
    let pages = u64::from(MAX_SLOTS) + 1;
    let file = machine.file(&vm, pages);
    for number in 0..MAX_SLOTS {
        let at = u64::from(number) * P;
        vm.add_slot(slot(number, IPA + at, P, &file, at)).unwrap();
    }
    let at = u64::from(MAX_SLOTS) * P;
    let one_more = vm.add_slot(slot(MAX_SLOTS, IPA + at, P, &file, at));
    assert_eq!(one_more, Err(Error::InvalidArgument));
}

#[test]
fn sr12_a_slot_is_deleted_and_never_changed() {
    let machine = Machine::new();
    let vm = machine.protected();
    let file = machine.file(&vm, 8);
    vm.add_slot(slot(0, IPA, 4 * P, &file, 0)).unwrap();
    for changed in [
        slot(0, IPA, 4 * P, &file, 0),
        slot(0, IPA + 64 * P, 4 * P, &file, 4 * P),
        slot(0, IPA, 2 * P, &file, 4 * P),
    ] {
        assert!(vm.add_slot(changed).is_err());
    }
    assert_eq!(
        vm.add_slot(slot(0, IPA + 64 * P, 4 * P, &file, 4 * P)),
        Err(Error::InvalidArgument)
    );
    assert_eq!(vm.delete_slot(1), Err(Error::InvalidArgument));
    let huge = machine.file(&vm, MAX_SLOT_PAGES + 1);
    let too_large = slot(1, 0, (MAX_SLOT_PAGES + 1) * P, &huge, 0);
    assert_eq!(vm.add_slot(too_large), Err(Error::InvalidArgument));
    vm.delete_slot(0).unwrap();
    assert_eq!(vm.delete_slot(0), Err(Error::InvalidArgument));
    vm.add_slot(slot(0, IPA, 4 * P, &file, 0)).unwrap();
}

#[test]
fn a_slot_beyond_the_guests_addresses_is_refused() {
    let machine = Machine::new();
    let vm = machine.protected();
    let file = machine.file(&vm, 2);
    let last = (1 << 40) - P;
    assert_eq!(
        vm.add_slot(slot(0, last, 2 * P, &file, 0)),
        Err(Error::InvalidArgument)
    );
    vm.add_slot(slot(0, last, P, &file, 0)).unwrap();
}

#[test]
fn px01_a_slot_whose_pages_a_protected_guest_owns_stays() {
    let machine = Machine::new();
    let guest = machine.guest(VmFlags::PROTECTED, MemfdConfig::new(4 * P));
    guest.vm.fault(GFN + 1).unwrap();
    assert_eq!(guest.vm.delete_slot(0), Err(Error::InUse { offset: P }));
    guest.vm.fault(GFN + 2).unwrap();
    drop(guest);
    machine.assert_nothing_left();
}

#[test]
fn px01_a_slot_of_a_plain_guest_is_deleted_under_it() {
    let machine = Machine::new();
    let guest = machine.guest(VmFlags::empty(), MemfdConfig::new(4 * P));
    guest.vm.populate(GuestRange::new(GFN, 4)).unwrap();
    let frame = machine.fake.mapped(guest.vm.handle(), GFN).unwrap();
    guest.vm.delete_slot(0).unwrap();
    assert_eq!(machine.fake.mapped(guest.vm.handle(), GFN), None);
    assert_eq!(machine.fake.owner(frame), crate::fake::Owner::Host);
    assert_eq!(guest.vm.fault(GFN), Err(Error::NoBacking));
    assert_eq!(guest.file.resident_pages(), 4);
    drop(guest);
    machine.assert_nothing_left();
}

#[test]
fn px02_a_fault_without_a_slot_has_no_memory_behind_it() {
    let machine = Machine::new();
    let guest = machine.guest(VmFlags::PROTECTED, MemfdConfig::new(4 * P));
    assert_eq!(guest.vm.fault(GFN + 4), Err(Error::NoBacking));
    assert_eq!(guest.vm.fault(u64::MAX), Err(Error::NoBacking));
    assert_eq!(Error::NoBacking.errno(), 14);
}

#[test]
fn pf02_pf03_pf04_what_can_be_populated_is_and_the_rest_is_told() {
    let machine = Machine::new();
    for kind in [VmFlags::PROTECTED, VmFlags::empty()] {
        let guest = machine.guest(kind, MemfdConfig::new(513 * P));
        guest.vm.populate(GuestRange::new(GFN, 512)).unwrap();
        let stopped = guest.vm.populate(GuestRange::new(GFN + 512, 2)).unwrap_err();
        assert_eq!((stopped.done, stopped.error), (1, Error::NoBacking));
        let stopped = guest.vm.populate(GuestRange::new(GFN + 513, 2)).unwrap_err();
        assert_eq!((stopped.done, stopped.error), (0, Error::NoBacking));
        drop(guest);
        machine.assert_nothing_left();
    }
}

#[test]
fn ar05_a_closed_file_leaves_an_empty_slot_and_another_takes_its_place() {
    let machine = Machine::new();
    let Guest { vm, file, vcpu } = machine.guest(VmFlags::empty(), MemfdConfig::new(4 * P));
    vm.fault(GFN).unwrap();
    let clone = file.clone();
    drop(file);
    vm.fault(GFN + 1).unwrap();
    drop(clone);
    assert_eq!(machine.fake.mapped(vm.handle(), GFN), None);
    assert_eq!(vm.fault(GFN), Err(Error::NoBacking));
    vm.delete_slot(0).unwrap();
    let other = machine.file(&vm, 4);
    vm.add_slot(slot(0, IPA, 4 * P, &other, 0)).unwrap();
    vm.fault(GFN).unwrap();
    drop((vm, vcpu, other));
    machine.assert_nothing_left();
}

#[test]
fn what_files_have_is_given_before_the_launch_in_ascending_order() {
    let machine = Machine::new();
    let vm = machine.protected();
    let file = machine.file(&vm, 8);
    // The later slot first, and two that lie together.
    vm.add_slot(slot(0, IPA + 8 * P, 4 * P, &file, 0)).unwrap();
    vm.add_slot(slot(1, IPA, 2 * P, &file, 6 * P)).unwrap();
    vm.add_slot(slot(2, IPA + 2 * P, P, &file, 5 * P)).unwrap();
    assert_eq!(
        vm.slot_ranges(),
        [GuestRange::new(GFN, 3), GuestRange::new(GFN + 8, 4)]
    );
    assert!(vm.has_slot_at(GFN + 2) && !vm.has_slot_at(GFN + 3));
    // Page 4 is in no slot, page 2 is punched.
    for page in [0, 2, 3, 4, 5, 7] {
        file.allocate(page * P, P).unwrap();
    }
    file.punch(2 * P, P).unwrap();
    machine.fake.log();
    assert_eq!(vm.give_resident(), Ok(4));
    let gfns: Vec<u64> = machine
        .fake
        .log()
        .into_iter()
        .filter_map(|call| match call {
            HostCall::Vm(VmCall::Donate { gfn, .. }) => Some(gfn),
            _ => None,
        })
        .collect();
    let mut ascending = gfns.clone();
    ascending.sort_unstable();
    ascending.dedup();
    assert_eq!(ascending, [GFN + 1, GFN + 2, GFN + 8, GFN + 11]);
    assert!(gfns.is_sorted());
    assert_eq!(vm.give_resident(), Ok(0));
    drop((file, vm));
    machine.assert_nothing_left();
}
