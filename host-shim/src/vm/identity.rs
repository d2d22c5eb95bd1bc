//! A VM's identity: what everybody holds on to who must find it, even when it has died.

use super::VmConfig;
use super::lent::Lent;
use super::slot::{Slot, Slots};
use crate::host::Host;
use crate::memfd::{Debt, Inode};
use crate::sync::{Mutex, SpinMutex};
use crate::{CallError, Error, Kernel, PartError, Pfn, RangeError};
use alloc::sync::Arc;
use alloc::vec::Vec;
use core::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use hyp_abi::VmHandle;
use hyp_abi::vm::VmFlags;

/// What [`crate::Vm`], its vCPUs, its files and its pins have in common.
#[derive(Debug)]
pub(crate) struct Identity<K: Kernel> {
    host: Arc<Host<K>>,
    number: u64,
    flags: VmFlags,
    max_vcpus: u64,
    ipa_bits: u64,
    handle: AtomicU64,
    launched: AtomicBool,
    /// Nobody wants it any more. It ends as soon as it can.
    doomed: AtomicBool,
    pub(super) gone: AtomicBool,
    /// Held by whoever ends the VM.
    pub(super) ending: Mutex<K, ()>,
    pub(super) slots: Mutex<K, Slots<K>>,
    pub(super) lent: SpinMutex<Lent<K>>,
    /// Slots of a process's memory that are deleted.
    pub(super) retired: Mutex<K, Vec<Arc<Slot<K>>>>,
    /// Pages that EL2 did not take back when it had to.
    pub(super) stuck: AtomicU64,
    /// Memory whose last file was closed while the guest had some of it.
    pub(super) adopted: Mutex<K, Vec<Arc<Inode<K>>>>,
    pub(super) debts: Mutex<K, Vec<Debt<K>>>,
    pub(super) run_pages: Mutex<K, Vec<Pfn>>,
    /// The vCPUs, by index, and the page that each passes to EL2.
    pub(super) vcpus: Mutex<K, Vec<(u64, Pfn)>>,
    /// How many pages that the guest gave up were taken.
    pub(super) taken: AtomicU64,
}

impl<K: Kernel> Identity<K> {
    pub(super) fn new(host: &Arc<Host<K>>, handle: VmHandle, config: &VmConfig) -> Self {
        Self {
            host: Arc::clone(host),
            number: host.next_vm(),
            flags: config.flags,
            max_vcpus: config.vcpus,
            ipa_bits: config.ipa_bits,
            handle: AtomicU64::new(handle.to_register()),
            launched: AtomicBool::new(false),
            doomed: AtomicBool::new(false),
            gone: AtomicBool::new(false),
            ending: Mutex::<K, _>::new(()),
            slots: Mutex::<K, _>::new(Slots::new()),
            lent: SpinMutex::new(Lent::new()),
            retired: Mutex::<K, _>::new(Vec::new()),
            stuck: AtomicU64::new(0),
            adopted: Mutex::<K, _>::new(Vec::new()),
            debts: Mutex::<K, _>::new(Vec::new()),
            run_pages: Mutex::<K, _>::new(Vec::new()),
            vcpus: Mutex::<K, _>::new(Vec::new()),
            taken: AtomicU64::new(0),
        }
    }

    pub(crate) const fn host(&self) -> &Arc<Host<K>> {
        &self.host
    }

    /// The number that no other VM of the host ever has, whatever its handle.
    pub(crate) const fn number(&self) -> u64 {
        self.number
    }

    pub(crate) const fn flags(&self) -> VmFlags {
        self.flags
    }

    pub(crate) const fn is_protected(&self) -> bool {
        self.flags.contains(VmFlags::PROTECTED)
    }

    pub(super) const fn max_vcpus(&self) -> u64 {
        self.max_vcpus
    }

    pub(super) const fn ipa_bits(&self) -> u64 {
        self.ipa_bits
    }

    pub(crate) fn handle(&self) -> VmHandle {
        // What was stored was made from a handle; a slot of 0 names no VM.
        VmHandle::from_register(self.handle.load(Ordering::SeqCst)).unwrap_or(VmHandle {
            slot: 0,
            generation: 0,
        })
    }

    pub(super) fn set_handle(&self, handle: VmHandle) {
        self.handle.store(handle.to_register(), Ordering::SeqCst);
    }

    pub(crate) fn is_launched(&self) -> bool {
        self.launched.load(Ordering::SeqCst)
    }

    pub(super) fn set_launched(&self, launched: bool) {
        self.launched.store(launched, Ordering::SeqCst);
    }

    pub(crate) fn is_doomed(&self) -> bool {
        self.doomed.load(Ordering::SeqCst)
    }

    pub(super) fn doom(&self) {
        self.doomed.store(true, Ordering::SeqCst);
    }

    /// Makes a call about the VM, and gives EL2 and the VM the pages that they lack. Somebody may rename the VM
    /// meanwhile.
    pub(crate) fn call<T>(&self, attempt: impl Fn(VmHandle) -> Result<T, CallError>) -> Result<T, Error> {
        loop {
            let handle = self.handle();
            match self.host.call(Some(handle), || attempt(handle)) {
                Err(Error::Gone) if self.handle() != handle => {}
                result => return result,
            }
        }
    }

    /// As [`Identity::call`], for a ranged call. `attempt` begins after the first so many frames.
    pub(crate) fn call_range(
        &self,
        attempt: impl Fn(VmHandle, u64) -> Result<(), RangeError>,
    ) -> Result<(), PartError> {
        let mut before = 0;
        loop {
            let handle = self.handle();
            let result = self
                .host
                .call_range(Some(handle), |done| attempt(handle, before + done));
            match result {
                Ok(()) => return Ok(()),
                Err(PartError { done, error }) => {
                    before += done;
                    if error != Error::Gone || self.handle() == handle {
                        return Err(PartError { done: before, error });
                    }
                }
            }
        }
    }

    /// Keeps memory until the guest no longer has any of it.
    pub(crate) fn adopt(&self, inode: Arc<Inode<K>>) {
        self.adopted.lock().push(inode);
    }

    /// Keeps a pin that could not be taken off, to try again.
    pub(crate) fn owe(&self, debt: Debt<K>) {
        self.debts.lock().push(debt);
    }

    /// Tries again to take off the pins that could not be.
    pub(crate) fn settle(&self) {
        let debts = core::mem::take(&mut *self.debts.lock());
        for debt in debts {
            if debt.settle().is_err() {
                self.owe(debt);
            }
        }
    }

    /// The slot in which a guest frame number lies.
    pub(super) fn slot_at(&self, gfn: u64) -> Option<Arc<Slot<K>>> {
        self.slots.lock().at(gfn)
    }

    pub(crate) fn count_taken(&self, pages: u64) {
        self.taken.fetch_add(pages, Ordering::SeqCst);
    }
}

impl<K: Kernel> Drop for Identity<K> {
    fn drop(&mut self) {
        self.doom();
        // The last that knows of the VM. What cannot be had back now never is: its frames stay out of use.
        let _ = self.end();
    }
}
