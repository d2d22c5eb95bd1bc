//! Long sequences of calls on the real geometry, drawn from a seed, each call judged.
//!
//! - [`generate`]: what a host might do next, with a liking for borders.
//! - [`run`]: one sequence; when something is wrong, the shortest one that shows it.

mod generate;
mod guests;
mod shrink;

use super::explore::{Run, Tally};
use super::rig::{Rig, span};
use super::{Holding, World};
use generate::Source;
use hyp_abi::{CallId, Counter, FRAME_SIZE, HostCall, Status, VmCall, VmCallId};
use hyp_core::geometry::Arm4K;
use hyp_core::hardware::Hardware;
use hyp_core::map::Entry;
use hyp_core::state::State;
use std::collections::BTreeMap;
use std::panic::{self, AssertUnwindSafe};

/// Calls between two comparisons of the whole machine.
const COMPARE_EVERY: usize = 64;

/// One thing that happens.
#[derive(Clone, Debug)]
pub enum Act {
    /// The host makes a call.
    Call {
        /// x0 to x6.
        registers: [u64; 7],
        /// What happens around it.
        world: World,
    },
    /// A vCPU is run.
    Run(Run),
    /// A frame breaks.
    Break(u64),
}

/// How calls were answered.
#[derive(Clone, Debug, Default)]
pub struct Outcome {
    /// By call; calls that are none of ours under no name.
    pub calls: BTreeMap<Option<CallId>, Tally>,
    /// By status.
    pub statuses: BTreeMap<Status, u64>,
    /// By reason to exit.
    pub exits: BTreeMap<u64, u64>,
}

impl Outcome {
    /// Adds what another run has seen.
    pub fn add(&mut self, other: &Self) {
        for (call, tally) in &other.calls {
            let sum = self.calls.entry(*call).or_default();
            sum.accepted += tally.accepted;
            sum.refused += tally.refused;
        }
        for (status, count) in &other.statuses {
            *self.statuses.entry(*status).or_default() += count;
        }
        for (reason, count) in &other.exits {
            *self.exits.entry(*reason).or_default() += count;
        }
    }
}

/// What was found wrong: after how many acts, and what.
#[derive(Clone, Debug)]
pub struct Failure {
    /// The index of the act that showed it.
    pub at: usize,
    /// What is wrong.
    pub wrong: String,
}

/// The machine of all sequences: two ranges of RAM a GiB apart, a frame of the firmware's and two of a device inside.
#[must_use]
pub fn machine() -> Rig<Arm4K> {
    let low = span(0x4_0000, 4 * 512);
    let high = span(0x8_0000, 4 * 512);
    let mut rig = Rig::with_spare(&[low, high], span(0x4_0000, 512));
    rig.claim(
        span(0x8_0200 + 9, 1),
        Entry::plain(State::Reserved),
        Holding::Reserved,
    );
    rig.claim(
        span(0x4_0600 + 510, 2),
        Entry::plain(State::Device),
        Holding::Device,
    );
    rig
}

/// Does one act and judges it; a panic is wrong too.
fn perform(rig: &mut Rig<Arm4K>, act: &Act, outcome: &mut Outcome) -> Result<(), String> {
    let work = AssertUnwindSafe(|| match act {
        Act::Call { registers, world } => rig.call(world, *registers, &watched(registers)).map(Some),
        Act::Run(run) => rig
            .run(&run.world, run.slot, run.index, &run.entry, &run.script, &[])
            .map(Some),
        Act::Break(frame) => {
            rig.break_frame(*frame);
            Ok(None)
        }
    });
    let answer = panic::catch_unwind(work).unwrap_or_else(|_| Err("it panicked".to_owned()))?;
    let Some(answer) = answer else { return Ok(()) };
    let id = match act {
        Act::Call { registers, .. } => HostCall::decode(*registers).ok().map(HostCall::id),
        _ => Some(CallId::Vm(VmCallId::Run)),
    };
    if id == Some(CallId::Vm(VmCallId::Run)) && answer.status == Status::Success {
        *outcome.exits.entry(answer.values[0]).or_default() += 1;
    }
    let tally = outcome.calls.entry(id).or_default();
    match answer.status {
        Status::Success => tally.accepted += 1,
        _ => tally.refused += 1,
    }
    *outcome.statuses.entry(answer.status).or_default() += 1;
    Ok(())
}

/// The frames whose translations are held during a call: at both ends of its range, inside and outside.
fn watched(registers: &[u64; 7]) -> Vec<u64> {
    let [_, mut address, mut frames, ..] = *registers;
    match HostCall::decode(*registers) {
        Ok(HostCall::Vm(VmCall::Donate { range, .. } | VmCall::Share { range, .. })) => {
            (address, frames) = (range.base, range.frames);
        }
        Ok(HostCall::Vm(VmCall::ForceReclaim { .. })) => frames = 1,
        _ => {}
    }
    let first = address / FRAME_SIZE;
    let end = first.saturating_add(frames.min(1 << 20));
    vec![first.saturating_sub(1), first, end.saturating_sub(1), end]
}

/// Does acts on a new machine.
fn replay(acts: &[Act]) -> Result<Outcome, Failure> {
    let mut rig = machine();
    let mut outcome = Outcome::default();
    for (at, act) in acts.iter().enumerate() {
        step(&mut rig, at, act, &mut outcome).map_err(|wrong| Failure { at, wrong })?;
    }
    finish(&rig, &outcome).map_err(|wrong| Failure {
        at: acts.len(),
        wrong,
    })?;
    Ok(outcome)
}

fn step(rig: &mut Rig<Arm4K>, at: usize, act: &Act, outcome: &mut Outcome) -> Result<(), String> {
    perform(rig, act, outcome)?;
    if at % COMPARE_EVERY == COMPARE_EVERY - 1 {
        rig.compare_all()?;
    }
    Ok(())
}

/// The last look: everything, and the counters of calls.
fn finish(rig: &Rig<Arm4K>, outcome: &Outcome) -> Result<(), String> {
    rig.compare_all()?;
    let refused: u64 = outcome.calls.values().map(|tally| tally.refused).sum::<u64>() + rig.meanwhile();
    let accepted: u64 = outcome.calls.values().map(|tally| tally.accepted).sum();
    let hw = rig.system().hardware();
    let counted = [Counter::Hypercalls, Counter::HypercallsRefused].map(|counter| hw.counter(0, counter));
    if counted != [Some(accepted + refused), Some(refused)] {
        return Err(format!("counted {counted:?} of {accepted} + {refused} calls"));
    }
    Ok(())
}

/// Draws `calls` acts from `seed` and does them: acts of the host alone, or of the host and its guests.
///
/// # Panics
/// If anything is wrong: with the seed, and the shortest sequence of acts found that shows it.
pub fn run(seed: u64, calls: usize, guests: bool) -> Outcome {
    let mut source = Source::new(seed);
    let mut rig = machine();
    let mut outcome = Outcome::default();
    let mut acts = Vec::with_capacity(calls);
    for at in 0..calls {
        let act = if guests {
            source.act_with_guests(&rig)
        } else {
            source.act(&rig)
        };
        acts.push(act.clone());
        if let Err(wrong) = step(&mut rig, at, &act, &mut outcome) {
            shrink::report(seed, &acts, &wrong);
        }
    }
    if let Err(wrong) = finish(&rig, &outcome) {
        shrink::report(seed, &acts, &wrong);
    }
    outcome
}
