//! `freehold` without a subcommand: the story.

use anyhow::Result;
use freehold_runner::{setup, story};
use std::process::ExitCode;

/// Runs the command.
pub(crate) fn run(host: story::Host) -> Result<ExitCode> {
    setup::ensure_tools()?;
    Ok(if story::tell(anstream::stdout(), host)? {
        ExitCode::SUCCESS
    } else {
        ExitCode::FAILURE
    })
}
