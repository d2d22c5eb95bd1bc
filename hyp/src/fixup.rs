//! Where EL2 goes on when an instruction of its own takes an external abort.
//!
//! Routines that touch memory which may be broken (scrub, copy), or walk tables of the host's (`AT`), name such an
//! instruction and a place to go on, in the section that this module searches. They are called through [`survive`].
//! Everything else that faults at EL2 is a panic.

#![expect(
    unsafe_code,
    reason = "reads a section of the image, and memory that may answer with an abort"
)]

use crate::layout;
use aarch64_cpu::registers::{ELR_EL2, SPSR_EL2};
use core::arch::asm;
use core::ptr;
use tock_registers::interfaces::{Readable, Writeable};

/// One fixup. Both fields are offsets from their own address, so that nothing must be relocated.
#[repr(C)]
struct Fixup {
    instruction: i32,
    target: i32,
}

/// Where to go on instead of the instruction at `address`, if it has a fixup.
pub(crate) fn find(address: u64) -> Option<u64> {
    let start = layout::fixup_start();
    let count = (layout::fixup_end() - start) / size_of::<Fixup>() as u64;
    (0..count)
        .map(|index| start + index * size_of::<Fixup>() as u64)
        .find_map(|at| {
            let fixup: *const Fixup = ptr::with_exposed_provenance(at as usize);
            // SAFETY: the linker script puts whole fixups, and nothing else, between its two symbols.
            let Fixup { instruction, target } = unsafe { fixup.read() };
            let here = at.wrapping_add_signed(instruction.into());
            (here == address).then(|| (at + 4).wrapping_add_signed(target.into()))
        })
}

/// Does work that may take an abort with a fixup, and then answers an error.
///
/// An exception at EL2 overwrites ELR_EL2 and SPSR_EL2 (Arm ARM DDI 0487, J1.1, `AArch64.TakeException`), and these say where and at which
/// level the host goes on. Were they not put back, the host's next ERET would lead into EL2 with the host's registers.
#[inline(always)]
pub(crate) fn survive<T, E>(work: impl FnOnce() -> Result<T, E>) -> Result<T, E> {
    let (elr, spsr) = (ELR_EL2.get(), SPSR_EL2.get());
    let result = work();
    if result.is_err() {
        ELR_EL2.set(elr);
        SPSR_EL2.set(spsr);
    }
    result
}

/// The memory system answered an access with an external abort.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Aborted;

/// One access by `$instruction` to `$address`, which leaves with `Err` where it aborts.
macro_rules! access {
    ($instruction:literal, $address:expr, $value:ident, $direction:ident) => {{
        let aborted: u64;
        // SAFETY: the caller vouches for the access; an abort of it is fixed up.
        unsafe {
            asm!(
                "mov {aborted}, #1",
                concat!("2: ", $instruction),
                "mov {aborted}, xzr",
                "3:",
                ".pushsection .fixup, \"a\"",
                ".balign 4",
                ".long 2b - .",
                ".long 3b - .",
                ".popsection",
                address = in(reg) $address,
                value = $direction(reg) $value,
                aborted = out(reg) aborted,
                options(nostack, preserves_flags),
            )
        };
        if aborted == 0 { Ok(()) } else { Err(Aborted) }
    }};
}

/// Reads a 32-bit word.
///
/// # Errors
/// [`Aborted`].
///
/// # Safety
/// `address` is mapped for reading at EL2, aligned, and reading it does nothing that EL2 relies on not to happen.
pub(crate) unsafe fn read_u32(address: u64) -> Result<u32, Aborted> {
    survive(|| {
        let value: u64;
        access!("ldr {value:w}, [{address}]", address, value, out).map(|()| value as u32)
    })
}

/// Reads a 64-bit word.
///
/// # Errors
/// [`Aborted`].
///
/// # Safety
/// As for [`read_u32`].
pub(crate) unsafe fn read_u64(address: u64) -> Result<u64, Aborted> {
    survive(|| {
        let value: u64;
        access!("ldr {value}, [{address}]", address, value, out).map(|()| value)
    })
}

/// Writes a 32-bit word.
///
/// # Errors
/// [`Aborted`].
///
/// # Safety
/// `address` is mapped for writing at EL2 and aligned, and nothing that Rust knows of lies there.
pub(crate) unsafe fn write_u32(address: u64, value: u32) -> Result<(), Aborted> {
    survive(|| access!("str {value:w}, [{address}]", address, value, in))
}

/// Writes a 64-bit word.
///
/// # Errors
/// [`Aborted`].
///
/// # Safety
/// As for [`write_u32`].
#[inline(always)]
pub(crate) unsafe fn write_u64(address: u64, value: u64) -> Result<(), Aborted> {
    survive(|| access!("str {value}, [{address}]", address, value, in))
}
