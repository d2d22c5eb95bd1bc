//! Every test in full: the parts, one after the other, each a program of its own, and a table of the results.
//!
//! [`parts`] names them; they are `cargo test` with more to do than usual, and this program's own `attack`, `bench` and
//! `mutate`. [`run`] keeps what each prints in `target/soak` and goes on after a failure.

use crate::{process, progress::Step, workspace};
use anstyle::{AnsiColor, Style};
use anyhow::{Context as _, Result, ensure};
use std::{
    env,
    fmt::Write as _,
    fs,
    path::PathBuf,
    process::Command,
    time::{Duration, Instant},
};

/// The CPU models that are attacked; `max` again with another seed.
const ATTACKED: [&str; 6] = [
    "cortex-a53",
    "cortex-a72",
    "cortex-a76",
    "neoverse-n1",
    "max",
    "max",
];

/// How many of the last lines of a part that failed are shown.
const TAIL: usize = 40;

const GOOD: Style = AnsiColor::Green.on_default();
const BAD: Style = AnsiColor::Red.on_default().bold();

/// How much is done.
#[derive(Clone, Copy, Debug)]
pub struct Effort {
    /// Hypercalls of each attack.
    pub attack_calls: u64,
    /// Calls of the random test of the specification.
    pub random_calls: u64,
    /// Guests that are killed at random, on each of the machines.
    pub deaths: u64,
    /// Monitors of guests that are killed at random.
    pub kills: u64,
    /// Seconds that Debian works under load, and that guests do while clocks are compared.
    pub load_seconds: u64,
}

/// A part of it.
#[derive(Debug)]
pub struct Part {
    /// A name for it, with no spaces.
    pub name: String,
    command: Command,
}

/// All parts, the quick ones first.
///
/// # Errors
/// If this program does not know where it is itself.
pub fn parts(effort: &Effort) -> Result<Vec<Part>> {
    let calls = effort.random_calls.to_string();
    let deaths = effort.deaths.to_string();
    let kills = effort.kills.to_string();
    let seconds = effort.load_seconds.to_string();
    let mut parts = vec![
        tests("unit", &["--lib", "--bins"], &[]),
        test("specification", &[]),
        test("fuzz", &[]),
        test("exhaustive", &[]),
        test("guests", &[]),
        test("random", &[("FREEHOLD_CALLS", &calls)]),
        test("concurrency", &[]),
        test("ordering", &[]),
        test("doors", &[]),
        test("panic", &[]),
        test("reset", &[]),
        test("story", &[]),
        test("guest_payload", &[]),
        test("on_machine", &[]),
        test("killing", &[("FREEHOLD_DEATHS", &deaths)]),
        test("module", &[]),
        test("vmm", &[("FREEHOLD_KILLS", &kills), ("FREEHOLD_LOAD", &seconds)]),
        test(
            "linux",
            &[("FREEHOLD_MATRIX", "full"), ("FREEHOLD_LOAD", &seconds)],
        ),
    ];
    let program = env::current_exe().context("where this program is cannot be told")?;
    for (number, model) in ATTACKED.into_iter().enumerate() {
        let seed = (number + 1).to_string();
        let mut command = Command::new(&program);
        command.args(["attack", "--cpu", model, "--seed", &seed, "--time-limit", "3600"]);
        command.args(["--calls", &effort.attack_calls.to_string()]);
        parts.push(Part {
            name: format!("attack-{model}-seed-{seed}"),
            command,
        });
    }
    for name in ["bench", "mutate"] {
        let mut command = Command::new(&program);
        command.arg(name);
        parts.push(Part {
            name: name.to_owned(),
            command,
        });
    }
    Ok(parts)
}

/// One of the workspace's test programs.
fn test(name: &str, variables: &[(&str, &str)]) -> Part {
    tests(name, &["--package", "freehold-tests", "--test", name], variables)
}

fn tests(name: &str, arguments: &[&str], variables: &[(&str, &str)]) -> Part {
    let mut command = Command::new(env::var_os("CARGO").unwrap_or_else(|| "cargo".into()));
    command
        .current_dir(workspace::root())
        .args(["test", "--no-fail-fast"])
        .args(arguments)
        .envs(variables.iter().copied());
    Part {
        name: name.to_owned(),
        command,
    }
}

/// What came of a part.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Outcome {
    name: String,
    passed: bool,
    /// Its own last word, such as how many tests passed.
    words: String,
    elapsed: Duration,
}

/// What came of all parts.
#[derive(Clone, Debug)]
pub struct Report(Vec<Outcome>);

/// Runs the parts one after the other.
///
/// # Errors
/// If none is wanted, or one cannot be started or its log not be written. A part that fails is no error.
pub fn run<'a>(parts: impl Iterator<Item = &'a Part>) -> Result<Report> {
    let logs = workspace::target_directory("soak")?;
    let mut outcomes = Vec::new();
    for part in parts {
        outcomes.push(run_part(part, logs.join(&part.name).with_extension("log"))?);
    }
    ensure!(!outcomes.is_empty(), "no part has such a name");
    Ok(Report(outcomes))
}

