//! Frames on their way: the two commits between which no lock is held.
//!
//! [`Ownership::depart`] takes frames from host or guest; after that only EL2 reaches them. Their contents are dealt
//! with, and [`Ownership::arrive`] gives them to whoever gets them; those that the work did not reach go back to where
//! they were. Every page that either of these may need is taken at the departure.

use super::table::{OWN_MEMORY, gfn_address, unmap};
use crate::addr::{Frame, FrameSpan};
use crate::geometry::Geometry;
use crate::hardware::Hardware;
use crate::map::{Entry, OwnershipMap, Region, Replaced};
use crate::ownership::permit::{Contingency, HostChange, Pages, Permit};
use crate::ownership::reclaim::Scrubbed;
use crate::ownership::spare::Source;
use crate::ownership::{Ownership, Refusal};
use crate::pgtable::{Reserve, Stage2Attributes};
use crate::state::{Piece, State, Transit, TransitReason};
use crate::vm::{GuestAnnotation, LockedVm, Vm};
use hyp_abi::Status;

/// Who pays for nodes and for tables of the host's. A guest's table is always paid by its VM.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Payer {
    /// The pool: the host has called.
    Pool,
    /// The VM's reserve: its guest has called.
    Vm,
}

/// What is to go on its way.
#[derive(Clone, Copy, Debug)]
pub(super) struct Departure {
    /// Why.
    pub(super) reason: TransitReason,
    /// Which frames.
    pub(super) piece: Piece,
    /// The guest frame number of the first.
    pub(super) gfn: u64,
    /// What the host's table is in for: `Revoke` is done at once, `Grant` on arrival.
    pub(super) host: HostChange,
    /// Who pays.
    pub(super) payer: Payer,
    /// What the guest's table says afterwards where no frame is.
    pub(super) hole: GuestAnnotation,
    /// Whether the call is for more than one page.
    pub(super) ranged: bool,
}

/// Frames on their way, with every page that their arrival may need.
#[must_use = "frames in transit have to arrive"]
pub(super) struct Moving {
    slot: u8,
    going: Departure,
    pages: Pages,
    spare: Reserve,
}

impl Moving {
    /// The frames.
    pub(super) const fn frames(&self) -> FrameSpan {
        self.going.piece.span
    }

    /// The slot of the VM.
    pub(super) const fn slot(&self) -> u8 {
        self.slot
    }

    /// The guest frame number of the first.
    pub(super) const fn gfn(&self) -> u64 {
        self.going.gfn
    }

    /// One frame that left by a short way: all tables and the node that it needs are there.
    pub(super) const fn single(slot: u8, going: Departure) -> Self {
        Self {
            slot,
            going,
            pages: Pages::none(),
            spare: Reserve::new(),
        }
    }
}

/// The entry of a frame in transit that a CPU is at work on.
#[inline(always)]
pub(super) const fn in_transit(reason: TransitReason) -> Entry {
    Entry::in_transit(Transit {
        reason,
        active: true,
        progress: 0,
    })
}

/// A frame as a piece of its own.
#[inline(always)]
pub(super) fn single_piece<G: Geometry>(frame: Frame) -> Piece {
    OwnershipMap::<G>::first_piece(FrameSpan::single(frame)).0
}

