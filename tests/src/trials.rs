//! What the test programs have in common that list their cases themselves.

use anyhow::Result;
use freehold_runner::setup;
use libtest_mimic::{Arguments, Trial};
use std::process::ExitCode;

/// How many machines that boot Linux run at once: each keeps a CPU of this one busy or two, and more of them make each other
/// late.
pub const MACHINES_AT_ONCE: usize = 2;

/// Lists the cases and runs those that the command line chooses: so many at once, or as many as there are CPUs here, if it
/// does not say.
pub fn run(at_once: Option<usize>, list: impl FnOnce(&Arguments) -> Result<Vec<Trial>>) -> ExitCode {
    let mut arguments = Arguments::from_args();
    arguments.test_threads = arguments.test_threads.or(at_once);
    match setup::ensure_tools().and_then(|()| list(&arguments)) {
        Ok(trials) => libtest_mimic::run(&arguments, trials).exit_code(),
        Err(error) => {
            eprintln!("error: the cases cannot be listed: {error:#}");
            ExitCode::FAILURE
        }
    }
}
