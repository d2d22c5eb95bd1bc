//! The way back: frames that were donated, or that the pool can spare, return to the host, zeroed.
//!
//! Two commits with `InTransit` between. Contents are scrubbed in steps of at most 64 KiB with no lock held, and
//! waiting interrupts are looked for after each step. Of a part of a region, what is scrubbed by then goes back and
//! the rest stays donated. A whole region goes back whole: its progress is parked in its entry and the next call
//! goes on from there.

use super::permit::{HostChange, Pages, Permit};
use super::{Ownership, Refusal, is_ranged};
use crate::addr::{FrameSpan, PhysAddr};
use crate::geometry::Geometry;
use crate::hardware::{ExternalAbort, Hardware};
use crate::map::{Entry, OwnershipMap};
use crate::state::{HypUse, Piece, State, Transit, TransitReason};
use hyp_abi::{Counter, Status};

/// How far the scrubbing of some frames came.
pub(super) struct Scrubbed {
    /// How many of them, from the first, are zero.
    pub(super) frames: u64,
    /// Whether the next one answered with an external abort.
    pub(super) poisoned: bool,
}

impl<H: Hardware> Ownership<'_, H> {
    /// Gives frames that [`Ownership::donate_hyp`] brought back to the host, zeroed. Answers how many are done,
    /// which may be none if an interrupt waits: the call makes progress all the same and is simply repeated.
    ///
    /// # Errors
    /// [`Status::NotMemory`]; [`Status::NotDonated`]; [`Status::Busy`]; [`Status::Poisoned`]; [`Status::NoMemory`].
    pub fn reclaim_hyp(&self, span: FrameSpan) -> Result<u64, Refusal> {
        let ranged = is_ranged(span);
        self.each_region(span, |piece| self.reclaim_piece(piece, ranged))
    }

    fn reclaim_piece(&self, piece: Piece, ranged: bool) -> Result<u64, Refusal> {
        let whole = piece.span.frames() == <H::Geometry as Geometry>::REGION_FRAMES;
        let mut permit = self.check(piece, HostChange::Grant, |entry| must_be_donated(entry, whole))?;
        let before = permit.region().entry(piece.first);
        let progress = before.transit().map_or(0, |transit| transit.progress);
        permit.enter(transit(TransitReason::Reclaim, true, progress));
        let pages = permit.suspend();

        let scrubbed = self.scrub(piece.span, u64::from(progress));
        let Some(permit) = self.resume(piece, pages) else {
            return Err(Status::NotMemory.into());
        };
        if scrubbed.frames == piece.span.frames() {
            self.hand_over(permit, piece, ranged);
            return Ok(piece.span.frames());
        }
        if whole {
            self.park(permit, &scrubbed, before)
        } else {
            Ok(self.hand_over_part(permit, piece, &scrubbed))
        }
    }

    /// All frames are zero: they are the host's.
    fn hand_over(&self, mut permit: Permit<'_, H>, _piece: Piece, ranged: bool) {
        permit.enter(Entry::plain(State::Host));
        permit.grant();
        permit.finish(ranged);
    }

    /// The first frames are zero and go to the host, the one after them may be broken, the rest stay donated.
    fn hand_over_part(&self, mut permit: Permit<'_, H>, piece: Piece, scrubbed: &Scrubbed) -> u64 {
        // A piece lies in one region, so its counts fit.
        let zeroed = scrubbed.frames as usize;
        if zeroed > 0 {
            permit.enter_part(0, zeroed, Entry::plain(State::Host));
            permit.grant_part(0, scrubbed.frames);
        }
        let mut first_left = zeroed;
        if scrubbed.poisoned {
            permit.enter_part(zeroed, 1, Entry::plain(State::Poisoned));
            first_left += 1;
        }
        if first_left < piece.count {
            permit.enter_part(first_left, piece.count - first_left, Entry::hyp(HypUse::Donated));
        }
        permit.finish(false);
        scrubbed.frames
    }

    /// A whole region waits for the next call, or is taken apart around a frame that answered with an abort. Without
    /// the page for that it is again as it was `before`.
    fn park(&self, mut permit: Permit<'_, H>, scrubbed: &Scrubbed, before: Entry) -> Result<u64, Refusal> {
        // Progress is below 512.
        let progress = scrubbed.frames as u16;
        if !scrubbed.poisoned {
            permit.enter(transit(TransitReason::Reclaim, false, progress));
            permit.finish(false);
            return Ok(0);
        }
        // What is scrubbed stays donated: the caller meets the broken frame by itself and goes on around it.
        let node = self.hw.allocate_page();
        if node.is_none() {
            permit.enter(before);
            permit.finish(false);
            return Err(Refusal::no_memory(1));
        }
        permit.add_node(node);
        permit.enter(Entry::hyp(HypUse::Donated));
        permit.enter_part(usize::from(progress), 1, Entry::plain(State::Poisoned));
        permit.finish(false);
        Ok(0)
    }

    /// Scrubs frames in transit from the one with index `from` on, at least one step, until all are done, an
    /// interrupt waits, or the memory answers with an abort.
    pub(super) fn scrub(&self, span: FrameSpan, from: u64) -> Scrubbed {
        self.in_steps(span, from, |frames| self.hw.scrub(frames))
    }

    /// Does `work` as [`Ownership::scrub`] scrubs.
    pub(super) fn in_steps(
        &self,
        span: FrameSpan,
        from: u64,
        work: impl Fn(FrameSpan) -> Result<(), ExternalAbort>,
    ) -> Scrubbed {
        let mut done = from;
        while done < span.frames() {
            let step = <H::Geometry as Geometry>::STEP_FRAMES.min(span.frames() - done);
            let Some(frames) = span
                .start()
                .checked_add(done)
                .and_then(|start| FrameSpan::new(start, step))
            else {
                break;
            };
            if let Err(abort) = work(frames) {
                let broken = abort.frame.number().saturating_sub(span.start().number());
                return Scrubbed {
                    frames: broken.clamp(done, done + step - 1),
                    poisoned: true,
                };
            }
            done += step;
            if done < span.frames() && self.hw.interrupt_pending() {
                self.hw.count(Counter::CallsInterrupted, 1);
                break;
            }
        }
        Scrubbed {
            frames: done,
            poisoned: false,
        }
    }

    /// Gives up to `limit` free frames of the pool back to the host, zeroed. Answers which: they lie in one piece.
    ///
    /// # Errors
    /// [`Status::NoMemory`] if the tables of the frames would need more pages than the pool has.
    pub fn pool_drain(&self, limit: u64) -> Result<Option<(PhysAddr, u64)>, Refusal> {
        // The two pages that giving back a part of a region can need are taken first: what is taken for good below
        // must find its way back in any case.
        let pages = Pages::for_one_region(&self.hw).ok_or(Refusal::no_memory(2))?;
        let limit = limit.min(<H::Geometry as Geometry>::STEP_FRAMES);
        let taken = self.hw.pool_take(limit).or_else(|| {
            // What is kept back was filled up while the pages of the boot were in use, and has what could go.
            self.renew_spare();
            self.hw.pool_take(limit)
        });
        let Some(span) = taken else {
            pages.release(&self.hw);
            return Ok(None);
        };
        let (piece, _) = OwnershipMap::<H::Geometry>::first_piece(span);
        let Some(mut permit) = self.resume(piece, pages) else {
            return Err(Status::NotMemory.into());
        };
        self.unmap_at_hyp(piece.span);
        permit.enter(transit(TransitReason::Drain, true, 0));
        let pages = permit.suspend();
        let scrubbed = self.scrub(piece.span, 0);
        let Some(permit) = self.resume(piece, pages) else {
            return Err(Status::NotMemory.into());
        };
        if scrubbed.poisoned {
            // The frames around the broken one are EL2's still, and `ReclaimHyp` gives them back.
            let frames = self.hand_over_part(permit, piece, &scrubbed);
            return Ok((frames > 0).then_some((piece.span.start().address(), frames)));
        }
        self.hand_over(permit, piece, true);
        Ok(Some((piece.span.start().address(), piece.span.frames())))
    }
}

fn transit(reason: TransitReason, active: bool, progress: u16) -> Entry {
    Entry::in_transit(Transit {
        reason,
        active,
        progress,
    })
}

/// Passes a donated frame and, for a whole region, one whose reclaim was parked.
fn must_be_donated(entry: Entry, whole_region: bool) -> Result<(), Status> {
    match entry.state() {
        State::Hyp => match entry.hyp_use() {
            Some(HypUse::Donated) => Ok(()),
            _ => Err(Status::NotDonated),
        },
        State::InTransit => match entry.transit() {
            Some(Transit {
                reason: TransitReason::Reclaim,
                active: false,
                ..
            }) if whole_region => Ok(()),
            _ => Err(Status::Busy),
        },
        State::Poisoned => Err(Status::Poisoned),
        State::Reserved => Err(Status::Reserved),
        State::Device => Err(Status::NotMemory),
        State::Host
        | State::HostSharedHyp
        | State::HostSharedGuest
        | State::HostSharedSecure
        | State::HostLentSecure
        | State::Guest
        | State::GuestSharedHost
        | State::Relinquished => Err(Status::NotDonated),
    }
}
