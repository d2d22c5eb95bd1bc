//! Guests that run.

pub(super) mod memory;
pub(super) mod shares;
pub(super) mod work;

use super::devices::Gic;
use super::devices::guests::{LOOK, WAIT, setup};
use super::{cases, refused, same, succeed};
use crate::Outcome;
use crate::device::SET_SIGNAL_MASK;
use crate::guest::{CPU_OFF, CPU_ON, Do, Exit, Guest, KINDS, SYSTEM_RESET, list_of};
use crate::process::{
    SIGNAL, move_to, this_thread, until_signalled, until_signalled_soon, with_signal_waiting,
};
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

cases![
    run_reports_and_turns_itself_off,
    run_loads_of_every_width_get_what_user_space_says,
    run_stores_of_every_width_say_what_is_stored,
    run_can_be_ended_by_a_reset,
    run_after_the_end_waits_for_a_signal,
    run_ends_at_once_if_that_is_wanted,
    run_is_ended_by_a_signal,
    run_lets_other_tasks_run,
    run_shares_its_cpu,
    run_goes_from_cpu_to_cpu,
    run_has_signals_of_its_own,
    run_wakes_from_its_timer,
    run_turns_vcpus_on_and_off,
];

/// Ticks of a second, on this machine.
const SECOND: u64 = 62_500_000;

fn each(lists: &[&[Do]], work: impl Fn(&Guest, u64) -> Outcome) -> Outcome {
    for kind in KINDS {
        let guest = Guest::new(kind, lists)?;
        work(&guest, kind).map_err(|why| format!("kind {kind:#x}: {why}"))?;
    }
    Ok(())
}

fn run_reports_and_turns_itself_off() -> Outcome {
    each(&[&[Do::Report(0x1234), Do::Report(u64::MAX)]], |guest, _| {
        guest.vcpu().reports("one", 0x1234)?;
        guest.vcpu().reports("two", u64::MAX)?;
        guest.vcpu().turns_off()
    })
}

fn run_loads_of_every_width_get_what_user_space_says() -> Outcome {
    let device = 0x0a00_0008;
    let list = [
        Do::Load(1, device),
        Do::Load(2, device),
        Do::Load(4, device),
        Do::Load(8, device),
        Do::LoadSigned(device),
    ];
    each(&[&list], |guest, _| {
        let vcpu = guest.vcpu();
        let said = 0x8182_8384_8586_8788;
        for (bytes, loaded) in [
            (1, 0x88),
            (2, 0x8788),
            (4, 0x8586_8788),
            (8, said),
            (1, 0xffff_ffff_ffff_ff88),
        ] {
            same("the exit", vcpu.run(), Ok(Exit::Load(device, bytes)))?;
            vcpu.answer(said);
            // What is said is taken, though the guest does not run yet.
            vcpu.want_exit(true);
            refused("an exit at once", vcpu.run(), libc::EINTR)?;
            vcpu.want_exit(false);
            vcpu.answer(0);
            vcpu.reports("what the guest got", loaded)?;
        }
        vcpu.turns_off()
    })
}

fn run_stores_of_every_width_say_what_is_stored() -> Outcome {
    let device = 0x0a00_0008;
    let value = 0x8182_8384_8586_8788;
    let list = [1, 2, 4, 8].map(|bytes| Do::Store(bytes, device, value));
    each(&[&list], |guest, _| {
        for (bytes, stored) in [(1, 0x88), (2, 0x8788), (4, 0x8586_8788), (8, value)] {
            same(
                "the exit",
                guest.vcpu().run(),
                Ok(Exit::Store(device, bytes, stored)),
            )?;
        }
        guest.vcpu().turns_off()
    })
}

fn run_can_be_ended_by_a_reset() -> Outcome {
    each(&[&[Do::Call(SYSTEM_RESET, 0, 0, 0)]], |guest, _| {
        same("the exit", guest.vcpu().run(), Ok(Exit::Event(2)))
    })
}

