//! A guest's calls, answered at EL2 and by the host; the way in and the way out.

use super::program::Program;
use super::{FRAMES_64M, Guest, address, call_once, reported, sample_calls};
use crate::bench::bracket::{Figure, Mark, NO_MARK, sample};
use crate::bench::calls::{MANY, SOME};
use crate::bench::donation::FEW;
use crate::cases::support::REGION_FRAMES;
use crate::guest::exit::Exit;
use crate::guest::vcpu::Answer;
use crate::hypercall::Hvc;
use crate::registry::{Outcome, TestResult, ensure_eq};
use core::cell::Cell;
use host_shim::Hypercall;
use hyp_abi::guest_call::{GuestCallId, MEMINFO_HAS_RANGE};
use hyp_abi::run_page::WaitKind;
use hyp_abi::{FRAME_SIZE, FrameState};

/// What a guest's call about one page answers if it did it.
const ONE_DONE: [u64; 4] = [0, 1, 0, 0];

/// A guest that makes the calls that it is told to make, with `frames` frames for it.
fn caller(program: Program, mark: Mark, frames: u64) -> Result<Guest, Outcome> {
    let guest = Guest::launch(program, 0, mark, frames)?;
    guest.report(Answer::None)?;
    Ok(guest)
}

/// x0 to x2 of a call about one page of its memory.
fn about(call: GuestCallId, index: u64) -> [u64; 3] {
    [u32::from(call).into(), address(index), 0]
}

fn ensure_one_done(answer: [u64; 4]) -> TestResult {
    ensure_eq!(answer, ONE_DONE, "answer of a guest's call about a page");
    Ok(())
}

/// A call that EL2 answers without looking at anything.
fn answered(mark: Mark, call: GuestCallId, is_right: impl Fn([u64; 4]) -> bool) -> Result<Figure, Outcome> {
    let guest = caller(Program::Call, mark, 1)?;
    let figure = sample_calls(
        &guest,
        MANY,
        || Ok([u32::from(call).into(), 0, 0]),
        |answer| {
            ensure_eq!(is_right(answer), true, "answer {answer:x?}");
            Ok(())
        },
    )?;
    guest.end()?;
    Ok(figure)
}

pub(in crate::bench) fn features(mark: Mark) -> Result<Figure, Outcome> {
    answered(mark, GuestCallId::VendorFeatures, |[features, ..]| {
        features & 1 << 3 != 0 && features >> 32 == 0
    })
}

pub(in crate::bench) fn memory_info(mark: Mark) -> Result<Figure, Outcome> {
    answered(mark, GuestCallId::MemInfo, |answer| {
        answer == [FRAME_SIZE, MEMINFO_HAS_RANGE, 0, 0]
    })
}

/// One page after the other of those that were given one by one.
pub(in crate::bench) fn share_page(mark: Mark) -> Result<Figure, Outcome> {
    let guest = caller(Program::Call, mark, REGION_FRAMES)?;
    guest.give_each(MANY as u64 + 1)?;
    // With the first the tables come that it takes.
    ensure_one_done(call_once(&guest, about(GuestCallId::MemShare, 0))?)?;
    let figure = one_by_one(
        &guest,
        MANY,
        GuestCallId::MemShare,
        FrameState::GuestSharedHost,
        |n| n,
    )?;
    guest.end()?;
    Ok(figure)
}

/// One page after the other of those that were shared so.
pub(in crate::bench) fn unshare_page(mark: Mark) -> Result<Figure, Outcome> {
    let guest = caller(Program::Call, mark, REGION_FRAMES)?;
    guest.give_each(MANY as u64 + 1)?;
    for page in 0..=MANY as u64 {
        ensure_one_done(call_once(&guest, about(GuestCallId::MemShare, page))?)?;
    }
    let figure = one_by_one(&guest, MANY, GuestCallId::MemUnshare, FrameState::NotYours, |n| n)?;
    guest.end()?;
    Ok(figure)
}

/// A page of one 2 MiB block after the other.
pub(in crate::bench) fn share_page_of_block(mark: Mark) -> Result<Figure, Outcome> {
    let guest = with_blocks(mark)?;
    let page = |number| number * REGION_FRAMES + 3;
    let figure = one_by_one(
        &guest,
        SOME,
        GuestCallId::MemShare,
        FrameState::GuestSharedHost,
        page,
    )?;
    guest.end()?;
    Ok(figure)
}

/// The page that is shared of one 2 MiB block after the other.
pub(in crate::bench) fn unshare_page_of_block(mark: Mark) -> Result<Figure, Outcome> {
    let guest = with_blocks(mark)?;
    let page = |number| number * REGION_FRAMES + 3;
    for number in 1..=SOME as u64 {
        ensure_one_done(call_once(&guest, about(GuestCallId::MemShare, page(number)))?)?;
    }
    let figure = one_by_one(&guest, SOME, GuestCallId::MemUnshare, FrameState::NotYours, page)?;
    guest.end()?;
    Ok(figure)
}

