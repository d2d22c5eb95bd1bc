//! Where things lie in a guest's address space, and which interrupts they have.
//!
//! ```text
//! 0x0800_0000  interrupt controller: distributor, then a redistributor for each CPU
//! 0x0900_0000  serial port
//! 0x0a00_0000  virtio devices, a page each: a guest allows its host to emulate pages one by one
//! 0x4000_0000  RAM: kernel, device tree, initramfs, …, bounce memory at the end
//! ```
//!
//! Nothing that is emulated lies in RAM: an access to a page there that is not backed is never taken for MMIO.

use anyhow::{Result, ensure};

/// Size of a page, the unit of memory between host and guest.
pub const PAGE: u64 = 4096;

/// What kernels and device trees are aligned to.
pub const BLOCK: u64 = 2 << 20;

/// The interrupt controller's distributor.
pub const DISTRIBUTOR: u64 = 0x0800_0000;
/// Size of the distributor's registers.
pub const DISTRIBUTOR_SIZE: u64 = 0x1_0000;
/// The first CPU's redistributor; the others follow.
pub const REDISTRIBUTORS: u64 = DISTRIBUTOR + DISTRIBUTOR_SIZE;
/// Size of the registers of one redistributor.
pub const REDISTRIBUTOR_SIZE: u64 = 0x2_0000;

/// The serial port.
pub const SERIAL: u64 = 0x0900_0000;
/// The shared peripheral interrupt of the serial port.
pub const SERIAL_INTERRUPT: u32 = 0;

/// The first virtio device.
pub const VIRTIO: u64 = 0x0a00_0000;
/// How many virtio devices there can be.
pub const VIRTIO_DEVICES: usize = 16;

/// How many interrupts the controller has, private ones (32) included.
pub const INTERRUPTS: u32 = 64;

/// How many CPUs fit between the distributor and the serial port, and into Freehold's VMs.
pub const MAX_CPUS: u32 = 64;

/// The first byte of RAM.
pub const RAM: u64 = 0x4000_0000;

/// The address of virtio device `index`.
#[must_use]
pub const fn virtio(index: usize) -> u64 {
    VIRTIO + index as u64 * PAGE
}

/// The shared peripheral interrupt of virtio device `index`.
#[must_use]
pub const fn virtio_interrupt(index: usize) -> u32 {
    SERIAL_INTERRUPT + 1 + index as u32
}

/// The affinity of CPU `index`, as MPIDR_EL1 has it: KVM and Freehold put 16 CPUs into a cluster.
#[must_use]
pub const fn affinity(index: u32) -> u64 {
    ((index >> 4) << 8 | index & 0xf) as u64
}

/// A range of the guest's address space.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Range {
    /// The first byte.
    pub start: u64,
    /// The number of bytes.
    pub size: u64,
}

impl Range {
    /// The first byte behind it.
    #[must_use]
    pub const fn end(self) -> u64 {
        self.start + self.size
    }
}

/// Where the parts of a guest lie in its RAM.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Placement {
    /// The whole RAM.
    pub ram: Range,
    /// The kernel, with the memory behind it that it takes before it looks at the device tree.
    pub kernel: Range,
    /// Room for the device tree.
    pub tree: Range,
    /// The initramfs, perhaps empty.
    pub initrd: Range,
    /// Memory that is shared with the host, if there is any.
    pub bounce: Option<Range>,
}

impl Placement {
    /// Places a kernel that takes `kernel` bytes, an initramfs of `initrd` bytes and `bounce` bytes of bounce memory
    /// in `ram` bytes.
    ///
    /// # Errors
    /// If they do not fit, or `ram` or `bounce` is not in whole blocks.
    pub fn new(ram: u64, kernel: u64, initrd: u64, bounce: u64) -> Result<Self> {
        ensure!(
            ram > 0 && ram.is_multiple_of(BLOCK) && bounce.is_multiple_of(BLOCK),
            "memory comes in units of 2 MiB"
        );
        let fits = || {
            let tree = RAM.checked_add(kernel.checked_next_multiple_of(BLOCK)?)?;
            let start = tree.checked_add(BLOCK)?;
            let end = RAM.checked_add(ram)?.checked_sub(bounce)?;
            let used = start.checked_add(initrd.checked_next_multiple_of(PAGE)?)?;
            (used <= end).then_some((tree, start, end))
        };
        let Some((tree, start, end)) = fits() else {
            anyhow::bail!(
                "{} MiB of memory are too little for a kernel of {kernel} bytes, an initramfs of {initrd} bytes and {} \
                 MiB of bounce memory",
                ram >> 20,
                bounce >> 20
            );
        };
        Ok(Self {
            ram: Range {
                start: RAM,
                size: ram,
            },
            kernel: Range {
                start: RAM,
                size: kernel,
            },
            tree: Range {
                start: tree,
                size: BLOCK,
            },
            initrd: Range { start, size: initrd },
            bounce: (bounce > 0).then_some(Range {
                start: end,
                size: bounce,
            }),
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const MIB: u64 = 1 << 20;

    #[test]
    fn parts_follow_one_another_and_bounce_memory_is_last() {
        let placement = Placement::new(64 * MIB, 5 * MIB + 1, 3, 8 * MIB).unwrap();
        assert_eq!(placement.tree.start, RAM + 6 * MIB);
        assert_eq!(placement.initrd.start, RAM + 8 * MIB);
        assert_eq!(placement.initrd.size, 3);
        assert_eq!(placement.bounce.unwrap().end(), placement.ram.end());
        assert_eq!(placement.bounce.unwrap().start, RAM + 56 * MIB);
    }

    #[test]
    fn what_does_not_fit_is_refused() {
        assert!(Placement::new(16 * MIB, 2 * MIB, 4 * MIB, 8 * MIB).is_ok());
        assert!(Placement::new(16 * MIB, 2 * MIB, 4 * MIB + 1, 8 * MIB).is_err());
        assert!(Placement::new(16 * MIB, 1, 1, 32 * MIB).is_err());
        assert!(Placement::new(16 * MIB, u64::MAX, u64::MAX, 0).is_err());
        assert!(Placement::new(0, 0, 0, 0).is_err());
        assert!(Placement::new(MIB, 0, 0, 0).is_err());
    }

    #[test]
    fn devices_do_not_overlap() {
        assert!(REDISTRIBUTORS + u64::from(MAX_CPUS) * REDISTRIBUTOR_SIZE <= SERIAL);
        assert!(virtio(VIRTIO_DEVICES) <= RAM);
        assert!(virtio_interrupt(VIRTIO_DEVICES) + 32 <= INTERRUPTS);
        assert_eq!(affinity(17), 0x101);
    }
}
