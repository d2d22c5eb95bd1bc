//! Every call that names a frame, with a frame in every state: the exact answer, and that a refusal changed nothing.
//!
//! The calls about EL2's own frames were tried with all states but a guest's before guests were ([`super::super::every_call`]);
//! they are tried with those here.

use super::frame::{State, Subject};
use super::support::{PAGE, VmSeen, frames_of};
use crate::cases::support::{Seen, ensure_refused, ensure_state};
use crate::guest::run_page::RunPage;
use crate::guest::{Plan, Vm, calls};
use crate::hypercall::HYPERVISOR;
use crate::registry::{TestResult, case, ensure_eq, succeed};
use hyp_abi::vm::Permissions;
use hyp_abi::{FrameRange, FrameState, HostCall, Status, VmCall};

/// The calls that name a frame.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Call {
    ShareHyp,
    UnshareHyp,
    DonateHyp,
    ReclaimHyp,
    PoolTopUp,
    Collapse,
    FrameState,
    Audit,
    TraceAttach,
    DonateGuest,
    ShareGuest,
    ForceReclaim,
    Pin,
    Unpin,
    TakeBack,
    RunPage,
}

/// What the call answers for a frame in that state: `None` for success.
fn refusal(call: Call, state: State) -> Option<Status> {
    if matches!(state, State::Device | State::Nothing) {
        return Some(Status::NotMemory);
    }
    let plainly_hosts = match state {
        State::Host => None,
        State::SharedHyp | State::PinnedHyp => Some(Status::SharedWithHyp),
        State::Borrowed => Some(Status::SharedWithGuest),
        _ => Some(Status::NotOwner),
    };
    match call {
        Call::ShareHyp | Call::DonateHyp | Call::PoolTopUp | Call::DonateGuest => plainly_hosts,
        Call::ShareGuest if state == State::Borrowed => None,
        Call::ShareGuest => plainly_hosts,
        // A frame that EL2 may use: the host shares it.
        Call::UnshareHyp | Call::TraceAttach | Call::RunPage => match (call, state) {
            (_, State::Host) => Some(Status::NotShared),
            (_, State::SharedHyp) => None,
            (Call::UnshareHyp, State::PinnedHyp) => Some(Status::Pinned),
            (Call::TraceAttach, State::PinnedHyp) => Some(Status::WrongTraceState),
            (Call::RunPage, State::PinnedHyp) => None,
            _ => plainly_hosts,
        },
        Call::ReclaimHyp => (state != State::Donated).then_some(Status::NotDonated),
        Call::ForceReclaim => (!matches!(state, State::Private | State::Dying)).then_some(Status::NotOwner),
        Call::Pin => (!matches!(state, State::Lent | State::LentPinned)).then_some(Status::NotShared),
        Call::Unpin => (state != State::LentPinned).then_some(Status::NotPinned),
        Call::TakeBack => (state != State::Relinquished).then_some(Status::NotRelinquished),
        Call::Collapse | Call::FrameState | Call::Audit => None,
    }
}

/// The call with its arguments. `vm` is a VM of the kind that the call is for, which has nothing to do with the frame.
fn typed(call: Call, frame: u64, vm: &Vm) -> HostCall {
    let range = FrameRange::new(frame, 1);
    let vm = vm.handle();
    HostCall::Vm(match call {
        Call::ShareHyp => return HostCall::ShareHyp(range),
        Call::UnshareHyp => return HostCall::UnshareHyp(range),
        Call::DonateHyp => return HostCall::DonateHyp(range),
        Call::ReclaimHyp => return HostCall::ReclaimHyp(range),
        Call::PoolTopUp => return HostCall::PoolTopUp(range),
        Call::Collapse => return HostCall::Collapse(range),
        Call::FrameState => return HostCall::FrameState { frame },
        Call::Audit => return HostCall::Audit(range),
        Call::TraceAttach => return HostCall::TraceAttach { cpu: 0, frame },
        Call::DonateGuest => VmCall::Donate { vm, range, gfn: PAGE },
        Call::ShareGuest => VmCall::Share {
            vm,
            range,
            gfn: PAGE,
            permissions: Permissions::all().bits(),
        },
        Call::ForceReclaim => VmCall::ForceReclaim { frame },
        Call::Pin => VmCall::PinShared(range),
        Call::Unpin => VmCall::UnpinShared(range),
        Call::TakeBack => VmCall::TakeBack(range),
        Call::RunPage => VmCall::CreateVcpu {
            vm,
            index: 0,
            run_page: frame,
        },
    })
}

