//! The story of a protected guest, step by step, for the runner to tell: see [`payload_protocol::story`].
//!
//! Each step judges itself, as strictly as a case does; what it prints is its evidence. The first that goes wrong ends
//! the story, because the ones behind it stand on it.
//!
//! - [`stage`]: who plays, and on which frames.
//! - [`steps`]: what happens.
//! - [`refused`]: accesses that must be refused, with the fault that comes instead.

mod refused;
mod stage;
mod steps;

use crate::button::Button;
use crate::cases::support;
use crate::console::println;
use crate::exit::{Exit, leave};
use crate::hypercall::HYPERVISOR;
use crate::registry::{Failure, Outcome, TestResult, fail, succeed};
use hyp_abi::Counter;
use payload_protocol::story::{LOOK, Step};
use stage::Stage;

/// Plays the story, and ends the payload. With `spoiled` the host forgets something that matters.
pub(crate) fn run(words: &str) -> ! {
    let is_spoiled = match words.trim() {
        "" => false,
        "spoiled" => true,
        _ => {
            println!("payload: `story {words}` makes no sense");
            leave(Exit::UnknownCommand)
        }
    };
    let mut stage = Stage::new(is_spoiled);
    let (mut played, mut is_well) = (0, true);
    for step in Step::all() {
        played += 1;
        is_well = tell(&mut stage, step);
        if !is_well {
            break;
        }
    }
    println!("story total {played}");
    leave(if is_well { Exit::Passed } else { Exit::Failed })
}

/// Plays a step and says what came of it. Answers whether it went well.
fn tell(stage: &mut Stage, step: Step) -> bool {
    let number = u64::from(step);
    println!("story begin {number}");
    let outcome = play(stage, step);
    match &outcome {
        Ok(()) => {}
        Err(Outcome::Skipped(why)) => println!("story out {number} {why}"),
        Err(Outcome::Failed(Failure { file, line, text })) => {
            println!("story out {number} {file}:{line} {text}");
        }
    }
    println!("story end {number} {}", u8::from(outcome.is_err()));
    outcome.is_ok()
}

fn play(stage: &mut Stage, step: Step) -> TestResult {
    let frame = stage.watched(step);
    state(step, "before", frame)?;
    let before = support::counter(Counter::HostAbortsInjected)?;
    stage.play(step)?;
    let counted = support::counter(Counter::HostAbortsInjected)? - before;
    println!("story fact {} counted {counted}", u64::from(step));
    state(step, "after", frame)
}

/// Says what EL2 tells of a frame.
fn state(step: Step, when: &str, frame: Option<u64>) -> TestResult {
    if let Some(frame) = frame {
        let info = succeed!(HYPERVISOR.frame_state(frame));
        println!("story fact {} frame {frame:#x}", u64::from(step));
        println!("story fact {} {when} {:?}", u64::from(step), info.state);
    }
    Ok(())
}

/// Has the machine looked at from outside, and waits until that is done.
fn look() -> TestResult {
    let Some(button) = Button::watch() else {
        fail!("the machine has no power button")
    };
    println!("{LOOK}");
    button.wait();
    Ok(())
}

/// Prints a finding of a step.
macro_rules! say {
    ($step:expr, $($argument:tt)*) => {
        $crate::console::println!("story out {} {}", u64::from($step), format_args!($($argument)*))
    };
}
use say;
