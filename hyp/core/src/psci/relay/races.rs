//! CPUs that ask for the same third at once, and while it leaves. Under `--cfg shuttle` the schedules are explored;
//! otherwise the threads are the machine's own, and each case is repeated.

use super::*;
use crate::psci::double::{FirmwareDouble, powered_down};
use crate::sync::{AtomicUsize, Ordering, spin_hint};
use std::sync::Arc;
use std::vec::Vec;

#[cfg(shuttle)]
use shuttle::thread;
#[cfg(not(shuttle))]
use std::thread;

const EL2_ENTRY: u64 = 0x1_8020_0000;
const ENTRY: u64 = 0x4800_0000;
const ALREADY_ON: u64 = -4_i64 as u64;
const ON_PENDING: u64 = -5_i64 as u64;

#[cfg(shuttle)]
fn explore(case: impl Fn() + Send + Sync + 'static) {
    shuttle::check_random(case, 20_000);
}

#[cfg(not(shuttle))]
fn explore(case: impl Fn() + Send + Sync + 'static) {
    for _ in 0..200 {
        case();
    }
}

/// The firmware and the slots of three CPUs, of which the first `on` are on.
struct Machine {
    firmware: FirmwareDouble,
    slots: Vec<Slot>,
}

impl Machine {
    fn new(on: usize) -> Arc<Self> {
        let affinities = [0, 1, 2];
        let firmware = FirmwareDouble::new(&affinities);
        for affinity in 1..on as u64 {
            let _ = firmware
                .on_cpu(0)
                .call(FunctionId::CpuOn64.into(), [affinity, 0, 0]);
        }
        let slots = affinities
            .into_iter()
            .map(|affinity| {
                if affinity < on as u64 {
                    Slot::on(affinity, affinity)
                } else {
                    Slot::off(affinity, affinity)
                }
            })
            .collect();
        Arc::new(Self { firmware, slots })
    }

    fn call(&self, cpu: usize, function: FunctionId, a1: u64, a2: u64, a3: u64) -> u64 {
        let firmware = self.firmware.on_cpu(cpu);
        let relay = Relay::new(&self.slots, EL2_ENTRY, &firmware);
        relay.call(
            cpu,
            [u64::from(u32::from(function)), a1, a2, a3],
            &firmware,
            |_| true,
        )
    }

    fn arrive(&self, cpu: usize) -> Option<Arrival> {
        self.slots[cpu].arrive()
    }
}

#[test]
fn of_two_who_ask_one_gets_the_cpu() {
    explore(|| {
        let machine = Machine::new(2);
        let askers: Vec<_> = (0..2)
            .map(|cpu| {
                let machine = Arc::clone(&machine);
                thread::spawn(move || machine.call(cpu, FunctionId::CpuOn64, 2, ENTRY, cpu as u64))
            })
            .collect();
        let answers: Vec<u64> = askers.into_iter().map(|asker| asker.join().unwrap()).collect();
        let winner = answers.iter().position(|answer| *answer == 0).unwrap();
        assert_eq!(answers[1 - winner], ON_PENDING);
        // The CPU begins once, with the arguments of the one who was told that it would.
        assert_eq!(machine.firmware.began(2), Some((EL2_ENTRY, 2)));
        let arrival = machine.arrive(2).unwrap();
        assert_eq!(arrival.start.context, winner as u64);
        assert_eq!(machine.arrive(2), None);
    });
}

#[test]
fn a_cpu_that_leaves_is_asked_back_by_two() {
    explore(|| {
        let machine = Machine::new(3);
        let leaver = {
            let machine = Arc::clone(&machine);
            thread::spawn(move || powered_down(|| machine.call(2, FunctionId::CpuOff, 0, 0, 0)).is_ok())
        };
        let accepted = Arc::new(AtomicUsize::new(0));
        let askers: Vec<_> = (0..2)
            .map(|cpu| {
                let (machine, accepted) = (Arc::clone(&machine), Arc::clone(&accepted));
                thread::spawn(move || {
                    // A kernel that waits for the CPU to be gone.
                    loop {
                        let answer = machine.call(cpu, FunctionId::CpuOn64, 2, ENTRY, cpu as u64);
                        match answer {
                            0 => {
                                accepted.fetch_add(1, Ordering::SeqCst);
                                return Some(cpu);
                            }
                            ALREADY_ON if accepted.load(Ordering::SeqCst) == 0 => spin_hint(),
                            ALREADY_ON | ON_PENDING => return None,
                            other => panic!("{other:#x}"),
                        }
                    }
                })
            })
            .collect();
        assert!(leaver.join().unwrap());
        let winners: Vec<usize> = askers
            .into_iter()
            .filter_map(|asker| asker.join().unwrap())
            .collect();
        // One of them gives up if it sees that the other asks; never both.
        assert_eq!(winners.len(), 1);
        assert!(machine.firmware.is_on(2));
        let arrival = machine.arrive(2).unwrap();
        assert_eq!(arrival.start.context, winners[0] as u64);
        assert!(!arrival.resumed);
    });
}

#[test]
fn a_denied_cpu_off_beats_an_early_cpu_on() {
    explore(|| {
        let machine = Machine::new(3);
        machine
            .firmware
            .script(FunctionId::CpuOff, ErrorCode::Denied.into());
        let leaver = {
            let machine = Arc::clone(&machine);
            thread::spawn(move || machine.call(2, FunctionId::CpuOff, 0, 0, 0))
        };
        let asker = {
            let machine = Arc::clone(&machine);
            thread::spawn(move || machine.call(0, FunctionId::CpuOn64, 2, ENTRY, 0))
        };
        assert_eq!(leaver.join().unwrap(), u64::from(ErrorCode::Denied));
        assert_eq!(asker.join().unwrap(), ALREADY_ON);
        assert_eq!(machine.slots[2].power(), Power::On);
        assert_eq!(machine.arrive(2), None);
    });
}
