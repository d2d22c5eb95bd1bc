//! A protected guest that runs, and somebody who has all of its descriptors and wants its secret, or to change it.
//!
//! Each case begins with a guest that has a secret in its memory and in its registers; after everything that is tried, and
//! fails, the guest still finds it.

pub(super) mod devices;
pub(super) mod given;
pub(super) mod mappings;
pub(super) mod run_page;

use super::{bus_error, cases, refused, same, succeed};
use crate::Outcome;
use crate::device::{ARM_VCPU_INIT, Errno, GET_ONE_REG, KEEP, Kvm, Mapping, PROTECTED, PUNCH, SET_ONE_REG};
use crate::guest::{BASE, DATA, Do, Guest, KINDS, MMAP_SHARED, P, PAGES, SHARE, memfd, set_slot, slot};
use kvm_bindings::{KVM_MEM_LOG_DIRTY_PAGES, KVM_MEM_READONLY, kvm_one_reg, kvm_vcpu_init};
use std::os::unix::fs::FileExt as _;

cases![
    isolation_from_mappings,
    isolation_from_other_processes,
    isolation_from_system_calls_on_its_memory,
    isolation_of_its_registers,
    isolation_from_other_slots_and_vms,
    isolation_from_commands_that_tell_of_memory,
    isolation_of_what_is_punched,
    isolation_of_a_vcpu_that_spins,
];

/// What the host must not see.
const SECRET: u64 = 0x5ec2_e75e_c2e7_5ec2;
/// Where it is in the file.
const OFFSET: u64 = 4 * P;

/// A page that some guests lend to the host, so that what fails elsewhere is seen to work there; and where it is in the
/// file.
const LENT: u64 = DATA + 2 * P;
const LENT_OFFSET: u64 = OFFSET + 2 * P;
/// What such a guest has stored there.
const WORD: u64 = 0x1e47_1e47_1e47_1e47;

/// A guest that has stored its secret, and reports so once it has done something else.
fn guest_that(also: &[Do]) -> Result<Guest, String> {
    let before = [Do::Fill(DATA, P, SECRET)];
    let after = [
        Do::Report(1),
        // The byte after the next proves it: none of the page is otherwise.
        Do::Check(DATA, P, SECRET),
        Do::Load(8, DATA),
    ];
    Guest::new(PROTECTED, &[&[&before, also, &after].concat()])
}

fn guest() -> Result<Guest, String> {
    let guest = guest_that(&[])?;
    guest.vcpu().reports("the guest", 1)?;
    Ok(guest)
}

/// What one does that lends a page, too.
const LENDS: [Do; 2] = [Do::Store(8, LENT, WORD), Do::Call(SHARE, LENT, 0, 0)];

/// It begins.
fn lends(guest: &Guest) -> Outcome {
    guest.vcpu().reports("lending a page", 0)?;
    guest.vcpu().reports("the guest", 1)
}

/// The secret is as it was.
fn intact(guest: &Guest) -> Outcome {
    guest
        .vcpu()
        .reports("a byte of the secret that is otherwise", 0)?;
    guest.vcpu().reports("the secret", SECRET)?;
    guest.vcpu().turns_off()
}

/// Does it to a guest that has a secret, and has it afterwards.
fn in_vain(work: impl FnOnce(&Guest) -> Outcome) -> Outcome {
    let guest = guest()?;
    work(&guest)?;
    intact(&guest)
}

/// The same, to one that lends a page.
fn in_vain_but_for_what_is_lent(work: impl FnOnce(&Guest) -> Outcome) -> Outcome {
    let guest = guest_that(&LENDS)?;
    lends(&guest)?;
    work(&guest)?;
    intact(&guest)
}

/// Neither a load nor a store reaches any page of a mapping of all of the guest's memory.
fn unreachable(mapping: &Mapping) -> Outcome {
    unreachable_at(mapping, (0..PAGES).map(|page| page * P))
}

/// The same of some pages.
fn unreachable_at(mapping: &Mapping, mut offsets: impl Iterator<Item = u64>) -> Outcome {
    offsets.try_for_each(|offset| {
        bus_error("a load", || _ = mapping.read::<u8>(offset))?;
        bus_error("a store", || mapping.write(offset, 0_u8))
    })
}

/// What the guest has lent is there in a mapping of all of its memory, and nothing else is.
fn only_what_is_lent(mapping: &Mapping) -> Outcome {
    let others = (0..PAGES).map(|page| page * P);
    unreachable_at(mapping, others.filter(|offset| *offset != LENT_OFFSET))?;
    same("what is lent", mapping.read::<u64>(LENT_OFFSET), WORD)
}

