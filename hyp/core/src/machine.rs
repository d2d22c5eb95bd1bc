//! The machine as the device tree and the ID registers describe it, and what EL2 takes of it at boot.
//!
//! All of it is pure: bytes and numbers in, decisions out. The image reads the registers and the memory.
//!
//! - [`describe()`]: reads the device tree into a [`MachineDescription`], or says why Freehold cannot run there.
//! - [`cpu`]: judges a CPU by its ID registers, and lists what the rest needs to know of it.
//! - [`plan`]: lays out EL2's memory behind the image, and finds room for the host's tree.
//! - [`tree`]: writes the tree that the host gets.
//! - [`input_size`]: how wide the host's stage 2 must be.
//! - [`range`], [`refusal`]: the words all of them use.

pub mod cpu;
mod describe;
pub mod input_size;
pub mod plan;
pub mod range;
pub mod refusal;
pub mod tree;
mod walk;

#[cfg(test)]
mod fixture;

pub use cpu::{CpuFeatures, CpuIdentity, judge_cpu};
pub use describe::describe;
pub use input_size::InputSize;
pub use plan::{BootPlan, Wanted, find_hole};
pub use range::{MemoryMap, PhysRange};
pub use refusal::{Occupant, RefusalReason};
pub use walk::{MAX_DEPTH, MAX_TREE_SIZE, TREE_SIZE_PREFIX, tree_size};

use arrayvec::ArrayVec;
use core::fmt;

/// How many CPUs a machine may have.
pub const MAX_CPUS: usize = 512;

/// How many reserved ranges a machine may have.
pub const MAX_RESERVATIONS: usize = 32;

/// How many redistributor regions, and how many ITSs, a machine may have.
pub const MAX_GIC_FRAMES: usize = 8;

/// How many fw_cfg devices a machine may have.
pub const MAX_FW_CFGS: usize = 2;

/// How many kinds of trusted DMA master are listed by name.
pub const MAX_DMA_MASTER_KINDS: usize = 24;

/// A machine that Freehold can run on, as its device tree describes it. Strings are the tree's.
#[derive(Clone, Debug, PartialEq)]
pub struct MachineDescription<'a> {
    /// RAM: whole frames, sorted, merged.
    pub memory: MemoryMap,
    /// What the firmware keeps for itself or others, from `/reserved-memory` and the header's block.
    pub reservations: ArrayVec<Reservation, MAX_RESERVATIONS>,
    /// What the firmware says of its PSCI; always reached by SMC.
    pub psci: PsciVersion,
    /// The interrupt controller, a GICv3 or later.
    pub gic: Gic,
    /// The registers of the console's PL011, if there is one.
    pub uart: Option<PhysRange>,
    /// The CPUs, in the tree's order; at least one, none twice.
    pub cpus: ArrayVec<Affinity, MAX_CPUS>,
    /// The interrupts of the architected timer.
    pub timer: Timer,
    /// The registers of QEMU's fw_cfg devices, whose DMA writes anywhere: EL2 keeps them.
    pub fw_cfgs: ArrayVec<PhysRange, MAX_FW_CFGS>,
    /// What else may master memory, untranslated: trusted, for want of an SMMU of EL2's own.
    pub dma_masters: DmaMasters<'a>,
    /// Whether the machine has an SMMU (which the host drives, and which is a DMA master itself).
    pub has_smmu: bool,
    /// The host's kernel.
    pub kernel: Module<'a>,
    /// The host's ramdisk.
    pub ramdisk: Option<Module<'a>>,
    /// The bootloader's entropy for the kernel's random number generator. EL2 consumes and replaces it.
    pub rng_seed: Option<&'a [u8]>,
    /// The bootloader's entropy for the kernel's place in memory. EL2 replaces it.
    pub kaslr_seed: Option<&'a [u8]>,
    /// The address after the last register or bus window that the tree names below 2^48; 0 if it names none.
    pub device_end: u64,
}

impl MachineDescription<'_> {
    /// The CPU's place in [`MachineDescription::cpus`], by its MPIDR_EL1.
    #[must_use]
    pub fn cpu_index(&self, mpidr: u64) -> Option<usize> {
        let wanted = Affinity::from_mpidr(mpidr);
        self.cpus.iter().position(|cpu| *cpu == wanted)
    }
}

