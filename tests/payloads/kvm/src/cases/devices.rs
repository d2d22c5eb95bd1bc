//! The interrupt controller, and eventfds that are lines and doorbells.

mod gic;
pub(super) mod guests;

pub(super) use gic::{DISTRIBUTOR, Gic, INTERFACE, INTERFACE_REGISTERS, PRIORITY_MASK, REDISTRIBUTOR};
use gic::{GICD, GICR, VGIC_V3};

use super::{cases, refused, same, succeed};
use crate::Outcome;
use crate::device::{
    CREATE_DEVICE, CREATE_IRQCHIP, CREATE_VCPU, ENABLE_CAP, Errno, Eventfd, Fd, GET_DEVICE_ATTR,
    HAS_DEVICE_ATTR, IOEVENTFD, IRQ_LINE, IRQFD, Kvm, SET_DEVICE_ATTR, SET_GSI_ROUTING, SIGNAL_MSI,
};
use crate::guest::{KINDS, MMAP_SHARED, P, Vcpu, memfd};
use crate::process::without_descriptors;
use kvm_bindings::{
    kvm_create_device, kvm_enable_cap, kvm_ioeventfd, kvm_irq_level, kvm_irq_routing, kvm_irqfd, kvm_msi,
};
use std::time::{Duration, Instant};

cases![
    devices_are_one_of_one_kind,
    devices_that_find_no_descriptor_leave_nothing,
    devices_have_attributes,
    devices_refuse_what_kvm_refuses,
    devices_have_lines_that_can_be_driven,
    devices_are_routed_to,
    devices_have_eventfds_as_lines,
    devices_forget_eventfds_that_are_closed,
    devices_have_doorbells,
];

const TEST: u32 = 1;
const DEASSIGN: u32 = 1;
const RESAMPLE: u32 = 2;
const DATAMATCH: u32 = 1;
const BELL_DEASSIGN: u32 = 4;

/// An address that nobody has.
const NOWHERE: u64 = 8;

fn vm() -> Result<Fd, String> {
    succeed("a VM", Kvm::open().and_then(|kvm| kvm.create_vm(0)))
}

fn create(vm: &Fd, kind: u32, flags: u32) -> Result<u64, Errno> {
    let mut asked = kvm_create_device {
        type_: kind,
        fd: 0,
        flags,
    };
    vm.pass(CREATE_DEVICE, &mut asked)
}

pub(super) fn drive(vm: &Fd, irq: u32, level: u32) -> Result<u64, Errno> {
    let mut line = kvm_irq_level::default();
    line.__bindgen_anon_1.irq = irq;
    line.level = level;
    vm.pass(IRQ_LINE, &mut line)
}

/// An SPI as a line.
pub(super) const fn spi(intid: u32) -> u32 {
    1 << 24 | intid
}

pub(super) fn irqfd(vm: &Fd, fd: i32, gsi: u32, flags: u32, again: i32) -> Result<u64, Errno> {
    let mut asked = kvm_irqfd {
        fd: fd as u32,
        gsi,
        flags,
        resamplefd: again as u32,
        ..Default::default()
    };
    vm.pass(IRQFD, &mut asked)
}

pub(super) fn bell(vm: &Fd, fd: i32, place: u64, length: u32, flags: u32, value: u64) -> Result<u64, Errno> {
    let mut asked = kvm_ioeventfd {
        datamatch: value,
        addr: place,
        len: length,
        fd,
        flags,
        ..Default::default()
    };
    vm.pass(IOEVENTFD, &mut asked)
}

fn eventfd() -> Result<Eventfd, String> {
    succeed("an eventfd", Eventfd::new())
}

/// A VM with a vCPU and a controller.
fn with_gic() -> Result<(Fd, Vcpu, Gic), String> {
    let vm = vm()?;
    let vcpu = succeed("a vCPU", Vcpu::create(&vm, 0))?;
    let gic = succeed("a controller", Gic::of(&vm))?;
    succeed("its place", gic.make())?;
    Ok((vm, vcpu, gic))
}

