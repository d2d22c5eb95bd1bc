//! What the boot found and made, for everyone after it: the CPUs' data, EL2's memory, the ownership of all RAM.

#![expect(unsafe_code, reason = "turns the CPUs' data into references")]

use crate::hardware::Machine;
use crate::percpu::PerCpu;
use core::ptr;
use hyp_core::addr::{FrameSpan, PhysAddr};
use hyp_core::ownership::Ownership;
use spin::Once;

/// What does not change after the boot.
#[derive(Debug)]
pub(crate) struct Facts {
    /// All of EL2's memory.
    pub(crate) reservation: FrameSpan,
    /// The data of the first CPU; the others' follow, each `stride` bytes on.
    pub(crate) per_cpu: PhysAddr,
    /// Bytes from one CPU's data to the next.
    pub(crate) stride: u64,
    /// How many CPUs there are.
    pub(crate) cpus: usize,
    /// The frames of the root of the host's table.
    pub(crate) host_root: FrameSpan,
    /// VTCR_EL2.
    pub(crate) vtcr: u64,
    /// The UART, for the report of a panic.
    pub(crate) uart: Option<PhysAddr>,
}

static FACTS: Once<Facts> = Once::new();
static OWNERSHIP: Once<Ownership<'static, Machine>> = Once::new();

/// Keeps what the boot found.
pub(crate) fn set_facts(facts: Facts) {
    FACTS.call_once(|| facts);
}

/// What the boot found; `None` before it has.
pub(crate) fn facts() -> Option<&'static Facts> {
    FACTS.get()
}

/// Keeps the ownership of the machine.
pub(crate) fn set_ownership(ownership: Ownership<'static, Machine>) {
    OWNERSHIP.call_once(|| ownership);
}

/// The ownership of the machine.
///
/// # Panics
/// Before the boot has set it, which is before the host runs.
#[inline]
pub(crate) fn ownership() -> &'static Ownership<'static, Machine> {
    try_ownership().expect("the host runs after the boot has set up ownership")
}

/// The ownership of the machine; `None` before the boot has set it.
#[inline]
pub(crate) fn try_ownership() -> Option<&'static Ownership<'static, Machine>> {
    OWNERSHIP.get()
}

/// The data of the CPU with this number, in the order of the device tree; `None` if there is no such CPU.
pub(crate) fn per_cpu(index: usize) -> Option<&'static PerCpu> {
    let facts = facts()?;
    if index >= facts.cpus {
        return None;
    }
    let address = facts.per_cpu.value() + index as u64 * facts.stride;
    let data: *const PerCpu = ptr::with_exposed_provenance(address as usize);
    // SAFETY: the boot has initialized the data of every CPU before it set the facts; it stays where it is, and all
    // that changes in it are atomics.
    Some(unsafe { &*data })
}

/// How many CPUs there are.
pub(crate) fn cpus() -> usize {
    facts().map_or(0, |facts| facts.cpus)
}

/// Bytes that EL2 reserved at boot.
pub(crate) fn reserved_bytes() -> u64 {
    facts().map_or(0, |facts| facts.reservation.bytes())
}
