//! KVM's device `KVM_DEV_TYPE_ARM_VGIC_V3`: how user space makes a controller, and saves and restores it.
//!
//! Semantics and errors are those of Linux's Documentation/virt/kvm/devices/arm-vgic-v3.rst. What passes is plain
//! numbers: the caller copies [`Attribute::bytes`] bytes from user space and to it, and answers EFAULT itself. It calls
//! from one thread at a time, as KVM does under a mutex.

mod errno;
mod init;
mod placement;
mod sysregs;

pub use errno::Errno;
pub use placement::{Layout, Located};
pub use sysregs::{CpuInterface, SystemRegister};

use super::frames::Frame;
use super::user::{LATEST_REVISION, checked_revision};
use super::{InterfaceShape, NoVgic, PRIVATE, VcpuSet, Vgic, VgicConfig};
use crate::sync::SpinMutex;
use alloc::vec::Vec;
use hyp_abi::vm::{MAX_VCPUS, vcpu_at};
use init::has_register;
use placement::Placement;
use spin::Once;

/// How many interrupts there are if user space says nothing.
const DEFAULT_INTERRUPTS: u32 = 256;
/// The maintenance interrupt that nested guests are shown, if user space says nothing.
const DEFAULT_MAINTENANCE: u32 = 25;
/// What an address reads as that is not set.
const NOT_SET: u64 = u64::MAX;

/// An attribute, by its group and number.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Attribute {
    /// `KVM_DEV_ARM_VGIC_GRP_ADDR`, `KVM_VGIC_V3_ADDR_TYPE_DIST`: an address.
    Distributor,
    /// `KVM_VGIC_V3_ADDR_TYPE_REDIST`: the address of all redistributors.
    Redistributors,
    /// `KVM_VGIC_V3_ADDR_TYPE_REDIST_REGION`: count, address and index. To be read, its index is passed.
    RedistributorRegion,
    /// `KVM_DEV_ARM_VGIC_GRP_DIST_REGS`, `KVM_DEV_ARM_VGIC_GRP_REDIST_REGS`: a register.
    Register {
        /// Of which frame.
        frame: Frame,
        /// Bytes from its start.
        offset: u32,
    },
    /// `KVM_DEV_ARM_VGIC_GRP_NR_IRQS`: how many interrupts there are.
    Interrupts,
    /// `KVM_DEV_ARM_VGIC_GRP_CTRL`, `KVM_DEV_ARM_VGIC_CTRL_INIT`: makes the controller.
    Init,
    /// `KVM_DEV_ARM_VGIC_SAVE_PENDING_TABLES`: saves what LPIs pend.
    SavePendingTables,
    /// `KVM_DEV_ARM_VGIC_GRP_CPU_SYSREGS`: a register of a CPU interface.
    SystemRegister {
        /// The vCPU.
        vcpu: usize,
        /// The register.
        register: SystemRegister,
    },
    /// `KVM_DEV_ARM_VGIC_GRP_LEVEL_INFO`, `VGIC_LEVEL_INFO_LINE_LEVEL`: 32 lines.
    Lines {
        /// The vCPU, for its private ones.
        vcpu: usize,
        /// The first interrupt.
        first: u32,
    },
    /// `KVM_DEV_ARM_VGIC_GRP_MAINT_IRQ`: which PPI a nested guest is shown for maintenance. There are none; it is kept.
    Maintenance,
}

impl Attribute {
    /// How many bytes user space passes or gets: 4, 8, or none.
    #[must_use]
    pub const fn bytes(self) -> usize {
        match self {
            Self::Distributor
            | Self::Redistributors
            | Self::RedistributorRegion
            | Self::SystemRegister { .. } => 8,
            Self::Register { .. } | Self::Interrupts | Self::Lines { .. } | Self::Maintenance => 4,
            Self::Init | Self::SavePendingTables => 0,
        }
    }

    /// Whether no vCPU may run meanwhile (EBUSY).
    #[must_use]
    pub const fn needs_rest(self) -> bool {
        matches!(
            self,
            Self::Register { .. }
                | Self::SavePendingTables
                | Self::SystemRegister { .. }
                | Self::Lines { .. }
        )
    }

    /// Whether reading it takes a value from user space.
    #[must_use]
    pub const fn is_read_by_index(self) -> bool {
        matches!(self, Self::RedistributorRegion)
    }
}

/// What the VM is, at the time of a call.
pub trait Machine {
    /// Keeps all vCPUs from running until the call is over. `false` if one runs, or is about to.
    fn rest(&mut self) -> bool;

    /// The CPU interface of a vCPU at rest. `None` if user space is not to see it: the VM is protected.
    fn cpu_interface(&mut self, vcpu: usize) -> Option<&mut dyn CpuInterface>;
}

