//! The last thing that EL2 does for a host that resets the machine or turns it off: what was hidden from it goes.
//!
//! RAM keeps its contents over a reset, and whatever boots next owns all of it. So the other CPUs are stopped first, then
//! the registers of guests and every frame that the host may not read are zeroed ([`hyp_core`] knows which), and only
//! then the firmware hears of it.

use crate::smc::Smc;
use crate::{machine, panic};
use aarch64_cpu::registers::{CNTFRQ_EL0, CNTPCT_EL0};
use hyp_core::psci::{Firmware, FunctionId};
use tock_registers::interfaces::Readable;

/// Whether a call ends what is in the CPUs and the host's hold on the machine, if the firmware carries it out.
///
/// Inlined, as it is asked of every call: where the function is known, nothing is left of it.
#[inline(always)]
pub(crate) fn is_one(function: u32) -> bool {
    let is = |id: FunctionId| function == u32::from(id);
    // The second ones the firmware need not have; what it does not have is no end.
    is(FunctionId::SystemOff)
        || is(FunctionId::SystemReset)
        || (is(FunctionId::SystemOff232)
            || is(FunctionId::SystemOff264)
            || is(FunctionId::SystemReset232)
            || is(FunctionId::SystemReset264))
            && has(function)
}

#[cold]
#[inline(never)]
fn has(function: u32) -> bool {
    let answer = Smc.call(FunctionId::PsciFeatures.into(), [u64::from(function), 0, 0]);
    (answer as u32).cast_signed() >= 0
}

/// Leaves nothing for the next kernel to find. After this the host never runs again.
#[cold]
pub(crate) fn prepare() {
    panic::stop_for_good();
    let ownership = machine::ownership();
    // Those that run come back at their next step, since their tables are gone, and are put back to their VMs. One that
    // does not come back in a second never will: its CPU is broken.
    let deadline = CNTPCT_EL0.get().saturating_add(CNTFRQ_EL0.get());
    while !ownership.forget_vcpus() && CNTPCT_EL0.get() < deadline {
        core::hint::spin_loop();
    }
    ownership.scrub_before_reset();
}
