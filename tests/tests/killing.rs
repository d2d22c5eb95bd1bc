//! Guests killed at random points, with a seed of their own each time: every page comes back, the private ones zero.
//!
//! `FREEHOLD_DEATHS=n` kills as many as one has time for, `FREEHOLD_SEED=n` those that a failure names.

use anyhow::{Context as _, Result};
use freehold_runner::attack::random_seed;
use freehold_runner::machine::Memory;
use freehold_runner::setup;
use freehold_tests::on_machine::{Below, Configuration, kill};
use std::{env, time::Duration};

/// How many guests are killed if nobody says.
const DEATHS: u64 = 50;

fn number(variable: &str) -> Result<Option<u64>> {
    match env::var(variable) {
        Ok(text) => {
            let number = text.parse();
            number
                .map(Some)
                .with_context(|| format!("{variable} is not a number"))
        }
        Err(_) => Ok(None),
    }
}

fn kill_on(cpu: &'static str, smp: u32) -> Result<()> {
    setup::ensure_tools()?;
    let seed = number("FREEHOLD_SEED")?.unwrap_or_else(random_seed);
    let deaths = number("FREEHOLD_DEATHS")?.unwrap_or(DEATHS);
    let configuration = Configuration {
        cpu,
        smp,
        memory: Memory::mib(256),
        nodes: 0,
        below: Below::Freehold,
    };
    // A few seconds each are far more than it takes, even where others are at work.
    kill(&configuration, seed, deaths, Duration::from_secs(60 + 5 * deaths))
}

#[test]
fn on_two_old_cpus() -> Result<()> {
    kill_on("cortex-a72", 2)
}

#[test]
fn on_four_new_cpus() -> Result<()> {
    kill_on("max", 4)
}
