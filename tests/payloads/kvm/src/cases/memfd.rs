//! Files of guest memory, by the numbers of the conformance list for guest_memfd.

use super::{bus_error, cases, refused, same, succeed};
use crate::Outcome;
use crate::device::{CHECK_EXTENSION, CREATE_VCPU, Errno, Fd, KEEP, Kvm, Mapping, PROTECTED, PUNCH};
use crate::guest::{BASE, Do, Guest, KINDS, MMAP_SHARED, P, SHARE, memfd, set_slot, slot};
use kvm_bindings::KVM_CAP_GUEST_MEMFD;
use std::io::{Read as _, Write as _};
use std::os::unix::fs::{FileExt as _, MetadataExt as _};

cases![
    memfd_gm01_gm03_both_flags_are_there,
    memfd_gm02_other_flags_are_refused,
    memfd_gm04_sizes_are_whole_pages,
    memfd_gm05_gm06_files_are_apart,
    memfd_gm07_a_file_is_not_read_or_written,
    memfd_gm08_gm09_what_cannot_be_mapped_is_not,
    memfd_gm10_gm11_what_is_written_is_there_until_it_is_punched,
    memfd_gm12_without_init_shared_every_touch_is_a_bus_error,
    memfd_gm13_beyond_the_end_is_a_bus_error,
    memfd_gm14_is_never_mapped_by_huge_pages,
    memfd_gm15_gm16_gm19_allocates_within_its_size,
    memfd_gm17_gm18_gm20_punches_whole_pages,
    memfd_gm21_there_are_no_other_modes,
    memfd_gm23_a_mapping_keeps_its_memory_policy,
    memfd_gm25_guest_and_host_see_the_same,
    memfd_gm26_pc09_may_go_before_its_vm_and_after_it,
    memfd_is_not_truncated,
];

/// The capability of Linux 6.18 that says which flags there are.
const KVM_CAP_GUEST_MEMFD_FLAGS: u32 = 244;

/// Makes huge pages of small ones, since Linux 6.1.
const MADV_COLLAPSE: i32 = 25;

/// The flags that files are made with.
const FLAGS: [u64; 4] = [0, 1, 2, 3];

/// Does it with a VM of each kind.
fn each_vm(work: impl Fn(&Fd) -> Outcome) -> Outcome {
    for kind in KINDS {
        let vm = succeed("a VM", Kvm::open().and_then(|kvm| kvm.create_vm(kind)))?;
        work(&vm).map_err(|why| format!("kind {kind:#x}: {why}"))?;
    }
    Ok(())
}

/// Does it with a file of each set of flags, of a VM of each kind.
fn each_file(work: impl Fn(&Fd) -> Outcome) -> Outcome {
    each_vm(|vm| {
        for flags in FLAGS {
            let file = succeed("a file", memfd(vm, 4 * P, flags))?;
            work(&file).map_err(|why| format!("flags {flags}: {why}"))?;
        }
        Ok(())
    })
}

/// A file that can be mapped, and the mapping.
fn mapped(vm: &Fd) -> Result<(Fd, Mapping), String> {
    let file = succeed("a file", memfd(vm, 4 * P, MMAP_SHARED))?;
    let mapping = succeed("a mapping", Mapping::of(&file, 0, 4 * P))?;
    Ok((file, mapping))
}

fn memfd_gm01_gm03_both_flags_are_there() -> Outcome {
    each_vm(|vm| {
        same(
            "files",
            vm.ioctl(CHECK_EXTENSION, KVM_CAP_GUEST_MEMFD.into()),
            Ok(1),
        )?;
        same(
            "flags",
            vm.ioctl(CHECK_EXTENSION, KVM_CAP_GUEST_MEMFD_FLAGS.into()),
            Ok(3),
        )
    })
}

fn memfd_gm02_other_flags_are_refused() -> Outcome {
    each_vm(|vm| {
        for bit in 0..64 {
            let made = memfd(vm, P, 1 << bit);
            if bit < 2 {
                succeed(&format!("bit {bit}"), made)?;
            } else {
                refused(&format!("bit {bit}"), made, libc::EINVAL)?;
            }
        }
        Ok(())
    })
}

fn memfd_gm04_sizes_are_whole_pages() -> Outcome {
    each_vm(|vm| {
        for size in (0..P).chain([P + 1, u64::MAX, u64::MAX - P + 1, 1 << 63]) {
            refused(&format!("{size} bytes"), memfd(vm, size, 0), libc::EINVAL)?;
        }
        Ok(())
    })
}

fn memfd_gm05_gm06_files_are_apart() -> Outcome {
    each_vm(|vm| {
        let files = [
            succeed("one", memfd(vm, P, 0))?,
            succeed("two", memfd(vm, 2 * P, 0))?,
        ];
        let mut inodes = Vec::new();
        for (file, pages) in files.iter().zip(1..) {
            let metadata = file.file().metadata().map_err(|error| error.to_string())?;
            same("the size", metadata.size(), pages * P)?;
            same("the block", metadata.blksize(), P)?;
            inodes.push(metadata.ino());
        }
        if inodes[0] == inodes[1] {
            return Err("one inode".to_owned());
        }
        Ok(())
    })
}

