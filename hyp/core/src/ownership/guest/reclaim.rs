//! The way back from a dying guest: private frames come zeroed, those that it shared as they are.

use super::range::{Own, OwnRun, Went};
use super::table::gfn_address;
use super::transit::{Departure, Moving, Payer, in_transit, single_piece};
use crate::hardware::Hardware;
use crate::map::{Entry, OwnershipMap};
use crate::ownership::permit::{Contingency, HostChange};
use crate::ownership::spare::Source;
use crate::ownership::{Ownership, Refusal};
use crate::pgtable::Descriptor;
use crate::state::{Piece, State, TransitReason};
use crate::vm::{GuestAnnotation, Vm};
use hyp_abi::Status;
use hyp_abi::vm_call::GuestRange;

/// What the first commit of a reclaim came to.
enum Begun {
    /// So many pages are done: there was nothing, or what the guest shared.
    Done(u64),
    /// Private frames are on their way.
    Moving(Moving),
}

impl<H: Hardware> Ownership<'_, H> {
    /// Takes frames back from the dying protected VM that the register `vm` names. Answers how many pages are done, those
    /// with no frame among them.
    ///
    /// # Errors
    /// [`Status::EmptyRange`], [`Status::NoSuchVm`], [`Status::WrongVmKind`], [`Status::WrongVmState`],
    /// [`Status::GfnOutOfRange`], [`Status::Pinned`], [`Status::Busy`]; [`Status::Poisoned`] if the first frame turns out
    /// to be broken: it is nobody's then; [`Status::VmNeedsMemory`], [`Status::NoMemory`].
    pub fn guest_reclaim(&self, vm: u64, range: GuestRange) -> Result<u64, Refusal> {
        if range.frames == 0 {
            return Err(Status::EmptyRange.into());
        }
        if range.frames == 1
            && let Some(begun) = self.begin_reclaiming_one(vm, range.gfn)
        {
            return Ok(self.end_reclaiming(begun)?.frames);
        }
        self.each_run(range, |left| {
            let begun = self.begin_reclaiming(vm, left, range.frames > 1)?;
            self.end_reclaiming(begun)
        })
    }

    fn begin_reclaiming(&self, vm: u64, left: GuestRange, ranged: bool) -> Result<Begun, Refusal> {
        let mut vm = self.vms.lock(&self.hw, vm)?;
        vm.must_be_protected(true)?;
        if !vm.is_dying() {
            return Err(Status::WrongVmState.into());
        }
        let run = match self.own_run(&vm, left)? {
            Own::Hole(_, GuestAnnotation::Busy) => return Err(Status::Busy.into()),
            Own::Hole(frames, _) => return Ok(Begun::Done(frames)),
            Own::Frames(run) => run,
        };
        if run.entry.state() == State::GuestSharedHost {
            return self.reclaim_shared(&mut vm, run, ranged).map(Begun::Done);
        }
        let OwnRun { region, piece, entry } = run;
        let moving = self.depart(&mut vm, region, going(piece, entry.gfn(), ranged))?;
        vm.left(State::Guest, piece.span.frames());
        Ok(Begun::Moving(moving))
    }

    /// What the guest shared is the host's, as it is and where it is mapped already.
    fn reclaim_shared(&self, vm: &mut Vm<H>, run: OwnRun<'_, H>, ranged: bool) -> Result<u64, Refusal> {
        let OwnRun { region, piece, entry } = run;
        if entry.count() > 0 {
            return Err(Status::Pinned.into());
        }
        let frames = piece.span.frames();
        let span = vm.pages(entry.gfn(), frames)?;
        let tables = vm.tables_for(&self.hw, span, super::table::unmap(GuestAnnotation::Absent));
        if let Some(lacking) = vm.lacks(tables) {
            return Err(Refusal::vm_needs(lacking));
        }
        let change = Contingency::Whole(HostChange::None);
        let mut permit = self.permit(region, piece, change, |pages| {
            self.take_pages(pages, Source::Pool)
        })?;
        vm.annotate(&self.hw, span, GuestAnnotation::Absent);
        permit.enter(Entry::plain(State::Host));
        permit.finish(ranged);
        vm.left(State::GuestSharedHost, frames);
        if ranged {
            vm.fold(&self.hw, span);
        }
        Ok(frames)
    }

    /// The short way of [`Ownership::begin_reclaiming`] for one private page, where node and tables are there: `None`,
    /// and nothing has changed, if it must go the long way, which also says why it is refused.
    #[inline(always)]
    fn begin_reclaiming_one(&self, vm: u64, gfn: u64) -> Option<Begun> {
        let hw = &self.hw;
        let mut locked = self.vms.lock(hw, vm).ok()?;
        let vm = &mut *locked;
        if !vm.config.protected || !vm.is_dying() {
            return None;
        }
        let page = vm.table.page(hw, gfn_address(gfn)?)?;
        let Descriptor::Leaf { pa, .. } = page.descriptor() else {
            return None;
        };
        let frame = pa.frame();
        let index = OwnershipMap::<H::Geometry>::index_of(frame);
        let mut region = self.map.lock(hw, frame)?;
        let private = Entry::guest(false, vm.handle.slot, gfn);
        if !region.has_node() || region.entry(index) != private {
            return None;
        }
        // Where it will be mapped to the host there is a table already.
        self.host.page(hw, frame.address().host_ipa())?;
        page.unmap(hw, GuestAnnotation::Busy.encode());
        let _ = region.replace_one(index, private, in_transit(TransitReason::GuestReclaim));
        drop(region);
        vm.left(State::Guest, 1);
        vm.counts.in_transit += 1;
        let piece = single_piece::<H::Geometry>(frame);
        Some(Begun::Moving(Moving::single(
            vm.handle.slot,
            going(piece, gfn, false),
        )))
    }

    #[inline(always)]
    fn end_reclaiming(&self, begun: Begun) -> Result<Went, Refusal> {
        match begun {
            Begun::Done(frames) => Ok(frames.into()),
            Begun::Moving(moving) => {
                let all = moving.frames().frames();
                let came = self.zero(&moving);
                let back = Entry::guest(false, moving.slot(), moving.gfn());
                let frames = self.arrive(moving, &came, Entry::plain(State::Host), back)?;
                Ok(Went {
                    frames,
                    on: frames == all,
                })
            }
        }
    }
}

/// The way of private frames from a dying guest to the host.
const fn going(piece: Piece, gfn: u64, ranged: bool) -> Departure {
    Departure {
        reason: TransitReason::GuestReclaim,
        piece,
        gfn,
        host: HostChange::Grant,
        payer: Payer::Pool,
        hole: GuestAnnotation::Absent,
        ranged,
    }
}
