//! The specification as cases: one call on one frame in the middle of a region that else is the host's.
//!
//! Whoever can bring a frame into a [`Holding`] can try them, whatever system it is.

use super::{Demand, Holding, refusal};
use hyp_abi::vm::Permissions;
use hyp_abi::{FRAME_SIZE, FrameRange, HostCall, HostCallId, Status, VmCall, VmCallId};

/// Where the guest of the cases, the protected VM in slot 1, has its frame.
pub const GFN: u64 = 0x8_0000;

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
        Holding::Guest { slot: 1, gfn: GFN },
        Holding::GuestShared {
            slot: 1,
            gfn: GFN,
            pins: 0,
        },
        Holding::GuestShared {
            slot: 1,
            gfn: GFN,
            pins: 1,
        },
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
        | HostCallId::TraceDetach
        | HostCallId::GuestSupport
        | HostCallId::GuestRegister => return None,
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

/// A case of a call about VMs: what the frame is, the call, and the status that must answer it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct VmVector {
    /// What the frame is before.
    pub holding: Holding,
    /// Which call.
    pub call: VmCallId,
    /// What it must answer.
    pub status: Status,
}

/// The call on the frame at `address`, for calls about VMs that name one. A protected VM is in slot 1, one that is not
/// in slot 2; neither has anything at the guest frame numbers that are given.
#[must_use]
pub fn vm_call_on_frame(call: VmCallId, address: u64) -> Option<VmCall> {
    let range = FrameRange::new(address, 1);
    Some(match call {
        VmCallId::Donate => VmCall::Donate {
            vm: 1,
            range,
            gfn: GFN + 1000,
        },
        VmCallId::Share => VmCall::Share {
            vm: 2,
            range,
            gfn: GFN + 1000,
            permissions: Permissions::all().bits(),
        },
        VmCallId::ForceReclaim => VmCall::ForceReclaim { frame: address },
        VmCallId::PinShared => VmCall::PinShared(range),
        VmCallId::UnpinShared => VmCall::UnpinShared(range),
        VmCallId::TakeBack => VmCall::TakeBack(range),
        _ => return None,
    })
}

/// What a call about VMs answers for a frame; `None` where the frame is nobody's and the call may say so in its own
/// words or in those of every call.
const fn vm_status(call: VmCallId, holding: Holding) -> Option<Status> {
    let nobodys = matches!(
        holding,
        Holding::Poisoned | Holding::Reserved | Holding::Device | Holding::InWork | Holding::Parked { .. }
    );
    Some(match (call, holding) {
        (VmCallId::Share, Holding::SharedGuest { borrowers: 4095 })
        | (VmCallId::PinShared, Holding::GuestShared { pins: 4095, .. }) => Status::CountOverflow,
        (VmCallId::Share, Holding::SharedGuest { .. })
        | (VmCallId::ForceReclaim, Holding::Guest { .. })
        | (VmCallId::PinShared, Holding::GuestShared { .. })
        | (VmCallId::UnpinShared, Holding::GuestShared { pins: 1.., .. })
        | (VmCallId::TakeBack, Holding::Relinquished) => Status::Success,
        (VmCallId::Donate | VmCallId::Share, _) => match refusal(Demand::PlainHost, holding) {
            Some(status) => status,
            None => Status::Success,
        },
        _ if nobodys => return None,
        (VmCallId::ForceReclaim, _) => Status::NotOwner,
        (VmCallId::PinShared, _) => Status::NotShared,
        (VmCallId::UnpinShared, _) => Status::NotPinned,
        _ => Status::NotRelinquished,
    })
}

/// All cases of calls about VMs.
#[must_use]
pub fn vm_vectors() -> Vec<VmVector> {
    let mut vectors = Vec::new();
    for call in VmCallId::all().filter(|call| vm_call_on_frame(*call, FRAME_SIZE).is_some()) {
        for holding in holdings() {
            if let Some(status) = vm_status(call, holding) {
                vectors.push(VmVector {
                    holding,
                    call,
                    status,
                });
            }
        }
    }
    vectors
}
