//! Donation to a guest: the host gives frames to a protected VM and can no longer touch them.

use super::table::gfn_address;
use super::transit::{Departure, Moving, Payer, in_transit, single_piece};
use crate::addr::{Frame, FrameSpan};
use crate::hardware::Hardware;
use crate::map::Entry;
use crate::ownership::permit::HostChange;
use crate::ownership::share::must_be_host;
use crate::ownership::{Ownership, Refusal, is_ranged};
use crate::state::{Piece, State, TransitReason};
use crate::vm::{GuestAnnotation, Life};
use hyp_abi::Status;

impl<H: Hardware> Ownership<'_, H> {
    /// Gives frames of the host to the protected VM that the register `vm` names, at guest frame numbers from `gfn` on.
    /// Before its launch they keep their contents, which are digested; afterwards they are zeroed. Answers how many are
    /// done.
    ///
    /// # Errors
    /// Of the VM: [`Status::NoSuchVm`], [`Status::WrongVmKind`], [`Status::WrongVmState`]. Of the guest frame numbers:
    /// [`Status::GfnOutOfRange`], [`Status::GfnMapped`], [`Status::GfnLost`], [`Status::Busy`]. Of the frames:
    /// [`Status::NotMemory`], the refusal of a state that is not `Host`, [`Status::Poisoned`]. [`Status::VmNeedsMemory`],
    /// [`Status::NoMemory`].
    pub fn guest_donate(&self, vm: u64, span: FrameSpan, gfn: u64) -> Result<u64, Refusal> {
        if !is_ranged(span)
            && let Some((moving, keep)) = self.begin_donating_one(vm, span.start(), gfn)
        {
            return self.end_donating(moving, keep);
        }
        self.judge_gift(vm, span, gfn, true)?;
        let mut next = gfn;
        self.each_region(span, |piece| {
            let (moving, keep) = self.begin_donating(vm, piece, next, is_ranged(span))?;
            let done = self.end_donating(moving, keep)?;
            next = next.saturating_add(done);
            Ok(done)
        })
    }

    /// Judges a ranged gift to a VM as a whole, before any of it is done: a range that the VM's guest frame numbers do not
    /// hold was never meant. What this cannot see is judged piece by piece.
    pub(super) fn judge_gift(
        &self,
        vm: u64,
        span: FrameSpan,
        gfn: u64,
        protected: bool,
    ) -> Result<(), Status> {
        if !is_ranged(span) {
            return Ok(());
        }
        let vm = self.vms.lock(&self.hw, vm)?;
        vm.must_be_protected(protected)?;
        vm.must_live()?;
        vm.pages(gfn, span.frames()).map(drop)
    }

    /// Takes the frames of a piece from the host. Answers whether their contents are kept, too.
    pub(super) fn begin_donating(
        &self,
        vm: u64,
        piece: Piece,
        gfn: u64,
        ranged: bool,
    ) -> Result<(Moving, bool), Refusal> {
        let mut vm = self.vms.lock(&self.hw, vm)?;
        vm.must_be_protected(true)?;
        vm.must_live()?;
        let span = vm.pages(gfn, piece.span.frames())?;
        vm.must_be_vacant(&self.hw, span)?;
        let region = self
            .map
            .lock(&self.hw, piece.span.start())
            .ok_or(Status::NotMemory)?;
        region
            .check(piece.first, piece.count, must_be_host)
            .map_err(|(_, status)| status)?;
        let keep = vm.life == Life::Created;
        let moving = self.depart(&mut vm, region, going(piece, gfn, ranged))?;
        Ok((moving, keep))
    }

    /// The short way of [`Ownership::begin_donating`] for one frame, where node and tables are there: `None`, and nothing
    /// has changed, if it must go the long way, which also says why a donation is refused.
    #[inline(always)]
    fn begin_donating_one(&self, vm: u64, frame: Frame, gfn: u64) -> Option<(Moving, bool)> {
        let hw = &self.hw;
        let mut locked = self.vms.lock(hw, vm).ok()?;
        let vm = &mut *locked;
        if !vm.config.protected || vm.is_dying() {
            return None;
        }
        let page = vm.table.page(hw, gfn_address(gfn)?)?;
        if !page.is_empty() {
            return None;
        }
        let piece = single_piece::<H::Geometry>(frame);
        let mut region = self.map.lock(hw, frame)?;
        let host = Entry::plain(State::Host);
        if !region.has_node() || region.entry(piece.first) != host {
            return None;
        }
        let host_page = self.host.page(hw, frame.address().host_ipa())?;
        page.unmap(hw, GuestAnnotation::Busy.encode());
        host_page.unmap(hw, GuestAnnotation::Absent.encode());
        let _ = region.replace_one(piece.first, host, in_transit(TransitReason::GuestDonate));
        drop(region);
        vm.counts.in_transit += 1;
        let moving = Moving::single(vm.handle.slot, going(piece, gfn, false));
        Some((moving, vm.life == Life::Created))
    }

    /// Deals with the contents of the frames, and gives them to the guest.
    #[inline(always)]
    pub(super) fn end_donating(&self, moving: Moving, keep: bool) -> Result<u64, Refusal> {
        let came = self.prepare(&moving, keep);
        let given = Entry::guest(false, moving.slot(), moving.gfn());
        Ok(self.arrive(moving, &came, given, Entry::plain(State::Host))?)
    }
}

/// The way of frames from the host to a guest.
const fn going(piece: Piece, gfn: u64, ranged: bool) -> Departure {
    Departure {
        reason: TransitReason::GuestDonate,
        piece,
        gfn,
        host: HostChange::Revoke,
        payer: Payer::Pool,
        hole: GuestAnnotation::Absent,
        ranged,
    }
}
