//! The interrupt controller as a device, and lines that user space drives.

use crate::kvm::abi::devices::{
    CREATE_DEVICE, CREATE_DEVICE_TEST, CREATE_IRQCHIP, CreateDevice, DEV_TYPE_ARM_VGIC_V3, DeviceAttr,
    ENABLE_CAP, EnableCap, GET_DEVICE_ATTR, HAS_DEVICE_ATTR, IRQ_LINE, IRQ_LINE_STATUS, IrqLevel, IrqRouting,
    IrqRoutingEntry, MSI_VALID_DEVID, Msi, ROUTING_IRQCHIP, ROUTING_MSI, SET_DEVICE_ATTR, SET_GSI_ROUTING,
    SIGNAL_MSI,
};
use crate::kvm::abi::{CREATE_VM, VM_TYPE_PROTECTED};
use crate::kvm::fake::{Machine, USER};
use crate::kvm::{Controller as _, Place, System, Vm};
use crate::{Descriptor, Errno, linux};
use host_shim::vgic::Frame;
use std::sync::Arc;

/// Nobody's memory.
const NOWHERE: u64 = 0x10;

/// A machine with a VM.
pub(super) struct Ground {
    pub(super) machine: Machine,
    pub(super) system: Arc<System<Machine>>,
    pub(super) vm: Arc<Vm<Machine>>,
    descriptor: u64,
}

impl Ground {
    pub(super) fn new() -> Self {
        let machine = Machine::new();
        let system = System::start(machine.clone()).unwrap();
        let descriptor = system.ioctl(CREATE_VM, VM_TYPE_PROTECTED).unwrap();
        let vm = linux::downcast(machine.object(descriptor)).unwrap();
        Self {
            machine,
            system,
            vm,
            descriptor,
        }
    }

    /// One whose controller is made, with two vCPUs.
    pub(super) fn with_controller() -> (Self, u64) {
        let ground = Self::new();
        ground.add_vcpus(2);
        let device = ground.create_device().unwrap();
        for (number, address) in [(2, 0x800_0000), (3, 0x80a_0000)] {
            ground.set(device, 0, number, address).unwrap();
        }
        ground.set(device, 4, 0, 0).unwrap();
        (ground, device)
    }

    fn add_vcpus(&self, count: usize) {
        for vcpu in 0..count {
            self.vm.wires().interrupts().add_vcpu(vcpu, || Ok(())).unwrap();
            self.vm.places[vcpu].call_once(|| Arc::new(Place::new(&self.machine)));
        }
    }

    pub(super) fn command<T: zerocopy::IntoBytes + zerocopy::Immutable>(
        &self,
        command: u32,
        value: &T,
    ) -> Result<u64, Errno> {
        let address = self.machine.set_user(0, value);
        Arc::clone(&self.vm).ioctl(command, address)
    }

    pub(super) fn create_device(&self) -> Result<u64, Errno> {
        let asked = CreateDevice {
            kind: DEV_TYPE_ARM_VGIC_V3,
            fd: 0,
            flags: 0,
        };
        self.command(CREATE_DEVICE, &asked)?;
        Ok(self.machine.user::<CreateDevice>(0).fd.into())
    }

    fn device(&self, device: u64, command: u32, group: u32, attr: u64) -> Result<u64, Errno> {
        let asked = DeviceAttr {
            flags: 0,
            group,
            attr,
            addr: USER + 64,
        };
        let address = self.machine.set_user(0, &asked);
        self.machine.object(device).ioctl(command, address)
    }

    pub(super) fn set(&self, device: u64, group: u32, attr: u64, value: u64) -> Result<u64, Errno> {
        self.machine.set_user(64, &value);
        self.device(device, SET_DEVICE_ATTR, group, attr)
    }

    fn get(&self, device: u64, group: u32, attr: u64) -> Result<u64, Errno> {
        self.machine.set_user(64, &u64::MAX);
        self.device(device, GET_DEVICE_ATTR, group, attr)?;
        Ok(self.machine.user(64))
    }

    /// The guest turns the controller on, and lets an SPI through to vCPU 0.
    pub(super) fn enable(&self, spi: u32, level: bool) {
        let vgic = self.vm.wires().interrupts().vgic().unwrap();
        let frame = Frame::Distributor;
        vgic.write(frame, 0, 4, 1 << 1);
        let (word, bit) = (u64::from(spi / 32 * 4), 1 << (spi % 32));
        vgic.write(frame, 0x80 + word, 4, bit);
        vgic.write(frame, 0x100 + word, 4, bit);
        let kinds = 0xc00 + u64::from(spi / 16 * 4);
        let edge = 2 << (spi % 16 * 2);
        let others = vgic.read(frame, kinds, 4) & !edge;
        vgic.write(frame, kinds, 4, if level { others } else { others | edge });
    }

