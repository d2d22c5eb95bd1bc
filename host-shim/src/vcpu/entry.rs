//! What the host passes to a run of a vCPU.

use crate::kernel::HostMemory;
use crate::{Error, Pfn};
use arrayvec::ArrayVec;
use hyp_abi::run_page::{
    Answer, ENTRY_ANSWER, ENTRY_FLAGS, ENTRY_ICH_HCR, ENTRY_LIST, ENTRY_LIST_COUNT, ENTRY_VALUES,
    EXIT_ICH_EISR, EXIT_ICH_HCR, EXIT_ICH_MISR, EXIT_LIST, EXIT_LIST_COUNT, EXIT_TIMER_COMPARE,
    EXIT_TIMER_CONTROL, EntryFlags, MAX_LIST_REGISTERS,
};

/// List registers, as the ICH_LR registers of EL2 have them.
pub type ListRegisters = ArrayVec<u64, MAX_LIST_REGISTERS>;

/// What a run begins with. An empty one means: go on, interrupts as they were.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Entry {
    answer: Option<(Answer, [u64; 4])>,
    interrupts: Option<(u64, ListRegisters)>,
}

impl Entry {
    /// An entry that says nothing.
    #[must_use]
    pub const fn new() -> Self {
        Self {
            answer: None,
            interrupts: None,
        }
    }

    /// Answers the last exit: what the guest wanted is tried again.
    #[must_use]
    pub fn retry(self) -> Self {
        self.answer(Answer::Retry, [0; 4])
    }

    /// Answers the last exit: what the guest wanted is refused.
    #[must_use]
    pub fn refuse(self) -> Self {
        self.answer(Answer::Refuse, [0; 4])
    }

    /// Answers a load from a device with what was read.
    #[must_use]
    pub fn loaded(self, value: u64) -> Self {
        self.answer(Answer::Done, [value, 0, 0, 0])
    }

    /// Answers a store to a device: it is done.
    #[must_use]
    pub fn stored(self) -> Self {
        self.answer(Answer::Done, [0; 4])
    }

    /// Answers a call of a service of the host's with x0 to x3.
    #[must_use]
    pub fn served(self, results: [u64; 4]) -> Self {
        self.answer(Answer::Done, results)
    }

    /// Sets ICH_HCR_EL2's maintenance bits and the list registers. Without this they are as the last exit left them.
    #[must_use]
    pub fn interrupts(mut self, control: u64, list: &ListRegisters) -> Self {
        self.interrupts = Some((control, list.clone()));
        self
    }

    fn answer(mut self, answer: Answer, values: [u64; 4]) -> Self {
        self.answer = Some((answer, values));
        self
    }

    pub(super) fn write(&self, memory: &impl HostMemory, page: Pfn) {
        let store = |index, value| memory.store_word(page, index, value);
        let mut flags = EntryFlags::empty();
        if let Some((answer, values)) = self.answer {
            flags |= EntryFlags::ANSWER;
            store(ENTRY_ANSWER, answer.into());
            for (index, value) in (ENTRY_VALUES..).zip(values) {
                store(index, value);
            }
        }
        if let Some((control, list)) = &self.interrupts {
            flags |= EntryFlags::INTERRUPTS;
            store(ENTRY_ICH_HCR, *control);
            store(ENTRY_LIST_COUNT, list.len() as u64);
            for (index, value) in (ENTRY_LIST..).zip(list) {
                store(index, *value);
            }
        }
        store(ENTRY_FLAGS, flags.bits());
    }
}

/// Interrupts and timer, as the last exit left them.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Interrupts {
    /// The list registers.
    pub list: ListRegisters,
    /// ICH_MISR_EL2: why there is a maintenance interrupt.
    pub maintenance: u64,
    /// ICH_EISR_EL2: which list registers ended.
    pub ended: u64,
    /// ICH_HCR_EL2, of which only EOIcount (bits 31:27): how many interrupts ended that are in no list register.
    pub control: u64,
    /// CNTV_CTL_EL0: ENABLE, IMASK, ISTATUS.
    pub timer_control: u64,
    /// CNTV_CVAL_EL0.
    pub timer_compare: u64,
}

impl Interrupts {
    /// ENABLE and ISTATUS set, IMASK clear.
    const TIMER_BITS: u64 = 0b111;
    const TIMER_DUE: u64 = 0b101;
    const TIMER_ARMED: u64 = 0b001;

    /// Whether the virtual timer's interrupt (INTID 27) is due.
    #[must_use]
    pub const fn timer_is_due(&self) -> bool {
        self.timer_control & Self::TIMER_BITS == Self::TIMER_DUE
    }

    /// The count of the virtual counter at which it will be due, if it is armed and not due yet.
    #[must_use]
    pub const fn timer_deadline(&self) -> Option<u64> {
        if self.timer_control & Self::TIMER_BITS == Self::TIMER_ARMED {
            Some(self.timer_compare)
        } else {
            None
        }
    }

    pub(super) fn read(memory: &impl HostMemory, page: Pfn) -> Result<Self, Error> {
        let load = |index| memory.load_word(page, index);
        let count = load(EXIT_LIST_COUNT);
        let count = usize::try_from(count)
            .ok()
            .filter(|count| *count <= MAX_LIST_REGISTERS)
            .ok_or(Error::Call(crate::CallError::BadResult(count)))?;
        Ok(Self {
            list: (EXIT_LIST..).take(count).map(load).collect(),
            maintenance: load(EXIT_ICH_MISR),
            ended: load(EXIT_ICH_EISR),
            control: load(EXIT_ICH_HCR),
            timer_control: load(EXIT_TIMER_CONTROL),
            timer_compare: load(EXIT_TIMER_COMPARE),
        })
    }
}
