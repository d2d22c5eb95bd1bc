//! The first act: an unmodified Debian is the host.

use super::{
    LIMIT, plan, script,
    teller::{Manner, Sum, Teller},
};
use crate::{debian::Suite, linux::Linux, machine::Memory};
use anyhow::Result;
use std::{io::Write, time::Instant};

/// Tells the act to `out`. Answers how it went, and how many chapters it had.
///
/// # Errors
/// If something cannot be fetched or built, or the machine did not come to the act's end.
pub(super) fn tell(out: &mut impl Write, started: Instant) -> Result<(Sum, usize)> {
    let suite = Suite::bookworm();
    let release = suite.fetch()?.release;
    let smp = 4;
    let plan = plan::first_act(&release, smp);
    let linux = Linux {
        smp,
        memory: Memory::gib(1),
        limit: LIMIT,
        ..Linux::new(suite, script::write(&plan))
    };
    let prepared = linux.prepare()?;
    let manner = Manner {
        chapters_before: 0,
        all_of_freehold: true,
    };
    let mut teller = Teller::new(&plan, manner, started, out);
    teller.introduce(
        "Act one, the host",
        &format!(
            "Debian's Linux {release} on {smp} x {} with {}",
            linux.cpu, linux.memory
        ),
    );
    let outcome = prepared.run(linux.limit, |line| teller.hear(line));
    // Even of a run that broke off, what was seen is judged and shown.
    let mut sum = teller.finish();
    sum.is_well &= outcome?.status == 0;
    Ok((sum, plan.len()))
}
