//! Cases on a real Linux host: Debian's kernel under Freehold.
//!
//! A [`Session`] is a boot, of which several cases can be judged, each by what the machine told of it. Cases are
//! shell functions, in `scripts/`; after each of them the machine must still be well (`harness.sh` says how that is
//! seen). [`matrix`] lists the machines of the boot matrix, [`boots`] the boots that want something else of the
//! machine, [`module`] those with the host's module ([`stack`] looks at its code), [`tree`] edits device trees for them,
//! [`refusals`] are the machines on which Freehold must not run, [`vmm`] the hosts that run Linux guests.

pub mod boots;
pub mod matrix;
pub mod module;
pub mod refusals;
mod scripts;
pub mod stack;
pub mod tree;
pub mod vmm;

pub use scripts::Script;

use anyhow::Result;
use freehold_runner::linux::{Linux, Prepared};
use libtest_mimic::{Arguments, Failed, Trial};
use std::collections::BTreeMap;
use std::sync::{Arc, OnceLock};

/// Changes a machine that is about to boot.
pub type Change = fn(&mut Prepared) -> Result<()>;

/// A boot of Linux and the cases that are judged by it.
#[derive(Debug)]
pub struct Session {
    name: String,
    linux: Linux,
    change: Option<Change>,
    cases: Vec<&'static str>,
    results: OnceLock<Results>,
}

impl Session {
    /// A session that has not run yet. Its script is made of `scripts`, with these variables (`NAME=value`).
    #[must_use]
    pub fn new(name: impl Into<String>, mut linux: Linux, variables: &[String], scripts: &[Script]) -> Self {
        let cases: Vec<_> = scripts.iter().flat_map(|script| script.cases()).collect();
        linux.script = scripts::write(variables, scripts);
        Self {
            name: name.into(),
            linux,
            change: None,
            cases,
            results: OnceLock::new(),
        }
    }

    /// The same session on a machine that is changed before it boots.
    #[must_use]
    pub fn changed(self, change: Change) -> Self {
        Self {
            change: Some(change),
            ..self
        }
    }

    /// Names of the cases, each beginning with that of the session.
    pub fn cases(&self) -> impl Iterator<Item = (String, &'static str)> {
        self.cases
            .iter()
            .map(|case| (format!("{}::{case}", self.name), *case))
    }

    /// Leaves only the cases for whose full names `is_wanted` holds.
    pub fn retain(&mut self, is_wanted: impl Fn(&str) -> bool) {
        let name = self.name.clone();
        self.cases.retain(|case| is_wanted(&format!("{name}::{case}")));
    }

    /// Judges a case. The first that is asked for boots the machine.
    ///
    /// # Errors
    /// What the case printed if it failed; the report of the run if that proves nothing.
    pub fn judge(&self, case: &str) -> Result<(), String> {
        let results = self.results.get_or_init(|| {
            self.run()
                .unwrap_or_else(|error| Results::of(&[], Some(format!("{error:#}"))))
        });
        results.judge(case)
    }

    fn run(&self) -> Result<Results> {
        let mut linux = self.linux.clone();
        linux.script.push_str(&scripts::run(&self.cases));
        let mut prepared = linux.prepare()?;
        if let Some(change) = self.change {
            change(&mut prepared)?;
        }
        // The console, even of a run that ends badly.
        let mut console = Vec::new();
        let outcome = prepared.run(linux.limit, |line| console.push(line.to_owned()));
        let unsound = match outcome {
            Ok(outcome) if outcome.status == 0 => None,
            Ok(outcome) => Some(format!(
                "the script ended with {}\n{}",
                outcome.status,
                outcome.run.report(None)
            )),
            Err(error) => Some(format!("{error:#}")),
        };
        Ok(Results::of(&console, unsound))
    }
}

