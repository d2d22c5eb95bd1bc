//! The programs that come from the system's own packages.

use crate::{process, progress::Step};
use anyhow::{Context as _, Result, bail};
use std::{fs, process::Command};

/// A program and the Debian package that brings it.
struct Tool {
    program: &'static str,
    package: &'static str,
}

/// What building and booting need beyond rustup and a C linker.
const TOOLS: [Tool; 8] = [
    Tool {
        program: "qemu-system-aarch64",
        package: "qemu-system-arm",
    },
    // The kernel module of the probe is C, for arm64.
    Tool {
        program: "aarch64-linux-gnu-gcc",
        package: "gcc-aarch64-linux-gnu",
    },
    Tool {
        program: "aarch64-linux-gnu-ld",
        package: "binutils-aarch64-linux-gnu",
    },
    Tool {
        program: "make",
        package: "make",
    },
    // The rest is for the guest kernel.
    Tool {
        program: "flex",
        package: "flex",
    },
    Tool {
        program: "bison",
        package: "bison",
    },
    Tool {
        program: "bc",
        package: "bc",
    },
    Tool {
        program: "xz",
        package: "xz-utils",
    },
];

/// Installs the packages whose programs are missing.
pub(super) fn ensure() -> Result<()> {
    let missing = missing();
    if missing.is_empty() {
        return Ok(());
    }
    let names = missing.join(" ");
    let by_hand = format!("apt-get update && apt-get install --no-install-recommends -y {names}");
    if process::find("apt-get").is_none() {
        bail!("{names} must be installed (these are Debian's names), and there is no apt here to do it");
    }
    if !is_root()? {
        bail!("some packages must be installed first. As root, run:\n\n    {by_hand}\n");
    }
    let mut step = Step::announced(format!("Installing {}", missing.join(", ")));
    // A machine that was set up long ago, or an image without lists, knows versions that are no longer served.
    process::run(&mut step, apt_get(&["update"]))?;
    let mut arguments = vec!["install", "--no-install-recommends", "-y"];
    arguments.extend(&missing);
    process::run(&mut step, apt_get(&arguments)).with_context(|| format!("to try by hand: {by_hand}"))?;
    step.done();
    let still = self::missing();
    if !still.is_empty() {
        bail!(
            "{} did not bring the programs that were expected of it",
            still.join(", ")
        );
    }
    Ok(())
}

fn missing() -> Vec<&'static str> {
    TOOLS
        .iter()
        .filter(|tool| process::find(tool.program).is_none())
        .map(|tool| tool.package)
        .collect()
}

fn apt_get(arguments: &[&str]) -> Command {
    let mut command = Command::new("apt-get");
    command
        .env("DEBIAN_FRONTEND", "noninteractive")
        // Another apt may be running, of an unattended upgrade for instance: wait for it.
        .args(["-q", "-o", "DPkg::Lock::Timeout=300"])
        .args(arguments);
    command
}

/// Whether this process may install packages.
fn is_root() -> Result<bool> {
    let status = fs::read_to_string("/proc/self/status").context("cannot read /proc/self/status")?;
    let effective = status
        .lines()
        .find_map(|line| line.strip_prefix("Uid:"))
        .and_then(|numbers| numbers.split_whitespace().nth(1))
        .context("/proc/self/status has no effective user")?;
    Ok(effective == "0")
}
