//! Kernel pages for a script to play with: shared, donated, touched and taken back.

use crate::conduit::Conduit;
use crate::device::Device;
use crate::outcome::Exit;
use crate::sacrifice::{self, Ended};
use anyhow::{Context, bail};
use host_shim::Hypervisor;
use hyp_abi::{FRAME_SIZE, FrameState};
use std::process::Command;

/// The environment variable that tells the script the physical addresses, with spaces between.
const VARIABLE: &str = "FREEHOLD_PAGES";

/// Allocates `count` runs of 2^`order` pages, runs a command that finds their addresses in the environment, and gives
/// the pages back to the kernel: those that are plainly the host's again. The others stay allocated, so that the
/// kernel does not touch what it may not. Answers the exit status.
///
/// # Errors
/// If there are no pages, the command cannot be started, or it left pages that are not the host's.
pub(crate) fn with_pages(device: &Device, order: u32, count: u32, command: &[String]) -> anyhow::Result<u8> {
    let [program, arguments @ ..] = command else {
        bail!("no command")
    };
    let bytes = FRAME_SIZE.checked_shl(order).context("the order is too large")?;
    let mut runs = Vec::new();
    for _ in 0..count {
        let base = device
            .allocate_pages(order)
            .with_context(|| format!("pages of order {order}"))?;
        println!("pages base={base:#x} bytes={bytes:#x} outcome=allocated");
        runs.push(base);
    }
    let addresses: Vec<_> = runs.iter().map(|base| format!("{base:#x}")).collect();
    let status = Command::new(program)
        .args(arguments)
        .env(VARIABLE, addresses.join(" "))
        .status();

    let mut all_back = true;
    for base in runs {
        if is_hosts(device, base, bytes)? {
            device.free_pages(base, order)?;
            println!("pages base={base:#x} bytes={bytes:#x} outcome=freed");
        } else {
            all_back = false;
            println!("pages base={base:#x} bytes={bytes:#x} outcome=kept");
        }
    }
    let status = status.with_context(|| program.clone())?;
    if !all_back {
        bail!("the command left pages that are not plainly the host's");
    }
    Ok(status
        .code()
        .and_then(|code| u8::try_from(code).ok())
        .unwrap_or(Exit::Died as u8))
}

/// Whether every frame is in state `Host`, or there is no Freehold that could have it otherwise.
fn is_hosts(device: &Device, base: u64, bytes: u64) -> anyhow::Result<bool> {
    let ended = sacrifice::in_child(|| {
        let Ok(conduit) = Conduit::connect(device, false) else {
            return [1, 0];
        };
        let hypervisor = Hypervisor::new(&conduit);
        let mut frames = (base..base + bytes).step_by(FRAME_SIZE as usize);
        let hosts = frames.all(|frame| {
            hypervisor
                .frame_state(frame)
                .is_ok_and(|info| info.state == FrameState::Host)
        });
        [hosts.into(), 0]
    })?;
    // A child that was killed asked by an undefined instruction: there is no EL2.
    Ok(!matches!(ended, Ended::Answered([0, _])))
}
