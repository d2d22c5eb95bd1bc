//! Hypercalls: valid ones on plots whose state is known, ones that must be refused, and everything in between.

use super::attacker::Attacker;
use super::call::{self, checked, drive, raw};
use super::ground::{Holding, REGION_FRAMES, boundary, boundary_count, bring_back};
use super::{bank, tally};
use crate::cpu;
use hyp_abi::guest_support::system_register;
use hyp_abi::host_call::{CALL_UID, HOST_CALL_BASE, Statistic};
use hyp_abi::{
    CallId, Counter, FRAME_SIZE, FrameRange, FrameState, GuestSupport, HostCall, HostCallId, REGION_SIZE,
    Status,
};

/// A call that takes a range.
type Ranged = fn(FrameRange) -> HostCall;

/// Frames of a range that an audit or a collapse is asked for at random: more takes long, and no other way.
const LONGEST_LOOK: u64 = 4 * REGION_FRAMES;

impl Attacker<'_> {
    /// One attack by hypercall, or a few that belong together.
    pub(super) fn hypercall(&mut self) {
        match self.random.below(100) {
            0..48 => self.transition(),
            48..60 => self.wrong_transition(),
            60..72 => self.question(),
            72..84 => self.boundary_call(),
            84..91 => self.contest(),
            91..94 => self.pool(),
            94..97 => self.trace(),
            _ => self.no_call(),
        }
    }

    /// Says that a call about a plot answered other than its state demands.
    fn wrong(&self, call: HostCall, holding: Holding, answer: impl core::fmt::Debug) {
        tally::fail(format_args!(
            "CPU {} step {}: {call:x?} of a plot {holding:?} answered {answer:x?}",
            cpu::number(),
            self.step
        ));
    }

    /// A transition that the plot's state allows.
    fn transition(&mut self) {
        let index = self.any_plot();
        let plot = &mut self.plots[index];
        let before = plot.holding;
        let (call, after): (Ranged, _) = match before {
            Holding::Host => {
                plot.pattern = self.random.next();
                plot.frames().fill(plot.pattern);
                if self.random.one_in(2) {
                    (HostCall::ShareHyp, Holding::Shared)
                } else {
                    (HostCall::DonateHyp, Holding::Donated)
                }
            }
            Holding::Shared | Holding::Ring => (HostCall::UnshareHyp, Holding::Host),
            Holding::Donated => (HostCall::ReclaimHyp, Holding::Host),
            Holding::Torn => return self.mend(index),
        };
        let range = plot.range;
        match drive(call, range) {
            Ok(()) => {
                self.plots[index].holding = after;
                self.look(index, before);
            }
            Err((0, Status::NoMemory)) => self.refill(),
            Err((_, Status::NoMemory)) => {
                self.plots[index].holding = Holding::Torn;
                self.refill();
            }
            Err((done, Status::Pinned)) if before == Holding::Ring => {
                if done > 0 {
                    self.plots[index].holding = Holding::Torn;
                }
            }
            Err(error) => {
                self.plots[index].holding = Holding::Torn;
                self.wrong(call(range), before, error);
            }
        }
    }

    /// Looks at what a plot holds that was `before` something else.
    fn look(&self, index: usize, before: Holding) {
        let plot = &self.plots[index];
        let wrong = match (before, plot.holding) {
            (Holding::Donated, Holding::Host) => plot.frames().find_wrong(|_| 0),
            (_, Holding::Shared) | (Holding::Shared, Holding::Host) => {
                plot.frames().find_wrong(|address| plot.word(address))
            }
            _ => None,
        };
        if let Some((address, value)) = wrong {
            tally::fail(format_args!(
                "CPU {} step {}: {before:?} became {:?}, and {address:#x} holds {value:#x}",
                cpu::number(),
                self.step,
                plot.holding
            ));
        }
    }

    /// Brings a plot back that a call left half way.
    fn mend(&mut self, index: usize) {
        match bring_back(self.plots[index].range) {
            Ok(()) => self.plots[index].holding = Holding::Host,
            Err(error) if error.status() == Some(Status::NoMemory) => self.refill(),
            // A part of it is a trace ring still.
            Err(error) if error.status() == Some(Status::Pinned) => {}
            Err(error) => self.wrong(
                HostCall::ReclaimHyp(self.plots[index].range),
                Holding::Torn,
                error,
            ),
        }
    }

    /// EL2 said that it needs pages: let it have some.
    fn refill(&mut self) {
        // A whole region needs no table. If others took all of them, small pieces do, most of the time.
        let _ = bank::give(&mut self.random, REGION_FRAMES) || bank::give(&mut self.random, 1);
    }

    /// A transition that the plot's state forbids, with the one right answer.
    fn wrong_transition(&mut self) {
        let index = self.any_plot();
        let plot = &self.plots[index];
        let holding = plot.holding;
        let first = self.random.below(plot.range.frames);
        let count = 1 + self.random.below(plot.range.frames - first);
        let range = FrameRange::new(plot.range.base + first * FRAME_SIZE, count);
        let transition = self.random.pick(&[
            HostCall::ShareHyp as Ranged,
            HostCall::UnshareHyp,
            HostCall::DonateHyp,
            HostCall::ReclaimHyp,
            HostCall::PoolTopUp,
        ]);
        let call = transition(range);
        let expected = match (holding, call.id()) {
            (Holding::Torn, _) => return,
            (Holding::Host, CallId::Host(HostCallId::UnshareHyp)) => Status::NotShared,
            (Holding::Host, CallId::Host(HostCallId::ReclaimHyp)) => Status::NotDonated,
            (Holding::Shared | Holding::Ring, CallId::Host(HostCallId::ReclaimHyp)) => Status::NotDonated,
            (Holding::Shared | Holding::Ring, CallId::Host(HostCallId::UnshareHyp)) => return,
            (Holding::Shared | Holding::Ring, _) => Status::SharedWithHyp,
            (Holding::Donated, CallId::Host(HostCallId::ReclaimHyp)) => return,
            (Holding::Donated, _) => Status::NotOwner,
            // What is right is for `transition`.
            (Holding::Host, _) => return,
        };
        match checked(call) {
            Err(status) if status == expected => {}
            answer => self.wrong(call, holding, answer),
        }
        self.past_the_end(index);
    }

    /// A call that runs past the end of a plot into a guard: nothing of what lies there may change.
    fn past_the_end(&mut self, index: usize) {
        let plot = &self.plots[index];
        if !plot.guarded || plot.holding != Holding::Host {
            return;
        }
        let more = 1 + boundary_count(&mut self.random) % (1 << 30);
        let Some(frames) = plot.range.frames.checked_add(more) else {
            return;
        };
        let range = FrameRange::new(plot.range.base, frames);
        let (transition, undo): (Ranged, Ranged) = if self.random.one_in(2) {
            (HostCall::ShareHyp, HostCall::UnshareHyp)
        } else {
            (HostCall::DonateHyp, HostCall::ReclaimHyp)
        };
        let end = plot.range.base + plot.range.frames * FRAME_SIZE;
        let Err((done, status)) = drive(transition, range) else {
            tally::fail(format_args!("{:x?} ran past its guard", transition(range)));
            return;
        };
        let possible = match status {
            Status::NotOwner | Status::NoMemory | Status::RangeOverflow => true,
            Status::NotMemory => end == self.ground.end,
            _ => false,
        };
        if !possible || done > self.plots[index].range.frames {
            self.wrong(transition(range), Holding::Host, (done, status));
        }
        if status == Status::NoMemory {
            self.refill();
        }
        if done > 0 && drive(undo, FrameRange::new(range.base, done)).is_err() {
            self.plots[index].holding = Holding::Torn;
        }
    }

    /// A question about a plot, or about nothing in particular.
    fn question(&mut self) {
        let index = self.any_plot();
        let plot = &self.plots[index];
        let (holding, range) = (plot.holding, plot.range);
        let frame = plot.any_frame(&mut self.random);
        match self.random.below(7) {
            0 => {
                let answer = checked(HostCall::FrameState { frame });
                let right = |[state, count, extent]: [u64; 3]| match FrameState::try_from(state) {
                    Ok(FrameState::Host) => holding == Holding::Host && count == 0,
                    Ok(FrameState::HostSharedHyp) => {
                        holding == Holding::Ring || holding == Holding::Shared && count == 0
                    }
                    Ok(FrameState::NotYours) => {
                        holding == Holding::Donated && count == 0 && extent == FRAME_SIZE
                    }
                    _ => false,
                };
                if holding != Holding::Torn && !answer.is_ok_and(right) {
                    self.wrong(HostCall::FrameState { frame }, holding, answer);
                }
            }
            1 => {
                let call = HostCall::Audit(range);
                let answer = checked(call);
                if !answer.is_ok_and(|[_, disagreements, _]| disagreements == 0) {
                    self.wrong(call, holding, answer);
                }
            }
            2 => {
                let region = FrameRange::new(range.base & !(REGION_SIZE - 1), REGION_FRAMES);
                let call = HostCall::Collapse(self.random.pick(&[range, region]));
                let answer = checked(call);
                if answer.is_err() {
                    self.wrong(call, holding, answer);
                }
            }
            3 => {
                let statistic = self.random.below(u64::from(Statistic::ReservedBytes) + 1);
                if checked(HostCall::Statistics { statistic }).is_err() {
                    tally::fail(format_args!("statistic {statistic} was refused"));
                }
            }
            4 => {
                let counter = self.random.below(Counter::COUNT as u64);
                let cpu = self.random.below(cpu::count() as u64);
                if checked(HostCall::Counter { cpu, counter }).is_err() {
                    tally::fail(format_args!("counter {counter} of CPU {cpu} was refused"));
                }
            }
            5 => self.ask_about_guests(),
            _ => {
                if checked(HostCall::Version).is_err() {
                    tally::fail(format_args!("the version was refused"));
                }
            }
        }
    }

    /// What guests can be, and what they see.
    fn ask_about_guests(&mut self) {
        let Ok(support) = checked(HostCall::GuestSupport).map(GuestSupport::from_registers) else {
            return tally::fail(format_args!("what guests can be was refused"));
        };
        let sizes = u64::from(support.min_ipa_bits)..=u64::from(support.max_ipa_bits);
        let call = HostCall::GuestRegister {
            register: system_register(
                3,
                0,
                0,
                1 + self.random.below(7) as u8,
                self.random.below(8) as u8,
            ),
            ipa_bits: sizes.start() + self.random.below(sizes.end() - sizes.start() + 1),
        };
        if checked(call).is_err() {
            tally::fail(format_args!("{call:x?} was refused"));
        }
    }

    /// Any call with arguments from the edges. What it names is never the host's, so no transition may succeed.
    fn boundary_call(&mut self) {
        let base = boundary(self.ground, &mut self.random);
        let frames = boundary_count(&mut self.random);
        let range = FrameRange::new(base, frames);
        let cpu = self.random.pick(&[0, cpu::count() as u64, 1 << 32, u64::MAX]);
        let id = call::any(&mut self.random);
        let call = match id {
            HostCallId::Version => HostCall::Version,
            HostCallId::PoolTopUp => HostCall::PoolTopUp(range),
            HostCallId::PoolDrain => {
                // What it gives is taken care of by the bank.
                let _ = bank::drain(frames);
                return;
            }
            HostCallId::ShareHyp => HostCall::ShareHyp(range),
            HostCallId::UnshareHyp => HostCall::UnshareHyp(range),
            HostCallId::DonateHyp => HostCall::DonateHyp(range),
            HostCallId::ReclaimHyp => HostCall::ReclaimHyp(range),
            HostCallId::Collapse => HostCall::Collapse(shortened(range)),
            HostCallId::FrameState => HostCall::FrameState { frame: base },
            HostCallId::Statistics => HostCall::Statistics { statistic: frames },
            HostCallId::Counter => HostCall::Counter { cpu, counter: frames },
            HostCallId::Audit => HostCall::Audit(shortened(range)),
            HostCallId::TraceAttach => HostCall::TraceAttach { cpu, frame: base },
            HostCallId::TraceDetach => HostCall::TraceDetach { cpu },
            HostCallId::GuestSupport => HostCall::GuestSupport,
            HostCallId::GuestRegister => HostCall::GuestRegister {
                register: base,
                ipa_bits: frames,
            },
        };
        let answer = checked(call);
        let takes = matches!(
            id,
            HostCallId::PoolTopUp
                | HostCallId::ShareHyp
                | HostCallId::UnshareHyp
                | HostCallId::DonateHyp
                | HostCallId::ReclaimHyp
                | HostCallId::TraceAttach
        );
        let disagrees =
            id == HostCallId::Audit && answer.is_ok_and(|[_, disagreements, _]| disagreements != 0);
        if takes && answer.is_ok() || disagrees {
            tally::fail(format_args!("{call:x?} answered {answer:x?}"));
        }
    }

    /// A transition of frames that every CPU wants. Only what no order of events explains is wrong.
    fn contest(&mut self) {
        let contested = self.ground.contested;
        let first = self.random.below(contested.frames);
        let count = 1 + self.random.below(contested.frames - first);
        let range = FrameRange::new(contested.base + first * FRAME_SIZE, count);
        let owned = [Status::SharedWithHyp, Status::NotOwner, Status::SharedWithGuest];
        let (call, possible): (_, &[Status]) = match self.random.below(7) {
            0 => (HostCall::ShareHyp(range), &owned),
            1 => (HostCall::DonateHyp(range), &owned),
            2 => (
                HostCall::UnshareHyp(range),
                &[
                    Status::NotShared,
                    Status::NotOwner,
                    Status::SharedWithGuest,
                    Status::Pinned,
                ],
            ),
            3 | 4 => (HostCall::ReclaimHyp(range), &[Status::NotDonated]),
            5 => (
                HostCall::TraceAttach {
                    cpu: self.random.below(cpu::count() as u64),
                    frame: range.base,
                },
                &[
                    Status::NotShared,
                    Status::NotOwner,
                    Status::SharedWithGuest,
                    Status::WrongTraceState,
                ],
            ),
            _ => (HostCall::FrameState { frame: range.base }, &[]),
        };
        match checked(call) {
            Ok(_) | Err(Status::Busy) => {}
            Err(Status::NoMemory) => self.refill(),
            Err(status) if possible.contains(&status) => {}
            Err(status) => tally::fail(format_args!("{call:x?} of a contested frame answered {status:?}")),
        }
    }

    /// Pages for EL2's pool, and back.
    fn pool(&mut self) {
        match self.random.below(8) {
            0 | 1 => {
                let count = self.random.pick(&[1, 2, 16, 64, REGION_FRAMES]);
                let _ = bank::give(&mut self.random, count);
            }
            // Down to the last page: calls will be refused for want of memory until somebody brings some.
            2 => while bank::drain(u64::MAX).is_ok_and(|frames| frames > 0) {},
            _ => {
                let limit = 1 + self.random.below(32);
                if let Err(status) = bank::drain(limit)
                    && status != Status::NoMemory
                {
                    tally::fail(format_args!("PoolDrain {limit} answered {status:?}"));
                }
            }
        }
    }

    /// Trace rings, on and off, one's own and others'.
    fn trace(&mut self) {
        let cpu = self.random.below(cpu::count() as u64);
        if self.random.one_in(2) {
            let answer = checked(HostCall::TraceDetach { cpu });
            if !matches!(answer, Ok(_) | Err(Status::WrongTraceState)) {
                tally::fail(format_args!("TraceDetach {cpu} answered {answer:?}"));
            }
            return;
        }
        let index = self.any_plot();
        let plot = &mut self.plots[index];
        let (holding, frame) = (plot.holding, plot.any_frame(&mut self.random));
        let call = HostCall::TraceAttach { cpu, frame };
        let answer = checked(call);
        let right = match holding {
            Holding::Shared | Holding::Ring => {
                if answer.is_ok() {
                    plot.holding = Holding::Ring;
                }
                matches!(answer, Ok(_) | Err(Status::WrongTraceState | Status::NoMemory))
            }
            // Whether the CPU has a ring already is not this one's to know, and is judged first.
            Holding::Host => matches!(answer, Err(Status::NotShared | Status::WrongTraceState)),
            Holding::Donated => matches!(answer, Err(Status::NotOwner | Status::WrongTraceState)),
            Holding::Torn => true,
        };
        if !right {
            self.wrong(call, holding, answer);
        }
    }

    /// A function identifier that names no call.
    fn no_call(&mut self) {
        let base = u64::from(HOST_CALL_BASE);
        let function = match self.random.below(6) {
            0 => base - 1 - self.random.below(16),
            1 => base + HostCallId::COUNT as u64 + self.random.below(1 << 10),
            2 => base | 1 << (32 + self.random.below(32)),
            3 => base ^ 1 << self.random.below(32),
            4 => self.random.next(),
            _ => self.random.next() & 0xffff_ffff,
        };
        if call::is_call(function) || function == u64::from(CALL_UID) {
            return;
        }
        let arguments = core::array::from_fn(|number| match number {
            0 => function,
            _ => self.random.next(),
        });
        if raw(arguments) != Err(Status::NotSupported) {
            tally::fail(format_args!("function {function:#x} is a call"));
        }
    }
}

/// A range from the edges that is not looked at for too long.
const fn shortened(range: FrameRange) -> FrameRange {
    let short = range.frames > LONGEST_LOOK && range.frames < 1 << 36;
    FrameRange::new(range.base, if short { LONGEST_LOOK } else { range.frames })
}
