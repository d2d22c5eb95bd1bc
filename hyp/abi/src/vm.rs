//! VMs and vCPUs, as the host names and configures them.

use num_enum::{IntoPrimitive, TryFromPrimitive};

/// How many VMs there can be at once: slots 1 to 255. A VM's slot is its VMID; VMID 0 is the host's.
pub const MAX_VMS: usize = 255;

/// How many vCPUs a VM can have.
pub const MAX_VCPUS: usize = 64;

/// How many ranges of memory a VM can declare.
pub const MAX_MEMORY_RANGES: usize = 8;

/// How many pages [`crate::VmCall::TopUp`] moves at least, whatever waits meanwhile.
pub const TOP_UP_STEP: u64 = 64;

/// The fewest and the most bits that a guest's IPAs can have.
pub const IPA_BITS: core::ops::RangeInclusive<u64> = 32..=48;

/// The affinity of a vCPU, packed: Aff3 (31:24) to Aff0 (7:0). Sixteen of them have the same Aff1, because that is how many
/// a list of targets in ICC_SGI1R_EL1 can name (IHI 0069, 12.1).
#[must_use]
#[inline]
pub const fn affinity_of(vcpu: usize) -> u32 {
    ((vcpu >> 4) << 8 | vcpu & 0xf) as u32
}

/// The index of the vCPU that has an affinity, packed. `None` if no VM can have one; whether a VM has it is another question.
#[must_use]
#[inline]
pub const fn vcpu_at(affinity: u32) -> Option<usize> {
    let vcpu = (affinity >> 8 << 4 | affinity & 0xf) as usize;
    if affinity & 0xf0 == 0 && vcpu < MAX_VCPUS {
        Some(vcpu)
    } else {
        None
    }
}

/// Names a VM: its slot and a generation, which tells it from every VM that had the slot before and from what it was
/// called before it was renamed. A handle that arrives in a register is an allegation.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct VmHandle {
    /// The slot, which is also the VMID: 1 to 255.
    pub slot: u8,
    /// The generation; never 0.
    pub generation: u32,
}

impl VmHandle {
    /// The handle in one register: generation in bits 39:8, slot in bits 7:0, all else zero.
    #[must_use]
    #[inline]
    pub const fn to_register(self) -> u64 {
        (self.generation as u64) << 8 | self.slot as u64
    }

    /// The handle that a register alleges; `None` if no handle looks like that.
    #[must_use]
    #[inline]
    pub const fn from_register(value: u64) -> Option<Self> {
        let slot = value as u8;
        let generation = (value >> 8) as u32;
        if value >> 40 != 0 || slot == 0 || generation == 0 {
            return None;
        }
        Some(Self { slot, generation })
    }
}

bitflags::bitflags! {
    /// What kind of VM is created.
    #[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
    pub struct VmFlags: u64 {
        /// Its memory is donated, and the host can not read it or its registers.
        const PROTECTED = 1 << 0;
        /// The MMIO guard is in force from launch, not only from the guest's first MMIO_GUARD call.
        const GUARD_REQUIRED = 1 << 1;
    }
}

bitflags::bitflags! {
    /// What a guest that is not protected may do with a page that the host shares with it.
    #[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
    pub struct Permissions: u64 {
        /// Loads.
        const READ = 1 << 0;
        /// Stores.
        const WRITE = 1 << 1;
        /// Instruction fetches, which also need `READ`.
        const EXECUTE = 1 << 2;
    }
}

/// A figure of one VM that [`crate::VmCall::Statistics`] answers.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, IntoPrimitive, TryFromPrimitive)]
#[repr(u64)]
pub enum VmStatistic {
    /// Frames that the VM owns and nobody else can reach.
    FramesPrivate = 0,
    /// Frames that the VM owns and shares with the host.
    FramesShared = 1,
    /// Frames of the host that the VM borrows.
    FramesBorrowed = 2,
    /// Pages that wait in the VM's own reserve for its tables.
    ReservePages = 3,
    /// Pages of EL2's that the VM takes in all: its state, its vCPUs', its tables and its reserve.
    PagesTotal = 4,
    /// vCPUs that were created.
    Vcpus = 5,
    /// Pages that the VM has given up since it was created.
    Relinquished = 6,
    /// Pages that the host has taken from it by force.
    Lost = 7,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_handle_survives_its_register() {
        for handle in [
            VmHandle {
                slot: 1,
                generation: 1,
            },
            VmHandle {
                slot: 255,
                generation: u32::MAX,
            },
        ] {
            assert_eq!(VmHandle::from_register(handle.to_register()), Some(handle));
        }
    }

    #[test]
    fn vcpus_are_named_by_their_affinity() {
        let affinities = [0, 15, 16, 63].map(affinity_of);
        assert_eq!(affinities, [0, 0xf, 0x100, 0x30f]);
        for vcpu in 0..MAX_VCPUS {
            assert_eq!(vcpu_at(affinity_of(vcpu)), Some(vcpu));
        }
        for affinity in [0x10, 0x400, 0x1000, 0x1_0000, 1 << 31, u32::MAX] {
            assert_eq!(vcpu_at(affinity), None, "{affinity:#x}");
        }
    }

    #[test]
    fn what_is_no_handle_is_none() {
        for value in [0, 1, 0x100, 1 << 40 | 0x101, u64::MAX] {
            assert_eq!(VmHandle::from_register(value), None, "{value:#x}");
        }
    }
}
