//! The transitions of ownership: every way in which a frame can change its state.
//!
//! Each transition is checked first and then committed. The check takes the locks, judges every frame, and reserves
//! every page that the commit may need; it ends in a permit, and what is done with a permit cannot fail.
//! A refusal has changed nothing. Long work is two commits with `InTransit` between, and no lock is held while
//! contents are scrubbed.
//!
//! One order everywhere: old mappings are revoked, the TLBs invalidated, contents scrubbed, the map entry written,
//! and only then new mappings granted.
//!
//! - `range`: what a ranged call does with each region, and how it reports progress.
//! - `permit`: check, then commit.
//! - `share`, `donate`, `top_up`, `reclaim`: the transitions between host and EL2.
//! - [`guest`]: the transitions between the host and guests.
//! - [`device`]: device registers, which are owned too.
//! - [`abort`]: whether an access that faulted may go on.
//! - [`audit`]: map and tables compared.

pub mod abort;
pub mod audit;
pub mod device;
mod donate;
#[cfg(any(test, feature = "doubles"))]
mod force;
pub mod guest;
mod hyp_table;
mod permit;
mod query;
mod range;
mod reclaim;
mod reset;
mod share;
mod spare;
#[cfg(test)]
mod tests;
mod top_up;

pub use abort::{AbortVerdict, HostAccess};
pub use device::{DeviceOwner, DeviceRange, Devices};
pub use guest::{Aged, GuestAccess, GuestOutcome, GuestVerdict};
pub use query::FrameInfo;
pub(crate) use range::checked_span;

use crate::addr::FrameSpan;
use crate::hardware::Hardware;
use crate::map::OwnershipMap;
use crate::pgtable::{HypStage1, Stage2, Table};
use crate::sync::Lock;
use crate::vm::{VmSlot, Vms};
use hyp_abi::Status;

/// Why a transition was refused. Nothing has changed, but that a frame may have turned out to be broken.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Refusal {
    /// The reason, as the caller is told it.
    pub status: Status,
    /// How many pages the pool or the VM's reserve lacks, if that is the reason; else 0.
    pub pages_needed: u64,
}

impl Refusal {
    /// The refusal of a transition that needs `pages` more than the pool has.
    #[must_use]
    pub const fn no_memory(pages: u64) -> Self {
        Self {
            status: Status::NoMemory,
            pages_needed: pages,
        }
    }

    /// The refusal of a transition that needs `pages` more than the VM's reserve has.
    #[must_use]
    pub const fn vm_needs(pages: u64) -> Self {
        Self {
            status: Status::VmNeedsMemory,
            pages_needed: pages,
        }
    }
}

impl From<Status> for Refusal {
    fn from(status: Status) -> Self {
        Self {
            status,
            pages_needed: 0,
        }
    }
}

/// Who owns what: the map, and the tables that are derived from it.
#[derive(Debug)]
pub struct Ownership<'m, H: Hardware> {
    hw: H,
    map: OwnershipMap<'m, H::Geometry>,
    host: Table<Stage2, H::Geometry>,
    hyp: Lock<Table<HypStage1, H::Geometry>>,
    devices: Lock<Devices>,
    spare: Lock<spare::Spare>,
    vms: Vms<'m, H>,
}

impl<'m, H: Hardware> Ownership<'m, H> {
    /// The ownership of a machine.
    ///
    /// `host` maps all RAM of `map` to itself, at level 2 or below, and nothing else; the levels above are there for
    /// all RAM and stay as they are. `hyp` maps what EL2 uses. VMs will live in `slots`.
    pub fn new(
        hw: H,
        map: OwnershipMap<'m, H::Geometry>,
        host: Table<Stage2, H::Geometry>,
        hyp: Table<HypStage1, H::Geometry>,
        devices: Devices,
        slots: &'m [VmSlot<H>],
    ) -> Self {
        Self {
            hw,
            map,
            host,
            hyp: Lock::new(hyp),
            devices: Lock::new(devices),
            spare: Lock::new(spare::Spare::default()),
            vms: Vms::new(slots),
        }
    }

    /// The machine below.
    pub const fn hardware(&self) -> &H {
        &self.hw
    }

    /// The ownership map.
    pub const fn map(&self) -> &OwnershipMap<'m, H::Geometry> {
        &self.map
    }

    /// The VMs.
    pub const fn vms(&self) -> &Vms<'m, H> {
        &self.vms
    }

    /// The host's stage-2 table.
    pub const fn host_table(&self) -> &Table<Stage2, H::Geometry> {
        &self.host
    }
}

/// Whether a call names one frame or many: blocks are rebuilt at the end of a ranged call, never of a single-page
/// one, so that a caller which toggles one page of a block does not split, fold and broadcast each time.
pub(crate) const fn is_ranged(span: FrameSpan) -> bool {
    span.frames() > 1
}
