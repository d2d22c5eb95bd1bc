//! The states of a frame, and what each of them promises.
//!
//! Every state answers four questions: who owns the frame, who may touch it, what protects its contents, and who
//! holds references to it. The lock of the frame's region guards its entry in every state.

use crate::addr::FrameSpan;
use hyp_abi::{FrameState, Status};
use num_enum::{IntoPrimitive, TryFromPrimitive};

/// The state of a frame, as the ownership map has it. The numbers are the encoding of [`crate::map::Entry`].
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, IntoPrimitive, TryFromPrimitive)]
#[repr(u8)]
pub enum State {
    /// Host-owned: the initial state of RAM.
    ///
    /// Owner and access: the host. Contents: the host's own affair. References: none.
    Host = 0,
    /// Host-owned and shared with EL2: mailboxes and rings.
    ///
    /// Owner: the host. Access: host, and EL2 while the pin count is not zero (only then is it mapped there).
    /// Contents: the host may write at any time, so EL2 never reads a value twice and never holds a reference.
    /// References: the count is the number of pins; unsharing waits for zero.
    HostSharedHyp = 1,
    /// Shared-to-guest: the host owns it and guests borrow it.
    ///
    /// Access: host and the borrowers. Contents: shared by all of them. References: the count is the number of
    /// borrowers.
    HostSharedGuest = 2,
    /// Host-owned and shared with the secure world. Encoding reserved: FF-A answers NOT_SUPPORTED so far.
    HostSharedSecure = 3,
    /// Host-owned and lent to the secure world, which has it alone. Encoding reserved, as above.
    HostLentSecure = 4,
    /// EL2's own: image, pools, tables, VM and vCPU state, and what was donated.
    ///
    /// Owner and access: EL2. Contents: absent from the host's table; scrubbed before anyone else gets it.
    /// References: [`HypUse`] says what EL2 uses it for.
    Hyp = 5,
    /// A guest's private page.
    ///
    /// Owner and access: one guest, named by slot and guest frame number. Contents: absent from the host's table;
    /// scrubbed before anyone else gets it. References: the guest's table.
    Guest = 6,
    /// Guest-shared-to-host: the guest owns it and lends it to the host.
    ///
    /// Access: guest and host. Contents: shared. References: the count is the number of pins that the host holds
    /// for its I/O.
    GuestSharedHost = 7,
    /// Between two owners: nobody maps it, and its contents are still to be scrubbed, copied or encrypted.
    ///
    /// Access: EL2, through a window, or where it maps the pool's pages ([`TransitReason::TopUp`]). Contents: the last owner's. References: the CPU at work, or none while
    /// the work is parked (see [`Transit`]).
    InTransit = 8,
    /// Given up by its guest and scrubbed. It is the host's again, which drops its own references and takes it.
    ///
    /// Access: nobody until taken back. Contents: zero.
    Relinquished = 9,
    /// Answered with a hardware memory error. Nobody's, and nobody may touch it, for good.
    Poisoned = 10,
    /// Device registers inside a region of the map that is not all RAM. The host's; mapped on first touch.
    Device = 11,
    /// The firmware's. Never mapped for anyone.
    Reserved = 12,
}

impl State {
    /// Whether the host's table may lead to a frame in this state.
    #[must_use]
    #[inline]
    pub const fn host_may_access(self) -> bool {
        matches!(
            self,
            Self::Host
                | Self::HostSharedHyp
                | Self::HostSharedGuest
                | Self::HostSharedSecure
                | Self::GuestSharedHost
                | Self::Device
        )
    }

    /// Whether frames in this state are numbered: each entry carries the guest frame number of its frame.
    #[must_use]
    #[inline]
    pub const fn is_numbered(self) -> bool {
        matches!(self, Self::Guest | Self::GuestSharedHost)
    }

