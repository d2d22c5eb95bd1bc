//! Linux with the host's module: what it does under Freehold, and that it does nothing elsewhere.

use super::{Script, Session, matrix};
use anyhow::{Result, bail};
use freehold_runner::debian::Suite;
use freehold_runner::images;
use freehold_runner::linux::Linux;

/// A Linux host that finds the module built for it, and the cases for `/dev/kvm`, in its root directory.
///
/// # Errors
/// If something cannot be fetched or built.
pub fn host(suite: Suite, script: &str) -> Result<Linux> {
    let module = images::linux_module(&suite.fetch()?)?;
    let files = vec![
        ("freehold.ko".to_owned(), module),
        ("payload-kvm".to_owned(), images::payload_kvm()?),
    ];
    Ok(Linux {
        files,
        ..Linux::new(suite, script)
    })
}

/// The cases, on each of Debian's kernels.
///
/// # Errors
/// If something cannot be fetched or built.
pub fn sessions() -> Result<Vec<Session>> {
    matrix::kernels()
        .into_iter()
        .map(|(kernel, suite)| Ok(Session::new(kernel, host(suite, "")?, &[], &[Script::MODULE])))
        .collect()
}

/// What the module says where there is no Freehold.
const REFUSAL: &str = "freehold: not loaded: there is no Freehold beneath this kernel";

/// Boots a kernel without Freehold, and sees the module refused: on a machine without EL2, or on one whose EL2 the
/// kernel has itself.
///
/// # Errors
/// If it is not refused, or not clearly.
pub fn refuses(suite: Suite, virtualization: bool) -> Result<()> {
    let script =
        "insmod /freehold.ko; echo \"status $?\"; dmesg | grep 'freehold: '; ls /dev/kvm; lsmod; exit 0";
    let linux = Linux {
        freehold: false,
        ..host(suite, script)?
    };
    let mut prepared = linux.prepare()?;
    prepared.machine.virtualization = virtualization;
    let mut console = Vec::new();
    let outcome = prepared.run(linux.limit, |line| console.push(line.to_owned()))?;
    let says = |words: &str| console.iter().any(|line| line.contains(words));
    if outcome.status != 0 || !says("status 1") || !says(REFUSAL) || says("Oops") {
        bail!("{}", outcome.run.report(None));
    }
    Ok(())
}
