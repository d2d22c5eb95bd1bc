//! One run of the payload's benchmarks.
//!
//! The payload brackets each operation at EL1 and prints `B value <name> <marker> <samples> <least> <median>`; right
//! before the last sample it executes the marker, so the plugin's visits with that marker are this one operation's.

use crate::{
    images::{self, Image},
    machine::{Ending, Host, Machine, Memory, Run, layout},
    plugin::{Census, Mode, Named, Options, Plugin, Report, Span},
    symbols::table::Table,
    workspace::Scratch,
};
use anyhow::{Context as _, Result, bail, ensure};
use std::{collections::BTreeMap, time::Duration};

/// How long a run may take.
const LIMIT: Duration = Duration::from_secs(900);

/// The routines whose instructions are counted apart: what zeroes, and what cleans.
const PARTS: [(&str, &str); 2] = [("zeroing", "cache_zero"), ("cleaning", "cache_clean_invalidate")];

/// The images that take part: built once, so that all runs are of the same.
#[derive(Clone, Debug)]
pub struct Images {
    /// Freehold.
    pub hypervisor: Image,
    /// The payload.
    pub payload: Image,
    /// The plugin.
    pub plugin: Plugin,
}

impl Images {
    /// Builds them.
    ///
    /// # Errors
    /// If one does not build.
    pub fn build() -> Result<Self> {
        Ok(Self {
            hypervisor: images::hypervisor()?,
            payload: images::payload_host()?,
            plugin: Plugin::build()?,
        })
    }
}

/// What to run, and where.
#[derive(Clone, Copy, Debug)]
pub struct Setting<'a> {
    /// CPU model.
    pub cpu: &'a str,
    /// RAM.
    pub memory: Memory,
    /// Names of benchmarks, in the payload's own form; all of them if empty.
    pub filter: &'a str,
}

/// What the bracket around an operation counted.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Value {
    /// The marker before its last sample.
    pub marker: u16,
    /// How often it was done.
    pub samples: u64,
    /// The least of the samples, in instructions.
    pub least: u64,
    /// Their median.
    pub median: u64,
}

/// What EL2 did for one operation.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Work {
    /// How often host or guest came to EL2.
    pub exits: u64,
    /// The sums over these visits.
    pub census: Census,
    /// Instructions in what zeroes.
    pub zeroing: u64,
    /// Instructions in what cleans caches.
    pub cleaning: u64,
}

/// What a run gave.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Results {
    /// The benchmarks, in the order in which they ran.
    pub values: Vec<(String, Value)>,
    /// What the payload knows besides, such as EL2's memory in bytes.
    pub facts: BTreeMap<String, u64>,
    /// What EL2 did, by marker.
    pub work: BTreeMap<u16, Work>,
    /// Benchmarks that this machine cannot show, with the reason.
    pub skipped: Vec<String>,
}

impl Results {
    /// A fact.
    ///
    /// # Errors
    /// If the payload did not tell it.
    pub fn fact(&self, name: &str) -> Result<u64> {
        let fact = self.facts.get(name).copied();
        fact.with_context(|| format!("the payload did not tell its {name}"))
    }
}

/// The machine for a setting.
#[must_use]
pub fn machine(images: &Images, setting: Setting<'_>) -> Machine {
    let mut machine = Machine::new(images.hypervisor.flat.clone());
    setting.cpu.clone_into(&mut machine.cpu);
    machine.memory = setting.memory;
    machine.icount = true;
    machine.semihosting = true;
    machine.host = Some(Host {
        image: images.payload.flat.clone(),
        initrd: None,
        arguments: format!("bench {}", setting.filter).trim_end().to_owned(),
    });
    machine
}

/// Whether EL2's visits are counted too.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Visits {
    /// By the plugin.
    Counted,
    /// Not at all, which is quicker.
    Ignored,
}

/// Runs benchmarks. Also returns QEMU's command line.
///
/// # Errors
/// If the run proves nothing: then the error holds its report.
pub fn run(images: &Images, setting: Setting<'_>, visits: Visits) -> Result<(Results, String)> {
    let mut machine = machine(images, setting);
    let scratch = Scratch::new()?;
    let file = scratch.path().join("visits.json");
    if visits == Visits::Counted {
        let table = Table::load(&images.hypervisor.elf, layout::FREEHOLD)?;
        let named = |(name, at): (&str, Span)| Named {
            name: name.to_owned(),
            at,
        };
        let mut options = Options::new(Mode::Calls, &file);
        options.ranges.push(named(("image", table.image())));
        for (name, symbol) in PARTS {
            options.ranges.push(named((name, table.span(symbol)?)));
        }
        options.vectors = Some(table.vectors_with_guests()?);
        options.visits = true;
        images.plugin.attach(&mut machine, &options)?;
    }
    let run = machine.run(LIMIT, |_| ())?;
    let report = || run.report(Some(&images.hypervisor.elf));
    let mut results = parse(&run).with_context(report)?;
    if visits == Visits::Counted {
        results.work = work(&Report::read(&file)?).with_context(report)?;
    }
    Ok((results, run.command))
}

