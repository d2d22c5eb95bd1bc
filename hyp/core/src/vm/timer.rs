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

/// ICH_LR<n>_EL2: the virtual INTID, and the active bit of the state (IHI 0069, 12.4).
const LIST_INTID: u64 = 0xffff_ffff;
const LIST_ACTIVE: u64 = 1 << 63;

impl Timer {
    /// CNTV_CTL_EL0 as the guest has set it, without ISTATUS: what EL2 alone masks is not masked.
    #[must_use]
    pub const fn own_control(&self) -> u64 {
        let own = if self.held { ENABLE } else { ENABLE | IMASK };
        self.control & own
    }

    /// Forgets that EL2 holds it, because it is about to be set anew. A timer that is due still is held by the next load.
    pub const fn release(&mut self) {
        self.control = self.own_control();
        self.held = false;
    }

    /// What CNTV_CTL_EL0 gets when the vCPU is loaded at the time `now` (CNTVCT_EL0).
    pub const fn load(&mut self, now: u64) -> u64 {
        let signals = self.control & (ENABLE | IMASK) == ENABLE && self.compare <= now;
        self.held |= signals;
        let held = if self.held { IMASK } else { 0 };
        self.control & (ENABLE | IMASK) | held
    }

    /// Takes what CNTV_CTL_EL0 and CNTV_CVAL_EL0 hold when the vCPU is put. `in_hand`: the guest has taken the timer's
    /// interrupt, and is not through with it.
    pub const fn put(&mut self, control: u64, compare: u64, in_hand: bool) {
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
            // It stays held. The host need not inject again what the guest is at work on; but it must inject what became
            // due between its last look and the load, and it injects again what the guest is through with and has left due.
            let mask = if in_hand { 0 } else { IMASK };
            self.control = control & !mask;
        }
    }
}

impl GicInterface {
    /// Whether the interrupt `intid` is active in a list register that is in use: the guest has acknowledged it, and has
    /// not ended it.
    #[must_use]
    pub fn is_active(&self, intid: u64) -> bool {
        self.list
            .iter()
            .take(usize::try_from(self.count).unwrap_or(usize::MAX))
            .any(|list| list & LIST_INTID == intid && list & LIST_ACTIVE != 0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn due() -> Timer {
        Timer {
            control: ENABLE,
            compare: 100,
            ..Timer::default()
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
        timer.put(ENABLE | IMASK | ISTATUS, 100, false);
        assert_eq!(timer.control, ENABLE | ISTATUS);
        assert_eq!(timer.load(200), ENABLE | IMASK);
        // The guest is in its handler: nothing is to be injected, and nothing must signal.
        timer.put(ENABLE | IMASK | ISTATUS, 100, true);
        assert_eq!(timer.control, ENABLE | IMASK | ISTATUS);
        assert_eq!(timer.load(300), ENABLE | IMASK);
        // It has ended the interrupt, and the timer is as it was: a level that is still up.
        timer.put(ENABLE | IMASK | ISTATUS, 100, false);
        assert_eq!(timer.control, ENABLE | ISTATUS);
    }

    #[test]
    fn a_timer_that_falls_due_between_the_hosts_look_and_the_load_is_told_to_the_host() {
        let mut timer = due();
        // The host saw that it was not due yet, and injected nothing.
        assert_eq!(timer.load(100), ENABLE | IMASK);
        timer.put(ENABLE | IMASK | ISTATUS, 100, false);
        assert_eq!(timer.control & (ENABLE | IMASK), ENABLE);
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
    fn what_el2_alone_masks_is_not_masked_to_the_host_that_reads_or_sets_it() {
        let mut timer = due();
        timer.load(100);
        timer.put(ENABLE | IMASK | ISTATUS, 100, true);
        assert_eq!(
            (timer.control, timer.own_control()),
            (ENABLE | IMASK | ISTATUS, ENABLE)
        );
        timer.release();
        assert_eq!(timer, due());
        let masked = Timer {
            control: ENABLE | IMASK | ISTATUS,
            ..due()
        };
        assert_eq!(masked.own_control(), ENABLE | IMASK);
    }

    #[test]
    fn a_guest_that_masks_its_timer_keeps_it_masked() {
        let mut timer = due();
        assert_eq!(timer.load(0), ENABLE);
        timer.put(ENABLE | IMASK | ISTATUS, 100, false);
        assert_eq!((timer.control, timer.held), (ENABLE | IMASK | ISTATUS, false));
    }

    #[test]
    fn only_a_list_register_in_use_has_an_interrupt_in_hand() {
        let mut gic = GicInterface::default();
        gic.list[1] = LIST_ACTIVE | 1 << 60 | INTERRUPT;
        gic.count = 1;
        assert!(!gic.is_active(INTERRUPT));
        gic.count = 2;
        assert!(gic.is_active(INTERRUPT));
        // Pending alone: not yet taken.
        gic.list[1] = 1 << 62 | INTERRUPT;
        assert!(!gic.is_active(INTERRUPT));
        gic.count = u64::MAX;
        assert!(!gic.is_active(INTERRUPT));
    }
}
