//! Sharing with VMs that are not protected: the host keeps its frames, and the guest borrows them.

use super::permissions::Rights;
use super::pin::one_more;
use super::range::Went;
use super::table::{GUEST_LARGEST, RunAt, unmap};
use crate::addr::FrameSpan;
use crate::hardware::Hardware;
use crate::map::{Entry, OwnershipMap};
use crate::ownership::permit::{Contingency, HostChange};
use crate::ownership::spare::Source;
use crate::ownership::{Ownership, Refusal, is_ranged};
use crate::pgtable::Change;
use crate::state::{Piece, State};
use crate::vm::GuestAnnotation;
use hyp_abi::Status;
use hyp_abi::vm_call::GuestRange;

impl<H: Hardware> Ownership<'_, H> {
    /// Lets the VM that the register `vm` names, which is not protected, borrow frames of the host, at guest frame numbers
    /// from `gfn` on, with `permissions` ([`hyp_abi::vm::Permissions`]). The contents are the host's affair, as is the
    /// cleaning of what a guest with its caches off shall read. Answers how many are done.
    ///
    /// # Errors
    /// [`Status::InvalidParameter`] for permissions without `READ` or with an unknown bit. Of the VM:
    /// [`Status::NoSuchVm`], [`Status::WrongVmKind`], [`Status::WrongVmState`]. Of the guest frame numbers:
    /// [`Status::GfnOutOfRange`], [`Status::GfnMapped`]. Of the frames: [`Status::NotMemory`], the refusal of a state that
    /// is neither `Host` nor `HostSharedGuest`, [`Status::CountOverflow`]. [`Status::VmNeedsMemory`],
    /// [`Status::NoMemory`].
    pub fn guest_share(&self, vm: u64, span: FrameSpan, gfn: u64, permissions: u64) -> Result<u64, Refusal> {
        let rights = Rights::decode(permissions)?;
        self.judge_gift(vm, span, gfn, false)?;
        let mut next = gfn;
        self.each_region(span, |piece| {
            let done = self.share_piece(vm, piece, next, rights, is_ranged(span))?;
            next = next.saturating_add(done);
            Ok(done)
        })
    }

    fn share_piece(
        &self,
        vm: u64,
        piece: Piece,
        gfn: u64,
        rights: Rights,
        ranged: bool,
    ) -> Result<u64, Refusal> {
        let hw = &self.hw;
        let mut locked = self.vms.lock(hw, vm)?;
        let vm = &mut *locked;
        vm.must_be_protected(false)?;
        vm.must_live()?;
        let frames = piece.span.frames();
        let span = vm.pages(gfn, frames)?;
        vm.must_be_vacant(hw, span)?;
        let start = piece.span.start();
        let region = self.map.lock(hw, start).ok_or(Status::NotMemory)?;
        region
            .check(piece.first, piece.count, must_be_lendable)
            .map_err(|(_, status)| status)?;
        let change = Change::Map {
            pa: start.address(),
            attributes: rights.attributes(),
            largest: GUEST_LARGEST,
        };
        if let Some(lacking) = vm.lacks(vm.tables_for(hw, span, change)) {
            return Err(Refusal::vm_needs(lacking));
        }
        let mut permit = self.permit(region, piece, Contingency::Whole(HostChange::None), |pages| {
            self.take_pages(pages, Source::Pool)
        })?;
        permit.enter_each(|entry| Entry::borrowed(entry.count().saturating_add(1)).unwrap_or(entry));
        rights.prepare(hw);
        vm.map(hw, span, start, rights.attributes());
        permit.finish(ranged);
        vm.counts.borrowed += frames;
        if ranged {
            vm.fold(hw, span);
        }
        Ok(frames)
    }

    /// Ends the borrowing of frames at guest frame numbers of the VM that the register `vm` names, which is not protected.
    /// Answers how many are done.
    ///
    /// # Errors
    /// [`Status::EmptyRange`], [`Status::NoSuchVm`], [`Status::WrongVmKind`], [`Status::GfnOutOfRange`],
    /// [`Status::GfnNotMapped`], [`Status::VmNeedsMemory`], [`Status::NoMemory`].
    pub fn guest_unshare(&self, vm: u64, range: GuestRange) -> Result<u64, Refusal> {
        if range.frames == 0 {
            return Err(Status::EmptyRange.into());
        }
        self.each_run(range, |left| {
            self.unshare_run(vm, left, range.frames > 1).map(Went::from)
        })
    }

    fn unshare_run(&self, vm: u64, left: GuestRange, ranged: bool) -> Result<u64, Refusal> {
        let hw = &self.hw;
        let mut locked = self.vms.lock(hw, vm)?;
        let vm = &mut *locked;
        vm.must_be_protected(false)?;
        let run = vm.run(hw, vm.pages(left.gfn, left.frames)?);
        let RunAt::Frames(frame) = run.at else {
            return Err(Status::GfnNotMapped.into());
        };
        let span = vm.pages(left.gfn, run.frames)?;
        let frames = FrameSpan::new(frame, run.frames).ok_or(Status::NotMemory)?;
        let (piece, _) = OwnershipMap::<H::Geometry>::first_piece(frames);
        let region = self.map.lock(hw, frame).ok_or(Status::NotMemory)?;
        region
            .check(piece.first, piece.count, must_be_borrowed)
            .map_err(|(_, status)| status)?;
        if let Some(lacking) = vm.lacks(vm.tables_for(hw, span, unmap(GuestAnnotation::Absent))) {
            return Err(Refusal::vm_needs(lacking));
        }
        let mut permit = self.permit(region, piece, Contingency::Whole(HostChange::None), |pages| {
            self.take_pages(pages, Source::Pool)
        })?;
        vm.annotate(hw, span, GuestAnnotation::Absent);
        permit.enter_each(|entry| Entry::borrowed(entry.count().saturating_sub(1)).unwrap_or(entry));
        permit.finish(ranged);
        vm.counts.borrowed = vm.counts.borrowed.saturating_sub(run.frames);
        if ranged {
            vm.fold(hw, span);
        }
        Ok(run.frames)
    }
}

/// Passes a frame that the host has alone or with guests, and that one more can borrow.
fn must_be_lendable(entry: Entry) -> Result<(), Status> {
    match entry.state() {
        State::HostSharedGuest => one_more(entry).map(|_| ()).ok_or(Status::CountOverflow),
        state => state.host_refusal().map_or(Ok(()), Err),
    }
}

/// Passes a frame that somebody borrows, as every frame that a guest's table leads to is.
fn must_be_borrowed(entry: Entry) -> Result<(), Status> {
    if entry.state() == State::HostSharedGuest && entry.count() > 0 {
        Ok(())
    } else {
        Err(Status::NotShared)
    }
}
