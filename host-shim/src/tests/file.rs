//! Files: creation, allocation, punching.

use super::support::*;
use crate::account::Purpose;
use crate::fake::Act;
use crate::memfd::{Attribute, FallocateMode, LivePunch, Mappings, MemfdFlags, PartialPunch};
use crate::vcpu::{Entry, PinnedPolicy};
use crate::{Error, GuestMemfd, MAX_ORDER, MemfdConfig};
use alloc::sync::Arc;
use alloc::vec::Vec;
use hyp_abi::GuestRange;
use hyp_abi::vm::VmFlags;

extern crate std;

const PUNCH: FallocateMode = FallocateMode::KEEP_SIZE.union(FallocateMode::PUNCH_HOLE);

fn kinds() -> [VmFlags; 2] {
    [VmFlags::PROTECTED, VmFlags::empty()]
}

fn shared(size: u64) -> MemfdConfig {
    MemfdConfig {
        flags: MemfdFlags::all(),
        ..MemfdConfig::new(size)
    }
}

#[test]
fn gm01_gm02_gm03_exactly_the_known_flags_are_accepted() {
    let machine = Machine::new();
    for kind in kinds() {
        let vm = machine.vm(kind);
        let valid = MemfdFlags::all();
        for bit in 0..64 {
            let flags = MemfdFlags::from_bits_retain(1 << bit);
            let config = MemfdConfig {
                flags,
                ..MemfdConfig::new(4 * P)
            };
            let created = GuestMemfd::create(&vm, config, machine.source());
            match valid.contains(flags) {
                true => assert_eq!(created.unwrap().flags(), flags),
                false => assert_eq!(created.err(), Some(Error::InvalidArgument), "bit {bit}"),
            }
        }
    }
    machine.assert_nothing_left();
}

#[test]
fn gm04_a_size_that_is_no_number_of_pages_is_refused() {
    let machine = Machine::new();
    let vm = machine.protected();
    for size in (0..P).chain([P + 1, u64::MAX, 1 << 63]) {
        let created = GuestMemfd::create(&vm, MemfdConfig::new(size), machine.source());
        assert_eq!(created.err(), Some(Error::InvalidArgument), "size {size}");
    }
}

#[test]
fn gm05_gm06_two_files_of_a_vm_are_two_memories() {
    let machine = Machine::new();
    let vm = machine.protected();
    let (first, second) = (machine.file(&vm, 1), machine.file(&vm, 2));
    assert_eq!((first.size(), second.size()), (P, 2 * P));
    assert!(!first.is_same_memory(&second));
    assert!(first.is_same_memory(&first.clone()));
}

#[test]
fn gm07_gm12_what_the_host_may_not_touch_is_neither_read_nor_written_nor_mapped() {
    let machine = Machine::new();
    for kind in kinds() {
        let config = MemfdConfig {
            flags: MemfdFlags::MMAP,
            ..MemfdConfig::new(4 * P)
        };
        let guest = machine.guest(kind, config);
        guest.vm.fault(GFN).unwrap();
        for offset in [0, P] {
            assert_eq!(guest.file.pin(offset, P).err(), Some(Error::NotShared { offset }));
            assert_eq!(
                guest.file.host_page(offset).err(),
                Some(Error::NotShared { offset })
            );
        }
    }
    machine.assert_nothing_left();
}

#[test]
fn gm08_a_file_without_the_flag_is_not_mapped() {
    let machine = Machine::new();
    let vm = machine.plain();
    assert_eq!(machine.file(&vm, 4).host_page(0).err(), Some(Error::NotMappable));
}

#[test]
fn gm10_what_is_written_to_a_shared_file_is_read_again() {
    let machine = Machine::new();
    let vm = machine.plain();
    let file = machine.file_with(&vm, shared(4 * P));
    let pin = file.pin(0, 4 * P).unwrap();
    pin.write(P - 2, &[1, 2, 3, 4]).unwrap();
    let mut bytes = [9; 6];
    pin.read(P - 3, &mut bytes).unwrap();
    assert_eq!(bytes, [0, 1, 2, 3, 4, 0]);
    assert_eq!(pin.read(4 * P - 1, &mut [0; 2]), Err(Error::InvalidArgument));
    assert_eq!(pin.write(u64::MAX, &[0; 2]), Err(Error::InvalidArgument));
    drop((pin, file, vm));
    machine.assert_nothing_left();
}