fn parse(run: &Run) -> Result<Results> {
    let mut results = Results {
        values: Vec::new(),
        facts: BTreeMap::new(),
        work: BTreeMap::new(),
        skipped: Vec::new(),
    };
    let mut end = None;
    for line in &run.console {
        let words: Vec<&str> = line.split(' ').collect();
        match words[..] {
            ["B", "value", name, marker, samples, least, median] => {
                let value = Value {
                    marker: marker.parse()?,
                    samples: samples.parse()?,
                    least: least.parse()?,
                    median: median.parse()?,
                };
                results.values.push((name.to_owned(), value));
            }
            ["B", "skip", name, ..] => results.skipped.push(name.to_owned()),
            ["B", ..] => bail!("a benchmark failed: {line}"),
            ["F", name, value] => _ = results.facts.insert(name.to_owned(), value.parse()?),
            ["T", "end", count] => end = Some(count.parse::<usize>()?),
            _ => {}
        }
    }
    ensure!(
        run.ending == Ending::Exited(0),
        "the payload did not end with status 0"
    );
    // The floor is a value too, and no benchmark.
    let seen = (results.values.len() + results.skipped.len()).checked_sub(1);
    ensure!(
        end.is_some() && end == seen,
        "the payload's figures are not complete"
    );
    Ok(results)
}

fn work(report: &Report) -> Result<BTreeMap<u16, Work>> {
    let mut all: BTreeMap<u16, Work> = BTreeMap::new();
    for visit in report.visits().filter(|visit| visit.marker != 0) {
        ensure!(
            visit.returned,
            "a visit under marker {} did not return",
            visit.marker
        );
        let part = |name| visit.parts.get(name).copied().unwrap_or_default();
        let work = all.entry(visit.marker).or_default();
        work.exits += 1;
        work.zeroing += part("zeroing");
        work.cleaning += part("cleaning");
        let (sum, one) = (&mut work.census, &visit.census);
        for (sum, one) in [
            (&mut sum.instructions, one.instructions),
            (&mut sum.tlbi, one.tlbi),
            (&mut sum.dsb, one.dsb),
            (&mut sum.isb, one.isb),
            (&mut sum.dc, one.dc),
            (&mut sum.ic, one.ic),
            (&mut sum.calls, one.calls),
            (&mut sum.nested, one.nested),
        ] {
            *sum += one;
        }
    }
    Ok(all)
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

    const WHOLE: &str =
        "F ram 1024\nB value floor 0 101 3 3\nB value call 1 101 80 81\nB skip big too big\nT end 2";

    #[test]
    fn a_whole_run_is_read() {
        let results = parse(&run(Ending::Exited(0), WHOLE)).unwrap();
        assert_eq!(results.values.len(), 2);
        assert_eq!(
            results.values[1],
            (
                "call".to_owned(),
                Value {
                    marker: 1,
                    samples: 101,
                    least: 80,
                    median: 81
                }
            )
        );
        assert_eq!(results.skipped, ["big"]);
        assert_eq!(results.fact("ram").unwrap(), 1024);
        assert!(results.fact("rom").is_err());
    }

    #[test]
    fn a_run_that_is_cut_short_or_failed_is_refused() {
        for (ending, text) in [
            (Ending::TimedOut, WHOLE.to_owned()),
            (Ending::Exited(1), WHOLE.to_owned()),
            (Ending::Exited(0), WHOLE.replace("T end 2", "T end 3")),
            (Ending::Exited(0), WHOLE.replace("\nT end 2", "")),
            (Ending::Exited(0), WHOLE.replace("B skip", "B fail")),
            (Ending::Exited(0), WHOLE.replace("80 81", "80 x")),
            (Ending::Exited(0), "T end 0".to_owned()),
        ] {
            assert!(parse(&run(ending, &text)).is_err(), "{ending:?} {text}");
        }
    }
}
