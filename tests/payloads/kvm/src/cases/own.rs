//! Guests in memory of the process's own, and what becomes of it: as for every other user of that memory.

use super::{cases, refused, same, succeed};
use crate::Outcome;
use crate::device::{Errno, Kvm, Mapping, RUN, shared_memory};
use crate::guest::{BASE, DATA, Do, Exit, Guest, KINDS, OwnGuest, P, own_slot, set_own_slot};
use crate::process::{Child, Ended, heir, in_child};
use std::io::{Read as _, Write as _};
use std::mem::ManuallyDrop;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

cases![
    own_guest_and_process_see_the_same,
    own_memory_that_is_unmapped_is_a_fault_and_is_zero_afterwards,
    own_memory_that_is_write_protected_is_not_written_to,
    own_memory_that_was_never_touched_is_zero_and_the_guests_own_once_it_writes,
    own_memory_is_the_childs_own_after_a_fork,
    own_memory_that_is_discarded_is_zero,
    own_memory_that_is_compacted_keeps_its_contents,
    own_memory_of_huge_pages_can_be_split_and_joined,
    own_memory_that_is_alike_is_merged_and_taken_apart,
    own_memory_of_a_file_goes_when_the_file_shrinks,
    own_page_at_two_places_is_one,
    own_program_runs_from_where_it_cannot_write,
    own_slot_that_is_read_only_is_a_device_to_whoever_writes,
    own_slot_is_moved_and_deleted_under_a_guest,
    own_slots_are_many,
    own_slot_sr11_there_are_32767,
    own_slot_sr10_sr12_is_refused_as_kvm_refuses_it,
    own_slot_says_what_was_written_to,
    own_slot_is_none_for_a_protected_guest,
    own_vm_is_no_other_processs,
    own_memory_changes_while_vcpus_run,
    own_memory_is_back_when_the_process_is_killed,
    own_memory_is_back_while_another_holds_the_vm,
    swap_takes_what_a_guest_has_and_brings_it_back,
    swap_leaves_what_a_guest_uses,
    poison_ar04_is_told_and_the_guest_goes_on_with_another_page,
];

/// Makes huge pages of small ones, since Linux 6.1.
const MADV_COLLAPSE: i32 = 25;
/// What the guest writes.
const WORD: u64 = 0x0123_4567_89ab_cdef;
/// Where what it works with lies in its memory.
const OFFSET: u64 = OwnGuest::offset(DATA);

fn text(error: std::io::Error) -> String {
    error.to_string()
}

/// A run that fails since the process has nothing to offer there.
fn fault(guest: &OwnGuest, address: u64) -> Outcome {
    refused("the run", guest.vcpu().run(), libc::EFAULT)?;
    same(
        "the exit",
        guest.vcpu().exit(),
        Exit::MemoryFault([0, address, P]),
    )
}

/// Whether all words of a page are that.
fn is_all(memory: &Mapping, offset: u64, word: u64) -> bool {
    (0..P / 8).all(|index| memory.read::<u64>(offset + index * 8) == word)
}

/// A figure of the module's.
fn figure(name: &str) -> Result<u64, String> {
    let all = std::fs::read_to_string("/sys/kernel/debug/freehold/statistics").map_err(text)?;
    let line = all
        .lines()
        .find_map(|line| line.strip_prefix(name)?.strip_prefix(' '));
    line.and_then(|value| value.parse().ok())
        .ok_or_else(|| format!("there is no {name}"))
}

fn own_guest_and_process_see_the_same() -> Outcome {
    let size = 4 * P;
    let list = [
        Do::Check(DATA, size, WORD),
        Do::Fill(DATA, size, !WORD),
        Do::Report(1),
        Do::Load(8, DATA + 8),
    ];
    let guest = OwnGuest::new(4, &[&list])?;
    for word in 0..size / 8 {
        guest.memory.write(OFFSET + word * 8, WORD);
    }
    guest.vcpu().reports("what it finds else", 0)?;
    guest.vcpu().reports("the guest", 1)?;
    for page in 0..4 {
        same("a page", is_all(&guest.memory, OFFSET + page * P, !WORD), true)?;
    }
    guest.memory.write(OFFSET + 8, 5_u64);
    guest.vcpu().reports("what the process wrote", 5)?;
    guest.vcpu().turns_off()
}

