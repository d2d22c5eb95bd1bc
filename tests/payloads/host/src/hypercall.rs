//! Calls to EL2 and EL3, with every register in view.
#![expect(unsafe_code, reason = "HVC and SMC")]

use core::arch::asm;
use host_shim::{Hypercall, Hypervisor};

/// The way from this payload to EL2: `HVC #0`.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Hvc;

impl Hypercall for Hvc {
    #[inline(always)]
    fn call(&self, registers: [u64; 7]) -> [u64; 4] {
        let [x0, x1, x2, x3, x4, x5, x6] = registers;
        let (r0, r1, r2, r3);
        // SAFETY: the callers pass frames that no Rust value lives in. Memory is not declared untouched, so the
        // compiler keeps its accesses on their side of the call. x4 to x17 are preserved (hyp_abi::host_call);
        // the rest of what an SMCCC call may change is declared all the same.
        unsafe {
            asm!("hvc #0",
                inout("x0") x0 => r0, inout("x1") x1 => r1, inout("x2") x2 => r2, inout("x3") x3 => r3,
                inout("x4") x4 => _, inout("x5") x5 => _, inout("x6") x6 => _,
                out("x7") _, out("x8") _, out("x9") _, out("x10") _, out("x11") _, out("x12") _, out("x13") _,
                out("x14") _, out("x15") _, out("x16") _, out("x17") _,
                options(nostack))
        };
        [r0, r1, r2, r3]
    }
}

/// The typed client.
pub(crate) const HYPERVISOR: Hypervisor<Hvc> = Hypervisor::new(Hvc);

/// Which instruction a call is made by.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Conduit {
    Hvc,
    Smc,
}

/// Calls with x0 to x17 as given and returns x0 to x17 as they are afterwards.
pub(crate) fn call_with_all(conduit: Conduit, registers: [u64; 18]) -> [u64; 18] {
    match conduit {
        // The instruction's own number is in the crate's name of the function.
        Conduit::Hvc => smccc::hvc64(function(registers), arguments(registers)),
        Conduit::Smc => smccc::smc64(function(registers), arguments(registers)),
    }
}

fn function(registers: [u64; 18]) -> u32 {
    u32::try_from(registers[0]).expect("a function identifier has 32 bits")
}

fn arguments(registers: [u64; 18]) -> [u64; 17] {
    let [_, arguments @ ..] = registers;
    arguments
}
