//! What a call about a range of guest frame numbers does with each run of pages that have something in common.

use super::GuestOutcome;
use super::table::RunAt;
use crate::addr::FrameSpan;
use crate::hardware::Hardware;
use crate::map::{Entry, OwnershipMap, Region};
use crate::ownership::{Ownership, Refusal};
use crate::state::Piece;
use crate::vm::{GuestAnnotation, Vm};
use hyp_abi::vm_call::GuestRange;
use hyp_abi::{Counter, Status};

/// Pages of a protected guest whose frames are in one region and one state.
pub(super) struct OwnRun<'a, H: Hardware> {
    /// The region, locked.
    pub(super) region: Region<'a, H>,
    /// The frames.
    pub(super) piece: Piece,
    /// The entry of the first. That of each other one agrees.
    pub(super) entry: Entry,
}

/// What a protected guest has at its next pages.
pub(super) enum Own<'a, H: Hardware> {
    /// Frames of its own.
    Frames(OwnRun<'a, H>),
    /// For so many pages nothing, and what is known about that.
    Hole(u64, GuestAnnotation),
}

/// What a step of a ranged call did.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Went {
    /// How many pages it finished.
    pub(super) frames: u64,
    /// Whether the call goes on: not, if the step came less far than it had set out for.
    pub(super) on: bool,
}

impl From<u64> for Went {
    fn from(frames: u64) -> Self {
        Self { frames, on: true }
    }
}

impl<H: Hardware> Ownership<'_, H> {
    /// Does `step` for what is left of a range, from its first guest frame number, until it has finished all. Stops where
    /// it refuses or comes less far than it meant to, or an interrupt waits.
    ///
    /// # Errors
    /// What the first step answers. That of a later one is left to the call that resumes there.
    pub(super) fn each_run<E>(
        &self,
        range: GuestRange,
        mut step: impl FnMut(GuestRange) -> Result<Went, E>,
    ) -> Result<u64, E> {
        let mut done = 0;
        while let Some(left) = range.after(done) {
            match step(left) {
                Ok(Went { frames, on }) => {
                    done += frames;
                    if !on || frames == 0 {
                        break;
                    }
                }
                Err(error) if done == 0 => return Err(error),
                Err(_) => break,
            }
            if done < range.frames && self.hw.interrupt_pending() {
                self.hw.count(Counter::CallsInterrupted, 1);
                break;
            }
        }
        Ok(done)
    }

    /// What a protected VM has at the first pages of a range, which lies in its table.
    ///
    /// # Errors
    /// [`Status::GfnOutOfRange`], or [`Status::NotOwner`] if table and map disagree, which they never do.
    pub(super) fn own_run(&self, vm: &Vm<H>, range: GuestRange) -> Result<Own<'_, H>, Status> {
        let run = vm.run(&self.hw, vm.pages(range.gfn, range.frames)?);
        let frame = match run.at {
            RunAt::Hole(annotation) => return Ok(Own::Hole(run.frames, annotation)),
            RunAt::Frames(frame) => frame,
        };
        let region = self.map.lock(&self.hw, frame).ok_or(Status::NotOwner)?;
        let span = FrameSpan::new(frame, run.frames).ok_or(Status::NotOwner)?;
        let (piece, _) = OwnershipMap::<H::Geometry>::first_piece(span);
        let entry = region.entry(piece.first);
        if !entry.state().is_numbered() || entry.slot() != vm.handle.slot || entry.gfn() != range.gfn {
            return Err(Status::NotOwner);
        }
        let alike = region.agreeing(piece.first, piece.count) as u64;
        let (piece, _) = OwnershipMap::<H::Geometry>::first_piece(span.split_at(alike).0);
        Ok(Own::Frames(OwnRun { region, piece, entry }))
    }

    /// What a protected guest has at the first pages of a range that it names.
    ///
    /// # Errors
    /// [`GuestOutcome::Refused`], [`GuestOutcome::Absent`], [`GuestOutcome::Busy`].
    pub(super) fn own_frames(&self, vm: &Vm<H>, range: GuestRange) -> Result<OwnRun<'_, H>, GuestOutcome> {
        if !vm.config.protected {
            return Err(GuestOutcome::Refused);
        }
        match self.own_run(vm, range) {
            Ok(Own::Frames(run)) => Ok(run),
            Ok(Own::Hole(_, GuestAnnotation::Busy)) => Err(GuestOutcome::Busy),
            Ok(Own::Hole(_, GuestAnnotation::Absent))
                if vm.is_memory(range.gfn << crate::addr::FRAME_SHIFT) =>
            {
                Err(GuestOutcome::Absent(range.gfn))
            }
            Ok(Own::Hole(..)) | Err(_) => Err(GuestOutcome::Refused),
        }
    }
}

/// What a guest is told of a refusal: all that can be helped is that the reserve lacks pages.
pub(super) const fn told_to_guest(refusal: Refusal) -> GuestOutcome {
    match refusal.status {
        Status::VmNeedsMemory => GuestOutcome::NeedsPages(refusal.pages_needed),
        Status::Busy => GuestOutcome::Busy,
        _ => GuestOutcome::Refused,
    }
}

/// The outcome of a guest's call that finished so many pages, or met `Err`.
pub(super) const fn outcome(result: Result<u64, GuestOutcome>) -> GuestOutcome {
    match result {
        // A range without pages.
        Ok(0) => GuestOutcome::Refused,
        Ok(done) => GuestOutcome::Done(done),
        Err(outcome) => outcome,
    }
}
