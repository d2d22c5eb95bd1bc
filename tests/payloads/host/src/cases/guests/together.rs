//! Several guests of several vCPUs, on several CPUs, all at work.

use super::support::PAGE;
use crate::cases::support::needs_cpus;
use crate::guest::vgic;
use crate::guest::{Plan, Vm, schedule};
use crate::registry::{Outcome, TestResult, case, ensure, ensure_eq, fail};
use crate::sysreg;
use alloc::vec::Vec;
use core::sync::atomic::{AtomicUsize, Ordering};
use hyp_abi::FRAME_SIZE;
use hyp_abi::guest_call::GuestCallId;
use payload_protocol::{Order, Report, Start};

/// vCPUs of each guest.
const VCPUS: u64 = 3;

/// Guests.
const VMS: usize = 3;

/// Orders of each vCPU once it is up.
const ORDERS: u64 = 30;

/// Of the guest's first vCPU, the orders that turn the others on.
fn start_order(step: u64) -> Option<Order> {
    let index = step + 1;
    (index < VCPUS).then(|| Order::Start {
        target: vgic::affinity(index),
        start: Start {
            index: index as u8,
            mmu_off: false,
            tag: 0,
        }
        .to_register(),
    })
}

/// The work of a vCPU: order number `number`. Each has a page and a value of its own; nothing that another does may show
/// in either.
fn work(vm: usize, vcpu: usize, number: u64) -> Order {
    let gfn = PAGE + vcpu as u64;
    let address = gfn * FRAME_SIZE;
    let round = number / 10;
    let value = (vm as u64) << 32 | (vcpu as u64) << 16 | round;
    let call = |call: GuestCallId| crate::guest::drive::hvc(call.into(), [address, 0, 0]);
    match number % 10 {
        0 => Order::Fill {
            address,
            frames: 1,
            value,
        },
        1 => Order::FillVectors { seed: value },
        2 => call(GuestCallId::MemShare),
        3 => Order::Spin { rounds: 3000 },
        4 => Order::VerifyVectors { seed: value },
        5 => Order::Verify {
            address,
            frames: 1,
            value: Some(value),
        },
        6 => call(GuestCallId::MemUnshare),
        7 => Order::Timer {
            ticks: 2000,
            sleep: number % 20 < 10,
        },
        8 => Order::Verify {
            address,
            frames: 1,
            value: Some(value),
        },
        _ => call(GuestCallId::MemRelinquish),
    }
}

/// What the order must have reported.
fn is_right(order: Order, report: Report) -> bool {
    match order {
        Order::Call { .. } => report == Report::Done([0, 1, 0, 0, 0]),
        Order::Spin { rounds } => report == Report::Done([rounds, 0, 0, 0, 0]),
        Order::Timer { ticks, .. } => matches!(report, Report::Done([passed, ..]) if passed >= ticks),
        _ => report == Report::Done([0; 5]),
    }
}

/// Three guests of three vCPUs each on the first `cpus` CPUs.
fn on_cpus(cpus: usize) -> TestResult {
    needs_cpus(cpus)?;
    let plan = Plan::protected().vcpus(VCPUS);
    let vms: Vec<Vm> = (0..VMS)
        .map(|_| Vm::launch(plan))
        .collect::<Result<_, Outcome>>()?;
    let through = AtomicUsize::new(0);
    let seen = schedule::run(&vms, cpus, sysreg::counter_frequency() / 300, &|turn| {
        // The first vCPU begins with the others; what it did before its own work is not judged.
        let before = if turn.vcpu == 0 { VCPUS - 1 } else { 0 };
        if turn.vcpu == 0
            && let Some(order) = start_order(turn.step)
        {
            return Ok(Some(order));
        }
        let number = turn.step - before;
        if let Some(last) = number.checked_sub(1) {
            let order = work(turn.vm, turn.vcpu, last);
            if !is_right(order, turn.report) {
                fail!(
                    "VM {} vCPU {}: {order:x?}: {:x?}",
                    turn.vm,
                    turn.vcpu,
                    turn.report
                );
            }
        }
        if number < ORDERS {
            return Ok(Some(work(turn.vm, turn.vcpu, number)));
        }
        through.fetch_add(1, Ordering::Relaxed);
        Ok(None)
    })?;
    ensure_eq!(
        through.into_inner(),
        VMS * VCPUS as usize,
        "vCPUs that came to their end"
    );
    ensure!(
        seen.interrupts.load(Ordering::Relaxed) > 0,
        "no vCPU was ever interrupted"
    );
    for vm in &vms {
        vm.audit()?;
    }
    schedule::end_all(vms)
}

