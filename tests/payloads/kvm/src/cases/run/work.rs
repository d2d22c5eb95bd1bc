//! What the kernel wants of a task that runs a guest, and would do before the task goes back to its program, which it does not.

use super::super::{cases, refused, same};
use super::each;
use crate::Outcome;
use crate::guest::{Do, Exit};
use crate::process::{move_to, signal_after_work, this_thread, told_cpu, until_signalled};
use std::time::{Duration, Instant};

cases![
    run_is_told_its_cpu_while_it_lasts,
    run_is_ended_by_a_timer_of_its_own_time
];

fn run_is_told_its_cpu_while_it_lasts() -> Outcome {
    let told = told_cpu().map_err(|error| error.to_string())?;
    each(&[&[Do::Spin]], |guest, _| {
        let thread = this_thread();
        let is_told = || {
            (0..6).map(|turn| turn % 2).all(|cpu| {
                let until = Instant::now() + Duration::from_secs(5);
                let is_moved = move_to(thread, cpu).is_ok();
                while told.cpu() != cpu && Instant::now() < until {
                    std::thread::sleep(Duration::from_millis(1));
                }
                is_moved && told.cpu() == cpu
            })
        };
        let (run, is_told) = until_signalled(is_told, || guest.vcpu().run());
        refused("the run", run, libc::EINTR)?;
        same("whether it is told", is_told, true)
    })
}

fn run_is_ended_by_a_timer_of_its_own_time() -> Outcome {
    each(&[&[Do::Spin]], |guest, _| {
        signal_after_work(50_000);
        refused("the run", guest.vcpu().run(), libc::EINTR)?;
        same("the exit", guest.vcpu().exit(), Exit::Signal)
    })
}
