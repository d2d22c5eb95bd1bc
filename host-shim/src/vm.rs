//! VMs: their life, their memory, their end.
//!
//! A [`Vm`] is created, gets slots and contents, is launched, and ends when it is dropped or by [`Vm::destroy`]. Its
//! vCPUs, files and pins know it by its identity, which lasts as long as any of them: a VM that cannot end at once,
//! because a vCPU runs or a page is pinned, ends when the last of these reasons goes.

mod dirty;
mod end;
mod fault;
mod figures;
mod identity;
mod launch;
mod lent;
mod record;
mod renew;
mod slot;
mod user;

pub use figures::Figures;
pub(crate) use identity::Identity;
pub use lent::Loans;
pub(crate) use slot::Slot;
pub use slot::{MAX_SLOT_PAGES, MAX_SLOTS, SlotConfig};
pub use user::{UserPage, UserSlot, UserSlotConfig};

use crate::account::Purpose;
use crate::host::Host;
use crate::memfd::Page;
use crate::{Audit, Error, Kernel, PartError, Vcpu};
use alloc::sync::Arc;
use alloc::vec::Vec;
use core::ops::Range;
use core::sync::atomic::Ordering;
use hyp_abi::vm::{Permissions, VmFlags};
use hyp_abi::{FRAME_SIZE, GuestRange, VmHandle};

/// How a VM is created.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct VmConfig {
    /// What kind.
    pub flags: VmFlags,
    /// The most vCPUs: 1 to 64.
    pub vcpus: u64,
    /// Bits of its addresses: 32 to 48, and no more than the CPU has.
    pub ipa_bits: u64,
    /// What is memory, at most eight ranges, digested: an access there is a fault to be served from a slot and never one
    /// to a device.
    pub memory: Vec<GuestRange>,
}

/// A VM. Dropping it ends it, or lets it end as soon as it can.
#[derive(Debug)]
pub struct Vm<K: Kernel> {
    core: Arc<Identity<K>>,
}

impl<K: Kernel> Vm<K> {
    /// Creates a VM.
    ///
    /// # Errors
    /// [`Error::NoMemory`]; EL2's refusal of the configuration, and nothing is left behind.
    pub fn create(host: &Arc<Host<K>>, config: &VmConfig) -> Result<Self, Error> {
        let hypervisor = host.hypervisor();
        let handle = host.call(None, || {
            hypervisor.create_vm(config.flags, config.vcpus, config.ipa_bits)
        })?;
        let core = Identity::new(host, handle, config);
        // What fails from here on drops the VM.
        let vm = Self { core: Arc::new(core) };
        for range in &config.memory {
            vm.add_memory(*range)?;
        }
        Ok(vm)
    }

    /// Declares a further range of its memory, before the launch: see [`VmConfig::memory`].
    ///
    /// # Errors
    /// [`Error::WrongState`]; EL2's refusal.
    pub fn add_memory(&self, range: GuestRange) -> Result<(), Error> {
        let hypervisor = self.core.host().hypervisor();
        self.core.call(|vm| hypervisor.add_memory(vm, range))
    }

    /// What kind.
    #[must_use]
    pub fn flags(&self) -> VmFlags {
        self.core.flags()
    }

    /// Its handle at the moment.
    #[must_use]
    pub fn handle(&self) -> VmHandle {
        self.core.handle()
    }

    /// Creates a vCPU, before the launch. Its run page comes from the host's source.
    ///
    /// # Errors
    /// [`Error::NoMemory`]; [`Error::OverLimit`]; [`Error::Exists`]; [`Error::WrongState`]; EL2's refusal of the index.
    pub fn create_vcpu(&self, index: u64) -> Result<Vcpu<K>, Error> {
        let host = self.core.host();
        let hypervisor = host.hypervisor();
        let page = host.source().allocate_zeroed(Purpose::RunPage, host.kernel())?;
        let free = |error| {
            host.source().free(Purpose::RunPage, crate::Block::frame(page));
            error
        };
        host.call_range(None, |_| hypervisor.share(page.range(1)))
            .map_err(|stopped| free(stopped.error))?;
        let created = self
            .core
            .call(|vm| hypervisor.create_vcpu(vm, index, page.address()));
        if let Err(error) = created {
            let unshared = host.call_range(None, |_| hypervisor.unshare(page.range(1)));
            if unshared.is_ok() {
                return Err(free(error));
            }
            self.core.run_pages.lock().push(page);
            return Err(error);
        }
        self.core.run_pages.lock().push(page);
        self.core.vcpus.lock().push((index, page));
        Ok(Vcpu::new(Arc::clone(&self.core), index, page))
    }

