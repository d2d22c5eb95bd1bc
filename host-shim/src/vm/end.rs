//! The end of a VM: everything comes back.

use super::{Identity, Slot};
use crate::account::Purpose;
use crate::memfd::{Hold, Page};
use crate::{Block, Error, Kernel, PartError};
use alloc::sync::Arc;
use alloc::vec::Vec;
use core::ops::Range;
use core::sync::atomic::Ordering;
use hyp_abi::vm::VmStatistic;
use hyp_abi::{FrameState, GuestRange, Status};

impl<K: Kernel> Identity<K> {
    /// Ends the VM, or goes on with that: it dies, the host takes every frame back that the guest had, and then it is
    /// gone. Called without a hold.
    ///
    /// # Errors
    /// [`Error::Running`]: it lives. [`Error::FramesLeft`]: pages of it are pinned. Others: memory that the host lacks.
    /// In any case it can be called again.
    pub(crate) fn end(&self) -> Result<(), Error> {
        let _one_at_a_time = self.ending.lock();
        if self.gone.load(Ordering::SeqCst) {
            return Ok(());
        }
        let slots = self.retire()?;
        if self.is_protected() {
            // The guest may have given up what it had, and nobody took it.
            for slot in &slots {
                self.each_private(slot, |hold, run| self.take(hold, run, true))?;
            }
        }
        self.gone.store(true, Ordering::SeqCst);
        let adopted = core::mem::take(&mut *self.adopted.lock());
        drop(adopted);
        self.free_run_pages();
        Ok(())
    }

    /// Takes from EL2's VM whatever it has of the host's, and then EL2 has it no more. Returns the slots that it had. In any
    /// case it can be called again.
    pub(super) fn retire(&self) -> Result<Vec<Arc<Slot<K>>>, Error> {
        let slots: Vec<Arc<Slot<K>>> = self.slots.lock().all().map(Arc::clone).collect();
        match self.destroy() {
            Ok(()) => {}
            Err(Error::FramesLeft(_)) => {
                self.settle();
                let unknown = self.has_unknown_relinquished();
                for slot in &slots {
                    if self.is_protected() {
                        self.each_private(slot, |hold, run| self.reclaim(hold, slot, run, unknown))?;
                    } else {
                        self.unshare(slot, 0..slot.pages())?;
                    }
                }
                self.destroy()?;
            }
            Err(error) => return Err(error),
        }
        Ok(slots)
    }

    /// Ends it if nobody wants it and it is still there.
    pub(crate) fn end_if_doomed(&self) {
        if self.is_doomed() && !self.gone.load(Ordering::SeqCst) {
            // There is nobody to tell. The next pin, vCPU or reference that goes tries again.
            let _ = self.end();
        }
    }

    fn destroy(&self) -> Result<(), Error> {
        match self.call(|vm| self.host().hypervisor().destroy_vm(vm)) {
            // Somebody else destroyed it with a call of his own.
            Err(Error::Gone) => Ok(()),
            result => result,
        }
    }

    /// Whether the guest gave up pages that were never taken: an exit that nobody handled. They look as if the guest
    /// had them still, but EL2 no longer knows of them by the guest's numbers.
    fn has_unknown_relinquished(&self) -> bool {
        let given_up = self.call(|vm| {
            self.host()
                .hypervisor()
                .vm_statistic(vm, VmStatistic::Relinquished)
        });
        given_up.is_ok_and(|pages| pages > self.taken.load(Ordering::SeqCst))
    }

    /// Looks at every run of pages of a slot that were given to the guest, by the record of their file.
    fn each_private(
        &self,
        slot: &Slot<K>,
        each: impl Fn(&Hold<K>, Range<u64>) -> Result<(), Error>,
    ) -> Result<(), Error> {
        let Some(inode) = slot.inode() else {
            return Ok(());
        };
        let window = slot.window();
        let mut at = window.start;
        while let Some(hold) = inode.hold_first(&(at..window.end)) {
            let extent = hold.range();
            let part = extent.start.max(at)..extent.end.min(window.end);
            at = part.end;
            for (run, page) in hold.runs(part) {
                if page == Page::Private(self.number()) {
                    each(&hold, run)?;
                }
            }
        }
        Ok(())
    }

    /// Takes pages back from a guest that is dying.
    fn reclaim(&self, hold: &Hold<K>, slot: &Slot<K>, run: Range<u64>, unknown: bool) -> Result<(), Error> {
        let mut at = run.start;
        while at < run.end {
            let result = self.call_range(|vm, done| {
                let range = GuestRange::new(slot.gfn_of(at) + done, run.end - at - done);
                self.host().hypervisor().reclaim_guest(vm, range)
            });
            let done = result.map_or_else(|stopped| stopped.done, |()| run.end - at);
            let stopped_at = at + done;
            self.take(hold, at..stopped_at, unknown)?;
            let Err(PartError { error, .. }) = result else {
                return Ok(());
            };
            match (error, error.status()) {
                // It stays the guest's until it is unpinned. The others come back all the same.
                (_, Some(Status::Pinned)) => {}
                (Error::Poisoned, _) => hold.set(stopped_at..stopped_at + 1, Page::Poisoned),
                _ => return Err(error),
            }
            at = stopped_at + 1;
        }
        Ok(())
    }

    /// Notes that pages are the host's again. Private ones are zero, those that the guest shared are as they were.
    fn take(&self, hold: &Hold<K>, pages: Range<u64>, unknown: bool) -> Result<(), Error> {
        if !unknown {
            hold.set(pages, Page::Ready);
            return Ok(());
        }
        for page in pages {
            let frame = hold.frame(page);
            let hypervisor = self.host().hypervisor();
            let info = self
                .host()
                .call(None, || hypervisor.frame_state(frame.address()))?;
            let page_now = match info.state {
                FrameState::Relinquished => {
                    self.host()
                        .call_range(None, |_| hypervisor.take_back(frame.range(1)))?;
                    self.count_taken(1);
                    Page::Ready
                }
                FrameState::NotYours => Page::Poisoned,
                _ => Page::Ready,
            };
            hold.set(page..page + 1, page_now);
        }
        Ok(())
    }

    fn free_run_pages(&self) {
        let pages = core::mem::take(&mut *self.run_pages.lock());
        let host = self.host();
        for page in pages {
            if host
                .call_range(None, |_| host.hypervisor().unshare(page.range(1)))
                .is_ok()
            {
                host.source().free(Purpose::RunPage, Block::frame(page));
            } else {
                self.run_pages.lock().push(page);
            }
        }
    }
}
