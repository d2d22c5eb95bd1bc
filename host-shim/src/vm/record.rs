//! What is known of the pages of a slot: a record that takes no memory where it is written, only where it is prepared.

use alloc::boxed::Box;
use alloc::vec::Vec;
use core::ops::Range;
use core::sync::atomic::{AtomicU64, Ordering};
use spin::Once;

/// What a page can be.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Mark {
    /// The guest borrows it. Marked before it is shared.
    Borrowed,
    /// Somebody ends that.
    Leaving,
    /// The guest may have written to it since the host last asked.
    Dirty,
    /// The guest had used it when the host last looked, and the host did not want to know anew.
    Used,
}

const MARKS: u64 = 4;
/// Pages of a word.
const WORD: u64 = u64::BITS as u64;
/// Pages that are prepared together: their marks take a page.
const PART: u64 = 8192;

/// The marks of some pages side by side: those of one kind, then those of the next.
type Part = Box<[AtomicU64]>;

/// The marks of the pages of a slot, counted from its first. What is not prepared has none.
///
/// Whoever changes marks has a lock that keeps others from changing them. They can be read without, and are what they
/// were at some time.
#[derive(Debug)]
pub(crate) struct Record {
    pages: u64,
    parts: Box<[Once<Part>]>,
}

impl Record {
    /// A record of so many pages, of which none is prepared.
    pub(crate) fn new(pages: u64) -> Self {
        let parts = (0..pages.div_ceil(PART)).map(|_| Once::new()).collect();
        Self { pages, parts }
    }

    /// Sees that the pages of a window can be marked. Allocates memory.
    pub(crate) fn prepare(&self, window: Range<u64>) {
        for number in window.start / PART..window.end.div_ceil(PART) {
            let Some(part) = self.parts.get(number as usize) else {
                return;
            };
            if !part.is_completed() {
                let words = MARKS * self.words_of(number);
                let new: Vec<AtomicU64> = (0..words).map(|_| AtomicU64::new(0)).collect();
                part.call_once(|| new.into());
            }
        }
    }

    /// Whether a page has a mark.
    pub(crate) fn has(&self, mark: Mark, page: u64) -> bool {
        self.word(mark, page)
            .is_some_and(|word| word.load(Ordering::Relaxed) >> (page % WORD) & 1 != 0)
    }

    /// Marks the pages of a window, which are prepared.
    pub(crate) fn mark(&self, mark: Mark, window: Range<u64>) {
        each_word(window, |first, bits| {
            let word = self.word(mark, first);
            debug_assert!(word.is_some(), "what is marked was prepared");
            if let Some(word) = word {
                word.fetch_or(bits, Ordering::Relaxed);
            }
        });
    }

    /// Gives a mark to the pages that have it in another record of as many. Allocates memory.
    pub(crate) fn copy(&self, mark: Mark, from: &Self) {
        let mut at = 0;
        while let Some(window) = from.first_with(mark, at..from.pages) {
            at = window.end;
            self.prepare(window.clone());
            self.mark(mark, window);
        }
    }

    /// Takes a mark from the pages of a window.
    pub(crate) fn clear(&self, mark: Mark, window: Range<u64>) {
        each_word(window, |first, bits| {
            if let Some(word) = self.word(mark, first) {
                word.fetch_and(!bits, Ordering::Relaxed);
            }
        });
    }

    /// The first pages of a window that lie together and have a mark.
    pub(crate) fn first_with(&self, mark: Mark, window: Range<u64>) -> Option<Range<u64>> {
        self.first(mark, window, true)
    }

    /// The first pages of a window that lie together and do not have a mark.
    pub(crate) fn first_without(&self, mark: Mark, window: Range<u64>) -> Option<Range<u64>> {
        self.first(mark, window, false)
    }

    fn first(&self, mark: Mark, window: Range<u64>, wanted: bool) -> Option<Range<u64>> {
        let start = self.find(mark, window.clone(), wanted);
        let end = self.find(mark, start..window.end, !wanted);
        (start < end).then_some(start..end)
    }