fn devices_are_one_of_one_kind() -> Outcome {
    let vm = vm()?;
    for kind in (0..20).chain([u32::MAX]).filter(|kind| *kind != VGIC_V3) {
        refused("another kind", create(&vm, kind, 0), libc::ENODEV)?;
        refused("another kind", create(&vm, kind, TEST), libc::ENODEV)?;
    }
    same("a test", create(&vm, VGIC_V3, TEST), Ok(0))?;
    refused("no address", vm.ioctl(CREATE_DEVICE, NOWHERE), libc::EFAULT)?;
    refused("a GICv2", vm.ioctl(CREATE_IRQCHIP, 0), libc::ENODEV)?;
    let gic = succeed("a controller", Gic::of(&vm))?;
    refused("another", Gic::of(&vm), libc::EEXIST)?;
    refused("another kind of it", vm.ioctl(CREATE_IRQCHIP, 0), libc::EEXIST)?;
    // The device keeps the VM.
    drop(vm);
    same("an attribute", gic.has(4, 0), Ok(()))
}

/// And neither does anything else that has one.
fn devices_that_find_no_descriptor_leave_nothing() -> Outcome {
    let kvm = succeed("/dev/kvm", Kvm::open())?;
    for kind in KINDS {
        let vm = succeed("a VM", kvm.create_vm(kind))?;
        without_descriptors(|| {
            refused("a controller", create(&vm, VGIC_V3, 0), libc::EMFILE)?;
            refused("a vCPU", vm.ioctl(CREATE_VCPU, 0), libc::EMFILE)?;
            refused("a file", memfd(&vm, P, MMAP_SHARED), libc::EMFILE)?;
            refused("a VM", kvm.create_vm(kind), libc::EMFILE)
        })?;
        let gic = succeed("a controller", Gic::of(&vm))?;
        let _vcpu = succeed("a vCPU", Vcpu::create(&vm, 0))?;
        succeed("its place", gic.make())?;
        succeed("a file", memfd(&vm, P, MMAP_SHARED))?;
    }
    Ok(())
}

fn devices_have_attributes() -> Outcome {
    let vm = vm()?;
    let gic = succeed("a controller", Gic::of(&vm))?;
    for (group, attr) in [(0, 2), (0, 3), (0, 5), (3, 0), (4, 0), (4, 3)] {
        same("what there is", gic.has(group, attr), Ok(()))?;
    }
    for (group, attr) in [(0, 0), (0, 1), (2, 0), (4, 1), (99, 0)] {
        refused("what there is not", gic.has(group, attr), libc::ENXIO)?;
        refused("what there is not", gic.set(group, attr, 0), libc::ENXIO)?;
        refused("what there is not", gic.get(group, attr), libc::ENXIO)?;
    }
    refused("without vCPUs", gic.set(4, 0, 0), libc::ENODEV)?;
    let vcpu = succeed("a vCPU", Vcpu::create(&vm, 0))?;
    same("how many", gic.set(3, 0, 96), Ok(()))?;
    same("the controller", gic.make(), Ok(()))?;
    refused("a vCPU too late", Vcpu::create(&vm, 1), libc::EBUSY)?;
    same("how many", gic.get(3, 0), Ok(0xffff_ffff_0000_0060))?;
    same("the address", gic.get(0, 2), Ok(GICD))?;
    // GICD_CTLR, GICR_TYPER: nothing follows it.
    same("a register", gic.get(1, 0), Ok(0xffff_ffff_0000_0050))?;
    same("a register", gic.get(5, 8), Ok(0xffff_ffff_0000_0010))?;
    same("a register", gic.set(1, 0x104, 1 << 8), Ok(()))?;
    same("a register", gic.get(1, 0x104), Ok(0xffff_ffff_0000_0100))?;
    refused(
        "no address",
        gic.pass(SET_DEVICE_ATTR, 3, 0, NOWHERE),
        libc::EFAULT,
    )?;
    refused(
        "no address",
        gic.pass(GET_DEVICE_ATTR, 3, 0, NOWHERE),
        libc::EFAULT,
    )?;
    drop(vcpu);
    Ok(())
}

