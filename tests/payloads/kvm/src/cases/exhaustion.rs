//! Memory that there is not: beyond what a process may lock, what its control group may have, and what the machine has. It is
//! refused, nobody is killed for it, and what was refused can be had once there is memory again.

use super::{cases, refused, same, succeed};
use crate::Outcome;
use crate::device::{Errno, Fd, KEEP, Kvm, Mapping, PROTECTED, PUNCH};
use crate::guest::{BASE, Do, Guest, MMAP_SHARED, P, PAGES, memfd, set_slot, slot};
use crate::process::{Ended, apart, keep_own_memory, limit_locked_memory, may_not_lock_memory};
use std::fs;
use std::io::Error;
use std::ops::Range;
use std::os::unix::fs::FileExt as _;

cases![
    exhaustion_of_what_a_process_may_lock_is_refused,
    exhaustion_of_what_it_may_lock_ends_a_run_that_can_go_on,
    exhaustion_of_the_machine_is_refused,
    exhaustion_of_the_machine_ends_a_run_that_can_go_on,
    group_memory_is_charged_and_refused,
    group_memory_that_is_refused_ends_a_run_that_can_go_on,
    group_memory_that_is_refused_to_a_mapping_is_a_bus_error,
];

const MIB: u64 = 1 << 20;
/// Where a guest finds memory that it has not yet.
const ABSENT: u64 = BASE + 64 * MIB;
/// What the control group of the cases `group_…` has at most.
const GROUP: u64 = 48 * MIB;
/// What is charged of a full group. Linux lets it go beyond its limit by what the kernel cannot do without
/// (Documentation/admin-guide/cgroup-v2.rst, memory.max): the module's own heap is such, the pages of guests are not.
const FULL: Range<u64> = GROUP / 2..GROUP + MIB;

/// What a table of the last level maps, in bytes.
const TABLE: usize = 512 * P as usize;

/// A protected VM, and a file of its memory that can be mapped.
fn file_of(size: u64) -> Result<(Fd, Fd), String> {
    let made = Kvm::open().and_then(|kvm| {
        let vm = kvm.create_vm(PROTECTED)?;
        let file = memfd(&vm, size, MMAP_SHARED)?;
        Ok((vm, file))
    });
    succeed("a file", made)
}

/// What this process has pinned, in bytes.
fn pinned() -> Result<u64, String> {
    let all = fs::read_to_string("/proc/self/status").map_err(|error| error.to_string())?;
    let line = all
        .lines()
        .find_map(|line| line.strip_prefix("VmPin:")?.strip_suffix("kB"));
    let kilobytes: Option<u64> = line.and_then(|value| value.trim().parse().ok());
    kilobytes
        .map(|value| value << 10)
        .ok_or_else(|| format!("there is no VmPin in {all:?}"))
}

/// What this process's control group has, in bytes. It is open before there is no memory.
struct Charged(fs::File);

impl Charged {
    fn open() -> Result<Self, String> {
        let text = |error: Error| error.to_string();
        let group = fs::read_to_string("/proc/self/cgroup").map_err(text)?;
        let group = group
            .trim()
            .strip_prefix("0::")
            .ok_or("this process has no control group")?;
        let file = fs::File::open(format!("/sys/fs/cgroup{group}/memory.current")).map_err(text)?;
        let charged = Self(file);
        // What the kernel wants for that it has from now on.
        charged.now()?;
        Ok(charged)
    }

    fn now(&self) -> Result<u64, String> {
        let mut text = [0; 32];
        let length = self.0.read_at(&mut text, 0).map_err(|error| error.to_string())?;
        let text = str::from_utf8(&text[..length]).ok().map(str::trim_end);
        text.and_then(|text| text.parse().ok())
            .ok_or_else(|| "what is charged is no number".to_owned())
    }
}

/// Fails unless a figure lies in a range.
fn within(what: &str, got: u64, wanted: Range<u64>) -> Outcome {
    if wanted.contains(&got) {
        Ok(())
    } else {
        Err(format!("{what} is {got}, not in {wanted:?}"))
    }
}

fn exhaustion_of_what_a_process_may_lock_is_refused() -> Outcome {
    may_not_lock_memory();
    limit_locked_memory(4 * MIB);
    let (vm, file) = file_of(8 * MIB)?;
    refused(
        "more than it may lock",
        file.fallocate(KEEP, 0, 8 * MIB),
        libc::ENOMEM,
    )?;
    within("what is pinned", pinned()?, 0..4 * MIB + 1)?;
    succeed("punching", file.fallocate(PUNCH, 0, 8 * MIB))?;
    same("what is pinned", pinned()?, 0)?;
    succeed("what it may lock", file.fallocate(KEEP, 0, 4 * MIB))?;
    same("what is pinned", pinned()?, 4 * MIB)?;
    refused("a page more", file.fallocate(KEEP, 4 * MIB, P), libc::ENOMEM)?;
    limit_locked_memory(8 * MIB);
    succeed("what it may lock by now", file.fallocate(KEEP, 0, 8 * MIB))?;
    same("what is pinned", pinned()?, 8 * MIB)?;
    drop((vm, file));
    same("what is pinned", pinned()?, 0)
}

