//! The ownership map: who owns each frame of RAM. The one truth from which all tables are derived.
//!
//! One 8-byte word for each region, in an array built at boot from the machine's memory regions. A region whose
//! frames differ points to a node: one page with an entry for each of its frames ([`entry`]). Memory follows
//! fragmentation: RAM that nobody has split costs 4 bytes a MiB.
//!
//! A word's bit 0 is the lock of its region. [`OwnershipMap::lock`] takes it and gives a [`Region`], through which
//! alone entries are read and changed. Several regions are locked in ascending order.

pub mod entry;
mod region;

pub use entry::{Entry, MAX_COUNT, RegionWord};
pub use region::{FoldedNode, Region, Replaced};

use crate::addr::{Frame, FrameSpan};
use crate::geometry::Geometry;
use crate::hardware::Hardware;
use crate::state::{Piece, State};
use crate::sync::AtomicU64;
use arrayvec::ArrayVec;
use core::marker::PhantomData;

/// The most separate ranges of RAM that the map can hold.
pub const MAX_RANGES: usize = 64;

/// The number of a region in the map: its index in the array.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct RegionNumber(u32);

impl RegionNumber {
    /// The number.
    #[must_use]
    pub const fn value(self) -> u32 {
        self.0
    }
}

/// A run of regions that all hold some RAM.
#[derive(Clone, Copy, Debug)]
struct RegionRange {
    /// The first frame of the first region, in regions.
    first: u64,
    /// How many regions.
    regions: u64,
    /// The number of the first one.
    number: u32,
}

/// The ownership map over all RAM of the machine.
#[derive(Debug)]
pub struct OwnershipMap<'m, G> {
    words: &'m [AtomicU64],
    ranges: ArrayVec<RegionRange, MAX_RANGES>,
    geometry: PhantomData<G>,
}

/// Why a map cannot be built from a machine's memory regions.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum MapError {
    /// There are more than [`MAX_RANGES`] separate ranges.
    #[error("more than {MAX_RANGES} separate ranges of memory")]
    TooManyRanges,
    /// The ranges are not in ascending order, or overlap.
    #[error("memory ranges overlap or are out of order")]
    Unordered,
    /// The array has fewer words than the ranges have regions.
    #[error("the array is too small for the machine's memory")]
    ArrayTooSmall,
}

impl<'m, G: Geometry> OwnershipMap<'m, G> {
    /// How many words the map of these ranges of RAM needs: one for each region that holds some of it.
    ///
    /// # Errors
    /// [`MapError::Unordered`].
    pub fn words_needed(ranges: impl IntoIterator<Item = FrameSpan>) -> Result<usize, MapError> {
        let mut words = 0;
        let mut next = 0;
        for range in ranges {
            let (first, end) = Self::regions_of(range);
            if range.start().number() >> G::BITS_PER_LEVEL < next.min(first) {
                return Err(MapError::Unordered);
            }
            words += end.saturating_sub(first.max(next));
            next = end;
        }
        usize::try_from(words).map_err(|_| MapError::ArrayTooSmall)
    }

    fn regions_of(range: FrameSpan) -> (u64, u64) {
        let first = range.start().number() >> G::BITS_PER_LEVEL;
        let end = (range.end_number() + G::REGION_FRAMES - 1) >> G::BITS_PER_LEVEL;
        (first, end)
    }

    /// A map over ascending, separate ranges of RAM, in which every region is uniform and the host's. Frames of
    /// its regions that are no RAM are for the caller to mark, before any other CPU runs.
    ///
    /// # Errors
    /// See [`MapError`].
    pub fn new(
        words: &'m [AtomicU64],
        ranges: impl IntoIterator<Item = FrameSpan>,
    ) -> Result<Self, MapError> {
        let mut map = Self {
            words,
            ranges: ArrayVec::new(),
            geometry: PhantomData,
        };
        let mut number: u32 = 0;
        let mut last_end = 0;
        for range in ranges {
            if range.start().number() < last_end {
                return Err(MapError::Unordered);
            }
            last_end = range.end_number();
            let (mut first, end) = Self::regions_of(range);
            if let Some(last) = map.ranges.last_mut() {
                let covered = last.first + last.regions;
                // Two ranges may meet in one region; it is counted once.
                first = first.max(covered);
                if first == covered && end > covered {
                    let more = end - covered;
                    last.regions += more;
                    number += u32::try_from(more).map_err(|_| MapError::ArrayTooSmall)?;
                    continue;
                }
            }
            if end > first {
                let regions = end - first;
                map.ranges
                    .try_push(RegionRange {
                        first,
                        regions,
                        number,
                    })
                    .map_err(|_| MapError::TooManyRanges)?;
                number += u32::try_from(regions).map_err(|_| MapError::ArrayTooSmall)?;
            }
        }
        let used = words.get(..number as usize).ok_or(MapError::ArrayTooSmall)?;
        for word in used {
            word.store(
                Entry::plain(State::Host).to_word(),
                crate::sync::Ordering::Relaxed,
            );
        }
        map.words = used;
        Ok(map)
    }

    /// The number of the region that `frame` lies in, or `None` if no RAM lies there.
    #[must_use]
    #[inline]
    pub fn region_of(&self, frame: Frame) -> Option<RegionNumber> {
        let region = frame.number() >> G::BITS_PER_LEVEL;
        for range in &self.ranges {
            let index = region.wrapping_sub(range.first);
            if index < range.regions {
                // The array has fewer than 2^32 words, see `new`, so this never wraps; and a lookup that cannot
                // panic needs no stack.
                return Some(RegionNumber(range.number.wrapping_add(index as u32)));
            }
        }
        None
    }

