//! The trace ring of a CPU: records in a page that the host shares, pinned and mapped while a ring is attached.
//!
//! EL2 only ever writes the page: where the next record goes is kept here. A record's sequence number is written
//! odd before the record and even after it.

#![expect(unsafe_code, reason = "writes a page that the host can write")]

use crate::fixup;
use core::sync::atomic::{AtomicU64, Ordering, fence};
use hyp_abi::trace::{RECORD_SIZE, TraceEvent};
use hyp_core::addr::{FRAME_SIZE, Frame, PhysAddr};

/// Records in a page.
const RECORDS: u64 = FRAME_SIZE / RECORD_SIZE;

/// Bit 0 of the page's address: a record is being written.
const WRITING: u64 = 1;

/// The ring of one CPU. Only that CPU writes records; any CPU may attach or detach.
#[derive(Debug, Default)]
pub(crate) struct Ring {
    page: AtomicU64,
    next: AtomicU64,
}

impl Ring {
    /// Whether a page is attached.
    #[inline(always)]
    pub(crate) fn is_attached(&self) -> bool {
        self.page.load(Ordering::Relaxed) != 0
    }

    /// Writes a record, if a ring is attached.
    #[inline(always)]
    pub(crate) fn record(&self, event: TraceEvent, first: u64, second: u64) {
        if self.is_attached() {
            self.record_attached(event, first, second);
        }
    }

    #[cold]
    #[inline(never)]
    fn record_attached(&self, event: TraceEvent, first: u64, second: u64) {
        self.record_here(event, first, second);
    }

    /// Does what [`Ring::record`] does, without a call: for those who have no stack.
    #[inline(always)]
    pub(crate) fn record_here(&self, event: TraceEvent, first: u64, second: u64) {
        let page = self.page.load(Ordering::Relaxed);
        // Only a detach can come between, and then nobody wants the record.
        if page == 0
            || self
                .page
                .compare_exchange(page, page | WRITING, Ordering::Acquire, Ordering::Relaxed)
                .is_err()
        {
            return;
        }
        let number = self.next.load(Ordering::Relaxed);
        self.next.store(number.wrapping_add(1), Ordering::Relaxed);
        // None of these wraps, and what cannot panic needs no stack.
        let slot = page.wrapping_add((number % RECORDS) * RECORD_SIZE);
        let sequence = number.wrapping_mul(2).wrapping_add(2);
        for (index, value) in [
            (0, sequence.wrapping_sub(1)),
            (1, event as u64),
            (2, first),
            (3, second),
            (0, sequence),
        ] {
            // A page that answers with an abort gets no record: it is the host's, and so is the loss.
            // SAFETY: the page is pinned, so it is mapped at EL2 until the detach, which waits for this; nothing
            // of EL2's lies in it, and no reference to it exists.
            let _ = unsafe { fixup::write_u64(slot.wrapping_add(index * 8), value) };
            // The host must not see a later word before an earlier one.
            fence(Ordering::Release);
        }
        self.page.store(page, Ordering::Release);
    }

    /// Attaches `page`. Answers whether none was attached before.
    pub(crate) fn attach(&self, page: Frame) -> bool {
        let address = page.address().value();
        self.page
            .compare_exchange(0, address, Ordering::AcqRel, Ordering::Relaxed)
            .is_ok()
    }

    /// The page that is attached.
    pub(crate) fn page(&self) -> Option<Frame> {
        let page = self.page.load(Ordering::Relaxed) & !WRITING;
        if page == 0 {
            None
        } else {
            PhysAddr::new(page).map(PhysAddr::frame)
        }
    }

    /// Detaches `page`, once no record is being written to it. Answers whether it was attached.
    pub(crate) fn detach(&self, page: Frame) -> bool {
        let page = page.address().value();
        loop {
            match self
                .page
                .compare_exchange_weak(page, 0, Ordering::AcqRel, Ordering::Relaxed)
            {
                Ok(_) => return true,
                Err(other) if other & !WRITING != page => return false,
                Err(_) => core::hint::spin_loop(),
            }
        }
    }
}
