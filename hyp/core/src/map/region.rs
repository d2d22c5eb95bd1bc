//! A locked region of the ownership map.
//!
//! While a [`Region`] lives its lock is held: nobody else reads or changes the entries of its frames, nor the
//! level-2 descriptor of the host's table that maps it, nor the level-3 table below that. Its word is written back,
//! and the lock with it, when it is dropped.

use super::RegionNumber;
use super::entry::{Entry, LOCK_BIT, RegionWord};
use crate::addr::{Frame, FrameSpan};
use crate::geometry::Geometry;
use crate::hardware::{Event, Hardware, LockName, TablePage};
use crate::state::State;
use crate::sync::{AtomicU64, Ordering, spin_hint};

/// A region whose lock is held.
#[derive(Debug)]
pub struct Region<'a, H: Hardware> {
    hw: &'a H,
    word: &'a AtomicU64,
    number: RegionNumber,
    start: Frame,
    now: RegionWord,
}

/// A node that its region no longer needs. It goes back to the pool.
#[must_use = "the page of a folded node must go back to the pool"]
#[derive(Debug)]
pub struct FoldedNode(TablePage);

/// What came of [`Region::replace_one`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Replaced {
    /// The frame has the new entry.
    Done,
    /// It has this entry, not the old one; nothing has changed.
    Differs(Entry),
    /// The region needs a node first; nothing has changed.
    NeedsNode,
}

impl FoldedNode {
    /// Gives the page back.
    pub fn release(self, hw: &impl Hardware) {
        hw.free_page(self.0);
    }
}

impl<'a, H: Hardware> Region<'a, H> {
    #[inline]
    pub(super) fn lock(hw: &'a H, word: &'a AtomicU64, number: RegionNumber, start: Frame) -> Self {
        loop {
            let seen = word.fetch_or(LOCK_BIT, Ordering::Acquire);
            if seen & LOCK_BIT == 0 {
                hw.observe(Event::Locked(LockName::Region(u64::from(number.value()))));
                return Self {
                    hw,
                    word,
                    number,
                    start,
                    now: RegionWord::decode(seen),
                };
            }
            // Waiting reads do not take the cache line away from the CPU that holds the lock.
            while word.load(Ordering::Relaxed) & LOCK_BIT != 0 {
                spin_hint();
            }
        }
    }

    /// The number of the region.
    #[must_use]
    pub fn number(&self) -> RegionNumber {
        self.number
    }

    /// The region's first frame.
    #[must_use]
    pub fn start(&self) -> Frame {
        self.start
    }

    /// The entry that all frames of the region have (see [`Entry::at`]), or `None` if they differ.
    #[must_use]
    #[inline]
    pub fn uniform(&self) -> Option<Entry> {
        match self.now {
            RegionWord::Uniform(entry) => Some(entry),
            RegionWord::Node { breaks: 0, page } => Some(self.read(page, 0)),
            RegionWord::Node { .. } => None,
        }
    }

    /// The entry of the frame with `index` in the region. An index past its end reads as a reserved frame.
    #[must_use]
    #[inline]
    pub fn entry(&self, index: usize) -> Entry {
        match self.now {
            RegionWord::Uniform(entry) => entry.at(index),
            RegionWord::Node { page, .. } => self.read(page, index),
        }
    }

    /// Whether changing `count` frames from `first` needs a node that the region does not have.
    #[must_use]
    #[inline]
    pub fn needs_node(&self, count: usize) -> bool {
        matches!(self.now, RegionWord::Uniform(_)) && count < H::Geometry::ENTRIES
    }

    /// Whether the region has a node, uniform or not.
    #[must_use]
    pub fn has_node(&self) -> bool {
        matches!(self.now, RegionWord::Node { .. })
    }

    /// Checks `count` frames from `first`, each by `judge`, and stops at the first refusal.
    ///
    /// # Errors
    /// What `judge` answered, and the index of the frame.
    #[inline]
    pub fn check<E>(
        &self,
        first: usize,
        count: usize,
        mut judge: impl FnMut(Entry) -> Result<(), E>,
    ) -> Result<(), (usize, E)> {
        match self.now {
            // One look answers for all of them: nothing that is judged differs between frames that agree.
            RegionWord::Uniform(entry) => judge(entry).map_err(|error| (first, error)),
            RegionWord::Node { page, .. } => {
                let entries = self.hw.table(page).iter().enumerate().skip(first).take(count);
                for (index, word) in entries {
                    judge(Entry::from_word(word.load(Ordering::Relaxed))).map_err(|error| (index, error))?;
                }
                Ok(())
            }
        }
    }

