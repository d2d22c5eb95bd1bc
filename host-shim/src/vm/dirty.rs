//! What a guest has written to in a slot of a process's memory: kept page by page, if somebody wants to know.

use super::record::Mark;
use super::user::{Conditions, READ};
use super::{Identity, Slot, Vm};
use crate::{Error, Kernel};
use alloc::sync::Arc;
use core::ops::Range;
use hyp_abi::GuestRange;

/// Pages of a word, by which they are told.
const WORD: u64 = u64::BITS as u64;

/// How many pages are gone through before others may have the lock, and the CPU.
const PAGES_AT_ONCE: u64 = 1 << 14;

impl<K: Kernel> Vm<K> {
    /// Begins to keep what the guest writes to in a slot of a process's memory, or ends it.
    ///
    /// # Errors
    /// [`Error::NotFound`]; [`Error::Interrupted`], and what EL2 refuses: then it is asked to keep it, and to begin anew is
    /// to be tried again.
    pub fn set_logs(&self, number: u32, logs: bool) -> Result<(), Error> {
        let core = self.core();
        let slot = core.slots.lock().by_number(number).map(Arc::clone);
        let slot = slot.ok_or(Error::NotFound)?;
        slot.user().ok_or(Error::NotFound)?.set_logs(logs);
        for window in windows(slot.pages(), PAGES_AT_ONCE) {
            core.host().kernel().pause();
            core.lent(|_| slot.record.clear(Mark::Dirty, window));
        }
        if !logs {
            return Ok(());
        }
        for window in windows(slot.pages(), PAGES_AT_ONCE) {
            core.host().kernel().pause();
            core.host().go_on()?;
            core.protect_all(&slot, Mark::Borrowed, window, |_| ())?;
        }
        Ok(())
    }

    /// Tells what the guest has written to in a slot since it was last asked, 64 pages at a time, and begins anew: `tell` is
    /// given the pages, counted from the slot's first, and a bit for each.
    ///
    /// # Errors
    /// [`Error::NotFound`] if there is no slot of a process's memory of that number which keeps that; those of `tell`;
    /// [`Error::Interrupted`]; what EL2 refuses. What was told by then is begun anew.
    pub fn take_dirty(
        &self,
        number: u32,
        tell: &mut dyn FnMut(Range<u64>, u64) -> Result<(), Error>,
    ) -> Result<(), Error> {
        let core = self.core();
        let slot = core.slots.lock().by_number(number).map(Arc::clone);
        let slot = slot.ok_or(Error::NotFound)?;
        if !slot.user().is_some_and(Conditions::logs) {
            return Err(Error::NotFound);
        }
        for window in windows(slot.pages(), WORD) {
            if window.start % PAGES_AT_ONCE == 0 {
                core.host().kernel().pause();
                core.host().go_on()?;
            }
            let (start, mut bits) = (window.start, 0);
            core.protect_all(&slot, Mark::Dirty, window.clone(), |page| {
                bits |= 1 << (page - start)
            })?;
            tell(window, bits)?;
        }
        Ok(())
    }
}

impl<K: Kernel> Identity<K> {
    /// Has the next write to each page of a window that has a mark be a fault, and forgets that it was written to.
    fn protect_all(
        &self,
        slot: &Slot<K>,
        mark: Mark,
        window: Range<u64>,
        mut done: impl FnMut(u64),
    ) -> Result<(), Error> {
        let mut at = window.start;
        while let Some(marked) = slot.record.first_with(mark, at..window.end) {
            at = marked.end;
            for page in marked {
                self.protect(slot, page)?;
                done(page);
            }
        }
        Ok(())
    }

    fn protect(&self, slot: &Slot<K>, page: u64) -> Result<(), Error> {
        self.call(|vm| {
            self.lent(|_| {
                if slot.record.has(Mark::Borrowed, page) {
                    let range = GuestRange::new(slot.gfns().start + page, 1);
                    self.host()
                        .hypervisor()
                        .set_permissions(vm, range, READ)
                        .map_err(|stopped| stopped.error)?;
                }
                slot.record.clear(Mark::Dirty, page..page + 1);
                Ok(())
            })
        })
    }
}

/// So many pages at a time.
fn windows(pages: u64, at_once: u64) -> impl Iterator<Item = Range<u64>> {
    (0..pages)
        .step_by(at_once as usize)
        .map(move |start| start..pages.min(start + at_once))
}
