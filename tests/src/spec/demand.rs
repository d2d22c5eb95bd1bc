//! What a call asks of a frame, and what each holding answers.

use super::Holding;
use hyp_abi::{FRAME_SIZE, FrameRange, Status};

/// Bits of a physical address.
const ADDRESS_BITS: u32 = 48;

/// What a call asks of each frame that it names.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Demand {
    /// To be plainly the host's: `ShareHyp`, `DonateHyp`, `PoolTopUp`.
    PlainHost,
    /// To be shared with EL2 and not in use: `UnshareHyp`.
    Idle,
    /// To be shared with EL2: `TraceAttach`.
    Shared,
    /// To be donated: `ReclaimHyp`.
    Donated {
        /// Whether the call names all of the frame's region.
        whole_region: bool,
    },
}

/// The most pins that a frame can have.
const MAX_PINS: u16 = 4095;

/// Why a frame does not give what is demanded; `None` if it does.
#[must_use]
pub const fn refusal(demand: Demand, holding: Holding) -> Option<Status> {
    // What the frame is, whatever is asked, for those that nobody may have.
    let nobodys = match holding {
        Holding::Poisoned => Some(Status::Poisoned),
        Holding::Reserved => Some(Status::Reserved),
        Holding::Device => Some(Status::NotMemory),
        Holding::InWork => Some(Status::Busy),
        _ => None,
    };
    if nobodys.is_some() {
        return nobodys;
    }
    if let Demand::Donated { whole_region } = demand {
        return match holding {
            Holding::Donated => None,
            Holding::Parked { .. } if whole_region => None,
            Holding::Parked { .. } => Some(Status::Busy),
            _ => Some(Status::NotDonated),
        };
    }
    match holding {
        Holding::Host => match demand {
            Demand::PlainHost => None,
            _ => Some(Status::NotShared),
        },
        Holding::SharedHyp { pins } => match demand {
            Demand::PlainHost => Some(Status::SharedWithHyp),
            Demand::Idle if pins > 0 => Some(Status::Pinned),
            Demand::Shared if pins >= MAX_PINS => Some(Status::CountOverflow),
            _ => None,
        },
        Holding::SharedGuest { .. } => Some(Status::SharedWithGuest),
        Holding::SharedSecure | Holding::LentSecure => Some(Status::SharedWithSecure),
        Holding::Parked { .. } => Some(Status::Busy),
        _ => Some(Status::NotOwner),
    }
}

/// What is wrong with a range, before anybody looks at its frames.
#[must_use]
pub fn bad_range(range: FrameRange) -> Option<Status> {
    if !range.base.is_multiple_of(FRAME_SIZE) {
        return Some(Status::Misaligned);
    }
    if range.frames == 0 {
        return Some(Status::EmptyRange);
    }
    let end = u128::from(range.base) + u128::from(range.frames) * u128::from(FRAME_SIZE);
    (end > 1 << ADDRESS_BITS).then_some(Status::RangeOverflow)
}
