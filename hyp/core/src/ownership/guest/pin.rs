//! Frames that a guest lends to the host or gave up, as the host sees them: pinned for I/O, unpinned, taken back.

use crate::addr::FrameSpan;
use crate::hardware::Hardware;
use crate::map::Entry;
use crate::ownership::permit::HostChange;
use crate::ownership::{Ownership, Refusal, is_ranged};
use crate::state::State;
use hyp_abi::Status;

impl<H: Hardware> Ownership<'_, H> {
    /// Pins frames that a guest shares with the host: until they are unpinned the guest cannot take them back. Answers how
    /// many are done.
    ///
    /// # Errors
    /// [`Status::NotMemory`], [`Status::NotShared`], [`Status::CountOverflow`], [`Status::NoMemory`].
    pub fn pin_shared(&self, span: FrameSpan) -> Result<u64, Refusal> {
        let judge = |entry: Entry| match entry.state() {
            State::GuestSharedHost => one_more(entry).map(|_| ()).ok_or(Status::CountOverflow),
            _ => Err(Status::NotShared),
        };
        self.recount(span, judge, |entry| one_more(entry).unwrap_or(entry))
    }

    /// Takes one pin off each frame. Answers how many are done.
    ///
    /// # Errors
    /// [`Status::NotMemory`], [`Status::NotPinned`], [`Status::NoMemory`].
    pub fn unpin_shared(&self, span: FrameSpan) -> Result<u64, Refusal> {
        let judge = |entry: Entry| {
            if entry.state() == State::GuestSharedHost && entry.count() > 0 {
                Ok(())
            } else {
                Err(Status::NotPinned)
            }
        };
        self.recount(span, judge, |entry| {
            entry.with_count(entry.count().saturating_sub(1)).unwrap_or(entry)
        })
    }

    /// Gives the host frames that a guest gave up. They are zero. Answers how many are done.
    ///
    /// # Errors
    /// [`Status::NotMemory`]; [`Status::NotRelinquished`]; [`Status::Poisoned`] for a frame with a memory error, which is
    /// nobody's; [`Status::NoMemory`].
    pub fn take_back(&self, span: FrameSpan) -> Result<u64, Refusal> {
        let judge = |entry: Entry| match entry.state() {
            State::Relinquished => Ok(()),
            // It may be one that was broken when the guest gave it up: whoever waits for it is told.
            State::Poisoned => Err(Status::Poisoned),
            _ => Err(Status::NotRelinquished),
        };
        let ranged = is_ranged(span);
        self.each_region(span, |piece| {
            let mut permit = self.check(piece, HostChange::Grant, judge)?;
            permit.enter(Entry::plain(State::Host));
            permit.grant();
            permit.finish(ranged);
            Ok(piece.span.frames())
        })
    }

    /// Gives frames that pass `judge` another count. No table says anything else then.
    fn recount(
        &self,
        span: FrameSpan,
        judge: impl Fn(Entry) -> Result<(), Status>,
        new: impl Fn(Entry) -> Entry,
    ) -> Result<u64, Refusal> {
        let ranged = is_ranged(span);
        self.each_region(span, |piece| {
            let mut permit = self.check(piece, HostChange::None, &judge)?;
            permit.enter_each(&new);
            permit.finish(ranged);
            Ok(piece.span.frames())
        })
    }
}

/// The entry with one more pin or borrower.
pub(super) const fn one_more(entry: Entry) -> Option<Entry> {
    entry.with_count(entry.count().saturating_add(1))
}
