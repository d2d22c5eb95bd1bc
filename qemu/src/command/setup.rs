//! `freehold setup`: everything that the other commands would do first.

use anyhow::Result;
use freehold_runner::{debian::Suite, images, setup};
use std::process::ExitCode;

/// Runs the command.
pub(crate) fn run() -> Result<ExitCode> {
    setup::ensure_tools()?;
    for suite in [Suite::bookworm(), Suite::bookworm_backports()] {
        let packages = suite.fetch()?;
        println!("Debian {suite}: Linux {}", packages.release);
    }
    println!("Guest kernel: {}", images::guest_kernel()?.display());
    Ok(ExitCode::SUCCESS)
}
