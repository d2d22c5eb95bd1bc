//! Linux guests by the virtual machine monitor, each case a test.

use freehold_tests::linux::{self, vmm};
use freehold_tests::trials::{self, MACHINES_AT_ONCE};
use libtest_mimic::{Arguments, Trial};
use std::process::ExitCode;

fn list(arguments: &Arguments) -> anyhow::Result<Vec<Trial>> {
    Ok(linux::trials(
        arguments,
        vmm::on_freehold()?.into_iter().chain(vmm::on_kvm()?),
    ))
}

fn main() -> ExitCode {
    trials::run(Some(MACHINES_AT_ONCE), list)
}
