//! Check, then commit.
//!
//! [`Ownership::check`] locks a region, judges the frames, and takes from the pool every page that the commit may
//! need. What it gives is a [`Permit`]: nothing that is done with one can fail. The types keep the one order: a
//! mapping is revoked, the TLB invalidation completed, the entry written, and then access granted.

use super::spare::Source;
use super::{Ownership, Refusal};
use crate::addr::FrameSpan;
use crate::geometry::Geometry;
use crate::hardware::{Hardware, TablePage};
use crate::map::{Entry, FoldedNode, Region};
use crate::pgtable::{
    Annotation, Change, IpaSpan, LargestLeaf, Obligation, Plan, Reserve, Stage2, Stage2Attributes, Table,
};
use crate::state::Piece;
use hyp_abi::{Counter, Status};

/// RAM is mapped to the host by blocks of one region at most: the levels above never change, so no two regions share
/// a descriptor, and two calls on different regions share no lock.
const HOST_LARGEST: LargestLeaf = LargestLeaf::Region;

/// What a transition does to the host's table.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum HostChange {
    /// Nothing: the host may do after it what it could before.
    None,
    /// The host loses access.
    Revoke,
    /// The host gets access.
    Grant,
}

impl HostChange {
    /// The change of the host's table that this is for `span`, or `None` for no change.
    const fn of_table(self, span: FrameSpan) -> Option<Change<Stage2>> {
        match self {
            Self::None => None,
            Self::Revoke => Some(Change::Unmap {
                annotation: Annotation::NONE,
                largest: HOST_LARGEST,
            }),
            Self::Grant => Some(Change::Map {
                pa: span.start().address(),
                attributes: Stage2Attributes::HOST_MEMORY,
                largest: HOST_LARGEST,
            }),
        }
    }
}

/// How the frames of a piece will be changed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Contingency {
    /// All of them alike.
    Whole(HostChange),
    /// All of them alike at first, and then perhaps some in one way and the rest in another.
    Parts(HostChange),
}

/// Leave to change the frames of one region: they have been judged, their region is locked, and every page that
/// the change may need is here.
#[must_use = "a permit that is dropped keeps the pages it reserved; finish it"]
pub(super) struct Permit<'a, H: Hardware> {
    hw: &'a H,
    host: &'a Table<Stage2, H::Geometry>,
    region: Region<'a, H>,
    piece: Piece,
    pages: Pages,
    folded: Option<FoldedNode>,
}

/// Pages that were taken from the pool before a commit that may need them.
pub(super) struct Pages {
    node: Option<TablePage>,
    tables: Reserve,
}

impl Pages {
    /// None.
    pub(super) const fn none() -> Self {
        Self {
            node: None,
            tables: Reserve::new(),
        }
    }

    /// Whether there are none.
    pub(super) const fn is_empty(&self) -> bool {
        self.node.is_none() && self.tables.pages() == 0
    }

    /// The most that a change of a part of one region can need: a node and a level-3 table.
    pub(super) fn for_one_region<H: Hardware>(hw: &H) -> Option<Self> {
        let tables = Reserve::take(hw, 1)?;
        let Some(node) = hw.allocate_page() else {
            tables.release(hw);
            return None;
        };
        Some(Self {
            node: Some(node),
            tables,
        })
    }

    /// Gives back what was not needed.
    pub(super) fn release<H: Hardware>(self, hw: &H) {
        if let Some(page) = self.node {
            hw.free_page(page);
        }
        self.tables.release(hw);
    }

    /// Gives back what was not needed to the reserve that it came from.
    pub(super) fn release_into<H: Hardware>(self, hw: &H, reserve: &mut Reserve) {
        if let Some(page) = self.node {
            reserve.put(hw, page);
        }
        reserve.append(hw, self.tables);
    }
}