fn own_memory_that_is_unmapped_is_a_fault_and_is_zero_afterwards() -> Outcome {
    let list = [
        Do::Store(8, DATA, 7),
        Do::Report(1),
        Do::Load(8, DATA),
        Do::Store(8, DATA, 8),
        Do::Load(8, DATA),
    ];
    let guest = OwnGuest::new(4, &[&list])?;
    guest.vcpu().reports("the guest", 1)?;
    guest.memory.unmap(OFFSET, P);
    fault(&guest, DATA)?;
    fault(&guest, DATA)?;
    succeed("memory again", guest.memory.map_again(OFFSET, P))?;
    guest.vcpu().reports("what it finds", 0)?;
    guest.vcpu().reports("what it wrote", 8)?;
    // A place that nobody may touch is none.
    guest.memory.protect(OFFSET, P, libc::PROT_NONE);
    let guest = OwnGuest::new(4, &[&[Do::Load(8, DATA)]])?;
    guest.memory.protect(OFFSET, P, libc::PROT_NONE);
    fault(&guest, DATA)
}

fn own_memory_that_is_write_protected_is_not_written_to() -> Outcome {
    let list = [
        Do::Store(8, DATA, 7),
        Do::Report(1),
        Do::Load(8, DATA),
        Do::Store(8, DATA, 8),
        Do::Load(8, DATA),
    ];
    let guest = OwnGuest::new(4, &[&list])?;
    guest.vcpu().reports("the guest", 1)?;
    guest.memory.protect(OFFSET, P, libc::PROT_READ);
    guest.vcpu().reports("what it reads", 7)?;
    fault(&guest, DATA)?;
    same("what is there", guest.memory.read::<u64>(OFFSET), 7)?;
    guest
        .memory
        .protect(OFFSET, P, libc::PROT_READ | libc::PROT_WRITE);
    guest.vcpu().reports("what it wrote", 8)?;
    same("what is there", guest.memory.read::<u64>(OFFSET), 8)
}

fn own_memory_that_was_never_touched_is_zero_and_the_guests_own_once_it_writes() -> Outcome {
    // More pages than can borrow the one frame of zeroes that they all are.
    let pages = 5000;
    let last = DATA + (pages - 1) * P;
    let list = [
        Do::Check(DATA, pages * P, 0),
        Do::Store(8, DATA, WORD),
        Do::Store(8, last, WORD),
        Do::Check(DATA + P, P, 0),
    ];
    let guest = OwnGuest::new(pages, &[&list])?;
    guest.vcpu().reports("what is not zero", 0)?;
    guest.vcpu().reports("what is not zero", 0)?;
    for (page, word) in [(0, WORD), (1, 0), (pages - 2, 0), (pages - 1, WORD)] {
        same("a word", guest.memory.read::<u64>(OFFSET + page * P), word)?;
    }
    Ok(())
}

fn own_memory_is_the_childs_own_after_a_fork() -> Outcome {
    let list = [
        Do::Store(8, DATA, 1),
        Do::Report(1),
        Do::Store(8, DATA, 2),
        Do::Load(8, DATA),
        Do::Load(8, DATA),
    ];
    let guest = OwnGuest::new(4, &[&list])?;
    guest.vcpu().reports("the guest", 1)?;
    let (mut to_child, mut to_parent) = (std::io::pipe().map_err(text)?, std::io::pipe().map_err(text)?);
    let memory = &guest.memory;
    // The child says what it finds, once the guest has written, and writes something itself.
    let mut child = Child::that(|| {
        to_child.0.read_exact(&mut [0]).map_err(text)?;
        let found = memory.read::<u64>(OFFSET);
        memory.write(OFFSET, 9_u64);
        to_parent.1.write_all(&found.to_ne_bytes()).map_err(text)
    })
    .map_err(text)?;
    guest.vcpu().reports("what the guest finds", 2)?;
    to_child.1.write_all(&[0]).map_err(text)?;
    let mut found = [0; 8];
    to_parent.0.read_exact(&mut found).map_err(text)?;
    child.wait();
    same("what the child found", u64::from_ne_bytes(found), 1)?;
    guest.vcpu().reports("what the guest finds", 2)?;
    same("what is there", memory.read::<u64>(OFFSET), 2)?;
    child.kill().map(drop).map_err(text)
}

