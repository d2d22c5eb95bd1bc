//! A VM's table, and the pages for it: under the VM's lock nobody else reads or changes either.

use crate::addr::{FRAME_SHIFT, Frame, Ipa};
use crate::geometry::Geometry;
use crate::hardware::Hardware;
use crate::pgtable::{
    Change, Descriptor, Execute, IpaSpan, LargestLeaf, Obligation, Shareability, Stage2, Stage2Access,
    Stage2Attributes, Stage2Memory,
};
use crate::state::State;
use crate::vm::{GuestAnnotation, Life, Vm};
use hyp_abi::Status;

/// A guest's leaves are blocks of one region at most: none spans two regions of the map.
pub(super) const GUEST_LARGEST: LargestLeaf = LargestLeaf::Region;

/// A page that is a protected guest's own: it may do everything with it.
pub(super) const OWN_MEMORY: Stage2Attributes = Stage2Attributes::new(
    Stage2Memory::WriteBack,
    Stage2Access::all(),
    Execute::All,
    Shareability::Inner,
);

/// What the first pages of a range have in common.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Run {
    /// How many pages; at least 1.
    pub(super) frames: u64,
    /// What is there.
    pub(super) at: RunAt,
}

/// What is at a run of pages.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum RunAt {
    /// Frames side by side, in one region of the map, from this one on.
    Frames(Frame),
    /// Nothing, and what is known about that.
    Hole(GuestAnnotation),
}

/// The first address of a guest frame number; `None` if it is none.
#[inline(always)]
pub(super) const fn gfn_address(gfn: u64) -> Option<Ipa> {
    if gfn >> (u64::BITS - FRAME_SHIFT) != 0 {
        return None;
    }
    Ipa::new(gfn << FRAME_SHIFT)
}

/// The change that takes what is mapped away and says `annotation` instead.
pub(super) const fn unmap(annotation: GuestAnnotation) -> Change<Stage2> {
    Change::Unmap {
        annotation: annotation.encode(),
        largest: GUEST_LARGEST,
    }
}

impl<H: Hardware> Vm<H> {
    /// The pages from a guest frame number on.
    ///
    /// # Errors
    /// [`Status::GfnOutOfRange`].
    pub(super) fn pages(&self, gfn: u64, frames: u64) -> Result<IpaSpan, Status> {
        gfn_address(gfn)
            .and_then(|start| IpaSpan::new(start, frames))
            .filter(|span| self.table.contains(*span))
            .ok_or(Status::GfnOutOfRange)
    }

    /// Whether it is being taken apart.
    #[inline(always)]
    pub(super) const fn is_dying(&self) -> bool {
        matches!(self.life, Life::Dying)
    }

    /// Passes a VM of the kind that a call is for.
    ///
    /// # Errors
    /// [`Status::WrongVmKind`].
    pub(super) const fn must_be_protected(&self, protected: bool) -> Result<(), Status> {
        if self.config.protected == protected {
            Ok(())
        } else {
            Err(Status::WrongVmKind)
        }
    }

    /// Passes a VM that can yet be given memory.
    ///
    /// # Errors
    /// [`Status::WrongVmState`].
    pub(super) const fn must_live(&self) -> Result<(), Status> {
        if self.is_dying() {
            Err(Status::WrongVmState)
        } else {
            Ok(())
        }
    }

    /// Passes pages at which there is nothing, so that the host may put something there.
    ///
    /// # Errors
    /// [`Status::GfnMapped`], also for what the guest has declared a device; [`Status::GfnLost`]; [`Status::Busy`].
    pub(super) fn must_be_vacant(&self, hw: &H, span: IpaSpan) -> Result<(), Status> {
        for entry in self.table.entries(hw, span) {
            let annotation = match entry.descriptor {
                Descriptor::Table(_) => continue,
                Descriptor::Leaf { .. } => return Err(Status::GfnMapped),
                Descriptor::Invalid(annotation) => annotation,
            };
            match GuestAnnotation::decode(annotation) {
                GuestAnnotation::Absent => {}
                GuestAnnotation::Busy => return Err(Status::Busy),
                GuestAnnotation::Lost => return Err(Status::GfnLost),
                GuestAnnotation::Device => return Err(Status::GfnMapped),
            }
        }
        Ok(())
    }

