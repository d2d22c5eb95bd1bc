//! What the host may ask: from registers to a typed call, from the call to the transition, and back.

mod guest;
mod vm;

use crate::addr::{FRAME_SHIFT, Frame, PhysAddr};
use crate::hardware::Hardware;
use crate::ownership::{Ownership, Refusal, checked_span};
use crate::state::State;
use hyp_abi::host_call::{CALL_UID, FREEHOLD_UID, Statistic};
use hyp_abi::{CallId, Counter, FrameRange, HostCall, HostCallId, HostReturn, Status, VERSION};

/// Answers a hypercall of the host, if that is quickly done: its registers x0 to x6 in, what its x0 to x3 become
/// out. `None`, and nothing has happened, if it must be answered in full.
///
/// It calls nothing, so a caller that ends with it needs no stack. Neither function panics, whatever a host puts in
/// `registers`: every value there is an allegation.
#[inline(always)]
pub fn answer_shortly<H: Hardware>(ownership: &Ownership<'_, H>, registers: [u64; 7]) -> Option<[u64; 4]> {
    short_call(ownership, registers).map(in_registers)
}

/// Answers any hypercall of the host.
#[inline]
pub fn answer_in_full<H: Hardware>(ownership: &Ownership<'_, H>, registers: [u64; 7]) -> [u64; 4] {
    if registers[0] == u64::from(CALL_UID) {
        // Not a call of ours but the question who we are.
        ownership.hardware().count(Counter::Hypercalls, 1);
        return FREEHOLD_UID.map(u64::from);
    }
    in_registers(full_call(ownership, registers))
}

/// Carries out the call that the host's registers x0 to x6 hold, by its short way if it has one.
pub fn host_call<H: Hardware>(ownership: &Ownership<'_, H>, registers: [u64; 7]) -> HostReturn {
    short_call(ownership, registers).unwrap_or_else(|| full_call(ownership, registers))
}

#[inline(always)]
fn in_registers(answer: HostReturn) -> [u64; 4] {
    let [v1, v2, v3] = answer.values;
    [answer.status.to_register(), v1, v2, v3]
}

#[inline(always)]
fn short_call<H: Hardware>(ownership: &Ownership<'_, H>, registers: [u64; 7]) -> Option<HostReturn> {
    let hw = ownership.hardware();
    let outcome = match one_page(ownership, registers) {
        Some(outcome) => outcome,
        None if names_nothing(registers[0]) => Err(Status::NotSupported),
        None => return None,
    };
    hw.count(Counter::Hypercalls, 1);
    Some(match outcome {
        Ok(()) => HostReturn::success([1, 0, 0]),
        Err(status) => {
            hw.count(Counter::HypercallsRefused, 1);
            HostReturn::refused(status)
        }
    })
}

fn full_call<H: Hardware>(ownership: &Ownership<'_, H>, registers: [u64; 7]) -> HostReturn {
    let hw = ownership.hardware();
    hw.count(Counter::Hypercalls, 1);
    let answer = match HostCall::decode(registers) {
        Ok(call) => dispatch(ownership, call),
        Err(status) => HostReturn::refused(status),
    };
    if answer.status != Status::Success {
        hw.count(Counter::HypercallsRefused, 1);
    }
    answer
}

/// Whether this x0 asks for nothing that there is.
#[inline(always)]
fn names_nothing(function: u64) -> bool {
    CallId::from_register(function).is_none() && function != u64::from(CALL_UID)
}

/// The calls that a host makes most, for one page each, by their short way. `None` is any other call, and one that
/// must go the long way; nothing has changed then.
#[inline(always)]
fn one_page<H: Hardware>(ownership: &Ownership<'_, H>, registers: [u64; 7]) -> Option<Result<(), Status>> {
    const SHARE: u64 = HostCallId::ShareHyp.function_id() as u64;
    const UNSHARE: u64 = HostCallId::UnshareHyp.function_id() as u64;
    let [function, base, frames, ..] = registers;
    if frames != 1 {
        return None;
    }
    let address = PhysAddr::new(base).filter(|address| address.is_aligned(FRAME_SHIFT));
    match function {
        SHARE => ownership.share_one(address?.frame()),
        UNSHARE => ownership.unshare_one(address?.frame()),
        _ => None,
    }
}