fn own_memory_that_is_discarded_is_zero() -> Outcome {
    let list = [
        Do::Fill(DATA, 4 * P, WORD),
        Do::Report(1),
        Do::Check(DATA, 2 * P, WORD),
        Do::Check(DATA + 2 * P, 2 * P, 0),
    ];
    let guest = OwnGuest::new(4, &[&list])?;
    guest.vcpu().reports("the guest", 1)?;
    succeed(
        "madvise",
        guest.memory.advise(OFFSET + 2 * P, 2 * P, libc::MADV_DONTNEED),
    )?;
    guest.vcpu().reports("what is lost", 0)?;
    guest.vcpu().reports("what is not zero", 0)
}

/// A guest that has filled its pages and then, each time that it is asked, checks them.
fn filled(pages: u64, memory: Option<Mapping>) -> Result<OwnGuest, String> {
    let fill = Do::Fill(DATA, pages * P, WORD);
    let check = Do::Check(DATA, pages * P, WORD);
    let list = [fill, Do::Report(1), check, check, check, check, check, check];
    let guest = match memory {
        Some(memory) => succeed("a guest", OwnGuest::in_memory(memory, &[&list]))?,
        None => OwnGuest::new(pages, &[&list])?,
    };
    guest.vcpu().reports("the guest", 1)?;
    Ok(guest)
}

fn own_memory_that_is_compacted_keeps_its_contents() -> Outcome {
    let guest = filled(2000, None)?;
    for _ in 0..3 {
        std::fs::write("/proc/sys/vm/compact_memory", "1").map_err(text)?;
        // Without swap space they stay, and are only looked at.
        succeed(
            "madvise",
            guest.memory.advise(OFFSET, 2000 * P, libc::MADV_PAGEOUT),
        )?;
        std::fs::write("/proc/sys/vm/drop_caches", "3").map_err(text)?;
        guest.vcpu().reports("what is otherwise", 0)?;
    }
    Ok(())
}

fn own_memory_of_huge_pages_can_be_split_and_joined() -> Outcome {
    const HUGE: u64 = 2 << 20;
    let memory = succeed("memory", Mapping::anonymous(3 * HUGE, HUGE))?;
    succeed("madvise", memory.advise(0, 3 * HUGE, libc::MADV_HUGEPAGE))?;
    let pages = (3 * HUGE - OFFSET) / P;
    let guest = filled(pages, Some(memory))?;
    let memory = &guest.memory;
    // A part of one changes, and all of them become small; and then huge again, if they can.
    for offset in [HUGE + 5 * P, 2 * HUGE + 511 * P] {
        memory.protect(offset, P, libc::PROT_READ);
    }
    guest.vcpu().reports("what is otherwise", 0)?;
    for offset in [HUGE + 5 * P, 2 * HUGE + 511 * P] {
        memory.protect(offset, P, libc::PROT_READ | libc::PROT_WRITE);
    }
    let _ = memory.advise(0, 3 * HUGE, MADV_COLLAPSE);
    guest.vcpu().reports("what is otherwise", 0)?;
    succeed("madvise", memory.advise(HUGE + 7 * P, P, libc::MADV_DONTNEED))?;
    guest.vcpu().reports("what is otherwise", P / 8)?;
    same("what is there", is_all(memory, HUGE + 7 * P, 0), true)
}