/// The cases of the sessions that the command line chooses, each a test. The first case of each session comes before the
/// second of any: whoever waits for a boot makes no other.
#[must_use]
pub fn trials(arguments: &Arguments, sessions: impl IntoIterator<Item = Session>) -> Vec<Trial> {
    let mut in_turn = Vec::new();
    for mut session in sessions {
        session.retain(|name| !arguments.is_filtered_out(&Trial::test(name, || Ok(()))));
        let session = Arc::new(session);
        for (turn, (name, case)) in session.cases().enumerate() {
            let session = Arc::clone(&session);
            let trial = Trial::test(name, move || session.judge(case).map_err(Failed::from));
            in_turn.push((turn, trial));
        }
    }
    in_turn.sort_by_key(|(turn, _)| *turn);
    in_turn.into_iter().map(|(_, trial)| trial).collect()
}

/// What the boot of a session gave.
#[derive(Debug)]
struct Results {
    /// How each case ended, with what was printed meanwhile.
    cases: BTreeMap<String, Vec<Ended>>,
    /// Why the run as a whole proves nothing, if so.
    unsound: Option<String>,
}

#[derive(Debug)]
struct Ended {
    status: i32,
    printed: String,
}

impl Results {
    fn of(console: &[String], unsound: Option<String>) -> Self {
        let mut cases = BTreeMap::<_, Vec<_>>::new();
        let mut open: Option<(&str, String)> = None;
        for line in console {
            if let Some(name) = line.strip_prefix("case begin ") {
                open = Some((name, String::new()));
            } else if let Some((name, status)) = line
                .strip_prefix("case end ")
                .and_then(|rest| rest.split_once(' '))
            {
                // An end without its beginning counts for nothing.
                if let Some((_, printed)) = open.take_if(|(begun, _)| *begun == name) {
                    let status = status.parse().unwrap_or(-1);
                    cases
                        .entry(name.to_owned())
                        .or_default()
                        .push(Ended { status, printed });
                }
            } else if let Some((_, printed)) = &mut open {
                printed.push_str(line);
                printed.push('\n');
            }
        }
        Self { cases, unsound }
    }

    fn judge(&self, case: &str) -> Result<(), String> {
        match (self.cases.get(case).map(Vec::as_slice), &self.unsound) {
            (Some([Ended { status: 0, .. }]), None) => Ok(()),
            (Some([Ended { status: 0, .. }]), Some(why)) => {
                let why = why.lines().next().unwrap_or_default();
                Err(format!(
                    "it was not seen to fail, but the run proves nothing: {why}"
                ))
            }
            (Some([Ended { status, printed }]), _) => Err(format!("status {status}\n{printed}")),
            (Some(many), _) => Err(format!("it ended {} times", many.len())),
            (None, None) => Err("the run did not report it".to_owned()),
            (None, Some(why)) => Err(why.clone()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn results(console: &str, unsound: Option<&str>) -> Results {
        let console: Vec<_> = console.lines().map(str::to_owned).collect();
        Results::of(&console, unsound.map(str::to_owned))
    }

    const GOOD: &str = "noise\ncase begin a\nout\ncase end a 0\ncase begin b\nwhy\ncase end b 1";

    #[test]
    fn a_case_passes_by_its_own_status_in_a_sound_run() {
        let results = results(GOOD, None);
        assert_eq!(results.judge("a"), Ok(()));
        assert!(results.judge("b").unwrap_err().contains("why"));
        assert!(results.judge("c").is_err());
    }

    #[test]
    fn nothing_passes_in_a_run_that_proves_nothing() {
        let results = results(GOOD, Some("it hangs\nand so on"));
        assert!(results.judge("a").unwrap_err().contains("it hangs"));
        assert!(results.judge("b").unwrap_err().contains("why"));
        assert!(results.judge("c").unwrap_err().contains("and so on"));
    }

    #[test]
    fn what_is_not_whole_counts_for_nothing() {
        for console in [
            "case begin a",
            "case end a 0",
            "case begin a\ncase begin b\ncase end a 0",
            "case begin a\ncase end a 0\ncase begin a\ncase end a 0",
            "case begin a\ncase end a",
            "case begin a\ncase end a x",
        ] {
            assert!(results(console, None).judge("a").is_err(), "{console}");
        }
    }
}
