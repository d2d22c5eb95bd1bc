//! Where EL2 goes on when an instruction of its own takes an external abort.
//!
//! Routines that touch memory which may be broken (scrub, copy), or walk tables of the host's (`AT`), name such an
//! instruction and a place to go on, in the section that this module searches. They are called through [`survive`].
//! Everything else that faults at EL2 is a panic.

#![expect(unsafe_code, reason = "reads a section of the image")]

use crate::layout;
use aarch64_cpu::registers::{ELR_EL2, SPSR_EL2};
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
pub(crate) fn survive<T, E>(work: impl FnOnce() -> Result<T, E>) -> Result<T, E> {
    let (elr, spsr) = (ELR_EL2.get(), SPSR_EL2.get());
    let result = work();
    if result.is_err() {
        ELR_EL2.set(elr);
        SPSR_EL2.set(spsr);
    }
    result
}
