//! Barriers and the few instructions that have no memory operand, each a function.

#![expect(unsafe_code, reason = "barriers and hints are instructions")]

use core::arch::asm;

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
    /// What was changed about the context counts for the instructions that follow.
    isb = "isb";
}
