//! Why Freehold will not run on a machine, in words that say what to do about it.

use super::range::PhysRange;
use core::fmt;
use dtoolkit::error::FdtParseError;
use thiserror::Error;

/// Why Freehold will not run here. The text is what the console shows; it names the remedy where there is one.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
pub enum RefusalReason {
    /// The CPU entered at another exception level.
    #[error(
        "entered at EL{0}, not EL2: let the firmware enter at EL2 (QEMU: -machine virt,virtualization=on)"
    )]
    NotEl2(u8),
    /// HCR_EL2.E2H cannot be 0 on this CPU.
    #[error("HCR_EL2.E2H is RES1 on this CPU and Freehold has no VHE layout yet: use a CPU with FEAT_E2H0")]
    E2hRes1,
    /// The CPU has no 4 KiB granule at stage 1.
    #[error("the CPU has no 4 KiB granule at stage 1: use one that has (ID_AA64MMFR0_EL1.TGran4)")]
    NoStage1Granule,
    /// The CPU has no 4 KiB granule at stage 2.
    #[error("the CPU has no 4 KiB granule at stage 2: use one that has (ID_AA64MMFR0_EL1.TGran4_2)")]
    NoStage2Granule,
    /// The CPU has no system registers of a GICv3.
    #[error(
        "the CPU has no GICv3 system registers: use a machine with a GICv3 (QEMU: -machine virt,gic-version=3)"
    )]
    NoGicCpuInterface,

    /// The bytes at the tree's address are no device tree.
    #[error("the device tree is malformed ({0}): boot with an intact one, its address in x0")]
    TreeMalformed(FdtParseError),
    /// The header claims more than the boot protocol allows.
    #[error("the device tree claims {0} bytes: the arm64 boot protocol allows 2 MiB")]
    TreeTooLarge(u32),
    /// Nodes are nested deeper than any machine's are.
    #[error("the device tree nests nodes more than {0} deep: give a flatter one")]
    TreeTooDeep(usize),
    /// A property that is needed is missing or cannot be read.
    #[error("in the device tree, property `{property}` of {node} is missing or malformed")]
    BadProperty {
        /// Which node, in words.
        node: &'static str,
        /// The property's name.
        property: &'static str,
    },
    /// The machine has more of something than Freehold has room for.
    #[error("the device tree lists more than {capacity} {what}: Freehold has room for no more")]
    TooMany {
        /// What there is too much of.
        what: &'static str,
        /// How many there is room for.
        capacity: usize,
    },

    /// No memory node was found.
    #[error("the device tree names no memory")]
    NoMemory,
    /// Some RAM lies beyond 48 bits.
    #[error("RAM reaches {end:#x}, beyond the 48 bits of physical address that Freehold maps: take some out")]
    MemoryBeyond48Bits {
        /// The address after the last byte of that RAM; saturates at `u64::MAX`.
        end: u64,
    },
    /// Some RAM lies beyond what the CPU can address.
    #[error(
        "RAM reaches {end:#x}, beyond the CPU's {bits} bits of physical address: give less, or another CPU"
    )]
    MemoryBeyondPaRange {
        /// The address after the last byte of RAM.
        end: u64,
        /// The CPU's physical address bits.
        bits: u32,
    },

    /// No PSCI node was found.
    #[error("the device tree has no PSCI node: Freehold needs firmware with PSCI 0.2 or later over SMC")]
    NoPsci,
    /// PSCI is there, but reached in another way.
    #[error(
        "PSCI is reached by {0}, not SMC: Freehold needs firmware at EL3 (QEMU: -machine virt,virtualization=on)"
    )]
    PsciConduit(&'static str),
    /// PSCI 0.1, whose function numbers are anyone's.
    #[error("the firmware speaks PSCI 0.1: Freehold needs 0.2 or later")]
    PsciTooOld,
    /// A CPU that is not brought up by PSCI.
    #[error("the CPU with MPIDR {0:#x} is not brought up by PSCI: Freehold could not follow it")]
    CpuEnableMethod(u64),
    /// No CPU node was found.
    #[error("the device tree names no CPU")]
    NoCpus,
    /// Two CPU nodes name the same CPU.
    #[error("the device tree names the CPU with MPIDR {0:#x} twice")]
    DuplicateCpu(u64),
    /// No GICv3 was found.
    #[error("the device tree has no GICv3, but {0}: Freehold needs one (QEMU: -machine virt,gic-version=3)")]
    NoGicV3(&'static str),
    /// A redistributor has LPIs enabled and cannot end that.
    #[error(
        "the redistributor at {0:#x} keeps LPIs enabled, with tables that EL2 does not know: start from a reset"
    )]
    LpisEnabled(u64),
    /// Registers that EL2 must keep share a 2 MiB region with RAM, or a page with other registers.
    #[error(
        "the registers at {0} share a 2 MiB region with RAM or a page with other registers: \
         Freehold could not keep them from the host"
    )]
    RegistersNotApart(PhysRange),
    /// No architected timer was found.
    #[error("the device tree has no architected timer (arm,armv8-timer)")]
    NoTimer,

    /// No host kernel was found.
    #[error(
        "/chosen names no host kernel (a multiboot,kernel module): load one \
         (QEMU: -device guest-loader,addr=ADDRESS,kernel=IMAGE)"
    )]
    NoHostKernel,
    /// A module's bytes are not all in one region of RAM.
    #[error("the {name} module at {range} is not in RAM: load it elsewhere")]
    ModuleOutsideMemory {
        /// Which module.
        name: Occupant,
        /// Where it is said to be.
        range: PhysRange,
    },
    /// Two things that the loader put in memory share bytes.
    #[error("the {first} at {at} overlaps the {second} at {with}: load them apart")]
    Overlap {
        /// One of the two.
        first: Occupant,
        /// Where it is.
        at: PhysRange,
        /// The other.
        second: Occupant,
        /// Where that is.
        with: PhysRange,
    },

    /// The CPU that booted is not in the tree.
    #[error("the device tree does not name the CPU with MPIDR {0:#x}, on which Freehold was started")]
    BootCpuMissing(u64),
    /// The host's tree fits nowhere.
    #[error(
        "no {0} bytes of RAM are free for the host's device tree: give more RAM, or load the modules higher"
    )]
    NoRoomForTree(u64),
    /// The image is not where the boot protocol wants it.
    #[error("Freehold was loaded at {0:#x}, which is not a multiple of 2 MiB: load it on one")]
    ImageMisaligned(u64),
    /// EL2's memory does not fit behind the image.
    #[error(
        "EL2 needs {needed} bytes of RAM from {base:#x} on, and the RAM there ends earlier: load it lower"
    )]
    ReservationOutsideMemory {
        /// Where the image is.
        base: u64,
        /// How many bytes are needed.
        needed: u64,
    },
    /// A size that was asked for does not fit 48 bits.
    #[error("EL2's memory for this machine does not fit the 48-bit address space")]
    PlanOverflow,
}

impl RefusalReason {
    /// The property `property` of `node` is missing or cannot be read.
    pub(super) const fn bad(node: &'static str, property: &'static str) -> Self {
        Self::BadProperty { node, property }
    }
}

impl From<FdtParseError> for RefusalReason {
    fn from(error: FdtParseError) -> Self {
        Self::TreeMalformed(error)
    }
}

/// What may be in the way of something in memory.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Occupant {
    /// EL2's memory.
    Reservation,
    /// The host's kernel.
    Kernel,
    /// The host's ramdisk.
    Ramdisk,
    /// The machine's device tree.
    DeviceTree,
    /// Memory that the firmware reserved.
    Firmware,
}

impl fmt::Display for Occupant {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Reservation => "memory that EL2 needs",
            Self::Kernel => "host kernel",
            Self::Ramdisk => "ramdisk",
            Self::DeviceTree => "device tree",
            Self::Firmware => "memory reserved by the firmware",
        })
    }
}