    pub(super) fn is_pending(&self, vcpu: usize) -> bool {
        self.vm.wires().interrupts().is_pending(vcpu)
    }

    /// Everything is closed.
    pub(super) fn end(self, device: u64) {
        let Self {
            machine,
            system,
            vm,
            descriptor,
        } = self;
        drop(vm);
        machine.close(device);
        machine.close(descriptor);
        system.stop();
        machine.assert_nothing_left();
    }
}

#[test]
fn there_is_one_kind_of_device_and_one_of_it() {
    let ground = Ground::new();
    let create = |kind, flags| {
        let fd = 0;
        ground.command(CREATE_DEVICE, &CreateDevice { kind, fd, flags })
    };
    for kind in (0..20)
        .chain([u32::MAX])
        .filter(|kind| *kind != DEV_TYPE_ARM_VGIC_V3)
    {
        assert_eq!(create(kind, 0), Err(Errno::NODEV));
        assert_eq!(create(kind, CREATE_DEVICE_TEST), Err(Errno::NODEV));
    }
    for _ in 0..2 {
        assert_eq!(create(DEV_TYPE_ARM_VGIC_V3, CREATE_DEVICE_TEST), Ok(0));
    }
    assert_eq!(
        Arc::clone(&ground.vm).ioctl(CREATE_DEVICE, NOWHERE),
        Err(Errno::FAULT)
    );
    // KVM makes a GICv2 if it is not said what, and here there is none.
    assert_eq!(Arc::clone(&ground.vm).ioctl(CREATE_IRQCHIP, 0), Err(Errno::NODEV));
    let device = ground.create_device().unwrap();
    assert_eq!(ground.create_device(), Err(Errno::EXIST));
    assert_eq!(Arc::clone(&ground.vm).ioctl(CREATE_IRQCHIP, 0), Err(Errno::EXIST));
    ground.end(device);
}

#[test]
fn a_device_keeps_its_vm() {
    let (ground, device) = Ground::with_controller();
    let Ground {
        machine,
        system,
        vm,
        descriptor,
    } = ground;
    drop(vm);
    machine.close(descriptor);
    assert_eq!(machine.el2.vms(), 1);
    machine.close(device);
    system.stop();
    machine.assert_nothing_left();
}

#[test]
fn a_device_has_its_own_commands_and_for_its_own_process() {
    let (ground, device) = Ground::with_controller();
    for command in [0, CREATE_DEVICE, IRQ_LINE] {
        assert_eq!(ground.machine.object(device).ioctl(command, 0), Err(Errno::NOTTY));
    }
    for command in [SET_DEVICE_ATTR, GET_DEVICE_ATTR, HAS_DEVICE_ATTR] {
        assert_eq!(
            ground.machine.object(device).ioctl(command, NOWHERE),
            Err(Errno::FAULT)
        );
    }
    ground.machine.become_process(2);
    assert_eq!(ground.get(device, 3, 0), Err(Errno::IO));
    ground.machine.become_process(1);
    ground.end(device);
}

#[test]
fn attributes_are_as_wide_as_they_are_documented() {
    let (ground, device) = Ground::with_controller();
    assert_eq!(ground.get(device, 0, 2), Ok(0x800_0000));
    assert_eq!(ground.get(device, 0, 3), Ok(0x80a_0000));
    // 4 bytes are written, and no more.
    assert_eq!(ground.get(device, 3, 0), Ok(0xffff_ffff_0000_0100));
    // GICD_TYPER: 256 interrupts, 10 bits.
    assert_eq!(ground.get(device, 1, 4), Ok(0xffff_ffff_0048_0007));
    for (command, address) in [(SET_DEVICE_ATTR, NOWHERE), (GET_DEVICE_ATTR, NOWHERE)] {
        let asked = DeviceAttr {
            flags: 0,
            group: 3,
            attr: 0,
            addr: address,
        };
        let argument = ground.machine.set_user(0, &asked);
        let done = ground.machine.object(device).ioctl(command, argument);
        assert_eq!(done, Err(Errno::FAULT));
    }
    ground.end(device);
}