/// The call is refused, or does what it is for and is undone.
fn check(call: Call, state: State) -> TestResult {
    let subject = Subject::new(state)?;
    let plan = match call {
        Call::ShareGuest => Plan::open(),
        _ => Plan::protected(),
    };
    // Few frames: the cases are many.
    let caller = Vm::create(Plan { backing: 1, ..plan })?;
    let request = typed(call, subject.frame, &caller);
    match refusal(call, state) {
        Some(status) => {
            let seen = VmSeen::look(&caller)?;
            let owner = subject.vm.as_ref().map(VmSeen::look).transpose()?;
            ensure_refused(request, status, &subject.around())?;
            seen.ensure_unchanged(&caller)?;
            if let (Some(owner), Some(vm)) = (owner, &subject.vm) {
                owner.ensure_unchanged(vm)?;
            }
        }
        None => {
            let before = Seen::look(&subject.around())?;
            let values = succeed!(HYPERVISOR.call(request));
            match call {
                Call::FrameState => {
                    let (state, count) = subject.shown();
                    ensure_eq!(values[..2], [u64::from(state), count], "state and count");
                }
                Call::Audit => ensure_eq!(values[..2], [1, 0], "frames looked at and in disagreement"),
                Call::RunPage | Call::ForceReclaim => {}
                _ => ensure_eq!(values[0], 1, "frames done"),
            }
            if matches!(call, Call::FrameState | Call::Audit | Call::Collapse) {
                before.ensure_unchanged(&subject.around())?;
            }
            return undo(call, subject, caller);
        }
    }
    subject.undo()?;
    caller.end()
}

/// Takes back what a call that succeeded did, after a look at it.
fn undo(call: Call, subject: Subject, caller: Vm) -> TestResult {
    let (frame, range) = (subject.frame, FrameRange::new(subject.frame, 1));
    let (shown, count) = subject.shown();
    match call {
        Call::DonateGuest => {
            ensure_state(frame, FrameState::NotYours, 0)?;
            ensure_eq!(frames_of(&caller)?, [1, 0, 0], "frames of the VM");
            ensure_eq!(caller.kill()?, 1, "frames left");
            calls::reclaim(caller.handle(), Vm::page(PAGE))?;
        }
        Call::ShareGuest => {
            ensure_state(frame, FrameState::HostSharedGuest, count + 1)?;
            ensure_eq!(frames_of(&caller)?, [0, 0, 1], "frames of the VM");
            calls::unshare(caller.handle(), Vm::page(PAGE))?;
        }
        Call::RunPage => {
            ensure_state(frame, FrameState::HostSharedHyp, count + 1)?;
            caller.end()?;
            return subject.undo();
        }
        Call::Pin => {
            ensure_state(frame, FrameState::GuestSharedHost, count + 1)?;
            calls::unpin(range)?;
        }
        Call::Unpin => {
            ensure_state(frame, FrameState::GuestSharedHost, count - 1)?;
            calls::pin(range)?;
        }
        Call::TakeBack => {
            ensure_state(frame, FrameState::Host, 0)?;
            if let Some(vm) = &subject.vm {
                vm.forget(PAGE)?;
            }
            return end_changed(subject, caller);
        }
        Call::ForceReclaim => {
            ensure_state(frame, FrameState::Host, 0)?;
            if let Some(vm) = &subject.vm {
                vm.forget(PAGE)?;
            }
            return end_changed(subject, caller);
        }
        Call::ShareHyp => succeed!(HYPERVISOR.unshare(range)),
        Call::UnshareHyp => succeed!(HYPERVISOR.share(range)),
        Call::DonateHyp => succeed!(HYPERVISOR.reclaim(range)),
        Call::ReclaimHyp => succeed!(HYPERVISOR.donate(range)),
        Call::TraceAttach => succeed!(HYPERVISOR.trace_detach(0)),
        Call::PoolTopUp => {
            caller.end()?;
            return ensure_state(frame, FrameState::NotYours, 0);
        }
        Call::Collapse | Call::FrameState | Call::Audit => {}
    }
    if !matches!(call, Call::DonateGuest) {
        ensure_state(frame, shown, count)?;
    }
    caller.end()?;
    subject.undo()
}

