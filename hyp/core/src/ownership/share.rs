//! Sharing between host and EL2, and the pins that hold a share in place.
//!
//! Sharing changes who may use a frame, not who owns it, and no table: the host goes on as before, and EL2 maps a
//! shared frame only while it is pinned.

use super::permit::HostChange;
use super::spare::Source;
use super::{Ownership, Refusal, is_ranged};
use crate::addr::{Frame, FrameSpan};
use crate::hardware::Hardware;
use crate::map::{Entry, OwnershipMap, Replaced};
use crate::state::State;
use hyp_abi::Status;

impl<H: Hardware> Ownership<'_, H> {
    /// Shares frames of the host with EL2. Answers how many are done.
    ///
    /// # Errors
    /// [`Status::NotMemory`]; the refusal of a state that is not `Host`; [`Status::NoMemory`].
    pub fn share_hyp(&self, span: FrameSpan) -> Result<u64, Refusal> {
        self.enter_without_tables(span, Entry::plain(State::HostSharedHyp), must_be_host)
    }

    /// Ends the sharing of frames with EL2. Answers how many are done.
    ///
    /// # Errors
    /// [`Status::NotMemory`]; [`Status::NotShared`] for a frame that is not shared with EL2; [`Status::Pinned`];
    /// [`Status::NoMemory`].
    pub fn unshare_hyp(&self, span: FrameSpan) -> Result<u64, Refusal> {
        self.enter_without_tables(span, Entry::plain(State::Host), must_be_unpinned_share)
    }

    /// The short way of [`Ownership::share_hyp`] for one frame: `None`, and nothing has changed, if it must go the
    /// long way.
    ///
    /// # Errors
    /// Those of [`Ownership::share_hyp`].
    #[inline(always)]
    pub fn share_one(&self, frame: Frame) -> Option<Result<(), Status>> {
        self.replace_one(frame, State::Host, State::HostSharedHyp, State::host_refusal)
    }

    /// The short way of [`Ownership::unshare_hyp`] for one frame, as [`Ownership::share_one`].
    ///
    /// # Errors
    /// Those of [`Ownership::unshare_hyp`].
    #[inline(always)]
    pub fn unshare_one(&self, frame: Frame) -> Option<Result<(), Status>> {
        self.replace_one(frame, State::HostSharedHyp, State::Host, |_| None)
    }

    /// Gives frames that pass `judge` the entry `new`, where no table says anything else before or after.
    fn enter_without_tables(
        &self,
        span: FrameSpan,
        new: Entry,
        judge: impl Fn(Entry) -> Result<(), Status>,
    ) -> Result<u64, Refusal> {
        let ranged = is_ranged(span);
        self.each_region(span, |piece| {
            let mut permit = self.check(piece, HostChange::None, &judge)?;
            permit.enter(new);
            permit.finish(ranged);
            Ok(piece.span.frames())
        })
    }

    /// Changes the state of one frame of a region that has its node: nothing is reserved and nothing folded. `refusal`
    /// says why a frame in another state is refused, unless the long way is to say it.
    #[inline(always)]
    fn replace_one(
        &self,
        frame: Frame,
        old: State,
        new: State,
        refusal: impl FnOnce(State) -> Option<Status>,
    ) -> Option<Result<(), Status>> {
        let index = OwnershipMap::<H::Geometry>::index_of(frame);
        let mut region = self.map.lock(&self.hw, frame)?;
        match region.replace_one(index, Entry::plain(old), Entry::plain(new)) {
            Replaced::Done => Some(Ok(())),
            Replaced::Differs(entry) => refusal(entry.state()).map(Err),
            Replaced::NeedsNode => None,
        }
    }

    /// Says whether a frame could be pinned now, but for the pages that it takes.
    ///
    /// # Errors
    /// Those of [`Ownership::pin`], without [`Status::NoMemory`].
    pub(crate) fn judge_pin(&self, frame: Frame) -> Result<(), Status> {
        let region = self.map.lock(&self.hw, frame).ok_or(Status::NotMemory)?;
        let index = OwnershipMap::<H::Geometry>::index_of(frame);
        must_be_pinnable(region.entry(index))
    }

    /// Pins a frame that the host shares with EL2, which until the last [`Ownership::unpin`] stays shared and
    /// mapped at EL2.
    ///
    /// # Errors
    /// [`Status::NotMemory`]; [`Status::NotShared`]; [`Status::CountOverflow`]; [`Status::NoMemory`].
    pub fn pin(&self, frame: Frame) -> Result<(), Refusal> {
        let (piece, _) = OwnershipMap::<H::Geometry>::first_piece(FrameSpan::single(frame));
        let mut permit = self.check(piece, HostChange::None, must_be_pinnable)?;
        let entry = permit.region().entry(piece.first);
        let hyp = match (entry.count() == 0)
            .then(|| self.check_hyp_map(piece.span, Source::Pool))
            .transpose()
        {
            Ok(hyp) => hyp,
            Err(refusal) => {
                let pages_needed = refusal.pages_needed + permit.pages_held();
                permit.finish(false);
                return Err(Refusal {
                    pages_needed,
                    ..refusal
                });
            }
        };
        if let Some(pinned) = entry.with_count(entry.count().saturating_add(1)) {
            permit.enter(pinned);
        }
        if let Some(hyp) = hyp {
            hyp.map();
        }
        permit.finish(false);
        Ok(())
    }

    /// Takes one pin off a frame. With the last one EL2's mapping goes.
    ///
    /// # Errors
    /// [`Status::NotMemory`]; [`Status::NotShared`] if the frame has no pin; [`Status::NoMemory`].
    pub fn unpin(&self, frame: Frame) -> Result<(), Refusal> {
        self.unpin_when(frame, || Ok(()))
    }

    /// Takes one pin off a frame, if `last_word` agrees: it is asked once everything else has been checked, and what
    /// it does then belongs to the commit.
    ///
    /// # Errors
    /// Those of [`Ownership::unpin`], and what `last_word` answers.
    pub fn unpin_when(
        &self,
        frame: Frame,
        last_word: impl FnOnce() -> Result<(), Status>,
    ) -> Result<(), Refusal> {
        let (piece, _) = OwnershipMap::<H::Geometry>::first_piece(FrameSpan::single(frame));
        let mut permit = self.check(piece, HostChange::None, |entry| {
            must_be_shared(entry)?;
            if entry.count() == 0 {
                Err(Status::NotShared)
            } else {
                Ok(())
            }
        })?;
        if let Err(status) = last_word() {
            permit.finish(false);
            return Err(status.into());
        }
        let entry = permit.region().entry(piece.first);
        if entry.count() == 1 {
            self.unmap_at_hyp(piece.span);
        }
        if let Some(unpinned) = entry.with_count(entry.count().saturating_sub(1)) {
            permit.enter(unpinned);
        }
        permit.finish(false);
        Ok(())
    }
}

