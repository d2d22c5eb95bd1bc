//! What several cases about guests need.

use crate::cases::support;
use crate::guest::exit::Exit;
use crate::guest::vcpu::Answer;
use crate::guest::{Plan, Vm, calls};
use crate::hypercall::HYPERVISOR;
use crate::registry::{Outcome, TestResult, ensure_eq, fail, succeed};
use hyp_abi::guest_call::{GuestCallId, INVALID_PARAMETER, NOT_SUPPORTED};
use hyp_abi::vm::VmStatistic;
use hyp_abi::{FRAME_SIZE, FrameState, HostCall, Status, VmCall};
use payload_protocol::layout;

/// The first guest frame number that the payload guest leaves to the cases.
pub(super) const PAGE: u64 = layout::FREE / FRAME_SIZE;

/// The first guest frame number behind the memory that a plan declares.
pub(super) const BEHIND: u64 = layout::MEMORY / FRAME_SIZE + (16 << 20) / FRAME_SIZE;

/// What a guest's call about one page answers if it did it.
pub(super) const ONE_DONE: [u64; 4] = [0, 1, 0, 0];
/// What a guest's call without results answers if it did it.
pub(super) const DONE: [u64; 4] = [0; 4];
/// What a guest's call answers if it is refused.
pub(super) const INVALID: [u64; 4] = [INVALID_PARAMETER.cast_unsigned(), 0, 0, 0];
/// What a guest's call answers if there is none.
pub(super) const UNSUPPORTED: [u64; 4] = [NOT_SUPPORTED.cast_unsigned(), 0, 0, 0];

/// A guest that has come up and waits for its first order.
pub(super) fn running(plan: Plan) -> Result<Vm, Outcome> {
    let vm = Vm::launch(plan)?;
    vm.ready()?;
    Ok(vm)
}

/// A protected guest that has come up, with `pages` pages from [`PAGE`] on.
pub(super) fn running_with(pages: u64) -> Result<Vm, Outcome> {
    let vm = running(Plan::protected())?;
    for gfn in PAGE..PAGE + pages {
        vm.give(gfn)?;
    }
    Ok(vm)
}

/// A call of the guest's about the page at `gfn`.
pub(super) fn about_page(vm: &Vm, call: GuestCallId, gfn: u64) -> Result<[u64; 4], Outcome> {
    vm.hvc(call.into(), [gfn * FRAME_SIZE, 0, 0])
}

/// A call of the guest's must return this.
pub(super) fn ensure_returns(
    vm: &Vm,
    call: GuestCallId,
    arguments: [u64; 3],
    expected: [u64; 4],
) -> TestResult {
    let got = vm.hvc(call.into(), arguments)?;
    ensure_eq!(got, expected, "{call:?} {arguments:x?}");
    Ok(())
}

/// The guest lends the page at `gfn` to the host, or takes it back.
pub(super) fn ensure_done(vm: &Vm, call: GuestCallId, gfn: u64) -> TestResult {
    ensure_returns(vm, call, [gfn * FRAME_SIZE, 0, 0], ONE_DONE)
}

/// A call of the guest's about the page at `gfn` must be refused, and neither the VM nor the frame behind it may change.
pub(super) fn ensure_guest_refused(vm: &Vm, call: GuestCallId, gfn: u64) -> TestResult {
    let frames = match vm.has(gfn) {
        true => alloc::vec![vm.frame(gfn)?],
        false => alloc::vec![],
    };
    let before = (VmSeen::look(vm)?, support::Seen::look(&frames)?);
    ensure_returns(vm, call, [gfn * FRAME_SIZE, 0, 0], INVALID)?;
    before.0.ensure_unchanged(vm)?;
    before.1.ensure_unchanged(&frames)
}

