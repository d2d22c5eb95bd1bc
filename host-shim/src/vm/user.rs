//! Slots of a process's own memory: the guest borrows its pages one by one, for as long as the process has them there.

use super::record::Mark;
use super::slot::{MAX_SLOT_PAGES, MAX_SLOTS, Slot};
use super::{Identity, Loans, Vm};
use crate::{CallError, Error, Kernel, Pfn};
use alloc::sync::Arc;
use core::sync::atomic::{AtomicBool, Ordering};
use hyp_abi::vm::Permissions;
use hyp_abi::{FRAME_SIZE, GuestRange, Status};

/// A slot of a process's memory.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct UserSlotConfig {
    /// Its number, below [`MAX_SLOTS`].
    pub slot: u32,
    /// Where it begins for the guest, in bytes.
    pub ipa: u64,
    /// Bytes.
    pub size: u64,
    /// Where it begins for the process, in bytes.
    pub address: u64,
    /// The guest may not write there.
    pub read_only: bool,
    /// What the guest writes to is kept: see [`Vm::take_dirty`].
    pub logs: bool,
}

/// A page that a process has. It is held as long as this is there, and the process may lose it meanwhile.
pub trait UserPage {
    /// The frame.
    fn frame(&self) -> Pfn;

    /// Whether the process may write to it.
    fn is_writable(&self) -> bool;

    /// Notes that it is written to. Called in any context, while the process still has it.
    fn set_dirty(&self);
}

/// A slot of a process's memory, as far as it matters to an access.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct UserSlot {
    /// The guest may not write there.
    pub read_only: bool,
}

/// What a guest may do with a slot of a process's memory.
#[derive(Debug)]
pub(super) struct Conditions {
    read_only: bool,
    /// Whether what it writes to is kept.
    logs: AtomicBool,
}

impl Conditions {
    pub(super) const fn new(read_only: bool, logs: bool) -> Self {
        Self {
            read_only,
            logs: AtomicBool::new(logs),
        }
    }

    pub(super) fn logs(&self) -> bool {
        self.logs.load(Ordering::SeqCst)
    }

    pub(super) fn set_logs(&self, logs: bool) {
        self.logs.store(logs, Ordering::SeqCst);
    }
}

/// What came of an attempt to lend a page.
enum Attempt {
    Lent,
    /// The process may have another page there by now.
    Stale,
}

/// What the guest may do with a page that it must not write to yet.
pub(super) const READ: Permissions = Permissions::READ.union(Permissions::EXECUTE);

impl<K: Kernel> Vm<K> {
    /// How the kernel tells the VM what it does to the process: from before the first slot of its memory until after the last.
    #[must_use]
    pub fn loans(&self) -> Loans<K> {
        Loans::of(Arc::clone(self.core()))
    }

    /// Puts a range of a process's memory behind a range of the guest's addresses. An access there is not declared: see
    /// [`crate::VmConfig::memory`].
    ///
    /// # Errors
    /// [`Error::NotSupported`] for a protected VM; [`Error::InvalidArgument`] for a number that is too large or taken, a size
    /// that is 0 or too large, what is misaligned or does not fit; [`Error::Exists`] if the guest's addresses overlap another
    /// slot.
    pub fn add_user_slot(&self, config: UserSlotConfig) -> Result<(), Error> {
        self.add_user(config, None)
    }

    /// Adds a slot of which is known, page by page, what was written to when it was elsewhere.
    fn add_user(&self, config: UserSlotConfig, before: Option<&Slot<K>>) -> Result<(), Error> {
        let core = self.core();
        if core.is_protected() {
            return Err(Error::NotSupported);
        }
        let aligned = [config.ipa, config.size, config.address]
            .iter()
            .all(|value| value % FRAME_SIZE == 0);
        let fits = |start: u64, end: u64| start.checked_add(config.size).is_some_and(|sum| sum <= end);
        let valid = config.slot < MAX_SLOTS
            && config.size > 0
            && config.size / FRAME_SIZE <= MAX_SLOT_PAGES
            && aligned
            && fits(config.ipa, 1 << core.ipa_bits())
            && fits(config.address, u64::MAX);
        if !valid {
            return Err(Error::InvalidArgument);
        }
        let conditions = Conditions::new(config.read_only, config.logs);
        let pages = config.size / FRAME_SIZE;
        let first = config.address / FRAME_SIZE;
        let slot = Arc::new(Slot::of_user(config.ipa / FRAME_SIZE, pages, first, conditions));
        if let Some(before) = before {
            slot.record.copy(Mark::Dirty, &before.record);
        }
        // Before anybody finds it by its guest frame numbers.
        core.watch(&slot);
        let added = core.slots.lock().add(config.slot, &slot);
        added.inspect_err(|_| core.unwatch(&slot))
    }

    /// The slot of a process's memory that has a number.
    #[must_use]
    pub fn user_slot(&self, number: u32) -> Option<UserSlotConfig> {
        let slots = self.core().slots.lock();
        let slot = slots.by_number(number)?;
        let conditions = slot.user()?;
        Some(UserSlotConfig {
            slot: number,
            ipa: slot.gfns().start * FRAME_SIZE,
            size: slot.pages() * FRAME_SIZE,
            address: slot.first() * FRAME_SIZE,
            read_only: conditions.read_only,
            logs: conditions.logs(),
        })
    }