    /// The first page of a window that has a mark, or has it not; its end if there is none.
    fn find(&self, mark: Mark, window: Range<u64>, wanted: bool) -> u64 {
        let mut at = window.start;
        while at < window.end {
            let found = match self.word(mark, at) {
                Some(word) => word.load(Ordering::Relaxed),
                // All of the part is without.
                None if wanted => {
                    at = (at / PART + 1) * PART;
                    continue;
                }
                None => 0,
            };
            let rest = (if wanted { found } else { !found }) >> (at % WORD);
            if rest != 0 {
                return window.end.min(at + u64::from(rest.trailing_zeros()));
            }
            at = (at / WORD + 1) * WORD;
        }
        window.end
    }

    /// The word of a page, if it is prepared.
    fn word(&self, mark: Mark, page: u64) -> Option<&AtomicU64> {
        let number = page / PART;
        let part = self.parts.get(number as usize)?.get()?;
        let word = mark as u64 * self.words_of(number) + page % PART / WORD;
        part.get(word as usize)
    }

    /// Words of each mark in a part.
    fn words_of(&self, part: u64) -> u64 {
        (self.pages - part * PART).min(PART).div_ceil(WORD)
    }
}

/// Has each word of a window changed: its first page, and the bits.
fn each_word(window: Range<u64>, mut change: impl FnMut(u64, u64)) {
    let mut at = window.start;
    while at < window.end {
        let end = window.end.min((at / WORD + 1) * WORD);
        let bits = u64::MAX >> (WORD - (end - at)) << (at % WORD);
        change(at, bits);
        at = end;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_sequence_of_changes_agrees_with_a_plain_array() {
        const PAGES: u64 = PART + 100;
        let record = Record::new(PAGES);
        let (mut plain, mut seed) = ([[false; PAGES as usize]; 2], 7_u64);
        let mut next = |below: u64| {
            seed = seed.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
            (seed >> 33) % below
        };
        for _ in 0..3000 {
            let (start, length) = (next(PAGES), next(300));
            let window = start..(start + length).min(PAGES);
            let (mark, index) = [(Mark::Borrowed, 0), (Mark::Used, 1)][next(2) as usize];
            let there = &mut plain[index];
            let part = window.start as usize..window.end as usize;
            if next(2) == 0 {
                record.prepare(window.clone());
                record.mark(mark, window.clone());
                there[part.clone()].fill(true);
            } else {
                record.clear(mark, window.clone());
                there[part.clone()].fill(false);
            }
            let page = next(PAGES);
            assert_eq!(record.has(mark, page), there[page as usize]);
            for wanted in [true, false] {
                let from = next(PAGES) as usize;
                let start = (from..PAGES as usize).find(|page| there[*page] == wanted);
                let expected = start.map(|start| {
                    let end = (start..PAGES as usize).find(|page| there[*page] != wanted);
                    start as u64..end.map_or(PAGES, |end| end as u64)
                });
                assert_eq!(record.first(mark, from as u64..PAGES, wanted), expected);
            }
        }
    }

    #[test]
    fn what_is_not_prepared_has_no_mark_and_can_lose_none() {
        let record = Record::new(3 * PART);
        record.clear(Mark::Borrowed, 0..3 * PART);
        assert_eq!(record.first_with(Mark::Borrowed, 0..3 * PART), None);
        assert_eq!(record.first_without(Mark::Borrowed, 5..9), Some(5..9));
        record.prepare(2 * PART..2 * PART + 1);
        record.mark(Mark::Borrowed, 3 * PART - 1..3 * PART);
        assert_eq!(
            record.first_with(Mark::Borrowed, 0..3 * PART),
            Some(3 * PART - 1..3 * PART)
        );
        assert_eq!(record.first_with(Mark::Leaving, 0..3 * PART), None);
        assert_eq!(record.first_with(Mark::Borrowed, 7..7), None);
    }

    #[test]
    fn a_small_slot_has_a_small_record() {
        let record = Record::new(1);
        record.prepare(0..1);
        assert_eq!(record.parts[0].get().unwrap().len() as u64, MARKS);
        assert_eq!(Record::new((1 << 31) - 1).parts.len(), 1 << 18);
    }
}
