//! Counting and tracing: the QEMU plugin, built, loaded and read.
//!
//! [`Plugin::build`] makes the shared object, [`Plugin::attach`] has a machine load it with [`Options`], and
//! [`Report::read`] reads what it wrote once QEMU has ended. The options and the lines are the plugin's own types.

use crate::{machine::Machine, process, progress::Step, workspace};
use anyhow::{Context as _, Result, bail};
pub use freehold_plugin::{
    decode::{Kind, Operation, accesses_memory, marker_word, uses_vectors},
    options::{Mode, Named, Options, Span},
    report::{Address, Census, Counts, Entry, Line, Mark, Spread, Step as TraceStep, Visit, Visits, What},
};
use std::{
    env, fs,
    path::{Path, PathBuf},
    process::Command,
};

/// QEMU's arguments for a real-time clock that begins at the same moment in every run and stands while the machine
/// does. Linux mixes the time of day into its random numbers; with this, `-icount` and no seeds in the tree, two
/// boots of a machine with one CPU execute the same instructions, to the last one.
pub const FIXED_CLOCK: [&str; 2] = ["-rtc", "base=2025-01-01T00:00:00,clock=vm"];

/// The plugin, built.
#[derive(Clone, Debug)]
pub struct Plugin {
    file: PathBuf,
}

impl Plugin {
    /// Builds the plugin for this computer, in `target/images`.
    ///
    /// # Errors
    /// If cargo fails.
    pub fn build() -> Result<Self> {
        let directory = workspace::target_directory("images")?;
        let mut command = Command::new(env::var_os("CARGO").unwrap_or_else(|| "cargo".into()));
        command
            .current_dir(workspace::root())
            .args([
                "build",
                "--release",
                "--package",
                "freehold-plugin",
                "--target-dir",
            ])
            .arg(&directory)
            // A target named in the environment would move the object, or make one that QEMU cannot load.
            .env_remove("CARGO_BUILD_TARGET");
        let mut step = Step::begin("the counting plugin for QEMU");
        process::run(&mut step, command)?;
        step.done();
        let file = directory.join("release").join("libfreehold_plugin.so");
        if !file.is_file() {
            bail!(
                "cargo built freehold-plugin and left no object at {}",
                file.display()
            );
        }
        Ok(Self { file })
    }

    /// Has `machine` load the plugin with these options, and gives it a fixed clock.
    ///
    /// # Errors
    /// If the options lack what their mode needs, or a path is not UTF-8.
    pub fn attach(&self, machine: &mut Machine, options: &Options) -> Result<()> {
        options.check().context("the plugin's options")?;
        let argument = options
            .argument(&self.file)
            .context("a path for the plugin is not UTF-8")?;
        machine.plugins.push(argument);
        machine.extra.extend(FIXED_CLOCK.map(Into::into));
        Ok(())
    }
}

/// What the plugin wrote in a run that ended as QEMU ends.
#[derive(Clone, Debug)]
pub struct Report {
    lines: Vec<Line>,
    dropped: u64,
}

impl Report {
    /// Reads the file that the options named, after QEMU has ended.
    ///
    /// # Errors
    /// If the file cannot be read, holds what is no line of the plugin, or lacks the last one: QEMU was killed.
    pub fn read(file: &Path) -> Result<Self> {
        let text = fs::read_to_string(file).with_context(|| format!("cannot read {}", file.display()))?;
        Self::parse(&text).with_context(|| format!("in {}", file.display()))
    }

    fn parse(text: &str) -> Result<Self> {
        let mut lines = text
            .lines()
            .map(|line| {
                serde_json::from_str(line).with_context(|| format!("not a line of the plugin: {line}"))
            })
            .collect::<Result<Vec<Line>>>()?;
        match lines.pop() {
            Some(Line::End(end)) => Ok(Self {
                lines,
                dropped: end.dropped,
            }),
            _ => bail!("the plugin's last line is missing: QEMU did not end by itself"),
        }
    }

    /// All lines but the last.
    #[must_use]
    pub fn lines(&self) -> &[Line] {
        &self.lines
    }

    /// How many lines the limit left out.
    #[must_use]
    pub const fn dropped(&self) -> u64 {
        self.dropped
    }

