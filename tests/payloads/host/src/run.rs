//! Choosing, running and reporting cases.
//!
//! One line an event: `T case <name>` for a list; `T begin`, `T pass`, `T fail <name> <file>:<line> <text>` and
//! `T skip <name> <why>` for a run; `T end <count>` at the end of both. The exit status says the same once more.

use crate::command_line::Filter;
use crate::console::println;
use crate::exit::{Exit, leave};
use crate::machine::Machine;
use crate::registry::{CASES, Case, Failure, Outcome, TestResult};
use crate::{bench, cases, doors};
use alloc::format;
use alloc::vec::Vec;
use core::fmt::Display;

/// The cases that `filter` chooses, in the order of their names.
fn chosen(filter: Filter<'_>) -> Vec<&'static Case> {
    let mut chosen: Vec<_> = CASES.iter().filter(|case| filter.matches(case.name())).collect();
    chosen.sort_unstable_by_key(|case| case.name());
    chosen
}

/// Prints the names of the cases and ends the payload.
pub(crate) fn list(filter: Filter<'_>) -> ! {
    let cases = chosen(filter);
    for case in &cases {
        println!("T case {}", case.name());
    }
    println!("T end {}", cases.len());
    leave(if cases.is_empty() {
        Exit::NothingToRun
    } else {
        Exit::Passed
    })
}

/// Runs the cases, reports them and ends the payload.
pub(crate) fn run(machine: &Machine, filter: Filter<'_>) -> ! {
    println!(
        "payload: {} CPUs, {} MiB",
        machine.cpus.len(),
        machine.memory_size() >> 20
    );
    play(
        chosen(filter)
            .into_iter()
            .map(|case| (case.name(), move || run_one(case))),
    )
}

/// Runs cases, each by its name, reports them and ends the payload.
fn play(cases: impl Iterator<Item = (impl Display, impl FnOnce() -> TestResult)>) -> ! {
    let (mut count, mut failed) = (0, 0);
    for (name, case) in cases {
        count += 1;
        println!("T begin {name}");
        match case() {
            Ok(()) => println!("T pass {name}"),
            Err(Outcome::Skipped(why)) => println!("T skip {name} {why}"),
            Err(Outcome::Failed(Failure { file, line, text })) => {
                failed += 1;
                println!("T fail {name} {file}:{line} {text}");
            }
        }
    }
    println!("T end {count}");
    leave(match (count, failed) {
        (0, _) => Exit::NothingToRun,
        (_, 0) => Exit::Passed,
        _ => Exit::Failed,
    })
}

/// Kills guests at random, as many as `settings` say after the seed, and ends the payload. So many of them at a time are
/// a case.
pub(crate) fn kill(settings: &str) -> ! {
    const TOGETHER: u64 = 50;
    let mut words = settings.split_ascii_whitespace().map(str::parse::<u64>);
    let (Some(Ok(seed)), Some(Ok(deaths)), None) = (words.next(), words.next(), words.next()) else {
        println!("payload: `kill {settings}` makes no sense");
        leave(Exit::UnknownCommand)
    };
    play((0..deaths.div_ceil(TOGETHER)).map(|case| {
        let first = case * TOGETHER;
        let kill = move || {
            cases::guests::killing::kill(seed, case, TOGETHER.min(deaths - first))?;
            cases::support::audit_everything()
        };
        (format!("kill::{first:04}"), kill)
    }))
}

/// Runs a case, and then looks whether it has left EL2 in order.
fn run_one(case: &Case) -> TestResult {
    (case.run)()?;
    if case.name().starts_with(cases::WITHOUT_FREEHOLD) {
        return Ok(());
    }
    cases::support::audit_everything()
}

/// Runs the benchmarks and ends the payload.
pub(crate) fn bench(filter: Filter<'_>) -> ! {
    let tally = bench::run(filter);
    println!("T end {}", tally.chosen);
    leave(match tally {
        bench::Tally { chosen: 0, .. } => Exit::NothingToRun,
        bench::Tally { failed: 0, .. } => Exit::Passed,
        _ => Exit::Failed,
    })
}

/// Plays the acts of a trace and ends the payload.
pub(crate) fn doors() -> ! {
    let played = doors::play();
    println!("T end {}", played.scenes);
    leave(match played.failed {
        0 => Exit::Passed,
        _ => Exit::Failed,
    })
}
