//! The first act: an unmodified Debian is the host.

use super::{
    LIMIT, picture,
    plan::{self, Chapter},
    script,
    teller::{Manner, Sum, Teller},
};
use crate::{
    debian::Suite,
    linux::{Linux, Prepared},
    machine::Memory,
};
use anyhow::Result;
use std::{io::Write, time::Instant};

/// The act, ready to be told.
#[derive(Debug)]
pub(super) struct Act {
    plan: Vec<Chapter>,
    machine: String,
    prepared: Prepared,
}

/// Fetches and builds what the act needs.
///
/// # Errors
/// If something cannot be fetched or built.
pub(super) fn prepare() -> Result<Act> {
    let suite = Suite::bookworm();
    let release = suite.fetch()?.release;
    let smp = 4;
    let plan = plan::first_act(&release, smp);
    let linux = Linux {
        smp,
        memory: Memory::gib(1),
        limit: LIMIT,
        ..Linux::new(suite, script::write(&plan, ""))
    };
    Ok(Act {
        plan,
        machine: format!(
            "Debian's Linux {release} on {smp} x {}, {} of RAM",
            linux.cpu,
            picture::size(linux.memory.bytes())
        ),
        prepared: linux.prepare()?,
    })
}

impl Act {
    /// How many chapters it has.
    pub(super) const fn chapters(&self) -> usize {
        self.plan.len()
    }

    /// Tells it to `out`. Answers how it went.
    ///
    /// # Errors
    /// If the machine did not come to the act's end.
    pub(super) fn tell(self, out: &mut impl Write, started: Instant) -> Result<Sum> {
        let manner = Manner {
            chapters_before: 0,
            all_of_freehold: true,
        };
        let mut teller = Teller::new(&self.plan, manner, started, out);
        teller.introduce("Act one: Debian is the host", &self.machine);
        let outcome = self.prepared.run(LIMIT, |line| teller.hear(line));
        // Even of a run that broke off, what was seen is judged and shown.
        let mut sum = teller.finish();
        sum.is_well &= outcome?.status == 0;
        Ok(sum)
    }
}
