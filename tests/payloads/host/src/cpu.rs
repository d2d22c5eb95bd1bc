//! All CPUs: bringing them up, and running something on them.
#![expect(unsafe_code, reason = "lends a closure on one CPU's stack to the others")]

use crate::boot::{SecondaryStart, Stack, secondary_entry_address};
use crate::firmware::Firmware;
use crate::interrupts;
use crate::machine::{Machine, machine};
use crate::sysreg::{self, AFFINITY};
use core::cell::UnsafeCell;
use core::sync::atomic::{AtomicBool, Ordering};
use smccc::psci::{self, AffinityState, LowestAffinityLevel};
use spin::mutex::TicketMutex;

/// The most CPUs that the payload uses.
pub(crate) const MAX: usize = 64;

/// Something to run on another CPU.
type Job = &'static (dyn Fn(usize) + Sync);

/// What the payload keeps for each CPU.
struct Cpu {
    stack: Stack,
    start: UnsafeCell<SecondaryStart>,
    is_up: AtomicBool,
    job: TicketMutex<Option<Job>>,
    is_busy: AtomicBool,
    must_stop: AtomicBool,
}

// SAFETY: `start` is written by the CPU that starts this one, before it runs, and read by the entry code only.
unsafe impl Sync for Cpu {}

static CPUS: [Cpu; MAX] = [const {
    Cpu {
        stack: Stack::new(),
        start: UnsafeCell::new(SecondaryStart { stack: 0, number: 0 }),
        is_up: AtomicBool::new(false),
        job: TicketMutex::new(None),
        is_busy: AtomicBool::new(false),
        must_stop: AtomicBool::new(false),
    }
}; MAX];

/// The number of this CPU: its place in the device tree.
pub(crate) fn number() -> usize {
    sysreg::cpu_number() as usize
}

/// How many CPUs there are.
pub(crate) fn count() -> usize {
    machine().cpus.len()
}

/// Starts every CPU but this one and waits until all are up.
///
/// # Panics
/// If the firmware will not start one, or this CPU is not the tree's first.
pub(crate) fn start_all(machine: &Machine) {
    assert_eq!(
        sysreg::mpidr() & AFFINITY,
        machine.cpus[0],
        "the boot CPU is not the first of the tree"
    );
    for other in 1..machine.cpus.len() {
        start(other).expect("the firmware starts a CPU of the tree");
    }
}

/// Starts a CPU that is off, and waits until it is up.
///
/// # Errors
/// The firmware's.
pub(crate) fn start(cpu: usize) -> Result<(), psci::error::Error> {
    let state = &CPUS[cpu];
    let block = state.start.get();
    // SAFETY: the CPU is off, so nobody reads the block.
    unsafe {
        block.write(SecondaryStart {
            stack: state.stack.top(),
            number: cpu as u64,
        })
    };
    // What it reads with its caches off it reads after MMU and caches are on: only tables and code come before.
    sysreg::barrier();
    psci::cpu_on::<Firmware>(
        machine().cpus[cpu],
        secondary_entry_address(),
        block.addr() as u64,
    )?;
    while !state.is_up.load(Ordering::Acquire) {
        sysreg::relax();
    }
    Ok(())
}

/// Tells a CPU to turn itself off, and waits until the firmware says that it is.
///
/// # Errors
/// The firmware's.
pub(crate) fn stop(cpu: usize) -> Result<(), psci::error::Error> {
    let state = &CPUS[cpu];
    state.must_stop.store(true, Ordering::Release);
    interrupts::wake(machine().cpus[cpu]);
    while affinity_info(machine().cpus[cpu])? != AffinityState::Off {
        sysreg::relax();
    }
    Ok(())
}

/// PSCI AFFINITY_INFO of one CPU.
///
/// # Errors
/// The firmware's.
pub(crate) fn affinity_info(affinity: u64) -> Result<AffinityState, psci::error::Error> {
    psci::affinity_info::<Firmware>(affinity, LowestAffinityLevel::All)
}

/// Runs `job` on one other CPU and waits for it to finish.
pub(crate) fn run_on(cpu: usize, job: impl Fn() + Sync) {
    hand_out(cpu, &|_| job(), || wait_for(cpu));
}

/// Runs `job` on one other CPU, and returns what it returned there.
pub(crate) fn answer_of<T: Send>(cpu: usize, job: impl Fn() -> T + Sync) -> T {
    let answer = TicketMutex::<_>::new(None);
    run_on(cpu, || *answer.lock() = Some(job()));
    answer.into_inner().expect("the CPU has run the job")
}

/// Runs `job` on all CPUs at once, this one too, each with its number, and waits for all.
pub(crate) fn run_everywhere(job: impl Fn(usize) + Sync) {
    run_on_first(count(), job);
}

/// Runs `job` on the first `cpus` CPUs at once, this one too, each with its number, and waits for all.
pub(crate) fn run_on_first(cpus: usize, job: impl Fn(usize) + Sync) {
    let this = number();
    hand_out_to(cpus, this, &job, || {
        job(this);
        (0..cpus).filter(|cpu| *cpu != this).for_each(wait_for);
    });
}

fn hand_out_to(cpus: usize, this: usize, job: &(dyn Fn(usize) + Sync), then: impl FnOnce()) {
    for cpu in (0..cpus).filter(|cpu| *cpu != this) {
        hand_out(cpu, job, || ());
    }
    then();
}

/// Gives `job` to a CPU. Whoever calls must not return before that CPU has finished; `then` is where it waits.
fn hand_out(cpu: usize, job: &(dyn Fn(usize) + Sync), then: impl FnOnce()) {
    let state = &CPUS[cpu];
    assert!(state.is_up.load(Ordering::Acquire), "CPU {cpu} is not up");
    // SAFETY: the CPU drops the reference before it says that it is no longer busy, and `run_on` and `run_on_first`,
    // the only ways here, wait for that before the closure's life ends. A panic ends the payload, not the wait.
    let job: Job = unsafe { core::mem::transmute::<&(dyn Fn(usize) + Sync), Job>(job) };
    state.is_busy.store(true, Ordering::Release);
    *state.job.lock() = Some(job);
    interrupts::wake(machine().cpus[cpu]);
    then();
}

fn wait_for(cpu: usize) {
    while CPUS[cpu].is_busy.load(Ordering::Acquire) {
        sysreg::relax();
    }
}

/// The life of a CPU other than the boot CPU.
pub(crate) extern "C" fn secondary_main(number: u64) -> ! {
    let cpu = number as usize;
    let state = &CPUS[cpu];
    interrupts::init_cpu(machine());
    state.is_up.store(true, Ordering::Release);
    loop {
        if state.must_stop.swap(false, Ordering::AcqRel) {
            state.is_up.store(false, Ordering::Release);
            sysreg::mask_irqs();
            let refused = psci::cpu_off::<Firmware>();
            panic!("CPU {cpu} is still on after CPU_OFF: {refused:?}");
        }
        let job = state.job.lock().take();
        match job {
            Some(job) => {
                job(cpu);
                state.is_busy.store(false, Ordering::Release);
            }
            None => {
                // IRQs are masked from the look at the job to here, so that a wake in between still pends.
                sysreg::wait_for_interrupt();
                sysreg::unmask_irqs();
                sysreg::mask_irqs();
            }
        }
    }
}
