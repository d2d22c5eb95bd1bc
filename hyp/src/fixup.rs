//! Where EL2 goes on when an instruction of its own takes an external abort.
//!
//! Routines that touch memory which may be broken (scrub, copy) name such an instruction and a place to go on, in
//! the section that this module searches. Everything else that faults at EL2 is a panic.

#![expect(unsafe_code, reason = "reads a section of the image")]

use crate::layout;
use core::ptr;

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