fn dispatch<H: Hardware>(ownership: &Ownership<'_, H>, call: HostCall) -> HostReturn {
    match call {
        HostCall::ShareHyp(range) => ranged(range, |span| ownership.share_hyp(span)),
        HostCall::UnshareHyp(range) => ranged(range, |span| ownership.unshare_hyp(span)),
        HostCall::DonateHyp(range) => ranged(range, |span| ownership.donate_hyp(span)),
        HostCall::ReclaimHyp(range) => ranged(range, |span| ownership.reclaim_hyp(span)),
        HostCall::PoolTopUp(range) => ranged(range, |span| ownership.pool_top_up(span)),
        HostCall::PoolDrain { frames } => pool_drain(ownership, frames),
        HostCall::Collapse(range) => ranged(range, |span| ownership.collapse(span)),
        HostCall::Version => version(ownership),
        HostCall::FrameState { frame } => frame_state(ownership, frame),
        HostCall::Statistics { statistic } => statistics(ownership, statistic),
        HostCall::Counter { cpu, counter } => read_counter(ownership, cpu, counter),
        HostCall::Audit(range) => audit(ownership, range),
        HostCall::TraceAttach { cpu, frame } => trace_attach(ownership, cpu, frame),
        HostCall::TraceDetach { cpu } => trace_detach(ownership, cpu),
        HostCall::GuestSupport => guest::support(ownership),
        HostCall::GuestRegister { register, ipa_bits } => guest::register(ownership, register, ipa_bits),
        HostCall::Vm(call) => vm::dispatch(ownership, call),
    }
}

#[inline]
fn ranged(
    range: FrameRange,
    work: impl FnOnce(crate::addr::FrameSpan) -> Result<u64, Refusal>,
) -> HostReturn {
    match checked_span(range) {
        Ok(span) => match work(span) {
            Ok(done) => HostReturn::success([done, 0, 0]),
            Err(refusal) => refused(refusal),
        },
        Err(status) => HostReturn::refused(status),
    }
}

/// A refusal says in its first result how many pages the pool lacks, if that is the reason.
fn refused(refusal: Refusal) -> HostReturn {
    HostReturn {
        status: refusal.status,
        values: [refusal.pages_needed, 0, 0],
    }
}

fn version<H: Hardware>(ownership: &Ownership<'_, H>) -> HostReturn {
    let hw = ownership.hardware();
    HostReturn::success([VERSION.to_register(), hw.features().bits(), hw.cpus() as u64])
}

fn pool_drain<H: Hardware>(ownership: &Ownership<'_, H>, frames: u64) -> HostReturn {
    if frames == 0 {
        return HostReturn::refused(Status::EmptyRange);
    }
    match ownership.pool_drain(frames) {
        Ok(Some((start, frames))) => HostReturn::success([start.value(), frames, 0]),
        Ok(None) => HostReturn::success([0; 3]),
        Err(refusal) => refused(refusal),
    }
}

/// The frame at an address that the host names.
fn checked_frame(address: u64) -> Result<Frame, Status> {
    checked_span(FrameRange::new(address, 1)).map(crate::addr::FrameSpan::start)
}

fn frame_state<H: Hardware>(ownership: &Ownership<'_, H>, address: u64) -> HostReturn {
    match checked_frame(address).and_then(|frame| ownership.frame_info(frame)) {
        Ok(info) => HostReturn::success([info.state.into(), info.count.into(), info.agreeing]),
        Err(status) => HostReturn::refused(status),
    }
}

fn statistics<H: Hardware>(ownership: &Ownership<'_, H>, number: u64) -> HostReturn {
    let Ok(statistic) = Statistic::try_from(number) else {
        return HostReturn::refused(Status::InvalidParameter);
    };
    let hw = ownership.hardware();
    let in_state = |state: State| hw.tallied(state.into());
    let value = match statistic {
        Statistic::Frames => ownership.map().frames(),
        Statistic::FramesHost => ownership.map().frames().wrapping_add(in_state(State::Host)),
        Statistic::FramesSharedHyp => in_state(State::HostSharedHyp),
        Statistic::FramesHyp => in_state(State::Hyp),
        Statistic::FramesOther => State::all()
            .filter(|state| !matches!(state, State::Host | State::HostSharedHyp | State::Hyp))
            .map(in_state)
            .fold(0, u64::wrapping_add),
        Statistic::PoolFree => hw.pool_pages().0,
        Statistic::PoolTotal => hw.pool_pages().1,
        Statistic::ReservedBytes => hw.reserved_bytes(),
    };
    HostReturn::success([value, 0, 0])
}

/// The CPU that the host names.
fn checked_cpu<H: Hardware>(ownership: &Ownership<'_, H>, cpu: u64) -> Result<usize, Status> {
    usize::try_from(cpu)
        .ok()
        .filter(|cpu| *cpu < ownership.hardware().cpus())
        .ok_or(Status::InvalidParameter)
}

