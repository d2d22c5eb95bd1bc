//! Barriers and the few instructions that have no memory operand, each a function.

#![expect(unsafe_code, reason = "barriers and hints are instructions")]

use core::arch::asm;

/// See [`hyp_core::Hardware::bounded`]. Three instructions. CSDB is a hint to assemblers that do not know it, and does
/// nothing on CPUs that do not guess past a conditional select.
#[inline(always)]
pub(crate) fn bounded(index: usize, bound: usize) -> usize {
    let safe;
    // SAFETY: compares, selects, and keeps what follows from guessing what was selected. Not `pure`: it is never left out
    // because the compiler, for its part, knows how the comparison ends.
    unsafe {
        asm!(
            "cmp {index}, {bound}",
            "csel {safe}, {index}, xzr, lo",
            "hint #20",
            index = in(reg) index,
            bound = in(reg) bound,
            safe = lateout(reg) safe,
            options(nomem, nostack),
        )
    };
    safe
}

macro_rules! instructions {
    ($($(#[$doc:meta])* $name:ident = $instruction:literal;)*) => {
        $(
            $(#[$doc])*
            #[inline(always)]
            pub(crate) fn $name() {
                // SAFETY: a barrier orders, and changes nothing else. Without `nomem` the compiler orders with it.
                unsafe { asm!($instruction, options(nostack, preserves_flags)) };
            }
        )*
    };
}

instructions! {
    /// Stores to tables before it are seen by every CPU's table walks after it.
    dsb_ishst = "dsb ishst";
    /// Everything before it is complete for the inner shareable domain.
    dsb_ish = "dsb ish";
    /// Everything before it is complete for this CPU.
    dsb_nsh = "dsb nsh";
    /// Accesses to memory before it come before those after it, for all observers.
    dmb_sy = "dmb sy";
    /// What was changed about the context counts for the instructions that follow.
    isb = "isb";
}
