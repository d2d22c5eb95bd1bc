//! The cases of the payload host as tests of their own.
//!
//! The payload knows its cases; [`cases`] asks it. A [`Group`] is a machine on which they run: it is booted once,
//! when the first of its cases is wanted, and every case is judged from that one run. What is believed is the
//! runner's to say ([`freehold_runner::verdict`]); a case that the run does not report has failed.

use anyhow::{Context as _, Result, bail, ensure};
use freehold_runner::images::{self, Image};
use freehold_runner::machine::{Boot, Ending, Host, Machine, Memory, Run};
use freehold_runner::verdict::suite::{self, Outcome};
use libtest_mimic::{Completion, Failed};
use std::collections::BTreeMap;
use std::path::Path;
use std::sync::OnceLock;
use std::time::Duration;

/// How long the payload may take to name its cases.
const LIST_LIMIT: Duration = Duration::from_secs(60);

/// How long the payload may take to run all its cases on one machine.
const RUN_LIMIT: Duration = Duration::from_secs(600);

/// A machine for the cases.
#[derive(Clone, Debug)]
pub struct Configuration {
    /// QEMU's name of the CPU model.
    pub cpu: &'static str,
    /// The number of CPUs.
    pub smp: u32,
    /// RAM.
    pub memory: Memory,
    /// Memory regions that the RAM is split into.
    pub nodes: u32,
    /// What is below the payload.
    pub below: Below,
}

/// What is below the payload.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Below {
    /// Freehold.
    Freehold,
    /// Nothing: QEMU starts the payload as it would any kernel. Only the payload's own cases mean anything.
    Nothing,
    /// Nothing, and the payload begins at this physical address, which QEMU would not choose.
    NothingAt(u64),
}

impl Configuration {
    /// What tells the machine from the others in the name of a test.
    #[must_use]
    pub fn name(&self) -> String {
        let machine = format!("{}-x{}-{}", self.cpu, self.smp, self.memory);
        match self.below {
            Below::Freehold => format!("host::{machine}"),
            Below::Nothing => format!("payload::{machine}"),
            Below::NothingAt(address) => format!("payload::{machine}-at-{address:#x}"),
        }
    }

    /// The machine that runs the payload with these words as its command line.
    fn machine(&self, payload: &Image, arguments: String) -> Result<(Machine, Option<Image>)> {
        let hypervisor = match self.below {
            Below::Freehold => Some(images::hypervisor()?),
            Below::Nothing | Below::NothingAt(_) => None,
        };
        let first = hypervisor.as_ref().unwrap_or(payload);
        let mut machine = Machine::new(first.flat.clone());
        machine.cpu = self.cpu.to_owned();
        machine.smp = self.smp;
        machine.memory = self.memory;
        machine.nodes = self.nodes;
        machine.semihosting = true;
        if hypervisor.is_some() {
            machine.host = Some(Host {
                image: payload.flat.clone(),
                initrd: Some(images::payload_guest()?.flat),
                arguments,
            });
            return Ok((machine, hypervisor));
        }
        machine.virtualization = false;
        match self.below {
            Below::NothingAt(address) => {
                // QEMU writes the command line into the tree of a kernel that it boots itself.
                let mut donor = machine.clone();
                donor.extra = vec![
                    "-kernel".into(),
                    (&payload.flat).into(),
                    "-append".into(),
                    arguments.into(),
                ];
                machine.boot = Boot::Placed {
                    image: payload.flat.clone(),
                    address,
                    tree: donor.device_tree()?,
                };
            }
            _ => {
                machine.boot = Boot::Kernel {
                    image: payload.flat.clone(),
                    initrd: None,
                    arguments: Some(arguments),
                };
            }
        }
        Ok((machine, hypervisor))
    }
}

/// The names of the payload's cases, from the payload itself.
///
/// # Errors
/// If it cannot be built or booted, or its list is cut short.
pub fn cases() -> Result<Vec<String>> {
    let configuration = Configuration {
        cpu: "cortex-a72",
        smp: 1,
        memory: Memory::mib(512),
        nodes: 0,
        below: Below::Nothing,
    };
    let (machine, _) = configuration.machine(&images::payload_host()?, "list".to_owned())?;
    let run = machine.run(LIST_LIMIT, |_| ())?;
    listed(&run).with_context(|| format!("the payload's list is no list\n{}", run.report(None)))
}