#[test]
fn gm11_a_punched_page_is_zero_and_the_others_keep_their_contents() {
    let machine = Machine::new();
    let vm = machine.plain();
    let file = machine.file_with(&vm, shared(4 * P));
    file.pin(0, 4 * P)
        .unwrap()
        .write(0, &[0xAA; 4 * P as usize])
        .unwrap();
    file.punch(0, P).unwrap();
    let mut bytes = [0; 2];
    let pin = file.pin(0, 2 * P).unwrap();
    pin.read(P - 1, &mut bytes).unwrap();
    assert_eq!(bytes, [0, 0xAA]);
    pin.write(0, &[0xBB]).unwrap();
    pin.read(0, &mut bytes).unwrap();
    assert_eq!(bytes, [0xBB, 0]);
}

#[test]
fn gm13_the_host_finds_nothing_beyond_the_end() {
    let machine = Machine::new();
    let vm = machine.plain();
    let file = machine.file_with(&vm, shared(4 * P));
    assert!(file.host_page(3 * P).is_ok());
    assert_eq!(
        file.host_page(4 * P).err(),
        Some(Error::NotShared { offset: 4 * P })
    );
    assert_eq!(file.pin(3 * P, 2 * P).err(), Some(Error::InvalidArgument));
}

#[test]
fn gm15_gm16_all_of_a_file_is_allocated_and_nothing_beyond() {
    let machine = Machine::new();
    let vm = machine.protected();
    let file = machine.file(&vm, 4);
    let allocate = |offset, length| file.fallocate(FallocateMode::KEEP_SIZE, offset, length);
    allocate(0, 4 * P).unwrap();
    assert_eq!(machine.account.charged(Purpose::Guest), 4);
    for (offset, length) in [(4 * P, P), (5 * P, P), (3 * P, 2 * P), (0, 0), (1, P), (P, 1)] {
        assert_eq!(
            allocate(offset, length),
            Err(Error::InvalidArgument),
            "{offset} {length}"
        );
    }
    assert_eq!(file.resident_pages(), 4);
}

#[test]
fn gm17_a_punch_beyond_the_end_is_fine() {
    let machine = Machine::new();
    let vm = machine.protected();
    let file = machine.file(&vm, 4);
    file.allocate(0, 4 * P).unwrap();
    for (offset, length) in [(4 * P, P), (5 * P, P), (100 * P, 100 * P)] {
        file.fallocate(PUNCH, offset, length).unwrap();
    }
    assert_eq!(file.resident_pages(), 4);
    file.fallocate(PUNCH, 3 * P, 5 * P).unwrap();
    assert_eq!(file.resident_pages(), 3);
}

#[test]
fn gm18_gm20_a_misaligned_punch_is_refused() {
    let machine = Machine::new();
    let vm = machine.protected();
    let file = machine.file(&vm, 4);
    file.allocate(0, 4 * P).unwrap();
    let cases = [
        (0, 1),
        (0, P - 1),
        (0, P + 1),
        (1, 1),
        (1, P - 1),
        (1, P),
        (1, P + 1),
        (P, 1),
        (P, P - 1),
        (P, P + 1),
        (0, 0),
        (u64::MAX / P * P, P),
    ];
    for (offset, length) in cases {
        let result = file.fallocate(PUNCH, offset, length);
        assert_eq!(result, Err(Error::InvalidArgument), "{offset} {length}");
    }
    assert_eq!(file.resident_pages(), 4);
}

#[test]
fn gm19_what_is_punched_is_allocated_again() {
    let machine = Machine::new();
    let vm = machine.protected();
    let file = machine.file(&vm, 4);
    file.allocate(0, 4 * P).unwrap();
    file.punch(P, P).unwrap();
    assert_eq!(file.attribute(P), Ok(Attribute::Absent));
    assert_eq!(machine.account.charged(Purpose::Guest), 3);
    file.allocate(P, P).unwrap();
    assert_eq!(file.attribute(P), Ok(Attribute::Host));
    drop((file, vm));
    machine.assert_nothing_left();
}

