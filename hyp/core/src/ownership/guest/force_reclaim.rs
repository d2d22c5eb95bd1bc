//! The host takes a private frame from a guest that may live and run, and the guest's page is lost for good.

use super::transit::{Departure, Moving, Payer, single_piece};
use crate::addr::Frame;
use crate::hardware::Hardware;
use crate::map::Entry;
use crate::ownership::permit::HostChange;
use crate::ownership::{Ownership, Refusal};
use crate::state::{State, TransitReason};
use crate::vm::GuestAnnotation;
use hyp_abi::Status;

impl<H: Hardware> Ownership<'_, H> {
    /// Takes one private frame from its guest, zeroed. An access of the guest is an error from now on, and nothing can be
    /// put in the page's place.
    ///
    /// # Errors
    /// [`Status::NotMemory`]; [`Status::NotOwner`] unless it is a private frame of a guest; [`Status::Busy`];
    /// [`Status::Poisoned`] if the frame turns out to be broken: it is lost and nobody's then; [`Status::VmNeedsMemory`],
    /// [`Status::NoMemory`].
    pub fn force_reclaim(&self, frame: Frame) -> Result<(), Refusal> {
        let moving = self.begin_forcing(frame)?;
        let came = self.zero(&moving);
        // A single frame is done or broken: nothing goes back.
        let host = Entry::plain(State::Host);
        self.arrive(moving, &came, host, host)?;
        Ok(())
    }

    fn begin_forcing(&self, frame: Frame) -> Result<Moving, Refusal> {
        let piece = single_piece::<H::Geometry>(frame);
        let private = |entry: Entry| match entry.state() {
            State::Guest => Ok(entry),
            State::InTransit => Err(Status::Busy),
            _ => Err(Status::NotOwner),
        };
        // The VM's lock comes before the region's, and only the entry says which VM: so it is looked at twice.
        let region = self.map.lock(&self.hw, frame).ok_or(Status::NotMemory)?;
        let seen = private(region.entry(piece.first))?;
        drop(region);
        let mut vm = self.lock_guest(seen.slot()).ok_or(Status::Busy)?;
        let region = self.map.lock(&self.hw, frame).ok_or(Status::NotMemory)?;
        if private(region.entry(piece.first))? != seen {
            return Err(Status::Busy.into());
        }
        let going = Departure {
            reason: TransitReason::GuestForce,
            piece,
            gfn: seen.gfn(),
            host: HostChange::Grant,
            payer: Payer::Pool,
            hole: GuestAnnotation::Lost,
            ranged: false,
        };
        let moving = self.depart(&mut vm, region, going)?;
        vm.left(State::Guest, 1);
        vm.counts.lost += 1;
        Ok(moving)
    }
}