/// Passes a frame that the host shares with EL2 and that one more can pin.
fn must_be_pinnable(entry: Entry) -> Result<(), Status> {
    must_be_shared(entry)?;
    entry
        .with_count(entry.count().saturating_add(1))
        .map(|_| ())
        .ok_or(Status::CountOverflow)
}

/// Passes a frame that is plainly the host's.
#[inline(always)]
pub(super) fn must_be_host(entry: Entry) -> Result<(), Status> {
    entry.state().host_refusal().map_or(Ok(()), Err)
}

/// Passes a frame that the host shares with EL2 and EL2 does not use.
#[inline(always)]
fn must_be_unpinned_share(entry: Entry) -> Result<(), Status> {
    must_be_shared(entry)?;
    if entry.count() == 0 {
        Ok(())
    } else {
        Err(Status::Pinned)
    }
}

/// Passes a frame that the host shares with EL2. Of a frame in another state of the host's it says only that it is
/// not shared; of one that is not the host's, what any call says.
#[inline(always)]
fn must_be_shared(entry: Entry) -> Result<(), Status> {
    match entry.state() {
        State::HostSharedHyp => Ok(()),
        State::Host => Err(Status::NotShared),
        other => Err(other.host_refusal().unwrap_or(Status::NotShared)),
    }
}
