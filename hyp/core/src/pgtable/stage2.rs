//! The stage-2 format: VMSAv8-64, 4 KiB granule (Arm ARM DDI 0487, D8.3.1.2 and D8.3.2).

use super::descriptor::{Attributes, Format, Update};
use bitflags::bitflags;

bitflags! {
    /// Where the attributes of a stage-2 leaf sit in its descriptor.
    #[derive(Clone, Copy, Debug, PartialEq, Eq)]
    struct Bits: u64 {
        /// MemAttr[3:0].
        const MEMORY = 0b1111 << 2;
        /// S2AP[0].
        const READ = 1 << 6;
        /// S2AP[1].
        const WRITE = 1 << 7;
        /// SH[1:0].
        const SHAREABILITY = 0b11 << 8;
        /// AF.
        const ACCESSED = 1 << 10;
        /// XN[1:0].
        const EXECUTE_NEVER = 0b11 << 53;
        /// Software's own.
        const SOFTWARE = 0b1111 << 55;
    }
}

const MEMORY_SHIFT: u32 = 2;
const SHAREABILITY_SHIFT: u32 = 8;
const ACCESS_SHIFT: u32 = 6;
const EXECUTE_SHIFT: u32 = 53;
const SOFTWARE_SHIFT: u32 = 55;

/// The format of stage-2 tables, the host's and the guests'.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Stage2;

impl Format for Stage2 {
    type Attributes = Stage2Attributes;
    const ATTRIBUTES: u64 = Bits::all().bits();
    const IN_PLACE: u64 = Bits::READ.bits()
        | Bits::WRITE.bits()
        | Bits::ACCESSED.bits()
        | Bits::EXECUTE_NEVER.bits()
        | Bits::SOFTWARE.bits();
    const ACCESSED: u64 = Bits::ACCESSED.bits();
    const MAX_ROOT_TABLES: u64 = 16;
}

/// The memory type that stage 2 imposes (MemAttr, Arm ARM DDI 0487, D8.6.5 and D8.6.6).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Stage2Memory {
    /// Normal, inner and outer write-back; stage 1 can weaken it. For HCR_EL2.FWB = 0.
    WriteBack,
    /// Normal, write-back whatever stage 1 says. For HCR_EL2.FWB = 1 only.
    ForcedWriteBack,
    /// Normal, non-cacheable.
    NonCacheable,
    /// Device, no gathering, no reordering, early write acknowledgement.
    DeviceNGnRE,
    /// Device, no gathering, no reordering, no early write acknowledgement.
    DeviceNGnRnE,
}

impl Stage2Memory {
    const fn bits(self) -> u64 {
        match self {
            Self::WriteBack => 0b1111,
            Self::ForcedWriteBack => 0b0110,
            Self::NonCacheable => 0b0101,
            Self::DeviceNGnRE => 0b0001,
            Self::DeviceNGnRnE => 0b0000,
        }
    }

    /// The type with these bits. What the engine never writes reads as the strictest device type.
    const fn from_bits(bits: u64) -> Self {
        match bits & 0b1111 {
            0b1111 => Self::WriteBack,
            0b0110 => Self::ForcedWriteBack,
            0b0101 => Self::NonCacheable,
            0b0001 => Self::DeviceNGnRE,
            _ => Self::DeviceNGnRnE,
        }
    }
}

bitflags! {
    /// What loads and stores stage 2 allows (S2AP). Nothing set: neither, though the leaf is valid.
    #[derive(Clone, Copy, Debug, PartialEq, Eq)]
    pub struct Stage2Access: u64 {
        /// Loads.
        const READ = 1 << 0;
        /// Stores.
        const WRITE = 1 << 1;
    }
}

/// Evidence that the CPUs have FEAT_XNX, without which stage 2 cannot tell EL0 from EL1. Where the feature is
/// missing, "EL0 only" would be read as "both".
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Xnx(());

impl Xnx {
    /// The caller has read ID_AA64MMFR1_EL1.XNX on all CPUs and found it not zero.
    #[must_use]
    pub const fn found() -> Self {
        Self(())
    }
}

/// Who may fetch instructions (`XN[1:0]`, Arm ARM DDI 0487, D8.4.2). Fetching also needs [`Stage2Access::READ`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Execute {
    /// EL1 and EL0.
    All,
    /// Nobody.
    Never,
    /// EL0 only.
    El0(Xnx),
    /// EL1 only.
    El1(Xnx),
}

impl Execute {
    const fn bits(self) -> u64 {
        match self {
            Self::All => 0b00,
            Self::El0(_) => 0b01,
            Self::Never => 0b10,
            Self::El1(_) => 0b11,
        }
    }

    const fn from_bits(bits: u64) -> Self {
        match bits & 0b11 {
            0b00 => Self::All,
            0b01 => Self::El0(Xnx(())),
            0b10 => Self::Never,
            _ => Self::El1(Xnx(())),
        }
    }
}

/// Which observers must see the memory coherently (SH).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Shareability {
    /// This CPU only.
    Non,
    /// Also observers beyond the CPUs.
    Outer,
    /// All CPUs.
    Inner,
}

