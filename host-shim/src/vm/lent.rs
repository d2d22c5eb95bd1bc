//! Pages of a process that a guest borrows, by where the process has them: what the kernel tells when it takes pages from
//! the process.
//!
//! The kernel says when it begins to take a range of the process's pages, and when it is done. From the beginning to the
//! end no page of the range is lent, and what was lent before goes back at the beginning. Whoever lends a page looks for it
//! in between two looks at the count of ends ([`Lent::sample`], [`Lent::is_unchanged`]): if the kernel was at work
//! meanwhile, what was found may be another's by now.
//!
//! The kernel takes memory for its own sake, perhaps because there is none left, and holds locks as it does. So nothing here
//! that it calls waits, allocates, or can fail: the record is prepared, and EL2 ends the loan of a page that was lent by
//! itself without taking a page for that.

use super::record::Mark;
use super::{Identity, Slot};
use crate::{CallError, Error, Kernel};
use alloc::sync::Arc;
use alloc::vec::Vec;
use core::fmt;
use core::mem;
use core::ops::Range;
use core::sync::atomic::Ordering;
use hyp_abi::{GuestRange, Status};

/// How often EL2 is asked again for what it must do, while another CPU is in its way. It works on one page at most.
const TRIES: u32 = 1 << 16;

/// How many slots are looked at with the lock held.
const SLOTS_AT_ONCE: usize = 64;

/// How many pages go back before the caller may pause.
const PAGES_AT_ONCE: u32 = 32;

/// What is lent, and what the kernel is at work on. Pages are numbered as the process has them.
#[derive(Debug)]
pub(super) struct Lent<K: Kernel> {
    /// How many ranges the kernel is taking.
    at_work: u64,
    /// All of them are in it.
    range: Range<u64>,
    /// How many it has taken.
    ends: u64,
    /// The process is gone: there is nothing to be lent.
    is_over: bool,
    /// By where the process has them.
    slots: Vec<Arc<Slot<K>>>,
    /// The most pages that one of them has, or had.
    longest: u64,
}

/// Where a slot stands among the others. No two stand at the same place, so that a look from one to the next leaves none out:
/// not even one that is about to be refused, since it has the guest frame numbers of another.
type Place = (u64, u64, usize);

/// What a look for the next slot found.
enum Next<K: Kernel> {
    Slot(Arc<Slot<K>>),
    /// None so far: the look goes on after this one.
    More(Place),
    None,
}

impl<K: Kernel> Lent<K> {
    pub(super) const fn new() -> Self {
        Self {
            at_work: 0,
            range: 0..0,
            ends: 0,
            is_over: false,
            slots: Vec::new(),
            longest: 0,
        }
    }

    fn begin(&mut self, range: &Range<u64>) {
        if self.at_work == 0 {
            self.range = range.clone();
        } else {
            self.range = self.range.start.min(range.start)..self.range.end.max(range.end);
        }
        self.at_work += 1;
    }

    const fn end(&mut self) {
        self.ends += 1;
        self.at_work = self.at_work.saturating_sub(1);
    }

    /// What [`Lent::is_unchanged`] compares; `None` if the page cannot be lent at the moment.
    pub(super) fn sample(&self, page: u64) -> Option<u64> {
        let is_taken = self.at_work > 0 && self.range.contains(&page);
        (!is_taken && !self.is_over).then_some(self.ends)
    }

    /// Whether a page that was found after the sample is still what the process has.
    pub(super) fn is_unchanged(&self, page: u64, sample: u64) -> bool {
        self.sample(page) == Some(sample)
    }

    /// Adds a slot, if there is room for it.
    fn add(&mut self, slot: &Arc<Slot<K>>) -> bool {
        if self.slots.len() == self.slots.capacity() {
            return false;
        }
        let at = self.slots.partition_point(|other| place(other) < place(slot));
        self.slots.insert(at, Arc::clone(slot));
        self.longest = self.longest.max(slot.pages());
        true
    }

    fn remove(&mut self, slot: &Arc<Slot<K>>) -> Option<Arc<Slot<K>>> {
        let at = self.slots.iter().position(|other| Arc::ptr_eq(other, slot))?;
        Some(self.slots.remove(at))
    }

    /// The next slot after a place that has pages of a range.
    fn next(&self, after: Option<Place>, range: &Range<u64>) -> Next<K> {
        let from = match after {
            Some(after) => self.slots.partition_point(|slot| place(slot) <= after),
            None => self
                .slots
                .partition_point(|slot| slot.first() + self.longest <= range.start),
        };
        let mut last = None;
        for slot in self.slots.iter().skip(from).take(SLOTS_AT_ONCE) {
            if slot.first() >= range.end {
                return Next::None;
            }
            if slot.first() + slot.pages() > range.start {
                return Next::Slot(Arc::clone(slot));
            }
            last = Some(place(slot));
        }
        last.map_or(Next::None, Next::More)
    }
}

