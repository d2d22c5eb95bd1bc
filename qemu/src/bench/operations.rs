//! What each operation costs, seen from EL1 and at EL2.

use super::{
    Twice,
    linux::{self, Anchor},
    payload::{self, Images, Results, Setting, Visits},
};
use crate::machine::Memory;
use anyhow::{Context as _, Result, ensure};
use serde::Serialize;

/// RAM enough for an aligned GiB that is free.
const MEMORY: Memory = Memory::gib(4);

/// Where an operation is counted.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Place {
    /// From the host at EL1: the instructions of the host and of EL2 between two reads of the counter.
    El1,
    /// At EL2 alone, from the vector to the ERET.
    El2,
}

/// What an operation costs, in instructions.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Operation {
    /// CPU model.
    pub cpu: String,
    /// The payload's name for it.
    pub name: String,
    /// A reader's.
    pub title: String,
    /// Seen from EL1, where the operation is called from: the host's, or a guest's for its own calls. The least of the
    /// samples. `None` if it would hold more than the operation.
    pub el1: Option<u64>,
    /// At EL2.
    pub el2: u64,
    /// How often host or guest came to EL2.
    pub exits: u64,
    /// TLB invalidations.
    pub tlbi: u64,
    /// Data synchronization barriers.
    pub dsb: u64,
    /// Instruction synchronization barriers.
    pub isb: u64,
    /// Data cache instructions.
    pub dc: u64,
    /// Instruction cache instructions.
    pub ic: u64,
    /// Calls to the firmware.
    pub smc: u64,
    /// What the scrubbing takes of it, if it scrubs.
    pub scrubbing: Option<Scrubbing>,
    /// Linux's figure, if there is one.
    pub anchor: Option<Anchor>,
}

/// The part of an operation that zeroes memory and cleans the caches, in instructions.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
pub struct Scrubbing {
    /// What is scrubbed, in bytes.
    pub bytes: u64,
    /// Executed to zero it.
    pub zeroing: u64,
    /// The least that zeroes it: a `DC ZVA` for each block.
    pub zeroing_floor: u64,
    /// Executed to clean it from the caches.
    pub cleaning: u64,
    /// The least that cleans it: a `DC` for each line.
    pub cleaning_floor: u64,
}

impl Operation {
    /// The figure that is compared with the anchor: the one that was counted at the same place.
    #[must_use]
    pub fn anchored(&self) -> u64 {
        match (&self.anchor, self.el1) {
            (Some(anchor), Some(el1)) if anchor.place == Place::El1 => el1,
            _ => self.el2,
        }
    }

    /// What EL2 executes beside scrubbing.
    #[must_use]
    pub fn bookkeeping(&self) -> u64 {
        let scrubbing = self
            .scrubbing
            .map_or(0, |scrubbing| scrubbing.zeroing + scrubbing.cleaning);
        self.el2.saturating_sub(scrubbing)
    }
}

/// Titles of the benchmarks, in the order of the report.
const TITLES: [(&str, &str); 41] = [
    ("empty_call", "empty hypercall"),
    ("firmware_call", "SMC forwarded to the firmware"),
    ("share_page", "share 4 KiB"),
    ("unshare_page", "unshare 4 KiB"),
    ("share_refused", "share refused"),
    (
        "share_page_of_block",
        "share 4 KiB, first shared of its 2 MiB block",
    ),
    ("share_512_pages", "share 512 pages, unaligned"),
    ("unshare_512_pages", "unshare 512 pages, unaligned"),
    ("share_2m", "share 2 MiB block"),
    ("unshare_2m", "unshare 2 MiB block"),
    ("donate_4k", "donate 4 KiB"),
    ("give_back_4k", "give back 4 KiB"),
    (
        "donate_page_of_block",
        "donate 4 KiB, first donated of its 2 MiB block",
    ),
    ("donate_2m", "donate 2 MiB"),
    ("give_back_2m", "give back 2 MiB"),
    ("donate_1g", "donate 1 GiB"),
    ("give_back_1g", "give back 1 GiB"),
    ("refused_load", "host abort refused: load"),
    ("refused_store", "host abort refused: store"),
    ("refused_fetch", "host abort refused: fetch"),
    ("guest_donate_4k", "guest: donate 4 KiB"),
    ("guest_donate_2m", "guest: donate 2 MiB"),
    ("guest_donate_64m", "guest: donate 64 MiB"),
    ("guest_fault_in", "guest: fault in 4 KiB, all visits"),
    ("guest_reclaim_4k", "guest: reclaim 4 KiB"),
    ("guest_reclaim_2m", "guest: reclaim 2 MiB"),
    ("guest_reclaim_64m", "guest: reclaim 64 MiB"),
    ("guest_share_page", "guest shares 4 KiB"),
    ("guest_unshare_page", "guest unshares 4 KiB"),
    (
        "guest_share_page_of_block",
        "guest shares 4 KiB, first shared of its 2 MiB block",
    ),
    (
        "guest_unshare_page_of_block",
        "guest unshares 4 KiB, last unshared of its 2 MiB block",
    ),
    ("guest_share_64m", "guest shares 64 MiB, ranged"),
    ("guest_unshare_64m", "guest unshares 64 MiB, ranged"),
    ("guest_features", "guest call answered at EL2: features"),
    ("guest_memory_info", "guest call answered at EL2: memory info"),
    ("guest_answered_by_host", "guest call answered by the host"),
    ("guest_run_at_once", "run that ends at once"),
    ("guest_entry", "entry: host to guest"),
    ("guest_exit", "exit: guest to host"),
    ("vm_create", "create a VM and its vCPU"),
    ("vm_destroy", "destroy a VM, both calls"),
];

