//! For tests: a frame is put in a state by hand, with the tables as that state wants them.

use super::Ownership;
use super::audit::hyp_maps;
use super::spare::Source;
use crate::addr::FrameSpan;
use crate::hardware::Hardware;
use crate::map::{Entry, OwnershipMap};
use crate::pgtable::{Annotation, Change, IpaSpan, LargestLeaf};
use crate::state::State;

impl<H: Hardware> Ownership<'_, H> {
    /// Gives frames that are the host's the entry `entry`, as no transition would.
    ///
    /// # Panics
    /// If the frames are not the host's, or the pool has too few pages.
    pub fn force(&self, span: FrameSpan, entry: Entry) {
        let (piece, rest) = OwnershipMap::<H::Geometry>::first_piece(span);
        assert!(rest.is_none(), "one region at a time");
        // A device page is mapped on first touch, and until then it is not.
        if !entry.state().host_may_access() || entry.state() == State::Device {
            let change = Change::Unmap {
                annotation: Annotation::NONE,
                largest: LargestLeaf::Region,
            };
            let owed = self
                .host
                .apply(&self.hw, IpaSpan::identity(span), change)
                .expect("there are pages");
            owed.complete(&self.hw);
        }
        if hyp_maps(entry) == Some(true) {
            self.check_hyp_map(span, Source::Pool)
                .expect("there are pages")
                .map();
        }
        let mut region = self.map.lock(&self.hw, span.start()).expect("it is RAM");
        let mut node = if region.needs_node(piece.count) {
            self.hw.allocate_page()
        } else {
            None
        };
        if let Some(folded) = region.set(piece.first, piece.count, entry, &mut node) {
            folded.release(&self.hw);
        }
        if let Some(unused) = node {
            self.hw.free_page(unused);
        }
    }
}
