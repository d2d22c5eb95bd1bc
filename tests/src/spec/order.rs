//! Calls that were made at once: is there an order in which the specification would have answered the same?

use super::rig::Rig;
use super::{Layout, Memory, World};
use hyp_abi::{FRAME_SIZE, HostCall, HostReturn, Status};
use hyp_core::geometry::Geometry;
use std::collections::HashSet;

/// The calls that one CPU made, in its order, with their answers.
pub type Course = Vec<(HostCall, HostReturn)>;

/// Whether other CPUs may find frames in transit while this call is under way.
const fn is_long(call: HostCall) -> bool {
    matches!(
        call,
        HostCall::ReclaimHyp(_)
            | HostCall::DonateHyp(_)
            | HostCall::PoolTopUp(_)
            | HostCall::PoolDrain { .. }
    )
}

/// What may be true after these courses: the ends of all orders in which the specification answers as the system did.
///
/// A call that was turned away because another CPU was at work on its frames has no place in the order.
#[must_use]
pub fn ends(layout: &Layout, start: &Memory, courses: &[Course]) -> Vec<Memory> {
    let kept: Vec<Course> = courses
        .iter()
        .enumerate()
        .map(|(cpu, course)| {
            let others_long = courses
                .iter()
                .enumerate()
                .any(|(other, course)| other != cpu && course.iter().any(|(call, _)| is_long(*call)));
            let keep = |answer: &HostReturn| !(others_long && answer.status == Status::Busy);
            course
                .iter()
                .copied()
                .filter(|(_, answer)| keep(answer))
                .collect()
        })
        .collect();
    let mut ends = HashSet::new();
    let mut seen = HashSet::new();
    let mut todo = vec![(start.clone(), vec![0_usize; kept.len()])];
    while let Some((memory, at)) = todo.pop() {
        let mut all_done = true;
        for (cpu, course) in kept.iter().enumerate() {
            let Some((call, answer)) = course.get(at[cpu]) else {
                continue;
            };
            all_done = false;
            let mut next = memory.clone();
            if follows(layout, &mut next, *call, answer) {
                let mut position = at.clone();
                position[cpu] += 1;
                if seen.insert((next.clone(), position.clone())) {
                    todo.push((next, position));
                }
            }
        }
        if all_done {
            ends.insert(memory);
        }
    }
    ends.into_iter().collect()
}

/// Whether the specification answers a call like that now.
fn follows(layout: &Layout, memory: &mut Memory, call: HostCall, answer: &HostReturn) -> bool {
    let drained: Vec<u64> = match call {
        HostCall::PoolDrain { .. } if answer.status == Status::Success => {
            let [address, count, _] = answer.values;
            let first = address / FRAME_SIZE;
            (first..first + count).collect()
        }
        _ => Vec::new(),
    };
    if drained
        .iter()
        .any(|frame| memory.holding(layout, *frame) != Some(super::Holding::Pool))
    {
        return false;
    }
    // Which pages are set aside when nothing is drained, only the system knows.
    let free_frames = 0;
    memory
        .call(layout, &World::default(), call, &drained, free_frames)
        .is_ok_and(|expected| expected.admits(answer))
}

impl<G: Geometry> Rig<G> {
    /// Calls were made behind the rig's back, at once: finds an order that explains them, and compares everything with
    /// the end of it.
    ///
    /// # Errors
    /// What is wrong with the machine, if no order leads to it.
    pub fn explain(&mut self, courses: &[Course]) -> Result<(), String> {
        let ends = ends(self.layout(), self.memory(), courses);
        let mut wrong = "no order of the calls gives these answers".to_owned();
        for end in ends {
            self.assume(end);
            match self.compare_all() {
                Ok(()) => return Ok(()),
                Err(other) => wrong = other,
            }
        }
        Err(wrong)
    }
}
