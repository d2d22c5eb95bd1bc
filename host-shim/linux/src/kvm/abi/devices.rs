//! Devices, interrupts, and eventfds.

use super::{READ, WRITE, command, with};
use zerocopy::{FromBytes, Immutable, IntoBytes};

/// `KVM_CREATE_IRQCHIP`: makes the interrupt controller that a VM has if its creator does not say which.
pub const CREATE_IRQCHIP: u32 = command(0x60);
/// `KVM_IRQ_LINE`. Argument: an [`IrqLevel`].
pub const IRQ_LINE: u32 = with::<IrqLevel>(WRITE, 0x61);
/// `KVM_IRQ_LINE_STATUS`. Argument: an [`IrqLevel`], which comes back as it is.
pub const IRQ_LINE_STATUS: u32 = with::<IrqLevel>(READ | WRITE, 0x67);
/// `KVM_SET_GSI_ROUTING`. Argument: an [`IrqRouting`], and its entries.
pub const SET_GSI_ROUTING: u32 = with::<IrqRouting>(WRITE, 0x6A);
/// `KVM_IRQFD`. Argument: an [`Irqfd`].
pub const IRQFD: u32 = with::<Irqfd>(WRITE, 0x76);
/// `KVM_IOEVENTFD`. Argument: an [`Ioeventfd`].
pub const IOEVENTFD: u32 = with::<Ioeventfd>(WRITE, 0x79);
/// `KVM_ENABLE_CAP`. Argument: an [`EnableCap`].
pub const ENABLE_CAP: u32 = with::<EnableCap>(WRITE, 0xA3);
/// `KVM_SIGNAL_MSI`. Argument: an [`Msi`].
pub const SIGNAL_MSI: u32 = with::<Msi>(WRITE, 0xA5);
/// `KVM_CREATE_DEVICE`. Argument: a [`CreateDevice`].
pub const CREATE_DEVICE: u32 = with::<CreateDevice>(READ | WRITE, 0xE0);
/// `KVM_SET_DEVICE_ATTR`. Argument: a [`DeviceAttr`].
pub const SET_DEVICE_ATTR: u32 = with::<DeviceAttr>(WRITE, 0xE1);
/// `KVM_GET_DEVICE_ATTR`. Argument: a [`DeviceAttr`].
pub const GET_DEVICE_ATTR: u32 = with::<DeviceAttr>(WRITE, 0xE2);
/// `KVM_HAS_DEVICE_ATTR`. Argument: a [`DeviceAttr`].
pub const HAS_DEVICE_ATTR: u32 = with::<DeviceAttr>(WRITE, 0xE3);

/// A line, and how it is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, FromBytes, IntoBytes, Immutable)]
#[repr(C)]
pub struct IrqLevel {
    /// Which: bits 15:0 of the vCPU's index in 31:28 and 23:16, the type in 27:24, the number in 15:0.
    pub irq: u32,
    /// 0 is low.
    pub level: u32,
}

/// The number is that of an SPI.
pub const IRQ_TYPE_SPI: u32 = 1;
/// The number is that of a vCPU's PPI.
pub const IRQ_TYPE_PPI: u32 = 2;

/// Where the lines of devices end.
#[derive(Clone, Copy, Debug, PartialEq, Eq, FromBytes, IntoBytes, Immutable)]
#[repr(C)]
pub struct IrqRouting {
    /// How many entries.
    pub nr: u32,
    /// None are defined.
    pub flags: u32,
}

/// Where a line ends.
#[derive(Clone, Copy, Debug, PartialEq, Eq, FromBytes, IntoBytes, Immutable)]
#[repr(C)]
pub struct IrqRoutingEntry {
    /// The line.
    pub gsi: u32,
    /// [`ROUTING_IRQCHIP`], [`ROUTING_MSI`].
    pub kind: u32,
    /// [`MSI_VALID_DEVID`].
    pub flags: u32,
    /// Not looked at.
    pub pad: u32,
    /// For an interrupt controller: which, and the pin. For a message: address (two), data, device.
    pub target: [u32; 8],
}

/// At a pin of an interrupt controller.
pub const ROUTING_IRQCHIP: u32 = 1;
/// In a message.
pub const ROUTING_MSI: u32 = 2;

/// An eventfd that is a line.
#[derive(Clone, Copy, Debug, PartialEq, Eq, FromBytes, IntoBytes, Immutable)]
#[repr(C)]
pub struct Irqfd {
    /// The eventfd.
    pub fd: u32,
    /// The line.
    pub gsi: u32,
    /// `KVM_IRQFD_FLAG_*`.
    pub flags: u32,
    /// The eventfd that is signalled when the guest has served the interrupt.
    pub resamplefd: u32,
    /// Not looked at.
    pub pad: [u8; 16],
}