/// A range of memory that somebody has reserved.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Reservation {
    /// The bytes.
    pub range: PhysRange,
    /// Whether not even the kernel may map them: they are the firmware's, nobody's to own.
    pub no_map: bool,
}

/// Which PSCI the firmware claims (DEN0022). The exact version is PSCI_VERSION's to tell.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum PsciVersion {
    /// PSCI 0.2.
    V0_2,
    /// PSCI 1.0 or later.
    V1_0,
}

/// The frames of a GICv3 or GICv4 (IHI 0069).
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Gic {
    /// The distributor's registers.
    pub distributor: PhysRange,
    /// The regions of redistributor frames; at least one.
    pub redistributors: ArrayVec<PhysRange, MAX_GIC_FRAMES>,
    /// Bytes from one redistributor to the next, if the tree says that it is unusual.
    pub redistributor_stride: Option<u64>,
    /// The registers of the interrupt translation services, which master memory: EL2 keeps them.
    pub its: ArrayVec<PhysRange, MAX_GIC_FRAMES>,
}

/// The interrupts of the architected timer, as GIC INTIDs (PPIs: 16 to 31).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Timer {
    /// The EL1 physical timer's, non-secure: what the host is left with.
    pub physical: u32,
    /// The EL1 virtual timer's: what guests get.
    pub virtual_el1: Option<u32>,
    /// The EL2 physical timer's: EL2's own.
    pub hypervisor: Option<u32>,
}

/// A CPU, by its affinity fields, packed as in GICR_TYPER: Aff3 in bits 31:24 down to Aff0 in bits 7:0.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Affinity(u32);

impl Affinity {
    /// The bits of MPIDR_EL1 that are affinity (Arm ARM DDI 0487, D24.2: Aff3 in 39:32, Aff2 to Aff0 in 23:0).
    pub const MPIDR_MASK: u64 = 0xff_00ff_ffff;

    /// The affinity in a value of MPIDR_EL1, or in a CPU number of PSCI.
    #[must_use]
    pub const fn from_mpidr(mpidr: u64) -> Self {
        Self((((mpidr >> 8) & 0xff00_0000) | (mpidr & 0xff_ffff)) as u32)
    }

    /// The CPU as PSCI and MPIDR_EL1 write it.
    #[must_use]
    pub const fn mpidr(self) -> u64 {
        let packed = self.0 as u64;
        ((packed & 0xff00_0000) << 8) | (packed & 0xff_ffff)
    }

    /// The CPU as GICR_TYPER writes it in its bits 63:32.
    #[must_use]
    pub const fn packed(self) -> u32 {
        self.0
    }
}

impl fmt::Debug for Affinity {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "mpidr:{:#x}", self.mpidr())
    }
}

/// A file that the loader put in memory for the host.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Module<'a> {
    /// Its bytes. A kernel needs more memory than its file: its Image header tells.
    pub range: PhysRange,
    /// Its command line, if it has one.
    pub bootargs: Option<&'a str>,
}

/// The devices that may read and write memory behind EL2's back, counted by kind.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct DmaMasters<'a> {
    /// The kinds, in the order in which the tree has them.
    pub kinds: ArrayVec<DmaMasterKind<'a>, MAX_DMA_MASTER_KINDS>,
    /// How many devices are of kinds that the list has no room for.
    pub unlisted: usize,
}

/// Devices of one kind that may master memory.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct DmaMasterKind<'a> {
    /// The first string of their `compatible`; empty if they have none.
    pub compatible: &'a str,
    /// The name of the first of them.
    pub first: &'a str,
    /// How many there are.
    pub count: usize,
}

impl<'a> DmaMasters<'a> {
    /// Counts the device `name`.
    fn add(&mut self, compatible: &'a str, name: &'a str) {
        if let Some(kind) = self.kinds.iter_mut().find(|kind| kind.compatible == compatible) {
            kind.count = kind.count.saturating_add(1);
        } else if self
            .kinds
            .try_push(DmaMasterKind {
                compatible,
                first: name,
                count: 1,
            })
            .is_err()
        {
            self.unlisted = self.unlisted.saturating_add(1);
        }
    }
}
