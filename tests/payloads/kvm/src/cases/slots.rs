//! Slots, by the numbers of the conformance list for guest_memfd.

pub(super) mod guests;

use super::{cases, refused, same, succeed};
use crate::Outcome;
use crate::device::{CHECK_EXTENSION, ENABLE_CAP, Fd, Kvm, PROTECTED, SET_USER_MEMORY_REGION, shared_memory};
use crate::guest::{BASE, KINDS, MMAP_SHARED, P, memfd, set_slot, slot};
use kvm_bindings::{
    KVM_CAP_ARM_MTE, KVM_MEM_GUEST_MEMFD, KVM_MEM_LOG_DIRTY_PAGES, KVM_MEM_READONLY, kvm_enable_cap,
    kvm_userspace_memory_region,
};

cases![
    slot_gm22_an_offset_at_the_end_of_all_numbers_is_refused,
    slot_sr01_sr02_sr03_sr04_flags_that_there_are_not_are_refused,
    slot_sr05_sr06_only_a_file_of_the_vm_is_taken,
    slot_sr07_every_misaligned_offset_is_refused,
    slot_sr08_sr10_what_overlaps_is_refused,
    slot_sr09_no_part_of_a_file_is_in_two_slots,
    slot_sr11_there_are_32767,
    slot_sr12_a_slot_is_deleted_and_never_changed,
    slot_ar01_a_file_without_mmap_is_for_protected_guests,
    slot_ar02_there_are_no_tags,
];

fn vm(kind: u64) -> Result<Fd, String> {
    succeed("a VM", Kvm::open().and_then(|kvm| kvm.create_vm(kind)))
}

/// Does it with a VM of each kind and a file of four pages.
fn each(work: impl Fn(&Fd, &Fd) -> Outcome) -> Outcome {
    for kind in KINDS {
        let vm = vm(kind)?;
        let file = succeed("a file", memfd(&vm, 4 * P, MMAP_SHARED))?;
        work(&vm, &file).map_err(|why| format!("kind {kind:#x}: {why}"))?;
    }
    Ok(())
}

fn slot_gm22_an_offset_at_the_end_of_all_numbers_is_refused() -> Outcome {
    each(|vm, file| {
        for offset in [i64::MAX as u64 / P * P, u64::MAX / P * P, 4 * P, P] {
            let set = set_slot(vm, slot(0, BASE, 4 * P, file.raw(), offset));
            refused(&format!("{offset:#x}"), set, libc::EINVAL)?;
        }
        Ok(())
    })
}

fn slot_sr01_sr02_sr03_sr04_flags_that_there_are_not_are_refused() -> Outcome {
    each(|vm, file| {
        for bit in 2..32 {
            let mut region = kvm_userspace_memory_region {
                flags: 1 << bit,
                guest_phys_addr: BASE,
                memory_size: P,
                ..Default::default()
            };
            let set = vm.pass(SET_USER_MEMORY_REGION, &mut region);
            refused(&format!("bit {bit} of the first"), set, libc::EINVAL)?;
        }
        for bit in 3..32 {
            for flags in [1 << bit, 1 << bit | KVM_MEM_GUEST_MEMFD] {
                let mut region = slot(0, BASE, P, file.raw(), 0);
                region.flags = flags;
                refused(&format!("flags {flags:#x}"), set_slot(vm, region), libc::EINVAL)?;
            }
        }
        for other in [KVM_MEM_LOG_DIRTY_PAGES, KVM_MEM_READONLY] {
            let mut region = slot(0, BASE, P, file.raw(), 0);
            region.flags |= other;
            refused(&format!("flag {other}"), set_slot(vm, region), libc::EINVAL)?;
        }
        Ok(())
    })
}

fn slot_sr05_sr06_only_a_file_of_the_vm_is_taken() -> Outcome {
    for kind in KINDS {
        let kvm = succeed("/dev/kvm", Kvm::open())?;
        let (one, other) = (vm(kind)?, vm(kind)?);

        let directory = std::fs::File::open("/").map_err(|error| error.to_string())?;
        let ordinary = succeed("a file in memory", shared_memory(P))?;
        let theirs = succeed("a file", memfd(&other, P, MMAP_SHARED))?;
        use std::os::fd::AsRawFd as _;
        for (what, raw) in [
            ("/dev/kvm", kvm.0.raw()),
            ("the VM", one.raw()),
            ("a directory", directory.as_raw_fd()),
            ("an ordinary file in memory", ordinary.raw()),
            ("a file of another VM", theirs.raw()),
        ] {
            refused(what, set_slot(&one, slot(0, BASE, P, raw, 0)), libc::EINVAL)?;
        }
        refused("no file", set_slot(&one, slot(0, BASE, P, 999, 0)), libc::EBADF)?;
        refused("-1", set_slot(&one, slot(0, BASE, P, -1, 0)), libc::EBADF)?;
        succeed("its own", set_slot(&other, slot(0, BASE, P, theirs.raw(), 0)))?;
    }
    Ok(())
}

fn slot_sr07_every_misaligned_offset_is_refused() -> Outcome {
    each(|vm, file| {
        for offset in 1..P {
            refused(
                "an offset",
                set_slot(vm, slot(0, BASE, P, file.raw(), offset)),
                libc::EINVAL,
            )?;
        }
        for (gpa, size) in [(BASE + 1, P), (BASE, P + 1), (BASE, P - 1)] {
            refused(
                "a slot",
                set_slot(vm, slot(0, gpa, size, file.raw(), 0)),
                libc::EINVAL,
            )?;
        }
        succeed("a whole one", set_slot(vm, slot(0, BASE, P, file.raw(), 0)))
    })
}

