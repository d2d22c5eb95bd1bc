//! One hypercall: made, counted, and its answer checked for what no answer may hold.

use super::gadget::{self, OWN_REGISTER, REGISTERS, Registers};
use super::guests::judge;
use super::tally;
use crate::cpu;
use core::ops::RangeInclusive;
use hyp_abi::vm::{MAX_VCPUS, MAX_VMS};
use hyp_abi::{FRAME_SIZE, FrameState, GuestSupport, HostCall, HostCallId, REGION_SIZE, Status};

/// How many pages EL2 or a VM can lack for one step of a call.
pub(super) const LACKING: RangeInclusive<u64> = 1..=16;

/// What a register holds that a call must leave alone.
const fn witness(number: usize) -> u64 {
    0x5afe_0000_0000_0000 | (0x0101_0101_0101 * number as u64)
}

/// Registers for a call: `arguments` in x0 and on, witnesses in the others.
pub(super) fn registers<const N: usize>(arguments: [u64; N]) -> Registers {
    core::array::from_fn(|number| arguments.get(number).copied().unwrap_or(witness(number)))
}

/// Fails unless the registers from number `first` on are as they were.
pub(super) fn ensure_preserved(what: &str, before: &Registers, after: &Registers, first: usize) {
    for number in (first..REGISTERS).filter(|&number| number != OWN_REGISTER) {
        if before[number] != after[number] {
            tally::fail(format_args!(
                "{what} {:#x}: x{number} became {:#x} on CPU {}",
                before[0],
                after[number],
                cpu::number()
            ));
        }
    }
}

/// Makes the call that x0 to x6 hold, whatever it is, and counts it.
///
/// # Errors
/// The refusal. A status that is none counts as `NotSupported`, and as a failure.
pub(super) fn raw(arguments: [u64; 7]) -> Result<[u64; 3], Status> {
    let before = registers(arguments);
    let mut after = before;
    if let Some(fault) = gadget::hvc(&mut after) {
        tally::fail(format_args!("HVC {:#x} ended in {fault:?}", arguments[0]));
        return Err(Status::NotSupported);
    }
    ensure_preserved("HVC", &before, &after, 4);
    answered(arguments, [after[0], after[1], after[2], after[3]])
}

/// Counts a call that was made with `arguments` in x0 to x6, and checks its answer, x0 to x3.
///
/// # Errors
/// As for [`raw`].
pub(super) fn answered(arguments: [u64; 7], answer: [u64; 4]) -> Result<[u64; 3], Status> {
    let [x0, values @ ..] = answer;
    let Some(status) = Status::from_register(x0) else {
        tally::fail(format_args!("HVC {:x?} answered {x0:#x}", &arguments[..3]));
        return Err(Status::NotSupported);
    };
    let call = HostCall::decode(arguments).ok();
    tally::call(call.map(|call| call.id()), status);
    if !documented(call, status, values) {
        tally::fail(format_args!(
            "HVC {:x?} answered {status:?} {values:x?}",
            &arguments[..3]
        ));
    }
    match status {
        Status::Success => Ok(values),
        status => Err(status),
    }
}

/// Makes a call, counts it, and checks its answer.
///
/// # Errors
/// The refusal.
pub(super) fn checked(call: HostCall) -> Result<[u64; 3], Status> {
    raw(call.encode())
}

/// Whether x1 to x3 hold what the call documents for this answer, and nothing else.
fn documented(call: Option<HostCall>, status: Status, values: [u64; 3]) -> bool {
    match (status, call) {
        (status, Some(HostCall::Vm(call))) if status != Status::Success => {
            judge::refused(call, status, values)
        }
        (Status::NoMemory, Some(_)) => LACKING.contains(&values[0]) && values[1..] == [0, 0],
        (Status::Success, Some(call)) => accepted(call, values),
        (Status::Success, None) => false,
        _ => values == [0; 3],
    }
}

fn accepted(call: HostCall, values: [u64; 3]) -> bool {
    match call {
        HostCall::Version => {
            values[0] == hyp_abi::VERSION.to_register()
                && hyp_abi::Features::from_bits(values[1]).is_some()
                && values[2] == cpu::count() as u64
        }
        HostCall::PoolTopUp(range)
        | HostCall::ShareHyp(range)
        | HostCall::UnshareHyp(range)
        | HostCall::DonateHyp(range)
        | HostCall::ReclaimHyp(range)
        | HostCall::Collapse(range) => values[0] <= range.frames && values[1..] == [0, 0],
        HostCall::PoolDrain { frames } => {
            values[0].is_multiple_of(FRAME_SIZE) && values[1] <= frames && values[2] == 0
        }
        HostCall::FrameState { .. } => {
            FrameState::try_from(values[0]).is_ok()
                && values[1] <= u64::from(u16::MAX)
                && (values[2] == FRAME_SIZE || values[2] == REGION_SIZE)
        }
        HostCall::Statistics { .. } | HostCall::Counter { .. } | HostCall::GuestRegister { .. } => {
            values[1..] == [0, 0]
        }
        HostCall::GuestSupport => {
            let support = GuestSupport::from_registers(values);
            support.to_registers() == values
                && support.min_ipa_bits <= support.max_ipa_bits
                && (1..=MAX_VMS).contains(&(support.vms as usize))
                && support.vcpus as usize == MAX_VCPUS
        }
        HostCall::Audit(range) => values[0] <= range.frames && values[1..] == [0, 0],
        HostCall::TraceAttach { .. } | HostCall::TraceDetach { .. } => values == [0; 3],
        HostCall::Vm(call) => judge::accepted(call, values),
    }
}

/// Calls a ranged call until all of the range is done.
///
/// # Errors
/// The refusal that ended it, and how many frames were done before.
pub(super) fn drive(
    call: fn(hyp_abi::FrameRange) -> HostCall,
    range: hyp_abi::FrameRange,
) -> Result<(), (u64, Status)> {
    /// More than interrupts explain.
    const FRUITLESS: u32 = 10_000;
    let mut left = range;
    let mut fruitless = 0;
    loop {
        let done = range.frames - left.frames;
        let [finished, ..] = checked(call(left)).map_err(|status| (done, status))?;
        fruitless = if finished == 0 { fruitless + 1 } else { 0 };
        if fruitless > FRUITLESS {
            tally::fail(format_args!("{:x?} makes no progress", call(left)));
            return Err((done, Status::Busy));
        }
        match left.after(finished) {
            Some(rest) => left = rest,
            None => return Ok(()),
        }
    }
}

/// A number that is no call.
pub(super) fn is_call(function: u64) -> bool {
    HostCall::decode([function, 0, 0, 0, 0, 0, 0]).is_ok()
}

/// All calls, for a random choice.
pub(super) fn any(random: &mut super::random::Random) -> HostCallId {
    let number = random.below(HostCallId::COUNT as u64) as u32;
    HostCallId::try_from(number).unwrap_or(HostCallId::Version)
}
