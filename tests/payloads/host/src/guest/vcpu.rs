//! One run of a vCPU.

use super::calls::call;
use super::exit::Exit;
use super::run_page::RunPage;
use super::vgic::{self, TIMER, Wanted};
use crate::registry::{Outcome, fail, succeed};
use crate::{cpu, interrupts, sysreg};
use arrayvec::ArrayVec;
use core::sync::atomic::{AtomicUsize, Ordering, fence};
use hyp_abi::VmCall;
use hyp_abi::run_page::{
    self, ENTRY_ANSWER, ENTRY_FLAGS, ENTRY_ICH_HCR, ENTRY_LIST, ENTRY_LIST_COUNT, ENTRY_VALUES, EXIT_LIST,
    EXIT_LIST_COUNT, EXIT_REASON, EXIT_TIMER_COMPARE, EXIT_TIMER_CONTROL, EXIT_VALUES, EntryFlags,
    MAX_LIST_REGISTERS,
};
use spin::mutex::TicketMutex;

/// How many list registers every CPU of these machines has (QEMU, `hw/intc/arm_gicv3_common.c`). EL1 cannot ask.
pub(crate) const LIST_REGISTERS: usize = 4;

/// What the host says to the last exit.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Answer {
    /// Nothing.
    None,
    /// Do again what the guest wanted.
    Retry,
    /// Refuse it.
    Refuse,
    /// It is done.
    Done([u64; 4]),
}

impl Answer {
    /// What an entry record that says so has: its flags, the answer and its values.
    pub(crate) fn record(self) -> (EntryFlags, u64, [u64; 4]) {
        let (answer, values) = match self {
            Self::None => return (EntryFlags::empty(), 0, [0; 4]),
            Self::Retry => (run_page::Answer::Retry, [0; 4]),
            Self::Refuse => (run_page::Answer::Refuse, [0; 4]),
            Self::Done(values) => (run_page::Answer::Done, values),
        };
        (EntryFlags::ANSWER, answer.into(), values)
    }
}

/// What the host keeps for a vCPU.
#[derive(Debug)]
pub(crate) struct Vcpu {
    /// Its run page.
    pub(crate) page: RunPage,
    /// Interrupts that it is to take.
    pub(crate) wanted: Wanted,
    /// The CPU that runs it, counted from 1.
    on: AtomicUsize,
    last: TicketMutex<Last>,
}

/// What the last exit said.
#[derive(Debug)]
struct Last {
    list: ArrayVec<u64, MAX_LIST_REGISTERS>,
    timer_control: u64,
    timer_compare: u64,
}

impl Vcpu {
    /// A vCPU that has not run.
    pub(crate) fn new(page: RunPage) -> Self {
        Self {
            page,
            wanted: Wanted::default(),
            on: AtomicUsize::new(0),
            last: TicketMutex::new(Last {
                list: ArrayVec::new(),
                timer_control: 0,
                timer_compare: 0,
            }),
        }
    }

    /// When the virtual timer is due, if the guest has armed it.
    pub(crate) fn alarm(&self) -> Option<u64> {
        let last = self.last.lock();
        vgic::alarm(last.timer_control, last.timer_compare)
    }

    /// What a vCPU that is stuck may wait for: the time, its timer's control and compare value, the list registers, and
    /// whether something else is wanted.
    pub(crate) fn waits(&self) -> (u64, [u64; 2], ArrayVec<u64, MAX_LIST_REGISTERS>, bool) {
        let last = self.last.lock();
        let timer = [last.timer_control, last.timer_compare];
        (sysreg::counter(), timer, last.list.clone(), self.wanted.any())
    }

    /// Whether an interrupt waits for it, its timer's included.
    pub(crate) fn is_wanted(&self) -> bool {
        self.wanted.any() || self.is_due()
    }

    fn is_due(&self) -> bool {
        vgic::is_due(self.alarm())
    }

    /// Has it take an interrupt. If a CPU runs it, that CPU is brought back first.
    pub(crate) fn interrupt(&self, number: u32) {
        self.wanted.add(number);
        // Either the CPU that enters the guest sees the interrupt, or this one sees that CPU.
        fence(Ordering::SeqCst);
        let on = self.on.load(Ordering::SeqCst);
        if on != 0 && on != cpu::number() + 1 {
            interrupts::wake(crate::machine::machine().cpus[on - 1]);
        }
    }

    /// Writes the entry record.
    pub(crate) fn enter(&self, answer: Answer) {
        let (mut flags, number, values) = answer.record();
        if flags.contains(EntryFlags::ANSWER) {
            self.page.write(ENTRY_ANSWER, number);
            for (word, value) in values.into_iter().enumerate() {
                self.page.write(ENTRY_VALUES + word, value);
            }
        }
        if self.is_wanted() {
            let level = u64::from(self.is_due()) << TIMER;
            let mut last = self.last.lock();
            if self.wanted.place(&mut last.list, LIST_REGISTERS, level) {
                flags |= EntryFlags::INTERRUPTS;
                self.page.write(ENTRY_ICH_HCR, 0);
                self.page.write(ENTRY_LIST_COUNT, last.list.len() as u64);
                for (word, entry) in last.list.iter().enumerate() {
                    self.page.write(ENTRY_LIST + word, *entry);
                }
            }
        }
        self.page.write(ENTRY_FLAGS, flags.bits());
    }

    /// Reads the exit record, of which `results` of the call are a part.
    pub(crate) fn leave(&self, results: [u64; 3]) -> Result<Exit, Outcome> {
        let reason = self.page.read(EXIT_REASON);
        let values = core::array::from_fn(|word| self.page.read(EXIT_VALUES + word));
        if results != [reason, values[0], values[1]] {
            fail!("results {results:x?} and record {reason:x} {values:x?} differ");
        }
        let Some(exit) = Exit::decode(reason, values) else {
            fail!("exit {reason:#x} with {values:x?} has no meaning")
        };
        let mut last = self.last.lock();
        let used = self.page.read(EXIT_LIST_COUNT) as usize;
        if used > LIST_REGISTERS {
            fail!("{used} list registers");
        }
        last.list = (0..used).map(|word| self.page.read(EXIT_LIST + word)).collect();
        last.timer_control = self.page.read(EXIT_TIMER_CONTROL);
        last.timer_compare = self.page.read(EXIT_TIMER_COMPARE);
        Ok(exit)
    }

    /// Runs it once.
    pub(crate) fn run(&self, vm: u64, index: u64, answer: Answer) -> Result<Exit, Outcome> {
        self.on.store(cpu::number() + 1, Ordering::SeqCst);
        fence(Ordering::SeqCst);
        self.enter(answer);
        let results = call(VmCall::Run { vm, index });
        self.on.store(0, Ordering::SeqCst);
        self.leave(succeed!(results))
    }
}
