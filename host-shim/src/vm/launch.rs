//! What a VM has when it begins, as far as its slots and files say.

use super::Vm;
use crate::memfd::Page;
use crate::{Error, Kernel};
use alloc::sync::Arc;
use alloc::vec::Vec;
use core::ops::Range;
use hyp_abi::GuestRange;

impl<K: Kernel> Vm<K> {
    /// The guest frame numbers that have slots of files at the moment, ascending, those together that lie together: what is to
    /// be declared before the launch. Where a process's memory stands behind them it may go, and a device come.
    #[must_use]
    pub fn slot_ranges(&self) -> Vec<GuestRange> {
        let mut ranges: Vec<GuestRange> = Vec::new();
        for slot in (self.core().slots.lock().ascending()).filter(|slot| slot.user().is_none()) {
            let gfns = slot.gfns();
            match ranges.last_mut() {
                Some(last) if last.gfn + last.frames == gfns.start => last.frames += slot.pages(),
                _ => ranges.push(GuestRange::new(gfns.start, slot.pages())),
            }
        }
        ranges
    }

    /// Whether a guest frame number has a slot at the moment.
    #[must_use]
    pub fn has_slot_at(&self, gfn: u64) -> bool {
        self.core().slot_at(gfn).is_some()
    }

    /// Gives the guest every page that its files have and it has not, in ascending order of guest frame numbers, with
    /// what is in it: before the launch they are digested. Returns how many it asked for.
    ///
    /// # Errors
    /// Those of [`Vm::populate`]. What was given by then stays given, and it can be called again.
    pub fn give_resident(&self) -> Result<u64, Error> {
        let slots: Vec<_> = self.core().slots.lock().ascending().map(Arc::clone).collect();
        let mut given = 0;
        for slot in slots {
            // A file that was closed has nothing to give.
            let Some(inode) = slot.file().map(|file| Arc::clone(file.inode())) else {
                continue;
            };
            let window = slot.window();
            let mut at = window.start;
            while let Some(hold) = inode.hold_first(&(at..window.end)) {
                let extent = hold.range();
                let part = extent.start.max(at)..extent.end.min(window.end);
                at = part.end;
                let runs: Vec<Range<u64>> = hold
                    .runs(part)
                    .into_iter()
                    .filter(|(_, page)| matches!(page, Page::Fresh | Page::Ready))
                    .map(|(run, _)| run)
                    .collect();
                // What gives them takes the hold itself.
                drop(hold);
                for run in runs {
                    let pages = run.end - run.start;
                    self.populate(GuestRange::new(slot.gfn_of(run.start), pages))?;
                    given += pages;
                }
            }
        }
        Ok(given)
    }
}
