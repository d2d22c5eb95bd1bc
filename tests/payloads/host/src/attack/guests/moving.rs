//! Calls that move frames to a VM and back, or pin them: frames of every kind.

use super::book::Book;
use super::every_call::CONTESTED_GFNS;
use super::place::Place;
use super::{orders, state, vm};
use crate::attack::attacker::Attacker;
use crate::attack::call::checked;
use crate::attack::ground::{Holding, boundary, boundary_count};
use hyp_abi::{FRAME_SIZE, FrameRange, FrameState, HostCall, Status, VmCall, VmCallId};

impl Attacker<'_> {
    /// Frames of every kind, to a VM of either kind.
    pub(super) fn give_frames(&mut self, place: &Place, handle: u64, id: VmCallId) {
        let gfn = self.any_gfn();
        let permissions = self.random.pick(&[0, 1, 2, 3, 5, 7, 8, u64::MAX]);
        let call = |range| match id {
            VmCallId::Donate => VmCall::Donate {
                vm: handle,
                range,
                gfn,
            },
            _ => VmCall::Share {
                vm: handle,
                range,
                gfn,
                permissions,
            },
        };
        match self.random.below(6) {
            // Devices, EL2's own, nothing at all.
            0 => {
                let base = boundary(self.ground, &mut self.random);
                let frames = boundary_count(&mut self.random);
                self.must_not_go(call(FrameRange::new(base, frames)));
            }
            // What is EL2's, or shared with it.
            1 => {
                if let Some(index) = self.plot_in(&[Holding::Donated, Holding::Shared, Holding::Ring]) {
                    let range = self.plots[index].range;
                    self.must_not_go(call(range));
                }
            }
            // The run page of this vCPU or that.
            2 => {
                let (_, seat) = place.any_seat(&mut self.random);
                let range = seat.page.range();
                self.must_not_go(call(range));
            }
            // What is another VM's, which its own place holds on to.
            3 => {
                let places = &self.ground.places;
                let other = &places[self.random.below(places.len() as u64) as usize];
                let Some(book) = other.book.try_lock() else { return };
                let Some((frame, _)) = book.any_given(&mut self.random) else {
                    return;
                };
                let range = FrameRange::new(frame, 1);
                match state(frame) {
                    Some((FrameState::HostSharedGuest, _)) => self.not_shared_with_el2(range),
                    Some((FrameState::Host, _)) | None => {}
                    Some(_) => self.must_not_go(call(range)),
                }
            }
            // Frames that everybody fights over. They come back from where they are known to go only.
            _ => {
                let contested = self.ground.contested;
                let first = self.random.below(contested.frames);
                let count = 1 + self.random.below((contested.frames - first).min(3));
                let range = FrameRange::new(contested.base + first * FRAME_SIZE, count);
                let goes_astray = !(CONTESTED_GFNS.start..CONTESTED_GFNS.end - 4).contains(&gfn);
                if place.nature.keeps || id == VmCallId::Share && goes_astray {
                    return;
                }
                match vm(call(range)) {
                    Err(Status::NoMemory) => self.supply_pool(),
                    Err(Status::VmNeedsMemory) => {
                        self.supply_vm(handle);
                    }
                    _ => {}
                }
            }
        }
    }

    /// What a guest borrows is not EL2's to give up: by now it may be the host's alone again, but never EL2's.
    fn not_shared_with_el2(&self, range: FrameRange) {
        let answer = checked(HostCall::UnshareHyp(range));
        if !matches!(answer, Err(Status::SharedWithGuest | Status::NotShared)) {
            self.fail(format_args!("unsharing {range:x?} from EL2 answered {answer:x?}"));
        }
    }

    /// A call that gives away what is not the host's alone.
    fn must_not_go(&self, call: VmCall) {
        if let Ok(values) = vm(call) {
            self.fail(format_args!("{call:x?} was accepted: {values:x?}"));
        }
    }

    /// Frames that come back from a VM which lives: by force, or because the guest gave them up.
    pub(super) fn take_frames(&mut self, place: &Place, id: VmCallId) {
        let call = |frame| match id {
            VmCallId::ForceReclaim => VmCall::ForceReclaim { frame },
            _ => VmCall::TakeBack(FrameRange::new(frame, 1)),
        };
        match self.random.below(8) {
            0 => {
                let frame = boundary(self.ground, &mut self.random);
                self.must_not_go(call(frame));
            }
            1 => {
                if let Some(index) =
                    self.plot_in(&[Holding::Donated, Holding::Shared, Holding::Ring, Holding::Host])
                {
                    let frame = self.plots[index].any_frame(&mut self.random);
                    self.must_not_go(call(frame));
                }
            }
            2 | 3 => {
                let contested = self.ground.contested;
                let frame = contested.base + self.random.below(contested.frames) * FRAME_SIZE;
                if vm(call(frame)) == Err(Status::NoMemory) {
                    self.supply_pool();
                }
            }
            _ => {
                let Some(mut book) = place.book.try_lock() else {
                    return;
                };
                // Without its code a guest does nothing any more.
                let spares = id == VmCallId::ForceReclaim && !self.random.one_in(8);
                let from = if spares { orders::WINDOW } else { 0 };
                let Some((frame, gfn)) = book.any_given_from(from, &mut self.random) else {
                    return;
                };
                if self.supplied(place.handle(), call(frame)).is_none() {
                    return;
                }
                self.ensure_zero(frame, gfn);
                book.note_back(frame);
                if id == VmCallId::ForceReclaim {
                    self.ensure_lost(place, frame, gfn);
                }
            }
        }
    }

    /// Nothing can be put where a page was taken by force, for as long as the VM lives.
    fn ensure_lost(&self, place: &Place, frame: u64, gfn: u64) {
        let call = VmCall::Donate {
            vm: place.handle(),
            range: FrameRange::new(frame, 1),
            gfn,
        };
        self.must_not_go(call);
    }

    pub(super) fn pins(&mut self, place: &Place, id: VmCallId) {
        let call = |range| match id {
            VmCallId::PinShared => VmCall::PinShared(range),
            _ => VmCall::UnpinShared(range),
        };
        let wild = match self.random.below(8) {
            0 => Some(FrameRange::new(
                boundary(self.ground, &mut self.random),
                boundary_count(&mut self.random),
            )),
            1 => {
                let contested = self.ground.contested;
                let frame = contested.base + self.random.below(contested.frames) * FRAME_SIZE;
                Some(FrameRange::new(frame, 1))
            }
            _ => None,
        };
        if let Some(range) = wild {
            if vm(call(range)) == Err(Status::NoMemory) {
                self.supply_pool();
            }
            return;
        }
        let Some(mut book) = place.book.try_lock() else {
            return;
        };
        // Something that is lent, if there is anything.
        let lent = book
            .all_given()
            .filter(|(_, gfn)| *gfn >= orders::WINDOW)
            .map(|(frame, _)| frame)
            .find(|&frame| matches!(state(frame), Some((FrameState::GuestSharedHost, _))));
        let any = lent.or_else(|| book.any_given(&mut self.random).map(|(frame, _)| frame));
        let Some(frame) = any else { return };
        let frames = if self.random.one_in(4) {
            1 + self.random.below(book.frames_from(frame))
        } else {
            1
        };
        match vm(call(FrameRange::new(frame, frames))) {
            Ok([done, ..]) if id == VmCallId::PinShared => book.note_pinned(frame, done),
            Ok([done, ..]) => book.note_unpinned(frame, done),
            Err(Status::NoMemory) => self.supply_pool(),
            Err(_) => {}
        }
        self.ensure_pinned(&book, frame);
    }

    /// What is pinned is lent, and stays so whatever the guest wants.
    pub(super) fn ensure_pinned(&self, book: &Book, frame: u64) {
        let pins = book.pins(frame);
        if pins == 0 {
            return;
        }
        let now = state(frame);
        if now != Some((FrameState::GuestSharedHost, pins)) {
            self.fail(format_args!(
                "{frame:#x}, which is pinned {pins} times, is {now:?}"
            ));
        }
    }
}