#[test]
fn attributes_answer_as_kvm_documents_them() {
    let ground = Ground::new();
    let device = ground.create_device().unwrap();
    let has = |group, attr| ground.device(device, HAS_DEVICE_ATTR, group, attr);
    for (group, attr) in [(0, 2), (0, 3), (0, 5), (3, 0), (4, 0), (4, 3)] {
        assert_eq!(has(group, attr), Ok(0), "{group} {attr}");
    }
    for (group, attr) in [(0, 0), (0, 1), (2, 0), (4, 1), (99, 0)] {
        assert_eq!(has(group, attr), Err(Errno::NXIO), "{group} {attr}");
        assert_eq!(ground.set(device, group, attr, 0), Err(Errno::NXIO));
        assert_eq!(ground.get(device, group, attr), Err(Errno::NXIO));
    }
    assert_eq!(ground.set(device, 4, 0, 0), Err(Errno::NODEV));
    assert_eq!(ground.set(device, 0, 2, 0x800_1000), Err(Errno::INVAL));
    assert_eq!(ground.set(device, 0, 2, 1 << 50), Err(Errno::TOOBIG));
    assert_eq!(ground.set(device, 3, 0, 128), Ok(0));
    assert_eq!(ground.set(device, 3, 0, 128), Err(Errno::BUSY));
    let interrupts = ground.vm.wires().interrupts();
    assert_eq!(interrupts.start(), Err(Errno::NXIO));
    ground.add_vcpus(1);
    assert_eq!(ground.set(device, 4, 0, 0), Ok(0));
    assert_eq!(interrupts.add_vcpu(1, || Ok(())), Err(Errno::BUSY));
    assert_eq!(interrupts.start(), Err(Errno::NXIO));
    ground.set(device, 0, 2, 0x800_0000).unwrap();
    assert_eq!(ground.set(device, 0, 2, 0x800_0000), Err(Errno::EXIST));
    ground.set(device, 0, 3, 0x80a_0000).unwrap();
    assert_eq!(interrupts.start(), Ok(()));
    ground.end(device);
}

#[test]
fn vcpus_that_were_made_before_the_device_have_redistributors() {
    let (ground, device) = Ground::with_controller();
    let interrupts = ground.vm.wires().interrupts();
    interrupts.start().unwrap();
    // GICR_TYPER of both: their numbers, and that the second is the last.
    let typer = |vcpu: u64| interrupts.load(0, 0x80a_0000 + vcpu * 0x2_0000 + 8, 8).unwrap().0;
    assert_eq!((typer(0), typer(1)), (0, 1 << 32 | 1 << 8 | 1 << 4));
    assert!(interrupts.load(0, 0x80a_0000 + 2 * 0x2_0000, 4).is_none());
    assert!(interrupts.store(0, 0x7ff_fffc, 4, 0).is_none());
    // GICD_CTLR.
    assert!(interrupts.store(0, 0x800_0000, 4, 2).is_some());
    assert_eq!(interrupts.load(1, 0x800_0000, 4).unwrap().0, 0x52);
    ground.end(device);
}

/// `KVM_IRQ_LINE`'s number of a line.
const fn line(kind: u32, vcpu: u32, intid: u32) -> u32 {
    vcpu >> 8 << 28 | kind << 24 | (vcpu & 0xff) << 16 | intid
}

#[test]
fn user_space_drives_lines() {
    let (ground, device) = Ground::with_controller();
    let drive = |irq, level| ground.command(IRQ_LINE, &IrqLevel { irq, level });
    ground.enable(40, true);
    assert_eq!(drive(line(1, 0, 40), 1), Ok(0));
    assert!(ground.is_pending(0) && !ground.is_pending(1));
    assert_eq!(drive(line(1, 0, 40), 0), Ok(0));
    assert!(!ground.is_pending(0));
    // PPI 20 of vCPU 1.
    let vgic = ground.vm.wires().interrupts().vgic().unwrap();
    vgic.write(Frame::Redistributor(1), 0x1_0080, 4, 1 << 20);
    vgic.write(Frame::Redistributor(1), 0x1_0100, 4, 1 << 20);
    assert_eq!(drive(line(2, 1, 20), 1), Ok(0));
    assert!(!ground.is_pending(0) && ground.is_pending(1));
    ground.end(device);
}

#[test]
fn lines_that_there_are_not_cannot_be_driven() {
    let ground = Ground::new();
    let drive = |command, irq| ground.command(command, &IrqLevel { irq, level: 1 });
    for command in [IRQ_LINE, IRQ_LINE_STATUS] {
        for kind in 0..=2 {
            assert_eq!(drive(command, line(kind, 0, 40)), Err(Errno::NXIO));
        }
        assert_eq!(drive(command, line(3, 0, 40)), Err(Errno::INVAL));
        assert_eq!(Arc::clone(&ground.vm).ioctl(command, NOWHERE), Err(Errno::FAULT));
    }
    ground.add_vcpus(2);
    let device = ground.create_device().unwrap();
    assert_eq!(drive(IRQ_LINE, line(1, 0, 40)), Err(Errno::BUSY));
    ground.set(device, 4, 0, 0).unwrap();
    for (irq, error) in [
        (line(0, 0, 0), Errno::NXIO),
        (line(1, 0, 31), Errno::INVAL),
        (line(1, 0, 256), Errno::INVAL),
        (line(1, 0, 0xffff), Errno::INVAL),
        (line(2, 0, 15), Errno::INVAL),
        (line(2, 0, 32), Errno::INVAL),
        (line(2, 2, 20), Errno::INVAL),
        (line(2, 256, 20), Errno::INVAL),
        (line(4, 0, 40), Errno::INVAL),
    ] {
        assert_eq!(drive(IRQ_LINE, irq), Err(error), "{irq:#x}");
    }
    for irq in [line(1, 7, 255), line(2, 1, 16), line(2, 0, 31)] {
        assert_eq!(drive(IRQ_LINE_STATUS, irq), Ok(0), "{irq:#x}");
        assert_eq!(ground.machine.user::<IrqLevel>(0), IrqLevel { irq, level: 1 });
    }
    ground.end(device);
}

