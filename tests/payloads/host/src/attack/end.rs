//! The end of an attack: everything is taken back, and the books are compared.

use super::attacker::Attacker;
use super::ground::{Ground, Holding, REGION_FRAMES, bring_back};
use super::guests::end::Contents;
use super::random::Random;
use super::{bank, guests, tally};
use crate::console::println;
use crate::cpu;
use crate::hypercall::HYPERVISOR;
use crate::machine::machine;
use host_shim::CallError;
use hyp_abi::host_call::Statistic;
use hyp_abi::{FRAME_SIZE, FrameRange, FrameState, REGION_SIZE, Status};

/// Takes everything back: rings, plots, contested frames, guards, and what EL2's pool can spare. No other CPU runs.
pub(super) fn take_back(ground: &Ground, each: impl Fn(&mut dyn FnMut(&mut Attacker<'static>))) {
    let mut random = Random::new(0, 0);
    bank::open_reserve();
    for cpu in 0..cpu::count() as u64 {
        match HYPERVISOR.trace_detach(cpu) {
            Err(error) if error.status() != Some(Status::WrongTraceState) => {
                tally::fail(format_args!("TraceDetach {cpu} in the end: {error}"));
            }
            _ => {}
        }
    }
    each(&mut |attacker| {
        for plot in &mut attacker.plots {
            take(&mut random, plot.range);
            plot.holding = Holding::Host;
        }
    });
    take(&mut random, ground.contested);
    for &guard in &ground.guards {
        take(&mut random, guard);
    }
    // Tables that fold go back to the pool, and so the pool can spare more.
    for memory in &machine().memory {
        let range = FrameRange::new(memory.start, (memory.end - memory.start) / FRAME_SIZE);
        if let Err(error) = HYPERVISOR.collapse(range) {
            tally::fail(format_args!("Collapse in the end: {error}"));
        }
    }
    while bank::drain(REGION_FRAMES).is_ok_and(|frames| frames > 0) {}
    let (given, returned) = bank::balance();
    println!("A pool {given} {returned}");
}

/// Takes frames back, with pages for EL2 if it needs some.
fn take(random: &mut Random, range: FrameRange) {
    for _ in 0..4 {
        match bring_back(range) {
            Ok(()) => return,
            Err(error) if error.status() == Some(Status::NoMemory) => {
                let _ = bank::give(random, REGION_FRAMES) || bank::give(random, 1);
            }
            Err(error) => return tally::fail(format_args!("{range:x?} does not come back: {error}")),
        }
    }
    tally::fail(format_args!("{range:x?} does not come back for want of pages"));
}

/// Has Freehold compare its map with its tables, and looks itself at the state of every frame.
pub(super) fn audit(ground: &Ground) {
    let (mut frames, mut disagreements) = (0, 0);
    for memory in &machine().memory {
        let range = FrameRange::new(memory.start, (memory.end - memory.start) / FRAME_SIZE);
        match HYPERVISOR.audit(range) {
            Ok(audit) => {
                frames += audit.frames;
                disagreements += audit.disagreements;
            }
            Err(error) => tally::fail(format_args!("the last audit: {error}")),
        }
        if let Err(error) = look(ground, memory.start, memory.end) {
            tally::fail(format_args!("the last look at all frames: {error}"));
        }
    }
    println!("A audit {frames} {disagreements}");
    if disagreements != 0 || frames != machine().memory_size() / FRAME_SIZE {
        tally::fail(format_args!(
            "the audit saw {frames} frames, and {disagreements} disagree"
        ));
    }
    if let Err(error) = totals(ground) {
        tally::fail(format_args!("the last statistics: {error}"));
    }
}

/// Looks at every frame: all are the host's, but EL2's own and what its pool keeps. Prints what
/// the latter are, and what guests keep.
fn look(ground: &Ground, start: u64, end: u64) -> Result<(), CallError> {
    let pool = ground.bank.base..ground.bank.base + ground.bank.frames * FRAME_SIZE;
    let mut runs = Runs::default();
    let mut at = start;
    while at < end {
        let info = HYPERVISOR.frame_state(at)?;
        let size = if at.is_multiple_of(REGION_SIZE) {
            info.extent
        } else {
            FRAME_SIZE
        };
        match info.state {
            FrameState::Host if info.count == 0 => {}
            FrameState::NotYours if ground.hyp.contains(&at) => {}
            FrameState::NotYours if pool.contains(&at) => runs.add(Owner::Hyp, at),
            state => match guests::end::of_a_guest(&ground.places, at, state, info.count) {
                Some(Contents::Private(seed)) => runs.add(Owner::Guest(seed), at),
                Some(Contents::Open) => {}
                None => tally::fail(format_args!(
                    "in the end {at:#x} is {state:?}, count {}",
                    info.count
                )),
            },
        }
        at += size;
    }
    runs.print();
    Ok(())
}

/// Whose frames are that are not the host's.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Owner {
    /// EL2's.
    Hyp,
    /// The guest's whose secret is made from this seed.
    Guest(u64),
}

/// Frames that are not the host's, in ascending order, printed a line for each run of them.
#[derive(Debug, Default)]
struct Runs {
    run: Option<(Owner, FrameRange)>,
}

impl Runs {
    fn add(&mut self, owner: Owner, at: u64) {
        match &mut self.run {
            Some((before, run)) if *before == owner && run.base + run.frames * FRAME_SIZE == at => {
                run.frames += 1;
            }
            _ => {
                self.print();
                self.run = Some((owner, FrameRange::new(at, 1)));
            }
        }
    }

    fn print(&self) {
        match self.run {
            Some((Owner::Hyp, run)) => println!("A hyp {:#x} {}", run.base, run.frames),
            Some((Owner::Guest(seed), run)) => println!("A guest {seed} {:#x} {}", run.base, run.frames),
            None => {}
        }
    }
}

/// The totals must add up, and nothing is shared any more but run pages.
fn totals(ground: &Ground) -> Result<(), CallError> {
    let frames = HYPERVISOR.statistic(Statistic::Frames)?;
    let host = HYPERVISOR.statistic(Statistic::FramesHost)?;
    let shared = HYPERVISOR.statistic(Statistic::FramesSharedHyp)?;
    let hyp = HYPERVISOR.statistic(Statistic::FramesHyp)?;
    let other = HYPERVISOR.statistic(Statistic::FramesOther)?;
    let kept = {
        let (given, returned) = bank::balance();
        given - returned
    };
    let reserved = HYPERVISOR.statistic(Statistic::ReservedBytes)? / FRAME_SIZE;
    let lent = guests::end::still_shared(&ground.places);
    if shared != lent
        || [host, shared, hyp, other].into_iter().fold(0, u64::wrapping_add) != frames
        || hyp != reserved + kept
    {
        tally::fail(format_args!(
            "{frames} frames: {host} host, {shared} shared, {hyp} EL2's ({reserved} reserved, {kept} kept), {other} other"
        ));
    }
    Ok(())
}
