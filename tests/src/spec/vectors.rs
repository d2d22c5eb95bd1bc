//! The specification as cases: one call on one frame in the middle of a region that else is the host's.
//!
//! Whoever can bring a frame into a [`Holding`] can try them, whatever system it is.

use super::{Demand, Holding, refusal};
use hyp_abi::{FRAME_SIZE, FrameRange, HostCall, HostCallId, Status};

/// A case: what the frame is, the call, and the status that must answer it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Vector {
    /// What the frame is before.
    pub holding: Holding,
    /// Which call.
    pub call: HostCallId,
    /// What it must answer.
    pub status: Status,
}

/// Everything that a frame may be, with and without pins and borrowers.
#[must_use]
pub fn holdings() -> Vec<Holding> {
    vec![
        Holding::Host,
        Holding::SharedHyp { pins: 0 },
        Holding::SharedHyp { pins: 1 },
        Holding::SharedHyp { pins: 4095 },
        Holding::SharedGuest { borrowers: 1 },
        Holding::SharedGuest { borrowers: 2 },
        Holding::SharedSecure,
        Holding::LentSecure,
        Holding::Boot,
        Holding::Pool,
        Holding::Donated,
        Holding::Guest,
        Holding::GuestShared { pins: 0 },
        Holding::GuestShared { pins: 1 },
        Holding::InWork,
        Holding::Parked { zeroed: 0 },
        Holding::Relinquished,
        Holding::Poisoned,
        Holding::Device,
        Holding::Reserved,
    ]
}

/// The call on the frame at `address`, for calls that name one.
#[must_use]
pub const fn on_frame(call: HostCallId, address: u64) -> Option<HostCall> {
    let range = FrameRange::new(address, 1);
    Some(match call {
        HostCallId::PoolTopUp => HostCall::PoolTopUp(range),
        HostCallId::ShareHyp => HostCall::ShareHyp(range),
        HostCallId::UnshareHyp => HostCall::UnshareHyp(range),
        HostCallId::DonateHyp => HostCall::DonateHyp(range),
        HostCallId::ReclaimHyp => HostCall::ReclaimHyp(range),
        HostCallId::Collapse => HostCall::Collapse(range),
        HostCallId::FrameState => HostCall::FrameState { frame: address },
        HostCallId::Audit => HostCall::Audit(range),
        HostCallId::TraceAttach => HostCall::TraceAttach {
            cpu: 0,
            frame: address,
        },
        HostCallId::Version
        | HostCallId::PoolDrain
        | HostCallId::Statistics
        | HostCallId::Counter
        | HostCallId::TraceDetach => return None,
    })
}

/// All cases.
#[must_use]
pub fn vectors() -> Vec<Vector> {
    let mut vectors = Vec::new();
    for call in HostCallId::all().filter(|call| on_frame(*call, FRAME_SIZE).is_some()) {
        for holding in holdings() {
            let demand = match call {
                HostCallId::PoolTopUp | HostCallId::ShareHyp | HostCallId::DonateHyp => {
                    Some(Demand::PlainHost)
                }
                HostCallId::UnshareHyp => Some(Demand::Idle),
                HostCallId::TraceAttach => Some(Demand::Shared),
                HostCallId::ReclaimHyp => Some(Demand::Donated { whole_region: false }),
                _ => None,
            };
            let refused = demand.and_then(|demand| refusal(demand, holding));
            vectors.push(Vector {
                holding,
                call,
                status: refused.unwrap_or(Status::Success),
            });
        }
    }
    vectors
}
