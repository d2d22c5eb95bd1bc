//! Linux guests by the virtual machine monitor, in Debian's kernels as hosts.
//!
//! What the cases say of the monitor must hold on any KVM. Here the host is Linux' own, at EL2, with guests that are not
//! protected.

use super::{Script, Session, matrix};
use anyhow::{Result, bail};
use freehold_runner::{
    debian::Suite,
    images::guests,
    linux::{Linux, Prepared},
    machine::Memory,
};
use std::time::Duration;

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
            memory: Memory::gib(1),
            initrd: Some(guests::archive(
                "vmm",
                &Suite::bookworm_backports().fetch()?,
                GUEST,
            )?),
            limit: Duration::from_secs(300),
            ..Linux::new(suite, "")
        };
        let session = Session::new(format!("kvm::{kernel}"), linux, &[], &[Script::VMM]);
        sessions.push(session.changed(with_el2));
    }
    Ok(sessions)
}

/// Leaves EL2 to the host.
fn with_el2(prepared: &mut Prepared) -> Result<()> {
    if prepared.hypervisor.is_some() {
        bail!("EL2 is Freehold's here");
    }
    prepared.machine.virtualization = true;
    Ok(())
}
