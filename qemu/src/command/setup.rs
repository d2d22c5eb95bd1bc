//! `freehold setup`: everything that the other commands would do first.

use anyhow::Result;
use freehold_runner::{debian::Suite, setup};
use std::process::ExitCode;

/// Runs the command.
pub(crate) fn run() -> Result<ExitCode> {
    setup::ensure_tools()?;
    for suite in [Suite::bookworm(), Suite::bookworm_backports()] {
        let packages = suite.fetch()?;
        println!("Debian {suite}: Linux {}", packages.release);
    }
    Ok(ExitCode::SUCCESS)
}
