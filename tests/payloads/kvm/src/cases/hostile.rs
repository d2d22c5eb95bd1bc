//! What no VMM does: all commands at once, children that are killed, mappings that outlive everything. That the kernel
//! goes on without a complaint, and has all memory back in the end, is for the script to see.

use super::devices::{Gic, bell, drive, irqfd, spi};
use super::{cases, refused, same, succeed};
use crate::Outcome;
use crate::device::{
    CHECK_EXTENSION, CREATE_VCPU, Errno, Eventfd, Fd, GET_REG_LIST, KEEP, Kvm, Mapping, PROTECTED, PUNCH,
    RUN, SET_MP_STATE, SET_USER_MEMORY_REGION2,
};
use crate::guest::{BASE, DATA, Do, Guest, KINDS, MMAP_SHARED, P, memfd, set_slot, slot};
use crate::process::{Ended, apart, killed_after, signal, take_signals, this_thread};
use std::fs::File;
use std::os::fd::AsRawFd as _;
use std::sync::atomic::{AtomicBool, AtomicI32, Ordering};
use std::time::{Duration, Instant};

cases![
    hostile_threads_use_one_vm_all_at_once,
    hostile_children_are_killed_at_any_moment,
    hostile_mappings_outlive_everything,
    hostile_arguments_lie_in_the_guests_memory,
    hostile_ranges_of_files_are_as_large_as_can_be,
];

/// Where memory comes and goes.
const OTHER: u64 = BASE + (1 << 24);
const OTHER_PAGES: u64 = 64;
/// How long threads go on.
const A_WHILE: Duration = Duration::from_millis(1500);

/// Numbers that look random, and are the same each time.
struct Numbers(u64);

impl Numbers {
    /// One below `end`.
    const fn below(&mut self, end: u64) -> u64 {
        self.0 = self.0.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
        (self.0 >> 33) % end
    }
}

/// A guest that writes to memory which comes and goes, and tells so, for ever.
fn busy(kind: u64) -> Result<(Guest, Fd), String> {
    let list = [
        Do::Fill(OTHER, OTHER_PAGES * P, 7),
        Do::Load(8, OTHER + 5 * P),
        Do::Report(1),
        Do::Go(0),
    ];
    let guest = Guest::new(kind, &[&list])?;
    let file = succeed("a file", memfd(&guest.vm, OTHER_PAGES * P, MMAP_SHARED))?;
    succeed("a slot", set_slot(&guest.vm, other_slot(&file)))?;
    Ok((guest, file))
}

fn other_slot(file: &Fd) -> kvm_bindings::kvm_userspace_memory_region2 {
    slot(1, OTHER, OTHER_PAGES * P, file.raw(), 0)
}

/// Whatever is done may be refused: only the kernel is looked at.
fn whatever<T>(_: Result<T, Errno>) {}

fn with_memory(guest: &Guest, file: &Fd, numbers: &mut Numbers, zero: &File) -> Outcome {
    let mapping = succeed("a mapping", Mapping::of(file, 0, OTHER_PAGES * P))?;
    let page = numbers.below(OTHER_PAGES);
    let pages = 1 + numbers.below(OTHER_PAGES - page);
    match numbers.below(6) {
        0 => whatever(file.fallocate(PUNCH, page * P, pages * P)),
        1 => whatever(file.fallocate(KEEP, page * P, pages * P)),
        2 => {
            let gone = slot(1, OTHER, 0, file.raw(), 0);
            whatever(set_slot(&guest.vm, gone));
        }
        3 => whatever(set_slot(&guest.vm, other_slot(file))),
        _ => whatever(mapping.read_from(zero.as_raw_fd(), page * P, (pages * P) as usize)),
    }
    Ok(())
}