#[test]
fn messages_go_nowhere() {
    let ground = Ground::new();
    let send = |flags| {
        let message = Msi {
            address_lo: 0x808_0040,
            address_hi: 0,
            data: 8192,
            flags,
            devid: 0,
            pad: [0; 12],
        };
        ground.command(SIGNAL_MSI, &message)
    };
    assert_eq!(send(0), Err(Errno::INVAL));
    let device = ground.create_device().unwrap();
    assert_eq!(
        (send(0), send(MSI_VALID_DEVID)),
        (Err(Errno::NODEV), Err(Errno::NODEV))
    );
    assert_eq!(send(2), Err(Errno::INVAL));
    assert_eq!(
        Arc::clone(&ground.vm).ioctl(SIGNAL_MSI, NOWHERE),
        Err(Errno::FAULT)
    );
    ground.end(device);
}

#[test]
fn no_capability_can_be_turned_on() {
    let ground = Ground::new();
    for cap in [0, 98, 177, u32::MAX] {
        let asked = EnableCap {
            cap,
            flags: 0,
            args: [0; 4],
            pad: [0; 64],
        };
        assert_eq!(ground.command(ENABLE_CAP, &asked), Err(Errno::INVAL));
    }
    assert_eq!(
        Arc::clone(&ground.vm).ioctl(ENABLE_CAP, NOWHERE),
        Err(Errno::FAULT)
    );
}

impl Ground {
    /// Sets routes; the entries follow their number.
    pub(super) fn route(&self, entries: &[IrqRoutingEntry]) -> Result<u64, Errno> {
        let head = IrqRouting {
            nr: entries.len() as u32,
            flags: 0,
        };
        let address = self.machine.set_user(0, &head);
        for (number, entry) in (0..).zip(entries) {
            self.machine.set_user(8 + number * 48, entry);
        }
        Arc::clone(&self.vm).ioctl(SET_GSI_ROUTING, address)
    }
}

/// A route.
pub(super) const fn to(gsi: u32, kind: u32, first: u32, second: u32) -> IrqRoutingEntry {
    IrqRoutingEntry {
        gsi,
        kind,
        flags: 0,
        pad: 0,
        target: [first, second, 0, 0, 0, 0, 0, 0],
    }
}

#[test]
fn routes_are_judged_as_a_whole() {
    let ground = Ground::new();
    let pin = |gsi, pin| to(gsi, ROUTING_IRQCHIP, 0, pin);
    for wrong in [
        pin(4096, 0),
        pin(u32::MAX, 0),
        pin(0, 988),
        to(0, ROUTING_IRQCHIP, 1, 0),
        to(0, 0, 0, 0),
        to(0, 3, 0, 0),
        IrqRoutingEntry {
            flags: 1,
            ..pin(0, 0)
        },
        IrqRoutingEntry {
            flags: 2,
            ..to(0, ROUTING_MSI, 0, 0)
        },
        // The line has a route already.
        pin(7, 5),
    ] {
        assert_eq!(ground.route(&[pin(7, 7), wrong]), Err(Errno::INVAL), "{wrong:?}");
    }
    let message = IrqRoutingEntry {
        flags: 1,
        ..to(8, ROUTING_MSI, 0x808_0040, 0)
    };
    assert_eq!(ground.route(&[pin(4095, 987), pin(0, 987), message]), Ok(0));
    assert_eq!(ground.route(&[]), Ok(0));
    for (nr, flags) in [(4097, 0), (u32::MAX, 0), (0, 1)] {
        let head = IrqRouting { nr, flags };
        assert_eq!(ground.command(SET_GSI_ROUTING, &head), Err(Errno::INVAL));
    }
    // The entries run out of the caller's memory.
    let head = IrqRouting { nr: 4096, flags: 0 };
    ground.machine.set_user(8, &pin(0, 0));
    assert!(ground.command(SET_GSI_ROUTING, &head).is_err());
    assert_eq!(
        Arc::clone(&ground.vm).ioctl(SET_GSI_ROUTING, NOWHERE),
        Err(Errno::FAULT)
    );
}
