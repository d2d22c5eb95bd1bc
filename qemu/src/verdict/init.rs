//! The word of a Linux host's first program: `freehold-init <nonce> exit <status>`.
//!
//! The nonce is new in every run and handed over on the kernel's command line, so that no line of a script, a log
//! or an earlier run can be taken for it.

use crate::machine::{Ending, Run};
use thiserror::Error;

/// Why a run gives no status that could be believed.
#[derive(Clone, Debug, Error, PartialEq, Eq)]
pub enum Unsound {
    /// The machine did not power itself off.
    #[error("the machine did not power off: {0:?}")]
    Unended(Ending),
    /// The first program did not say how the script ended.
    #[error("the host did not reach the end of its script")]
    NoStatus,
    /// It said so more than once.
    #[error("the host reported the end of its script {0} times")]
    Repeated(usize),
}

/// The status line's beginning for `nonce`.
#[must_use]
pub fn mark(nonce: &str) -> String {
    format!("freehold-init {nonce} exit ")
}

/// Judges a run of a Linux host: the exit status of its script, if it can be believed.
///
/// # Errors
/// The first reason not to believe it.
pub fn judge(run: &Run, nonce: &str) -> Result<u8, Unsound> {
    let mark = mark(nonce);
    let said: Vec<_> = run
        .console
        .iter()
        .filter_map(|line| line.strip_prefix(&mark)?.trim().parse::<u8>().ok())
        .collect();
    match (said.as_slice(), run.ending) {
        ([status], Ending::Exited(0)) => Ok(*status),
        ([], _) => Err(Unsound::NoStatus),
        ([_], ending) => Err(Unsound::Unended(ending)),
        (many, _) => Err(Unsound::Repeated(many.len())),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::time::Duration;

    fn run(ending: Ending, console: &[&str]) -> Run {
        Run {
            console: console.iter().map(|&line| line.to_owned()).collect(),
            complaints: String::new(),
            ending,
            elapsed: Duration::ZERO,
            command: String::new(),
        }
    }

    #[test]
    fn a_signed_status_of_a_machine_that_powered_off_counts() {
        for status in [0, 1, 255] {
            let line = format!("freehold-init 1f exit {status}");
            assert_eq!(
                judge(&run(Ending::Exited(0), &["noise", &line]), "1f"),
                Ok(status)
            );
        }
    }

    #[test]
    fn anything_less_does_not() {
        let good = "freehold-init 1f exit 0";
        let judge = |ending, console: &[&str]| judge(&run(ending, console), "1f").unwrap_err();
        assert_eq!(judge(Ending::Exited(0), &[]), Unsound::NoStatus);
        assert_eq!(
            judge(Ending::Exited(0), &["freehold-init 2f exit 0"]),
            Unsound::NoStatus
        );
        assert_eq!(
            judge(Ending::Exited(0), &["freehold-init 1f exit "]),
            Unsound::NoStatus
        );
        assert_eq!(
            judge(Ending::Exited(0), &["[ 1.0] freehold-init 1f exit 0"]),
            Unsound::NoStatus
        );
        assert_eq!(
            judge(Ending::TimedOut, &[good]),
            Unsound::Unended(Ending::TimedOut)
        );
        assert_eq!(
            judge(Ending::Exited(1), &[good]),
            Unsound::Unended(Ending::Exited(1))
        );
        assert_eq!(judge(Ending::Exited(0), &[good, good]), Unsound::Repeated(2));
    }
}
