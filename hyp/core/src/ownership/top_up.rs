//! The top-up: the host gives frames to EL2's pool.
//!
//! The pool keeps its own lists in its free pages, and every table and node is one of them: where one answered with an
//! external abort, EL2 would end. So each frame is proven before it is the pool's: zeroed down to memory, and read back.
//!
//! Two commits with `InTransit` between, and no lock is held while frames are proven. What proves good is the pool's. The
//! rest goes back to the host as it is: what an interrupt left undone, and what lies behind a broken frame, which the next
//! call meets as its first. Then, and only then, it is poisoned.

use super::permit::{Contingency, HostChange, Pages};
use super::reclaim::Scrubbed;
use super::share::must_be_host;
use super::spare::Source;
use super::{Ownership, Refusal, is_ranged};
use crate::addr::FrameSpan;
use crate::hardware::Hardware;
use crate::map::Entry;
use crate::state::{HypUse, Piece, State, Transit, TransitReason};
use hyp_abi::Status;

/// A frame that is being proven.
const PROVING: Entry = Entry::in_transit(Transit {
    reason: TransitReason::TopUp,
    active: true,
    progress: 0,
});

impl<H: Hardware> Ownership<'_, H> {
    /// Gives frames of the host to EL2's pool. Answers how many are done. A pool that is empty takes them too: what
    /// taking them in needs is kept back for this call, and made up for from what it brings.
    ///
    /// # Errors
    /// Those of [`Ownership::donate_hyp`]; [`Status::Poisoned`] if the first frame answered with an external abort, and is
    /// nobody's from then on.
    pub fn pool_top_up(&self, span: FrameSpan) -> Result<u64, Refusal> {
        let ranged = is_ranged(span);
        self.each_region(span, |piece| {
            let pages = self.begin_top_up(piece)?;
            let proven = self.in_steps(piece.span, 0, |frames| self.hw.prove(frames));
            self.end_top_up(piece, pages, &proven, ranged)
        })
    }

    /// Takes the frames from the host, and maps them at EL2: then no table is lacking when they have been proven.
    fn begin_top_up(&self, piece: Piece) -> Result<Pages, Refusal> {
        let source = Source::PoolOrSpare;
        let change = Contingency::Parts(HostChange::Revoke);
        let mut permit = self.check_with(piece, change, source, must_be_host)?;
        let hyp = match self.check_hyp_map(piece.span, source) {
            Ok(hyp) => hyp,
            Err(refusal) => {
                let pages_needed = refusal.pages_needed + permit.pages_held();
                permit.finish(false);
                self.refill_spare();
                return Err(Refusal {
                    pages_needed,
                    ..refusal
                });
            }
        };
        permit.revoke().complete(&self.hw);
        permit.enter(PROVING);
        hyp.map();
        Ok(permit.suspend())
    }

    /// The frames that proved good go to the pool, and the rest goes back to the host; but for the first one, if that is
    /// broken.
    fn end_top_up(
        &self,
        piece: Piece,
        pages: Pages,
        proven: &Scrubbed,
        ranged: bool,
    ) -> Result<u64, Refusal> {
        let good = proven.frames;
        let poisoned = u64::from(proven.poisoned && good == 0);
        let (given, left) = match good {
            0 => (None, Some(piece.span)),
            _ => {
                let (given, left) = piece.span.split_at(good);
                (Some(given), left)
            }
        };
        let mut permit = self.resume(piece, pages).expect("frames in transit are RAM");
        if let Some(left) = left {
            self.unmap_at_hyp(left);
        }
        let back = piece.span.frames() - good - poisoned;
        // A piece lies in one region, so its counts fit.
        let mut first = 0;
        for (frames, entry) in [
            (good, Entry::hyp(HypUse::Pool)),
            (poisoned, Entry::plain(State::Poisoned)),
            (back, Entry::plain(State::Host)),
        ] {
            if frames > 0 {
                permit.enter_part(first as usize, frames as usize, entry);
            }
            first += frames;
        }
        if back > 0 {
            permit.grant_part(good + poisoned, back);
        }
        if ranged {
            permit.fold_host();
        }
        permit.finish(ranged);
        if let Some(given) = given {
            self.hw.pool_add(given);
        }
        self.refill_spare();
        if poisoned > 0 {
            return Err(Status::Poisoned.into());
        }
        Ok(good)
    }
}
