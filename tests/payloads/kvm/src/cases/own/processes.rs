//! What other processes have of it, and what is left when one ends.

use super::super::{cases, refused, same};
use super::{OFFSET, WORD, text};
use crate::Outcome;
use crate::device::RUN;
use crate::guest::{DATA, Do, OwnGuest, P, own_slot, set_own_slot};
use crate::process::{Child, Ended, heir, in_child};
use std::io::{Read as _, Write as _};
use std::mem::ManuallyDrop;
use std::time::{Duration, Instant};

cases![
    own_memory_is_the_childs_own_after_a_fork,
    own_vm_is_no_other_processs,
    own_memory_is_back_when_the_process_is_killed,
    own_memory_is_back_while_another_holds_the_vm,
];

/// A figure of the module's.
fn figure(name: &str) -> Result<u64, String> {
    let all = std::fs::read_to_string("/sys/kernel/debug/freehold/statistics").map_err(text)?;
    let line = all
        .lines()
        .find_map(|line| line.strip_prefix(name)?.strip_prefix(' '));
    line.and_then(|value| value.parse().ok())
        .ok_or_else(|| format!("there is no {name}"))
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
