//! Slots of such memory.

use super::super::{cases, refused, same, succeed};
use super::{OFFSET, WORD};
use crate::Outcome;
use crate::device::{Errno, Kvm, Mapping};
use crate::guest::{BASE, DATA, Do, Exit, Guest, KINDS, OwnGuest, P, own_slot, set_own_slot};

cases![
    own_page_at_two_places_is_one,
    own_program_runs_from_where_it_cannot_write,
    own_slot_that_is_read_only_is_a_device_to_whoever_writes,
    own_slot_is_moved_and_deleted_under_a_guest,
    own_slots_are_many,
    own_slot_sr11_there_are_32767,
    own_slot_sr10_sr12_is_refused_as_kvm_refuses_it,
    own_slot_says_what_was_written_to,
    own_slot_is_none_for_a_protected_guest,
];

fn own_page_at_two_places_is_one() -> Outcome {
    let other = 1 << 32;
    let list = [
        Do::Store(8, DATA, WORD),
        Do::Load(8, other),
        Do::Store(8, other + 8, 5),
        Do::Load(8, DATA + 8),
        Do::Load(8, other),
        Do::Load(8, DATA),
        Do::Load(8, DATA),
    ];
    let guest = OwnGuest::new(4, &[&list])?;
    let slot = own_slot(1, 0, other, 4 * P, &guest.memory, OFFSET);
    succeed("a slot", set_own_slot(&guest.vm, slot))?;
    guest.vcpu().reports("here", WORD)?;
    guest.vcpu().reports("there", 5)?;
    succeed("madvise", guest.memory.advise(OFFSET, P, libc::MADV_DONTNEED))?;
    guest.vcpu().reports("here", 0)?;
    guest.vcpu().reports("there", 0)?;
    guest.memory.write(OFFSET, 6_u64);
    guest.vcpu().reports("here", 6)
}

fn own_program_runs_from_where_it_cannot_write() -> Outcome {
    let list = [
        Do::Report(1),
        Do::Load(8, BASE),
        Do::Store(4, BASE, 5),
        Do::Load(8, BASE),
        Do::Report(2),
    ];
    let guest = succeed("a guest", OwnGuest::with_fixed_program(&[&list]))?;
    let word = guest.memory.read::<u64>(0);
    guest.vcpu().reports("the guest", 1)?;
    guest.vcpu().reports("its program", word)?;
    same("the exit", guest.vcpu().run(), Ok(Exit::Store(BASE, 4, 5)))?;
    guest.vcpu().reports("its program", word)?;
    guest.vcpu().reports("the guest", 2)?;
    guest.vcpu().turns_off()
}

fn own_slot_that_is_read_only_is_a_device_to_whoever_writes() -> Outcome {
    let place = 1 << 32;
    let list = [
        Do::Store(8, place, 1),
        Do::Load(8, place),
        Do::Store(2, place + P + 2, 0x1234),
        Do::Load(8, place + P),
    ];
    let guest = OwnGuest::new(4, &[&list])?;
    let slot = own_slot(
        1,
        kvm_bindings::KVM_MEM_READONLY,
        place,
        2 * P,
        &guest.memory,
        OFFSET,
    );
    succeed("a slot", set_own_slot(&guest.vm, slot))?;
    guest.memory.write(OFFSET, 3_u64);
    same("the exit", guest.vcpu().run(), Ok(Exit::Store(place, 8, 1)))?;
    guest.vcpu().reports("what it reads", 3)?;
    same(
        "the exit",
        guest.vcpu().run(),
        Ok(Exit::Store(place + P + 2, 2, 0x1234)),
    )?;
    guest.vcpu().reports("what it reads", 0)?;
    let changed = own_slot(1, 0, place, 2 * P, &guest.memory, OFFSET);
    refused("another kind", set_own_slot(&guest.vm, changed), libc::EINVAL)
}

fn own_slot_is_moved_and_deleted_under_a_guest() -> Outcome {
    let (one, two) = (1 << 32, 1 << 33);
    let list = [
        Do::Store(8, one, 1),
        Do::Report(1),
        Do::Load(8, two),
        Do::Load(8, one),
        Do::Load(8, two),
    ];
    let guest = OwnGuest::new(4, &[&list])?;
    let slot = |gpa, size| own_slot(1, 0, gpa, size, &guest.memory, OFFSET);
    succeed("a slot", set_own_slot(&guest.vm, slot(one, P)))?;
    guest.vcpu().reports("the guest", 1)?;
    succeed("moving it", set_own_slot(&guest.vm, slot(two, P)))?;
    guest.vcpu().reports("what it finds there", 1)?;
    // As under KVM: where there is no slot there is a device.
    same("the exit", guest.vcpu().run(), Ok(Exit::Load(one, 8)))?;
    guest.vcpu().answer(4);
    guest.vcpu().reports("what it is told", 4)?;
    succeed("deleting it", set_own_slot(&guest.vm, slot(two, 0)))?;
    same("the exit", guest.vcpu().run(), Ok(Exit::Load(two, 8)))
}

fn own_slots_are_many() -> Outcome {
    const SLOTS: u64 = 300;
    let place = 1 << 32;
    // Every other page, so that no two are neighbours.
    let at = |number: u64| place + number * 2 * P;
    let list: Vec<Do> = (0..60)
        .map(|step| Do::Store(8, at(step * 5), step + 1))
        .chain([Do::Report(1)])
        .collect();
    let guest = OwnGuest::new(SLOTS, &[&list])?;
    for number in 0..SLOTS {
        let slot = own_slot(
            number as u32 + 1,
            0,
            at(number),
            P,
            &guest.memory,
            OFFSET + number * P,
        );
        succeed("a slot", set_own_slot(&guest.vm, slot))?;
    }
    guest.vcpu().reports("the guest", 1)?;
    for step in 0..60 {
        same(
            "a word",
            guest.memory.read::<u64>(OFFSET + step * 5 * P),
            step + 1,
        )?;
    }
    guest.memory.unmap(OFFSET, SLOTS * P);
    for number in 0..SLOTS {
        let slot = own_slot(number as u32 + 1, 0, at(number), 0, &guest.memory, OFFSET);
        succeed("deleting a slot", set_own_slot(&guest.vm, slot))?;
    }
    Ok(())
}

