//! The physical timer of EL1, as a source of interrupts.

use crate::{cpu, sysreg};
use core::sync::atomic::{AtomicU64, Ordering};

/// For each CPU, how many interrupts its timer has raised, and how often it raises them (0: once).
static STATE: [(AtomicU64, AtomicU64); cpu::MAX] =
    [const { (AtomicU64::new(0), AtomicU64::new(0)) }; cpu::MAX];

const ENABLE: u64 = 1;

/// The timer of this CPU interrupts it every `ticks` of the counter, until [`stop`].
pub(crate) fn interrupt_every(ticks: u64) {
    STATE[cpu::number()].1.store(ticks, Ordering::Relaxed);
    sysreg::set_timer_value(ticks);
    sysreg::set_timer_control(ENABLE);
}

/// The timer of this CPU interrupts it no more.
pub(crate) fn stop() {
    sysreg::set_timer_control(0);
}

/// How often this CPU's timer has interrupted it so far.
pub(crate) fn interrupts() -> u64 {
    STATE[cpu::number()].0.load(Ordering::Relaxed)
}

/// Called for the timer's interrupt.
pub(crate) fn expired() {
    let (count, period) = &STATE[cpu::number()];
    count.fetch_add(1, Ordering::Relaxed);
    sysreg::set_timer_value(period.load(Ordering::Relaxed));
}
