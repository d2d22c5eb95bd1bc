//! The call itself.

use core::arch::asm;

/// Calls EL2 with x0 to x6, and returns x0 to x3.
///
/// Only where Freehold is: elsewhere HVC may be undefined.
pub(super) fn call(registers: [u64; 7]) -> [u64; 4] {
    let [mut x0, mut x1, mut x2, mut x3, x4, x5, x6] = registers;
    // SAFETY: Freehold changes no register but x0 to x3 (hyp_abi::host_call), and of memory what the call says; the
    // compiler takes all of it for changed.
    unsafe {
        asm!(
            "hvc #0",
            inout("x0") x0,
            inout("x1") x1,
            inout("x2") x2,
            inout("x3") x3,
            in("x4") x4,
            in("x5") x5,
            in("x6") x6,
            options(nostack),
        );
    }
    [x0, x1, x2, x3]
}
