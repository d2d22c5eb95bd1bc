//! Memory slots: which guest frame numbers a range of a file, or of a process's memory, stands behind.

use super::record::{Mark, Record};
use super::user::Conditions;
use super::{Identity, Vm};
use crate::memfd::{GuestMemfd, Inner, Inode, Page};
use crate::sync::Mutex;
use crate::{Error, Kernel, PartError};
use alloc::collections::BTreeMap;
use alloc::sync::{Arc, Weak};
use core::ops::Range;
use core::sync::atomic::{AtomicU8, Ordering};
use hyp_abi::{FRAME_SIZE, GuestRange, Status};

/// How many slots a VM can have, as under KVM on arm64.
pub const MAX_SLOTS: u32 = 32_767;

/// The most pages of one slot, as under KVM.
pub const MAX_SLOT_PAGES: u64 = (1 << 31) - 1;

/// A slot to be added.
#[derive(Clone, Copy, Debug)]
pub struct SlotConfig<'a, K: Kernel> {
    /// Its number, below [`MAX_SLOTS`].
    pub slot: u32,
    /// None are defined: a slot is neither logged nor read-only.
    pub flags: u32,
    /// Where it begins for the guest, in bytes.
    pub ipa: u64,
    /// Bytes.
    pub size: u64,
    /// The memory behind it.
    pub file: &'a GuestMemfd<K>,
    /// Where in the file it begins, in bytes.
    pub offset: u64,
}

/// One slot. Its record of borrowed pages is the truth about them; whose the others are, the file knows.
#[derive(Debug)]
pub(crate) struct Slot<K: Kernel> {
    gfn: u64,
    pages: u64,
    /// The first page in the file, or of the process.
    first: u64,
    file: Weak<Inner<K>>,
    inode: Weak<Inode<K>>,
    /// What a guest may do with the process's memory; `None` if there is a file.
    user: Option<Conditions>,
    life: AtomicU8,
    /// What is known of its pages, counted from the slot's first. That one is borrowed is recorded before it is shared. Of a
    /// process's memory it changes only under the lock of what is lent.
    pub(super) record: Record,
    /// Whoever changes the record of a file's pages has it, for a few instructions.
    changing: Mutex<K, ()>,
}

const ALIVE: u8 = 0;
const LEAVING: u8 = 1;
const DELETED: u8 = 2;

impl<K: Kernel> Slot<K> {
    /// A slot of a process's memory, that begins with this page of it.
    pub(super) fn of_user(gfn: u64, pages: u64, first: u64, conditions: Conditions) -> Self {
        Self {
            gfn,
            pages,
            first,
            file: Weak::new(),
            inode: Weak::new(),
            user: Some(conditions),
            life: AtomicU8::new(ALIVE),
            record: Record::new(pages),
            changing: Mutex::<K, _>::default(),
        }
    }

    /// What a guest may do with the process's memory; `None` if there is a file.
    pub(super) const fn user(&self) -> Option<&Conditions> {
        self.user.as_ref()
    }

    pub(crate) const fn pages(&self) -> u64 {
        self.pages
    }

    /// The first page in the file, or of the process.
    pub(super) const fn first(&self) -> u64 {
        self.first
    }

    /// Records that the guest borrows the first pages of a window of the slot that it does not borrow yet, and returns which.
    pub(super) fn claim(&self, window: Range<u64>) -> Option<Range<u64>> {
        self.record.prepare(window.clone());
        let _alone = self.changing.lock();
        let new = self.record.first_without(Mark::Borrowed, window)?;
        self.record.mark(Mark::Borrowed, new.clone());
        Some(new)
    }

    /// Records that the guest does not borrow a window of the slot after all.
    pub(super) fn disclaim(&self, window: Range<u64>) {
        let _alone = self.changing.lock();
        self.record.clear(Mark::Borrowed, window);
    }

    /// Its pages in the file.
    pub(super) const fn window(&self) -> Range<u64> {
        self.first..self.first + self.pages
    }

    pub(super) fn file(&self) -> Option<Arc<Inner<K>>> {
        self.file.upgrade()
    }

    pub(super) fn inode(&self) -> Option<Arc<Inode<K>>> {
        self.inode.upgrade()
    }

    /// The page of the file that stands behind a guest frame number of the slot.
    pub(super) const fn page_of(&self, gfn: u64) -> u64 {
        gfn - self.gfn + self.first
    }

    /// The guest frame number that a page of the window stands behind.
    pub(super) const fn gfn_of(&self, page: u64) -> u64 {
        page - self.first + self.gfn
    }

    pub(super) const fn gfns(&self) -> Range<u64> {
        self.gfn..self.gfn + self.pages
    }