    /// Why a call that wants a frame which is plainly the host's refuses one in this state, or `None` for
    /// [`State::Host`] itself.
    #[must_use]
    #[inline]
    pub const fn host_refusal(self) -> Option<Status> {
        Some(match self {
            Self::Host => return None,
            Self::HostSharedHyp => Status::SharedWithHyp,
            Self::HostSharedGuest => Status::SharedWithGuest,
            Self::HostSharedSecure | Self::HostLentSecure => Status::SharedWithSecure,
            Self::Hyp | Self::Guest | Self::GuestSharedHost | Self::Relinquished => Status::NotOwner,
            Self::InTransit => Status::Busy,
            Self::Poisoned => Status::Poisoned,
            Self::Device => Status::NotMemory,
            Self::Reserved => Status::Reserved,
        })
    }

    /// What the host is told about a frame in this state: of one that is not its own, only that.
    #[must_use]
    pub const fn shown_to_host(self) -> FrameState {
        match self {
            Self::Host => FrameState::Host,
            Self::HostSharedHyp => FrameState::HostSharedHyp,
            Self::HostSharedGuest => FrameState::HostSharedGuest,
            Self::HostSharedSecure => FrameState::HostSharedSecure,
            Self::HostLentSecure => FrameState::HostLentSecure,
            Self::GuestSharedHost => FrameState::GuestSharedHost,
            Self::Relinquished => FrameState::Relinquished,
            Self::Device => FrameState::Device,
            Self::Hyp | Self::Guest | Self::InTransit | Self::Poisoned | Self::Reserved => {
                FrameState::NotYours
            }
        }
    }

    /// All states, in the order of their numbers.
    pub fn all() -> impl Iterator<Item = Self> {
        (0..=Self::Reserved as u8).filter_map(|number| Self::try_from(number).ok())
    }
}

/// What EL2 uses a frame of its own for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, IntoPrimitive, TryFromPrimitive)]
#[repr(u64)]
pub enum HypUse {
    /// EL2's image and everything else that it reserved at boot. Never given back.
    Boot = 0,
    /// Brought by `PoolTopUp`: free in the pool, or a table or a node. Mapped at EL2. `PoolDrain` gives it back.
    Pool = 1,
    /// Brought by `DonateHyp`. Not mapped at EL2. `ReclaimHyp` gives it back.
    Donated = 2,
}

/// Why a frame is in transit, and how far its contents have come.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Transit {
    /// What is being done.
    pub reason: TransitReason,
    /// Whether a CPU is at work on it now. If not, the work waits to be resumed.
    pub active: bool,
    /// How many frames of the region are done. Only a whole region is ever parked, so its first frames are.
    pub progress: u16,
}

/// What is being done to a frame in transit.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, IntoPrimitive, TryFromPrimitive)]
#[repr(u8)]
pub enum TransitReason {
    /// It goes from the host to EL2: its translations are being invalidated.
    Donate = 0,
    /// It was donated and goes back to the host: its contents are being scrubbed.
    Reclaim = 1,
    /// It leaves the pool and goes back to the host: its contents are being scrubbed.
    Drain = 2,
    /// It goes from the host to a guest: its contents are being scrubbed or digested.
    GuestDonate = 3,
    /// It comes back from a dying guest: its contents are being scrubbed.
    GuestReclaim = 4,
    /// It was taken from a guest by force: its contents are being scrubbed.
    GuestForce = 5,
    /// Its guest gives it up: its contents are being scrubbed.
    GuestRelinquish = 6,
    /// It goes from the host to EL2's pool: EL2, which has mapped it by then, finds out whether the memory answers.
    TopUp = 7,
}

/// A run of frames inside one region.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Piece {
    /// The frames.
    pub span: FrameSpan,
    /// The index of the first one in its region.
    pub first: usize,
    /// How many.
    pub count: usize,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_are_dense_and_fit_the_entry() {
        assert_eq!(State::all().count(), 13);
        assert!(State::all().all(|state| u8::from(state) < 16));
    }

    #[test]
    fn only_a_host_frame_passes_as_one() {
        for state in State::all() {
            assert_eq!(state.host_refusal().is_none(), state == State::Host);
        }
    }

    #[test]
    fn the_host_is_told_nothing_of_what_it_may_not_know() {
        for state in State::all() {
            let hidden = state.shown_to_host() == FrameState::NotYours;
            let host_has_a_part =
                state.host_may_access() || matches!(state, State::HostLentSecure | State::Relinquished);
            assert_eq!(hidden, !host_has_a_part, "{state:?}");
        }
    }
}
