//! Linux guests by the virtual machine monitor, each case a test.

use freehold_runner::setup;
use freehold_tests::linux::vmm;
use libtest_mimic::{Arguments, Failed, Trial};
use std::process::ExitCode;
use std::sync::Arc;

/// Each machine keeps two CPUs of this one busy.
const MACHINES_AT_ONCE: usize = 2;

fn trials(arguments: &Arguments) -> anyhow::Result<Vec<Trial>> {
    setup::ensure_tools()?;
    // The first case of each session before the second of any: whoever waits for a boot makes no other.
    let mut in_turn = Vec::new();
    for mut session in vmm::on_kvm()? {
        session.retain(|name| !arguments.is_filtered_out(&Trial::test(name, || Ok(()))));
        let session = Arc::new(session);
        for (turn, (name, case)) in session.cases().enumerate() {
            let session = Arc::clone(&session);
            let trial = Trial::test(name, move || session.judge(case).map_err(Failed::from));
            in_turn.push((turn, trial));
        }
    }
    in_turn.sort_by_key(|(turn, _)| *turn);
    Ok(in_turn.into_iter().map(|(_, trial)| trial).collect())
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