    /// Takes the lock of the region that `frame` lies in, or answers `None` if no RAM lies there.
    #[inline]
    pub fn lock<'a, H>(&'a self, hw: &'a H, frame: Frame) -> Option<Region<'a, H>>
    where
        H: Hardware<Geometry = G>,
    {
        let number = self.region_of(frame)?;
        let word = self.words.get(hw.bounded(number.0 as usize, self.words.len()))?;
        Some(Region::lock(hw, word, number, Self::region_start(frame)))
    }

    fn region_start(frame: Frame) -> Frame {
        frame.address().align_down(G::REGION_SHIFT).frame()
    }

    /// The place of a frame among those of its region.
    #[must_use]
    #[inline(always)]
    pub fn index_of(frame: Frame) -> usize {
        (frame.number() & (G::REGION_FRAMES - 1)) as usize
    }

    /// The frames of `span` that lie in the region of its first frame, and the rest.
    #[must_use]
    #[inline]
    pub fn first_piece(span: FrameSpan) -> (Piece, Option<FrameSpan>) {
        let first = Self::index_of(span.start());
        let (head, tail) = span.split_at(G::REGION_FRAMES - first as u64);
        (
            Piece {
                span: head,
                first,
                count: head.frames() as usize,
            },
            tail,
        )
    }

    /// Every region, as the run of frames that it is, in ascending order.
    pub fn regions(&self) -> impl Iterator<Item = FrameSpan> + '_ {
        self.ranges.iter().flat_map(|range| {
            (range.first..range.first + range.regions).filter_map(|region| {
                let start = Frame::new(region << G::BITS_PER_LEVEL)?;
                FrameSpan::new(start, G::REGION_FRAMES)
            })
        })
    }

    /// The words of all regions, in the order of their numbers. For tests: they show what a [`Region`] does not, and
    /// let a search go back to a state that it has seen.
    #[cfg(any(test, feature = "doubles"))]
    #[must_use]
    pub const fn words(&self) -> &[AtomicU64] {
        self.words
    }

    /// Whether a region of the map has a byte in `start..end`.
    #[must_use]
    pub fn holds_ram(&self, start: u64, end: u64) -> bool {
        self.ranges.iter().any(|range| {
            let range_start = range.first << G::REGION_SHIFT;
            let range_end = (range.first + range.regions) << G::REGION_SHIFT;
            range_start < end && start < range_end
        })
    }

    /// How many frames the map has entries for.
    #[must_use]
    pub fn frames(&self) -> u64 {
        self.words.len() as u64 * G::REGION_FRAMES
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::geometry::Arm4K;
    use std::vec::Vec;

    type Map<'m> = OwnershipMap<'m, Arm4K>;

    fn span(start: u64, frames: u64) -> FrameSpan {
        FrameSpan::new(Frame::new(start).unwrap(), frames).unwrap()
    }

    fn words(count: usize) -> Vec<AtomicU64> {
        (0..count).map(|_| AtomicU64::new(0)).collect()
    }

    #[test]
    fn finds_the_region_of_a_frame_in_several_ranges() {
        let ranges = [span(512, 1024), span(4096, 512), span(10_000, 100)];
        assert_eq!(Map::words_needed(ranges), Ok(2 + 1 + 1));
        let words = words(4);
        let map = Map::new(&words, ranges).unwrap();
        let number = |pfn| map.region_of(Frame::new(pfn).unwrap()).map(RegionNumber::value);
        assert_eq!(number(511), None);
        assert_eq!(
            [512, 1023, 1024, 1535].map(number),
            [Some(0), Some(0), Some(1), Some(1)]
        );
        assert_eq!(number(1536), None);
        assert_eq!(number(4096), Some(2));
        assert_eq!(
            number(10_000),
            Some(3),
            "a region that is only partly RAM has an entry"
        );
        assert_eq!(map.frames(), 4 * 512);
        assert_eq!(map.regions().count(), 4);
    }

    #[test]
    fn ranges_that_meet_in_one_region_share_its_entry() {
        let ranges = [span(512, 100), span(700, 2000)];
        let count = Map::words_needed(ranges).unwrap();
        let words = words(count);
        let map = Map::new(&words, ranges).unwrap();
        assert_eq!(map.regions().count(), count);
        assert_eq!(
            map.region_of(Frame::new(520).unwrap()),
            map.region_of(Frame::new(710).unwrap())
        );
        assert!(map.region_of(Frame::new(2699).unwrap()).is_some());
    }

    #[test]
    fn refuses_ranges_out_of_order_and_arrays_too_small() {
        let words = words(1);
        assert_eq!(
            Map::new(&words, [span(1024, 10), span(512, 10)]).unwrap_err(),
            MapError::Unordered
        );
        assert_eq!(
            Map::new(&words, [span(512, 513)]).unwrap_err(),
            MapError::ArrayTooSmall
        );
    }

    #[test]
    fn a_span_is_cut_at_region_borders() {
        let (piece, rest) = Map::first_piece(span(1000, 600));
        assert_eq!((piece.first, piece.count), (488, 24));
        let (piece, rest) = Map::first_piece(rest.unwrap());
        assert_eq!((piece.first, piece.count), (0, 512));
        let (piece, rest) = Map::first_piece(rest.unwrap());
        assert_eq!((piece.first, piece.count, rest), (0, 64, None));
    }
}