fn listed(run: &Run) -> Result<Vec<String>> {
    ensure!(
        run.ending == Ending::Exited(0),
        "the machine ended otherwise than by exit status 0: {:?}",
        run.ending
    );
    let mut names = Vec::new();
    let mut said = None;
    for line in &run.console {
        if let Some(name) = line.strip_prefix("T case ") {
            ensure!(said.is_none(), "a case after the end of the list: {name}");
            names.push(name.to_owned());
        } else if let Some(count) = line.strip_prefix("T end ") {
            said = Some(count.parse::<usize>().context("the end line has no number")?);
        }
    }
    match said {
        None => bail!("the list has no end"),
        Some(said) if said != names.len() => bail!("{said} cases were promised and {} came", names.len()),
        Some(_) => Ok(names),
    }
}

/// Kills so many guests on a machine, at random from `seed` on.
///
/// # Errors
/// What went wrong, with the run's report.
pub fn kill(configuration: &Configuration, seed: u64, deaths: u64, limit: Duration) -> Result<()> {
    let arguments = format!("kill {seed} {deaths}");
    let (machine, hypervisor) = configuration.machine(&images::payload_host()?, arguments)?;
    let run = machine.run(limit, |_| ())?;
    let failed = match suite::judge(&run) {
        Ok(cases) => {
            ensure!(!cases.is_empty(), "nobody was killed");
            cases.into_iter().find(|case| case.outcome != Outcome::Passed)
        }
        Err(unsound) => return Err(unsound).with_context(|| report(&run, hypervisor.as_ref(), seed)),
    };
    match failed {
        None => Ok(()),
        Some(case) => bail!("{case:?}\n{}", report(&run, hypervisor.as_ref(), seed)),
    }
}

fn report(run: &Run, hypervisor: Option<&Image>, seed: u64) -> String {
    let elf = hypervisor.map(|image| image.elf.as_path());
    format!("seed {seed}\n{}", run.report(elf))
}

/// The cases on one machine.
#[derive(Debug)]
pub struct Group {
    configuration: Configuration,
    /// What the payload is told to run: everything, or a few cases by name.
    filter: String,
    results: OnceLock<Results>,
}

/// What the run of a group gave.
#[derive(Debug)]
struct Results {
    outcomes: BTreeMap<String, Outcome>,
    /// Why the run as a whole cannot be believed, if so.
    unsound: Option<String>,
    /// What somebody needs who looks into it.
    report: String,
}

impl Group {
    /// A group that has not run yet, and will run the cases that `filter` chooses (in the payload's own words).
    #[must_use]
    pub const fn new(configuration: Configuration, filter: String) -> Self {
        Self {
            configuration,
            filter,
            results: OnceLock::new(),
        }
    }

    /// Judges a case, after the group has run. A case that this machine cannot show is ignored, with the reason.
    ///
    /// # Errors
    /// What the case said, or why there is nothing to believe.
    pub fn judge(&self, case: &str) -> Result<Completion, Failed> {
        self.results().judge(case)
    }

    /// Whether the group has passed judgment on the case, rather than skipped it or lost it.
    #[must_use]
    pub fn has_judged(&self, case: &str) -> bool {
        matches!(
            self.results().outcomes.get(case),
            Some(Outcome::Passed | Outcome::Failed(_))
        )
    }

    fn results(&self) -> &Results {
        self.results.get_or_init(|| {
            self.run()
                .unwrap_or_else(|error| Results::none(&format!("{error:#}")))
        })
    }

    fn run(&self) -> Result<Results> {
        let arguments = format!("run {}", self.filter);
        let (machine, hypervisor) = self.configuration.machine(&images::payload_host()?, arguments)?;
        let run = machine.run(RUN_LIMIT, |_| ())?;
        Ok(Results::of(
            &run,
            hypervisor.as_ref().map(|image| image.elf.as_path()),
        ))
    }
}

impl Results {
    fn none(why: &str) -> Self {
        Self {
            outcomes: BTreeMap::new(),
            unsound: Some("the machine did not run".to_owned()),
            report: why.to_owned(),
        }
    }

