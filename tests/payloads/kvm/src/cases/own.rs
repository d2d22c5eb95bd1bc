//! Guests in memory of the process's own, and what becomes of it: as for every other user of that memory.

pub(super) mod processes;
pub(super) mod slots;
pub(super) mod upkeep;

use super::{cases, refused, same, succeed};
use crate::Outcome;
use crate::device::{Errno, Mapping, PUNCH, shared_memory};
use crate::guest::{BASE, DATA, Do, Exit, OwnGuest, P};
use std::sync::Barrier;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

cases![
    own_guest_and_process_see_the_same,
    own_memory_that_is_unmapped_is_a_fault_and_is_zero_afterwards,
    own_memory_that_is_write_protected_is_not_written_to,
    own_memory_that_was_never_touched_is_zero_and_the_guests_own_once_it_writes,
    own_memory_that_is_discarded_is_zero,
    own_memory_of_a_file_goes_when_the_file_shrinks,
    own_memory_changes_while_vcpus_run,
];

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
    succeed("a punch", file.fallocate(PUNCH, OFFSET, P))?;
    guest.vcpu().reports("what is punched", 0)?;
    file.file().set_len(OFFSET).map_err(text)?;
    fault(&guest, DATA + P)?;
    file.file().set_len(size).map_err(text)?;
    guest.vcpu().reports("what is there again", 0)?;
    guest.vcpu().reports("the guest", 2)?;
    let again = succeed("a mapping", Mapping::of(&file, OFFSET, P))?;
    same("what the guest wrote", again.read::<u64>(0), 8)
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
    // A thread that starts maps memory of its own, which must not be where the guest's is away.
    let started = Barrier::new(3);
    // Each vCPU meets memory that is not there, and tries again until it is.
    let runs = |vcpu: usize| -> Outcome {
        started.wait();
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
        started.wait();
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
