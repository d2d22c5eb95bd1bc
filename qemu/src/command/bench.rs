//! `freehold bench`: what Freehold's operations cost, counted.

use anyhow::Result;
use clap::Args;
use freehold_runner::{bench, setup};
use std::process::ExitCode;

/// Arguments of `freehold bench`.
#[derive(Args, Debug)]
pub(crate) struct Arguments {
    /// Print everything as JSON, with QEMU's command lines
    #[arg(long)]
    json: bool,
}

/// Runs the command.
pub(crate) fn run(arguments: &Arguments) -> Result<ExitCode> {
    setup::ensure_tools()?;
    let report = bench::measure()?;
    if arguments.json {
        println!("{}", serde_json::to_string_pretty(&report)?);
    } else {
        anstream::print!("{}", bench::table::render(&report));
    }
    Ok(if report.failures().is_empty() {
        ExitCode::SUCCESS
    } else {
        ExitCode::FAILURE
    })
}
