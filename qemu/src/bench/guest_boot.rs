//! How long Debian takes to boot as a guest whose host is a Debian with the module: protected, against not.
//!
//! From the start of the VMM to the first words of the guest's user space, by the host's clock, which counts instructions:
//! what the guest, EL2, the host kernel and the VMM do for it. Only the ratio is compared with Linux's, whose guest was
//! another VMM's.

use super::Twice;
use crate::{
    debian::Suite,
    images::{self, guests},
    linux::Linux,
    machine::Run,
    plugin::FIXED_CLOCK,
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

/// Seconds from power-up to user space that Linux 7.2 takes, protected and not (kvmtool, under pKVM): the ratio to beat.
const LINUX: [f64; 2] = [10.2, 8.25];

/// The guests' work.
const GUEST: &str = "echo the guest is in user space\n";

/// The host's: a guest of each kind, the time before it and the time at its words.
const HOST: &str = "
insmod /freehold.ko
now() {
    sed -n 's/^now at \\([0-9]*\\) nsecs$/\\1/p' /proc/timer_list
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
    /// Of one that is not.
    pub open: u64,
}

impl GuestBoot {
    /// How much longer it takes a protected guest.
    #[must_use]
    pub fn ratio(&self) -> f64 {
        self.protected as f64 / self.open as f64
    }

    /// Linux's ratio.
    #[must_use]
    pub fn limit() -> f64 {
        LINUX[0] / LINUX[1]
    }

    /// Whether it is below Linux's.
    #[must_use]
    pub fn is_good(&self) -> bool {
        self.ratio() < Self::limit()
    }
}

/// Boots both: `cortex-a72`, one CPU, 1 GiB, Debian 6.12 as host and as guest.
///
/// # Errors
/// If something cannot be fetched or built, or a boot proves nothing.
pub fn measure(twice: &mut Twice) -> Result<GuestBoot> {
    twice.run("Debian's boot as a guest", run)
}

fn run() -> Result<(GuestBoot, String)> {
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
    machine.extra.extend(FIXED_CLOCK.map(Into::into));
    let run = machine.run(LIMIT, |_| ())?;
    let elf = hypervisor.as_ref().map(|image| image.elf.as_path());
    let boot = parse(&run).with_context(|| run.report(elf))?;
    Ok((boot, run.command))
}

fn parse(run: &Run) -> Result<GuestBoot> {
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
        let (open, protected) = ("B value open 0 1 1000\n", "B value protected 0 1 1200\n");
        let end = verdict::init::mark(NONCE) + "0";
        let boot = parse(&run(&format!("{open}{protected}{end}"))).unwrap();
        assert_eq!((boot.open, boot.protected), (1000, 1200));
        assert!(boot.is_good());
        for wrong in [
            open.to_owned(),
            protected.to_owned(),
            format!("{open}{open}{protected}"),
        ] {
            assert!(parse(&run(&(wrong + &end))).is_err());
        }
    }

    #[test]
    fn the_ratio_must_be_below_linux_s() {
        let good = |protected| {
            GuestBoot {
                protected,
                open: 8_250,
            }
            .is_good()
        };
        assert!(good(10_199));
        assert!(!good(10_201));
    }
}