fn place<K: Kernel>(slot: &Arc<Slot<K>>) -> Place {
    (slot.first(), slot.gfns().start, Arc::as_ptr(slot).addr())
}

impl<K: Kernel> Identity<K> {
    /// Does something with what is lent. It takes a few instructions, and calls of EL2 about one page.
    pub(super) fn lent<R>(&self, work: impl FnOnce(&mut Lent<K>) -> R) -> R {
        let (mut work, mut result) = (Some(work), None);
        self.host().kernel().uninterrupted(&mut || {
            result = work.take().map(|work| work(&mut self.lent.lock()));
        });
        result.expect("the kernel does what it is given")
    }

    /// Adds a slot to those whose pages the kernel may take.
    pub(super) fn watch(&self, slot: &Arc<Slot<K>>) {
        while !self.lent(|lent| lent.add(slot)) {
            // Memory is neither taken nor freed with the lock.
            let slots = self.lent(|lent| lent.slots.len());
            let mut more = Vec::with_capacity((2 * slots).max(8));
            self.lent(|lent| {
                if more.capacity() > lent.slots.len() {
                    more.append(&mut lent.slots);
                    mem::swap(&mut more, &mut lent.slots);
                }
            });
        }
    }

    /// Takes a slot from those whose pages the kernel may take. Somebody may be looking at it still, who must not be the one
    /// to free it: it is kept until nobody does.
    pub(super) fn unwatch(&self, slot: &Arc<Slot<K>>) {
        let removed = self.lent(|lent| lent.remove(slot));
        let mut retired = self.retired.lock();
        retired.extend(removed);
        retired.retain(|slot| Arc::strong_count(slot) > 1);
    }

    /// Ends the loan of a page of a slot, if it is lent.
    ///
    /// # Errors
    /// EL2's refusal.
    fn take_back(&self, slot: &Slot<K>, page: u64) -> Result<(), CallError> {
        self.lent(|_| {
            if !slot.record.has(Mark::Borrowed, page) {
                return Ok(());
            }
            let range = GuestRange::new(slot.gfns().start + page, 1);
            let hypervisor = self.host().hypervisor();
            let result = hypervisor.unshare_guest(self.handle(), range);
            let result = result.map_err(|stopped| stopped.error);
            match result.as_ref().map_err(CallError::status) {
                // The VM may have died first, and what is marked may not be shared.
                Ok(()) | Err(Some(Status::GfnNotMapped | Status::NoSuchVm)) => {
                    slot.record.clear(Mark::Borrowed, page..page + 1);
                    slot.record.clear(Mark::Used, page..page + 1);
                    Ok(())
                }
                Err(_) => result,
            }
        })
    }

    /// Ends every loan of pages of a slot.
    ///
    /// # Errors
    /// EL2's refusal.
    pub(super) fn take_all_back(&self, slot: &Slot<K>) -> Result<(), Error> {
        // Whoever lent a page of it while it was alive has the lock, and has recorded it when that is free.
        self.lent(|_| ());
        let mut at = 0;
        while let Some(lent) = slot.record.first_with(Mark::Borrowed, at..slot.pages()) {
            for page in lent.clone() {
                self.call(|_| self.take_back(slot, page))?;
            }
            at = lent.end;
        }
        Ok(())
    }

    /// Does something with each page that is lent in a range of the process's, until it does not want to go on. Called in any
    /// context.
    fn each_lent(&self, range: &Range<u64>, mut each: impl FnMut(&Slot<K>, u64) -> bool) {
        let mut after = None;
        loop {
            let slot = match self.lent(|lent| lent.next(after, range)) {
                Next::Slot(slot) => slot,
                Next::More(place) => {
                    after = Some(place);
                    continue;
                }
                Next::None => return,
            };
            after = Some(place(&slot));
            let first = slot.first();
            let window = range.start.max(first) - first..range.end.min(first + slot.pages()) - first;
            let mut at = window.start;
            // What is marked is read without the lock: nothing new is lent in the range.
            while let Some(lent) = slot.record.first_with(Mark::Borrowed, at..window.end) {
                for page in lent.clone() {
                    if !each(&slot, page) {
                        return;
                    }
                }
                at = lent.end;
            }
        }
    }

    /// Takes all that is lent of a range back, whatever it takes.
    fn withdraw(&self, range: &Range<u64>, pause: &mut dyn FnMut()) {
        let mut pages = 0;
        self.each_lent(range, |slot, page| {
            let mut tries = 0;
            while let Err(error) = self.take_back(slot, page) {
                if error.status() != Some(Status::Busy) || tries == TRIES {
                    // The guest does not run again: its end has the memory that EL2 wants. It is not to come to this.
                    self.doom();
                    self.stuck.fetch_add(1, Ordering::SeqCst);
                    break;
                }
                tries += 1;
                core::hint::spin_loop();
            }
            pages += 1;
            if pages % PAGES_AT_ONCE == 0 {
                pause();
            }
            true
        });
    }

