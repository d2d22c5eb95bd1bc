//! What a host does about an exit: mostly what it must.

use super::place::Place;
use super::vm;
use crate::attack::attacker::Attacker;
use crate::attack::tally::{self, Kind};
use crate::guest::vgic;
use core::sync::atomic::Ordering;
use hyp_abi::run_page::{EXIT_VALUES, ExitReason};
use hyp_abi::vm::Permissions;
use hyp_abi::{FrameRange, FrameState, GuestRange, VmCall};
use payload_protocol::{Report, SERVICE, layout};

/// The most pages that a host gives because a VM says that it needs them.
const MOST_PAGES: u64 = 64;

impl Attacker<'_> {
    /// A vCPU left. The page may say anything by now: what the registers say is what EL2 says. Returns whether to run it
    /// again.
    pub(super) fn left(&mut self, place: &Place, index: u64, [reason, first, second]: [u64; 3]) -> bool {
        let Some(seat) = place.seats.get(index as usize) else {
            self.fail(format_args!("vCPU {index} of VM {} has run", place.number));
            return false;
        };
        // That it is one was seen to where the answer was checked.
        let Ok(exit) = ExitReason::try_from(reason) else {
            return false;
        };
        tally::exit(exit);
        seat.value.store(first, Ordering::Relaxed);
        seat.reason.store(reason, Ordering::Relaxed);
        let goodwill = !self.random.one_in(16);
        match exit {
            ExitReason::MemoryFault if goodwill => self.provide(place, first),
            ExitReason::MemoryNeeded => {
                let pages = first.clamp(1, MOST_PAGES);
                self.supplied(
                    place.handle(),
                    VmCall::TopUp {
                        vm: place.handle(),
                        pages,
                    },
                );
            }
            ExitReason::MmioRead | ExitReason::MmioWrite => self.ensure_device(place, first),
            ExitReason::Pinned if goodwill => {
                if let Some(mut book) = place.book.try_lock()
                    && let Some(frame) = book.frame_at(first)
                {
                    self.unpin(&mut book, frame);
                }
            }
            ExitReason::HostService => self.listen(place, index, first, second),
            ExitReason::SendInterrupt => self.deliver(place, index, first),
            ExitReason::Relinquished if goodwill => self.take_relinquished(place, first, second),
            ExitReason::SystemOff | ExitReason::SystemReset => place.doom(),
            ExitReason::Lost | ExitReason::Unhandled => {
                if self.random.one_in(6) {
                    place.doom();
                }
                return false;
            }
            ExitReason::Wait | ExitReason::CpuOff => return false,
            _ => {}
        }
        true
    }

    /// A register of the guest's goes to the host, or the other way round: never by an access to its memory.
    fn ensure_device(&self, place: &Place, ipa: u64) {
        let memory = layout::MEMORY..layout::MEMORY + super::life::MEMORY.frames * hyp_abi::FRAME_SIZE;
        if memory.contains(&ipa) {
            self.fail(format_args!(
                "VM {} reached for {ipa:#x}, which is memory, as for a device",
                place.number
            ));
        }
    }

    /// Puts a page where the guest lacks one.
    fn provide(&mut self, place: &Place, gfn: u64) {
        let Some(mut book) = place.book.try_lock() else {
            return;
        };
        // What went there is no use to the guest: it may not use it as it wants, or has given it up, or another CPU took it
        // back.
        if let Some(frame) = book.frame_at(gfn) {
            match super::state(frame) {
                Some((FrameState::Relinquished, _)) if self.take_back(frame) => {
                    self.ensure_zero(frame, gfn);
                    book.note_back(frame);
                }
                Some((FrameState::Host, _)) => book.note_back(frame),
                _ if !place.nature.is_protected() => {
                    let call = VmCall::SetPermissions {
                        vm: place.handle(),
                        range: GuestRange::new(gfn, 1),
                        permissions: Permissions::all().bits(),
                    };
                    let _ = vm(call);
                    return;
                }
                _ => return,
            }
        }
        let Some(frame) = book.give(gfn) else {
            return place.doom();
        };
        let is_protected = place.nature.is_protected();
        if self.hand_over(place.handle(), is_protected, FrameRange::new(frame, 1), gfn) == 0 {
            self.settle(&mut book, frame);
        } else if is_protected {
            // At once: the CPU has just written to it, and remembers how.
            self.reach_for(place, &book, frame, gfn);
        }
    }

    /// A frame that did not go where it was to go: it is the host's still, or nobody's business before the VM's end.
    fn settle(&mut self, book: &mut super::book::Book, frame: u64) {
        if super::state(frame) == Some((FrameState::Host, 0)) {
            book.note_back(frame);
        }
    }

    /// Hands an interrupt on.
    fn deliver(&mut self, place: &Place, from: u64, value: u64) {
        let (targets, number) = vgic::targets(value, from as usize, place.seats.len());
        for target in targets {
            place.seats[target]
                .wanted
                .fetch_or(1 << number, Ordering::Relaxed);
        }
    }

    /// Takes what the guest gave up: it is zero.
    fn take_relinquished(&mut self, place: &Place, gfn: u64, frames: u64) {
        let Some(mut book) = place.book.try_lock() else {
            return;
        };
        for gfn in gfn..gfn.saturating_add(frames.min(super::life::GFNS)) {
            let Some(frame) = book.frame_at(gfn) else { continue };
            if self.take_back(frame) {
                self.ensure_zero(frame, gfn);
                book.note_back(frame);
            }
        }
    }

    /// What the guest says: how its last order went.
    fn listen(&mut self, place: &Place, index: u64, function: u64, kind: u64) {
        if function != u64::from(SERVICE) {
            return;
        }
        let seat = &place.seats[index as usize];
        let asked = seat.asked.load(Ordering::Relaxed);
        let value = |number: usize| seat.page.read(EXIT_VALUES + number);
        let report = Report::decode([kind, value(2), value(3), value(4), value(5), value(6)]);
        match report {
            Some(Report::Spoiled { address, differences }) if place.nature.keeps => {
                self.fail(format_args!(
                    "VM {} vCPU {index} does not find its secret: page {address:#x}, {differences:x?}",
                    place.number
                ));
            }
            Some(Report::Done([x0, ..])) => {
                tally::attack(Kind::Order, true);
                if asked != 0 {
                    tally::guest_call(asked as u32, x0.cast_signed() >= 0);
                }
            }
            Some(Report::Fault { .. }) => tally::attack(Kind::Order, false),
            Some(Report::Broken { .. }) | None => {
                if self.random.one_in(4) {
                    place.doom();
                }
            }
            Some(_) => {}
        }
    }
}