fn devices_refuse_what_kvm_refuses() -> Outcome {
    let (vm, _vcpu, gic) = with_gic()?;
    for command in [SET_DEVICE_ATTR, GET_DEVICE_ATTR, HAS_DEVICE_ATTR] {
        refused("no address", gic.0.ioctl(command, NOWHERE), libc::EFAULT)?;
    }
    refused("another's command", gic.0.ioctl(CREATE_IRQCHIP, 0), libc::ENOTTY)?;
    for command in [
        IRQ_LINE,
        IRQFD,
        IOEVENTFD,
        SIGNAL_MSI,
        ENABLE_CAP,
        SET_GSI_ROUTING,
    ] {
        refused("no address", vm.ioctl(command, NOWHERE), libc::EFAULT)?;
    }
    refused(
        "a message",
        vm.pass(SIGNAL_MSI, &mut kvm_msi::default()),
        libc::ENODEV,
    )?;
    refused(
        "a capability",
        vm.pass(ENABLE_CAP, &mut kvm_enable_cap::default()),
        libc::EINVAL,
    )
}

fn devices_have_lines_that_can_be_driven() -> Outcome {
    let vm = vm()?;
    refused("without a controller", drive(&vm, spi(40), 1), libc::ENXIO)?;
    let vcpu = succeed("a vCPU", Vcpu::create(&vm, 0))?;
    let gic = succeed("a controller", Gic::of(&vm))?;
    refused("too early", drive(&vm, spi(40), 1), libc::EBUSY)?;
    succeed("its place", gic.make())?;
    for irq in [spi(31), spi(256), 2 << 24 | 32, 2 << 24 | 1 << 16 | 20, 5 << 24] {
        refused("no line", drive(&vm, irq, 1), libc::EINVAL)?;
    }
    refused("a vCPU's", drive(&vm, 0, 1), libc::ENXIO)?;
    // VGIC_LEVEL_INFO_LINE_LEVEL, of SPIs 32 to 63.
    same("the lines", gic.get(7, 32), Ok(0xffff_ffff_0000_0000))?;
    same("a line", drive(&vm, spi(40), 1), Ok(0))?;
    same("the lines", gic.get(7, 32), Ok(0xffff_ffff_0000_0100))?;
    same("a line", drive(&vm, spi(40), 0), Ok(0))?;
    same("the lines", gic.get(7, 32), Ok(0xffff_ffff_0000_0000))?;
    same("a PPI", drive(&vm, 2 << 24 | 20, 1), Ok(0))?;
    same("the lines", gic.get(7, 0), Ok(0xffff_ffff_0010_0000))?;
    drop(vcpu);
    Ok(())
}

/// Routes in the layout of user space: line, pin.
fn route(vm: &Fd, routes: &[(u32, u32)]) -> Result<u64, Errno> {
    let mut words = vec![routes.len() as u32, 0];
    for (gsi, pin) in routes {
        words.extend([*gsi, 1, 0, 0, 0, *pin]);
        words.extend([0; 6]);
    }
    assert_eq!(size_of::<kvm_irq_routing>(), 8);
    vm.ioctl(SET_GSI_ROUTING, words.as_mut_ptr().expose_provenance() as u64)
}

fn devices_are_routed_to() -> Outcome {
    let (vm, _vcpu, gic) = with_gic()?;
    refused("no such pin", route(&vm, &[(0, 988)]), libc::EINVAL)?;
    refused("no such line", route(&vm, &[(4096, 0)]), libc::EINVAL)?;
    refused("two ends", route(&vm, &[(1, 0), (1, 1)]), libc::EINVAL)?;
    let (fd, again) = (eventfd()?, eventfd()?);
    // Its line stays high until it is served, so it can be seen.
    same("a line", irqfd(&vm, fd.raw(), 3, RESAMPLE, again.raw()), Ok(0))?;
    for (routes, lines) in [
        (None, 1 << 3),
        (Some(&[(3, 9), (4, 4)][..]), 1 << 3 | 1 << 9),
        (Some(&[]), 1 << 3 | 1 << 9),
    ] {
        if let Some(routes) = routes {
            same("routes", route(&vm, routes), Ok(0))?;
        }
        fd.signal();
        same("the lines", gic.get(7, 32), Ok(0xffff_ffff_0000_0000 | lines))?;
    }
    Ok(())
}

