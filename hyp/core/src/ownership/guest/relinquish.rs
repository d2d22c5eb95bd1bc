//! A guest gives pages up: they are scrubbed, and wait for the host to take them.

use super::GuestOutcome;
use super::range::{OwnRun, Went, outcome, told_to_guest};
use super::transit::{Departure, Moving, Payer};
use crate::hardware::Hardware;
use crate::map::Entry;
use crate::ownership::Ownership;
use crate::ownership::permit::HostChange;
use crate::state::{State, TransitReason};
use crate::vm::GuestAnnotation;
use hyp_abi::vm_call::GuestRange;

impl<H: Hardware> Ownership<'_, H> {
    /// The guest in `slot` gives up pages that are private, or shared with the host and not pinned (MEM_RELINQUISH). The
    /// host can take them with [`Ownership::take_back`]; a later access of the guest faults in another page.
    pub fn guest_relinquish(&self, slot: u8, range: GuestRange) -> GuestOutcome {
        outcome(self.each_run(range, |left| {
            let (moving, back) = self.begin_relinquishing(slot, left, range.frames > 1)?;
            let all = moving.frames().frames();
            let came = self.zero(&moving);
            let given_up = self.arrive(moving, &came, Entry::plain(State::Relinquished), back);
            // A page that turns out to be broken is given up all the same, and counted. It is poisoned in the map, and the
            // host hears of it when it would take it.
            let frames = given_up.unwrap_or(1);
            Ok(Went {
                frames,
                on: frames == all,
            })
        }))
    }

    /// Takes the first pages of a range from the guest, and from the host. Answers what they were, too.
    fn begin_relinquishing(
        &self,
        slot: u8,
        left: GuestRange,
        ranged: bool,
    ) -> Result<(Moving, Entry), GuestOutcome> {
        let mut vm = self.lock_guest(slot).ok_or(GuestOutcome::Refused)?;
        let OwnRun { region, piece, entry } = self.own_frames(&vm, left)?;
        if entry.count() > 0 {
            return Err(GuestOutcome::Pinned(left.gfn));
        }
        let going = Departure {
            reason: TransitReason::GuestRelinquish,
            piece,
            gfn: left.gfn,
            host: if entry.state() == State::GuestSharedHost {
                HostChange::Revoke
            } else {
                HostChange::None
            },
            payer: Payer::Vm,
            hole: GuestAnnotation::Absent,
            ranged,
        };
        let moving = self.depart(&mut vm, region, going).map_err(told_to_guest)?;
        vm.left(entry.state(), piece.span.frames());
        Ok((moving, entry))
    }
}
