//! What a VM is.

use super::vcpu::VcpuSlot;
use crate::hardware::Hardware;
use crate::pgtable::{IpaSpan, Reserve, Stage2, Table};
use arrayvec::ArrayVec;
use hyp_abi::VmHandle;
use hyp_abi::vm::{MAX_MEMORY_RANGES, MAX_VCPUS};
use sha2::Sha256;

/// What was fixed when a VM was created.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct VmConfig {
    /// Whether the host can not see its memory and registers.
    pub protected: bool,
    /// Whether the MMIO guard is in force from launch.
    pub guard_required: bool,
    /// The most vCPUs that it may have.
    pub max_vcpus: u8,
    /// Bits of an IPA.
    pub ipa_bits: u32,
}

/// Where a VM is in its life.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Life {
    /// It is being filled.
    Created,
    /// It can run; its digest is final.
    Launched {
        /// The digest.
        digest: [u8; 32],
        /// Whether it has turned itself off, so that none of its vCPUs runs again.
        off: bool,
    },
    /// It is being taken apart; no vCPU runs again.
    Dying,
}

/// How many frames a VM has, and in what way.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct MemoryCounts {
    /// Private ones.
    pub private: u64,
    /// Its own that it shares with the host.
    pub shared: u64,
    /// The host's that it borrows, by mapping: a frame that is mapped twice counts twice.
    pub borrowed: u64,
    /// Frames on their way to it or from it, which a call is at work on.
    pub in_transit: u64,
    /// Given up, since it was created.
    pub relinquished: u64,
    /// Lost by force, since it was created.
    pub lost: u64,
}

impl MemoryCounts {
    /// How many frames keep the VM from going away.
    #[must_use]
    pub const fn left(&self) -> u64 {
        self.private + self.shared + self.borrowed + self.in_transit
    }
}

/// A VM. It lives in a page of EL2's, and is reached through the lock of its slot.
#[derive(Debug)]
pub struct Vm<H: Hardware> {
    /// Its name.
    pub handle: VmHandle,
    /// What was fixed when it was created.
    pub config: VmConfig,
    /// Where it is in its life.
    pub life: Life,
    /// Its stage-2 table.
    pub table: Table<Stage2, H::Geometry>,
    /// Pages for its table, and for what is split on its behalf.
    pub reserve: Reserve,
    /// How many frames it has.
    pub counts: MemoryCounts,
    /// Pages that its table takes, without the root: what the reserve gave and did not get back.
    pub table_pages: u64,
    /// The ranges of memory that it declared, in ascending order, apart from each other.
    pub ranges: ArrayVec<IpaSpan, MAX_MEMORY_RANGES>,
    /// The digest of the frames that were donated so far: of each, in their order, its gfn and the SHA-256 of its
    /// contents. See [`super::launch`].
    pub digest: Sha256,
    /// Whether its MMIO guard is in force.
    pub guard: bool,
    /// Its vCPUs.
    pub vcpus: [VcpuSlot<H>; MAX_VCPUS],
}

impl<H: Hardware> Vm<H> {
    /// The first slot's VMID as the table's regime has it.
    #[must_use]
    pub const fn vmid(&self) -> u16 {
        self.handle.slot as u16
    }

    /// Whether an IPA lies in memory that it declared.
    #[must_use]
    pub fn is_memory(&self, ipa: u64) -> bool {
        self.ranges
            .iter()
            .any(|range| ipa >= range.start().value() && ipa < range.end())
    }

    /// How many of its vCPUs a CPU has.
    #[must_use]
    pub fn running(&self) -> usize {
        self.vcpus
            .iter()
            .take(self.config.max_vcpus.into())
            .filter(|slot| matches!(slot, VcpuSlot::Running))
            .count()
    }
}
