//! Slots of guests that run.

use super::super::{cases, refused, same, succeed};
use crate::Outcome;
use crate::device::{Errno, Mapping, PROTECTED};
use crate::guest::{DATA, Do, Exit, Guest, KINDS, MMAP_SHARED, P, memfd, set_slot, slot};

cases![
    slot_ar03_the_file_counts_and_not_the_address,
    slot_px01_a_deleted_slot_is_a_memory_fault,
    slot_px02_a_place_without_a_slot_is_a_device,
    slot_ar05_a_closed_file_is_a_memory_fault_and_another_takes_its_place,
    slot_ar06_what_is_punched_reads_zero,
    slot_that_comes_late_is_memory,
];

fn slot_ar03_the_file_counts_and_not_the_address() -> Outcome {
    for kind in KINDS {
        let guest = Guest::new(kind, &[&[Do::Load(8, 1 << 32)]])?;
        let file = succeed("a file", memfd(&guest.vm, P, MMAP_SHARED))?;
        let mut region = slot(1, 1 << 32, P, file.raw(), 0);
        // The program's own memory, with something else in it.
        region.userspace_addr = guest.memory.address() as u64;
        succeed("a slot", set_slot(&guest.vm, region))?;
        let mapping = succeed("a mapping", Mapping::of(&file, 0, P))?;
        mapping.write::<u64>(0, 0x1234);
        guest.vcpu().reports("what the guest finds", 0x1234)?;
    }
    Ok(())
}

/// A run that fails for want of memory.
fn memory_fault(guest: &Guest, kind: u64, errno: i32, address: u64) -> Outcome {
    refused("the run", guest.vcpu().run(), errno)?;
    let flags = if kind == PROTECTED { 8 } else { 0 };
    same(
        "the exit",
        guest.vcpu().exit(),
        Exit::MemoryFault([flags, address, P]),
    )
}

fn slot_px01_a_deleted_slot_is_a_memory_fault() -> Outcome {
    for kind in KINDS {
        let place = 1 << 32;
        let guest = Guest::new(
            kind,
            &[&[Do::Report(1), Do::Load(8, place), Do::Load(8, place), Do::Go(0)]],
        )?;
        let file = succeed("a file", memfd(&guest.vm, P, MMAP_SHARED))?;
        succeed("a slot", set_slot(&guest.vm, slot(1, place, P, file.raw(), 0)))?;
        guest.vcpu().reports("the guest", 1)?;
        if kind == PROTECTED {
            // What a guest has stays with it: only what it has not can go.
            succeed("deleting the slot", set_slot(&guest.vm, slot(1, place, 0, 0, 0)))?;
        } else {
            guest.vcpu().reports("what it finds", 0)?;
            succeed("deleting the slot", set_slot(&guest.vm, slot(1, place, 0, 0, 0)))?;
        }
        memory_fault(&guest, kind, libc::EFAULT, place)?;
        // Once there is memory again, it goes on.
        succeed("a slot", set_slot(&guest.vm, slot(1, place, P, file.raw(), 0)))?;
        guest.vcpu().reports("what it finds", 0)?;
        if kind == PROTECTED {
            let deleted = set_slot(&guest.vm, slot(1, place, 0, 0, 0));
            refused("deleting what the guest has", deleted, libc::EBUSY)?;
        }
    }
    Ok(())
}

fn slot_px02_a_place_without_a_slot_is_a_device() -> Outcome {
    for kind in KINDS {
        let guest = Guest::new(kind, &[&[Do::Load(4, 1 << 33)]])?;
        same("the exit", guest.vcpu().run(), Ok(Exit::Load(1 << 33, 4)))?;
    }
    Ok(())
}

fn slot_ar05_a_closed_file_is_a_memory_fault_and_another_takes_its_place() -> Outcome {
    for kind in KINDS {
        let place = 1 << 32;
        let guest = Guest::new(kind, &[&[Do::Load(8, place)]])?;
        let file = succeed("a file", memfd(&guest.vm, P, MMAP_SHARED))?;
        succeed("a slot", set_slot(&guest.vm, slot(1, place, P, file.raw(), 0)))?;
        drop(file);
        memory_fault(&guest, kind, libc::EFAULT, place)?;
        succeed("deleting the slot", set_slot(&guest.vm, slot(1, place, 0, 0, 0)))?;
        let other = succeed("another", memfd(&guest.vm, P, MMAP_SHARED))?;
        succeed("its slot", set_slot(&guest.vm, slot(1, place, P, other.raw(), 0)))?;
        guest.vcpu().reports("what the guest finds", 0)?;
    }
    Ok(())
}

fn slot_ar06_what_is_punched_reads_zero() -> Outcome {
    let punch = |guest: &Guest, page: u64| -> Result<(), Errno> {
        let mode = libc::FALLOC_FL_KEEP_SIZE | libc::FALLOC_FL_PUNCH_HOLE;
        guest.file.fallocate(mode, page * P, P)
    };
    let list = [Do::Store(8, DATA, 7), Do::Load(8, DATA), Do::Load(8, DATA)];
    let guest = Guest::new(0, &[&list])?;
    guest.vcpu().reports("before", 7)?;
    succeed("the punch", punch(&guest, 4))?;
    guest.vcpu().reports("after", 0)?;
    let guest = Guest::new(PROTECTED, &[&list])?;
    guest.vcpu().reports("before", 7)?;
    // What a protected guest has is not taken from it.
    refused("the punch", punch(&guest, 4), libc::EBUSY)?;
    guest.vcpu().reports("after", 7)
}

fn slot_that_comes_late_is_memory() -> Outcome {
    for kind in KINDS {
        let place = 1 << 34;
        let list = [Do::Report(1), Do::Store(8, place, 5), Do::Load(8, place)];
        let guest = Guest::new(kind, &[&list])?;
        guest.vcpu().reports("the guest", 1)?;
        let file = succeed("a file", memfd(&guest.vm, P, MMAP_SHARED))?;
        succeed("a slot", set_slot(&guest.vm, slot(1, place, P, file.raw(), 0)))?;
        guest.vcpu().reports("what it stored", 5)?;
    }
    Ok(())
}