/// The frame behind `gfn` is private to the guest, or lent to the host with `pins`.
pub(super) fn ensure_page_state(vm: &Vm, gfn: u64, lent: Option<u64>) -> TestResult {
    let (state, count) = match lent {
        None => (FrameState::NotYours, 0),
        Some(pins) => (FrameState::GuestSharedHost, pins),
    };
    support::ensure_state(vm.frame(gfn)?, state, count)
}

/// A call about VMs must be refused with this status; nothing that the host can see of EL2 and of the frames `around`
/// may have changed.
pub(super) fn ensure_refused(call: VmCall, status: Status, around: &[u64]) -> TestResult {
    support::ensure_refused(HostCall::Vm(call), status, around)
}

/// The same, and nothing that the host can see of the VM may have changed.
pub(super) fn ensure_refused_of(vm: &Vm, call: VmCall, status: Status, around: &[u64]) -> TestResult {
    let before = VmSeen::look(vm)?;
    ensure_refused(call, status, around)?;
    before.ensure_unchanged(vm)
}

/// What the host can see of a VM.
#[derive(Debug, PartialEq)]
pub(super) struct VmSeen([u64; 8]);

impl VmSeen {
    /// Looks at its figures, and has its table compared with the map.
    pub(super) fn look(vm: &Vm) -> Result<Self, Outcome> {
        let mut figures = [0; 8];
        for (number, figure) in figures.iter_mut().enumerate() {
            let statistic = VmStatistic::try_from(number as u64).expect("there are eight figures");
            *figure = calls::statistic(vm.handle(), statistic)?;
        }
        vm.audit()?;
        Ok(Self(figures))
    }

    /// Looks again and compares.
    pub(super) fn ensure_unchanged(&self, vm: &Vm) -> TestResult {
        ensure_eq!(Self::look(vm)?, *self, "the VM's figures afterwards");
        Ok(())
    }
}

/// How many frames the VM has: private, lent, borrowed.
pub(super) fn frames_of(vm: &Vm) -> Result<[u64; 3], Outcome> {
    Ok([
        calls::statistic(vm.handle(), VmStatistic::FramesPrivate)?,
        calls::statistic(vm.handle(), VmStatistic::FramesShared)?,
        calls::statistic(vm.handle(), VmStatistic::FramesBorrowed)?,
    ])
}

/// The guest's page is taken by force, and the frame is the host's, zeroed.
pub(super) fn force(vm: &Vm, gfn: u64) -> TestResult {
    let frame = vm.frame_view(gfn)?;
    calls::call_supplied(
        vm.handle(),
        VmCall::ForceReclaim {
            frame: frame.frame(0),
        },
    )?;
    support::ensure_state(frame.frame(0), FrameState::Host, 0)?;
    ensure_eq!(frame.find_wrong(|_| 0), None, "contents of a page taken by force");
    vm.forget(gfn)
}

/// Runs vCPU 0 with an answer, which must be refused with this status.
pub(super) fn ensure_run_refused(vm: &Vm, index: u64, status: Status) -> TestResult {
    ensure_refused_of(
        vm,
        VmCall::Run {
            vm: vm.handle(),
            index,
        },
        status,
        &[],
    )
}

/// vCPU 0, which waits with its last report, must still be there: a dead guest proves nothing.
pub(super) fn ensure_alive(vm: &Vm) -> TestResult {
    vm.done(0, payload_protocol::Order::Nothing).map(|_| ())
}

/// The answer to an exit of vCPU 0, and the exit that follows.
pub(super) fn next_exit(vm: &Vm, answer: Answer) -> Result<Exit, Outcome> {
    vm.exit(0, answer)
}

/// Frames of EL2's pool that are free.
pub(super) fn pool_free() -> Result<u64, Outcome> {
    Ok(succeed!(
        HYPERVISOR.statistic(hyp_abi::host_call::Statistic::PoolFree)
    ))
}

/// Fails: what was to be refused went through.
pub(super) fn went_through(what: &str) -> TestResult {
    fail!("{what} went through")
}
