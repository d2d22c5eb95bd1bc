//! Debian's kernels as the host: boots, attacks, refusals and ordinary work, each a test.
//!
//! `FREEHOLD_MATRIX=full` boots the whole matrix instead of a part in which all pairs of values meet, and
//! `FREEHOLD_LOAD` says for how many seconds the host works.

use anyhow::{Context as _, Result, bail};
use freehold_runner::{bench, setup};
use freehold_tests::linux::{Session, boots, matrix, refusals};
use libtest_mimic::{Arguments, Failed, Trial};
use std::env;
use std::process::ExitCode;
use std::sync::Arc;

/// How long the host works if nobody says otherwise.
const LOAD_SECONDS: u64 = 20;

/// Each machine keeps a CPU of this one busy, and more of them make each other late.
const MACHINES_AT_ONCE: usize = 2;

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

fn trials(arguments: &Arguments) -> Result<Vec<Trial>> {
    setup::ensure_tools()?;
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
    // The first case of each session before the second of any: whoever waits for a boot makes no other.
    let mut in_turn = Vec::new();
    for mut session in sessions()? {
        session.retain(|name| !arguments.is_filtered_out(&Trial::test(name, || Ok(()))));
        let session = Arc::new(session);
        for (turn, (name, case)) in session.cases().enumerate() {
            let session = Arc::clone(&session);
            let trial = Trial::test(name, move || session.judge(case).map_err(Failed::from));
            in_turn.push((turn, trial));
        }
    }
    in_turn.sort_by_key(|(turn, _)| *turn);
    trials.extend(in_turn.into_iter().map(|(_, trial)| trial));
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
    let mut arguments = Arguments::from_args();
    arguments.test_threads.get_or_insert(MACHINES_AT_ONCE);
    match trials(&arguments) {
        Ok(trials) => libtest_mimic::run(&arguments, trials).exit_code(),
        Err(error) => {
            eprintln!("error: the cases cannot be listed: {error:#}");
            ExitCode::FAILURE
        }
    }
}
