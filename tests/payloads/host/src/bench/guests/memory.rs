//! Frames given to a guest, taken from it, and brought to where it lacks one.
//!
//! What is given to a guest that was launched comes to it zeroed, and what is taken from a dying one comes back zeroed.

use super::program::Program;
use super::{DATA, FRAMES_64M, Guest, address};
use crate::bench::bracket::{Figure, Mark, sample};
use crate::bench::calls::{MANY, SOME, nothing, one_frame_done};
use crate::bench::donation::FEW;
use crate::cases::support::{REGION_FRAMES, ensure_state};
use crate::guest::calls::{donate, reclaim};
use crate::guest::exit::Exit;
use crate::guest::vcpu::Answer;
use crate::hypercall::Hvc;
use crate::registry::{Outcome, TestResult, ensure_eq};
use core::cell::Cell;
use core::hint::black_box;
use host_shim::Hypercall;
use hyp_abi::run_page::AccessFlags;
use hyp_abi::{FrameState, GuestRange, VmCall};

impl Guest {
    /// The registers of a call that gives it frame number `index` of its memory.
    fn giving(&self, index: u64) -> [u64; 7] {
        black_box(VmCall::Donate {
            vm: self.vm.handle(),
            range: self.frames(index, 1),
            gfn: DATA + index,
        })
        .encode()
    }

    /// The registers of a call that takes frame number `index` of its memory back.
    fn taking(&self, index: u64) -> [u64; 7] {
        black_box(VmCall::Reclaim {
            vm: self.vm.handle(),
            range: GuestRange::new(DATA + index, 1),
        })
        .encode()
    }

    /// Frame number `index` of its memory is not the host's, or it is again.
    fn ensure_given(&self, index: u64, given: bool) -> TestResult {
        let state = if given {
            FrameState::NotYours
        } else {
            FrameState::Host
        };
        ensure_state(self.memory.frame(index), state, 0)
    }

    /// Calls about one frame of its memory after the other, from number `first` on. After each, the frame is given, or it
    /// is not.
    fn page_by_page(
        &self,
        mark: Mark,
        first: u64,
        given: bool,
        call: fn(&Self, u64) -> [u64; 7],
    ) -> Result<Figure, Outcome> {
        let next = Counter::from(first);
        let registers = Cell::new([0; 7]);
        let prepare = || {
            registers.set(call(self, next.now()));
            Ok(())
        };
        sample(
            MANY,
            mark,
            prepare,
            || Hvc.call(registers.get()),
            |answer| {
                one_frame_done(answer)?;
                self.ensure_given(next.now(), given)?;
                next.step(1);
                Ok(())
            },
        )
    }
}

/// Numbers that are used one after the other.
struct Counter(Cell<u64>);

impl Counter {
    const fn from(first: u64) -> Self {
        Self(Cell::new(first))
    }

    fn now(&self) -> u64 {
        self.0.get()
    }

    fn step(&self, by: u64) {
        self.0.set(self.now() + by);
    }
}

/// One page after the other, where the tables of the last level are there.
pub(in crate::bench) fn donate_page(mark: Mark) -> Result<Figure, Outcome> {
    let guest = Guest::launch(Program::Wait, 0, mark, REGION_FRAMES)?;
    guest.give(0, 1)?;
    let figure = guest.page_by_page(mark, 1, true, Guest::giving)?;
    guest.end()?;
    Ok(figure)
}

pub(in crate::bench) fn donate_region(mark: Mark) -> Result<Figure, Outcome> {
    donate_pieces(mark, SOME, REGION_FRAMES)
}

pub(in crate::bench) fn donate_64m(mark: Mark) -> Result<Figure, Outcome> {
    donate_pieces(mark, FEW, FRAMES_64M)
}

fn donate_pieces(mark: Mark, samples: usize, frames: u64) -> Result<Figure, Outcome> {
    let guest = Guest::launch(Program::Wait, 0, mark, samples as u64 * frames)?;
    let next = Counter::from(0);
    let give = || {
        let first = next.now();
        donate(guest.vm.handle(), guest.frames(first, frames), DATA + first)
    };
    let figure = sample(samples, mark, nothing, give, |result| {
        result?;
        guest.ensure_given(next.now() + frames - 1, true)?;
        next.step(frames);
        Ok(())
    })?;
    guest.end()?;
    Ok(figure)
}

/// One page after the other.
pub(in crate::bench) fn reclaim_page(mark: Mark) -> Result<Figure, Outcome> {
    let guest = Guest::launch(Program::Wait, 0, mark, REGION_FRAMES)?;
    guest.give_each(MANY as u64 + 1)?;
    guest.kill()?;
    let figure = guest.page_by_page(mark, 0, false, Guest::taking)?;
    guest.bury()?;
    Ok(figure)
}

pub(in crate::bench) fn reclaim_region(mark: Mark) -> Result<Figure, Outcome> {
    reclaim_pieces(mark, SOME, REGION_FRAMES)
}

pub(in crate::bench) fn reclaim_64m(mark: Mark) -> Result<Figure, Outcome> {
    reclaim_pieces(mark, FEW, FRAMES_64M)
}

fn reclaim_pieces(mark: Mark, samples: usize, frames: u64) -> Result<Figure, Outcome> {
    let all = samples as u64 * frames;
    let guest = Guest::launch(Program::Wait, 0, mark, all)?;
    guest.give(0, all)?;
    guest.kill()?;
    let next = Counter::from(0);
    let take = || reclaim(guest.vm.handle(), GuestRange::new(DATA + next.now(), frames));
    let figure = sample(samples, mark, nothing, take, |result| {
        result?;
        guest.ensure_given(next.now() + frames - 1, false)?;
        next.step(frames);
        Ok(())
    })?;
    guest.bury()?;
    Ok(figure)
}

/// All of a fault: the guest's exit for the next page, and for the one before, the host's call and the way back.
pub(in crate::bench) fn fault_in(mark: Mark) -> Result<Figure, Outcome> {
    let guest = Guest::launch(Program::Touch, address(0), mark, REGION_FRAMES)?;
    guest.give(0, 1)?;
    ensure_missing(guest.run(Answer::None)?, 1)?;
    let next = Counter::from(1);
    let registers = Cell::new([0; 7]);
    let running = guest.running();
    let prepare = || {
        registers.set(guest.giving(next.now()));
        guest.vm.vcpus[0].enter(Answer::None);
        Ok(())
    };
    let provide = || (Hvc.call(registers.get()), Hvc.call(running));
    let figure = sample(MANY, mark, prepare, provide, |(given, ran)| {
        one_frame_done(given)?;
        next.step(1);
        ensure_missing(guest.ran(ran)?, next.now())
    })?;
    guest.end()?;
    Ok(figure)
}

/// The guest must have left for want of frame number `index` of its memory.
fn ensure_missing(exit: Exit, index: u64) -> TestResult {
    let expected = Exit::MemoryFault {
        gfn: DATA + index,
        access: AccessFlags::empty(),
    };
    ensure_eq!(exit, expected, "exit of a guest that loads");
    Ok(())
}
