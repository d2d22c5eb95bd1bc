//! Machines on which Freehold must not run, and says so.

use anyhow::{Result, bail, ensure};
use freehold_runner::images;
use freehold_runner::machine::{Ending, Machine, Run};
use std::time::Duration;

/// A machine that Freehold refuses.
#[derive(Clone, Copy, Debug)]
pub struct Refusal {
    /// What is wrong with it.
    pub name: &'static str,
    /// Whether its CPUs have EL2.
    virtualization: bool,
    /// The version of its interrupt controller.
    gic_version: u32,
    /// Words that the message must have.
    words: &'static [&'static str],
}

/// All of them.
pub const ALL: [Refusal; 2] = [
    Refusal {
        name: "no-el2",
        virtualization: false,
        gic_version: 3,
        words: &["EL1, not EL2", "virtualization=on"],
    },
    Refusal {
        name: "gicv2",
        virtualization: true,
        gic_version: 2,
        words: &["no GICv3", "gic-version=3"],
    },
];

/// The machine ends by itself, well before this.
const LIMIT: Duration = Duration::from_secs(60);

impl Refusal {
    /// Boots the machine and sees it refused.
    ///
    /// # Errors
    /// If it is not refused, not clearly, or the machine does not end by itself.
    pub fn check(&self) -> Result<()> {
        let hypervisor = images::hypervisor()?;
        let mut machine = Machine::new(hypervisor.flat.clone());
        machine.virtualization = self.virtualization;
        machine.gic_version = self.gic_version;
        let run = machine.run(LIMIT, |_| ())?;
        judge(&run, self.words).map_err(|error| error.context(run.report(Some(&hypervisor.elf))))
    }
}

fn judge(run: &Run, words: &[&str]) -> Result<()> {
    let refused: Vec<_> = run
        .console
        .iter()
        .filter_map(|line| line.strip_prefix("freehold: refused: "))
        .collect();
    let [message] = refused.as_slice() else {
        bail!("{} refusals on the console", refused.len());
    };
    for word in words {
        ensure!(message.contains(word), "the message says nothing of `{word}`");
    }
    ensure!(
        run.ending == Ending::Exited(0),
        "the machine was not turned off: {:?}",
        run.ending
    );
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_refusal_is_one_clear_line_of_a_machine_that_ends() {
        let run = |ending, console: &[&str]| Run {
            console: console.iter().map(|&line| line.to_owned()).collect(),
            complaints: String::new(),
            ending,
            elapsed: Duration::ZERO,
            command: String::new(),
        };
        let line = "freehold: refused: entered at EL1, not EL2";
        let words = &["EL1, not EL2"];
        assert!(judge(&run(Ending::Exited(0), &["noise", line]), words).is_ok());
        for bad in [
            run(Ending::TimedOut, &[line]),
            run(Ending::Exited(1), &[line]),
            run(Ending::Exited(0), &[]),
            run(Ending::Exited(0), &[line, line]),
            run(Ending::Exited(0), &["freehold: refused: something"]),
        ] {
            assert!(judge(&bad, words).is_err(), "{bad:?}");
        }
    }
}