fn isolation_from_mappings() -> Outcome {
    in_vain(|guest| {
        unreachable(&guest.memory).map_err(|why| format!("a mapping from before: {why}"))?;
        for flags in [libc::MAP_SHARED, libc::MAP_SHARED | libc::MAP_POPULATE] {
            let new = Mapping::with(&guest.file, 0, PAGES * P, flags);
            unreachable(&succeed("a mapping", new)?).map_err(|why| format!("a new mapping: {why}"))?;
        }
        let private = Mapping::with(&guest.file, 0, P, libc::MAP_PRIVATE);
        refused("a private mapping", private, libc::EINVAL)?;
        // By another file, of the same inode.
        let again = std::fs::File::options()
            .read(true)
            .open(format!("/proc/self/fd/{}", guest.file.raw()));
        let errno = again.map(drop).map_err(|error| error.raw_os_error());
        same("opening it again", errno, Err(Some(libc::ENXIO)))
    })
}

fn isolation_from_other_processes() -> Outcome {
    in_vain(|guest| {
        let memory = &guest.memory;
        refused("process_vm_readv", memory.read_as_another(OFFSET), libc::EFAULT)?;
        refused(
            "process_vm_writev",
            memory.write_as_another(OFFSET, 0),
            libc::EFAULT,
        )?;
        let address = memory.address() + OFFSET as usize;
        let peeked = crate::process::peek(address).map_err(|error| error.raw_os_error());
        same("ptrace", peeked, Err(Some(libc::EIO)))?;
        let process = std::fs::File::options()
            .read(true)
            .write(true)
            .open("/proc/self/mem");
        let process = process.map_err(|error| error.to_string())?;
        let read = process.read_at(&mut [0; 8], address as u64);
        same(
            "/proc/self/mem read",
            read.map_err(|error| error.raw_os_error()),
            Err(Some(libc::EIO)),
        )?;
        let written = process.write_at(&[0; 8], address as u64);
        same(
            "/proc/self/mem written",
            written.map_err(|error| error.raw_os_error()),
            Err(Some(libc::EIO)),
        )
    })
}

fn isolation_from_system_calls_on_its_memory() -> Outcome {
    use std::os::fd::AsRawFd as _;
    in_vain(|guest| {
        let memory = &guest.memory;
        let zero = std::fs::File::open("/dev/zero").map_err(|error| error.to_string())?;
        let read = memory.read_from(zero.as_raw_fd(), OFFSET, P as usize);
        refused("read(2)", read, libc::EFAULT)?;
        let (_reader, writer) = std::io::pipe().map_err(|error| error.to_string())?;
        let written = memory.write_to(writer.as_raw_fd(), OFFSET, P as usize);
        refused("write(2)", written, libc::EFAULT)?;
        let spliced = memory.splice_to(writer.as_raw_fd(), OFFSET, P as usize);
        refused("vmsplice(2)", spliced, libc::EFAULT)?;
        for populate in [libc::MADV_POPULATE_READ, libc::MADV_POPULATE_WRITE] {
            refused("madvise(2)", memory.advise(0, PAGES * P, populate), libc::EINVAL)?;
        }
        for command in [GET_ONE_REG, SET_ONE_REG] {
            // A structure that the kernel is to find there.
            let asked = guest.vcpu().fd.ioctl(command, (memory.address() as u64) + OFFSET);
            refused("a command's argument", asked, libc::EFAULT)?;
        }
        let mut bytes = [0; 8];
        let file = guest.file.file();
        same(
            "reading the file",
            file.read_at(&mut bytes, OFFSET).is_err(),
            true,
        )?;
        same("writing the file", file.write_at(&bytes, OFFSET).is_err(), true)
    })
}

/// The name of core register `index`: X0 to X30, SP, PC and PSTATE.
const fn core_register(index: u64) -> u64 {
    0x6030_0000_0010_0000 + 2 * index
}

fn isolation_of_its_registers() -> Outcome {
    in_vain(|guest| {
        let vcpu = &guest.vcpu().fd;
        let mut value = 0_u64;
        // Core registers; SCTLR_EL1, TTBR0_EL1, ESR_EL1, FAR_EL1, VBAR_EL1, TPIDR_EL0, CNTV_CVAL_EL0, CNTVCT_EL0.
        let system = [0xc080, 0xc100, 0xc290, 0xc300, 0xc600, 0xde82, 0xdf1a, 0xdf02];
        let names = (0..34)
            .map(core_register)
            .chain(system.map(|name| 0x6030_0000_0013_0000 | name));
        for id in names {
            let mut asked = kvm_one_reg {
                id,
                addr: (&raw mut value).expose_provenance() as u64,
            };
            let what = format!("register {id:#x}");
            refused(&what, vcpu.pass(GET_ONE_REG, &mut asked), libc::EPERM)?;
            refused(&what, vcpu.pass(SET_ONE_REG, &mut asked), libc::EPERM)?;
        }
        same("what came of it", value, 0)?;
        let mut init = kvm_vcpu_init {
            target: 5,
            ..Default::default()
        };
        init.features[0] = 4;
        refused("a reset", vcpu.pass(ARM_VCPU_INIT, &mut init), libc::EPERM)
    })
}

