//! The demonstration that `cargo run` gives: Freehold boots with Debian as its host, and each step is shown with
//! its evidence as it happens.
//!
//! [`plan`] says what is done and what must come of it; [`script`] has the host do it and reads what came;
//! [`teller`] prints and judges; [`picture`] draws the ownership map. The first chapters are told by Freehold
//! itself, on the console before the host is entered.

mod picture;
mod plan;
mod script;
mod teller;

use crate::{debian::Suite, linux::Linux, machine::Memory};
use anyhow::Result;
use std::time::Duration;
use teller::Teller;

/// After this time a machine that still runs is stopped. Where nothing else runs, the story takes some 20 seconds.
const LIMIT: Duration = Duration::from_secs(180);

/// Tells the story on the standard output. Answers whether every step went as it must.
///
/// # Errors
/// If something cannot be fetched or built, or the machine did not come to the story's end: then the error holds
/// the report of the run.
pub fn tell() -> Result<bool> {
    let suite = Suite::bookworm();
    let release = suite.fetch()?.release;
    let smp = 4;
    let plan = plan::plan(&release, smp);
    let linux = Linux {
        smp,
        memory: Memory::gib(1),
        limit: LIMIT,
        ..Linux::new(suite, script::write(&plan))
    };
    let prepared = linux.prepare()?;
    let mut teller = Teller::new(&plan, anstream::stdout());
    teller.introduce(&format!(
        "Debian's Linux {release} on {smp} x {} with {}",
        linux.cpu, linux.memory
    ));
    let outcome = prepared.run(linux.limit, |line| teller.hear(line));
    // Even of a run that broke off, what was seen is judged and shown.
    let well = teller.finish();
    let outcome = outcome?;
    Ok(well && outcome.status == 0)
}
