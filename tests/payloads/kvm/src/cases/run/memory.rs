//! Who sees the memory of guests that run.

use super::super::{bus_error, cases, refused, same};
use super::each;
use crate::Outcome;
use crate::device::{Mapping, PROTECTED};
use crate::guest::{DATA, Do, Exit, Guest, P, RELINQUISH, REPORT, SHARE, UNSHARE};

cases![
    run_keeps_memory_to_itself_if_it_is_protected,
    run_shares_memory_that_the_host_then_sees,
    run_gives_memory_up_and_finds_it_zero,
    run_finds_what_user_space_has_loaded,
];

/// What a page holds that the host must not see.
const SECRET: u64 = 0x5ec2_e75e_c2e7_5ec2;
const OFFSET: u64 = 4 * P;

/// Tries whatever a process has to reach a page that a guest keeps to itself.
fn out_of_reach(memory: &Mapping, offset: u64) -> Outcome {
    use std::os::fd::AsRawFd as _;
    bus_error("a read", || _ = memory.read::<u64>(offset))?;
    bus_error("a write", || memory.write(offset, 0_u64))?;
    let zero = std::fs::File::open("/dev/zero").map_err(|error| error.to_string())?;
    refused(
        "read(2)",
        memory.read_from(zero.as_raw_fd(), offset, 8),
        libc::EFAULT,
    )?;
    let (_reader, writer) = std::io::pipe().map_err(|error| error.to_string())?;
    refused(
        "write(2)",
        memory.write_to(writer.as_raw_fd(), offset, 8),
        libc::EFAULT,
    )?;
    refused("process_vm_readv", memory.read_as_another(offset), libc::EFAULT)?;
    let peeked = crate::process::peek(memory.address() + offset as usize);
    same(
        "ptrace",
        peeked.map_err(|error| error.raw_os_error()),
        Err(Some(libc::EIO)),
    )
}

fn run_keeps_memory_to_itself_if_it_is_protected() -> Outcome {
    let list = [Do::Store(8, DATA, SECRET), Do::Report(1), Do::Load(8, DATA)];
    let guest = Guest::new(0, &[&list])?;
    guest.vcpu().reports("the guest", 1)?;
    same("what the host sees", guest.memory.read::<u64>(OFFSET), SECRET)?;

    let guest = Guest::new(PROTECTED, &[&list])?;
    guest.vcpu().reports("the guest", 1)?;
    out_of_reach(&guest.memory, OFFSET).map_err(|why| format!("its data: {why}"))?;
    out_of_reach(&guest.memory, 0).map_err(|why| format!("its program: {why}"))?;
    // What it never touched is not the host's either.
    out_of_reach(&guest.memory, 10 * P).map_err(|why| format!("what it has not: {why}"))?;
    guest.vcpu().reports("what the guest sees", SECRET)
}

fn run_shares_memory_that_the_host_then_sees() -> Outcome {
    let list = [
        Do::Store(8, DATA, 7),
        Do::Call(SHARE, DATA, 0, 0),
        Do::Load(8, DATA),
        Do::Store(8, DATA, SECRET),
        Do::Call(UNSHARE, DATA, 0, 0),
        Do::Load(8, DATA),
    ];
    let guest = Guest::new(PROTECTED, &[&list])?;
    let (vcpu, memory) = (guest.vcpu(), &guest.memory);
    vcpu.reports("sharing", 0)?;
    same("what the host sees", memory.read::<u64>(OFFSET), 7)?;
    memory.write::<u64>(OFFSET, 8);
    vcpu.reports("what the guest sees", 8)?;
    vcpu.reports("taking it back", 0)?;
    out_of_reach(memory, OFFSET)?;
    vcpu.reports("what the guest sees", SECRET)
}

fn run_gives_memory_up_and_finds_it_zero() -> Outcome {
    let list = [
        Do::Store(8, DATA, SECRET),
        Do::Call(RELINQUISH, DATA, 0, 0),
        Do::Load(8, DATA),
    ];
    let guest = Guest::new(PROTECTED, &[&list])?;
    guest.vcpu().reports("giving it up", 0)?;
    out_of_reach(&guest.memory, OFFSET)?;
    guest.vcpu().reports("what the guest finds", 0)
}

fn run_finds_what_user_space_has_loaded() -> Outcome {
    let list = [
        Do::Check(DATA, P, SECRET),
        Do::Check(DATA + P, P, 0),
        Do::Load(8, DATA + 2 * P),
    ];
    each(&[&list], |guest, _| {
        for word in 0..P / 8 {
            guest.memory.write(OFFSET + word * 8, SECRET);
        }
        guest.memory.write(OFFSET + 2 * P, 9_u64);
        guest.vcpu().reports("a page that is otherwise", 0)?;
        guest.vcpu().reports("a page that is not zero", 0)?;
        guest.vcpu().reports("a word", 9)?;
        same("the device", guest.vcpu().exit(), Exit::Store(REPORT, 8, 9))
    })
}
