//! Several vCPUs of several VMs on several CPUs: a queue of those that can run, a tick that takes the CPU from one that
//! does not give it up, and a program that says what each is to do next.

use super::drive::report;
use super::exit::Exit;
use super::vcpu::Answer;
use super::vm::Vm;
use crate::cases::support::FirstError;
use crate::registry::{Outcome, TestResult};
use crate::{cpu, sysreg, timer};
use alloc::collections::VecDeque;
use core::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering};
use payload_protocol::{Order, Report};
use spin::mutex::TicketMutex;

/// Seconds after which a vCPU that has not carried out its order is taken to be stuck.
const PATIENCE: u64 = 60;

/// A vCPU that can run.
struct Task {
    vm: usize,
    vcpu: usize,
    /// How many orders it has carried out.
    step: u64,
    answer: Answer,
    /// The CPU that ran it last.
    last: Option<usize>,
    /// The counter when it was given its last order.
    since: u64,
}

/// Those that can run. Whoever wants it and does not get it tries again, rather than stand in line: on a machine whose
/// CPUs are threads, one that is not running would hold up all that stand behind it.
struct Queue(TicketMutex<VecDeque<Task>>);

impl Queue {
    fn with<T>(&self, change: impl FnOnce(&mut VecDeque<Task>) -> T) -> T {
        loop {
            if let Some(mut queue) = self.0.try_lock() {
                return change(&mut queue);
            }
            sysreg::relax();
        }
    }
}

/// Where a vCPU stands when its program is asked.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Turn {
    /// Number of the VM.
    pub(crate) vm: usize,
    /// Index of the vCPU.
    pub(crate) vcpu: usize,
    /// How many orders it has carried out; its first report answers none.
    pub(crate) step: u64,
    /// What it said last.
    pub(crate) report: Report,
}

/// What a program says: the next order, or that this vCPU is through.
pub(crate) type Next = Result<Option<Order>, Outcome>;

/// What was seen while the tasks ran.
#[derive(Debug, Default)]
pub(crate) struct Seen {
    /// Exits in all.
    pub(crate) exits: AtomicU64,
    /// Exits because the host was interrupted.
    pub(crate) interrupts: AtomicU64,
    /// How often a vCPU went on on another CPU than before.
    pub(crate) moves: AtomicU64,
}

/// Runs vCPU 0 of every VM, and those that the guests turn on, on the first `cpus` CPUs, each with a tick every `ticks`
/// of the counter, until the program has let all of them go.
pub(crate) fn run(
    vms: &[Vm],
    cpus: usize,
    ticks: u64,
    program: &(dyn Fn(Turn) -> Next + Sync),
) -> Result<Seen, Outcome> {
    let queue = Queue(TicketMutex::new((0..vms.len()).map(|vm| first(vm, 0)).collect()));
    let (left, failed) = (AtomicUsize::new(vms.len()), AtomicBool::new(false));
    let (seen, error) = (Seen::default(), FirstError::new());
    cpu::run_on_first(cpus, |this| {
        timer::interrupt_every(ticks);
        while left.load(Ordering::Acquire) > 0 && !failed.load(Ordering::Relaxed) {
            let Some(mut task) = queue.with(VecDeque::pop_front) else {
                super::drive::take_interrupts();
                sysreg::relax();
                continue;
            };
            if task.last.replace(this).is_some_and(|last| last != this) {
                seen.moves.fetch_add(1, Ordering::Relaxed);
            }
            match slice(vms, task, &seen, program) {
                Ok(After { again, started }) => {
                    let vm = again.as_ref().map(|task| task.vm);
                    let more = vm.zip(started).map(|(vm, vcpu)| first(vm, vcpu));
                    if more.is_some() {
                        left.fetch_add(1, Ordering::AcqRel);
                    }
                    if again.is_none() {
                        left.fetch_sub(1, Ordering::AcqRel);
                    }
                    queue.with(|queue| queue.extend(more.into_iter().chain(again)));
                }
                Err(outcome) => {
                    error.keep(outcome);
                    failed.store(true, Ordering::Relaxed);
                }
            }
        }
        timer::stop();
    });
    error.ensure_none()?;
    Ok(seen)
}

fn first(vm: usize, vcpu: usize) -> Task {
    Task {
        vm,
        vcpu,
        step: 0,
        answer: Answer::None,
        last: None,
        since: sysreg::counter(),
    }
}

/// What follows a slice.
struct After {
    /// The task, if it is not through.
    again: Option<Task>,
    /// A vCPU that it turned on.
    started: Option<usize>,
}

/// Runs a task once.
fn slice(
    vms: &[Vm],
    mut task: Task,
    seen: &Seen,
    program: &(dyn Fn(Turn) -> Next + Sync),
) -> Result<After, Outcome> {
    let vm = &vms[task.vm];
    let exit = vm.run(task.vcpu, task.answer)?;
    task.answer = Answer::None;
    seen.exits.fetch_add(1, Ordering::Relaxed);
    let mut started = None;
    match exit {
        Exit::Interrupt => {
            seen.interrupts.fetch_add(1, Ordering::Relaxed);
            super::drive::take_interrupts();
        }
        // It comes to its turn again, and finds then whether there is something to go on for.
        Exit::Wait(_) => {}
        Exit::CpuOn(vcpu) => started = Some(vcpu as usize),
        Exit::CpuOff | Exit::SystemOff => return Ok(After { again: None, started }),
        Exit::Service { .. } => {
            let turn = Turn {
                vm: task.vm,
                vcpu: task.vcpu,
                step: task.step,
                report: report(exit)?,
            };
            match program(turn)? {
                Some(order) => task.answer = Answer::Done(order.encode()),
                None => return Ok(After { again: None, started }),
            }
            task.step += 1;
            task.since = sysreg::counter();
        }
        other => {
            if !vm.handle_exit(task.vcpu, other)? {
                crate::registry::fail!("VM {} vCPU {} left by {other:x?}", task.vm, task.vcpu);
            }
        }
    }
    if sysreg::counter() - task.since > PATIENCE * sysreg::counter_frequency() {
        crate::registry::fail!(
            "VM {} vCPU {} is stuck in step {}, leaves by {exit:x?}, {:x?}",
            task.vm,
            task.vcpu,
            task.step,
            vm.vcpus[task.vcpu].waits()
        );
    }
    Ok(After {
        again: Some(task),
        started,
    })
}

/// Ends all of them.
pub(crate) fn end_all(vms: alloc::vec::Vec<Vm>) -> TestResult {
    vms.into_iter().try_for_each(Vm::end)
}