/// A guest with a 2 MiB block for each sample, and one more.
fn with_blocks(mark: Mark) -> Result<Guest, Outcome> {
    let frames = (SOME as u64 + 1) * REGION_FRAMES;
    let guest = caller(Program::Call, mark, frames)?;
    guest.give(0, frames)?;
    Ok(guest)
}

/// A call about one page after the other: number `page(n)` of the guest's memory for sample n, counted from 1. `state` is
/// what the host sees of it afterwards.
fn one_by_one(
    guest: &Guest,
    samples: usize,
    call: GuestCallId,
    state: FrameState,
    page: impl Fn(u64) -> u64,
) -> Result<Figure, Outcome> {
    let number = Cell::new(0);
    let next = || {
        number.set(number.get() + 1);
        Ok(about(call, page(number.get())))
    };
    sample_calls(guest, samples, next, |answer| {
        ensure_one_done(answer)?;
        crate::cases::support::ensure_state(guest.memory.frame(page(number.get())), state, 0)
    })
}

pub(in crate::bench) fn share_64m(mark: Mark) -> Result<Figure, Outcome> {
    range_64m(mark, GuestCallId::MemShare, GuestCallId::MemUnshare)
}

pub(in crate::bench) fn unshare_64m(mark: Mark) -> Result<Figure, Outcome> {
    range_64m(mark, GuestCallId::MemUnshare, GuestCallId::MemShare)
}

/// 64 MiB in 2 MiB blocks, by ranged calls.
fn range_64m(mark: Mark, counted: GuestCallId, back: GuestCallId) -> Result<Figure, Outcome> {
    let guest = caller(Program::Range, mark, FRAMES_64M)?;
    guest.give(0, FRAMES_64M)?;
    let whole = |call: GuestCallId| [u32::from(call).into(), address(0), FRAMES_64M];
    let all_done = |[status, left, ..]: [u64; 4]| -> TestResult {
        ensure_eq!(
            [status, left],
            [0; 2],
            "answer of a ranged call, and what it left"
        );
        Ok(())
    };
    if counted == GuestCallId::MemUnshare {
        all_done(call_once(&guest, whole(back))?)?;
    }
    let first = Cell::new(true);
    let before = || {
        if !first.replace(false) {
            all_done(call_once(&guest, whole(back))?)?;
        }
        Ok(whole(counted))
    };
    let figure = sample_calls(&guest, FEW, before, all_done)?;
    guest.end()?;
    Ok(figure)
}

/// A run that the guest ends at once, by waiting.
pub(in crate::bench) fn run_at_once(mark: Mark) -> Result<Figure, Outcome> {
    let guest = Guest::launch(Program::Wait, 0, mark, 1)?;
    let waited = |exit| -> TestResult {
        ensure_eq!(
            exit,
            Exit::Wait(WaitKind::Interrupt),
            "exit of a guest that waits"
        );
        Ok(())
    };
    waited(guest.run(Answer::None)?)?;
    let running = guest.running();
    let prepare = || {
        guest.vm.vcpus[0].enter(Answer::None);
        Ok(())
    };
    let figure = sample(
        MANY,
        mark,
        prepare,
        || Hvc.call(running),
        |answer| waited(guest.ran(answer)?),
    )?;
    guest.end()?;
    Ok(figure)
}

/// From a guest's call to the host, and from the host's answer back.
pub(in crate::bench) fn answered_by_host(mark: Mark) -> Result<Figure, Outcome> {
    let guest = caller(Program::Report, mark, 1)?;
    let figure = sample_runs(&guest, MANY, mark, Answer::Done([1, 2, 3, 4]))?;
    guest.end()?;
    Ok(figure)
}

/// The way in alone: the guest takes the marker off.
pub(in crate::bench) fn entry(mark: Mark) -> Result<Figure, Outcome> {
    let guest = caller(Program::Halves, mark, 1)?;
    let figure = sample_runs(&guest, MANY, mark, Answer::Done([0; 4]))?;
    guest.end()?;
    Ok(figure)
}

/// The way out alone: the guest sets the marker, if the answer says so, and the host takes it off.
pub(in crate::bench) fn exit(mark: Mark) -> Result<Figure, Outcome> {
    let guest = caller(Program::Halves, mark, 1)?;
    let figure = sample_runs(&guest, MANY, NO_MARK, Answer::Done([0; 4]))?;
    sample_runs(&guest, 1, NO_MARK, Answer::Done([1, 0, 0, 0]))?;
    guest.end()?;
    Ok(figure)
}

/// Runs of a guest that reports, each with this answer.
fn sample_runs(guest: &Guest, samples: usize, mark: Mark, answer: Answer) -> Result<Figure, Outcome> {
    let running = guest.running();
    let prepare = || {
        guest.vm.vcpus[0].enter(answer);
        Ok(())
    };
    sample(
        samples,
        mark,
        prepare,
        || Hvc.call(running),
        |answer| reported(guest.ran(answer)?).map(|_| ()),
    )
}
