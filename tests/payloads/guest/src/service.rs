//! The call to the host.
#![expect(unsafe_code, reason = "HVC")]

use payload_protocol::{Report, SERVICE};

unsafe extern "C" {
    fn service_call(registers: *mut [u64; 8]);
}

/// Reports to the host, and returns its answer: x0 to x3.
pub(crate) fn call(report: Report) -> [u64; 4] {
    let [x1, x2, x3, x4, x5, x6] = report.encode();
    let mut registers = [u64::from(SERVICE), x1, x2, x3, x4, x5, x6, 0];
    // SAFETY: the call is documented to answer in x0 to x3 (hyp_abi::guest_call), and changes no memory of this guest.
    unsafe { service_call(&raw mut registers) };
    let [x0, x1, x2, x3, ..] = registers;
    [x0, x1, x2, x3]
}

/// Reports, for ever, that this guest's own code went wrong.
pub(crate) fn broken(report: Report) -> ! {
    loop {
        call(report);
    }
}

core::arch::global_asm!(
    ".section .text.service, \"ax\"",
    // x0: address of eight registers, of which x0 to x3 are written back.
    ".global service_call",
    "service_call:",
    "    stp     x29, x30, [sp, #-32]!",
    "    str     x19, [sp, #16]",
    "    mov     x19, x0",
    "    ldp     x0, x1, [x19]",
    "    ldp     x2, x3, [x19, #16]",
    "    ldp     x4, x5, [x19, #32]",
    "    ldp     x6, x7, [x19, #48]",
    "    hvc     #0",
    "    stp     x0, x1, [x19]",
    "    stp     x2, x3, [x19, #16]",
    "    ldr     x19, [sp, #16]",
    "    ldp     x29, x30, [sp], #32",
    "    ret",
);