fn with_devices(guest: &Guest, numbers: &mut Numbers) -> Outcome {
    let events = succeed(
        "eventfds",
        Eventfd::new().and_then(|one| Ok([one, Eventfd::new()?])),
    )?;
    let [one, other] = &events;
    let gsi = numbers.below(64) as u32;
    match Gic::of(&guest.vm) {
        Ok(gic) => whatever(gic.make()),
        Err(error) => whatever::<()>(Err(error)),
    }
    for flags in [0, 2, 1] {
        whatever(irqfd(&guest.vm, one.raw(), gsi, flags, other.raw()));
        one.signal();
        whatever(bell(
            &guest.vm,
            other.raw(),
            0x1000_0000 + u64::from(gsi) * 8,
            8,
            flags & !2,
            0,
        ));
    }
    whatever(drive(&guest.vm, spi(32 + gsi), numbers.below(2) as u32));
    Ok(())
}

fn with_vcpus(guest: &Guest, numbers: &mut Numbers) {
    if let Ok(vcpu) = guest.vm.make(CREATE_VCPU, numbers.below(70)) {
        let copy = vcpu.file().try_clone();
        whatever(vcpu.pass(GET_REG_LIST, &mut 0_u64));
        drop(vcpu);
        drop(copy);
    }
    let vcpu = &guest.vcpu().fd;
    whatever(vcpu.pass(SET_MP_STATE, &mut (5 * numbers.below(2) as u32)));
    whatever(guest.vm.ioctl(CHECK_EXTENSION, numbers.below(300)));
}

fn hostile_threads_use_one_vm_all_at_once() -> Outcome {
    take_signals();
    let zero = File::open("/dev/zero").map_err(|error| error.to_string())?;
    for kind in KINDS {
        let (guest, file) = busy(kind)?;
        let (over, runner) = (AtomicBool::new(false), AtomicI32::new(0));
        let (guest, file, over, runner, zero) = (&guest, &file, &over, &runner, &zero);
        let until_it_is_over = |work: &mut dyn FnMut() -> Outcome| {
            let mut result = Ok(());
            while result.is_ok() && !over.load(Ordering::SeqCst) {
                result = work();
            }
            result
        };
        std::thread::scope(|scope| {
            let runs = scope.spawn(move || {
                runner.store(this_thread(), Ordering::SeqCst);
                until_it_is_over(&mut || {
                    whatever(guest.vcpu().fd.ioctl(RUN, 0));
                    Ok(())
                })
            });
            let others = (0..4).map(|which| {
                scope.spawn(move || {
                    let mut numbers = Numbers(which * 77 + 5);
                    until_it_is_over(&mut || {
                        match which {
                            0 | 1 => with_memory(guest, file, &mut numbers, zero)?,
                            2 => with_devices(guest, &mut numbers)?,
                            _ => with_vcpus(guest, &mut numbers),
                        }
                        Ok(())
                    })
                })
            });
            let others: Vec<_> = others.collect();
            let begin = Instant::now();
            while begin.elapsed() < A_WHILE || !runs.is_finished() {
                over.store(begin.elapsed() >= A_WHILE, Ordering::SeqCst);
                match runner.load(Ordering::SeqCst) {
                    0 => {}
                    thread => signal(thread),
                }
                std::thread::sleep(Duration::from_millis(3));
            }
            others.into_iter().chain([runs]).try_for_each(|thread| {
                let ended = thread.join();
                ended.unwrap_or_else(|_| Err("a thread panicked".to_owned()))
            })
        })?;
    }
    Ok(())
}

/// A child that gets as far as it does before it is killed.
fn hostile_children_are_killed_at_any_moment() -> Outcome {
    for round in 0..24 {
        let kind = KINDS[round % 2];
        let patience = Duration::from_millis(4 * round as u64);
        let ended = killed_after(patience, || {
            loop {
                if let Ok((guest, file)) = busy(kind) {
                    whatever(file.fallocate(KEEP, 0, OTHER_PAGES * P));
                    for _ in 0..3 {
                        whatever(guest.vcpu().run());
                    }
                }
            }
        });
        same("the child", ended.ok(), Some(Ended::Killed(libc::SIGKILL)))?;
    }
    Ok(())
}