    /// Whether there is a slot of that number, of whatever memory.
    #[must_use]
    pub fn has_slot(&self, number: u32) -> bool {
        self.core().slots.lock().by_number(number).is_some()
    }

    /// The slot of a process's memory in which a guest frame number lies.
    #[must_use]
    pub fn user_slot_at(&self, gfn: u64) -> Option<UserSlot> {
        let slot = self.core().slot_at(gfn)?;
        let read_only = slot.user()?.read_only;
        Some(UserSlot { read_only })
    }

    /// Has a slot of a process's memory begin elsewhere for the guest, which loses what it borrowed there. One task at a time
    /// changes a VM's slots.
    ///
    /// # Errors
    /// [`Error::NotFound`]; [`Error::InvalidArgument`] if it does not fit there; [`Error::Exists`] if it overlaps another slot;
    /// what EL2 refuses.
    pub fn move_user_slot(&self, number: u32, ipa: u64) -> Result<(), Error> {
        let core = self.core();
        let config = self.user_slot(number).ok_or(Error::NotFound)?;
        let end = ipa.checked_add(config.size);
        if !ipa.is_multiple_of(FRAME_SIZE) || end.is_none_or(|end| end > 1 << core.ipa_bits()) {
            return Err(Error::InvalidArgument);
        }
        let gfn = ipa / FRAME_SIZE;
        let gfns = gfn..gfn + config.size / FRAME_SIZE;
        if core.slots.lock().overlap(&gfns, number) {
            return Err(Error::Exists);
        }
        let before = core.slots.lock().by_number(number).map(Arc::clone);
        self.delete_slot(number)?;
        self.add_user(UserSlotConfig { ipa, ..config }, before.as_deref())
    }

    /// Answers a fault of the guest at a guest frame number of a process's memory: lends it the page that `find` finds at an
    /// address of the process, one to write to if it is asked for that. It may find that the process loses the page at the
    /// same time: then the guest has nothing, and tries again.
    ///
    /// # Errors
    /// [`Error::NoBacking`] where there is no such slot, for a write where the guest may only read, or if the process is gone;
    /// those of `find`; [`Error::NoMemory`]; EL2's refusal.
    pub fn fault_user<P: UserPage>(
        &self,
        gfn: u64,
        write: bool,
        find: impl Fn(u64, bool) -> Result<P, Error>,
    ) -> Result<(), Error> {
        let core = self.core();
        let slot = core.slot_at(gfn).ok_or(Error::NoBacking)?;
        let conditions = slot.user().ok_or(Error::NoBacking)?;
        if write && conditions.read_only {
            return Err(Error::NoBacking);
        }
        let page = gfn - slot.gfns().start;
        let address = (slot.first() + page) * FRAME_SIZE;
        slot.record.prepare(page..page + 1);
        let mut wants_own = write;
        loop {
            let Some(sample) = core.lent(|lent| lent.sample(slot.first() + page)) else {
                core.host().kernel().relax();
                return Ok(());
            };
            let found = find(address, wants_own)?;
            core.host().kernel().clean(found.frame(), 1);
            let lent = core.call(|_| core.lend(&slot, page, sample, write, &found));
            match lent {
                Ok(Attempt::Lent) => return Ok(()),
                Ok(Attempt::Stale) => {
                    core.host().kernel().relax();
                    return Ok(());
                }
                // Pages of zeroes are one frame, and those that are alike may be. A page of its own is not.
                Err(error) if error.status() == Some(Status::CountOverflow) && !wants_own => {
                    wants_own = true;
                }
                Err(error) => return Err(error),
            }
        }
    }
}

impl<K: Kernel> Identity<K> {
    /// Lends a page that was found, if it is what the process still has.
    fn lend(
        &self,
        slot: &Slot<K>,
        page: u64,
        sample: u64,
        write: bool,
        found: &impl UserPage,
    ) -> Result<Attempt, CallError> {
        self.lent(|lent| {
            let Some(conditions) = slot.user() else {
                return Ok(Attempt::Stale);
            };
            if !slot.is_alive() || !lent.is_unchanged(slot.first() + page, sample) {
                return Ok(Attempt::Stale);
            }
            let keeps = conditions.logs();
            let writable = found.is_writable()
                && !conditions.read_only
                && (write || !keeps || slot.record.has(Mark::Dirty, page));
            let permissions = if writable { Permissions::all() } else { READ };
            let (vm, gfn) = (self.handle(), slot.gfns().start + page);
            let hypervisor = self.host().hypervisor();
            if slot.record.has(Mark::Borrowed, page) {
                // It may do less with it than it wants.
                let range = GuestRange::new(gfn, 1);
                hypervisor
                    .set_permissions(vm, range, permissions)
                    .map_err(|stopped| stopped.error)?;
            } else {
                slot.record.mark(Mark::Borrowed, page..page + 1);
                hypervisor
                    .share_guest(vm, found.frame().range(1), gfn, permissions)
                    .map_err(|stopped| {
                        slot.record.clear(Mark::Borrowed, page..page + 1);
                        stopped.error
                    })?;
            }
            if writable {
                // While the process has it: afterwards it may be clean on a disk.
                found.set_dirty();
                if keeps {
                    slot.record.mark(Mark::Dirty, page..page + 1);
                }
            }
            Ok(Attempt::Lent)
        })
    }
}