    /// What the first pages of `span`, which lies in the table, have in common.
    pub(super) fn run(&self, hw: &H, span: IpaSpan) -> Run {
        let region = <H::Geometry as Geometry>::REGION_FRAMES;
        let mut run: Option<Run> = None;
        for entry in self.table.entries(hw, span) {
            let first = entry.start.value().max(span.start().value());
            let end = (entry.start.value() + (entry.pages << FRAME_SHIFT)).min(span.end());
            let frames = (end - first) >> FRAME_SHIFT;
            let skipped = (first - entry.start.value()) >> FRAME_SHIFT;
            let at = match entry.descriptor {
                Descriptor::Table(_) => continue,
                Descriptor::Invalid(annotation) => RunAt::Hole(GuestAnnotation::decode(annotation)),
                Descriptor::Leaf { pa, .. } => match pa.frame().checked_add(skipped) {
                    Some(frame) => RunAt::Frames(frame),
                    None => break,
                },
            };
            match &mut run {
                None => run = Some(Run { frames, at }),
                Some(run) if continues(*run, at) => run.frames += frames,
                Some(_) => break,
            }
            if run.is_some_and(|run| run.frames >= region) {
                break;
            }
        }
        // Not reached without a run: a range that lies in the table is translated by some entry, if only to nothing.
        let mut run = run.unwrap_or(Run {
            frames: span.pages(),
            at: RunAt::Hole(GuestAnnotation::Lost),
        });
        if let RunAt::Frames(frame) = run.at {
            run.frames = run.frames.min(region - (frame.number() & (region - 1)));
        }
        run
    }

    /// How many pages of the reserve a change takes. It was judged, so that it can be made.
    pub(super) fn tables_for(&self, hw: &H, span: IpaSpan, change: Change<Stage2>) -> u64 {
        self.table
            .plan(hw, span, change)
            .expect("what is at the pages was judged under the VM's lock")
            .tables()
    }

    /// How many pages the reserve lacks for `pages`; `None` if it has them.
    pub(super) const fn lacks(&self, pages: u64) -> Option<u64> {
        match pages.checked_sub(self.reserve.pages()) {
            Some(0) | None => None,
            lacking => lacking,
        }
    }

    /// Changes the table. The reserve has the pages for it, which [`Vm::tables_for`] has counted.
    pub(super) fn change(&mut self, hw: &H, span: IpaSpan, change: Change<Stage2>) -> Obligation {
        let plan = self
            .table
            .plan(hw, span, change)
            .expect("what is at the pages was judged under the VM's lock");
        self.table_pages += plan.tables();
        plan.reserve_from(hw, &mut self.reserve)
            .expect("the pages that the change takes were counted")
            .commit(hw)
    }

    /// Completes what a change owes. Tables that are no longer needed go back to the reserve.
    pub(super) fn pay(&mut self, hw: &H, owed: Obligation) {
        self.table_pages = self.table_pages.saturating_sub(owed.detached());
        owed.complete_into(hw, &mut self.reserve);
    }

    /// Takes what is mapped of the pages away, for every CPU, and says `annotation` instead.
    pub(super) fn annotate(&mut self, hw: &H, span: IpaSpan, annotation: GuestAnnotation) {
        let owed = self.change(hw, span, unmap(annotation));
        self.pay(hw, owed);
    }

    /// Maps the pages to frames from `frame` on.
    pub(super) fn map(&mut self, hw: &H, span: IpaSpan, frame: Frame, attributes: Stage2Attributes) {
        let change = Change::Map {
            pa: frame.address(),
            attributes,
            largest: GUEST_LARGEST,
        };
        let owed = self.change(hw, span, change);
        self.pay(hw, owed);
    }

    /// Makes blocks, or nothing at all, of the tables of the last level that the pages hang from, where their entries
    /// allow it.
    pub(super) fn fold(&mut self, hw: &H, span: IpaSpan) {
        let shift = <H::Geometry as Geometry>::REGION_SHIFT;
        let first = span.start().value() >> shift;
        let last = (span.end() - 1) >> shift;
        for start in (first..=last).filter_map(|number| Ipa::new(number << shift)) {
            // Each of these tables has a page that the caller is done with. So none of them says throughout that its pages
            // are in transit, and a page that is keeps its table.
            if let Some(owed) = self.table.fold(hw, start, GUEST_LARGEST as u8) {
                self.pay(hw, owed);
            }
        }
    }

    /// Counts frames that now are in `state` on its behalf.
    #[inline(always)]
    pub(super) const fn arrived(&mut self, state: State, frames: u64) {
        match state {
            State::Guest => self.counts.private += frames,
            State::GuestSharedHost => self.counts.shared += frames,
            State::Relinquished => self.counts.relinquished += frames,
            _ => {}
        }
    }

    /// Counts frames that no longer are in `state` on its behalf.
    #[inline(always)]
    pub(super) const fn left(&mut self, state: State, frames: u64) {
        match state {
            State::Guest => self.counts.private = self.counts.private.saturating_sub(frames),
            State::GuestSharedHost => self.counts.shared = self.counts.shared.saturating_sub(frames),
            _ => {}
        }
    }
}

/// Whether what is `at` the page after a run belongs to it.
fn continues(run: Run, at: RunAt) -> bool {
    match (run.at, at) {
        (RunAt::Hole(before), RunAt::Hole(after)) => before == after,
        (RunAt::Frames(first), RunAt::Frames(next)) => first.checked_add(run.frames) == Some(next),
        _ => false,
    }
}
