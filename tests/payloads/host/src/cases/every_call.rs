//! Every call that names a frame, with a frame in every state: the exact answer, and that a refusal changed nothing.

use super::support::{Seen, ensure_refused, ensure_state, fill_pool, frames};
use crate::frames::Frames;
use crate::hypercall::HYPERVISOR;
use crate::machine::machine;
use crate::registry::{Outcome, TestResult, case, ensure_eq, fail, succeed};
use hyp_abi::{FRAME_SIZE, FrameRange, FrameState, HostCall, Status};

/// The calls that name a frame.
#[derive(Clone, Copy, Debug)]
enum Call {
    Share,
    Unshare,
    Donate,
    Reclaim,
    PoolTopUp,
    Collapse,
    FrameState,
    Audit,
    TraceAttach,
}

/// What a frame can be to the host, as far as the calls bring it there.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum State {
    /// The host's own.
    Host,
    /// Shared with EL2.
    Shared,
    /// Shared with EL2 and pinned: the trace ring of CPU 0.
    Pinned,
    /// Donated.
    Donated,
    /// In EL2's pool.
    Pool,
    /// Part of what Freehold reserved at boot.
    Boot,
    /// A device's registers.
    Device,
    /// An address where the machine has nothing.
    Nothing,
}

/// What the call answers for a frame in that state: `None` for success.
fn refusal(call: Call, state: State) -> Option<Status> {
    if matches!(state, State::Device | State::Nothing) {
        return Some(Status::NotMemory);
    }
    match call {
        // These want a frame that is plainly the host's.
        Call::Share | Call::Donate | Call::PoolTopUp => match state {
            State::Host => None,
            State::Shared | State::Pinned => Some(Status::SharedWithHyp),
            _ => Some(Status::NotOwner),
        },
        Call::Unshare => match state {
            State::Host => Some(Status::NotShared),
            State::Shared => None,
            State::Pinned => Some(Status::Pinned),
            _ => Some(Status::NotOwner),
        },
        Call::TraceAttach => match state {
            State::Host => Some(Status::NotShared),
            State::Shared => None,
            State::Pinned => Some(Status::WrongTraceState),
            _ => Some(Status::NotOwner),
        },
        Call::Reclaim => (state != State::Donated).then_some(Status::NotDonated),
        Call::Collapse | Call::FrameState | Call::Audit => None,
    }
}

/// What the host is told about a frame in that state.
fn shown(state: State) -> (FrameState, u64) {
    match state {
        State::Host => (FrameState::Host, 0),
        State::Shared => (FrameState::HostSharedHyp, 0),
        State::Pinned => (FrameState::HostSharedHyp, 1),
        _ => (FrameState::NotYours, 0),
    }
}

/// The frame in its state, and the frames around it where it has any of the case's own.
struct Subject {
    frame: u64,
    own: Option<Frames>,
}

impl Subject {
    fn new(state: State) -> Result<Self, Outcome> {
        let machine = machine();
        let given = match state {
            State::Boot => match machine.no_map.first() {
                Some(reserved) => Some(reserved.start),
                None => fail!("the device tree shows no reservation of Freehold's"),
            },
            State::Device => Some(machine.uart),
            State::Nothing => machine.memory.iter().map(|range| range.end).max(),
            _ => None,
        };
        if let Some(frame) = given {
            return Ok(Self { frame, own: None });
        }
        fill_pool()?;
        let own = frames(3)?;
        own.fill(0x5151);
        let (frame, one) = (own.frame(1), own.one(1));
        match state {
            State::Shared => succeed!(HYPERVISOR.share(one)),
            State::Pinned => {
                succeed!(HYPERVISOR.share(one));
                succeed!(HYPERVISOR.trace_attach(0, frame));
            }
            State::Donated => succeed!(HYPERVISOR.donate(one)),
            State::Pool => succeed!(HYPERVISOR.pool_top_up(one)),
            _ => {}
        }
        Ok(Self {
            frame,
            own: Some(own),
        })
    }

