//! vCPUs that run at once, each on a CPU of its own. Under `--cfg shuttle` the schedules are explored; otherwise the
//! threads are the machine's own, and each case is repeated.

use super::*;
use crate::sync::{AtomicU64, Ordering, spin_hint};
use std::sync::Arc;

#[cfg(shuttle)]
use shuttle::thread;
#[cfg(not(shuttle))]
use std::thread;

const CPU_OFF: u64 = 0x8400_0002;
const CPU_ON: u64 = 0xc400_0003;
const ALREADY_ON: i64 = -4;
const ON_PENDING: i64 = -5;

#[cfg(shuttle)]
fn explore(case: impl Fn() + Send + Sync + 'static) {
    shuttle::check_random(case, 500);
}

#[cfg(not(shuttle))]
fn explore(case: impl Fn() + Send + Sync + 'static) {
    for _ in 0..20 {
        case();
    }
}

/// A VM of three vCPUs, of which the first `on` are on.
fn vm_of_three(bench: Bench, on: u64) -> u64 {
    let vm = bench.launched(VmFlags::PROTECTED, 3);
    for index in 1..on {
        bench.plays([hvc([CPU_ON, index, ENTRY, 0])]);
        bench.runs_to(vm, ExitReason::CpuOn, [index]);
    }
    vm
}

/// What x0 is after a call goes to `result`, plus 100, so that 0 is "not yet".
fn answer_to(result: &Arc<AtomicU64>) -> Act {
    let result = Arc::clone(result);
    look(move |context| result.store(context.x[0].wrapping_add(100), Ordering::SeqCst))
}

fn answer(result: &AtomicU64) -> i64 {
    result.load(Ordering::SeqCst).wrapping_sub(100).cast_signed()
}

#[test]
fn of_two_vcpus_that_want_a_third_one_turns_it_on() {
    explore(|| {
        let bench = Bench::new();
        let vm = vm_of_three(bench, 2);
        let results: [Arc<AtomicU64>; 2] = Default::default();
        let threads = [0_u8, 1].map(|index| {
            let result = &results[usize::from(index)];
            bench.vcpu_plays(index, [hvc([CPU_ON, 2, ENTRY, index.into()]), answer_to(result)]);
            thread::spawn(move || while bench.run(vm, index.into()).0 == ExitReason::CpuOn {})
        });
        for thread in threads {
            thread.join().unwrap();
        }
        let mut answers = results.map(|result| answer(&result));
        answers.sort_unstable();
        assert_eq!(answers, [ON_PENDING, 0]);
        bench.vcpu_plays(2, [interrupted()]);
        assert_eq!(bench.run(vm, 2).0, ExitReason::Interrupt);
    });
}

#[test]
fn a_vcpu_that_leaves_is_turned_on_again_or_was_still_on() {
    explore(|| {
        let bench = Bench::new();
        let vm = vm_of_three(bench, 2);
        let result = Arc::new(AtomicU64::new(0));
        bench.vcpu_plays(0, [hvc([CPU_ON, 1, ENTRY, 9]), answer_to(&result)]);
        bench.vcpu_plays(
            1,
            [
                hvc([CPU_OFF, 0, 0, 0]),
                look(|context| assert_eq!(context.x[0], 9)),
            ],
        );
        let leaves = thread::spawn(move || assert_eq!(bench.run(vm, 1).0, ExitReason::CpuOff));
        let asks = thread::spawn(move || while bench.run(vm, 0).0 == ExitReason::CpuOn {});
        leaves.join().unwrap();
        asks.join().unwrap();
        let status = bench.ask(VmCall::Run { vm, index: 1 }).status;
        match answer(&result) {
            0 => assert_eq!(status, Status::Success),
            ALREADY_ON | ON_PENDING => assert_eq!(status, Status::VcpuOff),
            other => panic!("CPU_ON answered {other}"),
        }
    });
}

#[test]
fn a_vcpu_is_on_one_cpu_at_a_time_and_its_vm_stays_meanwhile() {
    explore(|| {
        let bench = Bench::new();
        let vm = vm_of_three(bench, 1);
        let inside = Arc::new(AtomicU64::new(0));
        let count = Arc::clone(&inside);
        bench.vcpu_plays(
            0,
            (0..2).map(move |_| {
                let inside = Arc::clone(&count);
                look(move |_| {
                    assert_eq!(inside.fetch_add(1, Ordering::SeqCst), 0);
                    spin_hint();
                    inside.fetch_sub(1, Ordering::SeqCst);
                })
            }),
        );
        let runners = [0, 1].map(|_| {
            thread::spawn(move || {
                let status = bench.ask(VmCall::Run { vm, index: 0 }).status;
                assert!(
                    matches!(status, Status::Success | Status::VcpuRunning | Status::NoSuchVm),
                    "{status:?}"
                );
            })
        });
        let ends = thread::spawn(move || {
            let status = bench.ask(VmCall::Destroy { vm }).status;
            assert!(matches!(status, Status::Success | Status::VcpuRunning));
        });
        for thread in runners {
            thread.join().unwrap();
        }
        ends.join().unwrap();
        if bench.ask(VmCall::Destroy { vm }).status == Status::Success {
            bench.refused(VmCall::Destroy { vm }, Status::NoSuchVm);
        }
    });
}

/// An interrupt, at once.
fn interrupted() -> Act {
    act(|_| interrupt())
}

#[test]
fn a_vcpu_that_runs_as_another_turns_the_vm_off_goes_with_its_next_exit() {
    const SYSTEM_OFF: u64 = 0x8400_0008;
    const VERSION: u64 = 0x8400_0000;
    explore(|| {
        let bench = Bench::new();
        let vm = vm_of_three(bench, 2);
        bench.vcpu_plays(0, [hvc([SYSTEM_OFF, 0, 0, 0])]);
        let off = act(move |context| {
            let other = thread::spawn(move || bench.run(vm, 0).0);
            assert_eq!(other.join().unwrap(), ExitReason::SystemOff);
            // This one is answered still, as long as nothing is for the host.
            context.x[0] = VERSION;
            context.pc += 4;
            synchronous(ESR_HVC)
        });
        bench.vcpu_plays(1, [off, look(|context| assert_eq!(context.x[0], 0x1_0001))]);
        assert_eq!(bench.run(vm, 1).0, ExitReason::Interrupt);
        for index in 0..2 {
            bench.refused(VmCall::Run { vm, index }, Status::WrongVmState);
        }
        bench.destroy(vm);
    });
}
