//! What the host may ask about its frames, the rebuilding of blocks, and the claims that are made at boot.

use super::permit::{HostChange, fold_host_region};
use super::share::must_be_host;
use super::{Ownership, Refusal};
use crate::addr::{FRAME_SIZE, Frame, FrameSpan};
use crate::geometry::Geometry;
use crate::hardware::Hardware;
use crate::map::{Entry, OwnershipMap};
use hyp_abi::{FrameState, Status};

/// What the host is told about a frame.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct FrameInfo {
    /// Its state, as far as the host may know it.
    pub state: FrameState,
    /// Its pins or borrowers; 0 if the frame is not the host's to know of.
    pub count: u16,
    /// How many bytes, naturally aligned around the frame, are known to agree: 4 KiB or a region.
    pub agreeing: u64,
}

impl<H: Hardware> Ownership<'_, H> {
    /// What the host may know about a frame.
    ///
    /// # Errors
    /// [`Status::NotMemory`] if no RAM lies there.
    pub fn frame_info(&self, frame: Frame) -> Result<FrameInfo, Status> {
        let region = self.map.lock(&self.hw, frame).ok_or(Status::NotMemory)?;
        let index = OwnershipMap::<H::Geometry>::index_of(frame);
        let entry = region.entry(index);
        let state = entry.state().shown_to_host();
        if state == FrameState::NotYours {
            // Neither the count nor how far the like of it reaches is the host's to know.
            return Ok(FrameInfo {
                state,
                count: 0,
                agreeing: FRAME_SIZE,
            });
        }
        let agreeing = if region.uniform().is_some() {
            FRAME_SIZE * <H::Geometry as Geometry>::REGION_FRAMES
        } else {
            FRAME_SIZE
        };
        Ok(FrameInfo {
            state,
            count: entry.count(),
            agreeing,
        })
    }

    /// Rebuilds the map's uniform regions and the host's blocks where the ownership of all frames of a region
    /// allows it. Regions that lie only partly in `span` are left alone. Answers how many frames were looked at.
    ///
    /// # Errors
    /// [`Status::NotMemory`].
    pub fn collapse(&self, span: FrameSpan) -> Result<u64, Refusal> {
        self.each_region(span, |piece| {
            let mut region = self
                .map
                .lock(&self.hw, piece.span.start())
                .ok_or(Status::NotMemory)?;
            if piece.span.frames() == <H::Geometry as Geometry>::REGION_FRAMES {
                if let Some(node) = region.fold() {
                    node.release(&self.hw);
                }
                if region
                    .uniform()
                    .is_some_and(|entry| entry.state().host_may_access())
                {
                    fold_host_region(&self.hw, &self.host, &region);
                }
            }
            Ok(piece.span.frames())
        })
    }

    /// Takes frames of the host for `entry`, before the host runs: EL2's reservation, the firmware's, and the frames
    /// of a region that are no RAM. Answers how many are done: all of them.
    ///
    /// # Errors
    /// The refusals of [`Ownership::donate_hyp`].
    pub fn claim_at_boot(&self, span: FrameSpan, entry: Entry) -> Result<u64, Refusal> {
        self.each_region(span, |piece| {
            let mut permit = self.check(piece, HostChange::Revoke, must_be_host)?;
            permit.revoke().complete(&self.hw);
            permit.enter(entry);
            permit.finish(true);
            Ok(piece.span.frames())
        })
    }
}