/// Benchmarks whose bracket at EL1 holds more than the operation.
const EL2_ONLY: [&str; 6] = [
    // The host's own handler.
    "refused_load",
    "refused_store",
    "refused_fetch",
    // The other half.
    "guest_entry",
    "guest_exit",
    // Taking the frames back, between the two calls.
    "vm_destroy",
];

/// How many bytes a benchmark scrubs.
fn scrubbed(name: &str) -> Option<u64> {
    match name {
        "give_back_4k" => Some(4 << 10),
        "give_back_2m" => Some(2 << 20),
        "give_back_1g" => Some(1 << 30),
        "guest_donate_4k" | "guest_fault_in" | "guest_reclaim_4k" => Some(4 << 10),
        "guest_donate_2m" | "guest_reclaim_2m" => Some(2 << 20),
        "guest_donate_64m" | "guest_reclaim_64m" => Some(64 << 20),
        _ => None,
    }
}

/// Every benchmark on `cpu`.
const fn everything(cpu: &str) -> Setting<'_> {
    Setting {
        cpu,
        memory: MEMORY,
        filter: "",
    }
}

/// Counts every operation on `cpu`.
///
/// # Errors
/// If a run proves nothing, or the payload has benchmarks that are not known here, or lacks some that are.
pub fn measure(images: &Images, cpu: &str, twice: &mut Twice) -> Result<Vec<Operation>> {
    let results = twice.run(&format!("the operations on {cpu}"), || {
        payload::run(images, everything(cpu), Visits::Counted)
    })?;
    evaluate(cpu, &results)
}

/// Runs every operation on `cpu`, judges no figure, and says what is missing or not known.
///
/// # Errors
/// If there is any such thing, or the run proves nothing.
pub fn check(images: &Images, cpu: &str) -> Result<()> {
    let (results, _) = payload::run(images, everything(cpu), Visits::Ignored)?;
    complete(&results)
}

fn complete(results: &Results) -> Result<()> {
    ensure!(
        results.skipped.is_empty(),
        "the payload skipped {}",
        results.skipped.join(", ")
    );
    let names = || results.values.iter().map(|(name, _)| name.as_str());
    for (known, _) in TITLES {
        ensure!(
            names().any(|name| name == known),
            "the payload did not run {known}"
        );
    }
    for name in names().filter(|name| *name != "floor") {
        ensure!(
            TITLES.iter().any(|(known, _)| *known == name),
            "the payload ran {name}, which is not known"
        );
    }
    Ok(())
}

fn evaluate(cpu: &str, results: &Results) -> Result<Vec<Operation>> {
    complete(results)?;
    let (line, block) = (results.fact("cache_line")?, results.fact("zero_block")?);
    ensure!(line > 0 && block > 0, "a cache line of no bytes");
    let operation = |(name, title): (&str, &str)| {
        let (_, value) = results
            .values
            .iter()
            .find(|(other, _)| other == name)
            .with_context(|| format!("no figure for {name}"))?;
        let work = results
            .work
            .get(&value.marker)
            .with_context(|| format!("the plugin saw no visit of {name}"))?;
        ensure!(
            name != "firmware_call" || work.census.calls > 0,
            "a call for the firmware was answered at EL2"
        );
        Ok(Operation {
            cpu: cpu.to_owned(),
            name: name.to_owned(),
            title: title.to_owned(),
            el1: (!EL2_ONLY.contains(&name)).then_some(value.least),
            el2: work.census.instructions,
            exits: work.exits,
            tlbi: work.census.tlbi,
            dsb: work.census.dsb,
            isb: work.census.isb,
            dc: work.census.dc,
            ic: work.census.ic,
            smc: work.census.calls,
            scrubbing: scrubbed(name).map(|bytes| Scrubbing {
                bytes,
                zeroing: work.zeroing,
                zeroing_floor: bytes / block,
                cleaning: work.cleaning,
                cleaning_floor: bytes / line,
            }),
            anchor: linux::anchor(name, cpu),
        })
    };
    TITLES.into_iter().map(operation).collect()
}