impl<H: Hardware> Ownership<'_, H> {
    /// Judges the frames of `piece` and, if each passes, reserves what a change of them needs.
    ///
    /// # Errors
    /// [`Status::NotMemory`] if no RAM lies there, what `judge` answers for the first frame that does not pass, or
    /// [`Status::NoMemory`] with the number of pages that the pool lacks.
    #[inline]
    pub(super) fn check(
        &self,
        piece: Piece,
        change: HostChange,
        judge: impl FnMut(Entry) -> Result<(), Status>,
    ) -> Result<Permit<'_, H>, Refusal> {
        self.check_with(piece, Contingency::Whole(change), Source::Pool, judge)
    }

    /// [`Ownership::check`], with pages from `source`.
    #[inline]
    pub(super) fn check_with(
        &self,
        piece: Piece,
        change: Contingency,
        source: Source,
        judge: impl FnMut(Entry) -> Result<(), Status>,
    ) -> Result<Permit<'_, H>, Refusal> {
        let region = self
            .map
            .lock(&self.hw, piece.span.start())
            .ok_or(Status::NotMemory)?;
        region
            .check(piece.first, piece.count, judge)
            .map_err(|(_, status)| status)?;
        let take = |pages| self.take_pages(pages, source);
        self.permit(region, piece, change, take)
    }

    /// Leave to change the frames of `piece`, which were judged, in `region`, in which they lie. The pages that the change
    /// may need come from `take`.
    ///
    /// # Errors
    /// [`Status::NoMemory`] with the number of pages, if `take` has too few.
    #[inline]
    pub(super) fn permit<'a>(
        &'a self,
        region: Region<'a, H>,
        piece: Piece,
        change: Contingency,
        take: impl FnOnce(u64) -> Option<Reserve>,
    ) -> Result<Permit<'a, H>, Refusal> {
        let (needs_node, tables_needed) = self.pages_for(&region, piece, change);
        let mut pages = Pages::none();
        if needs_node || tables_needed > 0 {
            let needed = tables_needed + u64::from(needs_node);
            pages.tables = take(needed).ok_or(Refusal::no_memory(needed))?;
            if needs_node {
                pages.node = pages.tables.pop(&self.hw);
            }
        }
        Ok(Permit {
            hw: &self.hw,
            host: &self.host,
            region,
            piece,
            pages,
            folded: None,
        })
    }

    /// Whether a change needs a node, and how many tables of the host's.
    #[inline]
    fn pages_for(&self, region: &Region<'_, H>, piece: Piece, change: Contingency) -> (bool, u64) {
        let change = match change {
            Contingency::Parts(_) if piece.count == H::Geometry::ENTRIES => return (true, 1),
            Contingency::Parts(change) | Contingency::Whole(change) => change,
        };
        let tables = change
            .of_table(piece.span)
            .map_or(0, |change| self.plan_host(piece.span, change).tables());
        (region.needs_node(piece.count), tables)
    }

    /// Looks through a change of the host's table under the region's lock.
    fn plan_host(&self, span: FrameSpan, change: Change<Stage2>) -> Plan<'_, Stage2, H::Geometry> {
        plan_host(&self.hw, &self.host, span, change)
    }

    /// Takes up the frames of `piece` again that this CPU put in transit, with the pages it kept for that.
    pub(super) fn resume(&self, piece: Piece, pages: Pages) -> Option<Permit<'_, H>> {
        let region = self.map.lock(&self.hw, piece.span.start())?;
        Some(Permit {
            hw: &self.hw,
            host: &self.host,
            region,
            piece,
            pages,
            folded: None,
        })
    }
}

/// Looks through a change of the host's table. The map says which frames are mapped there, and the caller has judged
/// them, so a table that would have it otherwise is a broken invariant of ours.
fn plan_host<'t, H: Hardware>(
    hw: &H,
    host: &'t Table<Stage2, H::Geometry>,
    span: FrameSpan,
    change: Change<Stage2>,
) -> Plan<'t, Stage2, H::Geometry> {
    host.plan(hw, IpaSpan::identity(span), change)
        .expect("the host's table agrees with the ownership map")
}

