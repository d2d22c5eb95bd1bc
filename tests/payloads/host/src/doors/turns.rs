//! vCPUs that take turns on CPUs: what a CPU must forget between two of them, and what it need not.

use super::guest::Guest;
use crate::cpu;
use crate::registry::TestResult;
use crate::sysreg;
use core::sync::atomic::{AtomicBool, Ordering};
use hyp_abi::vm::VmFlags;
use spin::mutex::TicketMutex;

/// Two vCPUs of one VM and one of another, on two CPUs.
pub(super) fn play() -> TestResult {
    let guest = Guest::new(VmFlags::PROTECTED, 2)?;
    guest.turn_on(1)?;
    let other = Guest::new(VmFlags::empty(), 1)?;
    take_turns(&guest, &other)?;
    guest.use_vectors("guest_uses_vectors", 0)?;
    guest.use_vectors("guest_uses_vectors", 0)?;
    guest.interrupt("guest_is_interrupted", 0)?;
    // Another VM gets the slot, and with it the VMID: its vCPU 0 is not the one that this CPU knows.
    guest.kill()?;
    guest.end()?;
    let heir = Guest::new(VmFlags::PROTECTED, 1)?;
    heir.turn("run_again", 0)?;
    heir.kill()?;
    heir.end()?;
    other.end()
}

fn take_turns(guest: &Guest, other: &Guest) -> TestResult {
    guest.turn("run_after_another_vcpu", 0)?;
    guest.turn("run_again", 0)?;
    // A VM with another VMID comes between, and leaves nothing.
    other.turn("run_again", 0)?;
    guest.turn("run_again", 0)?;
    guest.turn("run_after_another_vcpu", 1)?;
    // Elsewhere vCPU 0 is the first, and vCPU 1 the second; back here it is vCPU 1 that was the last.
    elsewhere(|| guest.turn("run_on_another_cpu", 0))?;
    elsewhere(|| guest.turn("run_again_on_another_cpu", 0))?;
    elsewhere(|| guest.turn("run_after_another_vcpu_on_another_cpu", 1))?;
    elsewhere(|| guest.turn("run_after_another_vcpu_on_another_cpu", 0))?;
    guest.turn("run_after_another_vcpu", 0)
}

/// Does something on CPU 1, with no interrupt left that would bring a guest back.
fn elsewhere(act: impl Fn() -> TestResult + Sync) -> TestResult {
    let (is_woken, result) = (AtomicBool::new(false), TicketMutex::<_>::new(Ok(())));
    cpu::run_on_first(2, |cpu| {
        if cpu != 1 {
            is_woken.store(true, Ordering::Release);
            return;
        }
        // The interrupt by which this CPU is woken may come later than what it is woken for.
        while !is_woken.load(Ordering::Acquire) {
            sysreg::relax();
        }
        sysreg::unmask_irqs();
        sysreg::mask_irqs();
        *result.lock() = act();
    });
    result.into_inner()
}