    /// How many frames from `first` on, `count` at most, a uniform region would have as they are: each entry agrees with
    /// the one before it. At least 1, if `count` is not 0.
    #[must_use]
    pub fn agreeing(&self, first: usize, count: usize) -> usize {
        match self.now {
            RegionWord::Uniform(_) => count,
            RegionWord::Node { page, .. } => {
                let entries = self.hw.table(page).iter().skip(first).take(count);
                let mut last: Option<Entry> = None;
                let same = entries.take_while(|word| {
                    let entry = Entry::from_word(word.load(Ordering::Relaxed));
                    let agrees = last.is_none_or(|last| last.agrees_with_next(entry));
                    last = Some(entry);
                    agrees
                });
                same.count()
            }
        }
    }

    /// Gives `count` frames from `first` the entry `new` (numbered on from there, see [`Entry::at`]). `node` is an
    /// empty page, which must be there if [`Region::needs_node`] says so; it is taken only then.
    ///
    /// Returns a node that is no longer needed because the whole region got one entry.
    #[inline]
    pub fn set(
        &mut self,
        first: usize,
        count: usize,
        new: Entry,
        node: &mut Option<TablePage>,
    ) -> Option<FoldedNode> {
        self.report(first, count, new);
        if count >= H::Geometry::ENTRIES {
            let old = self.now;
            self.now = RegionWord::Uniform(new);
            return match old {
                RegionWord::Node { page, .. } => Some(FoldedNode(page)),
                RegionWord::Uniform(_) => None,
            };
        }
        let (page, breaks) = match self.now {
            RegionWord::Node { page, breaks } => (page, breaks),
            RegionWord::Uniform(old) => {
                // A region that was checked to need a node and got none keeps its old entry: a lost change is
                // caught by the caller's own check, a change of the wrong frames would not be.
                let page = node.take()?;
                old.fill(self.hw.table(page));
                (page, 0)
            }
        };
        let before = self.breaks_around(page, first, count);
        for (offset, word) in self.hw.table(page).iter().skip(first).take(count).enumerate() {
            word.store(new.at(offset).to_word(), Ordering::Relaxed);
        }
        // Inside the changed run all neighbours agree, so only its two borders can still break.
        let after = self.breaks_at_borders(page, first, count);
        self.now = RegionWord::Node {
            page,
            breaks: (breaks + after).saturating_sub(before),
        };
        None
    }

    /// Gives the frame with `index` the entry `new` if it has the entry `old`. The short way of a call on one frame.
    #[inline(always)]
    pub fn replace_one(&mut self, index: usize, old: Entry, new: Entry) -> Replaced {
        let (page, breaks) = match self.now {
            RegionWord::Uniform(entry) if entry == old => return Replaced::NeedsNode,
            RegionWord::Uniform(entry) => return Replaced::Differs(entry),
            RegionWord::Node { page, breaks } => (page, breaks),
        };
        let entries = self.hw.table(page);
        let Some(word) = entries.get(index) else {
            return Replaced::Differs(Entry::plain(State::Reserved));
        };
        let found = Entry::from_word(word.load(Ordering::Relaxed));
        if found != old {
            return Replaced::Differs(found);
        }
        word.store(new.to_word(), Ordering::Relaxed);
        let mut breaks = breaks;
        if let Some(before) = index.checked_sub(1).and_then(|index| entries.get(index)) {
            let before = Entry::from_word(before.load(Ordering::Relaxed));
            breaks = breaks.wrapping_add(u16::from(!before.agrees_with_next(new)));
            breaks = breaks.wrapping_sub(u16::from(!before.agrees_with_next(old)));
        }
        if let Some(after) = entries.get(index + 1) {
            let after = Entry::from_word(after.load(Ordering::Relaxed));
            breaks = breaks.wrapping_add(u16::from(!new.agrees_with_next(after)));
            breaks = breaks.wrapping_sub(u16::from(!old.agrees_with_next(after)));
        }
        self.now = RegionWord::Node { page, breaks };
        self.report_run(index, 1, old.state(), new.state());
        Replaced::Done
    }