fn read_counter<H: Hardware>(ownership: &Ownership<'_, H>, cpu: u64, counter: u64) -> HostReturn {
    let value = checked_cpu(ownership, cpu).and_then(|cpu| {
        let counter = Counter::try_from(counter).map_err(|_| Status::InvalidParameter)?;
        ownership
            .hardware()
            .counter(cpu, counter)
            .ok_or(Status::InvalidParameter)
    });
    match value {
        Ok(value) => HostReturn::success([value, 0, 0]),
        Err(status) => HostReturn::refused(status),
    }
}

fn audit<H: Hardware>(ownership: &Ownership<'_, H>, range: FrameRange) -> HostReturn {
    match checked_span(range).map(|span| ownership.audit(span)) {
        Ok(Ok(report)) => HostReturn::success([report.frames, report.disagreements, 0]),
        Ok(Err(refusal)) => refused(refusal),
        Err(status) => HostReturn::refused(status),
    }
}

fn trace_attach<H: Hardware>(ownership: &Ownership<'_, H>, cpu: u64, address: u64) -> HostReturn {
    let attach = || -> Result<(), Refusal> {
        let cpu = checked_cpu(ownership, cpu)?;
        let frame = checked_frame(address)?;
        // Judged before the frame is: a refusal must not leave behind the pages that a pin takes.
        if ownership.hardware().trace_ring(cpu).is_some() {
            return Err(Status::WrongTraceState.into());
        }
        ownership.pin(frame)?;
        if ownership.hardware().trace_attach(cpu, frame) {
            return Ok(());
        }
        // Another CPU was faster. The region of a pinned frame keeps its node, so no page is needed here.
        ownership.unpin(frame)?;
        Err(Status::WrongTraceState.into())
    };
    attach().map_or_else(refused, |()| HostReturn::success([0; 3]))
}

fn trace_detach<H: Hardware>(ownership: &Ownership<'_, H>, cpu: u64) -> HostReturn {
    let hw = ownership.hardware();
    let detach = || -> Result<(), Refusal> {
        let cpu = checked_cpu(ownership, cpu)?;
        let ring = hw.trace_ring(cpu).ok_or(Status::WrongTraceState)?;
        // Another CPU may have been faster. A frame that is a ring is pinned, so one that has no pin, or is not even
        // shared any more, is none.
        let detached = ownership.unpin_when(ring, || {
            hw.trace_detach(cpu, ring)
                .then_some(())
                .ok_or(Status::WrongTraceState)
        });
        detached.map_err(|refusal| match refusal.status {
            Status::NoMemory => refusal,
            _ => Status::WrongTraceState.into(),
        })
    };
    detach().map_or_else(refused, |()| HostReturn::success([0; 3]))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::addr::FrameSpan;
    use crate::double::system;
    use crate::geometry::Tiny;
    use crate::ownership::Devices;

    #[test]
    fn whoever_asks_learns_who_answers() {
        let ram = FrameSpan::new(Frame::new(0).unwrap(), 16).unwrap();
        let boot = FrameSpan::new(Frame::new(0).unwrap(), 12).unwrap();
        let system = system::<Tiny>(&[ram], boot, Devices::new());
        let ask = |function: u64| {
            let registers = [function, 0, 0, 0, 0, 0, 0];
            answer_shortly(&system, registers).unwrap_or_else(|| answer_in_full(&system, registers))
        };
        assert_eq!(ask(u64::from(CALL_UID)), FREEHOLD_UID.map(u64::from));
        let [status, ..] = ask(u64::from(CALL_UID) | 1 << 32);
        assert_eq!(Status::from_register(status), Some(Status::NotSupported));
    }

    #[test]
    fn whoever_ends_a_trace_that_another_has_ended_is_told_so() {
        let ram = FrameSpan::new(Frame::new(0).unwrap(), 16).unwrap();
        let boot = FrameSpan::new(Frame::new(0).unwrap(), 12).unwrap();
        let system = system::<Tiny>(&[ram], boot, Devices::new());
        let ring = FrameSpan::single(Frame::new(13).unwrap());
        // What a CPU finds that saw the ring just before another one ended the trace and went on with the frame.
        assert!(system.hardware().trace_attach(1, ring.start()));
        let detach = || host_call(&system, HostCall::TraceDetach { cpu: 1 }.encode()).status;
        assert_eq!(detach(), Status::WrongTraceState);
        system.share_hyp(ring).unwrap();
        assert_eq!(detach(), Status::WrongTraceState);
        system.unshare_hyp(ring).unwrap();
        system.donate_hyp(ring).unwrap();
        assert_eq!(detach(), Status::WrongTraceState);
    }
}
