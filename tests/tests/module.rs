//! The host's module in Debian's kernels: load and unload, KVM's interface, and refusals. Each is a test.

use anyhow::Result;
use freehold_runner::setup;
use freehold_tests::linux::{matrix, module};
use libtest_mimic::{Arguments, Failed, Trial};
use std::process::ExitCode;
use std::sync::Arc;

/// Each machine keeps a CPU of this one busy, and more of them make each other late.
const MACHINES_AT_ONCE: usize = 2;

fn trials(arguments: &Arguments) -> Result<Vec<Trial>> {
    setup::ensure_tools()?;
    let mut trials = Vec::new();
    for mut session in module::sessions()? {
        session.retain(|name| !arguments.is_filtered_out(&Trial::test(name, || Ok(()))));
        let session = Arc::new(session);
        for (name, case) in session.cases() {
            let session = Arc::clone(&session);
            trials.push(Trial::test(name, move || {
                session.judge(case).map_err(Failed::from)
            }));
        }
    }
    for (kernel, suite) in matrix::kernels() {
        for (machine, virtualization) in [("no-el2", false), ("linux-at-el2", true)] {
            let suite = suite.clone();
            trials.push(Trial::test(
                format!("{kernel}::is_refused_without_freehold::{machine}"),
                move || module::refuses(suite, virtualization).map_err(|error| format!("{error:#}").into()),
            ));
        }
    }
    Ok(trials)
}

fn main() -> ExitCode {
    let mut arguments = Arguments::from_args();
    arguments.test_threads.get_or_insert(MACHINES_AT_ONCE);
    match trials(&arguments) {
        Ok(trials) => libtest_mimic::run(&arguments, trials).exit_code(),
        Err(error) => {
            eprintln!("error: the cases cannot be listed: {error:#}");
            ExitCode::FAILURE
        }
    }
}
