//! Processes that have all descriptors of a protected VM, and are not the one that made it.

use super::super::devices::Gic;
use super::super::{cases, refused, same, succeed};
use super::{LENDS, LENT_OFFSET, OFFSET, guest_that, intact, lends, only_what_is_lent};
use crate::Outcome;
use crate::device::{
    ARM_PREFERRED_TARGET, ARM_SET_COUNTER_OFFSET, ARM_VCPU_FINALIZE, ARM_VCPU_INIT, CHECK_EXTENSION,
    CREATE_DEVICE, CREATE_GUEST_MEMFD, CREATE_IRQCHIP, CREATE_VCPU, ENABLE_CAP, Fd, GET_DEVICE_ATTR,
    GET_DIRTY_LOG, GET_MP_STATE, GET_ONE_REG, GET_REG_LIST, HAS_DEVICE_ATTR, IOEVENTFD, IRQ_LINE, IRQFD, Kvm,
    Mapping, PUNCH, RUN, SET_DEVICE_ATTR, SET_GSI_ROUTING, SET_MP_STATE, SET_ONE_REG, SET_SIGNAL_MASK,
    SET_USER_MEMORY_REGION, SET_USER_MEMORY_REGION2, SIGNAL_MSI,
};
use crate::guest::{BASE, Guest, KINDS, P, PAGES, set_slot, slot};
use crate::process::{Child, Ended, in_child};
use std::fmt::Display;
use std::fs::File;
use std::os::fd::OwnedFd;
use std::os::unix::net::UnixDatagram;
use vmm_sys_util::sock_ctrl_msg::ScmSocket as _;

cases![
    isolation_from_children_that_have_the_descriptors,
    isolation_from_processes_that_are_given_the_descriptors,
];

/// What whoever has them writes to the page that is lent.
const WRITTEN: u64 = 0x9a55_ed00;

const OF_A_VM: [u32; 16] = [
    CHECK_EXTENSION,
    CREATE_VCPU,
    CREATE_IRQCHIP,
    CREATE_DEVICE,
    CREATE_GUEST_MEMFD,
    SET_USER_MEMORY_REGION,
    SET_USER_MEMORY_REGION2,
    GET_DIRTY_LOG,
    IRQ_LINE,
    SET_GSI_ROUTING,
    IRQFD,
    IOEVENTFD,
    ENABLE_CAP,
    SIGNAL_MSI,
    ARM_PREFERRED_TARGET,
    ARM_SET_COUNTER_OFFSET,
];
const OF_A_VCPU: [u32; 12] = [
    RUN,
    SET_SIGNAL_MASK,
    GET_MP_STATE,
    SET_MP_STATE,
    GET_ONE_REG,
    SET_ONE_REG,
    ARM_VCPU_INIT,
    GET_REG_LIST,
    ARM_VCPU_FINALIZE,
    SET_DEVICE_ATTR,
    GET_DEVICE_ATTR,
    HAS_DEVICE_ATTR,
];
const OF_A_DEVICE: [u32; 3] = [SET_DEVICE_ATTR, GET_DEVICE_ATTR, HAS_DEVICE_ATTR];

fn text(error: impl Display) -> String {
    error.to_string()
}

/// Somebody has a VM, a vCPU, an interrupt controller and the file, and can do nothing with the first three; with the
/// last, what the guest lets the host do.
fn attempts([vm, vcpu, gic, file]: [&Fd; 4]) -> Outcome {
    for (whose, fd, commands) in [
        ("VM", vm, &OF_A_VM[..]),
        ("vCPU", vcpu, &OF_A_VCPU),
        ("controller", gic, &OF_A_DEVICE),
    ] {
        for command in commands {
            let what = format!("command {command:#x} of the {whose}");
            refused(&what, fd.ioctl(*command, 0), libc::EIO)?;
        }
    }
    let memory = succeed("a mapping", Mapping::of(file, 0, PAGES * P))?;
    only_what_is_lent(&memory)?;
    refused("process_vm_readv", memory.read_as_another(OFFSET), libc::EFAULT)?;
    refused("a punch", file.fallocate(PUNCH, OFFSET, P), libc::EBUSY)?;
    // A VM of its own cannot have the file.
    for kind in KINDS {
        let own = succeed("a VM", Kvm::open().and_then(|kvm| kvm.create_vm(kind)))?;
        let bound = set_slot(&own, slot(0, BASE, PAGES * P, file.raw(), 0));
        refused("a slot of its own", bound, libc::EINVAL)?;
    }
    memory.write(LENT_OFFSET, WRITTEN);
    Ok(())
}

/// A guest that has a secret, lends a page and has an interrupt controller; it has its secret still when that is over.
fn in_vain(work: impl FnOnce(&Guest, &Gic) -> Outcome) -> Outcome {
    let guest = guest_that(&LENDS)?;
    let gic = succeed("a controller", Gic::of(&guest.vm))?;
    succeed("its place", gic.make())?;
    lends(&guest)?;
    work(&guest, &gic)?;
    intact(&guest)
}

/// The guest's process can do what others cannot, and sees what they have done.
fn owner(guest: &Guest, gic: &Gic) -> Outcome {
    succeed("a command of the VM's", guest.vm.ioctl(CHECK_EXTENSION, 0))?;
    succeed("one of the vCPU's", guest.vcpu().state())?;
    succeed("one of the controller's", gic.get(0, 2))?;
    let written = guest.memory.read::<u64>(LENT_OFFSET);
    same("what the other wrote", written, WRITTEN)
}

fn isolation_from_children_that_have_the_descriptors() -> Outcome {
    in_vain(|guest, gic| {
        let ended = in_child(|| {
            // The mapping from before, too.
            only_what_is_lent(&guest.memory)?;
            attempts([&guest.vm, &guest.vcpu().fd, &gic.0, &guest.file])
        });
        same("the child", ended.map_err(text)?, Ended::Exited(0))?;
        owner(guest, gic)
    })
}

/// The next descriptor that comes.
fn receive(socket: &UnixDatagram) -> Result<Fd, String> {
    let received = socket.recv_with_fd(&mut [0]);
    let (_, file): (_, Option<File>) = received.map_err(text)?;
    file.map(|file| OwnedFd::from(file).into())
        .ok_or_else(|| "there is no descriptor".to_owned())
}

fn isolation_from_processes_that_are_given_the_descriptors() -> Outcome {
    let (ours, theirs) = UnixDatagram::pair().map_err(text)?;
    // It is there before there is a VM: nothing that it has of that came by a fork.
    let mut other = Child::that(|| {
        let [vm, vcpu, gic, file] = [(); 4].map(|()| receive(&theirs));
        attempts([&vm?, &vcpu?, &gic?, &file?])
    })
    .map_err(text)?;
    in_vain(|guest, gic| {
        for fd in [&guest.vm, &guest.vcpu().fd, &gic.0, &guest.file] {
            let sent = ours.send_with_fd(&[0_u8][..], fd.raw());
            sent.map_err(text)?;
        }
        other.wait();
        // It waits to be, once it is through.
        let ended = other.kill().map_err(text)?;
        same("the other process", ended, Ended::Killed(libc::SIGKILL))?;
        owner(guest, gic)
    })
}