fn slot_sr08_sr10_what_overlaps_is_refused() -> Outcome {
    each(|vm, file| {
        let set = |number, gpa, size, offset| set_slot(vm, slot(number, gpa, size, file.raw(), offset));
        succeed("the front", set(0, BASE, 2 * P, 0))?;
        succeed("the back", set(1, BASE + 2 * P, 2 * P, 2 * P))?;
        succeed("deleting the front", set(0, BASE, 0, 0))?;
        let other = succeed("another file", memfd(vm, 4 * P, MMAP_SHARED))?;
        for gpa in [BASE + P, BASE + 3 * P] {
            let over = set_slot(vm, slot(2, gpa, 2 * P, other.raw(), 0));
            refused("addresses of another slot", over, libc::EEXIST)?;
        }
        succeed("the front again", set(0, BASE + 64 * P, 2 * P, 0))
    })
}

fn slot_sr09_no_part_of_a_file_is_in_two_slots() -> Outcome {
    let (place, far) = (BASE, BASE + 64 * P);
    for kind in KINDS {
        let vm = vm(kind)?;
        let file = succeed("a file", memfd(&vm, 12 * P, MMAP_SHARED))?;
        let set =
            |number, gpa, pages, offset| set_slot(&vm, slot(number, gpa, pages * P, file.raw(), offset * P));
        succeed("the first", set(0, place, 4, 0))?;
        succeed("the second", set(1, place + 4 * P, 4, 4))?;
        succeed("deleting the first", set(0, place, 0, 0))?;
        // The guest would not find one over the other, as they are far from each other there.
        for (what, pages, offset) in [
            ("its front half", 4, 2),
            ("its back half", 4, 6),
            ("its first page", 5, 0),
            ("its last page", 5, 7),
            ("a part of it", 1, 5),
            ("all of it", 4, 4),
            ("more than all of it", 12, 0),
        ] {
            refused(what, set(0, far, pages, offset), libc::EEXIST)?;
        }
        succeed("what is in front of it", set(0, far, 4, 0))?;
        succeed("what is behind it", set(2, far + 8 * P, 4, 8))?;
        // It is the slot that keeps it.
        succeed("deleting the second", set(1, place, 0, 0))?;
        succeed("its back half", set(3, far + 4 * P, 2, 6))?;
        succeed("its front half", set(1, place, 2, 4))?;
    }
    Ok(())
}

fn slot_sr11_there_are_32767() -> Outcome {
    for kind in KINDS {
        let vm = vm(kind)?;
        let file = succeed("a file", memfd(&vm, 32768 * P, MMAP_SHARED))?;
        for number in 0..32767_u32 {
            let at = u64::from(number) * P;
            let added = set_slot(&vm, slot(number, BASE + at, P, file.raw(), at));
            succeed(&format!("slot {number}"), added)?;
        }
        let at = 32767 * P;
        let one_more = set_slot(&vm, slot(32767, BASE + at, P, file.raw(), at));
        refused("one more", one_more, libc::EINVAL)?;
    }
    Ok(())
}

fn slot_sr12_a_slot_is_deleted_and_never_changed() -> Outcome {
    each(|vm, file| {
        let set = |gpa, size, offset| set_slot(vm, slot(7, gpa, size, file.raw(), offset));
        refused("deleting what is not there", set(BASE, 0, 0), libc::EINVAL)?;
        succeed("a slot", set(BASE, 2 * P, 0))?;
        for (what, changed) in [
            ("as it is", set(BASE, 2 * P, 0)),
            ("moved", set(BASE + 16 * P, 2 * P, 0)),
            ("grown", set(BASE, 3 * P, 0)),
            ("elsewhere in the file", set(BASE, 2 * P, 2 * P)),
        ] {
            refused(what, changed, libc::EINVAL)?;
        }
        succeed("deleting it", set(BASE, 0, 0))?;
        refused("deleting it again", set(BASE, 0, 0), libc::EINVAL)?;
        refused("a large one", set(BASE, 1 << 43, 0), libc::EINVAL)?;
        refused("one that is too far up", set(1 << 40, P, 0), libc::EFAULT)
    })
}

fn slot_ar01_a_file_without_mmap_is_for_protected_guests() -> Outcome {
    for flags in [0, 2] {
        let plain = vm(0)?;
        let file = succeed("a file", memfd(&plain, P, flags))?;
        refused(
            "its slot",
            set_slot(&plain, slot(0, BASE, P, file.raw(), 0)),
            libc::EINVAL,
        )?;
        let protected = vm(PROTECTED)?;
        let file = succeed("a file", memfd(&protected, P, flags))?;
        succeed("its slot", set_slot(&protected, slot(0, BASE, P, file.raw(), 0)))?;
    }
    Ok(())
}

fn slot_ar02_there_are_no_tags() -> Outcome {
    each(|vm, file| {
        let tags = |vm: &Fd| {
            let mut asked = kvm_enable_cap {
                cap: KVM_CAP_ARM_MTE,
                ..Default::default()
            };
            vm.pass(ENABLE_CAP, &mut asked)
        };
        same("tags", vm.ioctl(CHECK_EXTENSION, KVM_CAP_ARM_MTE.into()), Ok(0))?;
        refused("tags", tags(vm), libc::EINVAL)?;
        succeed("a slot", set_slot(vm, slot(0, BASE, P, file.raw(), 0)))?;
        refused("tags with a slot", tags(vm), libc::EINVAL)
    })
}
