//! Physical frames by their numbers, and blocks of them.

use hyp_abi::{FRAME_SIZE, FrameRange};

/// The largest order of a block: 1 GiB.
pub const MAX_ORDER: u8 = 18;

/// The order of a 2 MiB block.
pub const REGION_ORDER: u8 = 9;

/// The number of a 4 KiB frame: its physical address divided by 4096. Nothing says that a page structure or a mapping
/// of the host stands behind it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Pfn(u64);

impl Pfn {
    /// The most bits that a frame number has: physical addresses have at most 52 (DDI 0487, FEAT_LPA).
    const BITS: u32 = 40;

    /// The frame of number `number`, or `None` if no physical address is that large.
    #[must_use]
    pub const fn new(number: u64) -> Option<Self> {
        if number >> Self::BITS == 0 {
            Some(Self(number))
        } else {
            None
        }
    }

    /// The frame in which the physical address `address` lies.
    #[must_use]
    pub const fn containing(address: u64) -> Option<Self> {
        Self::new(address / FRAME_SIZE)
    }

    /// The number.
    #[must_use]
    pub const fn number(self) -> u64 {
        self.0
    }

    /// The physical address of the frame's first byte.
    #[must_use]
    pub const fn address(self) -> u64 {
        self.0 * FRAME_SIZE
    }

    /// The frame `frames` after this one, which the caller knows to exist: it lies in the same block.
    #[must_use]
    pub(crate) const fn after(self, frames: u64) -> Self {
        Self(self.0 + frames)
    }

    /// `frames` frames from this one on.
    #[must_use]
    pub const fn range(self, frames: u64) -> FrameRange {
        FrameRange::new(self.address(), frames)
    }
}

/// 2^order frames, the first of which has a number that is a multiple of 2^order.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Block {
    /// The first frame.
    pub pfn: Pfn,
    /// The binary logarithm of the number of frames.
    pub order: u8,
}

impl Block {
    /// The block of `order` at `pfn`.
    #[must_use]
    pub const fn new(pfn: Pfn, order: u8) -> Self {
        Self { pfn, order }
    }

    /// One frame.
    #[must_use]
    pub const fn frame(pfn: Pfn) -> Self {
        Self { pfn, order: 0 }
    }

    /// How many frames.
    #[must_use]
    pub const fn frames(self) -> u64 {
        1 << self.order
    }

    /// The frames as a range of physical addresses.
    #[must_use]
    pub const fn range(self) -> FrameRange {
        self.pfn.range(self.frames())
    }
}

/// Cuts `frames` frames from number `start` on into the largest aligned blocks: number of the first frame, order.
/// The numbers may be those of any kind of frame.
pub(crate) fn aligned_pieces(start: u64, frames: u64) -> impl Iterator<Item = (u64, u8)> {
    let end = start + frames;
    let mut at = start;
    core::iter::from_fn(move || {
        let left = end - at;
        // Both are below 64; zero is a multiple of everything.
        let fits = left.checked_ilog2()? as u8;
        let aligned = if at == 0 {
            MAX_ORDER
        } else {
            at.trailing_zeros() as u8
        };
        let piece = (at, fits.min(aligned).min(MAX_ORDER));
        at += 1 << piece.1;
        Some(piece)
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use alloc::vec::Vec;

    #[test]
    fn a_range_is_cut_into_the_largest_aligned_pieces() {
        let pieces: Vec<_> = aligned_pieces(3, 14).collect();
        assert_eq!(pieces, [(3, 0), (4, 2), (8, 3), (16, 0)]);
        assert_eq!(aligned_pieces(5, 0).count(), 0);
        assert_eq!(aligned_pieces(0, 512).collect::<Vec<_>>(), [(0, 9)]);
    }

    #[test]
    fn no_frame_lies_beyond_the_largest_address() {
        assert_eq!(Pfn::new(1 << 40), None);
        assert_eq!(Pfn::containing(u64::MAX), None);
        assert_eq!(Pfn::new(5).unwrap().address(), 0x5000);
    }
}
