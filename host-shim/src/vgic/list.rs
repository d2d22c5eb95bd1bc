//! List registers (`ICH_LR<n>_EL2`), and what else passes at an entry and an exit. Source: IHI 0069, 12.4.

use crate::vcpu::ListRegisters;

/// One list register, apart from the interrupt's number. Its HW bit is clear: EL2 lets no guest end a physical interrupt.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct ListRegister {
    pub(super) pending: bool,
    pub(super) active: bool,
    pub(super) group1: bool,
    pub(super) priority: u8,
    /// EOI: there is a maintenance interrupt when the interrupt is neither pending nor active any more.
    pub(super) tell_end: bool,
}

impl ListRegister {
    const ACTIVE: u64 = 1 << 63;
    const PENDING: u64 = 1 << 62;
    const GROUP1: u64 = 1 << 60;
    const PRIORITY_SHIFT: u32 = 48;
    const TELL_END: u64 = 1 << 41;
    const INTID: u64 = 0xffff_ffff;

    /// As `ICH_LR<n>_EL2` has it.
    pub(super) const fn encode(self, intid: u32) -> u64 {
        (self.active as u64 * Self::ACTIVE)
            | (self.pending as u64 * Self::PENDING)
            | (self.group1 as u64 * Self::GROUP1)
            | (self.priority as u64) << Self::PRIORITY_SHIFT
            | (self.tell_end as u64 * Self::TELL_END)
            | intid as u64
    }

    /// What an `ICH_LR<n>_EL2` says.
    pub(super) const fn decode(value: u64) -> Self {
        Self {
            pending: value & Self::PENDING != 0,
            active: value & Self::ACTIVE != 0,
            group1: value & Self::GROUP1 != 0,
            priority: (value >> Self::PRIORITY_SHIFT) as u8,
            tell_end: value & Self::TELL_END != 0,
        }
    }

    /// The interrupt's number in an `ICH_LR<n>_EL2`.
    pub(super) const fn intid(value: u64) -> u32 {
        (value & Self::INTID) as u32
    }
}

/// What a vCPU is entered with.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Load {
    /// ICH_HCR_EL2: which maintenance interrupts are on.
    pub control: u64,
    /// The list registers.
    pub list: ListRegisters,
}

/// ICH_HCR_EL2.UIE: maintenance when no more than one list register is in use.
pub const UNDERFLOW: u64 = 1 << 1;
/// ICH_HCR_EL2.LRENPIE: maintenance when an interrupt was ended that is in no list register.
pub const ENDED_ELSEWHERE: u64 = 1 << 2;
/// ICH_HCR_EL2.NPIE: maintenance when no list register is pending.
pub const NONE_PENDING: u64 = 1 << 3;

/// ICH_HCR_EL2.EOIcount: how many interrupts were ended that are in no list register.
pub(super) const fn ended_elsewhere(control: u64) -> usize {
    (control >> 27 & 0x1f) as usize
}