#[derive(Debug)]
struct Setup {
    /// What user space said, or what the controller was made with.
    interrupts: Option<u32>,
    revision: u32,
    maintenance: u32,
    placement: Placement,
}

/// KVM's device, and the controller that it becomes.
#[derive(Debug)]
pub struct VgicDevice {
    interface: InterfaceShape,
    setup: SpinMutex<Setup>,
    vgic: Once<Vgic>,
    layout: Once<Layout>,
}

impl VgicDevice {
    /// A device for a VM whose guest-physical addresses have `ipa_bits` bits.
    #[must_use]
    pub fn new(interface: InterfaceShape, ipa_bits: u32) -> Self {
        Self {
            interface,
            setup: SpinMutex::new(Setup {
                interrupts: None,
                revision: LATEST_REVISION,
                maintenance: DEFAULT_MAINTENANCE,
                placement: Placement::new(ipa_bits),
            }),
            vgic: Once::new(),
            layout: Once::new(),
        }
    }

    /// The controller, once it is made.
    #[must_use]
    pub fn vgic(&self) -> Option<&Vgic> {
        self.vgic.get()
    }

    /// Tells of a vCPU. The order counts: it is that of the redistributors.
    ///
    /// # Errors
    /// EBUSY once the controller is made; EINVAL if there is no place for its redistributor, or no such vCPU can be;
    /// EEXIST if it is known.
    pub fn add_vcpu(&self, vcpu: usize) -> Result<(), Errno> {
        if self.vgic.is_completed() {
            return Err(Errno::Busy);
        }
        if vcpu >= MAX_VCPUS {
            return Err(Errno::Invalid);
        }
        self.setup.lock().placement.add_vcpu(vcpu)
    }

    /// Forgets the vCPU that was added last, since it is not made after all. Nobody has set up the device since.
    pub fn remove_vcpu(&self, vcpu: usize) {
        self.setup.lock().placement.remove_vcpu(vcpu);
    }

    /// Where everything is, from the first run on: to be called before each, and cheap but for the first time.
    ///
    /// # Errors
    /// ENXIO if an address was not set, EINVAL if parts overlap, EBUSY if the controller was not made.
    pub fn start(&self) -> Result<(&Vgic, &Layout), Errno> {
        if let (Some(vgic), Some(layout)) = (self.vgic.get(), self.layout.get()) {
            return Ok((vgic, layout));
        }
        // Nothing is allocated while the lock is held.
        let room = Vec::with_capacity(MAX_VCPUS);
        let layout = self.setup.lock().placement.layout(room)?;
        let vgic = self.vgic.get().ok_or(Errno::Busy)?;
        Ok((vgic, self.layout.call_once(|| layout)))
    }

    /// The attribute with a group and a number (`struct kvm_device_attr`'s `group` and `attr`).
    ///
    /// # Errors
    /// ENXIO if there is none; EINVAL if it is of no vCPU of the VM, or if it is no line level, or of lines that do not
    /// begin at a multiple of 32.
    pub fn attribute(&self, group: u32, number: u64) -> Result<Attribute, Errno> {
        // The affinity in the number has Aff3 to Aff0 in this order, as `vcpu_at` takes them.
        let vcpu = || {
            let known = self.setup.lock().placement.vcpus();
            vcpu_at((number >> 32) as u32)
                .filter(|vcpu| known.contains(*vcpu))
                .ok_or(Errno::Invalid)
        };
        let offset = number as u32;
        Ok(match (group, number) {
            (0, 2) => Attribute::Distributor,
            (0, 3) => Attribute::Redistributors,
            (0, 5) => Attribute::RedistributorRegion,
            (1, _) => {
                if self.setup.lock().placement.vcpus().is_empty() {
                    return Err(Errno::Invalid);
                }
                Attribute::Register {
                    frame: Frame::Distributor,
                    offset,
                }
            }
            (3, _) => Attribute::Interrupts,
            (4, 0) => Attribute::Init,
            (4, 3) => Attribute::SavePendingTables,
            (5, _) => Attribute::Register {
                frame: Frame::Redistributor(vcpu()?),
                offset,
            },
            (6, _) => Attribute::SystemRegister {
                vcpu: vcpu()?,
                register: SystemRegister::decode(number as u16).ok_or(Errno::NoSuchAddress)?,
            },
            (7, _) => {
                let vcpu = vcpu()?;
                let (first, info) = (offset & 0x3ff, offset >> 10);
                if info != 0 || !first.is_multiple_of(32) {
                    return Err(Errno::Invalid);
                }
                Attribute::Lines { vcpu, first }
            }
            (9, _) => Attribute::Maintenance,
            _ => return Err(Errno::NoSuchAddress),
        })
    }

