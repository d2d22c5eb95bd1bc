//! What the kernel does with such memory for its own ends: it moves it, joins and merges pages, swaps them out, and gives up
//! those that are broken.

use super::super::{cases, refused, same, succeed};
use super::{OFFSET, WORD, is_all, text};
use crate::Outcome;
use crate::device::Mapping;
use crate::guest::{DATA, Do, Exit, OwnGuest, P};
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

cases![
    own_memory_that_is_compacted_keeps_its_contents,
    own_memory_of_huge_pages_can_be_split_and_joined,
    own_memory_that_is_alike_is_merged_and_taken_apart,
    swap_takes_what_a_guest_has_and_brings_it_back,
    swap_leaves_what_a_guest_uses,
    poison_ar04_is_told_and_the_guest_goes_on_with_another_page,
];

/// Makes huge pages of small ones, since Linux 6.1.
const MADV_COLLAPSE: i32 = 25;

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
    succeed("other memory", guest.memory.replace(OFFSET, P))?;
    guest.vcpu().reports("what it finds", 0)?;
    guest.vcpu().reports("what it finds", 0)
}