    /// Writes what the guest finds in its memory when it begins, and gives it the pages, in ascending order. The rest of
    /// the last page is zero.
    ///
    /// # Errors
    /// [`Error::WrongState`] after the launch of a protected VM; [`Error::InvalidArgument`] if `ipa` is no multiple of
    /// 4 KiB; [`Error::InUse`] if the guest has a page of it already; those of [`Vm::populate`].
    pub fn load(&self, ipa: u64, bytes: &[u8]) -> Result<(), Error> {
        if self.core.is_protected() && self.core.is_launched() {
            return Err(Error::WrongState);
        }
        if !ipa.is_multiple_of(FRAME_SIZE) {
            return Err(Error::InvalidArgument);
        }
        let gfns = GuestRange::new(ipa / FRAME_SIZE, (bytes.len() as u64).div_ceil(FRAME_SIZE));
        for (gfn, bytes) in (gfns.gfn..).zip(bytes.chunks(FRAME_SIZE as usize)) {
            let slot = self.core.slot_at(gfn).ok_or(Error::NoBacking)?;
            let file = slot.file().ok_or(Error::NoBacking)?;
            let page = slot.page_of(gfn);
            let hold = file.inode().hold_or_fill(page)?;
            hold.prepare(page..page + 1)?;
            match hold.page(page) {
                Page::Ready => self.core.host().kernel().write(hold.frame(page), 0, bytes)?,
                Page::Poisoned => return Err(Error::Poisoned),
                _ => {
                    return Err(Error::InUse {
                        offset: page * FRAME_SIZE,
                    });
                }
            }
        }
        self.populate(gfns).map_err(Error::from)
    }

    /// Gives the guest all pages of a range before it asks, and no others: before the launch they are digested.
    ///
    /// # Errors
    /// [`Error::NoBacking`] where there is no slot, or its file was closed; [`Error::NoMemory`]; [`Error::OverLimit`];
    /// [`Error::Lost`]; [`Error::Poisoned`]; [`Error::Interrupted`]; EL2's refusal. With the progress made.
    pub fn populate(&self, range: GuestRange) -> Result<(), PartError> {
        let mut done = 0;
        while done < range.frames {
            let gfn = range.gfn.saturating_add(done);
            let limit = gfn..gfn.saturating_add(range.frames - done);
            let end = (self.core.host().go_on())
                .and_then(|()| self.core.fault(gfn, limit))
                .map_err(|error| PartError { done, error })?;
            done += end - gfn;
        }
        Ok(())
    }

    /// Answers a fault of the guest at a guest frame number: gives it the page, and the block around it if there is one.
    ///
    /// # Errors
    /// Those of [`Vm::populate`].
    pub fn fault(&self, gfn: u64) -> Result<(), Error> {
        self.core.fault_in(gfn)
    }

    /// Takes pages that the guest gave up, and frees them. Returns how many.
    ///
    /// # Errors
    /// What EL2 refuses.
    pub fn take_relinquished(&self, range: GuestRange) -> Result<u64, Error> {
        self.core.take_relinquished(range)
    }

    /// Launches the VM: vCPU 0 will begin at the address `entry` with `argument` in x0.
    ///
    /// # Errors
    /// [`Error::WrongState`]; EL2's refusal.
    pub fn launch(&self, entry: u64, argument: u64) -> Result<(), Error> {
        self.core
            .call(|vm| self.core.host().hypervisor().launch(vm, entry, argument))?;
        self.core.set_launched(true);
        Ok(())
    }

    /// Whether it is launched.
    #[must_use]
    pub fn is_launched(&self) -> bool {
        self.core.is_launched()
    }