#[test]
fn gm21_other_modes_are_not_supported() {
    let machine = Machine::new();
    let vm = machine.protected();
    let file = machine.file(&vm, 4);
    for bits in 0..128 {
        let mode = FallocateMode::from_bits_retain(bits);
        if mode != FallocateMode::KEEP_SIZE && mode != PUNCH {
            assert_eq!(file.fallocate(mode, 0, P), Err(Error::NotSupported), "{bits:#x}");
        }
    }
    assert_eq!(Error::NotSupported.errno(), 95);
}

#[test]
fn gm25_host_and_guest_see_what_the_other_writes() {
    use crate::fake::Act;
    let machine = Machine::new();
    let mut guest = machine.guest(VmFlags::empty(), shared(2 * P));
    guest
        .file
        .pin(0, 2 * P)
        .unwrap()
        .write(0, &[0xAA; 2 * P as usize])
        .unwrap();
    let acts = [
        Act::Expect(GFN, 0xAA),
        Act::Expect(GFN + 1, 0xAA),
        Act::Write(GFN, 0xFF),
        Act::Write(GFN + 1, 0xFF),
    ];
    machine.fake.program(guest.vm.handle(), 0, acts);
    guest.run();
    let mut bytes = [0; 2 * P as usize];
    guest.file.pin(0, 2 * P).unwrap().read(0, &mut bytes).unwrap();
    assert!(bytes.iter().all(|byte| *byte == 0xFF));
    drop(guest);
    machine.assert_nothing_left();
}

#[test]
fn gm26_a_file_may_be_closed_before_its_vm_ends() {
    let machine = Machine::new();
    for kind in kinds() {
        let Guest { vm, file, vcpu } = machine.guest(kind, MemfdConfig::new(4 * P));
        vm.fault(GFN).unwrap();
        file.allocate(0, 4 * P).unwrap();
        drop(file);
        drop((vcpu, vm));
        machine.assert_nothing_left();
    }
}

#[test]
fn a_configuration_that_cannot_work_is_refused() {
    let machine = Machine::new();
    let vm = machine.protected();
    let order = MemfdConfig {
        order: MAX_ORDER + 1,
        ..MemfdConfig::new(P)
    };
    assert_eq!(
        GuestMemfd::create(&vm, order, machine.source()).err(),
        Some(Error::InvalidArgument)
    );
}

#[test]
fn a_punch_of_a_live_guests_page_is_refused_and_changes_nothing() {
    let machine = Machine::new();
    let guest = machine.guest(VmFlags::PROTECTED, MemfdConfig::new(4 * P));
    guest.file.allocate(0, 4 * P).unwrap();
    guest.vm.fault(GFN + 2).unwrap();
    assert_eq!(guest.file.punch(0, 4 * P), Err(Error::InUse { offset: 2 * P }));
    assert_eq!(guest.file.resident_pages(), 4);
    guest.file.punch(0, 2 * P).unwrap();
    assert_eq!(guest.file.resident_pages(), 2);
    drop(guest);
    machine.assert_nothing_left();
}

#[test]
fn a_punch_by_force_takes_the_page_for_good() {
    use crate::fake::Act;
    use crate::{Exit, vcpu::PinnedPolicy};
    let machine = Machine::new();
    let config = MemfdConfig {
        live_punch: LivePunch::Force,
        partial_punch: PartialPunch::Split,
        ..MemfdConfig::new(4 * P)
    };
    let mut guest = machine.guest(VmFlags::PROTECTED, config);
    machine
        .fake
        .program(guest.vm.handle(), 0, [Act::Write(GFN, 7), Act::Share(GFN + 1)]);
    guest.run();
    let frame = machine.fake.mapped(guest.vm.handle(), GFN).unwrap();
    guest.file.punch(0, P).unwrap();
    assert!(machine.fake.is_zero(frame));
    // What the guest shares is not taken.
    assert_eq!(guest.file.punch(P, P), Err(Error::InUse { offset: P }));
    machine.fake.program(guest.vm.handle(), 0, [Act::Expect(GFN, 0)]);
    let exit = guest.vcpu.run_on(&Entry::new(), PinnedPolicy::Refuse);
    assert_eq!(exit, Ok(Exit::Lost { gfn: GFN }));
    assert_eq!(guest.vm.fault(GFN), Err(Error::Lost));
    drop(guest);
    machine.assert_nothing_left();
}