fn hostile_mappings_outlive_everything() -> Outcome {
    for kind in KINDS {
        let secret = Do::Store(8, DATA, 0x77);
        let Guest {
            vm,
            file,
            memory,
            mut vcpus,
        } = Guest::new(kind, &[&[secret, Do::Report(1)]])?;
        let vcpu = vcpus.remove(0);
        vcpu.reports("the guest", 1)?;
        let crate::guest::Vcpu { fd, page } = vcpu;
        drop((vm, fd, file));
        // The vCPU's page keeps the vCPU, and that the VM: a child, too.
        let child = apart(|| page.write(32, page.read::<u64>(40)));
        same("the child", child.ok(), Some(Ended::Exited(0)))?;
        same("the exit's reason", page.read::<u32>(8), 6)?;
        drop(page);
        // The VM is gone by now. Its memory is there, and is not the host's to see if it was not.
        let child = apart(|| assert_eq!(memory.read::<u64>(DATA - BASE), 0x77));
        let wanted = match kind {
            PROTECTED => Ended::Killed(libc::SIGBUS),
            _ => Ended::Exited(0),
        };
        same("who looks at the guest's page", child.ok(), Some(wanted))?;
    }
    Ok(())
}

fn hostile_arguments_lie_in_the_guests_memory() -> Outcome {
    for kind in KINDS {
        let guest = Guest::new(kind, &[&[Do::Store(8, DATA, 0), Do::Report(1)]])?;
        let (vm, vcpu) = (&guest.vm, guest.vcpu());
        let there = (guest.memory.address() as u64) + 10 * P;
        // The slot's structure is in the memory that it is about.
        let more = succeed("a file", memfd(vm, P, MMAP_SHARED))?;
        guest.memory.write(10 * P, slot(1, OTHER, P, more.raw(), 0));
        same("a slot", vm.ioctl(SET_USER_MEMORY_REGION2, there), Ok(0))?;
        guest.memory.write(10 * P, 0_u32);
        same("the state", vcpu.fd.ioctl(SET_MP_STATE, there), Ok(0))?;
        vcpu.reports("the guest", 1)?;
        match kind {
            // All of it is the guest's alone by now.
            PROTECTED => refused("the state", vcpu.fd.ioctl(SET_MP_STATE, there), libc::EFAULT)?,
            _ => same("the state", vcpu.fd.ioctl(SET_MP_STATE, there), Ok(0))?,
        }
    }
    Ok(())
}

fn hostile_ranges_of_files_are_as_large_as_can_be() -> Outcome {
    const MOST: u64 = i64::MAX as u64 & !(P - 1);
    for kind in KINDS {
        let vm = succeed("a VM", Kvm::open().and_then(|kvm| kvm.create_vm(kind)))?;
        let file = succeed("a file", memfd(&vm, MOST, MMAP_SHARED))?;
        let last = succeed("its last page", Mapping::of(&file, MOST - P, P))?;
        last.write(8, 5_u64);
        same("the last page", last.read::<u64>(8), 5)?;
        succeed("to punch it all", file.fallocate(PUNCH, 0, MOST))?;
        same("the last page", last.read::<u64>(8), 0)?;
        let beyond = Mapping::of(&file, MOST - P, 2 * P);
        refused("what is beyond", beyond, libc::EOVERFLOW)?;
        let huge = slot(0, 0, 1 << 40, file.raw(), MOST - (1 << 40));
        succeed("a slot", set_slot(&vm, huge))?;
        for (gpa, size, offset) in [
            (1 << 40, P, 0),
            (u64::MAX - P + 1, P, 0),
            (0, u64::MAX - P + 1, 0),
            (0, P, u64::MAX - P + 1),
        ] {
            let wrong = set_slot(&vm, slot(1, gpa, size, file.raw(), offset));
            same(
                &format!("a slot at {gpa:#x}, {size:#x}, {offset:#x}"),
                wrong.is_err(),
                true,
            )?;
        }
        let gone = slot(0, 0, 0, file.raw(), 0);
        succeed("to delete it", set_slot(&vm, gone))?;
    }
    Ok(())
}