case!(on_one_cpu, { on_cpus(1) });
case!(on_two_cpus, { on_cpus(2) });
case!(on_four_cpus, { on_cpus(4) });
case!(on_eight_cpus, { on_cpus(8) });

case!(guests_that_interrupt_each_other_lose_no_interrupt, {
    needs_cpus(2)?;
    // Two vCPUs send SGI 1 to and fro: each sends one, and waits until it has taken one more.
    let vm = alloc::vec![Vm::launch(Plan::protected().vcpus(2))?];
    let sent = [AtomicUsize::new(0), AtomicUsize::new(0)];
    schedule::run(&vm, 2, sysreg::counter_frequency() / 1000, &|turn| {
        if turn.vcpu == 0 && turn.step == 0 {
            return Ok(Some(Order::Start {
                target: 1,
                start: Start {
                    index: 1,
                    ..Start::default()
                }
                .to_register(),
            }));
        }
        let step = if turn.vcpu == 0 { turn.step - 1 } else { turn.step };
        if step == 0 {
            return Ok(Some(Order::Interrupts { taken: true }));
        }
        if step > 200 {
            return Ok(None);
        }
        if step % 2 == 1 {
            sent[turn.vcpu].fetch_add(1, Ordering::Relaxed);
            // MSR ICC_SGI1R_EL1, X0: SGI 1 to the other.
            return Ok(Some(Order::Execute {
                level: payload_protocol::Level::El1,
                instruction: 0xd518_cba0,
                registers: [1 << 24 | 1 << (1 - turn.vcpu), 0],
            }));
        }
        Ok(Some(Order::Taken { interrupt: 1 }))
    })?;
    for index in [0, 1] {
        let [count, ..] = vm[0].done(index, Order::Taken { interrupt: 1 })?;
        // Two at once are one to the GIC; none at all is none.
        let others = sent[1 - index].load(Ordering::Relaxed) as u64;
        ensure!(
            (1..=others).contains(&count),
            "vCPU {index} took {count} of {others}"
        );
    }
    schedule::end_all(vm)
});

case!(protected_and_open_guests_live_side_by_side, {
    let vms: Vec<Vm> = [Plan::protected(), Plan::open(), Plan::protected(), Plan::open()]
        .into_iter()
        .map(Vm::launch)
        .collect::<Result<_, Outcome>>()?;
    let address = PAGE * FRAME_SIZE;
    schedule::run(
        &vms,
        crate::cpu::count().min(2),
        sysreg::counter_frequency() / 1000,
        &|turn| {
            let value = turn.vm as u64 + 1;
            if turn.step > 1 && turn.step % 2 == 0 && turn.report != Report::Done([0; 5]) {
                fail!("VM {} in step {}: {:x?}", turn.vm, turn.step, turn.report);
            }
            Ok(match turn.step {
                0 => Some(Order::Fill {
                    address,
                    frames: 1,
                    value,
                }),
                40.. => None,
                step if step % 2 == 1 => Some(Order::Verify {
                    address,
                    frames: 1,
                    value: Some(value),
                }),
                _ => Some(Order::Spin { rounds: 1000 }),
            })
        },
    )?;
    schedule::end_all(vms)
});

case!(guests_come_and_go_on_all_cpus, {
    needs_cpus(2)?;
    let errors = crate::cases::support::FirstError::new();
    crate::cpu::run_everywhere(|_| {
        for _ in 0..4 {
            let life = || -> TestResult {
                let vm = super::support::running(Plan::protected())?;
                vm.fill(PAGE, 7)?;
                vm.ensure_filled(PAGE, Some(7))?;
                vm.end()
            };
            if let Err(outcome) = life() {
                errors.keep(outcome);
            }
        }
    });
    errors.ensure_none()
});
