//! The layers of tests: how each is built and run, and which of its tests fails first.

use crate::process;
use anyhow::{Context as _, Result, ensure};
use serde::Deserialize;
use std::{
    collections::BTreeSet,
    env, fmt,
    ops::ControlFlow,
    path::{Path, PathBuf},
    process::Command,
    time::Duration,
};

/// A layer of tests.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Layer {
    /// The order of things: stores, barriers, invalidations, map entries. Beside the code.
    Order,
    /// What is beside the code but for that.
    Unit,
    /// Every call on everything that a frame may be, by the specification.
    Specification,
    /// CPUs at once, under explored schedules.
    Concurrency,
    /// CPUs that see each other's stores late.
    Ordering,
    /// Every call in every state of a tiny machine, by the specification.
    Exhaustive,
}

impl Layer {
    /// All layers, the quick ones first.
    pub const ALL: [Self; 6] = [
        Self::Order,
        Self::Unit,
        Self::Specification,
        Self::Ordering,
        Self::Concurrency,
        Self::Exhaustive,
    ];

    /// What cargo must build.
    const fn targets(self) -> &'static [&'static str] {
        match self {
            Self::Order | Self::Unit => &["--package", "hyp-core", "--package", "hyp-abi", "--lib"],
            Self::Specification => &["--package", "freehold-tests", "--test", "specification"],
            Self::Concurrency => &["--package", "freehold-tests", "--test", "concurrency"],
            Self::Ordering => &["--package", "freehold-tests", "--test", "ordering"],
            Self::Exhaustive => &["--package", "freehold-tests", "--test", "exhaustive"],
        }
    }

    /// Which tests of the programs belong to it.
    const fn tests(self) -> &'static [&'static str] {
        match self {
            Self::Order => &["order::"],
            Self::Unit => &["--skip", "order::"],
            Self::Specification | Self::Concurrency | Self::Ordering | Self::Exhaustive => &[],
        }
    }

    /// The directory for what is built of it, and how the compiler must be told to build it.
    const fn build(self) -> (&'static str, &'static str) {
        match self {
            Self::Concurrency => ("shuttle", "--cfg shuttle"),
            Self::Ordering => ("loom", "--cfg shuttle --cfg loom"),
            Self::Order | Self::Unit | Self::Specification | Self::Exhaustive => ("target", ""),
        }
    }
}

impl fmt::Display for Layer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Order => "order",
            Self::Unit => "unit",
            Self::Specification => "specification",
            Self::Concurrency => "concurrency",
            Self::Ordering => "ordering",
            Self::Exhaustive => "exhaustive",
        })
    }
}

/// How the tests of a layer ended.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Ending {
    /// All passed.
    Passed,
    /// This one failed, before any other.
    Failed(String),
    /// The program died: what is known of the end.
    Died(String),
    /// They had not ended in time.
    TimedOut,
    /// They were not built: the code does not compile.
    Refused,
}

impl fmt::Display for Ending {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Passed => f.write_str("passed"),
            Self::Failed(test) => f.write_str(test),
            Self::Died(how) => write!(f, "died: {how}"),
            Self::TimedOut => f.write_str("not over in time"),
            Self::Refused => f.write_str("does not compile"),
        }
    }
}

/// What came of a build.
#[derive(Debug)]
pub(super) enum Built {
    /// The test programs, and the directory in which each is run.
    Programs(Vec<(PathBuf, PathBuf)>),
    /// It does not compile: what the compiler said.
    Refused(String),
}

/// A line of cargo's that names something it built.
#[derive(Deserialize)]
struct Message {
    executable: Option<PathBuf>,
    manifest_path: Option<PathBuf>,
    #[serde(default)]
    profile: Profile,
}

#[derive(Default, Deserialize)]
struct Profile {
    test: bool,
}

/// Where mutated code is built and tested.
#[derive(Debug)]
pub(super) struct Workshop<'a> {
    tree: &'a Path,
    target: &'a Path,
}