    fn of(run: &Run, hypervisor: Option<&Path>) -> Self {
        let report = run.report(hypervisor);
        match suite::judge(run) {
            Ok(cases) => Self {
                outcomes: cases.into_iter().map(|case| (case.name, case.outcome)).collect(),
                unsound: None,
                report,
            },
            Err(unsound) => Self {
                outcomes: reported(&run.console),
                unsound: Some(unsound.to_string()),
                report,
            },
        }
    }

    fn judge(&self, case: &str) -> Result<Completion, Failed> {
        match (self.outcomes.get(case), &self.unsound) {
            (Some(Outcome::Passed), None) => Ok(Completion::Completed),
            (Some(Outcome::Skipped(why)), None) => Ok(Completion::ignored_with(why)),
            // Where it failed and what it said is enough; the console adds nothing.
            (Some(Outcome::Failed(what)), _) => Err(what.into()),
            (Some(_), Some(why)) => {
                Err(format!("it was not seen to fail, but the run proves nothing: {why}").into())
            }
            (None, None) => Err(format!("the run did not report it\n{}", self.report).into()),
            (None, Some(why)) => Err(format!("{why}\n{}", self.report).into()),
        }
    }
}

/// What the cases of a run said that went wrong as a whole: good enough to say which of them were seen to fail.
fn reported(console: &[String]) -> BTreeMap<String, Outcome> {
    let outcome = |line: &String| {
        let (kind, rest) = line.strip_prefix("T ")?.split_once(' ')?;
        let (name, detail) = rest.split_once(' ').unwrap_or((rest, ""));
        let outcome = match kind {
            "pass" => Outcome::Passed,
            "fail" => Outcome::Failed(detail.to_owned()),
            "skip" => Outcome::Skipped(detail.to_owned()),
            _ => return None,
        };
        Some((name.to_owned(), outcome))
    };
    console.iter().filter_map(outcome).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn run(ending: Ending, console: &str) -> Run {
        Run {
            console: console.lines().map(str::to_owned).collect(),
            complaints: String::new(),
            ending,
            elapsed: Duration::ZERO,
            command: String::new(),
        }
    }

    const ALL_WELL: &str = "T begin a\nT pass a\nT begin b\nT skip b too small\nT end 2";

    #[test]
    fn a_list_must_be_whole() {
        let list = |ending, text| listed(&run(ending, text));
        let names = list(Ending::Exited(0), "noise\nT case a::b\nT case c\nT end 2").unwrap();
        assert_eq!(names, ["a::b", "c"]);
        assert!(list(Ending::Exited(0), "T case a\nT end 2").is_err());
        assert!(list(Ending::Exited(0), "T case a").is_err());
        assert!(list(Ending::Exited(0), "T end 0\nT case a").is_err());
        assert!(list(Ending::Exited(1), "T case a\nT end 1").is_err());
        assert!(list(Ending::TimedOut, "T case a\nT end 1").is_err());
    }

    #[test]
    fn a_case_that_is_not_reported_has_failed() {
        let results = Results::of(&run(Ending::Exited(0), ALL_WELL), None);
        assert!(matches!(results.judge("a"), Ok(Completion::Completed)));
        assert!(
            matches!(results.judge("b"), Ok(Completion::Ignored { reason: Some(why) }) if why == "too small")
        );
        assert!(results.judge("c").is_err());
    }

    #[test]
    fn nothing_passes_in_a_run_that_did_not_end_well() {
        for run in [
            run(Ending::TimedOut, ALL_WELL),
            run(Ending::Exited(1), ALL_WELL),
            run(Ending::Exited(0), "T begin a\nT pass a\nT begin b"),
            run(Ending::Exited(0), "T begin a\nT pass a\nT end 7"),
        ] {
            let results = Results::of(&run, None);
            assert!(
                results.judge("a").is_err() && results.judge("b").is_err(),
                "{run:?}"
            );
        }
    }

    #[test]
    fn a_failure_keeps_its_own_words() {
        let text = "T begin a\nT fail a x.rs:3 one too many\nT begin b\nT pass b\nT begin c";
        let results = Results::of(&run(Ending::TimedOut, text), None);
        let message = |case| results.judge(case).err().unwrap().message().unwrap().to_owned();
        assert_eq!(message("a"), "x.rs:3 one too many");
        assert!(message("b").contains("proves nothing"));
        assert!(message("c").contains("did not end"));
    }
}
