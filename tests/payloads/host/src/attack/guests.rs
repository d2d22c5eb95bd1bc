//! VMs of the hostile host, and hostile guests in them.
//!
//! A [`place`] is where a VM lives, is killed, and the next one takes its place. Every CPU may do anything to every VM at
//! any time, so that no answer but an impossible one is wrong ([`judge`]); what a place knows for sure, it knows under its
//! lock ([`book`]): which of its frames it has given away, and that they come back, the private ones zeroed ([`life`]).
//!
//! Guests of some places keep secrets, in memory and in registers, and say so if one is spoiled. They do only what
//! does not give the secret away; the others do anything ([`orders`]).
//!
//! - [`running`]: runs of vCPUs, with entry records and answers that mostly make sense, and [`exits`], what follows.
//! - [`every_call`]: each of the calls, with random and boundary values, on right and wrong handles; those that move frames
//!   are in [`moving`].
//! - [`brief`]: a VM that nobody else knows of.

mod book;
mod brief;
pub(super) mod end;
mod every_call;
mod exits;
pub(super) mod judge;
mod life;
mod moving;
mod orders;
pub(super) mod place;
mod running;

use super::attacker::Attacker;
use super::bank;
use super::call::checked;
use super::ground::REGION_FRAMES;
use super::tally::{self, Kind};
use crate::guest::run_page::RunPage;
use crate::probe;
use book::Book;
use hyp_abi::run_page::ENTRY_VALUES;
use hyp_abi::{FRAME_SIZE, FrameState, HostCall, Status, VmCall};
use place::{Place, VCPUS};

/// A call about VMs, made, counted and checked.
///
/// # Errors
/// The refusal.
fn vm(call: VmCall) -> Result<[u64; 3], Status> {
    checked(HostCall::Vm(call))
}

/// Ends a VM, as far as it has no frames: an interrupt that waits may stop that half way.
///
/// # Errors
/// The refusal.
fn destroy(handle: u64) -> Result<(), Status> {
    for _ in 0..life::PATIENCE {
        match vm(VmCall::Destroy { vm: handle }) {
            Err(Status::Busy) => {}
            other => return other.map(|_| ()),
        }
    }
    tally::fail(format_args!("destroying {handle:#x} makes no progress"));
    Err(Status::Busy)
}

/// What the host is told of a frame, and its count. `None` if EL2 does not say, which it then fails for.
fn state(frame: u64) -> Option<(FrameState, u64)> {
    match checked(HostCall::FrameState { frame }) {
        Ok([state, count, _]) => FrameState::try_from(state).ok().map(|state| (state, count)),
        Err(status) => {
            tally::fail(format_args!("the state of {frame:#x}: {status:?}"));
            None
        }
    }
}

impl Attacker<'_> {
    /// One attack by way of a VM.
    pub(super) fn guests(&mut self) {
        let place = &self.ground.places[self.random.below(self.ground.places.len() as u64) as usize];
        match self.random.below(100) {
            0..58 => self.run_some(place),
            58..84 => self.any_vm_call(place),
            84..92 => self.private_memory(place),
            92..97 => self.scribble(place),
            97 | 98 => self.brief_vm(),
            _ => self.end_vm(place),
        }
    }

    /// Gives EL2 pages, because it said that it needs some.
    fn supply_pool(&mut self) {
        let _ = bank::give(&mut self.random, REGION_FRAMES) || bank::give(&mut self.random, 16);
    }

    /// Writes what makes no sense to a run page, whoever uses it.
    fn scribble(&mut self, place: &Place) {
        let seat = &place.seats[self.random.below(VCPUS) as usize];
        for _ in 0..1 + self.random.below(40) {
            let word = match self.random.below(4) {
                0 => self.random.below(RunPage::WORDS as u64),
                1 => 64 + self.random.below(32),
                _ => self.random.below(24),
            };
            // What the guest is told to do stays what it was where it might give a secret away.
            if place.nature.keeps && (ENTRY_VALUES as u64..ENTRY_VALUES as u64 + 4).contains(&word) {
                continue;
            }
            let value = match self.random.below(3) {
                0 => self.random.below(8),
                1 => 1 << self.random.below(64),
                _ => self.random.next(),
            };
            seat.page.write(word as usize, value);
        }
        tally::attack(Kind::Scribble, true);
    }

    /// Reaches for a frame behind a guest's memory.
    fn private_memory(&mut self, place: &Place) {
        // Whoever brings a frame back holds the lock.
        let Some(book) = place.book.try_lock() else { return };
        if let Some((frame, gfn)) = book.any_given(&mut self.random) {
            self.reach_for(place, &book, frame, gfn);
        }
    }

    /// Reaches for a frame that was given to a guest.
    fn reach_for(&mut self, place: &Place, book: &Book, frame: u64, gfn: u64) {
        self.ensure_pinned(book, frame);
        let (entries, before) = (place.entries(), state(frame));
        let (level, access) = (self.any_level(), self.any_access());
        let address = frame + self.random.below(FRAME_SIZE / 64) * 64;
        let result = probe::access(level, access, level.address(address), self.random.next());
        let is_private = |state| state == Some((FrameState::NotYours, 0));
        if is_private(before) && is_private(state(frame)) {
            // A guest may have lent it in between, and taken it back.
            let must = place.nature.never_lends(gfn) || entries.is_some() && entries == place.entries();
            if must && let Ok(value) = result {
                self.fail(format_args!(
                    "{access:?} by {level:?} of a guest's {address:#x} gave {value:#x}"
                ));
            }
            if must {
                tally::attack(Kind::PrivateMemory, result.is_ok());
            }
        } else {
            tally::attack(Kind::LentMemory, result.is_ok());
        }
        if result.is_err() {
            self.must_be_refused(
                format_args!("{access:?} by {level:?} of a guest's {address:#x}"),
                level,
                result,
            );
        }
    }
}
