//! The host's module in Debian's kernels: load and unload, KVM's interface, and refusals. Each is a test.

use anyhow::Result;
use freehold_tests::linux::{self, matrix, module};
use freehold_tests::trials::{self, MACHINES_AT_ONCE};
use libtest_mimic::{Arguments, Trial};
use std::process::ExitCode;

fn list(arguments: &Arguments) -> Result<Vec<Trial>> {
    let mut trials = linux::trials(arguments, module::sessions()?);
    for (kernel, suite) in matrix::kernels() {
        let its = suite.clone();
        trials.push(Trial::test(
            format!("{kernel}::no_function_takes_much_of_the_stack"),
            move || module::stack(&its).map_err(|error| format!("{error:#}").into()),
        ));
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
    trials::run(Some(MACHINES_AT_ONCE), list)
}
