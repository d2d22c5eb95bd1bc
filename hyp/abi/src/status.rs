//! What a call answers: success, or one value for each reason to refuse.
//!
//! A refused call has changed nothing. A ranged call that finished some of its frames and then met a reason to
//! stop answers [`Status::Success`] with the number it finished; called again with what is left, it answers the
//! reason.

use num_enum::{IntoPrimitive, TryFromPrimitive};
use thiserror::Error;

/// The answer of a call, as it sits in x0 (sign-extended).
///
/// Values −1 to −3 are those of the SMC Calling Convention (Arm DEN0028); the rest are Freehold's own.
#[derive(
    Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, IntoPrimitive, TryFromPrimitive, Error,
)]
#[repr(i64)]
pub enum Status {
    /// The call did what it was asked, or a part of it that the result counts.
    #[error("success")]
    Success = 0,
    /// No such call here.
    #[error("no such call")]
    NotSupported = -1,
    /// An argument that is none of the values the call documents.
    #[error("an argument has no meaning")]
    InvalidParameter = -3,
    /// The address is not a multiple of 4 KiB.
    #[error("the address is not aligned to 4 KiB")]
    Misaligned = -16,
    /// The range has no frame in it.
    #[error("the range is empty")]
    EmptyRange = -17,
    /// The end of the range does not fit the physical address space.
    #[error("the range runs past the end of physical memory")]
    RangeOverflow = -18,
    /// The frame is not RAM that the machine described: a device, or nothing at all.
    #[error("the frame is not RAM")]
    NotMemory = -19,
    /// The frame belongs to the firmware and is never anybody else's.
    #[error("the frame is reserved by the firmware")]
    Reserved = -20,
    /// The frame is not the caller's: EL2 or a guest owns it, or nobody may have it.
    #[error("the frame is not the caller's")]
    NotOwner = -21,
    /// The frame is the host's, but it is shared with EL2.
    #[error("the frame is shared with EL2")]
    SharedWithHyp = -22,
    /// The frame is the host's, but a guest borrows it.
    #[error("the frame is lent to a guest")]
    SharedWithGuest = -23,
    /// The frame is the host's, but the secure world uses it.
    #[error("the frame is lent to the secure world")]
    SharedWithSecure = -24,
    /// The frame is not shared in the way that the call would end.
    #[error("the frame is not shared")]
    NotShared = -25,
    /// The frame was not donated, or EL2 has put it to a use that another call must end first.
    #[error("the frame is not one that can be given back")]
    NotDonated = -26,
    /// The frame is shared and in use: its pin count is not zero.
    #[error("the frame is pinned")]
    Pinned = -27,
    /// One more pin or borrower would not fit the frame's counter.
    #[error("too many pins or borrowers")]
    CountOverflow = -28,
    /// EL2's pool has too few pages. The first result says how many to add with `PoolTopUp`.
    #[error("EL2 needs more pages in its pool")]
    NoMemory = -29,
    /// Another CPU is at work on the frame, or it waits for its contents to be scrubbed. Try again.
    #[error("the frame is in transit")]
    Busy = -30,
    /// The frame has a hardware memory error.
    #[error("the frame is poisoned")]
    Poisoned = -31,
    /// A trace ring is attached already, or none is.
    #[error("the trace ring is attached already, or none is")]
    WrongTraceState = -32,
}

impl Status {
    /// The status as x0 holds it.
    #[must_use]
    pub fn to_register(self) -> u64 {
        i64::from(self).cast_unsigned()
    }

    /// The status that x0 holds, or `None` if it is none of ours.
    #[must_use]
    pub fn from_register(value: u64) -> Option<Self> {
        Self::try_from(value.cast_signed()).ok()
    }
}
