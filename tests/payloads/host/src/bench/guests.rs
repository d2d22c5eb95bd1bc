//! What guests cost: their memory, their calls, and the way to them and back.
//!
//! Every guest here is protected, has one vCPU, and runs a [`program`] of its own with its MMU off. A guest counts its
//! own calls, by the same counter, and marks them itself: what brings it there and back is no part of them.
//!
//! - [`memory`]: frames given to a guest, taken from it, and brought to where it lacks one.
//! - [`calls`]: its calls, answered at EL2 and by the host; the way in and the way out.
//! - [`life`]: how a VM begins and ends.

pub(super) mod calls;
pub(super) mod life;
pub(super) mod memory;
mod program;

use super::bracket::{Figure, MOST_SAMPLES, Mark};
use crate::cases::support::{REGION_FRAMES, fill_pool, frames_aligned};
use crate::frames::Frames;
use crate::guest::calls::{call, donate, reclaim};
use crate::guest::exit::Exit;
use crate::guest::vcpu::Answer;
use crate::guest::{Plan, Vm};
use crate::registry::{Outcome, TestResult, ensure_eq, fail, succeed};
use crate::sysreg;
use arrayvec::ArrayVec;
use core::hint::black_box;
use hyp_abi::guest_call::HOST_SERVICE_FIRST;
use hyp_abi::{FRAME_SIZE, FrameRange, REGION_SIZE, Status, VmCall};
use payload_protocol::layout;
use program::Program;

/// Frames of memory that a guest declares: 256 MiB.
const DECLARED: u64 = (256 << 20) / FRAME_SIZE;

/// The guest frame number of its code.
const CODE: u64 = layout::MEMORY / FRAME_SIZE;

/// The guest frame number from which on it is given memory to be counted: at a multiple of a region.
const DATA: u64 = CODE + REGION_FRAMES;

/// Pages in its reserve: enough for every table of its own and of the host's that these benchmarks need.
const RESERVE: u64 = 64;

/// Frames in 64 MiB.
const FRAMES_64M: u64 = (64 << 20) / FRAME_SIZE;

/// A guest, and frames to give to it.
struct Guest {
    vm: Vm,
    memory: Frames,
}

impl Guest {
    /// A guest that has been launched and has not run, and `frames` frames of the host's that begin at a region.
    fn launch(program: Program, argument: u64, mark: Mark, frames: u64) -> Result<Self, Outcome> {
        let plan = Plan {
            memory: DECLARED,
            reserve: RESERVE,
            ..Plan::protected()
        };
        fill_pool()?;
        let mut vm = Vm::create(plan)?;
        vm.add_vcpu()?;
        let code = vm.set_aside(1)?;
        program::write(&Frames::adopt(code), mark);
        donate(vm.handle(), code, CODE)?;
        succeed!(call(VmCall::Launch {
            vm: vm.handle(),
            entry: layout::MEMORY + program.offset(),
            argument,
        }));
        // As many as a launch and what follows may have used.
        fill_pool()?;
        let memory = frames_aligned(frames, REGION_SIZE)?;
        Ok(Self { vm, memory })
    }

    /// Frames of its memory, from number `first` on.
    fn frames(&self, first: u64, count: u64) -> FrameRange {
        FrameRange::new(self.memory.frame(first), count)
    }

    /// Gives it frames of its memory, at the place that has the same number.
    fn give(&self, first: u64, count: u64) -> TestResult {
        donate(self.vm.handle(), self.frames(first, count), DATA + first)
    }

    /// Gives it so many frames, one at a time.
    fn give_each(&self, count: u64) -> TestResult {
        (0..count).try_for_each(|frame| self.give(frame, 1))
    }

    /// Runs it.
    fn run(&self, answer: Answer) -> Result<Exit, Outcome> {
        self.vm.run(0, answer)
    }

    /// The registers of a call that runs it.
    fn running(&self) -> [u64; 7] {
        black_box(VmCall::Run {
            vm: self.vm.handle(),
            index: 0,
        })
        .encode()
    }

    /// What a run that was made by [`Guest::running`] came to.
    fn ran(&self, answer: [u64; 4]) -> Result<Exit, Outcome> {
        let [status, results @ ..] = answer;
        ensure_eq!(status, Status::Success.to_register(), "status of a run");
        self.vm.vcpus[0].leave(results)
    }

    /// Runs it, and it must report. Returns x1 to x6.
    fn report(&self, answer: Answer) -> Result<[u64; 6], Outcome> {
        reported(self.run(answer)?)
    }

    /// Makes the VM a dying one that has frames left.
    fn kill(&self) -> TestResult {
        ensure_eq!(self.vm.kill()? > 0, true, "frames are left");
        Ok(())
    }

    /// Ends it: all of its frames are the host's again, and it is gone.
    fn end(self) -> TestResult {
        if self.vm.kill()? > 0 {
            self.bury()
        } else {
            fail!("the guest's code was gone")
        }
    }

    /// The same, after [`Guest::kill`].
    fn bury(self) -> TestResult {
        reclaim(self.vm.handle(), self.vm.plan.declared())?;
        succeed!(call(VmCall::Destroy { vm: self.vm.handle() }));
        self.forget()
    }

    /// The VM is gone: what it had is the host's to use.
    fn forget(self) -> TestResult {
        let Self { vm, memory } = self;
        vm.bury()?;
        memory.free();
        Ok(())
    }
}

/// The values of a report.
fn reported(exit: Exit) -> Result<[u64; 6], Outcome> {
    match exit {
        Exit::Service { function, arguments } if function == u64::from(HOST_SERVICE_FIRST) => Ok(arguments),
        other => fail!("the guest did not report, but left by {other:x?}"),
    }
}

/// Counts `samples` calls of a guest's, at most [`MOST_SAMPLES`], each between an uncounted `before`, which says the
/// call's x0 to x2, and an uncounted `after`, which judges the report. The guest marks the last one.
fn sample_calls(
    guest: &Guest,
    samples: usize,
    mut before: impl FnMut() -> Result<[u64; 3], Outcome>,
    mut after: impl FnMut([u64; 4]) -> TestResult,
) -> Result<Figure, Outcome> {
    let mut ticks = ArrayVec::<u64, MOST_SAMPLES>::new();
    sysreg::without_irqs(|| -> TestResult {
        for sample in 1..=samples {
            let [x0, x1, x2] = before()?;
            let marked = u64::from(sample == samples);
            let [y0, y1, y2, y3, count, _] = guest.report(Answer::Done([x0, x1, x2, marked]))?;
            ticks.push(count);
            after([y0, y1, y2, y3])?;
        }
        Ok(())
    })?;
    Ok(Figure::of(ticks))
}

/// Makes a call like those that are counted, uncounted.
fn call_once(guest: &Guest, registers: [u64; 3]) -> Result<[u64; 4], Outcome> {
    let [x0, x1, x2] = registers;
    let [y0, y1, y2, y3, ..] = guest.report(Answer::Done([x0, x1, x2, 0]))?;
    Ok([y0, y1, y2, y3])
}

/// The address, to the guest, of frame number `index` of its memory.
const fn address(index: u64) -> u64 {
    (DATA + index) * FRAME_SIZE
}
