//! An exception entry into EL1, computed: what the CPU would have done had the exception been EL1's.
//!
//! The image crate hands over what it was entered with and what EL1 has set up, and writes back every register of
//! the [`Entry`]. The host's kernel then runs its own handler, in a state that it cannot tell from a real one.
//!
//! A refused access is reported as an alignment fault: a kernel that has never heard of a hypervisor turns that
//! into SIGBUS for EL0, into the fixup of an exception-table entry or an oops for EL1. An external abort would
//! kill it, a permission fault would loop, and a fault on a table walk (S1PTW) would spin.
//!
//! Source: Arm ARM DDI 0487, J1.1, `AArch64.TakeException`; D24.2, ESR_EL1.

use super::abort::Abort;
use super::id::IdRegisters;

/// PSTATE.SSBS as SPSR_ELx holds it for AArch64.
pub const SPSR_SSBS: u64 = 1 << 12;
/// PSTATE.ALLINT.
pub const SPSR_ALLINT: u64 = 1 << 13;
/// PSTATE.IL.
pub const SPSR_IL: u64 = 1 << 20;
/// PSTATE.SS.
pub const SPSR_SS: u64 = 1 << 21;
/// PSTATE.PAN.
pub const SPSR_PAN: u64 = 1 << 22;
/// PSTATE.UAO.
pub const SPSR_UAO: u64 = 1 << 23;
/// PSTATE.DIT.
pub const SPSR_DIT: u64 = 1 << 24;
/// PSTATE.TCO.
pub const SPSR_TCO: u64 = 1 << 25;
/// PSTATE.PM (FEAT_EBEP).
pub const SPSR_PM: u64 = 1 << 32;
/// PSTATE.EXLOCK (FEAT_GCS).
pub const SPSR_EXLOCK: u64 = 1 << 34;
/// PSTATE.BTYPE.
pub const SPSR_BTYPE: u64 = 0b11 << 10;
/// PSTATE.D, A, I and F.
pub const SPSR_DAIF: u64 = 0b1111 << 6;
/// PSTATE.nRW: the exception came from AArch32.
pub const SPSR_AARCH32: u64 = 1 << 4;
/// EL1 with its own stack pointer.
pub const SPSR_EL1H: u64 = 0b0101;
/// PSTATE.N, Z, C and V.
pub const SPSR_NZCV: u64 = 0b1111 << 28;
const SPSR_EL: u64 = 0b11 << 2;
const SPSR_SP: u64 = 1;

/// SCTLR_EL1.SPAN: an exception to EL1 leaves PAN alone.
pub const SCTLR_SPAN: u64 = 1 << 23;
/// SCTLR_EL1.DSSBS: the value of SSBS on an exception to EL1.
pub const SCTLR_DSSBS: u64 = 1 << 44;
/// SCTLR_EL1.SPINTMASK: an exception to EL1 leaves superpriority interrupts unmasked.
pub const SCTLR_SPINTMASK: u64 = 1 << 62;
/// GCSCR_EL1.EXLOCKEN.
pub const GCSCR_EXLOCKEN: u64 = 1 << 6;

const EC_UNKNOWN: u64 = 0x00;
const EC_INSTRUCTION_ABORT: u64 = 0x20;
const EC_DATA_ABORT: u64 = 0x24;
/// Added to the class of an abort when it is taken without a change of exception level.
const EC_SAME_LEVEL: u64 = 1;

const ESR_IL: u64 = 1 << 25;
const ISS_FNV: u64 = 1 << 10;
const ISS_CM: u64 = 1 << 8;
const ISS_WNR: u64 = 1 << 6;
/// The fault status code of an alignment fault.
const FSC_ALIGNMENT: u64 = 0b10_0001;
/// The fault status code of a synchronous external abort that is not on a table walk.
const FSC_EXTERNAL: u64 = 0b01_0000;
/// The fault status code.
const FSC: u64 = 0b11_1111;

