//! The stage-1 format of the EL2 regime: one address range, no EL0 (Arm ARM DDI 0487, D8.3.1.1 and D8.4.1).

use super::descriptor::{Attributes, Format, Update};
use super::stage2::Shareability;
use bitflags::bitflags;

bitflags! {
    /// Where the attributes of a leaf of EL2's stage 1 sit in its descriptor. nG (bit 11) and PXN (bit 53) are
    /// RES0 in this regime.
    #[derive(Clone, Copy, Debug, PartialEq, Eq)]
    struct Bits: u64 {
        /// AttrIndx[2:0].
        const MEMORY = 0b111 << 2;
        /// AP[1]: RES1 where there is no EL0.
        const AP1 = 1 << 6;
        /// AP[2].
        const READ_ONLY = 1 << 7;
        /// SH[1:0].
        const SHAREABILITY = 0b11 << 8;
        /// AF.
        const ACCESSED = 1 << 10;
        /// XN.
        const EXECUTE_NEVER = 1 << 54;
        /// Software's own.
        const SOFTWARE = 0b1111 << 55;
    }
}

const MEMORY_SHIFT: u32 = 2;
const SHAREABILITY_SHIFT: u32 = 8;

/// The format of EL2's own tables.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct HypStage1;

impl Format for HypStage1 {
    type Attributes = HypAttributes;
    const ATTRIBUTES: u64 = Bits::all().bits();
    const IN_PLACE: u64 =
        Bits::READ_ONLY.bits() | Bits::ACCESSED.bits() | Bits::EXECUTE_NEVER.bits() | Bits::SOFTWARE.bits();
    const ACCESSED: u64 = Bits::ACCESSED.bits();
    const MAX_ROOT_TABLES: u64 = 1;
}

/// Memory types of EL2's own mappings; the number is the index into [`MAIR`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum HypMemory {
    /// Normal, write-back, with allocation.
    WriteBack = 0,
    /// Device-nGnRE.
    DeviceNGnRE = 1,
    /// Normal, non-cacheable.
    NonCacheable = 2,
}

/// What MAIR_EL2 must hold so that [`HypMemory`] means what it says (Arm ARM DDI 0487, D24.2.109).
pub const MAIR: u64 = 0xff | (0x04 << 8) | (0x44 << 16);

/// What EL2 may do to a page of its own. Nothing can be both written and executed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum HypAccess {
    /// Loads.
    ReadOnly,
    /// Loads and stores.
    ReadWrite,
    /// Loads and fetches.
    ReadExecute,
}

impl HypAccess {
    const fn bits(self) -> u64 {
        match self {
            Self::ReadOnly => Bits::READ_ONLY.bits() | Bits::EXECUTE_NEVER.bits(),
            Self::ReadWrite => Bits::EXECUTE_NEVER.bits(),
            Self::ReadExecute => Bits::READ_ONLY.bits(),
        }
    }
}

/// How a leaf of EL2's stage 1 maps. Kept as the descriptor's own bits.
#[derive(Clone, Copy, PartialEq, Eq)]
pub struct HypAttributes(u64);

impl HypAttributes {
    /// RAM with this access, write-back and inner shareable.
    #[must_use]
    pub const fn memory(access: HypAccess) -> Self {
        Self::new(HypMemory::WriteBack, access, Shareability::Inner)
    }

    /// Device registers: loads and stores.
    #[must_use]
    pub const fn device() -> Self {
        Self::new(HypMemory::DeviceNGnRE, HypAccess::ReadWrite, Shareability::Outer)
    }

    /// These attributes, with the access flag set.
    #[must_use]
    pub const fn new(memory: HypMemory, access: HypAccess, shareability: Shareability) -> Self {
        Self(
            ((memory as u64) << MEMORY_SHIFT)
                | access.bits()
                | (shareability.bits() << SHAREABILITY_SHIFT)
                | Bits::AP1.bits()
                | Bits::ACCESSED.bits(),
        )
    }

    /// The memory type; `None` for an index that [`MAIR`] leaves unused.
    #[must_use]
    pub const fn memory_type(self) -> Option<HypMemory> {
        match (self.0 & Bits::MEMORY.bits()) >> MEMORY_SHIFT {
            0 => Some(HypMemory::WriteBack),
            1 => Some(HypMemory::DeviceNGnRE),
            2 => Some(HypMemory::NonCacheable),
            _ => None,
        }
    }

    /// The access; `None` if the page can be both written and executed, which the engine never writes.
    #[must_use]
    pub const fn access(self) -> Option<HypAccess> {
        let read_only = self.0 & Bits::READ_ONLY.bits() != 0;
        let execute_never = self.0 & Bits::EXECUTE_NEVER.bits() != 0;
        match (read_only, execute_never) {
            (true, true) => Some(HypAccess::ReadOnly),
            (false, true) => Some(HypAccess::ReadWrite),
            (true, false) => Some(HypAccess::ReadExecute),
            (false, false) => None,
        }
    }

    /// The shareability.
    #[must_use]
    pub const fn shareability(self) -> Shareability {
        Shareability::from_bits(self.0 >> SHAREABILITY_SHIFT)
    }
}

impl Attributes for HypAttributes {
    #[inline]
    fn to_bits(self) -> u64 {
        self.0
    }

    #[inline]
    fn from_bits(descriptor: u64) -> Self {
        Self(descriptor & HypStage1::ATTRIBUTES)
    }
}

impl core::fmt::Debug for HypAttributes {
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        f.debug_struct("HypAttributes")
            .field("memory", &self.memory_type())
            .field("access", &self.access())
            .field("shareability", &self.shareability())
            .finish()
    }
}

impl Update<HypStage1> {
    /// Gives leaves this access, and no other.
    #[must_use]
    pub const fn access(access: HypAccess) -> Self {
        Self::bits(Bits::READ_ONLY.bits() | Bits::EXECUTE_NEVER.bits(), access.bits())
    }
}
