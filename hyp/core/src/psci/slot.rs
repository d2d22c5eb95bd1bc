//! The power state of one CPU as the relay knows it.
//!
//! The state is ahead of the firmware's: a CPU that the host asked for is pending before the firmware hears of it,
//! and one that turns itself off is leaving while it still runs. So two CPUs that want the same third agree on who
//! was first, and a call that the firmware refuses can be taken back.
//!
//! A slot's lock is held for a few instructions and never across a call to the firmware.

use crate::sync::Lock;

/// One CPU.
#[derive(Debug)]
pub struct Slot {
    /// Its affinity: MPIDR_EL1 without the bits that are no part of it.
    affinity: u64,
    /// What the firmware hands to EL2's entry in x0 when the CPU begins there.
    argument: u64,
    state: Lock<State>,
}

/// Where the host wants a CPU to begin.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Default)]
pub struct Start {
    /// Physical address of the first instruction at EL1.
    pub entry: u64,
    /// x0 there.
    pub context: u64,
}

/// A CPU that came to EL2's entry, and where it goes on.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Arrival {
    /// Whether it wakes from a suspend; otherwise it was turned on.
    pub resumed: bool,
    /// Where the host wants it to begin, with its MMU off, at EL1h, everything masked (DEN0022, 6.4).
    pub start: Start,
}

/// What a CPU is about.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Power {
    /// Off, as the firmware has confirmed by never having started it.
    Off,
    /// Asked for; the firmware may be about to start it.
    Pending,
    /// On, and the host's.
    On,
    /// It called CPU_OFF. It may still be running.
    Leaving,
    /// It called for a suspend. It may still be running.
    Suspending,
}

#[derive(Debug)]
struct State {
    power: Power,
    /// Where it begins: of a pending CPU always; of a suspending one if it was promised to lose its context.
    start: Option<Start>,
    /// Counts the times that the CPU became pending, so that only the one who made it so takes it back.
    attempt: u64,
}

/// Proof that the caller made a CPU pending.
#[derive(Debug)]
#[must_use = "tell the slot what the firmware answered"]
pub struct Attempt {
    number: u64,
    before: Power,
}

/// Why a CPU cannot be turned on.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Occupied {
    /// It is on.
    AlreadyOn,
    /// Somebody else asked for it.
    OnPending,
}

impl Slot {
    /// A CPU that is off. `affinity` is the `reg` of its node in the device tree, `argument` what EL2's entry gets in
    /// x0 when the CPU begins there.
    #[must_use]
    pub fn off(affinity: u64, argument: u64) -> Self {
        Self::new(affinity, argument, Power::Off)
    }

    /// The CPU that booted.
    #[must_use]
    pub fn on(affinity: u64, argument: u64) -> Self {
        Self::new(affinity, argument, Power::On)
    }

    fn new(affinity: u64, argument: u64, power: Power) -> Self {
        Self {
            affinity: affinity & AFFINITY,
            argument,
            state: Lock::new(State {
                power,
                start: None,
                attempt: 0,
            }),
        }
    }

    /// The affinity fields of its MPIDR_EL1.
    #[must_use]
    pub const fn affinity(&self) -> u64 {
        self.affinity
    }

    /// What EL2's entry gets in x0.
    #[must_use]
    pub const fn argument(&self) -> u64 {
        self.argument
    }

    /// What the CPU is about just now.
    #[must_use]
    pub fn power(&self) -> Power {
        self.state.lock().power
    }

    /// Makes the CPU pending.
    ///
    /// A CPU that is leaving can be asked for: whether it has left, the firmware knows.
    ///
    /// # Errors
    /// [`Occupied`], and nothing has changed.
    pub(super) fn request(&self, start: Start) -> Result<Attempt, Occupied> {
        let mut state = self.state.lock();
        match state.power {
            Power::On | Power::Suspending => Err(Occupied::AlreadyOn),
            Power::Pending => Err(Occupied::OnPending),
            before @ (Power::Off | Power::Leaving) => {
                state.power = Power::Pending;
                state.start = Some(start);
                state.attempt = state.attempt.wrapping_add(1);
                Ok(Attempt {
                    number: state.attempt,
                    before,
                })
            }
        }
    }

