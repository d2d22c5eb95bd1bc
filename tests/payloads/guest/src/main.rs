//! A guest kernel for the conformance suite.
//!
//! It does nothing of its own accord: each of its vCPUs asks the payload host for orders and reports what came of them
//! (see [`payload_protocol`]). It takes no locks and uses no atomic instructions beyond loads and stores, because a
//! vCPU may be told to run with its MMU off, where those have no meaning; whatever it keeps, it keeps for each vCPU.
//!
//! Started by QEMU without a host below, its service call is not supported: then it gives itself orders ([`standalone`]).
//!
//! - [`boot`], [`paging`], [`exception`], [`interrupts`], [`sysreg`]: the small kernel.
//! - [`probe`]: accesses and instructions that may fault, and what came of them.
//! - [`hold`], [`keep`]: a secret in every register, and in memory.
//! - [`service`]: the call to the host.
//! - [`agent`]: the orders.
#![no_std]
#![no_main]

mod agent;
mod boot;
mod exception;
mod hold;
mod interrupts;
mod keep;
mod paging;
mod probe;
mod service;
mod standalone;
mod sysreg;

use hyp_abi::guest_call::NOT_SUPPORTED;
use payload_protocol::{Order, Report};

/// The most vCPUs of a VM.
const MAX_VCPUS: usize = hyp_abi::vm::MAX_VCPUS;

/// A vCPU's life, from the first Rust. `start` is what it found in x0, `level` and `sctlr` are the registers CurrentEL
/// and SCTLR_EL1 as it found them.
extern "C" fn guest_main(start: u64, level: u64, sctlr: u64) -> ! {
    interrupts::init();
    let mut report = Report::Ready { start, level, sctlr };
    loop {
        let answer = service::call(report);
        report = match Order::decode(answer) {
            Some(order) => agent::carry_out(order),
            None if answer[0].cast_signed() == NOT_SUPPORTED => standalone::run(),
            None => Report::Puzzled,
        };
    }
}

#[panic_handler]
fn panic(_info: &core::panic::PanicInfo<'_>) -> ! {
    service::broken(Report::Broken {
        esr: u64::MAX,
        far: 0,
        elr: sysreg::elr(),
    })
}