fn interrupted(guest: &Guest) -> Outcome {
    let run = until_signalled_soon(|| guest.vcpu().run());
    refused("the run", run, libc::EINTR)?;
    same("the exit", guest.vcpu().exit(), Exit::Signal)
}

fn run_after_the_end_waits_for_a_signal() -> Outcome {
    each(&[&[]], |guest, _| {
        guest.vcpu().turns_off()?;
        interrupted(guest)
    })
}

fn run_ends_at_once_if_that_is_wanted() -> Outcome {
    each(&[&[Do::Report(1)]], |guest, _| {
        guest.vcpu().want_exit(true);
        for _ in 0..2 {
            refused("the run", guest.vcpu().run(), libc::EINTR)?;
            same("the exit", guest.vcpu().exit(), Exit::Signal)?;
        }
        guest.vcpu().want_exit(false);
        guest.vcpu().reports("the guest", 1)
    })
}

fn run_is_ended_by_a_signal() -> Outcome {
    each(&[&[Do::Report(1), Do::Spin]], |guest, _| {
        guest.vcpu().reports("the guest", 1)?;
        interrupted(guest)?;
        interrupted(guest)
    })?;
    // One that waits for an interrupt that never comes.
    each(&[&[Do::Wait]], |guest, _| interrupted(guest))
}

fn run_lets_other_tasks_run() -> Outcome {
    each(&[&[Do::Spin]], |guest, _| {
        // More of them than there are CPUs, and each has to do something before the guest is stopped.
        let workers: Vec<_> = (0..8)
            .map(|_| {
                std::thread::spawn(|| {
                    let until = Instant::now() + Duration::from_millis(200);
                    let mut turns = 0_u64;
                    while Instant::now() < until {
                        turns += 1;
                    }
                    turns
                })
            })
            .collect();
        let turns = || {
            let turns = workers
                .into_iter()
                .map(|worker| worker.join().unwrap_or_default());
            turns.collect::<Vec<_>>()
        };
        let (run, turns) = until_signalled(turns, || guest.vcpu().run());
        refused("the run", run, libc::EINTR)?;
        same("whether all worked", turns.iter().all(|turns| *turns > 0), true)
    })
}

fn run_shares_its_cpu() -> Outcome {
    // The guest never exits by itself, and all threads are on one CPU.
    move_to(0, 0).map_err(|error| error.to_string())?;
    run_lets_other_tasks_run()
}

fn run_goes_from_cpu_to_cpu() -> Outcome {
    let list = [
        Do::FillRegisters(0x1_0000),
        Do::Report(1),
        // It is under way all the time, and ends by the timer.
        Do::Timer(2 * SECOND),
        LOOK,
        Do::CheckRegisters(0x1_0000),
        // It waits.
        Do::Timer(SECOND),
        WAIT,
        Do::CheckRegisters(0x1_0000),
    ];
    let list: Vec<_> = setup().into_iter().chain(list).collect();
    each(&[&list], |guest, _| {
        let gic = succeed("a controller", Gic::of(&guest.vm))?;
        succeed("its place", gic.make())?;
        let vcpu = guest.vcpu();
        vcpu.reports("the guest", 1)?;
        let (thread, ends) = (this_thread(), AtomicBool::new(false));
        std::thread::scope(|scope| {
            let mover = scope.spawn(|| -> std::io::Result<u64> {
                let mut moves = 0;
                while !ends.load(Ordering::SeqCst) {
                    for cpu in 0..2 {
                        move_to(thread, cpu)?;
                        moves += 1;
                        std::thread::sleep(Duration::from_millis(3));
                    }
                }
                Ok(moves)
            });
            let done = (|| {
                for _ in 0..2 {
                    vcpu.reports("the timer", 27)?;
                    vcpu.reports("registers that changed", 0)?;
                }
                vcpu.turns_off()
            })();
            ends.store(true, Ordering::SeqCst);
            let moves = mover.join().map_err(|_| "the mover panicked".to_owned())?;
            same("many moves", moves.is_ok_and(|moves| moves > 20), true)?;
            done
        })
    })
}