impl<'a> Workshop<'a> {
    /// For the sources at `tree`; what is built goes below `target`.
    pub(super) const fn new(tree: &'a Path, target: &'a Path) -> Self {
        Self { tree, target }
    }

    fn cargo(&self, layer: Layer) -> Command {
        let mut command = Command::new(env::var_os("CARGO").unwrap_or_else(|| "cargo".into()));
        command
            .current_dir(self.tree)
            .args(["test", "--no-run", "--message-format", "json-render-diagnostics"])
            .args(layer.targets());
        let (directory, more_flags) = layer.build();
        if !more_flags.is_empty() {
            let flags = env::var("RUSTFLAGS").unwrap_or_default();
            command
                .env("RUSTFLAGS", format!("{flags} {more_flags}"))
                .env_remove("CARGO_ENCODED_RUSTFLAGS");
        }
        command.env("CARGO_TARGET_DIR", self.target.join(directory));
        command
    }

    /// Builds a layer's tests.
    pub(super) fn build(&self, layer: Layer, mut on_line: impl FnMut(&str)) -> Result<Built> {
        let mut programs = BTreeSet::new();
        let mut said = String::new();
        let status = process::listen(self.cargo(layer), |line| {
            if !line.starts_with('{') {
                on_line(line);
                said.push_str(line);
                return;
            }
            let Ok(message) = serde_json::from_str::<Message>(line) else {
                return;
            };
            if let (Some(program), Some(manifest)) = (message.executable, message.manifest_path)
                && message.profile.test
                && let Some(directory) = manifest.parent()
            {
                programs.insert((program, directory.to_owned()));
            }
        })?;
        if !status.success() {
            return Ok(Built::Refused(said));
        }
        ensure!(!programs.is_empty(), "cargo built no tests of the layer {layer}");
        Ok(Built::Programs(programs.into_iter().collect()))
    }

    /// Runs a layer's tests until one fails.
    pub(super) fn run(
        &self,
        layer: Layer,
        programs: &[(PathBuf, PathBuf)],
        limit: Duration,
        mut on_line: impl FnMut(&str),
    ) -> Result<Ending> {
        for (program, directory) in programs {
            let mut command = Command::new(program);
            command
                .current_dir(directory)
                .args(layer.tests())
                .env("RUST_BACKTRACE", "0")
                // A failure of one mutation is not to be tried on the next.
                .env("PROPTEST_DISABLE_FAILURE_PERSISTENCE", "true");
            let mut failed = None;
            let ending = process::watch(command, limit, |line| {
                on_line(line);
                failed = failed_test(line).map(str::to_owned);
                if failed.is_some() {
                    ControlFlow::Break(())
                } else {
                    ControlFlow::Continue(())
                }
            })
            .with_context(|| format!("the tests of the layer {layer} cannot be run"))?;
            match (failed, ending) {
                (Some(test), _) => return Ok(Ending::Failed(test)),
                (None, Some(status)) if status.success() => {}
                (None, Some(status)) => return Ok(Ending::Died(status.to_string())),
                (None, None) => return Ok(Ending::TimedOut),
            }
        }
        Ok(Ending::Passed)
    }
}

/// The test of which this line says that it failed.
fn failed_test(line: &str) -> Option<&str> {
    let result = line.trim_end().strip_prefix("test ")?;
    let (name, result) = result.rsplit_once(" ... ")?;
    (result == "FAILED").then_some(name.trim_end())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_failed_test_is_told_by_its_line() {
        assert_eq!(failed_test("test a::b ... FAILED\n"), Some("a::b"));
        assert_eq!(
            failed_test("test share on host  ... FAILED"),
            Some("share on host")
        );
        assert_eq!(failed_test("test a::b ... ok"), None);
        assert_eq!(failed_test("test result: FAILED. 1 passed"), None);
    }
}