fn own_slot_sr11_there_are_32767() -> Outcome {
    let vm = succeed("a VM", Kvm::open().and_then(|kvm| kvm.create_vm(0)))?;
    let memory = succeed("memory", Mapping::anonymous(P, P))?;
    for number in 0..32767_u32 {
        let gpa = u64::from(number) * P;
        let added = set_own_slot(&vm, own_slot(number, 0, gpa, P, &memory, 0));
        succeed(&format!("slot {number}"), added)?;
    }
    let one_more = set_own_slot(&vm, own_slot(32767, 0, 32767 * P, P, &memory, 0));
    refused("one more", one_more, libc::EINVAL)
}

fn own_slot_sr10_sr12_is_refused_as_kvm_refuses_it() -> Outcome {
    let vm = succeed("a VM", Kvm::open().and_then(|kvm| kvm.create_vm(0)))?;
    let memory = succeed("memory", Mapping::anonymous(8 * P, P))?;
    let set = |number, flags, gpa, size, offset| {
        set_own_slot(&vm, own_slot(number, flags, gpa, size, &memory, offset))
    };
    refused("deleting what is not there", set(0, 0, BASE, 0, 0), libc::EINVAL)?;
    succeed("a slot", set(0, 0, BASE, 2 * P, 0))?;
    succeed("it as it is", set(0, 0, BASE, 2 * P, 0))?;
    for (what, changed) in [
        ("a larger one", set(0, 0, BASE, 3 * P, 0)),
        ("memory elsewhere", set(0, 0, BASE, 2 * P, P)),
        (
            "one that is read only",
            set(0, kvm_bindings::KVM_MEM_READONLY, BASE, 2 * P, 0),
        ),
        ("a misaligned place", set(1, 0, BASE + 8, P, 0)),
        ("a misaligned size", set(1, 0, BASE + 8 * P, 8, 0)),
        ("misaligned memory", set(1, 0, BASE + 8 * P, P, 8)),
        ("a flag that there is not", set(1, 1 << 3, BASE + 8 * P, P, 0)),
        ("too large a number", set(1 << 16, 0, BASE + 8 * P, P, 0)),
    ] {
        refused(what, changed, libc::EINVAL)?;
    }
    for gpa in [BASE - P, BASE, BASE + P] {
        refused("a place that is taken", set(1, 0, gpa, 2 * P, 0), libc::EEXIST)?;
    }
    succeed("another", set(1, 0, BASE + 2 * P, P, 0))?;
    refused(
        "moving one over the other",
        set(0, 0, BASE + P, 2 * P, 0),
        libc::EEXIST,
    )?;
    succeed("moving it over itself", set(0, 0, BASE - P, 2 * P, 0))?;
    refused(
        "what the guest cannot address",
        set(2, 0, (1 << 40) - P, 2 * P, 0),
        libc::EFAULT,
    )
}

fn own_slot_says_what_was_written_to() -> Outcome {
    let place = 1 << 32;
    let list = [
        Do::Store(8, place, 1),
        Do::Report(1),
        Do::Load(8, place),
        Do::Store(8, place + 3 * P, 1),
        Do::Store(8, place + 69 * P, 1),
        Do::Report(2),
        Do::Store(8, place + 69 * P, 1),
        Do::Report(3),
        Do::Load(8, place + 69 * P),
    ];
    let guest = OwnGuest::new(70, &[&list])?;
    let set = |flags| {
        set_own_slot(
            &guest.vm,
            own_slot(1, flags, place, 70 * P, &guest.memory, OFFSET),
        )
    };
    let log = |slot: u32| -> Result<[u64; 2], Errno> {
        let mut bits = [u64::MAX; 2];
        let mut log = [u64::from(slot), (&raw mut bits) as u64];
        guest.vm.pass(crate::device::GET_DIRTY_LOG, &mut log)?;
        Ok(bits)
    };
    succeed("a slot", set(0))?;
    guest.vcpu().reports("the guest", 1)?;
    refused("the log of one without", log(1), libc::ENOENT)?;
    refused("the log of none", log(7), libc::ENOENT)?;
    refused("the log of none that can be", log(1 << 16), libc::EINVAL)?;
    succeed("a log", set(kvm_bindings::KVM_MEM_LOG_DIRTY_PAGES))?;
    same("the log", log(1), Ok([0, 0]))?;
    guest.vcpu().reports("what it reads", 1)?;
    guest.vcpu().reports("the guest", 2)?;
    same("the log", log(1), Ok([1 << 3, 1 << 5]))?;
    same("the log", log(1), Ok([0, 0]))?;
    guest.vcpu().reports("the guest", 3)?;
    same("the log", log(1), Ok([0, 1 << 5]))?;
    succeed("no log", set(0))?;
    refused("the log of one without", log(1), libc::ENOENT)?;
    guest.vcpu().reports("what it reads", 1)
}

fn own_slot_is_none_for_a_protected_guest() -> Outcome {
    let guest = Guest::new(KINDS[1], &[&[]])?;
    let memory = succeed("memory", Mapping::anonymous(P, P))?;
    let slot = own_slot(1, 0, 1 << 32, P, &memory, 0);
    refused("a slot", set_own_slot(&guest.vm, slot), libc::EINVAL)
}
