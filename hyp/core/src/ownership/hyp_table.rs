//! EL2's own stage-1 table, where it follows ownership: the pages of the pool and the pinned pages of the host.
//!
//! EL2 maps them at their physical address, page by page, so that one page can go without its neighbours faulting.

use super::spare::Source;
use super::{Ownership, Refusal};
use crate::addr::FrameSpan;
use crate::hardware::{Event, Hardware, LockName};
use crate::pgtable::{
    Annotation, Change, HypAccess, HypAttributes, HypStage1, IpaSpan, LargestLeaf, Obligation, Reserve, Table,
};
use crate::sync::LockGuard;

/// EL2's table, locked, with every page that mapping the frames may need. What is done with it cannot fail.
#[must_use = "it holds the lock of EL2's table and pages of the pool"]
pub(super) struct HypPermit<'a, H: Hardware> {
    hw: &'a H,
    table: LockGuard<'a, Table<HypStage1, H::Geometry>>,
    span: FrameSpan,
    reserve: Reserve,
}

impl<H: Hardware> Ownership<'_, H> {
    /// Locks EL2's table and reserves what mapping `span` there needs.
    ///
    /// # Errors
    /// [`hyp_abi::Status::NoMemory`].
    pub(super) fn check_hyp_map(&self, span: FrameSpan, source: Source) -> Result<HypPermit<'_, H>, Refusal> {
        let mut permit = self.lock_hyp(span);
        let needed = permit
            .table
            .plan(&self.hw, IpaSpan::identity(span), map_change(span))
            .map(|plan| plan.tables());
        let needed = needed.expect("EL2 maps only what is its own or pinned");
        match self.take_pages(needed, source) {
            Some(reserve) => {
                permit.reserve = reserve;
                Ok(permit)
            }
            None => {
                permit.finish();
                Err(Refusal::no_memory(needed))
            }
        }
    }

    /// Ends EL2's mapping of frames, and all memory of it in any TLB.
    pub(super) fn unmap_at_hyp(&self, span: FrameSpan) {
        // Everything is mapped page by page, so nothing is ever split and no page is needed.
        self.lock_hyp(span).unmap();
    }

    /// EL2's table, to be looked at. For tests.
    #[cfg(any(test, feature = "doubles"))]
    pub fn hyp_table(&self) -> Table<HypStage1, H::Geometry> {
        *self.hyp.lock()
    }

    fn lock_hyp(&self, span: FrameSpan) -> HypPermit<'_, H> {
        let table = self.hyp.lock();
        self.hw.observe(Event::Locked(LockName::HypTable));
        HypPermit {
            hw: &self.hw,
            table,
            span,
            reserve: Reserve::new(),
        }
    }
}

impl<H: Hardware> HypPermit<'_, H> {
    /// Maps the frames at EL2, for data.
    pub(super) fn map(mut self) {
        // Nothing was mapped there, so nothing is owed but what a replaced table leaves behind.
        self.change(map_change(self.span)).complete(self.hw);
        self.finish();
    }

    fn unmap(mut self) {
        let change = Change::Unmap {
            annotation: Annotation::NONE,
            largest: LargestLeaf::Page,
        };
        self.change(change).complete(self.hw);
        self.free_empty_tables();
        self.finish();
    }

    /// Gives the tables below which nothing is mapped any more back to the pool.
    fn free_empty_tables(&self) {
        let start = self.span.start().address().host_ipa();
        for level in [2, 1] {
            match self.table.fold(self.hw, start, level) {
                Some(owed) => owed.complete(self.hw),
                None => break,
            }
        }
    }

    fn change(&mut self, change: Change<HypStage1>) -> Obligation {
        self.table
            .plan(self.hw, IpaSpan::identity(self.span), change)
            .and_then(|plan| plan.reserve_from(self.hw, &mut self.reserve))
            .expect("the check reserved what the change takes")
            .commit(self.hw)
    }

    fn finish(self) {
        self.hw.observe(Event::Unlocked(LockName::HypTable));
        drop(self.table);
        self.reserve.release(self.hw);
    }
}

/// EL2 maps what it is given page by page, and never executes it.
fn map_change(span: FrameSpan) -> Change<HypStage1> {
    Change::Map {
        pa: span.start().address(),
        attributes: HypAttributes::memory(HypAccess::ReadWrite),
        largest: LargestLeaf::Page,
    }
}
