//! `freehold mutate`: errors put into the core one at a time, and a table of the tests that caught them.

use anyhow::Result;
use clap::Args;
use freehold_runner::mutate;
use std::process::ExitCode;

/// Arguments of `freehold mutate`.
#[derive(Args, Debug)]
pub(crate) struct Arguments {
    /// Only the mutations whose names contain this
    #[arg(value_name = "FILTER")]
    filter: Option<String>,
    /// Try every layer of tests on every mutation, not only the one that must catch it
    #[arg(long)]
    every_layer: bool,
    /// Only name the mutations
    #[arg(long)]
    list: bool,
}

/// Runs the command.
pub(crate) fn run(arguments: &Arguments) -> Result<ExitCode> {
    if arguments.list {
        for mutation in mutate::list::all() {
            anstream::println!("{:<48} {}", mutation.name, mutation.like.unwrap_or_default());
        }
        return Ok(ExitCode::SUCCESS);
    }
    let report = mutate::run(mutate::Wanted {
        filter: arguments.filter.as_deref(),
        every_layer: arguments.every_layer,
    })?;
    anstream::print!("{}", report.table());
    Ok(if report.passed() {
        ExitCode::SUCCESS
    } else {
        ExitCode::FAILURE
    })
}
