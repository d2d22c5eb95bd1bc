//! The states of a frame that a caller may be told.

use num_enum::{IntoPrimitive, TryFromPrimitive};

/// What the host is told about a frame. Of a frame that is not its own it learns only that.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, IntoPrimitive, TryFromPrimitive)]
#[repr(u64)]
pub enum FrameState {
    /// The host's own, and nobody else's to touch.
    Host = 0,
    /// The host's own, shared with EL2. The count is the number of pins.
    HostSharedHyp = 1,
    /// The host's own, borrowed by guests. The count is the number of borrowers.
    HostSharedGuest = 2,
    /// The host's own, shared with the secure world.
    HostSharedSecure = 3,
    /// The host's own, lent to the secure world: the host may not touch it until it comes back.
    HostLentSecure = 4,
    /// A guest's own, which the guest shares with the host. The count is the number of pins.
    GuestSharedHost = 5,
    /// Given up by a guest and zeroed: the host's as soon as it takes it back.
    Relinquished = 6,
    /// Not the host's. No more is said.
    NotYours = 7,
    /// A device register page that the host owns.
    Device = 8,
}
