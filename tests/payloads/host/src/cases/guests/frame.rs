//! A frame in any state that it can be in to the host, guests included, and what brought it there.

use super::support::{PAGE, ensure_done, running};
use crate::cases::support::{self, ensure_state, fill_pool};
use crate::frames::Frames;
use crate::guest::exit::Exit;
use crate::guest::{Plan, Vm, calls, drive};
use crate::hypercall::HYPERVISOR;
use crate::machine::machine;
use crate::registry::{Outcome, TestResult, ensure_eq, fail, succeed};
use hyp_abi::guest_call::GuestCallId;
use hyp_abi::{FRAME_SIZE, FrameRange, FrameState};

/// What a frame can be.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum State {
    /// The host's own.
    Host,
    /// Shared with EL2.
    SharedHyp,
    /// Shared with EL2 and pinned: the trace ring of CPU 0.
    PinnedHyp,
    /// Donated to EL2.
    Donated,
    /// In EL2's pool.
    Pool,
    /// Part of what Freehold reserved at boot.
    Boot,
    /// A device's registers.
    Device,
    /// An address where the machine has nothing.
    Nothing,
    /// Borrowed by a guest that is not protected.
    Borrowed,
    /// A guest's own.
    Private,
    /// A guest's own, which it lends to the host.
    Lent,
    /// The same, and pinned by the host.
    LentPinned,
    /// Given up by a guest, and not taken back.
    Relinquished,
    /// A guest's own, of one that is dying.
    Dying,
}

/// A frame in its state.
pub(super) struct Subject {
    /// Its address.
    pub(super) frame: u64,
    /// The state.
    pub(super) state: State,
    own: Option<Frames>,
    /// The guest whose it is, or who borrows it.
    pub(super) vm: Option<Vm>,
}

impl Subject {
    /// Brings a frame into a state.
    pub(super) fn new(state: State) -> Result<Self, Outcome> {
        fill_pool()?;
        match state {
            State::Boot | State::Device | State::Nothing => {
                let machine = machine();
                let given = match state {
                    State::Boot => machine.no_map.first().map(|reserved| reserved.start),
                    State::Device => Some(machine.uart),
                    _ => machine.memory.iter().map(|range| range.end).max(),
                };
                let Some(frame) = given else {
                    fail!("the device tree shows no such frame")
                };
                Ok(Self {
                    frame,
                    state,
                    own: None,
                    vm: None,
                })
            }
            State::Host | State::SharedHyp | State::PinnedHyp | State::Donated | State::Pool => {
                let own = support::frames(1)?;
                own.fill(0x5151);
                let frame = own.frame(0);
                match state {
                    State::SharedHyp => succeed!(HYPERVISOR.share(own.range())),
                    State::PinnedHyp => {
                        succeed!(HYPERVISOR.share(own.range()));
                        succeed!(HYPERVISOR.trace_attach(0, frame));
                    }
                    State::Donated => succeed!(HYPERVISOR.donate(own.range())),
                    State::Pool => succeed!(HYPERVISOR.pool_top_up(own.range())),
                    _ => {}
                }
                Ok(Self {
                    frame,
                    state,
                    own: Some(own),
                    vm: None,
                })
            }
            _ => Self::of_a_guest(state),
        }
    }

    fn of_a_guest(state: State) -> Result<Self, Outcome> {
        let vm = match state {
            State::Borrowed => Vm::create(Plan::open())?,
            State::Private | State::Dying => Vm::create(Plan::protected())?,
            _ => running(Plan::protected())?,
        };
        let frame = vm.give_filled(PAGE, 0x5151)?;
        match state {
            State::Lent => ensure_done(&vm, GuestCallId::MemShare, PAGE)?,
            State::LentPinned => {
                ensure_done(&vm, GuestCallId::MemShare, PAGE)?;
                calls::pin(FrameRange::new(frame, 1))?;
            }
            State::Relinquished => {
                let order = drive::hvc(GuestCallId::MemRelinquish.into(), [PAGE * FRAME_SIZE, 0, 0]);
                let exit = vm.begin_order(0, order)?;
                ensure_eq!(exit, Exit::Relinquished { gfn: PAGE, frames: 1 }, "exit");
            }
            State::Dying => {
                vm.kill()?;
            }
            _ => {}
        }
        Ok(Self {
            frame,
            state,
            own: None,
            vm: Some(vm),
        })
    }

    /// What the host is told about it.
    pub(super) fn shown(&self) -> (FrameState, u64) {
        match self.state {
            State::Host => (FrameState::Host, 0),
            State::SharedHyp => (FrameState::HostSharedHyp, 0),
            State::PinnedHyp => (FrameState::HostSharedHyp, 1),
            State::Borrowed => (FrameState::HostSharedGuest, 1),
            State::Lent => (FrameState::GuestSharedHost, 0),
            State::LentPinned => (FrameState::GuestSharedHost, 1),
            State::Relinquished => (FrameState::Relinquished, 0),
            _ => (FrameState::NotYours, 0),
        }
    }

    /// The frame, and those beside it if they are nobody's business but the host's.
    pub(super) fn around(&self) -> [u64; 1] {
        [self.frame]
    }

    /// Brings the frame back to the host, and ends the guest. The frame must be in the state that it was brought to.
    pub(super) fn undo(self) -> TestResult {
        let (shown, count) = self.shown();
        if !matches!(self.state, State::Device | State::Nothing) {
            ensure_state(self.frame, shown, count)?;
        }
        if let Some(own) = self.own {
            match self.state {
                State::SharedHyp => succeed!(HYPERVISOR.unshare(own.range())),
                State::PinnedHyp => {
                    succeed!(HYPERVISOR.trace_detach(0));
                    succeed!(HYPERVISOR.unshare(own.range()));
                }
                State::Donated => succeed!(HYPERVISOR.reclaim(own.range())),
                // Which frame the pool would give back is its own affair: this one stays there.
                State::Pool => return Ok(()),
                _ => {}
            }
            ensure_state(self.frame, FrameState::Host, 0)?;
            own.free();
        }
        let Some(vm) = self.vm else { return Ok(()) };
        match self.state {
            State::LentPinned => {
                calls::unpin(FrameRange::new(self.frame, 1))?;
                vm.end()
            }
            State::Relinquished => {
                vm.take_relinquished(PAGE, 1)?;
                vm.end()
            }
            State::Dying => vm.bury(),
            _ => vm.end(),
        }
    }
}
