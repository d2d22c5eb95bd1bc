//! Debian's kernels as the host: boots, attacks, refusals and ordinary work, each a test.
//!
//! `FREEHOLD_MATRIX=full` boots the whole matrix instead of a part in which all pairs of values meet, and
//! `FREEHOLD_LOAD` says for how many seconds the host works.

use anyhow::{Context as _, Result, bail};
use freehold_runner::bench;
use freehold_tests::linux::{self, Session, boots, matrix, refusals};
use freehold_tests::trials::{self, MACHINES_AT_ONCE};
use libtest_mimic::{Arguments, Failed, Trial};
use std::env;
use std::process::ExitCode;

/// How long the host works if nobody says otherwise.
const LOAD_SECONDS: u64 = 20;

fn sessions() -> Result<Vec<Session>> {
    let points: Vec<_> = match env::var("FREEHOLD_MATRIX").as_deref() {
        Err(_) | Ok("pairwise") => matrix::pairwise().collect(),
        Ok("full") => matrix::full().collect(),
        Ok(other) => bail!("FREEHOLD_MATRIX is neither `full` nor `pairwise` but `{other}`"),
    };
    let seconds = match env::var("FREEHOLD_LOAD") {
        Err(_) => LOAD_SECONDS,
        Ok(text) => text.parse().context("FREEHOLD_LOAD is not a number of seconds")?,
    };
    // The long ones first, so that they do not end alone.
    let mut sessions = boots::loads(seconds);
    sessions.extend(boots::attacks()?);
    sessions.extend(boots::shapes()?);
    for point in points {
        sessions.push(matrix::session(point)?);
    }
    Ok(sessions)
}

fn list(arguments: &Arguments) -> Result<Vec<Trial>> {
    let mut trials: Vec<_> = refusals::ALL
        .iter()
        .map(|refusal| {
            Trial::test(format!("refused::{}", refusal.name), move || {
                refusal
                    .check()
                    .map_err(|error| Failed::from(format!("{error:#}")))
            })
        })
        .collect();
    trials.push(Trial::test("boot::is_at_most_two_percent_longer", boots_quickly));
    let ill = boots::ill();
    trials.push(Trial::test("harness::what_is_wrong_is_seen", move || {
        sees_what_is_wrong(&ill)
    }));
    trials.extend(linux::trials(arguments, sessions()?));
    Ok(trials)
}

/// Instructions from reset to init's first one, with Freehold and without.
fn boots_quickly() -> Result<(), Failed> {
    let ratio = bench::boot_ratio().map_err(|error| Failed::from(format!("{error:#}")))?;
    if ratio.is_good() {
        Ok(())
    } else {
        Err(format!("{:.4} times as many instructions: {ratio:?}", ratio.ratio()).into())
    }
}

/// All cases of this session must fail by their own status, in a run that is otherwise good.
fn sees_what_is_wrong(ill: &Session) -> Result<(), Failed> {
    for (name, case) in ill.cases() {
        match ill.judge(case) {
            Err(why) if why.starts_with("status 1\n") => {}
            other => return Err(format!("{name} did not fail as it must: {other:?}").into()),
        }
    }
    Ok(())
}

fn main() -> ExitCode {
    trials::run(Some(MACHINES_AT_ONCE), list)
}
