//! The protocol of our own payloads, one event a line:
//!
//! ```text
//! T begin <name>
//! T pass <name>
//! T fail <name> <file>:<line> <text>
//! T skip <name> <why>
//! T end <count>
//! ```
//!
//! `count` is how many cases began. Each that begins ends in one of three ways before the next begins, and the
//! payload exits with 0 if and only if none failed.

use crate::machine::{Ending, Run};
use std::collections::BTreeSet;
use thiserror::Error;

/// How one case ended.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Outcome {
    /// It passed.
    Passed,
    /// It failed: where, and what it said.
    Failed(String),
    /// It could not be judged on this machine: why.
    Skipped(String),
}

/// A case and how it ended.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Case {
    /// Its name.
    pub name: String,
    /// How it ended.
    pub outcome: Outcome,
}

/// Why a run gives no verdict that could be believed.
#[derive(Clone, Debug, Error, PartialEq, Eq)]
pub enum Unsound {
    /// The machine did not end by itself.
    #[error("the machine did not end by itself: {0:?}")]
    Unended(Ending),
    /// A line of the protocol that makes no sense where it stands.
    #[error("this line makes no sense here: `{0}`")]
    Misplaced(String),
    /// A case began and did not end.
    #[error("case {0} began and did not end")]
    Unfinished(String),
    /// There is no end line.
    #[error("the payload did not say that it was through")]
    NoEnd,
    /// The end line counts other than we do.
    #[error("the payload counts {said} cases, and {seen} were seen")]
    Count {
        /// What the end line says.
        said: usize,
        /// How many cases were seen.
        seen: usize,
    },
    /// The same case ran twice.
    #[error("case {0} ran twice")]
    Repeated(String),
    /// The exit status contradicts the cases.
    #[error("the exit status is {status}, and {failed} cases failed")]
    Status {
        /// The exit status.
        status: i32,
        /// How many cases failed.
        failed: usize,
    },
}

/// Judges a run of a payload: every case with its outcome, if the whole can be believed.
///
/// # Errors
/// The first reason not to believe it.
pub fn judge(run: &Run) -> Result<Vec<Case>, Unsound> {
    let Ending::Exited(status) = run.ending else {
        return Err(Unsound::Unended(run.ending));
    };
    let cases = read(&run.console)?;
    let failed = cases
        .iter()
        .filter(|case| matches!(case.outcome, Outcome::Failed(_)))
        .count();
    if (status == 0) != (failed == 0) {
        return Err(Unsound::Status { status, failed });
    }
    Ok(cases)
}

fn read(console: &[String]) -> Result<Vec<Case>, Unsound> {
    let mut cases: Vec<Case> = Vec::new();
    let mut names = BTreeSet::new();
    let mut open: Option<&str> = None;
    let mut said = None;
    for line in console {
        let Some(event) = line.strip_prefix("T ") else {
            continue;
        };
        let misplaced = || Unsound::Misplaced(line.clone());
        if said.is_some() {
            return Err(misplaced());
        }
        let (kind, rest) = event.split_once(' ').ok_or_else(misplaced)?;
        if kind == "begin" {
            if let Some(unfinished) = open {
                return Err(Unsound::Unfinished(unfinished.to_owned()));
            }
            if !names.insert(rest) {
                return Err(Unsound::Repeated(rest.to_owned()));
            }
            open = Some(rest);
            continue;
        }
        if kind == "end" {
            said = Some(rest.parse::<usize>().map_err(|_| misplaced())?);
            continue;
        }
        let (name, detail) = rest.split_once(' ').unwrap_or((rest, ""));
        if open.take() != Some(name) {
            return Err(misplaced());
        }
        let outcome = match kind {
            "pass" if detail.is_empty() => Outcome::Passed,
            "fail" => Outcome::Failed(detail.to_owned()),
            "skip" if !detail.is_empty() => Outcome::Skipped(detail.to_owned()),
            _ => return Err(misplaced()),
        };
        cases.push(Case {
            name: name.to_owned(),
            outcome,
        });
    }
    if let Some(unfinished) = open {
        return Err(Unsound::Unfinished(unfinished.to_owned()));
    }
    match said {
        None => Err(Unsound::NoEnd),
        Some(said) if said != cases.len() => Err(Unsound::Count {
            said,
            seen: cases.len(),
        }),
        Some(_) => Ok(cases),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::time::Duration;

    fn run(ending: Ending, console: &str) -> Run {
        Run {
            console: console.lines().map(str::to_owned).collect(),
            complaints: String::new(),
            ending,
            elapsed: Duration::ZERO,
            command: String::new(),
        }
    }

    const GOOD: &str = "\
noise
T begin share::one
noise in between
T pass share::one
T begin share::two
T skip share::two one CPU only
T end 2
noise behind";

    #[test]
    fn a_sound_run_gives_its_cases() {
        let cases = judge(&run(Ending::Exited(0), GOOD)).unwrap();
        assert_eq!(cases.len(), 2);
        assert_eq!(
            cases[0],
            Case {
                name: "share::one".to_owned(),
                outcome: Outcome::Passed
            }
        );
        assert_eq!(cases[1].outcome, Outcome::Skipped("one CPU only".to_owned()));
    }

    #[test]
    fn a_failure_is_a_sound_verdict_too() {
        let text = "T begin a\nT fail a file.rs:3 left 1, right 2\nT end 1";
        let cases = judge(&run(Ending::Exited(1), text)).unwrap();
        assert_eq!(
            cases[0].outcome,
            Outcome::Failed("file.rs:3 left 1, right 2".to_owned())
        );
        let lie = judge(&run(Ending::Exited(0), text));
        assert_eq!(lie, Err(Unsound::Status { status: 0, failed: 1 }));
    }

    #[test]
    fn a_run_that_did_not_end_proves_nothing() {
        for ending in [Ending::TimedOut, Ending::Signaled(11)] {
            assert_eq!(judge(&run(ending, GOOD)), Err(Unsound::Unended(ending)));
        }
        assert_eq!(
            judge(&run(Ending::Exited(7), GOOD)),
            Err(Unsound::Status { status: 7, failed: 0 })
        );
    }

    #[test]
    fn nothing_may_be_missing_doubled_or_out_of_place() {
        let unsound = |text: &str| judge(&run(Ending::Exited(0), text)).unwrap_err();
        let name = || "a".to_owned();
        assert_eq!(unsound(""), Unsound::NoEnd);
        assert_eq!(unsound("T begin a\nT pass a"), Unsound::NoEnd);
        assert_eq!(
            unsound("T begin a\nT pass a\nT end 2"),
            Unsound::Count { said: 2, seen: 1 }
        );
        assert_eq!(unsound("T begin a\nT end 0"), Unsound::Unfinished(name()));
        assert_eq!(unsound("T begin a\nT begin b"), Unsound::Unfinished(name()));
        assert_eq!(
            unsound("T begin a\nT pass a\nT begin a\nT pass a\nT end 2"),
            Unsound::Repeated(name())
        );
        for text in [
            "T pass a\nT end 1",
            "T begin a\nT pass b\nT end 1",
            "T begin a\nT pass a\nT pass a\nT end 1",
            "T begin a\nT skip a\nT end 1",
            "T begin a\nT won a\nT end 1",
            "T end 0\nT begin a",
            "T end many",
        ] {
            assert!(matches!(unsound(text), Unsound::Misplaced(_)), "{text}");
        }
    }
}
