//! The end of a boot on a machine that Freehold cannot run on: it says why, and turns the machine off.
//!
//! [`refuse_main`] is the one Rust function that runs with the MMU off, so it and all it calls use no atomics
//! (no locks, no `log`) and no unaligned accesses (the target never emits one). It may run at EL1, EL2 or EL3.

#![expect(
    unsafe_code,
    reason = "reads the tree and calls the firmware with the MMU off"
)]

use crate::console::Port;
use aarch64_cpu::registers::CurrentEL;
use core::fmt::Write;
use core::ptr;
use dtoolkit::fdt::{Fdt, FdtNode};
use dtoolkit::{Node, Property};
use hyp_core::addr::PhysAddr;
use hyp_core::machine::RefusalReason;
use smccc::{Hvc, Smc, psci};
use tock_registers::interfaces::Readable;

/// Why the entry code gave up.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u64)]
pub(crate) enum RefuseCode {
    /// Not at EL2.
    Level = 0,
    /// E2H cannot be 0.
    E2h = 1,
    /// No 4 KiB granule.
    Granule = 2,
    /// Not loaded on a multiple of 2 MiB.
    Alignment = 3,
}

/// Says why the boot ends and turns the machine off. Called by the entry code with the MMU off.
pub(crate) extern "C" fn refuse_main(code: u64, tree: u64, image: u64) -> ! {
    let level = CurrentEL.read(CurrentEL::EL) as u8;
    let reason = match code {
        code if code == RefuseCode::Level as u64 => RefusalReason::NotEl2(level),
        code if code == RefuseCode::E2h as u64 => RefusalReason::E2hRes1,
        code if code == RefuseCode::Granule as u64 => RefusalReason::NoStage1Granule,
        _ => RefusalReason::ImageMisaligned(image),
    };
    let tree: *const u8 = ptr::with_exposed_provenance(tree as usize);
    if tree.is_null() || !tree.addr().is_multiple_of(8) {
        halt();
    }
    // SAFETY: the boot protocol has the loader put the address of a device tree in x0, and nothing else runs that
    // could write it. The parser refuses what is none.
    let Ok(tree) = (unsafe { Fdt::from_raw(tree) }) else {
        halt()
    };
    // SAFETY: the tree says that a PL011 is there; with the MMU off every access to it is a device access.
    if let Some(mut port) = find_uart(tree).and_then(|address| unsafe { Port::new(address) }) {
        let _ = writeln!(port, "freehold: refused: {reason}");
        port.flush();
    }
    // EL3 has no firmware below it to call.
    if level < 3 {
        power_off(tree);
    }
    halt()
}

/// Turns the machine off by the conduit that the tree names for PSCI.
pub(crate) fn power_off(tree: Fdt<'_>) {
    let Some(node) = tree.root().child("psci") else {
        return;
    };
    let method = node
        .property("method")
        .and_then(|method| method.value_as::<&str>().ok());
    // Comes back only if the firmware cannot do it; then nothing more is to be done.
    let _ = match method {
        Some("hvc") => psci::system_off::<Hvc>(),
        Some("smc") => psci::system_off::<Smc>(),
        _ => Ok(()),
    };
}

/// Finds the PL011 that the tree calls its console, or else the first one.
pub(crate) fn find_uart(tree: Fdt<'_>) -> Option<PhysAddr> {
    let uart = stdout(tree).or_else(|| tree.root().children().find(is_pl011))?;
    let address = uart.reg().ok().flatten()?.next()?.address::<u64>().ok()?;
    PhysAddr::new(address)
}

/// The PL011 of `/chosen/stdout-path`, which may have the line's settings after a colon.
fn stdout(tree: Fdt<'_>) -> Option<FdtNode<'_>> {
    let chosen = tree.chosen()?;
    let path = chosen.stdout_path().ok().flatten()?;
    let node = tree.find_node(path.split(':').next()?)?;
    is_pl011(&node).then_some(node)
}

fn is_pl011(node: &FdtNode<'_>) -> bool {
    node.compatible()
        .is_some_and(|mut names| names.any(|name| name == "arm,pl011"))
}

/// Waits for ever.
pub(crate) fn halt() -> ! {
    loop {
        aarch64_cpu::asm::wfe();
    }
}