    /// Whether it can be mapped from. Asked with the hold of the extent, or the lock of what is lent: whoever deletes the slot
    /// takes every hold, and the lock, after saying so.
    pub(super) fn is_alive(&self) -> bool {
        self.life.load(Ordering::SeqCst) == ALIVE
    }
}

/// The slots of a VM.
#[derive(Debug)]
pub(super) struct Slots<K: Kernel> {
    by_number: BTreeMap<u32, Arc<Slot<K>>>,
    by_gfn: BTreeMap<u64, Arc<Slot<K>>>,
}

impl<K: Kernel> Slots<K> {
    pub(super) const fn new() -> Self {
        Self {
            by_number: BTreeMap::new(),
            by_gfn: BTreeMap::new(),
        }
    }

    pub(super) fn at(&self, gfn: u64) -> Option<Arc<Slot<K>>> {
        let (start, slot) = self.by_gfn.range(..=gfn).next_back()?;
        (gfn - start < slot.pages).then(|| Arc::clone(slot))
    }

    pub(super) fn all(&self) -> impl Iterator<Item = &Arc<Slot<K>>> {
        self.by_number.values()
    }

    /// By guest frame number.
    pub(super) fn ascending(&self) -> impl Iterator<Item = &Arc<Slot<K>>> {
        self.by_gfn.values()
    }

    pub(super) fn by_number(&self, number: u32) -> Option<&Arc<Slot<K>>> {
        self.by_number.get(&number)
    }

    /// Whether a slot other than that of a number has some of these guest frame numbers.
    pub(super) fn overlap(&self, gfns: &Range<u64>, except: u32) -> bool {
        let ours = self.by_number.get(&except);
        let mut there = self
            .by_gfn
            .range(..gfns.end)
            .rev()
            .map(|(_, slot)| slot)
            .filter(|slot| ours.is_none_or(|ours| !Arc::ptr_eq(slot, ours)));
        there.next().is_some_and(|slot| slot.gfns().end > gfns.start)
    }

    pub(super) fn add(&mut self, number: u32, slot: &Arc<Slot<K>>) -> Result<(), Error> {
        if self.by_number.contains_key(&number) {
            // A slot is never changed, only deleted.
            return Err(Error::InvalidArgument);
        }
        if self.overlap(&slot.gfns(), number) {
            return Err(Error::Exists);
        }
        self.by_number.insert(number, Arc::clone(slot));
        self.by_gfn.insert(slot.gfn, Arc::clone(slot));
        Ok(())
    }

    fn remove(&mut self, number: u32) {
        if let Some(slot) = self.by_number.remove(&number) {
            self.by_gfn.remove(&slot.gfn);
        }
    }
}

impl<K: Kernel> Vm<K> {
    /// Puts a range of a file behind a range of the guest's addresses. Whether accesses there are faults or devices is
    /// another matter: see [`crate::VmConfig::memory`].
    ///
    /// # Errors
    /// [`Error::InvalidArgument`] for a flag, a number that is too large or taken, a size that is 0 or too large, what
    /// is misaligned or does not fit the guest's addresses or the file, a file of another VM; [`Error::Exists`] if the
    /// addresses overlap another slot, or the range of the file another binding of it.
    pub fn add_slot(&self, config: SlotConfig<'_, K>) -> Result<(), Error> {
        let core = self.core();
        let file = &config.file.inner;
        let aligned = [config.ipa, config.size, config.offset]
            .iter()
            .all(|value| value % FRAME_SIZE == 0);
        let fits = |start: u64, end: u64| start.checked_add(config.size).is_some_and(|sum| sum <= end);
        let valid = config.flags == 0
            && config.slot < MAX_SLOTS
            && config.size > 0
            && config.size / FRAME_SIZE <= MAX_SLOT_PAGES
            && aligned
            && fits(config.ipa, 1 << core.ipa_bits())
            && fits(config.offset, config.file.size())
            && Arc::ptr_eq(file.vm(), core);
        // A slot is never changed, only deleted. That comes before what its file has to say.
        if !valid || core.slots.lock().by_number.contains_key(&config.slot) {
            return Err(Error::InvalidArgument);
        }
        let slot = Arc::new(Slot {
            gfn: config.ipa / FRAME_SIZE,
            pages: config.size / FRAME_SIZE,
            first: config.offset / FRAME_SIZE,
            file: Arc::downgrade(file),
            inode: Arc::downgrade(file.inode()),
            user: None,
            life: AtomicU8::new(ALIVE),
            record: Record::new(config.size / FRAME_SIZE),
            changing: Mutex::<K, _>::default(),
        });
        file.bind(&slot.window(), &slot)?;
        core.slots
            .lock()
            .add(config.slot, &slot)
            .inspect_err(|_| file.unbind(slot.first))
    }