/// Which PSTATE fields the CPU has. A field that it lacks stays zero.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Default)]
pub struct PstateFeatures {
    /// FEAT_PAN.
    pub pan: bool,
    /// FEAT_SSBS.
    pub ssbs: bool,
    /// FEAT_MTE2: PSTATE.TCO.
    pub tag_check_override: bool,
    /// FEAT_NMI: PSTATE.ALLINT.
    pub nmi: bool,
    /// FEAT_GCS: PSTATE.EXLOCK.
    pub gcs: bool,
    /// FEAT_EBEP: PSTATE.PM.
    pub ebep: bool,
}

impl PstateFeatures {
    /// Reads the features from the ID registers.
    #[must_use]
    pub const fn of(id: &IdRegisters) -> Self {
        Self {
            pan: id.pan() != 0,
            ssbs: id.ssbs() != 0,
            // PSTATE.TCO exists from FEAT_MTE on, tags in memory or not.
            tag_check_override: id.mte() != 0,
            nmi: id.nmi() != 0,
            gcs: id.gcs() != 0,
            ebep: id.ebep() != 0,
        }
    }
}

/// What the exception interrupted, and what EL1 has set up for its own exceptions.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Default)]
pub struct Source {
    /// SPSR_EL2.
    pub spsr: u64,
    /// ELR_EL2, which must be the address of the instruction itself: step back over an `HVC` first.
    pub elr: u64,
    /// SCTLR_EL1.
    pub sctlr_el1: u64,
    /// VBAR_EL1.
    pub vbar_el1: u64,
    /// GCSCR_EL1; zero where FEAT_GCS is not implemented.
    pub gcscr_el1: u64,
}

impl Source {
    /// Whether the exception came from EL1 rather than EL0. SPSR_EL2 of an exception to EL2 from below names no
    /// other; AArch32 is EL0, because `HCR_EL2.RW` makes EL1 AArch64.
    #[must_use]
    pub const fn from_el1(&self) -> bool {
        self.spsr & SPSR_AARCH32 == 0 && self.spsr & SPSR_EL != 0
    }
}

/// What is reported to EL1.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Exception {
    /// A data access is refused.
    DataAbort {
        /// The virtual address, unless it is not known.
        far: Option<u64>,
        /// Whether it was a write.
        write: bool,
        /// Whether it was cache maintenance or an address translation.
        cache_maintenance: bool,
    },
    /// An instruction fetch is refused.
    InstructionAbort {
        /// The virtual address, unless it is not known.
        far: Option<u64>,
    },
    /// What an access reached does not answer it: a synchronous external abort, as of a bus on which nothing is.
    ExternalAbort {
        /// Whether it was an instruction fetch.
        fetch: bool,
        /// The virtual address, unless it is not known.
        far: Option<u64>,
        /// Whether it was a write.
        write: bool,
        /// Whether it was cache maintenance or an address translation.
        cache_maintenance: bool,
    },
    /// The instruction is UNDEFINED.
    Undefined,
}

impl Exception {
    /// The external abort of what `abort` tells.
    #[must_use]
    pub const fn external(abort: &Abort) -> Self {
        Self::ExternalAbort {
            fetch: abort.fetch,
            far: abort.far,
            write: abort.write,
            cache_maintenance: abort.cache_maintenance,
        }
    }

    /// The refusal of what `abort` tells.
    #[must_use]
    pub const fn refusing(abort: &Abort) -> Self {
        if abort.fetch {
            Self::InstructionAbort { far: abort.far }
        } else {
            Self::DataAbort {
                far: abort.far,
                write: abort.write,
                cache_maintenance: abort.cache_maintenance,
            }
        }
    }

