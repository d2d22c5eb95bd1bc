//! Donation: the host gives frames to EL2 and can no longer touch them.

use super::permit::HostChange;
use super::share::must_be_host;
use super::{Ownership, Refusal, is_ranged};
use crate::addr::FrameSpan;
use crate::geometry::Geometry;
use crate::hardware::{Hardware, Regime};
use crate::map::{Entry, OwnershipMap};
use crate::pgtable::Obligation;
use crate::state::{HypUse, Piece, Transit, TransitReason};

/// How many frames go in transit together, so that one TLB invalidation serves them all: 1 GiB of 2 MiB regions.
const BATCH_REGIONS: u64 = 512;

impl<H: Hardware> Ownership<'_, H> {
    /// Gives frames of the host to EL2, which does not map them. Answers how many are done.
    ///
    /// # Errors
    /// [`hyp_abi::Status::NotMemory`]; the refusal of a state that is not `Host`; [`hyp_abi::Status::NoMemory`].
    pub fn donate_hyp(&self, span: FrameSpan) -> Result<u64, Refusal> {
        let given = Entry::hyp(HypUse::Donated);
        let (piece, rest) = OwnershipMap::<H::Geometry>::first_piece(span);
        if rest.is_none() {
            return self.donate_piece(piece, given, is_ranged(span));
        }
        let (batch, _) = span.split_at(BATCH_REGIONS * <H::Geometry as Geometry>::REGION_FRAMES);
        self.donate_batch(batch, given)
    }

    /// One region in one commit: the lock is held over the invalidation.
    fn donate_piece(&self, piece: Piece, given: Entry, ranged: bool) -> Result<u64, Refusal> {
        let mut permit = self.check(piece, HostChange::Revoke, must_be_host)?;
        permit.revoke().complete(&self.hw);
        permit.enter(given);
        permit.finish(ranged);
        Ok(piece.span.frames())
    }

    /// Many regions in two commits: each is revoked and put in transit, one invalidation serves all of them, and
    /// then each becomes EL2's.
    fn donate_batch(&self, span: FrameSpan, given: Entry) -> Result<u64, Refusal> {
        let leaving = Entry::in_transit(Transit {
            reason: TransitReason::Donate,
            active: true,
            progress: 0,
        });
        let mut revoked = Obligation::none(Regime::Host);
        let done = self.each_region(span, |piece| {
            let mut permit = self.check(piece, HostChange::Revoke, must_be_host)?;
            revoked.join(&self.hw, permit.revoke());
            permit.enter(leaving);
            permit.finish(false);
            Ok(piece.span.frames())
        });
        revoked.complete(&self.hw);
        let done = done?;
        let mut rest = Some(span.split_at(done).0);
        while let Some(todo) = rest {
            let (piece, tail) = OwnershipMap::<H::Geometry>::first_piece(todo);
            if let Some(mut region) = self.map.lock(&self.hw, piece.span.start()) {
                // No node is needed: a part of a region got one when it was put in transit.
                if let Some(node) = region.set(piece.first, piece.count, given, &mut None) {
                    node.release(&self.hw);
                }
                if let Some(node) = region.fold() {
                    node.release(&self.hw);
                }
            }
            rest = tail;
        }
        Ok(done)
    }
}
