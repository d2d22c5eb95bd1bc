//! The end of an attack, as far as guests go: every VM is compared with the map and killed, but those that keep a secret.
//! They are left with the secret in memory and in registers, for whoever wants to look for it.

use super::place::{Place, Seat};
use super::{life, vm};
use crate::attack::attacker::Attacker;
use crate::console::println;
use crate::hypercall::HYPERVISOR;
use crate::{sysreg, timer};
use hyp_abi::run_page::{
    Answer, ENTRY_ANSWER, ENTRY_FLAGS, ENTRY_ICH_HCR, ENTRY_LIST_COUNT, ENTRY_VALUES, EntryFlags, ExitReason,
};
use hyp_abi::{FRAME_SIZE, FrameState, GuestRange, VmCall};
use payload_protocol::{Door, Order, SERVICE};

/// How often a vCPU is run until it has done what it was told to.
const RUNS: u32 = 300;

/// How often a VM is made for that.
const TRIES: u32 = 4;

impl Attacker<'_> {
    /// Ends all VMs that keep no secret, and has the others keep theirs. No other CPU runs.
    pub(in crate::attack) fn end_guests(&mut self) {
        timer::interrupt_every(sysreg::counter_frequency() / 200);
        sysreg::unmask_irqs();
        let mut frames = 0;
        for place in &self.ground.places {
            if place.handle() != 0 {
                frames += self.last_audit(place);
            }
            if place.nature.keeps {
                self.ensure_kept(place);
                frames += self.last_audit(place);
                println!("A secret {}", place.seed);
            } else {
                self.end_for_good(place);
            }
        }
        println!("A guest-audit {frames}");
        sysreg::mask_irqs();
        timer::stop();
    }

    fn last_audit(&mut self, place: &Place) -> u64 {
        let audited = self.audit_vm(place.handle(), GuestRange::new(0, life::GFNS));
        if audited != Ok(life::GFNS) {
            let number = place.number;
            self.fail(format_args!(
                "the last audit of VM {number} ended so: {audited:x?}"
            ));
        }
        audited.unwrap_or(0)
    }

    fn end_for_good(&mut self, place: &Place) {
        if !self.end(place, &mut place.book.lock()) {
            self.fail(format_args!("VM {} does not end", place.number));
        }
        for seat in &place.seats {
            if let Err(error) = HYPERVISOR.unshare(seat.page.range()) {
                self.fail(format_args!("a run page of VM {}: {error}", place.number));
            }
        }
    }

    /// Has vCPU 0 keep the secret in two pages, and leave while it is in its registers.
    fn ensure_kept(&mut self, place: &Place) {
        for _ in 0..TRIES {
            if place.handle() != 0 && self.keeps(place, &place.seats[0]) {
                return;
            }
            let mut book = place.book.lock();
            self.end(place, &mut book);
            self.begin(place, &mut book);
        }
        self.fail(format_args!("VM {} keeps no secret", place.number));
    }

    fn keeps(&mut self, place: &Place, seat: &Seat) -> bool {
        let seed = place.seed;
        let orders = [
            Order::Keep { page: 0, seed },
            Order::Keep { page: 1, seed },
            Order::Watch {
                seed,
                door: Door::Wait,
                argument: 0,
            },
        ];
        // What the guest says first answers something else.
        let mut step = 0;
        seat.page.write(ENTRY_FLAGS, 0);
        for _ in 0..RUNS {
            let run = VmCall::Run {
                vm: place.handle(),
                index: 0,
            };
            let Ok(values) = vm(run) else { return false };
            let [reason, function, _] = values;
            if reason == ExitReason::Wait.into() && step == orders.len() {
                return true;
            }
            seat.page.write(ENTRY_FLAGS, 0);
            self.left(place, 0, values);
            if reason != ExitReason::HostService.into() || function != u64::from(SERVICE) {
                // What it did before may wait for one. Then none may be left, or it does not wait in the end.
                if step > 0 {
                    seat.page.write(ENTRY_LIST_COUNT, 0);
                    seat.page.write(ENTRY_ICH_HCR, 0);
                }
                if step > 0 || self.prepare_interrupts(seat) {
                    seat.page.write(ENTRY_FLAGS, EntryFlags::INTERRUPTS.bits());
                }
                continue;
            }
            let order = orders[step.min(orders.len() - 1)];
            step = orders.len().min(step + 1);
            seat.page.write(ENTRY_ANSWER, Answer::Done.into());
            for (word, value) in order.encode().into_iter().enumerate() {
                seat.page.write(ENTRY_VALUES + word, value);
            }
            seat.page.write(ENTRY_FLAGS, EntryFlags::ANSWER.bits());
        }
        false
    }
}

/// Whose the contents of a frame are that a place has.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(in crate::attack) enum Contents {
    /// The guest's alone, whose secret is made from this seed.
    Private(u64),
    /// The host may see them.
    Open,
}

/// Whose the contents of a frame are, if it is one that a place which keeps a secret may have left in this state.
pub(in crate::attack) fn of_a_guest(
    places: &[Place],
    at: u64,
    state: FrameState,
    count: u64,
) -> Option<Contents> {
    let keeps = places.iter().filter(|place| place.nature.keeps);
    for place in keeps {
        let range = place.book.lock().range();
        if (range.base..range.base + range.frames * FRAME_SIZE).contains(&at) {
            return match state {
                FrameState::NotYours => Some(Contents::Private(place.seed)),
                FrameState::Host | FrameState::GuestSharedHost | FrameState::Relinquished => {
                    Some(Contents::Open)
                }
                _ => None,
            };
        }
        let is_run_page = place.seats.iter().any(|seat| seat.page.address() == at);
        if is_run_page && state == FrameState::HostSharedHyp && count <= 1 {
            return Some(Contents::Open);
        }
    }
    None
}

/// How many frames are shared with EL2 in the end.
pub(in crate::attack) fn still_shared(places: &[Place]) -> u64 {
    places
        .iter()
        .filter(|place| place.nature.keeps)
        .map(|place| place.seats.len() as u64)
        .sum()
}
