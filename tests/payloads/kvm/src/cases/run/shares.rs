//! vCPUs that share memory with the host and take it back, all at once.

use super::super::{bus_error, cases, refused, same, succeed};
use crate::Outcome;
use crate::device::{Fd, Mapping, PROTECTED};
use crate::guest::{BASE, CPU_ON, Do, Guest, MMAP_SHARED, P, SHARE, UNSHARE, list_of, memfd, set_slot, slot};
use std::os::fd::AsRawFd as _;

cases![run_shares_from_two_vcpus_at_once];

/// The memory that is shared: slots that follow one another, each with a file of its own. Each vCPU has one half, so
/// that both have a part of the file in the middle.
const PLACE: u64 = 1 << 32;
const FILES: u64 = 3;
const FILE_PAGES: u64 = 4;
const CHUNK: u64 = FILES * FILE_PAGES / 2;
/// How often each shares all that it has, and takes it back.
const ROUNDS: u64 = 60;

/// The pages of a vCPU.
fn chunk(vcpu: u64) -> std::ops::Range<u64> {
    vcpu * CHUNK..(vcpu + 1) * CHUNK
}

/// What the guest stores to a page that it is about to share, and to one that it keeps to itself.
const fn public(page: u64) -> u64 {
    0x5a4e_d000 + page
}
const fn secret(page: u64) -> u64 {
    0x5ec2_e700_0000_0000 + page
}
/// What the host answers there.
const fn answer(page: u64, round: u64) -> u64 {
    0xa45e_0000_0000_0000 + (round << 8) + page
}

/// A round of a vCPU's, and the next: it shares page by page, reports, finds what the host has written, takes the pages
/// back with that, and has its secrets there when it reports again.
fn work(vcpu: u64, list: u64) -> Vec<Do> {
    let address = |page| PLACE + page * P;
    let of_each = |what: &dyn Fn(u64) -> Vec<Do>| chunk(vcpu).flat_map(what).collect::<Vec<_>>();
    [
        of_each(&|page| {
            vec![
                Do::Store(8, address(page), public(page)),
                Do::Call(SHARE, address(page), 0, 0),
            ]
        }),
        vec![Do::Report(SHARED)],
        of_each(&|page| {
            vec![
                Do::Call(UNSHARE, address(page), 0, 0),
                Do::Load(8, address(page)),
                Do::Store(8, address(page), secret(page)),
            ]
        }),
        vec![Do::Report(PRIVATE)],
        of_each(&|page| vec![Do::Load(8, address(page))]),
        vec![Do::Go(list)],
    ]
    .concat()
}
const SHARED: u64 = 1;
const PRIVATE: u64 = 2;

/// The memory as the host has it.
struct Memory([(Fd, Mapping); FILES as usize]);

impl Memory {
    fn of(vm: &Fd) -> Result<Self, String> {
        let file = |index: u64| {
            let size = FILE_PAGES * P;
            let file = succeed("a file", memfd(vm, size, MMAP_SHARED))?;
            let slot = slot(1 + index as u32, PLACE + index * size, size, file.raw(), 0);
            succeed("a slot", set_slot(vm, slot))?;
            let mapping = succeed("a mapping", Mapping::of(&file, 0, size))?;
            Ok::<_, String>((file, mapping))
        };
        Ok(Self([file(0)?, file(1)?, file(2)?]))
    }

    /// Where a page is.
    fn at(&self, page: u64) -> (&Mapping, u64) {
        let (_, mapping) = &self.0[(page / FILE_PAGES) as usize];
        (mapping, page % FILE_PAGES * P)
    }

    /// The host sees what a vCPU has stored to its pages, and answers.
    fn answers(&self, vcpu: u64, round: u64) -> Outcome {
        for page in chunk(vcpu) {
            let (mapping, offset) = self.at(page);
            same(&format!("page {page}"), mapping.read::<u64>(offset), public(page))?;
            mapping.write(offset, answer(page, round));
        }
        Ok(())
    }

    /// The host reaches none of a vCPU's pages: all by system calls, and one, another in each round, by itself.
    fn is_out_of_reach(&self, vcpu: u64, round: u64) -> Outcome {
        let (_reader, writer) = std::io::pipe().map_err(|error| error.to_string())?;
        for page in chunk(vcpu) {
            let (mapping, offset) = self.at(page);
            let written = mapping.write_to(writer.as_raw_fd(), offset, 8);
            refused(&format!("write(2) of page {page}"), written, libc::EFAULT)?;
        }
        let page = chunk(vcpu).start + round % CHUNK;
        let (mapping, offset) = self.at(page);
        bus_error(&format!("a load of page {page}"), || {
            _ = mapping.read::<u64>(offset);
        })
    }
}

/// A vCPU runs until it has shared its pages.
fn shares(guest: &Guest, vcpu: u64, round: u64) -> Outcome {
    let runs = &guest.vcpus[vcpu as usize];
    if round > 0 {
        // Its own again since then, and nobody else's.
        for page in chunk(vcpu) {
            runs.reports("a secret", secret(page))?;
        }
    }
    for page in chunk(vcpu) {
        runs.reports(&format!("sharing page {page}"), 0)?;
    }
    runs.reports("that they are shared", SHARED)
}

/// It runs until it has taken them back.
fn takes_back(guest: &Guest, vcpu: u64, round: u64) -> Outcome {
    let runs = &guest.vcpus[vcpu as usize];
    for page in chunk(vcpu) {
        runs.reports(&format!("taking page {page} back"), 0)?;
        runs.reports(&format!("what is in page {page}"), answer(page, round))?;
    }
    runs.reports("that they are private", PRIVATE)
}

/// Both at once, to the end of both.
fn both(one: impl FnOnce() -> Outcome + Send, other: impl FnOnce() -> Outcome + Send) -> Outcome {
    std::thread::scope(|scope| {
        let other = scope.spawn(other);
        let one = one();
        let other = other.join().map_err(|_| "a vCPU's thread panicked".to_owned())?;
        one.map_err(|why| format!("vCPU 0: {why}"))?;
        other.map_err(|why| format!("vCPU 1: {why}"))
    })
}

fn run_shares_from_two_vcpus_at_once() -> Outcome {
    let first = [Do::Call(CPU_ON, 1, BASE, list_of(1)), Do::Go(2)];
    // The third list is that of a vCPU that is never on.
    let guest = Guest::new(PROTECTED, &[&first, &work(1, 1), &work(0, 2)])?;
    let memory = Memory::of(&guest.vm)?;
    guest.vcpu().reports("that the second is on", 0)?;
    // Whenever both have come to a report, one has shared all of its pages and the other none.
    shares(&guest, 0, 0)?;
    for round in 0..ROUNDS {
        memory.answers(0, round)?;
        memory.is_out_of_reach(1, round)?;
        both(|| takes_back(&guest, 0, round), || shares(&guest, 1, round))
            .map_err(|why| format!("round {round}: {why}"))?;
        memory.is_out_of_reach(0, round)?;
        memory.answers(1, round)?;
        both(|| shares(&guest, 0, round + 1), || takes_back(&guest, 1, round))
            .map_err(|why| format!("round {round}: {why}"))?;
    }
    memory.answers(0, ROUNDS)?;
    memory.is_out_of_reach(1, ROUNDS)
}