    /// Brings the frame back to the host, from the state it is in after `call`, and gives it up.
    fn undo(self, state: State, call: Call) -> TestResult {
        let Some(own) = self.own else { return Ok(()) };
        let range = own.one(1);
        let changed = refusal(call, state).is_none();
        let now = match call {
            Call::Share if changed => State::Shared,
            Call::Donate if changed => State::Donated,
            Call::PoolTopUp if changed => State::Pool,
            Call::Unshare | Call::Reclaim if changed => State::Host,
            Call::TraceAttach if changed => State::Pinned,
            _ => state,
        };
        let (state, count) = shown(now);
        ensure_state(self.frame, state, count)?;
        match now {
            State::Shared => succeed!(HYPERVISOR.unshare(range)),
            State::Pinned => {
                succeed!(HYPERVISOR.trace_detach(0));
                succeed!(HYPERVISOR.unshare(range));
            }
            State::Donated => succeed!(HYPERVISOR.reclaim(range)),
            // Which frame the pool would give back is its own affair: this one stays there.
            State::Pool => return Ok(()),
            _ => {}
        }
        ensure_state(self.frame, FrameState::Host, 0)?;
        own.free();
        Ok(())
    }
}

fn check(call: Call, state: State) -> TestResult {
    let subject = Subject::new(state)?;
    let frame = subject.frame;
    let range = FrameRange::new(frame, 1);
    let typed = match call {
        Call::Share => HostCall::ShareHyp(range),
        Call::Unshare => HostCall::UnshareHyp(range),
        Call::Donate => HostCall::DonateHyp(range),
        Call::Reclaim => HostCall::ReclaimHyp(range),
        Call::PoolTopUp => HostCall::PoolTopUp(range),
        Call::Collapse => HostCall::Collapse(range),
        Call::FrameState => HostCall::FrameState { frame },
        Call::Audit => HostCall::Audit(range),
        Call::TraceAttach => HostCall::TraceAttach { cpu: 0, frame },
    };
    let around = [frame - FRAME_SIZE, frame, frame + FRAME_SIZE];
    if let Some(status) = refusal(call, state) {
        ensure_refused(typed, status, &around)?;
        return subject.undo(state, call);
    }
    let changes_nothing = matches!(call, Call::Collapse | Call::FrameState | Call::Audit);
    let before = Seen::look(&around)?;
    let values = succeed!(HYPERVISOR.call(typed));
    match call {
        Call::FrameState => {
            let (state, count) = shown(state);
            ensure_eq!(values[..2], [u64::from(state), count], "state and count");
        }
        Call::Audit => ensure_eq!(values[..2], [1, 0], "frames looked at and in disagreement"),
        Call::TraceAttach => {}
        _ => ensure_eq!(values[0], 1, "frames done"),
    }
    if changes_nothing {
        before.ensure_unchanged(&around)?;
    }
    subject.undo(state, call)
}

/// A case for the call with a frame in each state.
macro_rules! for_every_state {
    ($module:ident, $call:ident) => {
        mod $module {
            use super::{Call, State, case, check};
            case!(of_a_host_frame, { check(Call::$call, State::Host) });
            case!(of_a_shared_frame, { check(Call::$call, State::Shared) });
            case!(of_a_pinned_frame, { check(Call::$call, State::Pinned) });
            case!(of_a_donated_frame, { check(Call::$call, State::Donated) });
            case!(of_a_pool_frame, { check(Call::$call, State::Pool) });
            case!(of_a_frame_of_freehold, { check(Call::$call, State::Boot) });
            case!(of_device_registers, { check(Call::$call, State::Device) });
            case!(of_an_address_with_nothing, {
                check(Call::$call, State::Nothing)
            });
        }
    };
}

for_every_state!(share, Share);
for_every_state!(unshare, Unshare);
for_every_state!(donate, Donate);
for_every_state!(reclaim, Reclaim);
for_every_state!(pool_top_up, PoolTopUp);
for_every_state!(collapse, Collapse);
for_every_state!(frame_state, FrameState);
for_every_state!(audit, Audit);
for_every_state!(trace_attach, TraceAttach);