fn own_memory_that_is_alike_is_merged_and_taken_apart() -> Outcome {
    let ksm = |file: &str| format!("/sys/kernel/mm/ksm/{file}");
    let merged = || -> Result<u64, String> {
        let text = std::fs::read_to_string(ksm("pages_sharing")).map_err(text)?;
        text.trim().parse().map_err(|_| format!("{text:?} is no number"))
    };
    let list = [
        Do::Fill(DATA, 8 * P, WORD),
        Do::Report(1),
        Do::Check(DATA, 8 * P, WORD),
        Do::Store(8, DATA + P, 5),
        Do::Check(DATA, 8 * P, WORD),
    ];
    let guest = OwnGuest::new(8, &[&list])?;
    guest.vcpu().reports("the guest", 1)?;
    succeed(
        "madvise",
        guest.memory.advise(OFFSET, 8 * P, libc::MADV_MERGEABLE),
    )?;
    std::fs::write(ksm("sleep_millisecs"), "1").map_err(text)?;
    std::fs::write(ksm("run"), "1").map_err(text)?;
    let until = Instant::now() + Duration::from_secs(20);
    while merged()? < 7 && Instant::now() < until {
        std::thread::sleep(Duration::from_millis(20));
    }
    same("pages that are merged", merged()?, 7)?;
    guest.vcpu().reports("what is otherwise", 0)?;
    guest.vcpu().reports("what it wrote", 1)?;
    same(
        "a page that it did not write to",
        is_all(&guest.memory, OFFSET + 2 * P, WORD),
        true,
    )?;
    std::fs::write(ksm("run"), "2").map_err(text)?;
    same("pages that are merged", merged()?, 0)?;
    std::fs::write(ksm("run"), "0").map_err(text)
}

fn own_memory_of_a_file_goes_when_the_file_shrinks() -> Outcome {
    let size = OFFSET + 4 * P;
    let file = succeed("a file", shared_memory(size))?;
    let memory = succeed("a mapping", Mapping::of(&file, 0, size))?;
    let list = [
        Do::Store(8, DATA, 7),
        Do::Report(1),
        Do::Load(8, DATA),
        Do::Load(8, DATA + P),
        Do::Store(8, DATA, 8),
        Do::Report(2),
    ];
    let guest = succeed("a guest", OwnGuest::in_memory(memory, &[&list]))?;
    guest.vcpu().reports("the guest", 1)?;
    let punch = libc::FALLOC_FL_KEEP_SIZE | libc::FALLOC_FL_PUNCH_HOLE;
    succeed("a punch", file.fallocate(punch, OFFSET, P))?;
    guest.vcpu().reports("what is punched", 0)?;
    file.file().set_len(OFFSET).map_err(text)?;
    fault(&guest, DATA + P)?;
    file.file().set_len(size).map_err(text)?;
    guest.vcpu().reports("what is there again", 0)?;
    guest.vcpu().reports("the guest", 2)?;
    let again = succeed("a mapping", Mapping::of(&file, OFFSET, P))?;
    same("what the guest wrote", again.read::<u64>(0), 8)
}

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

fn own_vm_is_no_other_processs() -> Outcome {
    let guest = OwnGuest::new(4, &[&[Do::Report(1)]])?;
    let ended = in_child(|| {
        refused("a run", guest.vcpu().fd.ioctl(RUN, 0), libc::EIO)?;
        let slot = own_slot(1, 0, 1 << 32, P, &guest.memory, OFFSET);
        refused("a slot", set_own_slot(&guest.vm, slot), libc::EIO)
    });
    same("the child", ended.map_err(text)?, Ended::Exited(0))?;
    guest.vcpu().reports("the guest", 1)
}