fn run_has_signals_of_its_own() -> Outcome {
    let list = [
        Do::Report(1),
        Do::Timer(SECOND / 2),
        Do::Wait,
        Do::Report(2),
        Do::Report(3),
    ];
    each(&[&list], |guest, _| {
        let vcpu = guest.vcpu();
        let three = [3_u32, 0, 0];
        let address = three.as_ptr().expose_provenance() as u64;
        refused(
            "three bytes",
            vcpu.fd.ioctl(SET_SIGNAL_MASK, address),
            libc::EINVAL,
        )?;
        with_signal_waiting(|| {
            vcpu.reports("with a signal that waits", 1)?;
            succeed("the signals", vcpu.set_signals(Some(0)))?;
            refused("a run where it comes", vcpu.run(), libc::EINTR)?;
            // It waits still.
            refused("a run where it comes", vcpu.run(), libc::EINTR)?;
            succeed("the signals", vcpu.set_signals(Some(SIGNAL)))
        })?;
        // It comes while the guest waits, and is none of its run's.
        until_signalled_soon(|| vcpu.reports("with a signal that comes", 2))?;
        succeed("the signals", vcpu.set_signals(None))?;
        vcpu.reports("the guest", 3)
    })
}

fn run_wakes_from_its_timer() -> Outcome {
    // 62.5 MHz on this machine: 0.2 s.
    let ticks = 12_500_000;
    let list = [Do::Timer(ticks), Do::Report(1), Do::Wait, Do::TimerState];
    each(&[&list], |guest, _| {
        // The guest sets it after that.
        let before = Instant::now();
        guest.vcpu().reports("the guest", 1)?;
        // Enabled and due. EL2 masks it until the guest has dealt with it.
        let state = guest.vcpu().reported()?;
        same("the timer", state & 5, 5)?;
        let waited = before.elapsed();
        if waited < Duration::from_millis(190) || waited > Duration::from_secs(10) {
            return Err(format!("it woke after {waited:?}"));
        }
        guest.vcpu().turns_off()
    })
}

/// What CPU_ON answers of a CPU that is on, and of one that is about to be (Arm DEN0022, 5.2.2).
const ALREADY_ON: u64 = -4_i64 as u64;
const ON_PENDING: u64 = -5_i64 as u64;

fn run_turns_vcpus_on_and_off() -> Outcome {
    let first = [
        Do::Call(CPU_ON, 1, crate::guest::BASE, list_of(1)),
        Do::Report(1),
        Do::Go(2),
    ];
    let second = [Do::Report(3), Do::Call(CPU_OFF, 0, 0, 0)];
    // What the first goes on with; it is no list of the third's, which is never on.
    let again = [Do::Call(CPU_ON, 1, crate::guest::BASE, list_of(1)), Do::Go(2)];
    each(&[&first, &second, &again], |guest, _| {
        std::thread::scope(|scope| {
            let other = scope.spawn(|| -> Outcome {
                guest.vcpus[1].reports("the second", 3)?;
                // Off, and on again.
                guest.vcpus[1].reports("the second again", 3)
            });
            let vcpu = guest.vcpu();
            vcpu.reports("CPU_ON", 0)?;
            vcpu.reports("the first", 1)?;
            // Until it is off it is on already.
            let until = Instant::now() + Duration::from_secs(20);
            loop {
                match vcpu.reported()? {
                    ALREADY_ON | ON_PENDING if Instant::now() < until => std::thread::yield_now(),
                    answer => break same("CPU_ON again", answer, 0)?,
                }
            }
            other.join().map_err(|_| "the second panicked".to_owned())?
        })
    })
}