    /// Makes the region one word again if its frames all agree. Returns the node, which goes back to the pool.
    ///
    /// A region keeps its node while a CPU is at work on some of its frames, EL2 has pinned them one by one, or guests borrow
    /// them one by one: what ends the work, the pin or the loan changes a part of the region, and must not lack a page for
    /// that. A host ends loans as it takes memory from a process, when it has none.
    pub fn fold(&mut self) -> Option<FoldedNode> {
        let RegionWord::Node { page, breaks: 0 } = self.now else {
            return None;
        };
        let entry = self.read(page, 0);
        let in_work = entry.transit().is_some_and(|transit| transit.active);
        let counted =
            matches!(entry.state(), State::HostSharedHyp | State::HostSharedGuest) && entry.count() > 0;
        if in_work || counted {
            return None;
        }
        self.now = RegionWord::Uniform(entry);
        Some(FoldedNode(page))
    }

    /// How many neighbours in the node do not agree, counted anew, beside the number that the map keeps; they are
    /// equal unless the map is broken. A region without a node answers two zeros.
    #[must_use]
    pub fn audit_breaks(&self) -> (u16, u16) {
        match self.now {
            RegionWord::Uniform(_) => (0, 0),
            RegionWord::Node { page, breaks } => {
                (self.breaks_around(page, 1, H::Geometry::ENTRIES - 1), breaks)
            }
        }
    }

    fn read(&self, page: TablePage, index: usize) -> Entry {
        self.hw
            .table(page)
            .get(index)
            .map_or(Entry::plain(State::Reserved), |word| {
                Entry::from_word(word.load(Ordering::Relaxed))
            })
    }

    /// How many of the neighbours of which at least one lies in the run do not agree.
    fn breaks_around(&self, page: TablePage, first: usize, count: usize) -> u16 {
        let entries = self.hw.table(page);
        let from = first.saturating_sub(1);
        let to = (first + count + 1).min(entries.len());
        let run = entries.get(from..to).unwrap_or(&[]);
        let mut breaks = 0;
        let mut last: Option<Entry> = None;
        for word in run {
            let entry = Entry::from_word(word.load(Ordering::Relaxed));
            if last.is_some_and(|last| !last.agrees_with_next(entry)) {
                breaks += 1;
            }
            last = Some(entry);
        }
        breaks
    }

    /// How many of the two borders of the run do not agree.
    fn breaks_at_borders(&self, page: TablePage, first: usize, count: usize) -> u16 {
        let mut breaks = 0;
        if first > 0
            && !self
                .read(page, first - 1)
                .agrees_with_next(self.read(page, first))
        {
            breaks += 1;
        }
        let end = first + count;
        if end < H::Geometry::ENTRIES && !self.read(page, end - 1).agrees_with_next(self.read(page, end)) {
            breaks += 1;
        }
        breaks
    }

    /// Tells the totals and the trace of a change, run by run of frames that had one state before.
    #[inline]
    fn report(&self, first: usize, count: usize, new: Entry) {
        let to = new.state();
        match self.now {
            RegionWord::Uniform(old) => self.report_run(first, count, old.state(), to),
            RegionWord::Node { .. } => {
                let mut run_start = first;
                let mut run_state = self.entry(first).state();
                for index in first + 1..first + count {
                    let state = self.entry(index).state();
                    if state != run_state {
                        self.report_run(run_start, index - run_start, run_state, to);
                        run_start = index;
                        run_state = state;
                    }
                }
                self.report_run(run_start, first + count - run_start, run_state, to);
            }
        }
    }

    #[inline(always)]
    fn report_run(&self, first: usize, count: usize, from: State, to: State) {
        let frames = count as u64;
        if from != to {
            self.hw.tally(frames, from.into(), to.into());
        }
        if let Some(span) = self
            .start
            .checked_add(first as u64)
            .and_then(|start| FrameSpan::new(start, frames))
        {
            self.hw.observe(Event::Transition {
                frames: span,
                from: from.into(),
                to: to.into(),
            });
        }
    }
}

impl<H: Hardware> Drop for Region<'_, H> {
    #[inline]
    fn drop(&mut self) {
        self.hw
            .observe(Event::Unlocked(LockName::Region(u64::from(self.number.value()))));
        // Stores the word with the lock bit clear; Release makes every entry written under the lock visible to
        // the next CPU that takes it.
        self.word.store(self.now.encode(), Ordering::Release);
    }
}

#[cfg(test)]
mod tests;