    /// Whether the guest has used a page of a range since the last look.
    fn is_used(&self, range: &Range<u64>, forget: bool) -> bool {
        let mut any = false;
        self.each_lent(range, |slot, page| {
            let used = self.lent(|_| {
                if !slot.record.has(Mark::Borrowed, page) {
                    return false;
                }
                let range = GuestRange::new(slot.gfns().start + page, 1);
                let anew = self.host().hypervisor().test_age(self.handle(), range);
                // EL2 always begins anew.
                let used = anew.is_ok_and(|used| used > 0) || slot.record.has(Mark::Used, page);
                if forget {
                    slot.record.clear(Mark::Used, page..page + 1);
                } else if used {
                    slot.record.mark(Mark::Used, page..page + 1);
                }
                used
            });
            any |= used;
            forget || !any
        });
        any
    }
}

/// How the kernel tells a VM of what it does to the process whose pages the guest borrows. It outlives the VM, and then does
/// nothing. Pages are numbered as the process has them.
#[derive(Clone)]
pub struct Loans<K: Kernel>(Arc<Identity<K>>);

impl<K: Kernel> fmt::Debug for Loans<K> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("Loans").field(&self.0.number()).finish()
    }
}

impl<K: Kernel> Loans<K> {
    pub(super) const fn of(core: Arc<Identity<K>>) -> Self {
        Self(core)
    }

    /// The kernel begins to take a range of pages, or what may be done with them, from the process. When this returns the
    /// guest has none of them, and it gets none until [`Loans::end`]. Called in any context, and does not wait; `pause` is
    /// called now and then without a lock.
    pub fn begin(&self, range: &Range<u64>, pause: &mut dyn FnMut()) {
        self.0.lent(|lent| lent.begin(range));
        self.0.withdraw(range, pause);
    }

    /// The kernel has taken a range. Called in any context, once for each [`Loans::begin`].
    pub fn end(&self) {
        self.0.lent(Lent::end);
    }

    /// Whether the guest has used a page of the range since somebody last looked and forgot what he saw. Called in any
    /// context.
    pub fn is_used(&self, range: &Range<u64>, forget: bool) -> bool {
        self.0.is_used(range, forget)
    }

    /// The process is gone, or is not watched any more: the guest has nothing of it, and gets nothing. Called by a task.
    pub fn over(&self, pause: &mut dyn FnMut()) {
        self.0.lent(|lent| lent.is_over = true);
        self.0.withdraw(&(0..u64::MAX), pause);
    }

    /// How many pages EL2 did not take back when it had to. It is not to be any: the VM ends for that.
    #[must_use]
    pub fn stuck(&self) -> u64 {
        self.0.stuck.load(Ordering::SeqCst)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::fake::Fake;
    use crate::tests::support::{GFN, Machine, P};
    use crate::vm::UserSlotConfig;
    use crate::vm::user::Conditions;
    use core::time::Duration;

    extern crate std;
    use std::thread;

    fn slot(gfn: u64, first: u64) -> Arc<Slot<Fake>> {
        Arc::new(Slot::of_user(gfn, 4, first, Conditions::new(false, false)))
    }

    /// A second slot at the same addresses is watched for a moment before it is refused, and the first was left out of what
    /// the kernel took meanwhile.
    #[test]
    fn slots_that_are_alike_are_all_looked_at() {
        let slots = [(8, 100), (8, 100), (8, 102), (8, 100)].map(|(gfn, first)| slot(gfn, first));
        let mut lent = Lent::new();
        lent.slots.reserve(slots.len());
        for slot in &slots {
            assert!(lent.add(slot));
        }
        let mut seen = Vec::new();
        let mut after = None;
        while let Next::Slot(slot) = lent.next(after, &(102..103)) {
            after = Some(place(&slot));
            seen.push(slot);
        }
        for slot in &slots {
            assert_eq!(seen.iter().filter(|other| Arc::ptr_eq(slot, other)).count(), 1);
        }
    }

    /// A slot was found empty and deleted while a page of it was being lent, by somebody who had seen it alive.
    #[test]
    fn a_slot_is_not_deleted_before_what_is_being_lent_is_recorded() {
        let machine = Machine::new();
        let vm = machine.plain();
        vm.add_user_slot(UserSlotConfig {
            slot: 0,
            ipa: GFN * P,
            size: 4 * P,
            address: 100 * P,
            read_only: false,
            logs: false,
        })
        .unwrap();
        let slot = Arc::clone(vm.core().slots.lock().by_number(0).unwrap());
        slot.record.prepare(1..2);
        thread::scope(|scope| {
            vm.core().lent(|_| {
                scope.spawn(|| vm.delete_slot(0).unwrap());
                while slot.is_alive() {
                    thread::yield_now();
                }
                thread::sleep(Duration::from_millis(20));
                slot.record.mark(Mark::Borrowed, 1..2);
            });
        });
        assert!(!slot.record.has(Mark::Borrowed, 1));
    }
}