/// A guest that fills memory which it has not yet, and reports. Its other memory is there.
fn reaching(size: u64) -> Result<(Guest, Fd), String> {
    let guest = Guest::new(
        PROTECTED,
        &[&[Do::Report(1), Do::Fill(ABSENT, size, 1), Do::Report(2)]],
    )?;
    succeed("its memory", guest.file.fallocate(KEEP, 0, PAGES * P))?;
    let file = succeed("a file", memfd(&guest.vm, size, MMAP_SHARED))?;
    succeed(
        "a slot",
        set_slot(&guest.vm, slot(1, ABSENT, size, file.raw(), 0)),
    )?;
    guest.vcpu().reports("the guest", 1)?;
    Ok((guest, file))
}

fn exhaustion_of_what_it_may_lock_ends_a_run_that_can_go_on() -> Outcome {
    may_not_lock_memory();
    let (guest, file) = reaching(P)?;
    same("what is pinned", pinned()?, PAGES * P)?;
    limit_locked_memory(PAGES * P);
    for _ in 0..3 {
        refused("a run", guest.vcpu().run(), libc::ENOMEM)?;
    }
    limit_locked_memory(PAGES * P + P);
    guest.vcpu().reports("the guest", 2)?;
    same("what is pinned", pinned()?, PAGES * P + P)?;
    drop((guest, file));
    same("what is pinned", pinned()?, 0)
}

/// More than the machine has.
const TOO_MUCH: u64 = 4096 * MIB;

/// Takes all that the machine has for guests. Others still have memory, so that nobody is killed for it.
fn fill_machine(file: &Fd) -> Outcome {
    refused(
        "more than there is",
        file.fallocate(KEEP, 0, TOO_MUCH),
        libc::ENOMEM,
    )?;
    within("what is pinned", pinned()?, 256 * MIB..TOO_MUCH)?;
    // Each page of it is this process's own, from now on.
    let others = vec![1_u8; 4 * MIB as usize];
    same(
        "what others have",
        others.iter().map(|&byte| u64::from(byte)).sum(),
        4 * MIB,
    )
}

fn exhaustion_of_the_machine_is_refused() -> Outcome {
    let (_vm, file) = file_of(TOO_MUCH)?;
    fill_machine(&file)?;
    succeed("punching", file.fallocate(PUNCH, 0, TOO_MUCH))?;
    same("what is pinned", pinned()?, 0)?;
    succeed("what there is", file.fallocate(KEEP, 0, 16 * MIB))
}

fn exhaustion_of_the_machine_ends_a_run_that_can_go_on() -> Outcome {
    let (guest, _file) = reaching(MIB)?;
    let (_vm, filler) = file_of(TOO_MUCH)?;
    fill_machine(&filler)?;
    for _ in 0..3 {
        refused("a run", guest.vcpu().run(), libc::ENOMEM)?;
    }
    succeed("punching", filler.fallocate(PUNCH, 0, 64 * MIB))?;
    guest.vcpu().reports("the guest", 2)
}

/// Takes what the group may have, but for less than a block of pages.
fn fill_group(file: &Fd, size: u64) -> Outcome {
    let mut at = 0;
    for step in [MIB, P] {
        while at < size {
            match file.fallocate(KEEP, at, step) {
                Ok(()) => at += step,
                Err(Errno(libc::ENOMEM)) => break,
                Err(error) => return Err(format!("filling: {error:?}")),
            }
        }
    }
    within("what is filled", at, GROUP / 2..size)
}

fn group_memory_is_charged_and_refused() -> Outcome {
    let (_vm, file) = file_of(2 * GROUP)?;
    let charged = Charged::open()?;
    keep_own_memory();
    refused(
        "more than the group may have",
        file.fallocate(KEEP, 0, 2 * GROUP),
        libc::ENOMEM,
    )?;
    within("what is charged of all", charged.now()?, FULL)?;
    succeed("punching", file.fallocate(PUNCH, 0, 2 * GROUP))?;
    within("what is charged of nothing", charged.now()?, 0..GROUP / 2)?;
    succeed("what it may have", file.fallocate(KEEP, 0, GROUP / 2))?;
    within("what is charged of half", charged.now()?, GROUP / 2..GROUP)
}

fn group_memory_that_is_refused_ends_a_run_that_can_go_on() -> Outcome {
    // More than what the kernel has charged already, for each CPU.
    let (guest, _file) = reaching(MIB)?;
    let (_vm, filler) = file_of(2 * GROUP)?;
    keep_own_memory();
    fill_group(&filler, 2 * GROUP)?;
    for _ in 0..3 {
        refused("a run", guest.vcpu().run(), libc::ENOMEM)?;
    }
    succeed("punching", filler.fallocate(PUNCH, 0, 4 * MIB))?;
    guest.vcpu().reports("the guest", 2)
}

fn group_memory_that_is_refused_to_a_mapping_is_a_bus_error() -> Outcome {
    let charged = Charged::open()?;
    let (_vm, file) = file_of(2 * GROUP)?;
    let mapping = succeed("mapping", Mapping::of(&file, 0, 2 * GROUP))?;
    // In a child: once the group has no memory a new process could not begin.
    let ended = apart(|| {
        // One page under each table of the last level, first. A table that Linux refuses itself is no bus error: as nobody can
        // be killed for it, the fault is tried again for ever.
        for at in (0..2 * GROUP).step_by(TABLE).chain([2 * GROUP - P]) {
            mapping.write(at, 1_u8);
        }
        for page in 0..2 * GROUP / P {
            mapping.write(page * P, 1_u8);
        }
    });
    same(
        "the end",
        ended.map_err(|error| error.to_string())?,
        Ended::Killed(libc::SIGBUS),
    )?;
    within("what is charged", charged.now()?, FULL)
}
