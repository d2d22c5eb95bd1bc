//! From reset to the host's first instruction.

use super::{
    Twice,
    linux::{self, Anchor},
    payload::{self, Images, Setting},
};
use crate::{
    machine::{Ending, Memory, layout},
    plugin::{Mode, Named, Options, Report, Span},
    symbols::table::Table,
    workspace::Scratch,
};
use anyhow::{Context as _, Result, ensure};
use serde::Serialize;
use std::{path::Path, time::Duration};

/// How long the machine may run.
const LIMIT: Duration = Duration::from_secs(120);

/// The machine that Linux's figure was counted on.
const MEMORY: Memory = Memory::gib(1);

/// The boot on one CPU model, in instructions.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Boot {
    /// CPU model.
    pub cpu: String,
    /// What EL2 executes.
    pub el2: u64,
    /// All that is executed, the loader's few instructions included.
    pub all: u64,
    /// Linux's figure.
    pub anchor: Anchor,
}

/// Counts the boot on `cpu`, one CPU, 1 GiB.
///
/// # Errors
/// If the run proves nothing, or never comes to the host.
pub fn measure(images: &Images, cpu: &str, twice: &mut Twice) -> Result<Boot> {
    let (el2, all) = twice.run(&format!("the boot on {cpu}"), || run(images, cpu))?;
    Ok(Boot {
        cpu: cpu.to_owned(),
        el2,
        all,
        anchor: linux::boot(),
    })
}

fn run(images: &Images, cpu: &str) -> Result<((u64, u64), String)> {
    let setting = Setting {
        cpu,
        memory: MEMORY,
        // The payload must do something.
        filter: "=empty_call",
    };
    let mut machine = payload::machine(images, setting);
    let host = machine.host.as_ref().context("the machine has a host")?;
    let entry = layout::place(&machine, host)?.kernel;
    let scratch = Scratch::new()?;
    let file = scratch.path().join("counts.json");
    let mut options = Options::new(Mode::Count, &file);
    options.ranges = vec![el2(&images.hypervisor.elf)?];
    options.marks = vec![Named {
        name: "host".to_owned(),
        at: entry,
    }];
    images.plugin.attach(&mut machine, &options)?;
    let run = machine.run(LIMIT, |_| ())?;
    ensure!(
        run.ending == Ending::Exited(0),
        "the boot was not seen\n{}",
        run.report(Some(&images.hypervisor.elf))
    );
    let counts = Report::read(&file)?.between(None, "host", 0)?;
    let el2 = counts.get("el2").copied().unwrap_or_default();
    Ok(((el2, counts.values().sum()), run.command))
}

/// The range of Freehold's image, for the plugin.
pub(super) fn el2(elf: &Path) -> Result<Named<Span>> {
    Ok(Named {
        name: "el2".to_owned(),
        at: Table::load(elf, layout::FREEHOLD)?.image(),
    })
}