    /// When `cpu` came to the mark called `name` for the first time.
    ///
    /// # Errors
    /// If it never did.
    pub fn mark(&self, name: &str, cpu: usize) -> Result<&Mark> {
        self.lines
            .iter()
            .find_map(|line| match line {
                Line::Mark(mark) if mark.name == name && mark.cpu == cpu => Some(mark),
                _ => None,
            })
            .with_context(|| format!("CPU {cpu} never came to the mark {name}"))
    }

    /// What `cpu` executed from one mark (or reset) until another, by range.
    ///
    /// # Errors
    /// If it did not come to both, in this order.
    pub fn between(&self, from: Option<&str>, until: &str, cpu: usize) -> Result<Counts> {
        let mut counts = self.mark(until, cpu)?.counts.clone();
        if let Some(from) = from {
            let before = &self.mark(from, cpu)?.counts;
            for (range, count) in &mut counts {
                let before = before.get(range).copied().unwrap_or_default();
                *count = count
                    .checked_sub(before)
                    .with_context(|| format!("CPU {cpu} came to the mark {until} before {from}"))?;
            }
        }
        Ok(counts)
    }

    /// The visits of the image, one by one.
    pub fn visits(&self) -> impl Iterator<Item = &Visit> {
        self.lines.iter().filter_map(|line| match line {
            Line::Visit(visit) => Some(visit),
            _ => None,
        })
    }

    /// What the visits with this entry and marker cost, if there were any.
    #[must_use]
    pub fn cost(&self, entry: Entry, marker: u16) -> Option<&Visits> {
        self.lines.iter().find_map(|line| match line {
            Line::Visits(visits) if (visits.entry, visits.marker) == (entry, marker) => Some(visits),
            _ => None,
        })
    }

    /// The steps of a trace.
    pub fn steps(&self) -> impl Iterator<Item = &TraceStep> {
        self.lines.iter().filter_map(|line| match line {
            Line::Step(step) => Some(step),
            _ => None,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const MARKS: &str = r#"{"event":"start","api":1,"cpus":1}
{"event":"mark","name":"host","cpu":0,"pc":"0x48000000","counts":{"el2":100,"high":0,"low":6}}
{"event":"mark","name":"user","cpu":0,"pc":"0x400580","counts":{"el2":150,"high":900,"low":40}}
"#;
    const END: &str = r#"{"event":"end","dropped":0}"#;

    #[test]
    fn counts_are_told_between_marks() {
        let report = Report::parse(&format!("{MARKS}{END}")).unwrap();
        assert_eq!(report.mark("user", 0).unwrap().pc, Address(0x40_0580));
        let counts = report.between(Some("host"), "user", 0).unwrap();
        assert_eq!(
            counts,
            [("el2", 50), ("high", 900), ("low", 34)]
                .map(|(name, n)| (name.to_owned(), n))
                .into()
        );
        assert_eq!(
            report.between(None, "host", 0).unwrap().values().sum::<u64>(),
            106
        );
        assert!(report.between(Some("user"), "host", 0).is_err());
        assert!(report.mark("user", 1).is_err());
    }

    #[test]
    fn a_file_cut_short_is_no_report() {
        assert!(Report::parse(MARKS).is_err());
        assert!(Report::parse("").is_err());
        assert!(Report::parse(&format!("{MARKS}{{\"event\":\"tot")).is_err());
    }

    #[test]
    fn a_machine_loads_the_plugin_once_with_its_options() {
        let plugin = Plugin {
            file: "/x/plugin.so".into(),
        };
        let mut machine = Machine::new("image".into());
        let mut options = Options::new(Mode::Calls, "/y/lines.json");
        assert!(
            plugin.attach(&mut machine, &options).is_err(),
            "no image, no vectors"
        );
        options.ranges.push(Named {
            name: "el2".into(),
            at: Span {
                start: 0x4020_0000,
                end: 0x4040_0000,
            },
        });
        options.vectors = Some(Span {
            start: 0x4020_0800,
            end: 0x4020_1000,
        });
        plugin.attach(&mut machine, &options).unwrap();
        assert_eq!(
            machine.plugins,
            [
                "file=/x/plugin.so,out=/y/lines.json,mode=calls,range=el2:0x40200000-0x40400000,\
                 vectors=0x40200800-0x40201000"
            ]
        );
        assert_eq!(machine.extra, FIXED_CLOCK);
    }
}
