//! What a call about VMs may answer, whatever all CPUs do meanwhile: the statuses and values that it documents.

use crate::attack::call::LACKING;
use hyp_abi::run_page::ExitReason;
use hyp_abi::vm::VmHandle;
use hyp_abi::{Status, VmCall, VmCallId};

/// Refusals of a range of frames.
const RANGE: [Status; 5] = [
    Status::Misaligned,
    Status::EmptyRange,
    Status::RangeOverflow,
    Status::NotMemory,
    Status::Reserved,
];

/// Refusals of a frame that is not the host's alone.
const OWNERSHIP: [Status; 4] = [
    Status::NotOwner,
    Status::SharedWithHyp,
    Status::SharedWithGuest,
    Status::Busy,
];

/// Refusals of frames that are to go to a VM.
const GIVING: [Status; 7] = [
    Status::GfnOutOfRange,
    Status::WrongVmKind,
    Status::WrongVmState,
    Status::GfnMapped,
    Status::GfnLost,
    Status::NoMemory,
    Status::VmNeedsMemory,
];

/// Refusals of guest frame numbers.
const GUEST_RANGE: [Status; 3] = [Status::EmptyRange, Status::GfnOutOfRange, Status::WrongVmKind];

/// The parts of a list of refusals.
fn parts(id: VmCallId) -> &'static [&'static [Status]] {
    use Status as S;
    match id {
        VmCallId::Create => &[&[S::InvalidParameter, S::NoVmSlot, S::NoMemory]],
        VmCallId::AddMemory => &[&[
            S::EmptyRange,
            S::GfnOutOfRange,
            S::InvalidParameter,
            S::WrongVmState,
        ]],
        VmCallId::CreateVcpu => &[
            &[
                S::NoSuchVcpu,
                S::VcpuExists,
                S::WrongVmState,
                S::NotShared,
                S::CountOverflow,
                S::NoMemory,
            ],
            &RANGE,
        ],
        VmCallId::Launch => &[&[
            S::WrongVmState,
            S::NoSuchVcpu,
            S::InvalidParameter,
            S::GfnOutOfRange,
            S::Busy,
        ]],
        VmCallId::Digest => &[&[S::WrongVmState, S::InvalidParameter]],
        VmCallId::Run => &[&[
            S::WrongVmState,
            S::NoSuchVcpu,
            S::VcpuRunning,
            S::VcpuOff,
            S::InvalidParameter,
        ]],
        VmCallId::Destroy => &[&[S::VcpuRunning, S::FramesLeft, S::Busy]],
        VmCallId::TopUp => &[&[S::EmptyRange, S::NoMemory]],
        VmCallId::Rename => &[&[S::VcpuRunning, S::WrongVmState]],
        VmCallId::Donate => &[&GIVING, &RANGE, &OWNERSHIP],
        VmCallId::Share => &[
            &GIVING,
            &RANGE,
            &OWNERSHIP,
            &[S::InvalidParameter, S::CountOverflow],
        ],
        VmCallId::Unshare => &[&GUEST_RANGE, &[S::GfnNotMapped, S::NoMemory, S::VmNeedsMemory]],
        VmCallId::Reclaim => &[
            &GUEST_RANGE,
            &[S::WrongVmState, S::Pinned, S::Busy, S::NoMemory, S::VmNeedsMemory],
        ],
        VmCallId::ForceReclaim => &[&RANGE, &[S::NotOwner, S::Busy, S::NoMemory, S::VmNeedsMemory]],
        VmCallId::SetPermissions => &[&GUEST_RANGE, &[S::InvalidParameter, S::VmNeedsMemory]],
        VmCallId::TestAge => &[&GUEST_RANGE],
        VmCallId::PinShared => &[&RANGE, &[S::NotShared, S::CountOverflow, S::NoMemory]],
        VmCallId::UnpinShared => &[&RANGE, &[S::NotPinned, S::NoMemory]],
        VmCallId::TakeBack => &[&RANGE, &[S::NotRelinquished, S::NoMemory]],
        VmCallId::Statistics => &[&[S::InvalidParameter]],
        VmCallId::Audit => &[&[S::EmptyRange, S::GfnOutOfRange]],
        VmCallId::ReadRegister | VmCallId::WriteRegister => &[&[
            S::WrongVmKind,
            S::WrongVmState,
            S::NoSuchVcpu,
            S::VcpuRunning,
            S::InvalidParameter,
        ]],
    }
}

/// Whether the call names a VM.
pub(super) const fn names_a_vm(id: VmCallId) -> bool {
    !matches!(
        id,
        VmCallId::Create
            | VmCallId::ForceReclaim
            | VmCallId::PinShared
            | VmCallId::UnpinShared
            | VmCallId::TakeBack
    )
}

/// Whether the call may be refused like this, with these values.
pub(in crate::attack) fn refused(call: VmCall, status: Status, values: [u64; 3]) -> bool {
    let id = call.id();
    let is_listed =
        parts(id).iter().any(|part| part.contains(&status)) || status == Status::NoSuchVm && names_a_vm(id);
    let [number, others @ ..] = values;
    let has_its_number = others == [0, 0]
        && match status {
            // As many as the host asked for.
            Status::NoMemory if id == VmCallId::TopUp => number > 0,
            Status::NoMemory | Status::VmNeedsMemory => LACKING.contains(&number),
            Status::FramesLeft => number > 0,
            Status::Busy if id == VmCallId::Destroy => number > 0,
            _ => number == 0,
        };
    is_listed && has_its_number
}

/// Whether the call may be accepted with these values.
pub(in crate::attack) fn accepted(call: VmCall, values: [u64; 3]) -> bool {
    let [first, second, third] = values;
    match call {
        VmCall::Create { .. } | VmCall::Rename { .. } => {
            VmHandle::from_register(first).is_some() && [second, third] == [0, 0]
        }
        VmCall::AddMemory { .. }
        | VmCall::CreateVcpu { .. }
        | VmCall::Launch { .. }
        | VmCall::Destroy { .. }
        | VmCall::ForceReclaim { .. }
        | VmCall::WriteRegister { .. } => values == [0; 3],
        VmCall::Digest { .. } => third == 0,
        VmCall::Run { .. } => ExitReason::try_from(first).is_ok(),
        VmCall::TopUp { .. } | VmCall::Statistics { .. } | VmCall::ReadRegister { .. } => {
            [second, third] == [0, 0]
        }
        VmCall::Donate { range, .. }
        | VmCall::Share { range, .. }
        | VmCall::PinShared(range)
        | VmCall::UnpinShared(range)
        | VmCall::TakeBack(range) => first <= range.frames && [second, third] == [0, 0],
        VmCall::Unshare { range, .. }
        | VmCall::Reclaim { range, .. }
        | VmCall::SetPermissions { range, .. } => first <= range.frames && [second, third] == [0, 0],
        VmCall::TestAge { range, .. } => first <= range.frames && third == 0,
        VmCall::Audit { range, .. } => first <= range.frames && second == 0 && third == 0,
    }
}