    /// Takes back an attempt that the firmware refused, unless something else has happened since.
    pub(super) fn withdraw(&self, attempt: &Attempt) {
        let mut state = self.state.lock();
        if state.power == Power::Pending && state.attempt == attempt.number {
            state.power = attempt.before;
            state.start = None;
        }
    }

    /// The CPU itself is about to call CPU_OFF.
    pub(super) fn leave(&self) {
        self.state.lock().power = Power::Leaving;
    }

    /// The CPU itself is about to call for a suspend. `start` is where it begins if it loses its context.
    pub(super) fn suspend(&self, start: Option<Start>) {
        let mut state = self.state.lock();
        state.power = Power::Suspending;
        state.start = start;
    }

    /// The firmware returned to the CPU itself from CPU_OFF or a suspend: it is on, whatever others asked for.
    pub(super) fn stay(&self) {
        let mut state = self.state.lock();
        state.power = Power::On;
        state.start = None;
    }

    /// The CPU itself has come to EL2's entry. `None` if nobody asked for that: it must not enter the host.
    pub(super) fn arrive(&self) -> Option<Arrival> {
        let mut state = self.state.lock();
        let resumed = match state.power {
            Power::Pending => false,
            Power::Suspending => true,
            Power::Off | Power::On | Power::Leaving => return None,
        };
        let start = state.start.take()?;
        state.power = Power::On;
        Some(Arrival { resumed, start })
    }
}

/// Aff3 in bits 39:32, Aff2, Aff1 and Aff0 in bits 23:0.
pub(super) const AFFINITY: u64 = 0xff << 32 | 0x00ff_ffff;

#[cfg(test)]
mod tests {
    use super::*;

    const START: Start = Start {
        entry: 0x4000_0000,
        context: 7,
    };

    #[test]
    fn a_cpu_is_asked_for_once() {
        let slot = Slot::off(0x8000_0001, 0);
        assert_eq!(slot.affinity(), 1);
        let attempt = slot.request(START).unwrap();
        assert_eq!(slot.request(START).unwrap_err(), Occupied::OnPending);
        slot.withdraw(&attempt);
        assert_eq!(slot.power(), Power::Off);
        let _attempt = slot.request(START).unwrap();
        assert_eq!(
            slot.arrive(),
            Some(Arrival {
                resumed: false,
                start: START
            })
        );
        assert_eq!(slot.request(START).unwrap_err(), Occupied::AlreadyOn);
    }

    #[test]
    fn nobody_arrives_unasked() {
        for slot in [Slot::off(0, 0), Slot::on(0, 0)] {
            let before = slot.power();
            assert_eq!(slot.arrive(), None);
            assert_eq!(slot.power(), before);
        }
        let slot = Slot::on(0, 0);
        slot.leave();
        assert_eq!(slot.arrive(), None);
        // A standby that lost its context after all.
        let slot = Slot::on(0, 0);
        slot.suspend(None);
        assert_eq!(slot.arrive(), None);
    }

    #[test]
    fn a_late_refusal_takes_nothing_back_from_another() {
        let slot = Slot::on(0, 0);
        slot.leave();
        let early = slot.request(START).unwrap();
        // The firmware denies CPU_OFF; the CPU stays, and leaves again; somebody else asks for it.
        slot.stay();
        slot.leave();
        let late = slot.request(Start { context: 8, ..START }).unwrap();
        slot.withdraw(&early);
        assert_eq!(slot.power(), Power::Pending);
        assert_eq!(slot.arrive().map(|arrival| arrival.start.context), Some(8));
        slot.withdraw(&late);
        assert_eq!(slot.power(), Power::On);
    }

    #[test]
    fn a_refusal_leaves_a_leaving_cpu_leaving() {
        let slot = Slot::on(0, 0);
        slot.leave();
        let attempt = slot.request(START).unwrap();
        slot.withdraw(&attempt);
        assert_eq!(slot.power(), Power::Leaving);
    }
}
