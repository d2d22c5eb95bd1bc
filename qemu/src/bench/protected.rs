//! What a protected guest sees of its operations, whose host is a Debian with the module: its own work, EL2's, the host
//! kernel's and the VMM's, between two reads of its own counter, as Linux's figures were counted.
//!
//! The host's interrupts may come at any moment, and what they take is in the sample then: medians are compared.

use super::{Twice, linux::Anchor};
use crate::{
    debian::Suite, images, linux::Linux, machine::Run, plugin::FIXED_CLOCK, verdict, workspace::Scratch,
};
use anyhow::{Context as _, Result, ensure};
use serde::Serialize;
use std::time::Duration;

/// How long the machine may run.
const LIMIT: Duration = Duration::from_secs(300);

/// What init signs with. It is on the kernel's command line, so it must not differ from boot to boot.
const NONCE: &str = "0000000000000000";

/// The operations: what the guest calls them, titles, and Linux's figures.
const ROWS: [(&str, &str, u64); 6] = [
    ("guest_fault_in", "4 KiB fault-in, the page allocated", 10_546),
    ("guest_share", "MEM_SHARE", 3_191),
    ("guest_unshare", "MEM_UNSHARE", 3_176),
    ("guest_call", "call answered at EL2", 185),
    ("guest_host_call", "call answered by the host kernel", 4_478),
    ("guest_mmio_store", "MMIO store to the VMM and back", 8_946),
];

/// An operation as a protected guest sees it, in instructions.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Seen {
    /// A reader's name for it.
    pub title: String,
    /// How often it was counted.
    pub samples: u64,
    /// The least.
    pub least: u64,
    /// The median.
    pub median: u64,
    /// Linux's figure, seen from the guest.
    pub anchor: Anchor,
}

impl Seen {
    /// Whether it is below Linux's.
    #[must_use]
    pub const fn is_good(&self) -> bool {
        self.anchor.is_above(self.median)
    }
}

/// Counts all of them: `cortex-a72`, one CPU, 1 GiB, Linux 6.12.
///
/// # Errors
/// If something cannot be fetched or built, or a run proves nothing.
pub fn measure(twice: &mut Twice) -> Result<Vec<Seen>> {
    twice.run("a protected guest on Debian", run)
}

fn run() -> Result<(Vec<Seen>, String)> {
    let suite = Suite::bookworm_backports();
    let files = vec![
        ("freehold.ko".to_owned(), images::linux_module(&suite.fetch()?)?),
        ("payload-kvm".to_owned(), images::payload_kvm()?),
    ];
    let linux = Linux {
        smp: 1,
        parameters: "nokaslr".to_owned(),
        limit: LIMIT,
        files,
        ..Linux::new(suite, "insmod /freehold.ko && /payload-kvm count\n")
    };
    let scratch = Scratch::new()?;
    let (mut machine, hypervisor) = linux.machine(&scratch, NONCE)?;
    machine.icount = true;
    machine.extra.extend(FIXED_CLOCK.map(Into::into));
    let run = machine.run(LIMIT, |_| ())?;
    let elf = hypervisor.as_ref().map(|image| image.elf.as_path());
    let seen = parse(&run).with_context(|| run.report(elf))?;
    Ok((seen, run.command))
}

fn parse(run: &Run) -> Result<Vec<Seen>> {
    let status = verdict::init::judge(run, NONCE);
    ensure!(status == Ok(0), "the guest did not come through: {status:?}");
    let value = |name: &str| {
        let words = run.console.iter().find_map(|line| {
            let words: Vec<_> = line.trim().split(' ').collect();
            matches!(words[..], ["B", "value", named, ..] if named == name).then_some(words)
        });
        let words = words.with_context(|| format!("there is no figure of {name}"))?;
        let numbers: Vec<u64> = words[3..]
            .iter()
            .map(|word| word.parse())
            .collect::<Result<_, _>>()?;
        <[u64; 4]>::try_from(numbers)
            .ok()
            .with_context(|| format!("a figure of {name} is missing"))
    };
    // The reads of the counter are in every bracket.
    let [.., floor] = value("floor")?;
    let row = |&(name, title, anchor): &(&str, &str, u64)| {
        let [_, samples, least, median] = value(name)?;
        let net = |ticks: u64| {
            ticks
                .checked_sub(floor)
                .with_context(|| format!("{name} takes less than nothing"))
        };
        Ok(Seen {
            title: title.to_owned(),
            samples,
            least: net(least)?,
            median: net(median)?,
            anchor: Anchor::at_el1(anchor, title),
        })
    };
    ROWS.iter().map(row).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::machine::Ending;

    fn run(console: &str) -> Run {
        Run {
            console: console.lines().map(str::to_owned).collect(),
            complaints: String::new(),
            ending: Ending::Exited(0),
            elapsed: Duration::ZERO,
            command: String::new(),
        }
    }

    fn whole() -> String {
        let mut text = "B value floor 0 11 3 3\n".to_owned();
        for (name, ..) in ROWS {
            text += &format!("B value {name} 0 11 100 188\n");
        }
        text + &verdict::init::mark(NONCE) + "0"
    }

    #[test]
    fn the_floor_is_taken_off_and_a_figure_that_equals_linux_s_is_not_good() {
        let seen = parse(&run(&whole())).unwrap();
        assert_eq!(seen.len(), ROWS.len());
        for row in seen {
            assert_eq!((row.least, row.median), (97, 185));
            assert_eq!(row.is_good(), row.anchor.value != 185);
        }
    }

    #[test]
    fn a_figure_that_is_missing_is_an_error() {
        for (from, to) in [
            ("value guest_share ", "value other "),
            (" 100 188\n", " 100\n"),
            ("188", "2"),
        ] {
            assert!(parse(&run(&whole().replace(from, to))).is_err(), "{from}");
        }
    }
}
