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
    /// Another CPU is at work on the frame, or it waits for its contents to be scrubbed; or an interrupt waits, and the call
    /// has more to do after it. Try again.
    #[error("the frame is in transit, or the call is to be gone on with")]
    Busy = -30,
    /// The frame has a hardware memory error.
    #[error("the frame is poisoned")]
    Poisoned = -31,
    /// A trace ring is attached already, or none is.
    #[error("the trace ring is attached already, or none is")]
    WrongTraceState = -32,
    /// The handle names no VM: there is none of that number, it is gone, or it has another handle by now.
    #[error("there is no such VM")]
    NoSuchVm = -33,
    /// There are as many VMs as there can be.
    #[error("there are too many VMs")]
    NoVmSlot = -34,
    /// The VM is not at the point of its life at which the call has a meaning.
    #[error("the VM is launched already, not yet, or dying")]
    WrongVmState = -35,
    /// The VM has no vCPU of that index.
    #[error("there is no such vCPU")]
    NoSuchVcpu = -36,
    /// The VM has a vCPU of that index already.
    #[error("the vCPU exists already")]
    VcpuExists = -37,
    /// The vCPU, or one of the VM's vCPUs, is running.
    #[error("the vCPU is running")]
    VcpuRunning = -38,
    /// The vCPU is turned off.
    #[error("the vCPU is off")]
    VcpuOff = -39,
    /// The VM still owns, shares or borrows frames. The first result says how many.
    #[error("the VM still has frames")]
    FramesLeft = -40,
    /// The call is for protected VMs, and this is none, or the other way round.
    #[error("the VM is of the other kind")]
    WrongVmKind = -41,
    /// The guest frame number is none of the VM's.
    #[error("the guest frame number is out of the VM's range")]
    GfnOutOfRange = -42,
    /// There is a frame at the guest frame number, or the guest lets the host emulate a device there.
    #[error("the guest has a frame or a device there already")]
    GfnMapped = -43,
    /// There is no frame at the guest frame number.
    #[error("the guest has no frame there")]
    GfnNotMapped = -44,
    /// The guest has lost the frame that it had there, for good.
    #[error("the guest has lost what it had there")]
    GfnLost = -45,
    /// The VM's reserve has too few pages. The first result says how many to add with `TopUp`.
    #[error("the VM needs more pages in its reserve")]
    VmNeedsMemory = -46,
    /// The frame is not one that a guest gave up.
    #[error("the frame was not given up by a guest")]
    NotRelinquished = -47,
    /// The frame has no pin.
    #[error("the frame is not pinned")]
    NotPinned = -48,
    /// The host is in streaming SVE mode, in which no guest can be entered.
    #[error("the host is in streaming mode")]
    StreamingMode = -49,
}

impl Status {
    /// All of them, from [`Status::Success`] on by descending numbers.
    pub fn all() -> impl Iterator<Item = Self> {
        (i64::from(i8::MIN)..=0)
            .rev()
            .filter_map(|number| Self::try_from(number).ok())
    }

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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn all_are_all() {
        let source = include_str!("status.rs");
        let variants = source
            .lines()
            .filter(|line| line.starts_with("    ") && line.ends_with(',') && line.contains(" = "));
        assert_eq!(Status::all().count(), variants.count());
        assert_eq!(Status::all().next(), Some(Status::Success));
        assert!(Status::all().is_sorted_by(|one, next| i64::from(*one) > i64::from(*next)));
    }
}
