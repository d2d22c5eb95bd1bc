//! Runs of pages of input addresses.

use crate::addr::{FRAME_SHIFT, FrameSpan, Ipa, MAX_ADDRESS_BITS};

/// A run of whole 4 KiB pages of input addresses that is not empty and ends at or below 2^48.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct IpaSpan {
    start: Ipa,
    pages: u64,
}

impl IpaSpan {
    /// `pages` pages from `start`; `None` if there are none, `start` is not page-aligned, or they run past 48 bits.
    #[must_use]
    #[inline]
    pub const fn new(start: Ipa, pages: u64) -> Option<Self> {
        let limit = 1 << (MAX_ADDRESS_BITS - FRAME_SHIFT);
        if pages == 0 || !start.is_aligned(FRAME_SHIFT) || pages > limit - (start.value() >> FRAME_SHIFT) {
            return None;
        }
        Some(Self { start, pages })
    }

    /// The page that `ipa` lies in.
    #[must_use]
    #[inline]
    pub const fn page_of(ipa: Ipa) -> Self {
        Self {
            start: ipa.align_down(FRAME_SHIFT),
            pages: 1,
        }
    }

    /// Where a table that maps every address to itself, the host's or EL2's, has these frames.
    #[must_use]
    #[inline]
    pub const fn identity(frames: FrameSpan) -> Self {
        Self {
            start: frames.start().address().host_ipa(),
            pages: frames.frames(),
        }
    }

    /// The first address.
    #[must_use]
    #[inline]
    pub const fn start(self) -> Ipa {
        self.start
    }

    /// How many pages; at least 1.
    #[must_use]
    #[inline]
    pub const fn pages(self) -> u64 {
        self.pages
    }

    /// The first byte after the run, as a number: at most 2^48.
    #[must_use]
    #[inline]
    pub const fn end(self) -> u64 {
        self.start.value() + (self.pages << FRAME_SHIFT)
    }
}