    /// ESR_EL1. IL is 1 for all of these: an instruction abort, a data abort without a valid instruction
    /// syndrome and an unknown reason have it set whatever the instruction's length (DDI 0487, ESR_EL1.IL).
    const fn syndrome(&self, from_el1: bool) -> u64 {
        let same_level = if from_el1 { EC_SAME_LEVEL } else { 0 };
        let (class, iss) = match *self {
            Self::Undefined => (EC_UNKNOWN, 0),
            Self::InstructionAbort { far } => (EC_INSTRUCTION_ABORT + same_level, far_not_valid(far)),
            Self::DataAbort {
                far,
                write,
                cache_maintenance,
            } => {
                let write = if write { ISS_WNR } else { 0 };
                let maintenance = if cache_maintenance { ISS_CM } else { 0 };
                (
                    EC_DATA_ABORT + same_level,
                    far_not_valid(far) | write | maintenance,
                )
            }
            Self::ExternalAbort {
                fetch,
                far,
                write,
                cache_maintenance,
            } => {
                let as_fault = if fetch {
                    Self::InstructionAbort { far }
                } else {
                    Self::DataAbort {
                        far,
                        write,
                        cache_maintenance,
                    }
                };
                return as_fault.syndrome(from_el1) & !FSC | FSC_EXTERNAL;
            }
        };
        let status = match self {
            Self::Undefined => 0,
            _ => FSC_ALIGNMENT,
        };
        class << 26 | ESR_IL | iss | status
    }

    const fn far(&self) -> Option<u64> {
        match *self {
            Self::DataAbort { far, .. }
            | Self::InstructionAbort { far }
            | Self::ExternalAbort { far, .. } => far,
            Self::Undefined => None,
        }
    }
}

const fn far_not_valid(far: Option<u64>) -> u64 {
    if far.is_some() { 0 } else { ISS_FNV }
}

/// The registers of an exception entry into EL1. All are to be written.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Entry {
    /// ELR_EL1.
    pub elr_el1: u64,
    /// SPSR_EL1.
    pub spsr_el1: u64,
    /// ESR_EL1.
    pub esr_el1: u64,
    /// FAR_EL1, if the exception has an address; otherwise it is left as it is.
    pub far_el1: Option<u64>,
    /// Where EL1 goes on: ELR_EL2.
    pub pc: u64,
    /// In which state: SPSR_EL2.
    pub pstate: u64,
}

/// Computes the entry of `exception` into EL1.
#[must_use]
pub const fn enter_el1(source: &Source, features: PstateFeatures, exception: Exception) -> Entry {
    let from_el1 = source.from_el1();
    let offset = if source.spsr & SPSR_AARCH32 != 0 {
        0x600
    } else if !from_el1 {
        0x400
    } else if source.spsr & SPSR_SP != 0 {
        0x200
    } else {
        0x000
    };
    Entry {
        elr_el1: source.elr,
        spsr_el1: source.spsr,
        esr_el1: exception.syndrome(from_el1),
        far_el1: exception.far(),
        // The low bits of VBAR_EL1 are RES0.
        pc: (source.vbar_el1 & !0x7ff) | offset,
        pstate: entry_state(source, features),
    }
}

/// PSTATE after the entry. It is built from nothing, so that whatever is not named here is zero: IL, SS, UAO,
/// BTYPE, PPEND, UINJ and PACM must be, and so must what AArch32 kept in the same bits.
const fn entry_state(source: &Source, features: PstateFeatures) -> u64 {
    // NZCV and DIT survive; so does PAN, unless SCTLR_EL1.SPAN says to set it.
    let mut state = SPSR_EL1H | SPSR_DAIF | source.spsr & (SPSR_NZCV | SPSR_DIT);
    if features.pan {
        state |= if source.sctlr_el1 & SCTLR_SPAN == 0 {
            SPSR_PAN
        } else {
            source.spsr & SPSR_PAN
        };
    }
    if features.ssbs && source.sctlr_el1 & SCTLR_DSSBS != 0 {
        state |= SPSR_SSBS;
    }
    if features.tag_check_override {
        state |= SPSR_TCO;
    }
    if features.nmi && source.sctlr_el1 & SCTLR_SPINTMASK == 0 {
        state |= SPSR_ALLINT;
    }
    if features.gcs && source.from_el1() && source.gcscr_el1 & GCSCR_EXLOCKEN != 0 {
        state |= SPSR_EXLOCK;
    }
    if features.ebep {
        state |= SPSR_PM;
    }
    state
}

#[cfg(test)]
mod tests;
