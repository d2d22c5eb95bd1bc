//! `freehold soak`: every test in full, and a table of what came of it.

use anyhow::Result;
use clap::Args;
use freehold_runner::{setup, soak};
use std::process::ExitCode;

/// Arguments of `freehold soak`.
#[derive(Args, Debug)]
pub(crate) struct Arguments {
    /// Only the parts whose names contain this
    #[arg(value_name = "PART")]
    filter: Option<String>,
    /// Hypercalls of each attack
    #[arg(long, value_name = "N", default_value_t = 100_000)]
    attack_calls: u64,
    /// Calls of the random test of the specification
    #[arg(long, value_name = "N", default_value_t = 10_000_000)]
    random_calls: u64,
    /// Guests that are killed at random points, on each of the machines
    #[arg(long, value_name = "N", default_value_t = 1_000)]
    deaths: u64,
    /// Linux guests whose monitor is killed at a random moment
    #[arg(long, value_name = "N", default_value_t = 200)]
    kills: u64,
    /// Seconds that Debian works under load, as host and as guest
    #[arg(long, value_name = "SECONDS", default_value_t = 60)]
    load: u64,
}

/// Runs the command.
pub(crate) fn run(arguments: &Arguments) -> Result<ExitCode> {
    setup::ensure_tools()?;
    let effort = soak::Effort {
        attack_calls: arguments.attack_calls,
        random_calls: arguments.random_calls,
        deaths: arguments.deaths,
        kills: arguments.kills,
        load_seconds: arguments.load,
    };
    let parts = soak::parts(&effort)?;
    let wanted = parts.iter().filter(|part| {
        arguments
            .filter
            .as_deref()
            .is_none_or(|filter| part.name.contains(filter))
    });
    let report = soak::run(wanted)?;
    anstream::print!("{}", report.table());
    Ok(if report.passed() {
        ExitCode::SUCCESS
    } else {
        ExitCode::FAILURE
    })
}
