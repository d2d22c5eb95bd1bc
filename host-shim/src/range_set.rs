//! A set of numbers, kept as ranges.

use alloc::collections::BTreeMap;
use core::ops::Range;

/// A set of numbers. Ranges that touch are one.
#[derive(Debug, Default)]
pub(crate) struct RangeSet {
    /// The end of each range, by its start.
    ranges: BTreeMap<u64, u64>,
}

impl RangeSet {
    pub(crate) const fn new() -> Self {
        Self {
            ranges: BTreeMap::new(),
        }
    }

    /// How many numbers.
    pub(crate) fn len(&self) -> u64 {
        self.iter().map(|range| range.end - range.start).sum()
    }

    /// The ranges, ascending.
    pub(crate) fn iter(&self) -> impl Iterator<Item = Range<u64>> {
        self.ranges.iter().map(|(start, end)| *start..*end)
    }

    /// The first numbers of the set in `range` that lie together.
    pub(crate) fn first_in(&self, range: Range<u64>) -> Option<Range<u64>> {
        let before = self
            .at_or_before(range.start)
            .filter(|before| range.start < before.end);
        let found = before.or_else(|| {
            let (start, end) = self.ranges.range(range.start..).next()?;
            Some(*start..*end)
        })?;
        let part = found.start.max(range.start)..found.end.min(range.end);
        (part.start < part.end).then_some(part)
    }

    pub(crate) fn insert(&mut self, range: Range<u64>) {
        if range.is_empty() {
            return;
        }
        let Range { mut start, mut end } = range;
        // Whatever overlaps it or touches it becomes part of it.
        while let Some(other) = self.at_or_before(end).filter(|other| start <= other.end) {
            self.ranges.remove(&other.start);
            start = start.min(other.start);
            end = end.max(other.end);
        }
        self.ranges.insert(start, end);
    }

    pub(crate) fn remove(&mut self, range: Range<u64>) {
        while let Some(part) = self.first_in(range.clone()) {
            let Some(whole) = self.at_or_before(part.start) else {
                return;
            };
            self.ranges.remove(&whole.start);
            for rest in [whole.start..part.start, part.end..whole.end] {
                if !rest.is_empty() {
                    self.ranges.insert(rest.start, rest.end);
                }
            }
        }
    }

    fn at_or_before(&self, number: u64) -> Option<Range<u64>> {
        let (start, end) = self.ranges.range(..=number).next_back()?;
        Some(*start..*end)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use alloc::vec::Vec;

    fn set(ranges: &[Range<u64>]) -> RangeSet {
        let mut set = RangeSet::new();
        for range in ranges {
            set.insert(range.clone());
        }
        set
    }

    fn ranges(set: &RangeSet) -> Vec<(u64, u64)> {
        set.iter().map(|range| (range.start, range.end)).collect()
    }

    #[test]
    fn ranges_that_touch_or_overlap_become_one() {
        assert_eq!(ranges(&set(&[1..3, 5..7, 3..5])), [(1, 7)]);
        assert_eq!(ranges(&set(&[1..3, 8..9, 2..8])), [(1, 9)]);
        assert_eq!(ranges(&set(&[4..6, 1..2, 1..9])), [(1, 9)]);
        assert_eq!(ranges(&set(&[4..6, 1..1])), [(4, 6)]);
    }

    #[test]
    fn what_is_removed_is_gone_and_the_rest_stays() {
        let mut set = set(&[0..10, 20..30]);
        set.remove(5..25);
        assert_eq!(ranges(&set), [(0, 5), (25, 30)]);
        set.remove(2..3);
        assert_eq!(ranges(&set), [(0, 2), (3, 5), (25, 30)]);
        assert_eq!(set.len(), 9);
        assert!(set.first_in(1..2).is_some() && set.first_in(2..3).is_none());
        set.remove(0..100);
        assert_eq!(set.len(), 0);
    }

    #[test]
    fn the_first_part_of_a_window_is_found() {
        let set = set(&[2..5, 8..12]);
        assert_eq!(set.first_in(0..1), None);
        assert_eq!(set.first_in(3..4), Some(3..4));
        assert_eq!(set.first_in(4..10), Some(4..5));
        assert_eq!(set.first_in(5..10), Some(8..10));
        assert_eq!(set.first_in(12..20), None);
    }
}
