//! Linux guests by the virtual machine monitor, in Debian's kernels as hosts.
//!
//! What the cases say of the monitor must hold on any KVM. Where the host is Linux' own, at EL2, guests are not protected;
//! those on Freehold are, and what is said of them concerns Freehold as well.

use super::{Script, Session, matrix, module};
use anyhow::{Context as _, Result, bail};
use freehold_runner::{
    debian::Suite,
    images::guests,
    linux::{Linux, Prepared},
};
use std::{env, path::PathBuf, time::Duration};

/// The script of the guests.
pub(super) const GUEST: &str = include_str!("scripts/guest.sh");

/// The hosts without Freehold, each of Debian's kernels.
///
/// # Errors
/// If a guest's kernel cannot be had.
pub fn on_kvm() -> Result<Vec<Session>> {
    let mut sessions = Vec::new();
    for (kernel, suite) in matrix::kernels() {
        let linux = Linux {
            freehold: false,
            initrd: Some(archive()?),
            limit: Duration::from_secs(600),
            ..Linux::new(suite, "")
        };
        let session = Session::new(format!("kvm::{kernel}"), linux, &[], &[Script::VMM]);
        sessions.push(session.changed(with_el2));
    }
    Ok(sessions)
}

/// The hosts with Freehold, each of Debian's kernels. The older one runs but a part of the cases: what differs is the
/// kernel's side of the module.
///
/// The environment says how much is done: `FREEHOLD_LOAD` for how many seconds clocks are compared, `FREEHOLD_KILLS` how
/// often a monitor is killed.
///
/// # Errors
/// If the module or a guest's kernel cannot be had, or the environment makes no sense.
pub fn on_freehold() -> Result<Vec<Session>> {
    let seconds = number("FREEHOLD_LOAD", 20)?;
    let kills = number("FREEHOLD_KILLS", 5)?;
    let variables = [format!("CLOCK_SECONDS={seconds}"), format!("KILLS={kills}")];
    let mut sessions = Vec::new();
    for (kernel, suite) in matrix::kernels() {
        let is_older = suite != Suite::bookworm_backports();
        let linux = Linux {
            initrd: Some(archive()?),
            limit: Duration::from_secs(600 + seconds + 20 * kills),
            ..module::host(suite, "")?
        };
        let name = format!("freehold::{kernel}");
        let mut session = Session::new(name, linux, &variables, &[Script::PROTECTED]);
        session.retain(|name| !is_older || IN_EACH.iter().any(|case| name.ends_with(case)));
        sessions.push(session);
    }
    Ok(sessions)
}

/// The cases that each of the kernels runs.
const IN_EACH: [&str; 3] = [
    "::debian_with_two_cpus_is_protected",
    "::a_protected_guest_uses_all_devices",
    "::a_secret_dies_with_its_guest",
];

fn archive() -> Result<PathBuf> {
    guests::archive("vmm", &Suite::bookworm_backports().fetch()?, GUEST)
}

/// The number in a variable of the environment, or one for whoever says nothing.
fn number(variable: &str, otherwise: u64) -> Result<u64> {
    match env::var(variable) {
        Ok(text) => text.parse().with_context(|| format!("{variable} is no number")),
        Err(_) => Ok(otherwise),
    }
}

/// Leaves EL2 to the host.
fn with_el2(prepared: &mut Prepared) -> Result<()> {
    if prepared.hypervisor.is_some() {
        bail!("EL2 is Freehold's here");
    }
    prepared.machine.virtualization = true;
    Ok(())
}
