//! The payload host's cases, each a test, on one machine of every CPU model.

use anyhow::Result;
use freehold_runner::machine::{Memory, layout};
use freehold_tests::on_machine::{Below, Configuration, Group, cases};
use freehold_tests::trials;
use libtest_mimic::{Arguments, Failed, Trial};
use std::process::ExitCode;
use std::sync::Arc;

/// Up to so many chosen cases are named to the payload; for more it is quicker to run everything.
const FEW: usize = 6;

/// An address that no loader would choose: the payload runs wherever it is put.
const ELSEWHERE: u64 = layout::RAM + 0x0a60_0000;

/// The machines: every CPU model once, sizes and CPU counts spread over them.
fn configurations() -> Vec<Configuration> {
    let with = |cpu, smp, memory, nodes| Configuration {
        cpu,
        smp,
        memory,
        nodes,
        below: Below::Freehold,
    };
    let bare = |cpu, smp, memory, below| Configuration {
        cpu,
        smp,
        memory,
        nodes: 0,
        below,
    };
    vec![
        bare("cortex-a72", 4, Memory::mib(512), Below::Nothing),
        bare("max", 2, Memory::mib(512), Below::NothingAt(ELSEWHERE)),
        with("cortex-a53", 1, Memory::mib(256), 0),
        with("cortex-a72", 4, Memory::gib(4), 0),
        with("cortex-a76", 8, Memory::gib(2), 2),
        with("neoverse-n1", 2, Memory::mib(512), 0),
        with("max", 4, Memory::gib(8), 0),
    ]
}

/// Whether a case runs on the machine: without Freehold only those of the payload itself do.
fn belongs(configuration: &Configuration, case: &str) -> bool {
    configuration.below == Below::Freehold || case.starts_with("framework::")
}

fn list(arguments: &Arguments) -> Result<Vec<Trial>> {
    let cases = cases()?;
    let mut trials = Vec::new();
    let mut groups = Vec::new();
    for configuration in configurations() {
        let prefix = configuration.name();
        let own: Vec<_> = cases
            .iter()
            .filter(|case| belongs(&configuration, case))
            .collect();
        let chosen: Vec<_> = own
            .iter()
            .filter(|case| !arguments.is_filtered_out(&Trial::test(format!("{prefix}::{case}"), || Ok(()))))
            .collect();
        let filter = match chosen.len() {
            1..=FEW => chosen
                .iter()
                .map(|case| format!("={case}"))
                .collect::<Vec<_>>()
                .join(" "),
            _ if configuration.below == Below::Freehold => String::new(),
            _ => "framework::".to_owned(),
        };
        let group = Arc::new(Group::new(configuration.clone(), filter));
        for case in own {
            let (group, case) = (Arc::clone(&group), case.clone());
            let name = format!("{prefix}::{case}");
            trials.push(Trial::ignorable_test(name, move || group.judge(&case)));
        }
        if configuration.below == Below::Freehold {
            groups.push(group);
        }
    }
    trials.push(Trial::test("every_case_is_judged_on_some_machine", move || {
        let skipped: Vec<_> = cases
            .iter()
            .filter(|case| !groups.iter().any(|group| group.has_judged(case)))
            .map(String::as_str)
            .collect();
        match skipped.is_empty() {
            true => Ok(()),
            false => Err(Failed::from(format!(
                "skipped or lost everywhere: {}",
                skipped.join(", ")
            ))),
        }
    }));
    Ok(trials)
}

fn main() -> ExitCode {
    trials::run(None, list)
}