fn isolation_from_other_slots_and_vms() -> Outcome {
    in_vain(|guest| {
        let file = guest.file.raw();
        let set = |number, gpa, flags| {
            let mut region = slot(number, gpa, PAGES * P, file, 0);
            region.flags |= flags;
            set_slot(&guest.vm, region)
        };
        refused("an alias", set(1, 1 << 32, 0), libc::EEXIST)?;
        refused("a move", set(0, 1 << 32, 0), libc::EINVAL)?;
        refused("the same again", set(0, BASE, 0), libc::EINVAL)?;
        refused(
            "a log of what is written",
            set(0, BASE, KVM_MEM_LOG_DIRTY_PAGES),
            libc::EINVAL,
        )?;
        refused("read-only", set(0, BASE, KVM_MEM_READONLY), libc::EINVAL)?;
        // Another file over it.
        let other = succeed("a file", memfd(&guest.vm, PAGES * P, MMAP_SHARED))?;
        let over = set_slot(&guest.vm, slot(1, BASE, PAGES * P, other.raw(), 0));
        refused("another file over it", over, libc::EEXIST)?;
        for kind in KINDS {
            let vm = succeed("a VM", Kvm::open().and_then(|kvm| kvm.create_vm(kind)))?;
            let theirs = set_slot(&vm, slot(0, BASE, PAGES * P, file, 0));
            refused("another VM's", theirs, libc::EINVAL)?;
        }
        // What a guest that lives has is in its slot, and stays there.
        refused(
            "deleting the slot",
            set_slot(&guest.vm, slot(0, BASE, 0, file, 0)),
            libc::EBUSY,
        )?;
        unreachable(&guest.memory)
    })
}

/// Commands of KVM's that tell of memory or state, or change it, and what a VM answers. Nobody else knows them.
const TELLING: [(&str, u32, i32); 12] = [
    ("KVM_GET_DIRTY_LOG", 0x4010_AE42, libc::ENOENT),
    ("KVM_CLEAR_DIRTY_LOG", 0xC018_AEC0, libc::EINVAL),
    ("KVM_RESET_DIRTY_RINGS", 0xAEC7, libc::EINVAL),
    ("KVM_SET_MEMORY_ATTRIBUTES", 0x4020_AED2, libc::EINVAL),
    ("KVM_ARM_MTE_COPY_TAGS", 0x8030_AEB4, libc::EINVAL),
    ("KVM_ARM_SET_COUNTER_OFFSET", 0x4010_AEB5, libc::EPERM),
    ("KVM_TRANSLATE", 0xC018_AE85, libc::EINVAL),
    ("KVM_GET_REGS", 0x8360_AE81, libc::EINVAL),
    ("KVM_SET_REGS", 0x4360_AE82, libc::EINVAL),
    ("KVM_SET_GUEST_DEBUG", 0x4208_AE9B, libc::EINVAL),
    ("KVM_GET_VCPU_EVENTS", 0x8040_AE9F, libc::EINVAL),
    ("KVM_SET_VCPU_EVENTS", 0x4040_AEA0, libc::EINVAL),
];

fn isolation_from_commands_that_tell_of_memory() -> Outcome {
    in_vain(|guest| {
        let room = [0_u64; 512];
        let address = (&raw const room).expose_provenance() as u64;
        for (name, command, errno) in TELLING {
            for (whose, fd, errno) in [
                ("VM", &guest.vm, errno),
                ("vCPU", &guest.vcpu().fd, libc::EINVAL),
                ("file", &guest.file, libc::ENOTTY),
            ] {
                refused(
                    &format!("{name} of the {whose}"),
                    fd.ioctl(command, address),
                    errno,
                )?;
            }
        }
        same("what came of it", room, [0; 512])
    })
}

/// A page that a guest has is not taken from it as long as it lives.
fn isolation_of_what_is_punched() -> Outcome {
    in_vain(|guest| {
        for range in [(OFFSET, P), (0, PAGES * P)] {
            let punched: Result<(), Errno> = guest.file.fallocate(PUNCH, range.0, range.1);
            refused("a punch", punched, libc::EBUSY)?;
        }
        unreachable(&guest.memory)?;
        succeed("an allocation", guest.file.fallocate(KEEP, OFFSET, P))?;
        unreachable(&guest.memory)
    })
}

fn isolation_of_a_vcpu_that_spins() -> Outcome {
    use crate::process::until_signalled;
    let list = [Do::Fill(DATA, P, SECRET), Do::Report(1), Do::Spin];
    let guest = Guest::new(PROTECTED, &[&list])?;
    guest.vcpu().reports("the guest", 1)?;
    // Everything again, while it runs.
    let attack = || -> Outcome {
        std::thread::sleep(std::time::Duration::from_millis(100));
        unreachable(&guest.memory)?;
        let read = guest.memory.read_as_another(OFFSET);
        refused("process_vm_readv", read, libc::EFAULT)
    };
    let (run, attacked) = until_signalled(attack, || guest.vcpu().run());
    refused("the run", run, libc::EINTR)?;
    attacked
}