fn devices_have_eventfds_as_lines() -> Outcome {
    let vm = vm()?;
    let (fd, again) = (eventfd()?, eventfd()?);
    refused("too early", irqfd(&vm, fd.raw(), 8, 0, 0), libc::EAGAIN)?;
    let (vm, _vcpu, gic) = with_gic()?;
    refused("a flag", irqfd(&vm, fd.raw(), 8, 4, 0), libc::EINVAL)?;
    refused("nothing", irqfd(&vm, 99, 8, 0, 0), libc::EBADF)?;
    refused("a device", irqfd(&vm, gic.0.raw(), 8, 0, 0), libc::EINVAL)?;
    refused("nothing", irqfd(&vm, fd.raw(), 8, RESAMPLE, 99), libc::EBADF)?;
    // What was signalled before is not lost.
    fd.signal();
    same("a line", irqfd(&vm, fd.raw(), 8, RESAMPLE, again.raw()), Ok(0))?;
    same("the lines", gic.get(7, 32), Ok(0xffff_ffff_0000_0100))?;
    refused("a line twice", irqfd(&vm, fd.raw(), 9, 0, 0), libc::EBUSY)?;
    same("not that one", irqfd(&vm, fd.raw(), 9, DEASSIGN, 0), Ok(0))?;
    same("the lines", gic.get(7, 32), Ok(0xffff_ffff_0000_0100))?;
    same("that one", irqfd(&vm, fd.raw(), 8, DEASSIGN, 0), Ok(0))?;
    same("the lines", gic.get(7, 32), Ok(0xffff_ffff_0000_0000))?;
    fd.signal();
    same("what is read", fd.count(), 1)?;
    same("a line again", irqfd(&vm, fd.raw(), 9, 0, 0), Ok(0))?;
    fd.signal();
    // It was heard.
    same("what is read", fd.count(), 0)
}

fn devices_forget_eventfds_that_are_closed() -> Outcome {
    let (vm, _vcpu, gic) = with_gic()?;
    let again = eventfd()?;
    for _ in 0..100 {
        let fd = eventfd()?;
        same("a line", irqfd(&vm, fd.raw(), 8, RESAMPLE, again.raw()), Ok(0))?;
        fd.signal();
        drop(fd);
    }
    // Nobody would ever let the line go low. It is not forgotten in the close itself.
    let until = Instant::now() + Duration::from_secs(10);
    while gic.get(7, 32) != Ok(0xffff_ffff_0000_0000) && Instant::now() < until {
        std::thread::sleep(Duration::from_millis(10));
    }
    same("the lines", gic.get(7, 32), Ok(0xffff_ffff_0000_0000))?;
    let fd = eventfd()?;
    same("a line", irqfd(&vm, fd.raw(), 9, 0, 0), Ok(0))?;
    // One that is open when its VM ends is heard no more.
    drop((vm, gic));
    Ok(())
}

fn devices_have_doorbells() -> Outcome {
    let vm = vm()?;
    let fd = eventfd()?;
    for (length, flags) in [(3, 0), (16, 0), (4, 16), (0, DATAMATCH)] {
        refused(
            "no doorbell",
            bell(&vm, fd.raw(), 4096, length, flags, 0),
            libc::EINVAL,
        )?;
    }
    refused(
        "past the end",
        bell(&vm, fd.raw(), u64::MAX, 8, 0, 0),
        libc::EINVAL,
    )?;
    refused("nothing", bell(&vm, 99, 4096, 4, 0, 0), libc::EBADF)?;
    for value in 0..1000 {
        same(
            "a doorbell",
            bell(&vm, fd.raw(), 4096, 4, DATAMATCH, value),
            Ok(0),
        )?;
    }
    refused(
        "one more",
        bell(&vm, fd.raw(), 4096, 4, DATAMATCH, 1000),
        libc::ENOSPC,
    )?;
    refused(
        "one again",
        bell(&vm, fd.raw(), 4096, 4, DATAMATCH, 5),
        libc::EEXIST,
    )?;
    let off = DATAMATCH | BELL_DEASSIGN;
    refused("not there", bell(&vm, fd.raw(), 4096, 2, off, 5), libc::ENOENT)?;
    same("one less", bell(&vm, fd.raw(), 4096, 4, off, 5), Ok(0))?;
    refused("not there", bell(&vm, fd.raw(), 4096, 4, off, 5), libc::ENOENT)
}