impl<H: Hardware> Permit<'_, H> {
    /// The region, for a look at its entries.
    pub(super) fn region(&self) -> &Region<'_, H> {
        &self.region
    }

    /// How many pages of the pool the permit holds.
    pub(super) fn pages_held(&self) -> u64 {
        self.pages.tables.pages() + u64::from(self.pages.node.is_some())
    }

    /// Takes the host's access to the frames away. The obligation must be completed before anybody else touches them.
    pub(super) fn revoke(&mut self) -> Obligation {
        self.change_host(HostChange::Revoke, self.piece.span)
    }

    fn change_host(&mut self, change: HostChange, span: FrameSpan) -> Obligation {
        let Some(change) = change.of_table(span) else {
            return Obligation::none(self.host.regime());
        };
        plan_host(self.hw, self.host, span, change)
            .reserve_from(self.hw, &mut self.pages.tables)
            .expect("the check reserved what the change takes")
            .commit(self.hw)
    }

    /// Writes the map entry of the frames.
    pub(super) fn enter(&mut self, new: Entry) {
        let folded = self
            .region
            .set(self.piece.first, self.piece.count, new, &mut self.pages.node);
        self.keep(folded);
    }

    /// Writes the map entry of some of the frames: `count` from the `first` of the piece's own.
    pub(super) fn enter_part(&mut self, first: usize, count: usize, new: Entry) {
        let folded = self
            .region
            .set(self.piece.first + first, count, new, &mut self.pages.node);
        self.keep(folded);
    }

    /// Adds an empty page to be the region's node, if it needs one.
    pub(super) fn add_node(&mut self, node: Option<TablePage>) {
        if let Some(unneeded) = core::mem::replace(&mut self.pages.node, node) {
            self.hw.free_page(unneeded);
        }
    }

    fn keep(&mut self, folded: Option<FoldedNode>) {
        if let Some(node) = folded {
            // At most one node is ever let go of: a region has one, and a new one is made only where there was none.
            if let Some(earlier) = self.folded.replace(node) {
                earlier.release(self.hw);
            }
        }
    }

    /// Gives the host access to all frames of the piece.
    pub(super) fn grant(&mut self) {
        self.grant_part(0, self.piece.span.frames());
    }

    /// Gives the host access to `frames` of the piece's frames, from the one with index `first` in the piece.
    pub(super) fn grant_part(&mut self, first: u64, frames: u64) {
        let start = self.piece.span.start().checked_add(first);
        let Some(span) = start.and_then(|start| FrameSpan::new(start, frames)) else {
            return;
        };
        // Nothing was mapped there; what is owed is for a table that a block has replaced.
        self.change_host(HostChange::Grant, span).complete(self.hw);
    }

    /// Gives the host's table of the region back to the pool if the region's frames are all alike, and no longer the host's:
    /// it may have gone piece by piece.
    pub(super) fn fold_host(&self) {
        let gone = |entry: Entry| !entry.state().host_may_access();
        if self.region.uniform().is_some_and(gone)
            && let Some(owed) = self.host.fold(
                self.hw,
                self.region.start().address().host_ipa(),
                HOST_LARGEST as u8,
            )
        {
            owed.complete(self.hw);
        }
    }

    /// Ends the commit: folds what has become uniform, if the call was `ranged`, gives unneeded pages back, and lets
    /// the lock go.
    #[inline]
    pub(super) fn finish(self, ranged: bool) {
        let hw = self.hw;
        self.end(ranged).release(hw);
    }

    /// [`Permit::finish`], but for the pages that were not needed: they are the caller's again.
    #[inline]
    pub(super) fn end(mut self, ranged: bool) -> Pages {
        if ranged && let Some(node) = self.region.fold() {
            self.keep(Some(node));
        }
        let uniform_for_host = ranged
            && self
                .region
                .uniform()
                .is_some_and(|entry| entry.state().host_may_access());
        if uniform_for_host {
            fold_host_region(self.hw, self.host, &self.region);
        }
        if let Some(node) = self.folded.take() {
            node.release(self.hw);
        }
        self.pages
    }

    /// Gives each run of the piece's frames whose entries agree the entry that `new` makes of its first.
    pub(super) fn enter_each(&mut self, mut new: impl FnMut(Entry) -> Entry) {
        let mut first = 0;
        while first < self.piece.count {
            let index = self.piece.first + first;
            let run = self.region.agreeing(index, self.piece.count - first).max(1);
            let entry = new(self.region.entry(index));
            self.enter_part(first, run, entry);
            first += run;
        }
    }

    /// Lets the lock go and keeps the pages, for a second commit that follows.
    pub(super) fn suspend(mut self) -> Pages {
        if let Some(node) = self.folded.take() {
            node.release(self.hw);
        }
        self.pages
    }
}

/// Makes one block of the host's mapping of a region whose frames are all the host's to use.
pub(super) fn fold_host_region<H: Hardware>(
    hw: &H,
    host: &Table<Stage2, H::Geometry>,
    region: &Region<'_, H>,
) {
    if let Some(owed) = host.fold(hw, region.start().address().host_ipa(), HOST_LARGEST as u8) {
        hw.count(Counter::BlocksFolded, 1);
        owed.complete(hw);
    }
}
