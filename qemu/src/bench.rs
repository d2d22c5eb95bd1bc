//! What Freehold's operations cost, counted, beside what Linux's pKVM takes for them.
//!
//! Nothing is timed: on QEMU only counts mean anything, and they repeat exactly. Every machine runs twice, and a
//! difference between the two is an error of its own.
//!
//! - [`payload`]: one run of the payload's benchmarks, with the plugin beside it.
//! - [`operations`]: what each operation costs, seen from EL1 and at EL2, and what scrubbing has of it.
//! - [`boot`]: from reset to the host's first instruction.
//! - [`debian`]: from reset to the first instruction of Debian's init, with and without Freehold.
//! - [`protected`]: what a protected guest sees whose host is Debian.
//! - [`guest_boot`]: how long Debian boots as a guest of Debian, protected against not.
//! - [`memory`]: what EL2 takes.
//! - [`linux`]: the figures of Linux 7.2.
//! - [`table`]: all of it for a reader.

pub mod boot;
pub mod debian;
pub mod guest_boot;
pub mod linux;
pub mod memory;
pub mod operations;
pub mod payload;
pub mod protected;
pub mod table;

pub use debian::{BootRatio, boot_ratio};

use crate::{machine, process, workspace};
use anyhow::Result;
use payload::Images;
use serde::Serialize;
use std::process::Command;

/// The CPU models that are counted on: without and with the newer features.
pub const CPUS: [&str; 2] = ["cortex-a72", "max"];

/// All figures.
#[derive(Clone, Debug, Serialize)]
pub struct Report {
    /// QEMU's version.
    pub qemu: String,
    /// The commit that was measured.
    pub commit: String,
    /// The operations, CPU model by CPU model.
    pub operations: Vec<operations::Operation>,
    /// The boot, on each CPU model.
    pub boots: Vec<boot::Boot>,
    /// EL2's memory, for each size of the machine.
    pub memory: Vec<memory::Memory>,
    /// What a protected guest on Debian sees.
    pub protected: Vec<protected::Seen>,
    /// Debian's boot as a guest of Debian.
    pub guest_boot: guest_boot::GuestBoot,
    /// Debian's boot.
    pub debian: BootRatio,
    /// What differed between two runs of the same machine.
    pub differences: Vec<String>,
    /// QEMU's command lines, one for each machine.
    pub commands: Vec<String>,
}

impl Report {
    /// What speaks against the figures: the names of those that are not below their anchor or their limit, and what
    /// did not repeat.
    #[must_use]
    pub fn failures(&self) -> Vec<String> {
        let mut failures = Vec::new();
        for operation in &self.operations {
            if operation
                .anchor
                .as_ref()
                .is_some_and(|anchor| !anchor.is_above(operation.anchored()))
            {
                failures.push(format!("{} on {}", operation.title, operation.cpu));
            }
        }
        for boot in self.boots.iter().filter(|boot| !boot.anchor.is_above(boot.el2)) {
            failures.push(format!("boot to host entry on {}", boot.cpu));
        }
        for memory in self.memory.iter().filter(|memory| !memory.is_good()) {
            failures.push(format!("EL2's memory at {}", memory.machine));
        }
        for seen in self.protected.iter().filter(|seen| !seen.is_good()) {
            failures.push(format!("{}, seen by a protected guest", seen.title));
        }
        if !self.debian.is_good() {
            failures.push("Debian's boot".to_owned());
        }
        failures.extend(self.differences.iter().cloned());
        failures
    }
}

/// Measures everything.
///
/// # Errors
/// If an image cannot be built or fetched, or a run proves nothing.
pub fn measure() -> Result<Report> {
    let images = Images::build()?;
    let mut twice = Twice::default();
    let mut operations = Vec::new();
    let mut boots = Vec::new();
    for cpu in CPUS {
        operations.extend(operations::measure(&images, cpu, &mut twice)?);
        boots.push(boot::measure(&images, cpu, &mut twice)?);
    }
    let memory = memory::measure(&images, &mut twice)?;
    let protected = protected::measure(&mut twice)?;
    let guest_boot = guest_boot::measure(&mut twice)?;
    let debian = debian::measure(&mut twice)?;
    Ok(Report {
        qemu: machine::version(),
        commit: commit(),
        operations,
        boots,
        memory,
        protected,
        guest_boot,
        debian,
        differences: twice.differences,
        commands: twice.commands,
    })
}

/// Runs every machine twice and keeps what differed.
#[derive(Debug, Default)]
pub struct Twice {
    differences: Vec<String>,
    commands: Vec<String>,
}

impl Twice {
    /// What `run` gives, which also tells QEMU's command line. `what` names it.
    ///
    /// # Errors
    /// The first error of `run`.
    pub fn run<T: PartialEq>(&mut self, what: &str, run: impl Fn() -> Result<(T, String)>) -> Result<T> {
        let step = crate::progress::Step::announced(format!("Counting {what}"));
        let (first, command) = run()?;
        let (second, _) = run()?;
        step.done();
        if first != second {
            self.differences.push(format!("two runs of {what} differ"));
        }
        self.commands.push(command);
        Ok(first)
    }
}

/// The commit of the checkout, marked if there are changes in it.
fn commit() -> String {
    let mut git = Command::new("git");
    git.current_dir(workspace::root()).args([
        "describe",
        "--always",
        "--dirty",
        "--abbrev=40",
        "--exclude=*",
    ]);
    process::output(git).map_or_else(|_| "unknown".to_owned(), |text| text.trim().to_owned())
}

#[cfg(test)]
mod tests {
    use super::{linux::Anchor, *};
    use std::cell::Cell;

    #[test]
    fn what_does_not_repeat_is_told() {
        let mut twice = Twice::default();
        let same = twice.run("a constant", || Ok((7, "one".to_owned())));
        assert_eq!((same.unwrap(), twice.differences.len()), (7, 0));
        let count = Cell::new(0);
        let counting = twice.run("a counter", || {
            count.set(count.get() + 1);
            Ok((count.get(), "two".to_owned()))
        });
        assert_eq!(counting.unwrap(), 1);
        assert_eq!(twice.differences, ["two runs of a counter differ"]);
        assert_eq!(twice.commands, ["one", "two"]);
    }

    #[test]
    fn a_figure_that_equals_its_anchor_is_not_below_it() {
        let anchor = Anchor::at_el2(10, "somewhere");
        assert!(anchor.is_above(9) && !anchor.is_above(10) && !anchor.is_above(11));
    }
}
