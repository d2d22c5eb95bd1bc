//! Runs of physical bytes, as firmware tables name them.
//!
//! [`PhysRange`] is never empty and never runs past 48 bits. Unlike [`FrameSpan`] it need not start or end on a
//! frame: a device's registers may be 24 bytes. [`MemoryMap`] keeps the RAM of the machine sorted and merged.

use crate::addr::{FRAME_SHIFT, FRAME_SIZE, Frame, FrameSpan, MAX_ADDRESS_BITS, PhysAddr};
use arrayvec::ArrayVec;
use core::fmt;

/// A run of physical bytes: not empty, and below 2^48.
#[derive(Clone, Copy, PartialEq, Eq, Hash)]
pub struct PhysRange {
    start: u64,
    size: u64,
}

impl PhysRange {
    /// `size` bytes from `start`, or `None` if there are none or they run past 48 bits.
    #[must_use]
    pub const fn new(start: u64, size: u64) -> Option<Self> {
        if size == 0 {
            return None;
        }
        match start.checked_add(size) {
            Some(end) if end <= 1 << MAX_ADDRESS_BITS => Some(Self { start, size }),
            _ => None,
        }
    }

    /// The bytes from `start` up to and without `end`, or `None` if there are none or they run past 48 bits.
    #[must_use]
    pub const fn from_bounds(start: u64, end: u64) -> Option<Self> {
        match end.checked_sub(start) {
            Some(size) => Self::new(start, size),
            None => None,
        }
    }

    /// The address of the first byte.
    #[must_use]
    pub const fn start(self) -> u64 {
        self.start
    }

    /// The address of the first byte.
    #[must_use]
    pub fn address(self) -> PhysAddr {
        PhysAddr::new(self.start).expect("a range starts below 2^48: its constructor checked")
    }

    /// How many bytes; at least 1.
    #[must_use]
    pub const fn size(self) -> u64 {
        self.size
    }

    /// The address after the last byte; at most 2^48.
    #[must_use]
    pub const fn end(self) -> u64 {
        self.start + self.size
    }

    /// Whether the two have a byte in common.
    #[must_use]
    pub const fn overlaps(self, other: Self) -> bool {
        self.start < other.end() && other.start < self.end()
    }

    /// Whether every byte of `other` is one of this range.
    #[must_use]
    pub const fn contains(self, other: Self) -> bool {
        self.start <= other.start && other.end() <= self.end()
    }

    /// All frames that the range touches: what must be kept from others to keep the range from them.
    #[must_use]
    pub fn frames_touched(self) -> FrameSpan {
        let first = self.start >> FRAME_SHIFT;
        let last = (self.end() - 1) >> FRAME_SHIFT;
        Frame::new(first)
            .and_then(|start| FrameSpan::new(start, last - first + 1))
            .expect("frames of a range lie below 2^48: its constructor checked")
    }

    /// The whole frames inside the range, or `None` if it holds none: what may be used of it.
    #[must_use]
    pub fn frames_inside(self) -> Option<FrameSpan> {
        let first = self.start.div_ceil(FRAME_SIZE);
        let end = self.end() >> FRAME_SHIFT;
        FrameSpan::new(Frame::new(first)?, end.checked_sub(first)?)
    }
}

impl From<FrameSpan> for PhysRange {
    fn from(span: FrameSpan) -> Self {
        Self {
            start: span.start().address().value(),
            size: span.bytes(),
        }
    }
}

impl fmt::Display for PhysRange {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:#x}..{:#x}", self.start, self.end())
    }
}

impl fmt::Debug for PhysRange {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

/// How many separate regions of RAM a machine may have.
pub const MAX_MEMORY_REGIONS: usize = 32;

/// The RAM of the machine: whole frames, ascending, no two regions adjacent or overlapping.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct MemoryMap {
    regions: ArrayVec<PhysRange, MAX_MEMORY_REGIONS>,
}

/// There is no room for one more region.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct TooManyRegions;