fn memfd_gm07_a_file_is_not_read_or_written() -> Outcome {
    each_file(|file| {
        let mut bytes = [0; 8];
        let mut std = file.file();
        let tries = [
            std.read(&mut bytes).is_err(),
            std.write(&bytes).is_err(),
            std.read_at(&mut bytes, 0).is_err(),
            std.write_at(&bytes, 0).is_err(),
        ];
        same("refusals", tries, [true; 4])
    })
}

fn memfd_is_not_truncated() -> Outcome {
    each_file(|file| {
        for size in [0, P, 4 * P, 8 * P] {
            let error = file.file().set_len(size).map_err(|error| error.raw_os_error());
            same("set_len", error, Err(Some(libc::EINVAL)))?;
        }
        Ok(())
    })
}

fn memfd_gm08_gm09_what_cannot_be_mapped_is_not() -> Outcome {
    each_vm(|vm| {
        for flags in FLAGS {
            let file = succeed("a file", memfd(vm, 4 * P, flags))?;
            let private = Mapping::with(&file, 0, P, libc::MAP_PRIVATE);
            if flags & 1 == 0 {
                refused("a private mapping", private, libc::ENODEV)?;
                for length in [P, 4 * P] {
                    refused("a mapping", Mapping::of(&file, 0, length), libc::ENODEV)?;
                }
            } else {
                refused("a private mapping", private, libc::EINVAL)?;
                succeed("a mapping", Mapping::of(&file, 0, P))?;
            }
        }
        Ok(())
    })
}

fn memfd_gm10_gm11_what_is_written_is_there_until_it_is_punched() -> Outcome {
    each_vm(|vm| {
        let (file, mapping) = mapped(vm)?;
        let bytes = |page: u64| (page * P..(page + 1) * P).map(|offset| mapping.read::<u8>(offset));
        for offset in 0..4 * P {
            mapping.write(offset, (offset / P + 1) as u8);
        }
        for page in 0..4 {
            same(
                "a page",
                bytes(page).all(|byte| u64::from(byte) == page + 1),
                true,
            )?;
        }
        succeed("a punch", file.fallocate(PUNCH, 0, P))?;
        same("what is punched", bytes(0).all(|byte| byte == 0), true)?;
        same("what is not", bytes(1).all(|byte| byte == 2), true)?;
        mapping.write::<u8>(7, 9);
        same("what is written again", mapping.read::<u8>(7), 9)
    })
}

fn memfd_gm12_without_init_shared_every_touch_is_a_bus_error() -> Outcome {
    each_vm(|vm| {
        let file = succeed("a file", memfd(vm, 4 * P, 1))?;
        let mapping = succeed("a mapping", Mapping::of(&file, 0, 4 * P))?;
        for page in 0..4 {
            bus_error("a read", || _ = mapping.read::<u8>(page * P))?;
            bus_error("a write", || mapping.write::<u8>(page * P, 1))?;
        }
        Ok(())
    })
}

fn memfd_gm13_beyond_the_end_is_a_bus_error() -> Outcome {
    each_vm(|vm| {
        let file = succeed("a file", memfd(vm, 4 * P, MMAP_SHARED))?;
        let mapping = succeed("a mapping", Mapping::of(&file, 0, 16 * P))?;
        mapping.write::<u64>(4 * P - 8, 0x77);
        bus_error("a write at the end", || mapping.write::<u8>(4 * P, 1))?;
        bus_error("a read behind it", || _ = mapping.read::<u8>(15 * P))?;
        same("what was written", mapping.read::<u64>(4 * P - 8), 0x77)
    })
}

fn memfd_gm14_is_never_mapped_by_huge_pages() -> Outcome {
    const HUGE: u64 = 2 << 20;
    each_vm(|vm| {
        let file = succeed("a file", memfd(vm, HUGE, MMAP_SHARED))?;
        let mapping = succeed("a mapping", Mapping::of(&file, 0, HUGE))?;
        mapping.write::<u64>(0, 7);
        succeed("the wish", mapping.advise(0, HUGE, libc::MADV_HUGEPAGE))?;
        refused(
            "joining pages",
            mapping.advise(0, HUGE, MADV_COLLAPSE),
            libc::EINVAL,
        )?;
        // It is mapped by the frames' numbers: there is nothing that could be discarded.
        refused(
            "discarding",
            mapping.advise(0, HUGE, libc::MADV_DONTNEED),
            libc::EINVAL,
        )?;
        same("what was written", mapping.read::<u64>(0), 7)
    })
}