impl<H: Hardware> Ownership<'_, H> {
    /// The VM in a slot, which cannot go away: a vCPU of it runs, or frames of it are in transit.
    #[inline(always)]
    pub(super) fn lock_guest(&self, slot: u8) -> Option<LockedVm<'_, H>> {
        self.vms.lock_slot(&self.hw, slot)?.into_vm()
    }

    /// Takes frames of `region`, which were judged, from whoever has them. The caller takes them off the VM's counts.
    ///
    /// # Errors
    /// [`Status::VmNeedsMemory`], [`Status::NoMemory`].
    pub(super) fn depart(
        &self,
        vm: &mut Vm<H>,
        region: Region<'_, H>,
        going: Departure,
    ) -> Result<Moving, Refusal> {
        let hw = &self.hw;
        let frames = going.piece.span.frames();
        let span = vm.pages(going.gfn, frames)?;
        // A block whose frames do not all arrive alike is split then.
        let whole = frames == <H::Geometry as Geometry>::REGION_FRAMES
            && span.start().is_aligned(<H::Geometry as Geometry>::REGION_SHIFT);
        let spare = u64::from(whole);
        let tables = vm.tables_for(hw, span, unmap(GuestAnnotation::Busy)) + spare;
        let change = Contingency::Parts(going.host);
        let mut permit = match going.payer {
            Payer::Pool => {
                if let Some(lacking) = vm.lacks(tables) {
                    return Err(Refusal::vm_needs(lacking));
                }
                self.permit(region, going.piece, change, |pages| {
                    self.take_pages(pages, Source::Pool)
                })?
            }
            Payer::Vm => self.permit_from_vm(vm, region, going.piece, change, tables)?,
        };
        let spare = vm.reserve.split(hw, spare).unwrap_or_default();
        vm.annotate(hw, span, GuestAnnotation::Busy);
        if going.host == HostChange::Revoke {
            permit.revoke().complete(hw);
        }
        permit.enter(in_transit(going.reason));
        vm.counts.in_transit += frames;
        Ok(Moving {
            slot: vm.handle.slot,
            going,
            pages: permit.suspend(),
            spare,
        })
    }

    /// Leave to change frames at the expense of the VM's reserve, which `others` pages have to stay in.
    ///
    /// # Errors
    /// [`Status::VmNeedsMemory`].
    pub(super) fn permit_from_vm<'a>(
        &'a self,
        vm: &mut Vm<H>,
        region: Region<'a, H>,
        piece: Piece,
        change: Contingency,
        others: u64,
    ) -> Result<Permit<'a, H>, Refusal> {
        let hw = &self.hw;
        let reserve = &mut vm.reserve;
        let permit = self.permit(region, piece, change, |pages| {
            if reserve.pages() < pages + others {
                return None;
            }
            reserve.split(hw, pages)
        });
        match permit {
            Ok(permit) => match vm.lacks(others) {
                None => Ok(permit),
                // Then the permit itself took none.
                Some(lacking) => Err(Refusal::vm_needs(lacking)),
            },
            Err(refusal) => {
                let needed = refusal.pages_needed + others;
                Err(Refusal::vm_needs(needed.saturating_sub(vm.reserve.pages())))
            }
        }
    }

    /// Ends the journey: the frames whose contents are as they must be get the entry `good`, and the rest go `back`. Both
    /// are entries of the first frame. Answers how many arrived.
    ///
    /// # Errors
    /// [`Status::Poisoned`] if the first one answered with an external abort: it is poisoned now, and the others are back.
    /// One that is not the first goes back with the rest, so that a caller meets it alone.
    pub(super) fn arrive(
        &self,
        moving: Moving,
        came: &Scrubbed,
        good: Entry,
        back: Entry,
    ) -> Result<u64, Status> {
        let frames = moving.frames().frames();
        if came.poisoned && came.frames == 0 {
            self.settle(moving, [(1, Entry::plain(State::Poisoned)), (frames - 1, back)]);
            return Err(Status::Poisoned);
        }
        // Without pages in hand none is needed: node and tables are there.
        if frames == 1 && came.frames == 1 && moving.pages.is_empty() {
            self.settle_one(&moving, good);
            return Ok(1);
        }
        self.settle(moving, [(came.frames, good), (frames - came.frames, back)]);
        Ok(came.frames)
    }

    /// The second commit: so many frames get this entry, and the others that one.
    fn settle(&self, moving: Moving, parts: [(u64, Entry); 2]) {
        let hw = &self.hw;
        let Moving {
            slot,
            going,
            pages,
            spare,
        } = moving;
        let mut locked = self
            .lock_guest(slot)
            .expect("frames in transit keep their VM from going away");
        let vm = &mut *locked;
        vm.reserve.append(hw, spare);
        let mut permit = self
            .resume(going.piece, pages)
            .expect("frames in transit are RAM");
        let mut first = 0;
        for (frames, entry) in parts.into_iter().filter(|(frames, _)| *frames > 0) {
            // A piece lies in one region, so its counts fit.
            permit.enter_part(first as usize, frames as usize, entry.at(first as usize));
            first += frames;
        }
        first = 0;
        for (frames, entry) in parts.into_iter().filter(|(frames, _)| *frames > 0) {
            let state = entry.state();
            if state.host_may_access() {
                permit.grant_part(first, frames);
            }
            if let (Ok(span), Some(frame)) = (
                vm.pages(going.gfn + first, frames),
                going.piece.span.start().checked_add(first),
            ) {
                if state.is_numbered() {
                    vm.map(hw, span, frame, OWN_MEMORY);
                } else {
                    vm.annotate(hw, span, going.hole);
                }
            }
            vm.arrived(state, frames);
            if state == State::Poisoned && going.reason == TransitReason::GuestRelinquish {
                // Given up it is all the same.
                vm.arrived(State::Relinquished, frames);
            }
            first += frames;
        }
        vm.counts.in_transit = vm.counts.in_transit.saturating_sub(first);
        let unneeded = permit.end(going.ranged);
        match going.payer {
            Payer::Pool => unneeded.release(hw),
            Payer::Vm => unneeded.release_into(hw, &mut vm.reserve),
        }
        if going.ranged
            && let Ok(span) = vm.pages(going.gfn, first)
        {
            vm.fold(hw, span);
        }
    }

    /// The second commit of a single page. Its node, and the tables of the last level that it needs, are there.
    #[inline(always)]
    fn settle_one(&self, moving: &Moving, entry: Entry) {
        let hw = &self.hw;
        let going = &moving.going;
        let frame = going.piece.span.start();
        let mut locked = self
            .lock_guest(moving.slot)
            .expect("frames in transit keep their VM from going away");
        let vm = &mut *locked;
        let mut region = self.map.lock(hw, frame).expect("frames in transit are RAM");
        let replaced = region.replace_one(going.piece.first, in_transit(going.reason), entry);
        debug_assert_eq!(replaced, Replaced::Done, "a frame in transit is nobody else's");
        let state = entry.state();
        if state.host_may_access() {
            let page = self.host.page(hw, frame.address().host_ipa());
            page.expect("a page in transit keeps its tables").map(
                hw,
                frame.address(),
                Stage2Attributes::HOST_MEMORY,
            );
        }
        drop(region);
        let page = gfn_address(going.gfn).and_then(|address| vm.table.page(hw, address));
        let page = page.expect("a page in transit keeps its tables");
        if state.is_numbered() {
            page.map(hw, frame.address(), OWN_MEMORY);
        } else {
            page.unmap(hw, going.hole.encode());
        }
        vm.arrived(state, 1);
        vm.counts.in_transit = vm.counts.in_transit.saturating_sub(1);
    }
}