    /// Whether there is an attribute (`KVM_HAS_DEVICE_ATTR`).
    ///
    /// # Errors
    /// ENXIO if not; EINVAL for a vCPU that is not there.
    pub fn has(&self, group: u32, number: u64, machine: &mut dyn Machine) -> Result<(), Errno> {
        if group == 7 {
            // Only what is asked for counts here, not of which lines.
            return if (number as u32) >> 10 == 0 {
                Ok(())
            } else {
                Err(Errno::NoSuchAddress)
            };
        }
        let exists = match self.attribute(group, number)? {
            Attribute::Register { frame, offset } => {
                let interrupts = self.interrupts() as usize;
                has_register(frame, offset, interrupts)
            }
            Attribute::SystemRegister { vcpu, register } => {
                register.exists(&self.interface) && machine.cpu_interface(vcpu).is_some()
            }
            _ => true,
        };
        exists.then_some(()).ok_or(Errno::NoSuchAddress)
    }

    /// Reads an attribute (`KVM_GET_DEVICE_ATTR`). `index` is what user space passed, if it passed something.
    ///
    /// # Errors
    /// As documented for the attribute.
    pub fn get(&self, attribute: Attribute, index: u64, machine: &mut dyn Machine) -> Result<u64, Errno> {
        if attribute.needs_rest() && attribute != Attribute::SavePendingTables && !machine.rest() {
            return Err(Errno::Busy);
        }
        match attribute {
            Attribute::Distributor => Ok(self.setup.lock().placement.distributor().unwrap_or(NOT_SET)),
            Attribute::Redistributors => Ok(self.setup.lock().placement.first_base().unwrap_or(NOT_SET)),
            Attribute::RedistributorRegion => self.setup.lock().placement.region(index),
            Attribute::Interrupts => Ok(self.interrupts().into()),
            Attribute::Maintenance => Ok(self.setup.lock().maintenance.into()),
            Attribute::Register { frame, offset } => Ok(self.register(frame, offset)?.into()),
            Attribute::SystemRegister { vcpu, register } => {
                self.vgic.get().ok_or(Errno::Busy)?;
                let interface = machine.cpu_interface(vcpu).ok_or(Errno::NoSuchAddress)?;
                register.read(&self.interface, interface)
            }
            Attribute::Lines { vcpu, first } => {
                let vgic = self.vgic.get().ok_or(Errno::Busy)?;
                Ok(vgic.lines(vcpu, (first / 32) as usize).into())
            }
            Attribute::Init | Attribute::SavePendingTables => Err(Errno::NoSuchAddress),
        }
    }

    /// Writes an attribute (`KVM_SET_DEVICE_ATTR`), or does what it stands for. Returns the vCPUs that must look.
    ///
    /// # Errors
    /// As documented for the attribute. Nothing was done.
    pub fn set(&self, attribute: Attribute, value: u64, machine: &mut dyn Machine) -> Result<VcpuSet, Errno> {
        if attribute.needs_rest() && !machine.rest() {
            return Err(Errno::Busy);
        }
        let mut kicks = VcpuSet::EMPTY;
        match attribute {
            Attribute::Distributor => self.setup.lock().placement.set_distributor(value)?,
            Attribute::Redistributors => {
                self.setup.lock().placement.set_all(value)?;
                self.tell_last();
            }
            Attribute::RedistributorRegion => {
                self.setup.lock().placement.add_region(value)?;
                self.tell_last();
            }
            Attribute::Interrupts => self.set_interrupts(value as u32)?,
            Attribute::Init => self.init()?,
            // There are no LPIs, so nothing is to be saved.
            Attribute::SavePendingTables => {
                self.vgic.get().ok_or(Errno::NoSuchAddress)?;
            }
            Attribute::Maintenance => {
                if self.vgic.is_completed() {
                    return Err(Errno::Busy);
                }
                let intid = value as u32;
                if !(16..PRIVATE).contains(&intid) {
                    return Err(Errno::Invalid);
                }
                self.setup.lock().maintenance = intid;
            }
            Attribute::Register { frame, offset } => {
                kicks = self.set_register(frame, offset, value as u32)?;
            }
            Attribute::SystemRegister { vcpu, register } => {
                self.vgic.get().ok_or(Errno::Busy)?;
                let interface = machine.cpu_interface(vcpu).ok_or(Errno::NoSuchAddress)?;
                register.write(&self.interface, interface, value)?;
            }
            Attribute::Lines { vcpu, first } => {
                let vgic = self.vgic.get().ok_or(Errno::Busy)?;
                kicks = vgic.set_lines(vcpu, (first / 32) as usize, value as u32);
            }
        }
        Ok(kicks)
    }
}
