//! What a ranged call does: check the range, take it region by region, report progress.

use super::{Ownership, Refusal};
use crate::addr::{FrameSpan, PhysAddr};
use crate::hardware::Hardware;
use crate::map::OwnershipMap;
use crate::state::Piece;
use hyp_abi::{Counter, FrameRange, Status};

/// The frames that a caller names, once alignment, emptiness and overflow have been checked.
///
/// # Errors
/// [`Status::Misaligned`], [`Status::EmptyRange`], [`Status::RangeOverflow`], in this order.
#[inline]
pub(crate) fn checked_span(range: FrameRange) -> Result<FrameSpan, Status> {
    if range.base & (hyp_abi::FRAME_SIZE - 1) != 0 {
        return Err(Status::Misaligned);
    }
    if range.frames == 0 {
        return Err(Status::EmptyRange);
    }
    let start = PhysAddr::new(range.base).ok_or(Status::RangeOverflow)?.frame();
    FrameSpan::new(start, range.frames).ok_or(Status::RangeOverflow)
}

impl<H: Hardware> Ownership<'_, H> {
    /// Does `step` for the frames of each region in turn, and counts the frames that it finished. Stops where a
    /// step finished less than it was given, where it refuses, or where an interrupt waits between two regions.
    ///
    /// # Errors
    /// The refusal of the first step. One of a later step is left to the call that resumes there.
    #[inline]
    pub(super) fn each_region(
        &self,
        span: FrameSpan,
        mut step: impl FnMut(Piece) -> Result<u64, Refusal>,
    ) -> Result<u64, Refusal> {
        let mut done = 0;
        let mut rest = Some(span);
        while let Some(todo) = rest {
            let (piece, tail) = OwnershipMap::<H::Geometry>::first_piece(todo);
            match step(piece) {
                Ok(finished) => {
                    done += finished;
                    if finished < piece.span.frames() {
                        return Ok(done);
                    }
                }
                Err(refusal) if done == 0 => return Err(refusal),
                Err(_) => return Ok(done),
            }
            rest = tail;
            if rest.is_some() && self.hw.interrupt_pending() {
                self.hw.count(Counter::CallsInterrupted, 1);
                break;
            }
        }
        Ok(done)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ranges_are_checked_before_anything_else() {
        let check = |base, frames| checked_span(FrameRange::new(base, frames)).map(FrameSpan::frames);
        assert_eq!(check(0x1000, 3), Ok(3));
        assert_eq!(check(0x1001, 0), Err(Status::Misaligned));
        assert_eq!(check(0x1000, 0), Err(Status::EmptyRange));
        assert_eq!(check(1 << 48, 1), Err(Status::RangeOverflow));
        assert_eq!(check((1 << 48) - 0x1000, 1), Ok(1));
        assert_eq!(check((1 << 48) - 0x1000, 2), Err(Status::RangeOverflow));
        assert_eq!(check(0, u64::MAX), Err(Status::RangeOverflow));
        assert_eq!(check(!0xfff, u64::MAX), Err(Status::RangeOverflow));
    }
}