    /// Deletes a slot. A guest that borrowed from it loses what it borrowed.
    ///
    /// # Errors
    /// [`Error::InvalidArgument`] if there is none of that number, or somebody else is deleting it;
    /// [`Error::InUse`] with an offset in the file if a protected guest owns a page of it: nothing is changed; what EL2
    /// refuses.
    pub fn delete_slot(&self, number: u32) -> Result<(), Error> {
        let core = self.core();
        let slot = core
            .slots
            .lock()
            .by_number
            .get(&number)
            .map(Arc::clone)
            .ok_or(Error::InvalidArgument)?;
        // From here on nobody maps anything new from it, and once every hold was taken nobody is about to.
        slot.life
            .compare_exchange(ALIVE, LEAVING, Ordering::SeqCst, Ordering::SeqCst)
            .map_err(|_| Error::InvalidArgument)?;
        if let Err(error) = core.empty(&slot) {
            slot.life.store(ALIVE, Ordering::SeqCst);
            return Err(error);
        }
        slot.life.store(DELETED, Ordering::SeqCst);
        core.slots.lock().remove(number);
        if slot.user().is_some() {
            core.unwatch(&slot);
        }
        if let Some(file) = slot.file() {
            file.unbind(slot.first);
        }
        Ok(())
    }
}

impl<K: Kernel> Identity<K> {
    /// Takes everything from a slot that is about to go.
    fn empty(&self, slot: &Slot<K>) -> Result<(), Error> {
        if let Some(inode) = slot.inode() {
            let window = slot.window();
            let mut at = window.start;
            while let Some(hold) = inode.hold_first(&(at..window.end)) {
                let extent = hold.range();
                let part = extent.start.max(at)..extent.end.min(window.end);
                at = part.end;
                for (run, page) in hold.runs(part) {
                    if page == Page::Private(self.number()) {
                        return Err(Error::InUse {
                            offset: run.start * FRAME_SIZE,
                        });
                    }
                }
            }
        }
        self.unshare(slot, 0..slot.pages)
    }

    /// Ends the sharing of what the guest borrows of a window of a slot, counted from the slot's first page. Of two who do this
    /// both come back only when it is done.
    pub(crate) fn unshare(&self, slot: &Slot<K>, window: Range<u64>) -> Result<(), Error> {
        if slot.user().is_some() {
            return self.take_all_back(slot);
        }
        loop {
            let leaving = match slot.leave(&window) {
                Leave::Nothing => return Ok(()),
                Leave::Another => {
                    self.host().kernel().relax();
                    continue;
                }
                Leave::Run(run) => run,
            };
            let result = self.call_range(|vm, done| {
                let left = GuestRange::new(
                    slot.gfn + leaving.start + done,
                    leaving.end - leaving.start - done,
                );
                self.host().hypervisor().unshare_guest(vm, left)
            });
            let (mut gone, mut refused) = (leaving.end, None);
            if let Err(PartError { done, error }) = result {
                gone = leaving.start + done;
                match error {
                    // The VM died first, and everything that it borrowed went back with it.
                    Error::Gone => gone = leaving.end,
                    // Recorded, but then it was not shared.
                    error if error.status() == Some(Status::GfnNotMapped) => gone += 1,
                    error => refused = Some(error),
                }
            }
            slot.left(&leaving, leaving.start..gone);
            if let Some(error) = refused {
                return Err(error);
            }
        }
    }
}

/// What the end of a sharing begins with.
enum Leave {
    /// These pages, which are the caller's to unshare.
    Run(Range<u64>),
    /// Somebody else is at work on the next page.
    Another,
    /// There is nothing.
    Nothing,
}

impl<K: Kernel> Slot<K> {
    fn leave(&self, window: &Range<u64>) -> Leave {
        let _alone = self.changing.lock();
        let Some(run) = self.record.first_with(Mark::Borrowed, window.clone()) else {
            return Leave::Nothing;
        };
        match self.record.first_without(Mark::Leaving, run.clone()) {
            Some(ours) if ours.start == run.start => {
                self.record.mark(Mark::Leaving, ours.clone());
                Leave::Run(ours)
            }
            _ => Leave::Another,
        }
    }

    /// Of what was leaving, this has left.
    fn left(&self, leaving: &Range<u64>, gone: Range<u64>) {
        let _alone = self.changing.lock();
        self.record.clear(Mark::Borrowed, gone);
        self.record.clear(Mark::Leaving, leaving.clone());
    }
}