#[test]
fn a_page_of_a_guard_is_zero_and_its_order_is_known() {
    let machine = Machine::new();
    let vm = machine.protected();
    let config = MemfdConfig {
        order: 2,
        ..MemfdConfig::new(8 * P)
    };
    let file = machine.file_with(&vm, config);
    let guard = file.get_pfn(5 * P).unwrap();
    assert_eq!((guard.order(), guard.pfn().number() % 4), (2, 1));
    assert!(machine.fake.is_zero(guard.pfn()));
    drop(guard);
    assert_eq!(file.get_pfn(8 * P).err(), Some(Error::InvalidArgument));
    assert_eq!(file.get_pfn(1).err(), Some(Error::InvalidArgument));
}

/// Notes what is zapped.
#[derive(Debug, Default)]
struct Zapped(std::sync::Mutex<Vec<core::ops::Range<u64>>>);

impl Mappings for Zapped {
    fn zap(&self, pages: core::ops::Range<u64>) {
        self.0.lock().unwrap().push(pages);
    }
}

impl Zapped {
    /// The first page and the end of each, since the last look.
    fn take(&self) -> Vec<(u64, u64)> {
        let zapped = core::mem::take(&mut *self.0.lock().unwrap());
        zapped.iter().map(|pages| (pages.start, pages.end)).collect()
    }
}

#[test]
fn a_protected_guests_memory_is_filled_by_the_host_before_the_launch_and_closed_to_it_page_by_page() {
    let machine = Machine::new();
    let vm = machine.protected();
    let zapped = Arc::new(Zapped::default());
    let file = GuestMemfd::create_mapped(&vm, shared(4 * P), machine.source(), Some(zapped.clone())).unwrap();
    vm.add_slot(slot(0, IPA, 4 * P, &file, 0)).unwrap();
    let mut vcpu = vm.create_vcpu(0).unwrap();
    for page in 0..2 {
        file.pin(page * P, P).unwrap().write(0, &[7; P as usize]).unwrap();
    }
    assert_eq!(zapped.take(), []);
    vm.populate(GuestRange::new(GFN, 1)).unwrap();
    assert_eq!(zapped.take(), [(0, 1)]);
    assert_eq!(file.host_page(0).err(), Some(Error::NotShared { offset: 0 }));
    assert_eq!(file.host_page(P).unwrap().order(), 0);
    vm.launch(IPA, 0).unwrap();
    // What is the host's still is no longer shown, and nothing new is made for it.
    for page in 0..3 {
        assert_eq!(
            file.host_page(page * P).err(),
            Some(Error::NotShared { offset: page * P })
        );
    }
    let acts = [Act::Expect(GFN, 7), Act::Expect(GFN + 1, 0), Act::Share(GFN)];
    machine.fake.program(vm.handle(), 0, acts);
    vcpu.run_on(&Entry::new(), PinnedPolicy::Refuse).unwrap();
    assert_eq!(zapped.take(), [(1, 2)]);
    assert!(file.host_page(0).is_ok());
    // Before it is freed.
    machine.fake.program(vm.handle(), 0, [Act::Relinquish(GFN, 1)]);
    vcpu.run_on(&Entry::new(), PinnedPolicy::Refuse).unwrap();
    assert_eq!(zapped.take(), [(0, 1)]);
    file.punch(3 * P, P).unwrap();
    assert_eq!(zapped.take(), []);
    drop((vcpu, file, vm));
    machine.assert_nothing_left();
}

#[test]
fn what_the_host_has_pinned_is_not_given_to_a_protected_guest() {
    let machine = Machine::new();
    let vm = machine.protected();
    let config = MemfdConfig {
        order: 2,
        ..shared(4 * P)
    };
    let file = machine.file_with(&vm, config);
    vm.add_slot(slot(0, IPA, 4 * P, &file, 0)).unwrap();
    let pin = file.pin(2 * P, P).unwrap();
    vm.fault(GFN).unwrap();
    assert_eq!(vm.fault(GFN + 2).err(), Some(Error::Pinned { offset: 2 * P }));
    let attributes = |file: &GuestMemfd<_>| [0, 1, 2, 3].map(|page| file.attribute(page * P).unwrap());
    let (private, host) = (Attribute::Private, Attribute::Host);
    assert_eq!(attributes(&file), [private, private, host, private]);
    drop(pin);
    vm.fault(GFN + 2).unwrap();
    assert_eq!(attributes(&file), [private; 4]);
    drop((file, vm));
    machine.assert_nothing_left();
}