/// It is no line any more.
pub const IRQFD_DEASSIGN: u32 = 1 << 0;
/// The line stays high until the guest has served the interrupt.
pub const IRQFD_RESAMPLE: u32 = 1 << 1;

/// An eventfd that is signalled when the guest stores somewhere.
#[derive(Clone, Copy, Debug, PartialEq, Eq, FromBytes, IntoBytes, Immutable)]
#[repr(C)]
pub struct Ioeventfd {
    /// What is stored, with [`IOEVENTFD_DATAMATCH`].
    pub datamatch: u64,
    /// Where.
    pub addr: u64,
    /// How many bytes; 0 for any number.
    pub len: u32,
    /// The eventfd.
    pub fd: i32,
    /// `KVM_IOEVENTFD_FLAG_*`.
    pub flags: u32,
    /// Not looked at.
    pub pad: [u8; 36],
}

/// Only if a value is stored.
pub const IOEVENTFD_DATAMATCH: u32 = 1 << 0;
/// By an instruction for ports, which Arm has not.
pub const IOEVENTFD_PIO: u32 = 1 << 1;
/// Not any more.
pub const IOEVENTFD_DEASSIGN: u32 = 1 << 2;
/// By a call that Arm has not.
pub const IOEVENTFD_VIRTIO_CCW: u32 = 1 << 3;

/// A capability to be turned on.
#[derive(Clone, Copy, Debug, PartialEq, Eq, FromBytes, IntoBytes, Immutable)]
#[repr(C)]
pub struct EnableCap {
    /// Which.
    pub cap: u32,
    /// None are defined.
    pub flags: u32,
    /// How.
    pub args: [u64; 4],
    /// Not looked at.
    pub pad: [u8; 64],
}

/// A message.
#[derive(Clone, Copy, Debug, PartialEq, Eq, FromBytes, IntoBytes, Immutable)]
#[repr(C)]
pub struct Msi {
    /// Where it goes, bits 31:0.
    pub address_lo: u32,
    /// Bits 63:32.
    pub address_hi: u32,
    /// What it says.
    pub data: u32,
    /// [`MSI_VALID_DEVID`].
    pub flags: u32,
    /// Who sends it.
    pub devid: u32,
    /// Not looked at.
    pub pad: [u8; 12],
}

/// It is said which device sends the message.
pub const MSI_VALID_DEVID: u32 = 1 << 0;

/// A device to be made.
#[derive(Clone, Copy, Debug, PartialEq, Eq, FromBytes, IntoBytes, Immutable)]
#[repr(C)]
pub struct CreateDevice {
    /// `KVM_DEV_TYPE_*`.
    pub kind: u32,
    /// Its descriptor is put here.
    pub fd: u32,
    /// [`CREATE_DEVICE_TEST`].
    pub flags: u32,
}

/// It is only asked whether there is such a device.
pub const CREATE_DEVICE_TEST: u32 = 1 << 0;
/// `KVM_DEV_TYPE_ARM_VGIC_V3`.
pub const DEV_TYPE_ARM_VGIC_V3: u32 = 7;

/// An attribute of a device.
#[derive(Clone, Copy, Debug, PartialEq, Eq, FromBytes, IntoBytes, Immutable)]
#[repr(C)]
pub struct DeviceAttr {
    /// None are defined.
    pub flags: u32,
    /// Its group.
    pub group: u32,
    /// Its number there.
    pub attr: u64,
    /// The caller's address of its value.
    pub addr: u64,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn commands_have_the_numbers_of_linux() {
        assert_eq!((CREATE_IRQCHIP, IRQ_LINE), (0xAE60, 0x4008_AE61));
        assert_eq!((IRQ_LINE_STATUS, SET_GSI_ROUTING), (0xC008_AE67, 0x4008_AE6A));
        assert_eq!((IRQFD, IOEVENTFD), (0x4020_AE76, 0x4040_AE79));
        assert_eq!((ENABLE_CAP, SIGNAL_MSI), (0x4068_AEA3, 0x4020_AEA5));
        assert_eq!((CREATE_DEVICE, SET_DEVICE_ATTR), (0xC00C_AEE0, 0x4018_AEE1));
        assert_eq!((GET_DEVICE_ATTR, HAS_DEVICE_ATTR), (0x4018_AEE2, 0x4018_AEE3));
        assert_eq!(size_of::<IrqRoutingEntry>(), 48);
    }
}
