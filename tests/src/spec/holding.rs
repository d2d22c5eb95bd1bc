//! What a frame may be.

use hyp_abi::FrameState;

/// Who holds a frame, and how.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Holding {
    /// The host's, and nobody else's.
    Host,
    /// The host's, shared with EL2, which maps it while it has pins.
    SharedHyp {
        /// How many pins.
        pins: u16,
    },
    /// The host's, borrowed by guests.
    SharedGuest {
        /// How many borrowers.
        borrowers: u16,
    },
    /// The host's, shared with the secure world.
    SharedSecure,
    /// The host's, but the secure world has it alone.
    LentSecure,
    /// EL2's since boot.
    Boot,
    /// EL2's: in its pool, free or a table.
    Pool,
    /// EL2's: donated, and not mapped anywhere.
    Donated,
    /// A guest's own.
    Guest {
        /// The slot of its VM.
        slot: u8,
        /// Where the guest has it.
        gfn: u64,
    },
    /// A guest's, which the guest shares with the host.
    GuestShared {
        /// The slot of its VM.
        slot: u8,
        /// Where the guest has it.
        gfn: u64,
        /// How many pins of the host's.
        pins: u16,
    },
    /// Between two owners; a CPU is at work on it.
    InWork,
    /// On its way back to the host with all of its region, waiting for the call to be repeated.
    Parked {
        /// How many frames of the region are zero by now.
        zeroed: u64,
    },
    /// Given up by a guest; waits for the host to take it.
    Relinquished,
    /// Broken memory.
    Poisoned,
    /// Device registers of the host among RAM.
    Device,
    /// The firmware's.
    Reserved,
}

impl Holding {
    /// Whether the host's table leads to it.
    #[must_use]
    pub const fn host_reaches(self) -> bool {
        matches!(
            self,
            Self::Host
                | Self::SharedHyp { .. }
                | Self::SharedGuest { .. }
                | Self::SharedSecure
                | Self::GuestShared { .. }
        )
    }

    /// Whether EL2's table leads to it, at the frame's own address; `None` where that is not laid down.
    #[must_use]
    pub const fn el2_reaches(self) -> Option<bool> {
        match self {
            Self::Boot => None,
            Self::Pool => Some(true),
            Self::SharedHyp { pins } => Some(pins > 0),
            _ => Some(false),
        }
    }

    /// What the host is told: the state, and the count of pins or borrowers.
    #[must_use]
    pub const fn told(self) -> (FrameState, u64) {
        match self {
            Self::Host => (FrameState::Host, 0),
            Self::SharedHyp { pins } => (FrameState::HostSharedHyp, pins as u64),
            Self::SharedGuest { borrowers } => (FrameState::HostSharedGuest, borrowers as u64),
            Self::SharedSecure => (FrameState::HostSharedSecure, 0),
            Self::LentSecure => (FrameState::HostLentSecure, 0),
            Self::GuestShared { pins, .. } => (FrameState::GuestSharedHost, pins as u64),
            Self::Relinquished => (FrameState::Relinquished, 0),
            Self::Device => (FrameState::Device, 0),
            Self::Boot
            | Self::Pool
            | Self::Donated
            | Self::Guest { .. }
            | Self::InWork
            | Self::Parked { .. }
            | Self::Poisoned
            | Self::Reserved => (FrameState::NotYours, 0),
        }
    }

    /// What the frame `offset` further on is, if its region is held as one: of a guest's frames, the next of the guest's.
    #[must_use]
    pub const fn at(self, offset: u64) -> Self {
        match self {
            Self::Guest { slot, gfn } => Self::Guest {
                slot,
                gfn: gfn + offset,
            },
            Self::GuestShared { slot, gfn, pins } => Self::GuestShared {
                slot,
                gfn: gfn + offset,
                pins,
            },
            other => other,
        }
    }

    /// Whether a region of such frames may be remembered as one: not while its frames are to be changed one by one.
    #[must_use]
    pub const fn may_be_whole(self) -> bool {
        !matches!(self, Self::InWork | Self::SharedHyp { pins: 1.. })
    }
}
