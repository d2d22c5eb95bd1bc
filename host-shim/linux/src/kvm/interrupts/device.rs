//! `KVM_CREATE_DEVICE`, and the descriptor of the interrupt controller.

use super::{Interrupts, errno, uninterrupted};
use crate::kvm::abi::devices::{
    CREATE_DEVICE_TEST, CreateDevice, DEV_TYPE_ARM_VGIC_V3, DeviceAttr, GET_DEVICE_ATTR, HAS_DEVICE_ATTR,
    SET_DEVICE_ATTR,
};
use crate::kvm::vcpu::{Inside, Unseen};
use crate::kvm::{Controller, Vm, read_user, write_user};
use crate::{Descriptor, Errno, Linux};
use alloc::sync::Arc;
use host_shim::vgic::attributes::{self, Attribute, CpuInterface, Machine, VgicDevice};
use host_shim::vgic::{InterfaceShape, VcpuSet};

/// The descriptor of the interrupt controller.
#[derive(Debug)]
pub struct Device<L: Linux> {
    vm: Arc<Vm<L>>,
}

impl<L: Linux> Vm<L> {
    /// `KVM_CREATE_DEVICE`.
    ///
    /// # Errors
    /// [`Errno::FAULT`]; [`Errno::NODEV`] if there are no such devices; [`Errno::EXIST`]; [`Errno::BUSY`] if the VM has begun.
    pub(in crate::kvm) fn create_device(self: &Arc<Self>, argument: u64) -> Result<u64, Errno> {
        let linux = self.linux();
        let mut asked: CreateDevice = read_user(linux, argument)?;
        if asked.kind != DEV_TYPE_ARM_VGIC_V3 {
            return Err(Errno::NODEV);
        }
        if asked.flags & CREATE_DEVICE_TEST != 0 {
            return Ok(0);
        }
        let descriptor = linux.open(c"kvm-arm-vgic-v3", &mut || {
            self.create_controller()?;
            Ok(Arc::new(Device { vm: Arc::clone(self) }))
        })?;
        asked.fd = descriptor as u32;
        write_user(linux, argument, &asked)?;
        Ok(0)
    }

    fn create_controller(&self) -> Result<(), Errno> {
        let interrupts = self.wires().interrupts();
        self.before_launch(|| {
            let interface = InterfaceShape::from_vtr(self.system().support().interface);
            interrupts.create(interface, self.ipa_bits() as u32)?;
            self.set_controller(Arc::clone(interrupts) as Arc<dyn Controller>)
        })
    }
}

/// The VM, while an attribute is read or written.
struct AtRest<'a, 'b, L: Linux> {
    rests: bool,
    /// The vCPUs, if they are at rest, and the attribute can be about one.
    vcpus: Option<&'a mut [Inside<'b, L>]>,
    /// What user space may know of CPU interfaces, it may see.
    open: bool,
    unseen: Unseen,
}

impl<L: Linux> Machine for AtRest<'_, '_, L> {
    fn rest(&mut self) -> bool {
        self.rests
    }

    fn cpu_interface(&mut self, vcpu: usize) -> Option<&mut dyn CpuInterface> {
        if !self.open {
            return None;
        }
        let Some(vcpus) = &mut self.vcpus else {
            return Some(&mut self.unseen);
        };
        let inside = vcpus.iter_mut().find(|inside| inside.index() == vcpu)?;
        Some(inside)
    }
}

impl<L: Linux> Device<L> {
    fn interrupts(&self) -> &Interrupts<L> {
        self.vm.wires().interrupts()
    }

    /// Does something with the device, and the vCPUs at rest if `attribute` needs that. Nobody else does meanwhile.
    fn with<R>(
        &self,
        attribute: Option<Attribute>,
        work: impl FnOnce(&VgicDevice, &mut AtRest<'_, '_, L>) -> Result<R, attributes::Errno>,
    ) -> Result<R, Errno> {
        let interrupts = self.interrupts();
        let device = interrupts.device().ok_or(Errno::NXIO)?;
        let _order = interrupts.order.lock();
        let mut work = Some(work);
        let open = !self.vm.is_closed();
        let mut call = |rests, vcpus: Option<&mut [Inside<'_, L>]>| {
            let mut machine = AtRest {
                rests,
                vcpus,
                open,
                unseen: Unseen,
            };
            work.take().map(|work| work(device, &mut machine))
        };
        let done = match attribute {
            // It allocates, and there is no controller yet that could be used meanwhile.
            Some(Attribute::Init) => call(true, None),
            // A register of a vCPU is read and written with locks that sleep, and none of the controller's.
            Some(Attribute::SystemRegister { .. }) => self.vm.at_rest(|vcpus| call(vcpus.is_some(), vcpus)),
            Some(attribute) if attribute.needs_rest() => self
                .vm
                .at_rest(|vcpus| uninterrupted(self.vm.linux(), || call(vcpus.is_some(), vcpus))),
            _ => uninterrupted(self.vm.linux(), || call(true, None)),
        };
        done.expect("the work was done, once").map_err(errno)
    }

    fn attribute(&self, asked: &DeviceAttr) -> Result<Attribute, Errno> {
        self.with(None, |device, _| device.attribute(asked.group, asked.attr))
    }

    fn read_value(&self, address: u64, bytes: usize) -> Result<u64, Errno> {
        let linux = self.vm.linux();
        Ok(match bytes {
            0 => 0,
            4 => read_user::<u32>(linux, address)?.into(),
            _ => read_user(linux, address)?,
        })
    }

    fn get(&self, asked: &DeviceAttr) -> Result<u64, Errno> {
        let attribute = self.attribute(asked)?;
        let index = match attribute.is_read_by_index() {
            true => self.read_value(asked.addr, attribute.bytes())?,
            false => 0,
        };
        let value = self.with(Some(attribute), |device, machine| {
            device.get(attribute, index, machine)
        })?;
        let linux = self.vm.linux();
        match attribute.bytes() {
            0 => {}
            4 => write_user(linux, asked.addr, &(value as u32))?,
            _ => write_user(linux, asked.addr, &value)?,
        }
        Ok(0)
    }

    fn set(&self, asked: &DeviceAttr) -> Result<u64, Errno> {
        let attribute = self.attribute(asked)?;
        let value = self.read_value(asked.addr, attribute.bytes())?;
        let was_made = self.interrupts().vgic().is_some();
        let concerned: VcpuSet = self.with(Some(attribute), |device, machine| {
            device.set(attribute, value, machine)
        })?;
        self.interrupts().tell(concerned);
        if let Some(vgic) = self.interrupts().vgic()
            && !was_made
        {
            self.interrupts().route_straight(vgic.interrupts());
        }
        Ok(0)
    }
}

impl<L: Linux> Descriptor for Device<L> {
    fn ioctl(self: Arc<Self>, command: u32, argument: u64) -> Result<u64, Errno> {
        self.vm.check_caller()?;
        if !matches!(command, SET_DEVICE_ATTR | GET_DEVICE_ATTR | HAS_DEVICE_ATTR) {
            return Err(Errno::NOTTY);
        }
        let asked: DeviceAttr = read_user(self.vm.linux(), argument)?;
        match command {
            SET_DEVICE_ATTR => self.set(&asked),
            GET_DEVICE_ATTR => self.get(&asked),
            _ => self
                .with(None, |device, machine| {
                    device.has(asked.group, asked.attr, machine)
                })
                .map(|()| 0),
        }
    }
}
