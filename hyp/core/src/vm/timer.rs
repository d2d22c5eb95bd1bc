//! The virtual timer of a guest, between its vCPU and the CPU.
//!
//! The timer's interrupt is a level: as long as the timer is due and not masked, the CPU signals it, and while a guest
//! runs, that brings EL2 back. The host injects it into the guest then; were the guest run again with the timer as it
//! was, the same signal would bring EL2 back before the guest's first instruction, for ever. So a timer that is due
//! when its vCPU is loaded is *held*: masked in the CPU, by EL2, until the guest has dealt with it. Its handler sees
//! that it is due, and that it is masked, which is what a handler would have made it.
//!
//! EL2 does not see the guest deal with it, only what the timer says at the next exit. A guest that sets the timer's
//! control unmasks it by that. One that only sets a later time gets it unmasked with the exit after.
//!
//! Source: Arm ARM DDI 0487, D24.10, CNTV_CTL_EL0 and CNTV_CVAL_EL0.

use super::context::{GicInterface, Timer};

/// CNTV_CTL_EL0.ENABLE.
pub const ENABLE: u64 = 1 << 0;
/// CNTV_CTL_EL0.IMASK: the timer does not signal.
pub const IMASK: u64 = 1 << 1;
/// CNTV_CTL_EL0.ISTATUS: it is due. Read-only.
pub const ISTATUS: u64 = 1 << 2;

/// The interrupt of the virtual timer.
pub const INTERRUPT: u64 = 27;

/// ICH_LR<n>_EL2: the virtual INTID, and the pending bit of the state (IHI 0069, 12.4).
const LIST_INTID: u64 = 0xffff_ffff;
const LIST_PENDING: u64 = 1 << 62;

impl Timer {
    /// What CNTV_CTL_EL0 gets when the vCPU is loaded at the time `now` (CNTVCT_EL0).
    pub const fn load(&mut self, now: u64) -> u64 {
        let signals = self.control & (ENABLE | IMASK) == ENABLE && self.compare <= now;
        self.held |= signals;
        let held = if self.held { IMASK } else { 0 };
        self.control & (ENABLE | IMASK) | held
    }

    /// Takes what CNTV_CTL_EL0 and CNTV_CVAL_EL0 hold when the vCPU is put. `waiting`: the guest has not yet taken the
    /// timer's interrupt.
    pub const fn put(&mut self, control: u64, compare: u64, waiting: bool) {
        let untouched = control & (ENABLE | IMASK) == ENABLE | IMASK;
        let moved = compare != self.compare;
        self.compare = compare;
        if !self.held || !untouched || moved {
            // What is masked by EL2 alone is not masked. A guest that has set a time and is about to unmask the timer
            // looks the same, and is as well off.
            let mask = if self.held && untouched { IMASK } else { 0 };
            self.held = false;
            self.control = control & !mask;
        } else {
            // It stays held; and the host need not inject again what the guest is at work on.
            let mask = if waiting { IMASK } else { 0 };
            self.control = control & !mask;
        }
    }
}

impl GicInterface {
    /// Whether the interrupt `intid` waits in a list register that is in use: the guest has not acknowledged it.
    #[must_use]
    pub fn is_pending(&self, intid: u64) -> bool {
        self.list
            .iter()
            .take(usize::try_from(self.count).unwrap_or(usize::MAX))
            .any(|list| list & LIST_INTID == intid && list & LIST_PENDING != 0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn due() -> Timer {
        Timer {
            control: ENABLE,
            compare: 100,
            held: false,
        }
    }

    #[test]
    fn a_timer_that_is_not_due_is_loaded_as_it_is() {
        let mut timer = due();
        assert_eq!(timer.load(99), ENABLE);
        timer.put(ENABLE, 100, false);
        assert_eq!(timer, due());
    }

    #[test]
    fn a_disabled_or_masked_timer_is_not_held() {
        for control in [0, IMASK, ENABLE | IMASK] {
            let mut timer = Timer { control, ..due() };
            assert_eq!(timer.load(1000), control);
            assert!(!timer.held);
        }
    }

    #[test]
    fn a_due_timer_does_not_signal_before_the_guest_has_dealt_with_it() {
        let mut timer = due();
        assert_eq!(timer.load(100), ENABLE | IMASK);
        // Its interrupt still waits: to the host it is unmasked and due.
        timer.put(ENABLE | IMASK | ISTATUS, 100, true);
        assert_eq!(timer.control, ENABLE | ISTATUS);
        assert_eq!(timer.load(200), ENABLE | IMASK);
        // The guest is in its handler: nothing is to be injected, and nothing must signal.
        timer.put(ENABLE | IMASK | ISTATUS, 100, false);
        assert_eq!(timer.control, ENABLE | IMASK | ISTATUS);
        assert_eq!(timer.load(300), ENABLE | IMASK);
    }

    #[test]
    fn a_guest_that_sets_a_later_time_alone_gets_its_timer_unmasked() {
        let mut timer = due();
        timer.load(100);
        timer.put(ENABLE | IMASK, 500, false);
        assert_eq!((timer.control, timer.compare, timer.held), (ENABLE, 500, false));
        assert_eq!(timer.load(200), ENABLE);
    }

    #[test]
    fn a_guest_that_sets_the_control_is_taken_at_its_word() {
        for control in [ENABLE, 0, IMASK] {
            let mut timer = due();
            timer.load(100);
            timer.put(control, 100, false);
            assert_eq!((timer.control, timer.held), (control, false));
        }
    }

    #[test]
    fn a_guest_that_masks_its_timer_keeps_it_masked() {
        let mut timer = due();
        assert_eq!(timer.load(0), ENABLE);
        timer.put(ENABLE | IMASK | ISTATUS, 100, false);
        assert_eq!((timer.control, timer.held), (ENABLE | IMASK | ISTATUS, false));
    }

    #[test]
    fn only_a_list_register_in_use_has_an_interrupt_that_waits() {
        let mut gic = GicInterface::default();
        gic.list[1] = LIST_PENDING | 1 << 60 | INTERRUPT;
        gic.count = 1;
        assert!(!gic.is_pending(INTERRUPT));
        gic.count = 2;
        assert!(gic.is_pending(INTERRUPT));
        gic.list[1] = 1 << 63 | INTERRUPT;
        assert!(!gic.is_pending(INTERRUPT));
        gic.count = u64::MAX;
        assert!(!gic.is_pending(INTERRUPT));
    }
}
