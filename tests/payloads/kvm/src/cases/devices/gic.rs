//! The interrupt controller in the kernel, as a device with attributes.

use crate::device::{CREATE_DEVICE, Errno, Fd, GET_DEVICE_ATTR, HAS_DEVICE_ATTR, SET_DEVICE_ATTR};
use kvm_bindings::{kvm_create_device, kvm_device_attr};

/// The only kind of device.
pub(super) const VGIC_V3: u32 = 7;

/// Groups of attributes: registers of the distributor, of a redistributor, of a vCPU's interface.
pub(in crate::cases) const DISTRIBUTOR: u32 = 1;
pub(in crate::cases) const REDISTRIBUTOR: u32 = 5;
pub(in crate::cases) const INTERFACE: u32 = 6;
/// `ICC_PMR_EL1`.
pub(in crate::cases) const PRIORITY_MASK: u64 = 0xc230;
/// What there is of a vCPU's interface, in the order in which it is written: ICC_SRE_EL1, CTLR, PMR, BPR0, BPR1, AP0R0,
/// AP1R0, IGRPEN0, IGRPEN1.
pub(in crate::cases) const INTERFACE_REGISTERS: [u64; 9] = [
    0xc665, 0xc664, 0xc230, 0xc643, 0xc663, 0xc644, 0xc648, 0xc666, 0xc667,
];

/// Where the distributor and the redistributors are.
pub(super) const GICD: u64 = 0x0800_0000;
pub(super) const GICR: u64 = 0x080a_0000;

/// The interrupt controller of a VM.
#[derive(Debug)]
pub(in crate::cases) struct Gic(pub(in crate::cases) Fd);

impl Gic {
    pub(in crate::cases) fn of(vm: &Fd) -> Result<Self, Errno> {
        let mut asked = kvm_create_device {
            type_: VGIC_V3,
            fd: 0,
            flags: 0,
        };
        vm.make_in(CREATE_DEVICE, &mut asked, |asked| asked.fd).map(Self)
    }

    pub(super) fn pass(&self, command: u32, group: u32, attr: u64, address: u64) -> Result<(), Errno> {
        let mut asked = kvm_device_attr {
            flags: 0,
            group,
            attr,
            addr: address,
        };
        self.0.pass(command, &mut asked).map(drop)
    }

    pub(super) fn has(&self, group: u32, attr: u64) -> Result<(), Errno> {
        self.pass(HAS_DEVICE_ATTR, group, attr, 0)
    }

    pub(in crate::cases) fn set(&self, group: u32, attr: u64, value: u64) -> Result<(), Errno> {
        self.pass(SET_DEVICE_ATTR, group, attr, (&raw const value).addr() as u64)
    }

    /// The value of an attribute over ones.
    pub(in crate::cases) fn get(&self, group: u32, attr: u64) -> Result<u64, Errno> {
        let mut value = u64::MAX;
        self.pass(
            GET_DEVICE_ATTR,
            group,
            attr,
            (&raw mut value).expose_provenance() as u64,
        )?;
        Ok(value)
    }

    /// Puts it where guests look for it, and makes it.
    pub(in crate::cases) fn make(&self) -> Result<(), Errno> {
        self.set(0, 2, GICD)?;
        self.set(0, 3, GICR)?;
        self.set(4, 0, 0)
    }
}
