//! What Debian's boot takes as a guest whose host is a Debian with the module: protected, against not.
//!
//! From the start of the VMM to the first words of the guest's user space, by the host's clock, which counts instructions
//! and, where the machine has nothing to do, goes on to the next timer. That time is taken off: how much there is depends on
//! how the guest's waits fall on the host's. What is left is what the guest, EL2, the host kernel and the VMM do.
//!
//! A protected guest's launch digest, SHA-256 over its kernel and initramfs, is counted apart: Linux computes none. Linux's
//! ratio is shown and does not judge ours: it is of seconds, of another VMM's guest, and a guest without a seed gathers
//! entropy by itself, from how its work falls on the clock, which takes some percent more in one build than in another.

use super::Twice;
use crate::{
    debian::Suite,
    images::{self, guests},
    linux::Linux,
    machine::{Run, layout},
    plugin::{Line, Mode, Named, Options, Plugin, Report},
    symbols::table::Table,
    verdict,
    workspace::Scratch,
};
use anyhow::{Context as _, Result, ensure};
use serde::Serialize;
use std::time::Duration;

/// How long the machine may run.
const LIMIT: Duration = Duration::from_secs(600);

/// What init signs with. It is on the kernel's command line, so it must not differ from boot to boot.
const NONCE: &str = "0000000000000000";

/// Seconds from power-up to user space that Linux 7.2 takes, protected and not (kvmtool, under pKVM).
const LINUX: [f64; 2] = [10.2, 8.25];

/// What of EL2 computes digests: of frames by the CPU, and in software what is made of those. It does next to nothing else in
/// these runs.
const DIGEST: [&str; 2] = ["digest_blocks", "compress256"];

/// The guests' work.
const GUEST: &str = "echo the guest is in user space\n";

/// The host's, once its random number generator is seeded (until it is, system calls are slow): a guest of each kind, the time before it and the time at its words.
const HOST: &str = "
insmod /freehold.ko
head -c 1 /dev/random >/dev/null
now() {
    awk '/^now at/ { now = $3 } /idle_sleeptime/ { idle = $3 } END { printf \"%.0f\\n\", now - idle }' /proc/timer_list
}
boot() {
    kind=$1
    shift
    begin=$(now)
    /freehold-vmm --kernel /guest/debian --initrd /guest/initramfs --memory 256M \"$@\" </dev/null 2>/tmp/errors |
        while read -r line; do
            case $line in
            'the guest is in user space'*) echo \"B value $kind 0 1 $(($(now) - begin))\" ;;
            esac
        done
    cat /tmp/errors
}
boot open
boot protected --protected
";

/// Instructions from the VMM's start to the guest's user space.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
pub struct GuestBoot {
    /// Of a protected guest.
    pub protected: u64,
    /// Of these, EL2's for the launch digest.
    pub digest: u64,
    /// Of one that is not protected.
    pub open: u64,
}

impl GuestBoot {
    /// How much more a protected guest takes.
    #[must_use]
    pub fn ratio(&self) -> f64 {
        self.protected as f64 / self.open as f64
    }

    /// How much more it takes but for the launch digest.
    #[must_use]
    pub fn ratio_without_digest(&self) -> f64 {
        self.protected.saturating_sub(self.digest) as f64 / self.open as f64
    }

    /// Linux's ratio.
    #[must_use]
    pub fn linux() -> f64 {
        LINUX[0] / LINUX[1]
    }
}

/// Boots both: `cortex-a72`, one CPU, 1 GiB, Debian 6.12 as host and as guest.
///
/// # Errors
/// If something cannot be fetched or built, or a boot proves nothing.
pub fn measure(twice: &mut Twice) -> Result<GuestBoot> {
    let plugin = Plugin::build()?;
    twice.run("Debian's boot as a guest", || run(&plugin))
}

fn run(plugin: &Plugin) -> Result<(GuestBoot, String)> {
    let suite = Suite::bookworm_backports();
    let packages = suite.fetch()?;
    let linux = Linux {
        smp: 1,
        parameters: "nokaslr".to_owned(),
        limit: LIMIT,
        files: vec![("freehold.ko".to_owned(), images::linux_module(&packages)?)],
        initrd: Some(guests::archive("bench", &packages, GUEST)?),
        ..Linux::new(suite, HOST)
    };
    let scratch = Scratch::new()?;
    let (mut machine, hypervisor) = linux.machine(&scratch, NONCE)?;
    machine.icount = true;
    let elf = &hypervisor.as_ref().context("Freehold takes part")?.elf;
    let file = scratch.path().join("counts.json");
    let mut options = Options::new(Mode::Count, &file);
    let symbols = Table::load(elf, layout::FREEHOLD)?;
    for name in DIGEST {
        options.ranges.push(Named {
            name: name.to_owned(),
            at: symbols.span_of_only(name)?,
        });
    }
    plugin.attach(&mut machine, &options)?;
    let run = machine.run(LIMIT, |_| ())?;
    let digest = Report::read(&file)?.lines().iter().map(digest).sum();
    let boot = parse(&run, digest).with_context(|| run.report(Some(elf)))?;
    Ok((boot, run.command))
}

/// What a line tells of digests.
fn digest(line: &Line) -> u64 {
    match line {
        Line::Total(total) => DIGEST.iter().filter_map(|name| total.counts.get(*name)).sum(),
        _ => 0,
    }
}

fn parse(run: &Run, digest: u64) -> Result<GuestBoot> {
    let status = verdict::init::judge(run, NONCE);
    ensure!(status == Ok(0), "the host did not come through: {status:?}");
    let value = |kind: &str| {
        let begin = format!("B value {kind} 0 1 ");
        let mut values = run
            .console
            .iter()
            .filter_map(|line| line.trim().strip_prefix(&begin)?.parse().ok());
        let value: Option<u64> = values.next();
        let value = value.with_context(|| format!("the {kind} guest did not come to user space"))?;
        ensure!(values.next().is_none(), "the {kind} guest came there twice");
        Ok(value)
    };
    Ok(GuestBoot {
        protected: value("protected")?,
        digest,
        open: value("open")?,
    })
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

    #[test]
    fn each_guest_must_come_to_user_space_once() {
        let (open, protected) = ("B value open 0 1 1000\n", "B value protected 0 1 1900\n");
        let end = verdict::init::mark(NONCE) + "0";
        let boot = parse(&run(&format!("{open}{protected}{end}")), 700).unwrap();
        assert_eq!((boot.open, boot.protected, boot.digest), (1000, 1900, 700));
        assert!((boot.ratio() - 1.9).abs() < 0.01 && (boot.ratio_without_digest() - 1.2).abs() < 0.01);
        for wrong in [
            open.to_owned(),
            protected.to_owned(),
            format!("{open}{open}{protected}"),
        ] {
            assert!(parse(&run(&(wrong + &end)), 700).is_err());
        }
    }
}