impl MemoryMap {
    /// A machine without memory.
    #[must_use]
    pub const fn new() -> Self {
        Self {
            regions: ArrayVec::new_const(),
        }
    }

    /// The regions, in ascending order.
    #[must_use]
    pub fn regions(&self) -> &[PhysRange] {
        &self.regions
    }

    /// Adds the whole frames of `range`, in any order of calls. Regions that touch become one: firmware cuts
    /// memory where its NUMA nodes or its DRAM controllers end, and neither matters here.
    ///
    /// # Errors
    /// [`TooManyRegions`] if the machine has more than [`MAX_MEMORY_REGIONS`] separate ones.
    pub fn add(&mut self, range: PhysRange) -> Result<(), TooManyRegions> {
        let Some(frames) = range.frames_inside() else {
            return Ok(());
        };
        let mut merged = PhysRange::from(frames);
        // Whatever touches the new region is taken out and becomes part of it.
        self.regions.retain(|old| {
            let touches = old.start <= merged.end() && merged.start <= old.end();
            if touches {
                let start = old.start.min(merged.start);
                merged = Self::union(start, old.end().max(merged.end()));
            }
            !touches
        });
        let place = self.regions.partition_point(|old| old.start < merged.start);
        self.regions.try_insert(place, merged).map_err(|_| TooManyRegions)
    }

    /// The region that holds all of `range`.
    #[must_use]
    pub fn region_of(&self, range: PhysRange) -> Option<PhysRange> {
        self.regions.iter().copied().find(|region| region.contains(range))
    }

    /// How many bytes of RAM there are.
    #[must_use]
    pub fn bytes(&self) -> u64 {
        self.regions.iter().map(|region| region.size).sum()
    }

    /// The address after the last byte of RAM; 0 if there is none.
    #[must_use]
    pub fn end(&self) -> u64 {
        self.regions.last().map_or(0, |region| region.end())
    }

    /// The aligned blocks of `2^shift` bytes that RAM touches, as runs of block numbers: first and count,
    /// ascending, each block in one run only even where two regions of RAM share it.
    pub fn blocks(&self, shift: u32) -> impl Iterator<Item = BlockRun> + '_ {
        let mut next_free = 0;
        self.regions.iter().filter_map(move |region| {
            let first = (region.start >> shift).max(next_free);
            let end = ((region.end() - 1) >> shift) + 1;
            next_free = end.max(next_free);
            let count = end.checked_sub(first).filter(|count| *count > 0)?;
            Some(BlockRun { first, count })
        })
    }

    /// Whether an aligned block of `2^shift` bytes holds bytes both of `range` and of RAM.
    #[must_use]
    pub fn shares_block(&self, range: PhysRange, shift: u32) -> bool {
        let (first, last) = (range.start() >> shift, (range.end() - 1) >> shift);
        self.blocks(shift)
            .any(|run| run.first <= last && first < run.first + run.count)
    }

    /// How many aligned blocks of `2^shift` bytes RAM touches.
    #[must_use]
    pub fn block_count(&self, shift: u32) -> u64 {
        self.blocks(shift).map(|run| run.count).sum()
    }

    fn union(start: u64, end: u64) -> PhysRange {
        PhysRange::from_bounds(start, end).expect("a union of ranges is a range: both lie below 2^48")
    }
}