impl Shareability {
    pub(super) const fn bits(self) -> u64 {
        match self {
            Self::Non => 0b00,
            Self::Outer => 0b10,
            Self::Inner => 0b11,
        }
    }

    /// The shareability with these bits; the reserved value reads as none.
    pub(super) const fn from_bits(bits: u64) -> Self {
        match bits & 0b11 {
            0b10 => Self::Outer,
            0b11 => Self::Inner,
            _ => Self::Non,
        }
    }
}

/// How a stage-2 leaf maps. Kept as the descriptor's own bits, so that the engine never takes it apart.
#[derive(Clone, Copy, PartialEq, Eq)]
pub struct Stage2Attributes(u64);

impl Stage2Attributes {
    /// RAM of the host: all access, write-back, inner shareable.
    pub const HOST_MEMORY: Self = Self::new(
        Stage2Memory::WriteBack,
        Stage2Access::all(),
        Execute::All,
        Shareability::Inner,
    );

    /// Device registers of the host: loads and stores, no fetches.
    pub const HOST_DEVICE: Self = Self::new(
        Stage2Memory::DeviceNGnRE,
        Stage2Access::all(),
        Execute::Never,
        Shareability::Outer,
    );

    /// These attributes, with the access flag set and no software bits.
    #[must_use]
    pub const fn new(
        memory: Stage2Memory,
        access: Stage2Access,
        execute: Execute,
        shareability: Shareability,
    ) -> Self {
        Self(
            (memory.bits() << MEMORY_SHIFT)
                | (access.bits() << ACCESS_SHIFT)
                | (shareability.bits() << SHAREABILITY_SHIFT)
                | (execute.bits() << EXECUTE_SHIFT)
                | Bits::ACCESSED.bits(),
        )
    }

    /// The same with software bits 58:55 set to the low four bits of `bits`.
    #[must_use]
    pub const fn with_software(self, bits: u8) -> Self {
        let field = ((bits & 0b1111) as u64) << SOFTWARE_SHIFT;
        Self((self.0 & !Bits::SOFTWARE.bits()) | field)
    }

    /// The same with the access flag cleared: the first access faults.
    #[must_use]
    pub const fn not_accessed(self) -> Self {
        Self(self.0 & !Bits::ACCESSED.bits())
    }

    /// The memory type.
    #[must_use]
    pub const fn memory(self) -> Stage2Memory {
        Stage2Memory::from_bits(self.0 >> MEMORY_SHIFT)
    }

    /// The loads and stores allowed.
    #[must_use]
    pub const fn access(self) -> Stage2Access {
        Stage2Access::from_bits_truncate(self.0 >> ACCESS_SHIFT)
    }

    /// The fetches allowed.
    #[must_use]
    pub const fn execute(self) -> Execute {
        Execute::from_bits(self.0 >> EXECUTE_SHIFT)
    }

    /// The shareability.
    #[must_use]
    pub const fn shareability(self) -> Shareability {
        Shareability::from_bits(self.0 >> SHAREABILITY_SHIFT)
    }

    /// Whether the access flag is set.
    #[must_use]
    pub const fn accessed(self) -> bool {
        self.0 & Bits::ACCESSED.bits() != 0
    }

    /// The software bits 58:55, in the low four bits.
    #[must_use]
    pub const fn software(self) -> u8 {
        ((self.0 & Bits::SOFTWARE.bits()) >> SOFTWARE_SHIFT) as u8
    }
}

impl Attributes for Stage2Attributes {
    #[inline]
    fn to_bits(self) -> u64 {
        self.0
    }

    #[inline]
    fn from_bits(descriptor: u64) -> Self {
        Self(descriptor & Stage2::ATTRIBUTES)
    }
}

impl core::fmt::Debug for Stage2Attributes {
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        f.debug_struct("Stage2Attributes")
            .field("memory", &self.memory())
            .field("access", &self.access())
            .field("execute", &self.execute())
            .field("shareability", &self.shareability())
            .field("accessed", &self.accessed())
            .field("software", &self.software())
            .finish()
    }
}

impl Update<Stage2> {
    /// Takes away stores; loads and fetches stay as they were.
    #[must_use]
    pub const fn write_protect() -> Self {
        Self::bits(Bits::WRITE.bits(), 0)
    }

    /// Adds these loads and stores to those allowed.
    #[must_use]
    pub const fn allow(access: Stage2Access) -> Self {
        Self::bits(0, access.bits() << ACCESS_SHIFT)
    }

    /// Allows these fetches, and no others.
    #[must_use]
    pub const fn execute(execute: Execute) -> Self {
        Self::bits(Bits::EXECUTE_NEVER.bits(), execute.bits() << EXECUTE_SHIFT)
    }

    /// Sets software bits 58:55 to the low four bits of `bits`.
    #[must_use]
    pub const fn software(bits: u8) -> Self {
        Self::bits(Bits::SOFTWARE.bits(), ((bits & 0b1111) as u64) << SOFTWARE_SHIFT)
    }
}