fn own_memory_changes_while_vcpus_run() -> Outcome {
    const PAGES: u64 = 64;
    let work = |word| {
        [
            Do::Fill(DATA, PAGES * P, word),
            Do::Check(DATA, P, word),
            Do::Load(8, DATA + (PAGES - 1) * P),
        ]
    };
    let first = [Do::Call(crate::guest::CPU_ON, 1, BASE, crate::guest::list_of(1))];
    let lists = [
        [&first[..], &work(1)[..], &[Do::Go(2)]].concat(),
        [&work(2)[..], &[Do::Go(1)]].concat(),
        [&work(1)[..], &[Do::Go(2)]].concat(),
    ];
    let guest = OwnGuest::new(PAGES, &[&lists[0], &lists[1], &lists[2]])?;
    let over = AtomicBool::new(false);
    // Each vCPU meets memory that is not there, and tries again until it is.
    let runs = |vcpu: usize| -> Outcome {
        while !over.load(Ordering::SeqCst) {
            match guest.vcpus[vcpu].run() {
                Ok(Exit::Store(..)) | Err(Errno(libc::EFAULT)) => {}
                other => return Err(format!("vCPU {vcpu}: {other:?}")),
            }
        }
        Ok(())
    };
    std::thread::scope(|scope| {
        let vcpus = [scope.spawn(|| runs(0)), scope.spawn(|| runs(1))];
        let until = Instant::now() + Duration::from_secs(4);
        let (memory, mut turn) = (&guest.memory, 0_u64);
        let changed = (|| {
            while Instant::now() < until {
                turn += 1;
                let offset = OFFSET + turn * 7 % (PAGES - 8) * P;
                match turn % 5 {
                    0 => memory.advise(offset, 8 * P, libc::MADV_DONTNEED)?,
                    1 => {
                        memory.unmap(offset, 4 * P);
                        memory.map_again(offset, 4 * P)?;
                    }
                    2 => {
                        memory.protect(offset, 8 * P, libc::PROT_READ);
                        memory.protect(offset, 8 * P, libc::PROT_READ | libc::PROT_WRITE);
                    }
                    3 => memory.write(offset, turn),
                    _ => memory.advise(offset, 8 * P, libc::MADV_PAGEOUT)?,
                }
            }
            Ok(())
        })();
        over.store(true, Ordering::SeqCst);
        for vcpu in vcpus {
            vcpu.join().map_err(|_| "a vCPU's thread panicked".to_owned())??;
        }
        succeed("the changes", changed)?;
        if turn < 20 {
            return Err(format!("only {turn} changes"));
        }
        Ok(())
    })
}

/// The child of such a case: a guest that fills its memory, again and again once it has told.
fn at_work() -> Outcome {
    let list = [Do::Fill(DATA, 1000 * P, WORD), Do::Report(1), Do::Go(0)];
    let guest = OwnGuest::new(1000, &[&list])?;
    guest.vcpu().reports("the guest", 1)?;
    let vcpu = guest.vcpus;
    // The guest goes on in a thread, and what it has is kept.
    std::thread::spawn(move || while vcpu[0].run().is_ok() {});
    let _kept = ManuallyDrop::new((guest.vm, guest.memory));
    Ok(())
}

/// Waits until a figure is what it was.
fn settles(name: &str, value: u64) -> Outcome {
    let until = Instant::now() + Duration::from_secs(10);
    while figure(name)? != value && Instant::now() < until {
        std::thread::sleep(Duration::from_millis(10));
    }
    same(name, figure(name)?, value)
}

fn own_memory_is_back_when_the_process_is_killed() -> Outcome {
    let before = figure("machine_frames_other")?;
    for turn in 0..6 {
        let mut child = Child::that(at_work).map_err(text)?;
        if turn > 1 {
            child.wait();
        }
        std::thread::sleep(Duration::from_millis(turn * 13));
        same(
            "the child",
            child.kill().map_err(text)?,
            Ended::Killed(libc::SIGKILL),
        )?;
        settles("vms", 0)?;
        settles("machine_frames_other", before)?;
    }
    Ok(())
}

fn own_memory_is_back_while_another_holds_the_vm() -> Outcome {
    let before = figure("machine_frames_other")?;
    let (mut waits, kept) = std::io::pipe().map_err(text)?;
    let mut kept = Some(kept);
    let mut child = Child::that(|| {
        let list = [Do::Fill(DATA, 100 * P, WORD), Do::Report(1)];
        let guest = OwnGuest::new(100, &[&list])?;
        // It has every descriptor of its parent's, and lives on until nobody keeps it.
        heir(|| {
            kept = None;
            let _ = waits.read(&mut [0]);
        })
        .map_err(text)?;
        // Afterwards: a fork takes all that may be written to from the guest.
        guest.vcpu().reports("the guest", 1)?;
        let _kept = ManuallyDrop::new(guest);
        Ok(())
    })
    .map_err(text)?;
    child.wait();
    let lent = figure("machine_frames_other")?;
    if lent < before + 100 {
        return Err(format!("the guest borrows {lent} pages less {before}"));
    }
    child.kill().map_err(text)?;
    settles("machine_frames_other", before)?;
    same("the VMs", figure("vms")?, 1)?;
    drop(kept);
    settles("vms", 0)
}

