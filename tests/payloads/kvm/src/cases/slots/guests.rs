//! Slots of guests that run.

use super::super::{cases, refused, same, succeed};
use crate::Outcome;
use crate::device::{Errno, Fd, KEEP, Mapping, PROTECTED, PUNCH};
use crate::guest::{
    BASE, CPU_ON, DATA, Do, Exit, Guest, KINDS, MMAP_SHARED, P, RELINQUISH, SHARE, Vcpu, list_of, memfd,
    set_slot, slot,
};
use crate::process::{signal, take_signals, this_thread};
use std::time::{Duration, Instant};

cases![
    slot_ar03_the_file_counts_and_not_the_address,
    slot_px01_a_deleted_slot_is_a_memory_fault,
    slot_px01_a_slot_is_deleted_while_a_vcpu_loops_on_it,
    slot_px01_what_a_guest_has_is_not_deleted_while_it_loops,
    slot_px02_a_place_without_a_slot_is_a_device,
    slot_ar05_a_closed_file_is_a_memory_fault_and_another_takes_its_place,
    slot_ar05_of_a_closed_file_a_protected_guest_keeps_what_it_has,
    slot_ar06_what_is_punched_reads_zero,
    slot_ar06_pages_come_and_go_one_by_one,
    slot_ar06_a_page_is_punched_while_a_vcpu_loops_on_it,
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

/// A file of so many pages, and a slot with it.
fn backed(guest: &Guest, place: u64, pages: u64) -> Result<Fd, String> {
    let file = succeed("a file", memfd(&guest.vm, pages * P, MMAP_SHARED))?;
    let set = set_slot(&guest.vm, slot(1, place, pages * P, file.raw(), 0));
    succeed("its slot", set)?;
    Ok(file)
}

/// A run that fails for want of memory.
fn memory_fault(vcpu: &Vcpu, kind: u64, errno: i32, address: u64) -> Outcome {
    refused("the run", vcpu.run(), errno)?;
    let flags = if kind == PROTECTED { 8 } else { 0 };
    same("the exit", vcpu.exit(), Exit::MemoryFault([flags, address, P]))
}

fn slot_px01_a_deleted_slot_is_a_memory_fault() -> Outcome {
    for kind in KINDS {
        let place = 1 << 32;
        let guest = Guest::new(
            kind,
            &[&[Do::Report(1), Do::Load(8, place), Do::Load(8, place), Do::Go(0)]],
        )?;
        let file = backed(&guest, place, 1)?;
        guest.vcpu().reports("the guest", 1)?;
        if kind == PROTECTED {
            // What a guest has stays with it: only what it has not can go.
            succeed("deleting the slot", set_slot(&guest.vm, slot(1, place, 0, 0, 0)))?;
        } else {
            guest.vcpu().reports("what it finds", 0)?;
            succeed("deleting the slot", set_slot(&guest.vm, slot(1, place, 0, 0, 0)))?;
        }
        memory_fault(guest.vcpu(), kind, libc::EFAULT, place)?;
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

/// Runs the first vCPU while another thread does something, which is told whose signal ends the run. Where that fails
/// the run is ended, too.
fn meanwhile(
    guest: &Guest,
    work: impl FnOnce(libc::pid_t) -> Outcome + Send,
) -> Result<Result<Exit, Errno>, String> {
    take_signals();
    let thread = this_thread();
    std::thread::scope(|scope| {
        let worker = scope.spawn(move || {
            let outcome = work(thread);
            if outcome.is_err() {
                signal(thread);
            }
            outcome
        });
        let run = guest.vcpu().run();
        worker
            .join()
            .map_err(|_| "the other thread panicked".to_owned())??;
        Ok(run)
    })
}

/// Waits until the guest has stored a word, which is taken away before.
fn stores(memory: &Mapping, offset: u64, word: u64) -> Outcome {
    memory.write(offset, !word);
    let until = Instant::now() + Duration::from_secs(20);
    while memory.read::<u64>(offset) != word {
        if Instant::now() > until {
            return Err(format!("the guest does not store {word}"));
        }
        std::thread::yield_now();
    }
    Ok(())
}

/// What a guest loops on, and what it stores there.
const LOOP: u64 = 1 << 32;
const WORD: u64 = 7;

fn slot_px01_a_slot_is_deleted_while_a_vcpu_loops_on_it() -> Outcome {
    // The second list is that of a vCPU that is never on.
    let begins = [Do::Report(1), Do::Go(1)];
    let loops = [Do::Store(8, LOOP, WORD), Do::Go(1)];
    let guest = Guest::new(0, &[&begins, &loops])?;
    let file = backed(&guest, LOOP, 1)?;
    let memory = succeed("a mapping", Mapping::of(&file, 0, P))?;
    let set = |size| set_slot(&guest.vm, slot(1, LOOP, size, file.raw(), 0));
    guest.vcpu().reports("the guest", 1)?;
    for _ in 0..3 {
        let run = meanwhile(&guest, |_| {
            // Twice: it loops.
            stores(&memory, 0, WORD)?;
            stores(&memory, 0, WORD)?;
            succeed("deleting the slot", set(0))
        })?;
        refused("the run", run, libc::EFAULT)?;
        same("the exit", guest.vcpu().exit(), Exit::MemoryFault([0, LOOP, P]))?;
        // The file keeps what it has, and the guest does not reach it.
        memory.write(0, !WORD);
        memory_fault(guest.vcpu(), 0, libc::EFAULT, LOOP)?;
        same("what is there", memory.read::<u64>(0), !WORD)?;
        succeed("a slot", set(P))?;
    }
    let run = meanwhile(&guest, |thread| {
        stores(&memory, 0, WORD)?;
        signal(thread);
        Ok(())
    })?;
    refused("the run", run, libc::EINTR)
}

fn slot_px01_what_a_guest_has_is_not_deleted_while_it_loops() -> Outcome {
    const OTHER: u64 = 1 << 33;
    let first = [
        Do::Call(SHARE, DATA, 0, 0),
        Do::Call(CPU_ON, 1, BASE, list_of(1)),
        Do::Go(2),
    ];
    // The third list is that of a vCPU that is never on. What is shared tells that the first goes on.
    let loops = [Do::Store(8, LOOP, WORD), Do::Store(8, DATA, WORD), Do::Go(2)];
    let second = [
        Do::Fill(OTHER, P, WORD),
        Do::Report(1),
        Do::Call(RELINQUISH, OTHER, 0, 0),
        Do::Store(8, OTHER, WORD),
        Do::Load(8, OTHER),
        Do::Load(8, OTHER + 8),
    ];
    let guest = Guest::new(PROTECTED, &[&first, &second, &loops])?;
    let [kept, given_up] = [
        succeed("a file", memfd(&guest.vm, P, MMAP_SHARED))?,
        succeed("a file", memfd(&guest.vm, P, MMAP_SHARED))?,
    ];
    let set_kept = |size| set_slot(&guest.vm, slot(1, LOOP, size, kept.raw(), 0));
    let set_given_up = |size| set_slot(&guest.vm, slot(2, OTHER, size, given_up.raw(), 0));
    succeed("a slot", set_kept(P))?;
    succeed("a slot", set_given_up(P))?;
    guest.vcpu().reports("sharing", 0)?;
    guest.vcpu().reports("that the second is on", 0)?;
    let run = meanwhile(&guest, |thread| {
        let other = &guest.vcpus[1];
        stores(&guest.memory, DATA - BASE, WORD)?;
        refused("deleting what it loops on", set_kept(0), libc::EBUSY)?;
        other.reports("the second", 1)?;
        refused("deleting what it has", set_given_up(0), libc::EBUSY)?;
        other.reports("giving it up", 0)?;
        succeed("deleting the slot", set_given_up(0))?;
        for _ in 0..2 {
            memory_fault(other, PROTECTED, libc::EFAULT, OTHER)?;
        }
        succeed("a slot", set_given_up(P))?;
        other.reports("what it stored", WORD)?;
        other.reports("what it had", 0)?;
        // All the while.
        stores(&guest.memory, DATA - BASE, WORD)?;
        signal(thread);
        Ok(())
    })?;
    refused("the run", run, libc::EINTR)
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
        let file = backed(&guest, place, 1)?;
        drop(file);
        memory_fault(guest.vcpu(), kind, libc::EFAULT, place)?;
        succeed("deleting the slot", set_slot(&guest.vm, slot(1, place, 0, 0, 0)))?;
        let _other = backed(&guest, place, 1)?;
        guest.vcpu().reports("what the guest finds", 0)?;
    }
    Ok(())
}

fn slot_ar05_of_a_closed_file_a_protected_guest_keeps_what_it_has() -> Outcome {
    let list = [
        Do::Store(8, LOOP, WORD),
        Do::Report(1),
        Do::Load(8, LOOP),
        Do::Load(8, LOOP + P),
    ];
    for kind in KINDS {
        let guest = Guest::new(kind, &[&list])?;
        let file = backed(&guest, LOOP, 2)?;
        guest.vcpu().reports("the guest", 1)?;
        drop(file);
        // What the host lent it is the host's again.
        let gone = if kind == PROTECTED {
            guest.vcpu().reports("what it stored", WORD)?;
            LOOP + P
        } else {
            LOOP
        };
        memory_fault(guest.vcpu(), kind, libc::EFAULT, gone)?;
    }
    Ok(())
}

fn slot_ar06_what_is_punched_reads_zero() -> Outcome {
    let punch = |guest: &Guest, page: u64| guest.file.fallocate(PUNCH, page * P, P);
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

/// Pages of a block that a table could map as one.
const BLOCK: u64 = 512;

fn slot_ar06_pages_come_and_go_one_by_one() -> Outcome {
    // One that goes from its beginning, its middle and its end; and what is looked at: where from, how many, what is
    // there.
    const GONE: [u64; 3] = [0, 5, BLOCK - 1];
    const LEFT: [(u64, u64, u64); 5] = [
        (0, 1, 0),
        (1, 4, WORD),
        (5, 1, 0),
        (6, BLOCK - 7, WORD),
        (BLOCK - 1, 1, 0),
    ];
    for kind in KINDS {
        let mut list = vec![Do::Fill(LOOP, BLOCK * P, WORD), Do::Report(1)];
        if kind == PROTECTED {
            list.extend(GONE.map(|page| Do::Call(RELINQUISH, LOOP + page * P, 0, 0)));
        }
        list.extend(LEFT.map(|(page, pages, word)| Do::Check(LOOP + page * P, pages * P, word)));
        list.extend([Do::Store(8, LOOP + 5 * P, 9), Do::Load(8, LOOP + 5 * P)]);
        let guest = Guest::new(kind, &[&list])?;
        let file = backed(&guest, LOOP, BLOCK)?;
        guest.vcpu().reports("the guest", 1)?;
        for page in GONE {
            if kind == PROTECTED {
                guest.vcpu().reports("giving a page up", 0)?;
            } else {
                succeed("a punch", file.fallocate(PUNCH, page * P, P))?;
            }
        }
        for (page, pages, _) in LEFT {
            let what = format!("words that are otherwise in {pages} pages from page {page} on");
            guest.vcpu().reports(&what, 0)?;
        }
        guest.vcpu().reports("what it stored", 9)?;
        if kind != PROTECTED {
            let memory = succeed("a mapping", Mapping::of(&file, 0, BLOCK * P))?;
            let seen = [4, 5, 6].map(|page| memory.read::<u64>(page * P));
            same("what the host sees", seen, [WORD, 9, WORD])?;
        }
    }
    Ok(())
}

fn slot_ar06_a_page_is_punched_while_a_vcpu_loops_on_it() -> Outcome {
    const OTHERS: u64 = 8;
    let begins = [Do::Report(1), Do::Go(1)];
    let loops = [Do::Store(8, LOOP, WORD), Do::Go(1)];
    let guest = Guest::new(0, &[&begins, &loops])?;
    let file = backed(&guest, LOOP, 1)?;
    let memory = succeed("a mapping", Mapping::of(&file, 0, P))?;
    let other = succeed("a file", memfd(&guest.vm, OTHERS * P, MMAP_SHARED))?;
    let theirs = succeed("a mapping", Mapping::of(&other, 0, OTHERS * P))?;
    guest.vcpu().reports("the guest", 1)?;
    let run = meanwhile(&guest, |thread| {
        for _ in 0..20 {
            memory.write(8, 5_u64);
            stores(&memory, 0, WORD)?;
            succeed("a punch", file.fallocate(PUNCH, 0, P))?;
            // Somebody else has the frame then, most likely, and keeps it.
            succeed("other memory", other.fallocate(KEEP, 0, OTHERS * P))?;
            same("what was there", memory.read::<u64>(8), 0)?;
            stores(&memory, 0, WORD)?;
            for page in 0..OTHERS {
                same("a word of others", theirs.read::<u64>(page * P), 0)?;
            }
            succeed("a punch", other.fallocate(PUNCH, 0, OTHERS * P))?;
        }
        signal(thread);
        Ok(())
    })?;
    refused("the run", run, libc::EINTR)
}

fn slot_that_comes_late_is_memory() -> Outcome {
    for kind in KINDS {
        let place = 1 << 34;
        let list = [Do::Report(1), Do::Store(8, place, 5), Do::Load(8, place)];
        let guest = Guest::new(kind, &[&list])?;
        guest.vcpu().reports("the guest", 1)?;
        let _file = backed(&guest, place, 1)?;
        guest.vcpu().reports("what it stored", 5)?;
    }
    Ok(())
}