/// Ends both, where the frame has gone back to the host.
fn end_changed(subject: Subject, caller: Vm) -> TestResult {
    caller.end()?;
    match subject.vm {
        Some(vm) if subject.state == State::Dying => {
            ensure_eq!(vm.kill()?, 0, "frames left");
            vm.bury()
        }
        Some(vm) => vm.end(),
        None => Ok(()),
    }
}

/// A case for the call with a frame in each of these states.
macro_rules! for_states {
    ($module:ident, $call:ident, $($case:ident: $state:ident),* $(,)?) => {
        mod $module {
            use super::{Call, State, case, check};
            $(case!($case, { check(Call::$call, State::$state) });)*
        }
    };
}

/// The states that a frame has with guests.
macro_rules! for_guest_states {
    ($module:ident, $call:ident) => {
        for_states!($module, $call,
            of_a_borrowed_frame: Borrowed,
            of_a_private_frame: Private,
            of_a_lent_frame: Lent,
            of_a_lent_and_pinned_frame: LentPinned,
            of_a_relinquished_frame: Relinquished,
            of_a_frame_of_a_dying_guest: Dying,
        );
    };
}

/// All states.
macro_rules! for_every_state {
    ($module:ident, $call:ident) => {
        for_states!($module, $call,
            of_a_host_frame: Host,
            of_a_frame_shared_with_el2: SharedHyp,
            of_a_frame_pinned_by_el2: PinnedHyp,
            of_a_donated_frame: Donated,
            of_a_pool_frame: Pool,
            of_a_frame_of_freehold: Boot,
            of_device_registers: Device,
            of_an_address_with_nothing: Nothing,
            of_a_borrowed_frame: Borrowed,
            of_a_private_frame: Private,
            of_a_lent_frame: Lent,
            of_a_lent_and_pinned_frame: LentPinned,
            of_a_relinquished_frame: Relinquished,
            of_a_frame_of_a_dying_guest: Dying,
        );
    };
}

for_guest_states!(share_hyp, ShareHyp);
for_guest_states!(unshare_hyp, UnshareHyp);
for_guest_states!(donate_hyp, DonateHyp);
for_guest_states!(reclaim_hyp, ReclaimHyp);
for_guest_states!(pool_top_up, PoolTopUp);
for_guest_states!(collapse, Collapse);
for_guest_states!(frame_state, FrameState);
for_guest_states!(audit, Audit);
for_guest_states!(trace_attach, TraceAttach);
for_every_state!(donate_to_a_guest, DonateGuest);
for_every_state!(share_with_a_guest, ShareGuest);
for_every_state!(force_reclaim, ForceReclaim);
for_every_state!(pin_shared, Pin);
for_every_state!(unpin_shared, Unpin);
for_every_state!(take_back, TakeBack);
for_every_state!(run_page, RunPage);

case!(a_run_page_is_pinned_as_often_as_vcpus_use_it, {
    let mut vm = Vm::create(Plan {
        vcpus: 3,
        ..Plan::protected()
    })?;
    vm.add_vcpu()?;
    let page: &RunPage = &vm.vcpus[0].page;
    let (frame, range) = (page.address(), page.range());
    for index in [1, 2] {
        calls::call_supplied(
            vm.handle(),
            VmCall::CreateVcpu {
                vm: vm.handle(),
                index,
                run_page: frame,
            },
        )?;
        ensure_state(frame, FrameState::HostSharedHyp, index + 1)?;
    }
    ensure_refused(HostCall::UnshareHyp(range), Status::Pinned, &[])?;
    vm.end()
});