    /// The launch digest.
    ///
    /// # Errors
    /// [`Error::WrongState`] before the launch.
    pub fn digest(&self) -> Result<[u8; 32], Error> {
        self.core.call(|vm| self.core.host().hypervisor().digest(vm))
    }

    /// Gives it a new handle, under which it goes on as it is.
    ///
    /// # Errors
    /// [`Error::Running`]; [`Error::WrongState`] if it is dying.
    pub fn rename(&self) -> Result<VmHandle, Error> {
        let handle = self.core.call(|vm| self.core.host().hypervisor().rename_vm(vm))?;
        self.core.set_handle(handle);
        Ok(handle)
    }

    /// Moves pages to its reserve, of which its tables are made.
    ///
    /// # Errors
    /// [`Error::NoMemory`]; [`Error::OverLimit`]; [`Error::Gone`].
    pub fn top_up(&self, pages: u64) -> Result<u64, Error> {
        self.core.top_up(pages)
    }

    /// Changes what a VM that is not protected may do with what it borrows. A fault gives it everything again.
    ///
    /// # Errors
    /// EL2's refusal, with the progress made.
    pub fn set_permissions(&self, range: GuestRange, permissions: Permissions) -> Result<(), PartError> {
        self.core.call_range(|vm, done| {
            let hypervisor = self.core.host().hypervisor();
            hypervisor.set_permissions(vm, rest(range, done), permissions)
        })
    }

    /// How many pages of a range a VM that is not protected used since the last look.
    ///
    /// # Errors
    /// EL2's refusal.
    pub fn test_age(&self, range: GuestRange) -> Result<u64, Error> {
        let handle = self.core.handle();
        Ok(self.core.host().hypervisor().test_age(handle, range)?)
    }

    /// Compares its table with the ownership of the frames in it.
    ///
    /// # Errors
    /// EL2's refusal.
    pub fn audit(&self, range: GuestRange) -> Result<Audit, Error> {
        let handle = self.core.handle();
        Ok(self.core.host().hypervisor().audit_vm(handle, range)?)
    }

    /// Ends the VM: it dies, the host takes back what it has, and it is gone. Private pages come back zero, those that
    /// the guest shared as they are. What fails can be tried again; there is no way back to life.
    ///
    /// # Errors
    /// [`Error::Running`]: a vCPU must stop first; [`Error::FramesLeft`]: the host has pinned pages; what the host
    /// lacks memory for.
    pub fn destroy(&self) -> Result<(), Error> {
        self.core.doom();
        self.core.end()
    }

    /// Whether it has ended.
    #[must_use]
    pub fn is_gone(&self) -> bool {
        self.core.gone.load(Ordering::SeqCst)
    }

    pub(crate) const fn core(&self) -> &Arc<Identity<K>> {
        &self.core
    }
}

impl<K: Kernel> Identity<K> {
    pub(crate) fn top_up(&self, pages: u64) -> Result<u64, Error> {
        self.host().top_up(self.handle(), pages)
    }

    pub(crate) fn fault_in(&self, gfn: u64) -> Result<(), Error> {
        self.fault(gfn, 0..u64::MAX).map(drop)
    }

    pub(crate) fn take_relinquished(&self, range: GuestRange) -> Result<u64, Error> {
        let end = range.gfn.saturating_add(range.frames);
        let (mut taken, mut gfn) = (0, range.gfn);
        while gfn < end {
            let Some(slot) = self.slot_at(gfn) else {
                gfn += 1;
                continue;
            };
            let until = slot.gfns().end.min(end);
            if let Some(inode) = slot.inode() {
                let pages: Range<u64> = slot.page_of(gfn)..slot.page_of(gfn) + (until - gfn);
                taken += inode
                    .take_relinquished(self.number(), pages)
                    .inspect(|pages| self.count_taken(*pages))?;
            }
            gfn = until;
        }
        Ok(taken)
    }
}

impl<K: Kernel> Drop for Vm<K> {
    fn drop(&mut self) {
        self.core.doom();
        self.core.end_if_doomed();
    }
}

fn rest(range: GuestRange, done: u64) -> GuestRange {
    if done == 0 {
        range
    } else {
        range.after(done).unwrap_or(GuestRange::new(range.gfn, 0))
    }
}