fn run_part(part: &Part, log: PathBuf) -> Result<Outcome> {
    let step = Step::announced(&part.name);
    let started = Instant::now();
    let mut said = String::new();
    let mut command = Command::new(part.command.get_program());
    command.args(part.command.get_args());
    for (name, value) in part.command.get_envs() {
        if let Some(value) = value {
            command.env(name, value);
        }
    }
    if let Some(directory) = part.command.get_current_dir() {
        command.current_dir(directory);
    }
    let status = process::listen(command, |line| {
        step.detail(line);
        said.push_str(line);
    })?;
    step.done();
    fs::write(&log, &said).with_context(|| format!("cannot write {}", log.display()))?;
    if !status.success() {
        eprintln!("{} failed ({status}); the end of {}:", part.name, log.display());
        let lines: Vec<_> = said.lines().collect();
        for line in &lines[lines.len().saturating_sub(TAIL)..] {
            eprintln!("| {line}");
        }
    }
    Ok(Outcome {
        name: part.name.clone(),
        passed: status.success(),
        words: summary(&said),
        elapsed: started.elapsed(),
    })
}

/// How many tests passed, failed and were left out; the last line of what is no test.
fn summary(said: &str) -> String {
    let mut sums = [0_u64; 3];
    let mut is_test = false;
    for line in said.lines().filter_map(|line| line.strip_prefix("test result: ")) {
        is_test = true;
        for (sum, word) in sums.iter_mut().zip(["passed", "failed", "ignored"]) {
            *sum += line
                .split([';', '.'])
                .find_map(|part| part.trim().strip_suffix(word)?.trim().parse::<u64>().ok())
                .unwrap_or(0);
        }
    }
    if is_test {
        let [passed, failed, ignored] = sums;
        return format!("{passed} passed, {failed} failed, {ignored} skipped");
    }
    said.lines()
        .rfind(|line| !line.trim().is_empty())
        .unwrap_or_default()
        .trim()
        .to_owned()
}

impl Report {
    /// Whether every part passed.
    #[must_use]
    pub fn passed(&self) -> bool {
        self.0.iter().all(|outcome| outcome.passed)
    }

    /// A line for each part, with colors, and one for all.
    #[must_use]
    pub fn table(&self) -> String {
        let width = self.0.iter().map(|outcome| outcome.name.len()).max().unwrap_or(0);
        let mut text = String::new();
        for outcome in &self.0 {
            let (style, mark) = mark(outcome.passed);
            let _ = writeln!(
                text,
                "{style}{mark}{style:#} {:<width$} {:>8.1} s  {}",
                outcome.name,
                outcome.elapsed.as_secs_f64(),
                outcome.words
            );
        }
        let elapsed: Duration = self.0.iter().map(|outcome| outcome.elapsed).sum();
        let good = self.0.iter().filter(|outcome| outcome.passed).count();
        let (style, mark) = mark(self.passed());
        let _ = writeln!(
            text,
            "{style}{mark} {good} of {} parts passed in {:.0} min{style:#}",
            self.0.len(),
            elapsed.as_secs_f64() / 60.0
        );
        text
    }
}

const fn mark(passed: bool) -> (Style, char) {
    if passed { (GOOD, '✓') } else { (BAD, '✗') }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn part(name: &str, script: &str) -> Part {
        let mut command = Command::new("sh");
        command.args(["-c", script]).env("WORD", "a word");
        Part {
            name: name.to_owned(),
            command,
        }
    }

    #[test]
    fn a_failure_is_told_and_does_not_end_the_rest() {
        let parts = [
            part("soak-test-bad", "exit 1"),
            part("soak-test-good", "echo $WORD"),
        ];
        let report = run(parts.iter()).unwrap();
        assert!(!report.passed());
        let table = anstream::adapter::strip_str(&report.table()).to_string();
        let lines: Vec<_> = table.lines().collect();
        assert!(lines[0].starts_with("✗ soak-test-bad"), "{table}");
        assert!(
            lines[1].starts_with("✓ soak-test-good") && lines[1].ends_with("a word"),
            "{table}"
        );
        assert!(lines[2].contains("1 of 2 parts"), "{table}");
        assert!(run([].iter()).is_err());
    }

    #[test]
    fn tests_are_counted_over_all_programs() {
        let said = "test result: ok. 3 passed; 0 failed; 1 ignored; 0 measured; 0 filtered out; finished in 1.2s\n\
                    noise\n\
                    test result: FAILED. 4 passed; 2 failed; 0 ignored; 0 measured; 0 filtered out; finished in 0s\n";
        assert_eq!(summary(said), "7 passed, 2 failed, 1 skipped");
        assert_eq!(summary("a\nFreehold held.\n\n"), "Freehold held.");
    }

    #[test]
    fn every_test_program_is_a_part() {
        let effort = Effort {
            attack_calls: 1,
            deaths: 1,
            kills: 1,
            random_calls: 1,
            load_seconds: 1,
        };
        let parts = parts(&effort).unwrap();
        for entry in fs::read_dir(workspace::root().join("tests/tests")).unwrap() {
            let path = entry.unwrap().path();
            let name = path.file_stem().unwrap().to_str().unwrap();
            if path.is_file() {
                assert!(parts.iter().any(|part| part.name.starts_with(name)), "{name}");
            }
        }
    }
}
