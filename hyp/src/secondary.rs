//! How every other CPU comes in, and any CPU that wakes without its state.
//!
//! The firmware starts it at the entry code, with its MMU off, with the address of its [`StartArguments`] in x0.
//! It turns the final table on and takes its own stack and data; here it is made ready for the host, which it
//! enters where the host asked for it.

use crate::percpu::PerCpu;
use crate::smc::{self, Smc};
use crate::world::simd;
use crate::{cpu, private_area, refuse, registers, vectors};
use hyp_core::machine::judge_cpu;
use hyp_core::psci::{Firmware, FunctionId};

/// What a CPU that the firmware starts needs before it can use memory: read with the MMU off, and so cleaned to the
/// point of coherency when it was written, and never written again.
#[derive(Debug)]
#[repr(C, align(64))]
pub(crate) struct StartArguments {
    /// MAIR_EL2.
    pub(crate) mair: u64,
    /// TCR_EL2.
    pub(crate) tcr: u64,
    /// TTBR0_EL2.
    pub(crate) ttbr: u64,
    /// SCTLR_EL2.
    pub(crate) sctlr: u64,
    /// The top of its stack.
    pub(crate) stack: u64,
    /// TPIDR_EL2: its per-CPU data.
    pub(crate) per_cpu: u64,
}

/// Rust's first function on another CPU.
pub(crate) extern "C" fn secondary_main() -> ! {
    vectors::install_boot();
    let this = PerCpu::this();
    cpu::note_errata();
    // What is broadcast or shared is done in the first CPU's way, so the others must be able to follow.
    let features = judge_cpu(&cpu::identity())
        .ok()
        .filter(|features| cpu::can_follow(features) && simd::has_room(simd::longest(features)));
    if let Some(features) = features {
        registers::prepare_for_host(this, features);
    }
    match smc::relay().arrive(this.index) {
        Some(arrival) if features.is_some() => {
            let start = arrival.start;
            vectors::enter_host(start.entry, start.context, private_area::stack_top(this.index))
        }
        _ => {
            // Nobody asked for it, or it cannot be used: off it goes, and if that fails, it waits.
            Smc.call(FunctionId::CpuOff.into(), [0; 3]);
            refuse::halt()
        }
    }
}
