//! Runs of vCPUs, with entry records that mostly make sense.

use super::place::{Place, Seat};
use super::vm;
use crate::attack::attacker::Attacker;
use crate::attack::call::answered;
use crate::attack::tally::{self, Kind};
use crate::guest::registers::{self, After};
use crate::guest::run_page::RunPage;
use crate::guest::vcpu::LIST_REGISTERS;
use crate::guest::vgic::{self, TIMER};
use crate::sysreg;
use core::sync::atomic::Ordering;
use hyp_abi::run_page::{
    Answer, ENTRY_ANSWER, ENTRY_FLAGS, ENTRY_ICH_HCR, ENTRY_LIST, ENTRY_LIST_COUNT, ENTRY_VALUES,
    EXIT_TIMER_COMPARE, EXIT_TIMER_CONTROL, EntryFlags, ExitReason,
};
use hyp_abi::{HostCall, Status, VmCall};
use payload_protocol::Secret;

impl Attacker<'_> {
    /// Runs a vCPU of a place a few times, as a host does that has nothing better to do.
    pub(super) fn run_some(&mut self, place: &Place) {
        if place.handle() == 0 || place.is_doomed.load(Ordering::Relaxed) {
            return self.end_vm(place);
        }
        // The first is the one that there is, and that is on.
        let (index, seat) = if self.random.one_in(3) {
            place.any_seat(&mut self.random)
        } else {
            (0, &place.seats[0])
        };
        for _ in 0..1 + self.random.below(12) {
            self.prepare(place, index, seat);
            if !self.run_once(place, index) {
                return;
            }
        }
    }

    /// Runs a vCPU, and answers what it leaves for. Returns whether there is more to do for it.
    pub(super) fn run_once(&mut self, place: &Place, index: u64) -> bool {
        let handle = place.handle();
        let watches = place.nature.keeps && self.random.one_in(4);
        let result = place.run(|| {
            if watches {
                self.run_watched(place, handle, index)
            } else {
                vm(VmCall::Run { vm: handle, index })
            }
        });
        self.ensure_nothing_told(place, index);
        match result {
            Ok(values) => self.left(place, index, values),
            Err(Status::VcpuOff) => {
                // With the last vCPU goes the VM.
                if index == 0 && self.random.one_in(8) {
                    place.doom();
                }
                false
            }
            // Dying by somebody's hand, or not launched yet; no such vCPU, or on another CPU.
            Err(_) => false,
        }
    }

    /// Runs a vCPU with every register of the host's set to something: each must be as it was, and none hold the secret.
    fn run_watched(&self, place: &Place, handle: u64, index: u64) -> Result<[u64; 3], Status> {
        // An interrupt's handler would change what is looked at. The guest is interrupted all the same.
        sysreg::mask_irqs();
        let After {
            results,
            general,
            vectors,
            system,
            leaked,
        } = registers::run(handle, index, Secret::new(place.seed));
        sysreg::unmask_irqs();
        if [general, vectors, system] != [0; 3] {
            self.fail(format_args!(
                "a run of VM {} changed registers of the host's: {general:#x}, {vectors:#x}, {system:#x}",
                place.number
            ));
        }
        if leaked != 0 {
            self.fail(format_args!(
                "after a run of VM {}, {leaked} words of its secret were in the host's registers",
                place.number
            ));
        }
        tally::attack(Kind::Watch, leaked == 0);
        answered(HostCall::Vm(VmCall::Run { vm: handle, index }).encode(), results)
    }

    /// The run page says nothing of what a guest keeps.
    fn ensure_nothing_told(&self, place: &Place, index: u64) {
        let Some(seat) = place.seats.get(index as usize) else {
            return;
        };
        if !place.nature.keeps {
            return;
        }
        let secret = Secret::new(place.seed);
        if let Some(word) = (0..RunPage::WORDS).find(|word| secret.is_in(seat.page.read(*word))) {
            self.fail(format_args!(
                "word {word} of the run page of VM {} vCPU {index} is of its secret",
                place.number
            ));
        }
    }

    /// Writes the entry record.
    fn prepare(&mut self, place: &Place, index: u64, seat: &Seat) {
        if self.random.one_in(24) {
            return self.prepare_nonsense(place, seat);
        }
        let mut flags = EntryFlags::empty();
        if let Some((answer, values)) = self.answer(place, index, seat) {
            flags |= EntryFlags::ANSWER;
            seat.page.write(ENTRY_ANSWER, answer.into());
            for (word, value) in values.into_iter().enumerate() {
                seat.page.write(ENTRY_VALUES + word, value);
            }
        }
        if self.prepare_interrupts(seat) {
            flags |= EntryFlags::INTERRUPTS;
        }
        seat.page.write(ENTRY_FLAGS, flags.bits());
    }

    /// An entry record of anything. What the guest is told to do is not among it where the guest keeps a secret.
    fn prepare_nonsense(&mut self, place: &Place, seat: &Seat) {
        let own = ENTRY_VALUES..ENTRY_VALUES + 4;
        for word in (0..ENTRY_LIST + 16).filter(|word| !(place.nature.keeps && own.contains(word))) {
            let value = match self.random.below(4) {
                0 => 0,
                1 => self.random.below(5),
                2 => vgic::pending(self.random.below(1024) as u32),
                _ => self.random.next(),
            };
            seat.page.write(word, value);
        }
    }

    /// The answer to the last exit.
    fn answer(&mut self, place: &Place, index: u64, seat: &Seat) -> Option<(Answer, [u64; 4])> {
        let reason = ExitReason::try_from(seat.reason.load(Ordering::Relaxed)).ok()?;
        let often = !self.random.one_in(8);
        match reason {
            ExitReason::HostService => {
                let order = self.order(place, index, seat);
                Some((Answer::Done, order.encode()))
            }
            ExitReason::MmioRead | ExitReason::MmioWrite if often || place.nature.keeps => {
                Some((Answer::Done, [self.random.next(), 0, 0, 0]))
            }
            ExitReason::MmioRead | ExitReason::MmioWrite => Some((Answer::Refuse, [0; 4])),
            ExitReason::Pinned if often => Some((Answer::Refuse, [0; 4])),
            ExitReason::MemoryFault if often => None,
            ExitReason::MemoryFault if !place.nature.keeps => Some((Answer::Refuse, [0; 4])),
            _ => self.random.one_in(8).then(|| {
                let answer = self.random.pick(&[Answer::Retry, Answer::Refuse, Answer::Done]);
                (answer, [0; 4])
            }),
        }
    }

    /// List registers: what waits for the vCPU, its timer if it is due, or something else. Returns whether there are any.
    pub(super) fn prepare_interrupts(&mut self, seat: &Seat) -> bool {
        let wanted = seat.wanted.swap(0, Ordering::Relaxed);
        let alarm = vgic::alarm(
            seat.page.read(EXIT_TIMER_CONTROL),
            seat.page.read(EXIT_TIMER_COMPARE),
        );
        let is_due = vgic::is_due(alarm);
        let extra = self.random.one_in(8);
        if wanted == 0 && !is_due && !extra {
            return false;
        }
        let first = if is_due { TIMER } else { wanted.trailing_zeros() };
        let mut list = [0; LIST_REGISTERS];
        if first < 64 {
            list[0] = vgic::pending(first);
        }
        if extra {
            list[1] = vgic::pending(self.random.below(1020) as u32);
            list[2] = if self.random.one_in(2) {
                self.random.next()
            } else {
                0
            };
        }
        seat.page.write(ENTRY_ICH_HCR, 0);
        seat.page.write(ENTRY_LIST_COUNT, 3);
        for (word, entry) in list.into_iter().enumerate() {
            seat.page.write(ENTRY_LIST + word, entry);
        }
        tally::attack(Kind::Interrupt, true);
        true
    }
}
