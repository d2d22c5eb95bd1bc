//! Interrupts: the GICv3 CPU interface by its system registers, and a count of what was taken.

use crate::{MAX_VCPUS, sysreg};
use arm_gic::InterruptGroup;
use arm_gic::gicv3::GicCpuInterface;
use core::sync::atomic::{AtomicU64, Ordering::Relaxed};

/// The virtual timer: PPI 11 (Arm BSA, DEN0094).
pub(crate) const TIMER: u64 = 27;

/// INTIDs from here on are counted together.
const COUNTED: usize = 64;

/// What a vCPU has taken. Only that vCPU uses it.
struct Taken {
    counts: [AtomicU64; COUNTED],
    total: AtomicU64,
    last: AtomicU64,
}

static TAKEN: [Taken; MAX_VCPUS] = [const {
    Taken {
        counts: [const { AtomicU64::new(0) }; COUNTED],
        total: AtomicU64::new(0),
        last: AtomicU64::new(0),
    }
}; MAX_VCPUS];

/// Adds one, by a load and a store: see the crate's documentation.
fn count(counter: &AtomicU64) {
    counter.store(counter.load(Relaxed).wrapping_add(1), Relaxed);
}

/// Sets this vCPU's interface up. IRQs stay masked.
pub(crate) fn init() {
    GicCpuInterface::enable_system_register_el1();
    GicCpuInterface::set_priority_mask(0xff);
    GicCpuInterface::enable_group1(true);
}

/// Takes what there is to take.
pub(crate) fn take() {
    let taken = &TAKEN[sysreg::vcpu()];
    while let Some(interrupt) = GicCpuInterface::get_and_acknowledge_interrupt(InterruptGroup::Group1) {
        let number = u64::from(interrupt.raw_value());
        if number == TIMER {
            // Its line stays up for as long as it is due.
            sysreg::set_timer_control(0);
        }
        if let Some(counter) = taken.counts.get(number as usize) {
            count(counter);
        }
        count(&taken.total);
        // Stored one up, so that memory which is zero says: none.
        taken.last.store(number + 1, Relaxed);
        GicCpuInterface::end_interrupt(interrupt, InterruptGroup::Group1);
    }
}

/// How often this vCPU took an interrupt, how many it took in all, and the last of them.
pub(crate) fn taken(number: u64) -> [u64; 3] {
    let taken = &TAKEN[sysreg::vcpu()];
    [
        taken
            .counts
            .get(number as usize)
            .map_or(0, |count| count.load(Relaxed)),
        taken.total.load(Relaxed),
        taken.last.load(Relaxed).wrapping_sub(1),
    ]
}

/// Arms the virtual timer and waits until its interrupt was taken; returns the ticks that passed.
pub(crate) fn wait_for_timer(ticks: u64, sleep: bool) -> u64 {
    let [before, ..] = taken(TIMER);
    let begin = sysreg::counter();
    sysreg::set_timer_value(ticks);
    sysreg::set_timer_control(1);
    while taken(TIMER)[0] == before {
        // Masked from the look to the sleep, so that an interrupt in between still pends.
        if sleep {
            sysreg::wait_for_interrupt();
        } else {
            sysreg::relax();
        }
        sysreg::unmask_irqs();
        sysreg::mask_irqs();
    }
    sysreg::counter().wrapping_sub(begin)
}