fn memfd_gm23_a_mapping_keeps_its_memory_policy() -> Outcome {
    each_vm(|vm| {
        let (_file, mapping) = mapped(vm)?;
        same("a policy", mapping.policy(0), Ok((libc::MPOL_DEFAULT, 0)))?;
        succeed("mbind", mapping.set_policy(0, 4 * P, libc::MPOL_INTERLEAVE, 1))?;
        succeed("mbind", mapping.set_policy(P, P, libc::MPOL_BIND, 1))?;
        same("a policy", mapping.policy(0), Ok((libc::MPOL_INTERLEAVE, 1)))?;
        same("a policy", mapping.policy(P), Ok((libc::MPOL_BIND, 1)))?;
        refused("no policy", mapping.set_policy(0, P, 999, 1), libc::EINVAL)?;
        succeed("mbind", mapping.set_policy(0, 4 * P, libc::MPOL_DEFAULT, 0))?;
        same("a policy", mapping.policy(P), Ok((libc::MPOL_DEFAULT, 0)))?;
        mapping.write::<u64>(P, 1);
        same("what was written", mapping.read::<u64>(P), 1)
    })
}

fn memfd_gm15_gm16_gm19_allocates_within_its_size() -> Outcome {
    each_file(|file| {
        succeed("all of it", file.fallocate(KEEP, 0, 4 * P))?;
        for (offset, length) in [(4 * P, P), (8 * P, P), (3 * P, 2 * P), (0, P + 1), (1, P)] {
            let what = format!("{length} bytes at {offset}");
            refused(&what, file.fallocate(KEEP, offset, length), libc::EINVAL)?;
        }
        succeed("a punch", file.fallocate(PUNCH, P, P))?;
        succeed("again", file.fallocate(KEEP, P, P))
    })
}

fn memfd_gm17_gm18_gm20_punches_whole_pages() -> Outcome {
    each_file(|file| {
        succeed("at the end", file.fallocate(PUNCH, 4 * P, P))?;
        succeed("past it", file.fallocate(PUNCH, 8 * P, P))?;
        for (offset, length) in [
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
        ] {
            let what = format!("{length} bytes at {offset}");
            refused(&what, file.fallocate(PUNCH, offset, length), libc::EINVAL)?;
        }
        Ok(())
    })
}

fn memfd_gm21_there_are_no_other_modes() -> Outcome {
    each_file(|file| {
        for mode in (0..128_i32).filter(|mode| ![KEEP, PUNCH].contains(mode)) {
            // The kernel itself refuses some modes in company, before it asks us.
            let errors: &[i32] = if mode.count_ones() < 2 {
                &[libc::EOPNOTSUPP]
            } else {
                &[libc::EOPNOTSUPP, libc::EINVAL]
            };
            match file.fallocate(mode, 0, P) {
                Err(Errno(errno)) if errors.contains(&errno) => {}
                other => return Err(format!("mode {mode:#x}: {other:?}")),
            }
        }
        Ok(())
    })
}

fn memfd_gm25_guest_and_host_see_the_same() -> Outcome {
    let data = 1 << 32;
    let size = 8 * P;
    for kind in KINDS {
        let mut list = vec![
            Do::Check(data, size, 0xAAAA_AAAA_AAAA_AAAA),
            Do::Fill(data, size, u64::MAX),
            Do::Report(1),
        ];
        // What is private the host sees once it is shared: page by page, as a call about several may end early.
        if kind == PROTECTED {
            list.extend((0..size / P).map(|page| Do::Call(SHARE, data + page * P, 0, 0)));
        }
        let guest = Guest::new(kind, &[&list])?;
        let file = succeed("a file", memfd(&guest.vm, size, MMAP_SHARED))?;
        succeed("a slot", set_slot(&guest.vm, slot(1, data, size, file.raw(), 0)))?;
        let mapping = || succeed("a mapping", Mapping::of(&file, 0, size));
        let memory = mapping()?;
        for offset in 0..size {
            memory.write::<u8>(offset, 0xAA);
        }
        drop(memory);
        guest.vcpu().reports("what the guest finds else", 0)?;
        guest.vcpu().reports("the guest", 1)?;
        if kind == PROTECTED {
            let memory = mapping()?;
            for page in 0..size / P {
                bus_error("a read before", || _ = memory.read::<u8>(page * P))?;
                guest.vcpu().reports("sharing", 0)?;
            }
        }
        let memory = mapping()?;
        let all = (0..size).all(|offset| memory.read::<u8>(offset) == 0xFF);
        same("what the guest wrote", all, true)?;
        guest.vcpu().turns_off()?;
    }
    Ok(())
}

fn memfd_gm26_pc09_may_go_before_its_vm_and_after_it() -> Outcome {
    each_vm(|vm| {
        let file = succeed("a file", memfd(vm, 4 * P, MMAP_SHARED))?;
        succeed("a slot", set_slot(vm, slot(0, BASE, 4 * P, file.raw(), 0)))?;
        drop(file);
        succeed("a vCPU afterwards", vm.make(CREATE_VCPU, 0))?;
        Ok(())
    })?;
    for kind in KINDS {
        let guest = Guest::new(kind, &[&[Do::Report(1)]])?;
        guest.vcpu().reports("the guest", 1)?;
        let Guest {
            vm,
            file,
            memory,
            vcpus,
        } = guest;
        let whole: Result<(), Errno> = (|| {
            drop((vm, vcpus));
            file.fallocate(PUNCH, 0, 16 * P)?;
            file.fallocate(KEEP, 0, 16 * P)
        })();
        succeed("punch and allocation after the VM", whole)?;
        drop(memory);
    }
    Ok(())
}
