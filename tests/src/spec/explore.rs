//! Breadth first over a tiny machine: every call, in every state that calls can bring it to.
//!
//! States are told apart by all that can make a difference: what each frame is, which regions are split in the map and
//! in the host's table, the trace rings, broken frames, and which frames of the pool are free.

use super::rig::{Rig, Saved};
use super::vm::guest::Instruction;
use super::vm::run::Entry;
use super::{Memory, World};
use hyp_abi::{CallId, FRAME_SIZE, HostCall, Status, VmCall, VmCallId};
use hyp_core::geometry::Tiny;
use std::collections::{BTreeMap, HashSet, VecDeque};
use std::panic::{self, AssertUnwindSafe};
use std::time::{Duration, Instant};

/// Something that is tried in every state.
#[derive(Clone, Debug)]
pub enum Deed {
    /// The host makes a call.
    Call(HostCall, World),
    /// A vCPU is run.
    Run(Run),
    /// A frame breaks.
    Break(u64),
}

/// A run of a vCPU.
#[derive(Clone, Debug)]
pub struct Run {
    /// The slot of its VM.
    pub slot: u8,
    /// Its index.
    pub index: u64,
    /// What the host tells it.
    pub entry: Entry,
    /// What the guest does.
    pub script: Vec<Instruction>,
    /// What happens around it.
    pub world: World,
}

/// How often a call was answered.
#[derive(Clone, Copy, Debug, Default)]
pub struct Tally {
    /// With success.
    pub accepted: u64,
    /// With a refusal.
    pub refused: u64,
}

/// What a search has seen.
#[derive(Clone, Debug, Default)]
pub struct Report {
    /// States.
    pub states: u64,
    /// Deeds done: every deed in every state.
    pub transitions: u64,
    /// The longest of the shortest ways to a state.
    pub depth: usize,
    /// For each call.
    pub calls: BTreeMap<CallId, Tally>,
    /// For each reason to refuse.
    pub statuses: BTreeMap<Status, u64>,
    /// For each reason to exit.
    pub exits: BTreeMap<u64, u64>,
}

/// What tells two states apart.
#[derive(Clone, PartialEq, Eq, Hash)]
struct Key {
    memory: Memory,
    free_frames: Vec<u64>,
}

struct Node {
    saved: Saved<Tiny>,
    path: Vec<usize>,
}

fn key(rig: &Rig<Tiny>) -> Key {
    Key {
        memory: rig.memory().canonical(),
        free_frames: rig.free_frames(),
    }
}

/// Does a deed, and answers what is wrong. A panic is wrong too.
fn attempt(rig: &mut Rig<Tiny>, deed: &Deed, report: &mut Report) -> Result<(), String> {
    let work = AssertUnwindSafe(|| match deed {
        Deed::Break(frame) => {
            rig.break_frame(*frame);
            Ok(())
        }
        Deed::Run(run) => {
            let Run {
                slot,
                index,
                entry,
                script,
                world,
            } = run;
            let answer = rig.run(world, *slot, *index, entry, script, &[])?;
            let tally = report.calls.entry(CallId::Vm(VmCallId::Run)).or_default();
            if answer.status == Status::Success {
                tally.accepted += 1;
                *report.exits.entry(answer.values[0]).or_default() += 1;
                rig.compare_all()?;
            } else {
                tally.refused += 1;
            }
            *report.statuses.entry(answer.status).or_default() += 1;
            Ok(())
        }
        Deed::Call(call, world) => {
            let answer = rig.call(world, call.encode(), &watched(*call))?;
            let tally = report.calls.entry(call.id()).or_default();
            if answer.status == Status::Success {
                tally.accepted += 1;
                rig.compare_all()?;
            } else {
                tally.refused += 1;
            }
            *report.statuses.entry(answer.status).or_default() += 1;
            Ok(())
        }
    });
    panic::catch_unwind(work).unwrap_or_else(|_| Err("it panicked".to_owned()))
}

/// The frames whose translations are held during a call: its first and its last, and one beside them.
fn watched(call: HostCall) -> Vec<u64> {
    let [_, address, frames, ..] = call.encode();
    let (address, frames) = match call {
        HostCall::Vm(VmCall::Donate { range, .. } | VmCall::Share { range, .. }) => {
            (range.base, range.frames)
        }
        HostCall::Vm(VmCall::ForceReclaim { frame }) => (frame, 1),
        HostCall::Vm(VmCall::PinShared(_) | VmCall::UnpinShared(_) | VmCall::TakeBack(_)) => {
            (address, frames)
        }
        HostCall::Vm(_) => (0, 0),
        _ => (address, frames),
    };
    let first = address / FRAME_SIZE;
    match call {
        HostCall::TraceAttach { frame, .. } => vec![frame / FRAME_SIZE],
        _ if frames > 0 && frames < 64 => vec![first, first + frames - 1, first + frames],
        _ => Vec::new(),
    }
}

/// Does every deed in every state that can be reached from the rig's, and judges each.
///
/// # Panics
/// At the first thing that is wrong, with the way to it; or if there are more than `most` states.
pub fn explore(name: &str, rig: &mut Rig<Tiny>, deeds: &[Deed], most: usize) -> Report {
    explore_within(name, rig, deeds, most, |_| true)
}

/// The same, but from states that are not `within` bounds it does not go on: counts that a call raises have no end.
///
/// # Panics
/// As [`explore`].
pub fn explore_within(
    name: &str,
    rig: &mut Rig<Tiny>,
    deeds: &[Deed],
    most: usize,
    within: impl Fn(&Memory) -> bool,
) -> Report {
    let mut report = Report::default();
    let mut seen = HashSet::from([key(rig)]);
    let mut todo = VecDeque::from([Node {
        saved: rig.save(),
        path: Vec::new(),
    }]);
    let mut told = Instant::now();
    while let Some(node) = todo.pop_front() {
        report.states += 1;
        report.depth = report.depth.max(node.path.len());
        rig.restore(&node.saved);
        for (number, deed) in deeds.iter().enumerate() {
            report.transitions += 1;
            if let Err(wrong) = attempt(rig, deed, &mut report) {
                panic!(
                    "{name}: {wrong}\nThe way there:\n{}",
                    way(deeds, &node.path, number)
                );
            }
            if rig.memory() == node.saved.memory()
                && !matches!(deed, Deed::Call(HostCall::PoolDrain { .. }, _))
            {
                // Nothing changed, and that has been compared.
                continue;
            }
            if within(rig.memory()) && seen.insert(key(rig)) {
                assert!(seen.len() <= most, "{name}: more than {most} states");
                let mut path = node.path.clone();
                path.push(number);
                todo.push_back(Node {
                    saved: rig.save(),
                    path,
                });
            }
            rig.restore(&node.saved);
        }
        if told.elapsed() > Duration::from_secs(10) {
            told = Instant::now();
            println!(
                "{name}: {} states done, {} wait, {} transitions",
                report.states,
                todo.len(),
                report.transitions
            );
        }
    }
    println!(
        "{name}: {} states, {} transitions, depth {}",
        report.states, report.transitions, report.depth
    );
    report
}

/// The deeds that lead to a state, and the one that was wrong there.
fn way(deeds: &[Deed], path: &[usize], last: usize) -> String {
    let steps = path.iter().chain([&last]);
    steps.map(|number| format!("  {:x?}\n", deeds[*number])).collect()
}