/// How much of this process is swapped out, in bytes.
fn swapped() -> Result<u64, String> {
    let all = std::fs::read_to_string("/proc/self/status").map_err(text)?;
    let line = all.lines().find_map(|line| line.strip_prefix("VmSwap:"));
    let kilobytes = line.and_then(|line| line.trim().strip_suffix(" kB")?.parse::<u64>().ok());
    kilobytes
        .map(|kilobytes| kilobytes << 10)
        .ok_or_else(|| "nothing is said of swap space".to_owned())
}

/// Has all that a guest works with swapped out, as far as the kernel likes.
fn page_out(guest: &OwnGuest, pages: u64) -> Result<u64, String> {
    succeed(
        "madvise",
        guest.memory.advise(OFFSET, pages * P, libc::MADV_PAGEOUT),
    )?;
    swapped()
}

fn swap_takes_what_a_guest_has_and_brings_it_back() -> Outcome {
    const PAGES: u64 = 2000;
    let guest = filled(PAGES, None)?;
    for _ in 0..3 {
        // What the guest has used since the last look may stay the first time.
        page_out(&guest, PAGES)?;
        let out = page_out(&guest, PAGES)?;
        if out < PAGES * P / 2 {
            return Err(format!("only {out:#x} bytes are swapped out"));
        }
        guest.vcpu().reports("what is otherwise", 0)?;
        let left = swapped()?;
        if left > PAGES * P / 8 {
            return Err(format!(
                "{left:#x} bytes are still swapped out, and the guest has used them"
            ));
        }
    }
    Ok(())
}

fn swap_leaves_what_a_guest_uses() -> Outcome {
    const PAGES: u64 = 500;
    // The guest changes its pages without end, and finds in them what it has put there.
    let list = [
        Do::Fill(DATA, PAGES * P, WORD),
        Do::Check(DATA, PAGES * P, WORD),
        Do::Fill(DATA, PAGES * P, !WORD),
        Do::Check(DATA, PAGES * P, !WORD),
        Do::Go(0),
    ];
    let guest = OwnGuest::new(PAGES, &[&list])?;
    let over = AtomicBool::new(false);
    std::thread::scope(|scope| {
        let presses = scope.spawn(|| -> Outcome {
            while !over.load(Ordering::SeqCst) {
                page_out(&guest, PAGES)?;
                std::thread::sleep(Duration::from_millis(5));
            }
            Ok(())
        });
        let until = Instant::now() + Duration::from_secs(3);
        let checked = (|| {
            while Instant::now() < until {
                guest.vcpu().reports("what is otherwise", 0)?;
            }
            Ok(())
        })();
        over.store(true, Ordering::SeqCst);
        presses.join().map_err(|_| "it panicked".to_owned())??;
        checked
    })
}

fn poison_ar04_is_told_and_the_guest_goes_on_with_another_page() -> Outcome {
    let list = [
        Do::Store(8, DATA, 1),
        Do::Report(1),
        Do::Load(8, DATA),
        Do::Load(8, DATA + P),
    ];
    let guest = OwnGuest::new(4, &[&list])?;
    guest.vcpu().reports("the guest", 1)?;
    succeed("madvise", guest.memory.advise(OFFSET, P, libc::MADV_HWPOISON))?;
    for _ in 0..2 {
        refused("the run", guest.vcpu().run(), libc::EHWPOISON)?;
        same("the exit", guest.vcpu().exit(), Exit::MemoryFault([0, DATA, P]))?;
    }
    succeed("memory again", guest.memory.map_again(OFFSET, P))?;
    guest.vcpu().reports("what it finds", 0)?;
    guest.vcpu().reports("what it finds", 0)
}