/// A run of aligned blocks, by number: the address of a block is its number times the block's size.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct BlockRun {
    /// The number of the first block.
    pub first: u64,
    /// How many blocks; at least 1.
    pub count: u64,
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::vec::Vec;

    fn range(start: u64, size: u64) -> PhysRange {
        PhysRange::new(start, size).unwrap()
    }

    #[test]
    fn a_range_is_never_empty_and_never_wraps() {
        assert!(PhysRange::new(0x1000, 0).is_none());
        assert!(PhysRange::new(u64::MAX, 1).is_none());
        assert!(PhysRange::new(u64::MAX, 2).is_none());
        assert!(PhysRange::new(1, u64::MAX).is_none());
        assert!(PhysRange::new((1 << 48) - 1, 1).is_some());
        assert!(PhysRange::new((1 << 48) - 1, 2).is_none());
        assert!(PhysRange::from_bounds(2, 1).is_none());
    }

    #[test]
    fn registers_beside_ram_are_told_from_those_apart() {
        let mut memory = MemoryMap::new();
        memory.add(range(0x4000_0000, 0x1000_0000)).unwrap();
        memory.add(range(0x6010_0000, 0x1000)).unwrap();
        let beside = |start, size| memory.shares_block(range(start, size), 21);
        assert!(!beside(0x3fff_f000, 0x1000));
        assert!(beside(0x3fff_f000, 0x1001));
        assert!(!beside(0x5000_0000, 0x1000));
        assert!(beside(0x6000_0000, 0x18), "RAM begins later in the same 2 MiB");
        assert!(beside(0x601f_f000, 0x20_0000));
        assert!(!beside(0x6020_0000, 0x1000));
    }

    #[test]
    fn frames_touched_and_inside() {
        let registers = range(0x902_0000, 0x18);
        assert_eq!(registers.frames_touched().frames(), 1);
        assert!(registers.frames_inside().is_none());
        let odd = range(0xfff, 0x2002);
        assert_eq!(
            (
                odd.frames_touched().start().number(),
                odd.frames_touched().frames()
            ),
            (0, 4)
        );
        assert_eq!(
            odd.frames_inside()
                .map(|span| (span.start().number(), span.frames())),
            Some((1, 2))
        );
        let last = range((1 << 48) - 1, 1);
        assert_eq!(last.frames_touched().end_number(), 1 << 36);
        assert!(last.frames_inside().is_none());
    }

    #[test]
    fn memory_is_sorted_and_merged_whatever_the_order() {
        let parts = [
            range(0x8000_0000, 0x1000_0000),
            range(0x4000_0000, 0x4000_0000),
            range(0xa000_0000, 0x1000),
        ];
        for order in [[0, 1, 2], [2, 1, 0], [1, 0, 2], [0, 2, 1]] {
            let mut memory = MemoryMap::new();
            for index in order {
                memory.add(parts[index]).unwrap();
            }
            assert_eq!(
                memory.regions(),
                [range(0x4000_0000, 0x5000_0000), range(0xa000_0000, 0x1000)]
            );
            assert_eq!(memory.bytes(), 0x5000_1000);
        }
    }

    #[test]
    fn a_region_that_bridges_others_joins_them() {
        let mut memory = MemoryMap::new();
        memory.add(range(0x1000, 0x1000)).unwrap();
        memory.add(range(0x3000, 0x1000)).unwrap();
        memory.add(range(0x5000, 0x1000)).unwrap();
        memory.add(range(0x1800, 0x3000)).unwrap();
        assert_eq!(memory.regions(), [range(0x1000, 0x3000), range(0x5000, 0x1000)]);
    }

    #[test]
    fn the_one_region_too_many_is_refused() {
        let mut memory = MemoryMap::new();
        for index in 0..MAX_MEMORY_REGIONS as u64 {
            memory.add(range(index * 0x2000, 0x1000)).unwrap();
        }
        assert_eq!(memory.add(range(0x100_0000, 0x1000)), Err(TooManyRegions));
        assert_eq!(memory.add(range(0x1000, 0x1000)), Ok(()));
    }

    #[test]
    fn a_block_shared_by_two_regions_counts_once() {
        let mut memory = MemoryMap::new();
        memory.add(range(0x4000_0000, 0x10_0000)).unwrap();
        memory.add(range(0x4018_0000, 0x1000)).unwrap();
        memory.add(range(0x401f_0000, 0x40_0000)).unwrap();
        let runs: Vec<_> = memory.blocks(21).collect();
        assert_eq!(
            runs,
            [
                BlockRun {
                    first: 0x200,
                    count: 1
                },
                BlockRun {
                    first: 0x201,
                    count: 2
                }
            ]
        );
        assert_eq!(memory.block_count(21), 3);
        assert_eq!(memory.block_count(30), 1);
    }
}
