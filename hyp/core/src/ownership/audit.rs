//! The audit: the ownership map compared with the tables that are derived from it.

use super::{Ownership, Refusal};
use crate::addr::{FrameSpan, Ipa, PhysAddr};
use crate::hardware::Hardware;
use crate::map::{Entry, Region};
use crate::pgtable::{self, Annotation, Descriptor, Format, Stage2Attributes};
use crate::state::{HypUse, State, TransitReason};
#[cfg(any(test, feature = "doubles"))]
use crate::{hardware::TablePage, map::OwnershipMap};
use hyp_abi::Status;

/// What an audit found.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Default)]
pub struct AuditReport {
    /// How many frames were looked at.
    pub frames: u64,
    /// How many of them are mapped where they must not be, or not mapped where they must be, or stand in a region
    /// whose map is inconsistent in itself.
    pub disagreements: u64,
}

impl<H: Hardware> Ownership<'_, H> {
    /// Compares map and tables for `span`, region by region, each under its lock.
    ///
    /// Of a borrowed frame it looks whether anybody is said to borrow it. How many do, no lock of one region can tell: the
    /// map does not say who they are, so every guest's table would have to stand still. From the other side
    /// [`Ownership::guest_audit`] finds each page that leads to a frame which is not borrowed, and a count that is wrong
    /// in number alone is for `guest_census`, which looks at everything while nothing goes on.
    ///
    /// # Errors
    /// [`Status::NotMemory`].
    pub fn audit(&self, span: FrameSpan) -> Result<AuditReport, Refusal> {
        let mut disagreements = 0;
        let frames = self.each_region(span, |piece| {
            let region = self
                .map
                .lock(&self.hw, piece.span.start())
                .ok_or(Status::NotMemory)?;
            for (offset, frame) in piece.span.iter().enumerate() {
                let entry = region.entry(piece.first + offset);
                let single = FrameSpan::single(frame);
                let agrees = self.host_agrees(single, entry) && self.hyp_agrees(single, entry);
                if !agrees || !counts_agree(entry) {
                    disagreements += 1;
                }
            }
            disagreements += u64::from(!Self::node_agrees(&region));
            drop(region);
            disagreements += self.guest_disagreements(piece);
            Ok(piece.span.frames())
        })?;
        Ok(AuditReport {
            frames,
            disagreements,
        })
    }

    /// The host's table leads to the frame itself, with the rights that its state gives, or nowhere.
    fn host_agrees(&self, frame: FrameSpan, entry: Entry) -> bool {
        let address = frame.start().address();
        let Some(found) = self.host.walk(&self.hw, address.host_ipa()) else {
            return false;
        };
        let state = entry.state();
        match found.descriptor {
            // Device registers are mapped on first touch.
            Descriptor::Invalid(annotation) => {
                annotation == Annotation::NONE && (!state.host_may_access() || state == State::Device)
            }
            Descriptor::Leaf { .. } => {
                let wanted = match state {
                    State::Device => Stage2Attributes::HOST_DEVICE,
                    _ => Stage2Attributes::HOST_MEMORY,
                };
                state.host_may_access() && mapping(found, address.host_ipa()) == Some((address, wanted))
            }
            // A walk ends at what is no table.
            Descriptor::Table(_) => false,
        }
    }

    fn hyp_agrees(&self, frame: FrameSpan, entry: Entry) -> bool {
        hyp_maps(entry).is_none_or(|wanted| wanted == self.mapped_at_hyp(frame))
    }

    fn mapped_at_hyp(&self, frame: FrameSpan) -> bool {
        let address = frame.start().address();
        let found = self.hyp.lock().walk(&self.hw, address.host_ipa());
        found
            .and_then(|entry| mapping(entry, address.host_ipa()))
            .is_some_and(|(pa, _)| pa == address)
    }

    /// The number of differing neighbours that the map keeps is the one that a count finds, and a node's own page is
    /// EL2's.
    fn node_agrees(region: &Region<'_, H>) -> bool {
        let (counted, kept) = region.audit_breaks();
        counted == kept
    }

    /// Whether every table page of the host's table is EL2's by the map. For tests: it walks the whole table.
    #[cfg(any(test, feature = "doubles"))]
    pub fn owns(&self, page: TablePage) -> bool {
        let frame = page.frame();
        self.map.lock(&self.hw, frame).is_none_or(|region| {
            let index = OwnershipMap::<H::Geometry>::index_of(frame);
            region.entry(index).state() == State::Hyp
        })
    }
}

/// EL2 maps the pages of its pool, those that are on their way there, and the pinned pages of the host at their own address,
/// and no other frame that the map knows; `None` for what it reserved at boot.
pub(super) fn hyp_maps(entry: Entry) -> Option<bool> {
    match entry.state() {
        State::Hyp if entry.hyp_use() == Some(HypUse::Boot) => None,
        State::Hyp => Some(entry.hyp_use() == Some(HypUse::Pool)),
        State::HostSharedHyp => Some(entry.count() > 0),
        State::InTransit => {
            let reason = entry.transit().map(|transit| transit.reason);
            Some(reason == Some(TransitReason::TopUp))
        }
        _ => Some(false),
    }
}

/// What nobody borrows is not shared with guests.
fn counts_agree(entry: Entry) -> bool {
    entry.state() != State::HostSharedGuest || entry.count() > 0
}

/// Where `address`, which `entry` translates, goes, and how.
fn mapping<F: Format>(entry: pgtable::Entry<F>, address: Ipa) -> Option<(PhysAddr, F::Attributes)> {
    let Descriptor::Leaf { pa, attributes } = entry.descriptor else {
        return None;
    };
    let offset = address.value().checked_sub(entry.start.value())?;
    Some((pa.checked_add(offset)?, attributes))
}
