//! Which answers of a ranged call are admitted.
//!
//! A call works from the front, and answers how many frames it finished. How many frames it judges before it commits
//! to them is its own affair, up to a region; so it may be refused for any of the first ones, and may stop before
//! them. It may stop early for an interrupt, and where pages are short. It may never pass a frame that must be refused.

use super::super::World;
use hyp_abi::{HostReturn, Status};

/// More pages than any call takes for the frames of one region: tables of a guest on both sides of a border, a node,
/// a table of the host's.
pub const MOST_PAGES: u64 = 10;

/// What a call had to work with.
#[derive(Clone, Debug)]
pub struct Means {
    /// Pages that the pool gave out at most.
    pub pool: u64,
    /// Pages in the VM's reserve.
    pub reserve: u64,
    /// How many frames one step may judge.
    pub region: u64,
    /// Whether an interrupt may have stopped it.
    pub interrupts: bool,
}

impl Means {
    pub(super) const fn interrupted(world: &World) -> bool {
        world.interrupt_after.is_some()
    }
}

/// Whether pages that a call asks for are pages that it lacks.
///
/// # Errors
/// What is wrong with the number.
pub fn lacking(what: &str, asked: u64, had: u64) -> Result<(), String> {
    if asked == 0 || asked > MOST_PAGES + had.min(MOST_PAGES) || had >= MOST_PAGES {
        return Err(format!("{asked} {what} are asked for, where there are {had}"));
    }
    Ok(())
}

/// How many of `frames` frames an answer says were done. `bad` tells why the frame at an index must be refused; no
/// reason at all means that it is done.
///
/// # Errors
/// Why the answer is none of those admitted.
pub fn done(
    answer: &HostReturn,
    frames: u64,
    means: &Means,
    bad: impl Fn(u64) -> Vec<Status>,
) -> Result<u64, String> {
    let reasons = |from: u64| {
        let window = from..frames.min(from.saturating_add(means.region));
        window.flat_map(&bad).collect::<Vec<Status>>()
    };
    match answer.status {
        Status::Success => {
            let done = answer.values[0];
            let starved = means.pool < MOST_PAGES || means.reserve < MOST_PAGES;
            if done > frames {
                return Err(format!("{done} of {frames} frames are said to be done"));
            }
            // What is far behind the end of the work is not looked at: the frames are judged one by one afterwards.
            if let Some(index) = (0..done.min(4096)).find(|index| !bad(*index).is_empty()) {
                return Err(format!(
                    "frame {index} was passed, which is refused with {:?}",
                    bad(index)
                ));
            }
            if done < frames && reasons(done).is_empty() && !means.interrupts && !starved {
                return Err(format!(
                    "it stopped after {done} of {frames} frames without a reason"
                ));
            }
            if done == 0 && !means.interrupts {
                return Err("it did nothing, and called it success".to_owned());
            }
            Ok(done)
        }
        Status::NoMemory => lacking("pages of the pool", answer.values[0], means.pool).map(|()| 0),
        Status::VmNeedsMemory => lacking("pages of the reserve", answer.values[0], means.reserve).map(|()| 0),
        status if answer.values != [0; 3] => Err(format!("{status:?} has the results {:x?}", answer.values)),
        status => {
            let wanted = reasons(0);
            if wanted.contains(&status) {
                return Ok(0);
            }
            Err(format!(
                "answered {status:?}, should be one of {wanted:?} or success"
            ))
        }
    }
}

/// An answer of a call that is refused for one of these reasons, if there are any.
///
/// # Errors
/// Why the answer is none of those admitted.
pub fn refused(answer: &HostReturn, reasons: &[Status]) -> Result<bool, String> {
    if reasons.is_empty() {
        return Ok(false);
    }
    if reasons.contains(&answer.status) && answer.values == [0; 3] {
        return Ok(true);
    }
    Err(format!("answered {answer:x?}, should be one of {reasons:?}"))
}
