//! Guests killed at random points: every page comes back, the private ones zeroed, and all are counted.

use super::support::{PAGE, frames_of};
use crate::attack::random::Random;
use crate::cases::support::{ensure_state, needs_cpus};
use crate::cpu;
use crate::guest::exit::Exit;
use crate::guest::vcpu::Answer;
use crate::guest::{Plan, Vm, calls, drive};
use crate::registry::{Outcome, TestResult, case, ensure_eq};
use crate::{sysreg, timer};
use core::sync::atomic::{AtomicBool, Ordering};
use hyp_abi::guest_call::GuestCallId;
use hyp_abi::{FRAME_SIZE, FrameRange, FrameState, Status, VmCall};
use payload_protocol::{Access, Order};

/// Guests that each of the cases kills, at most; the payload's command `kill` kills as many as one has time for.
const DEATHS: u64 = 50;

/// Something for the guest to do.
fn order(random: &mut Random) -> Order {
    let gfn = PAGE + random.below(12);
    let address = gfn * FRAME_SIZE;
    let call = |call: GuestCallId| drive::hvc(call.into(), [address, 0, 0]);
    match random.below(9) {
        0 => call(GuestCallId::MemShare),
        1 => call(GuestCallId::MemUnshare),
        2 => call(GuestCallId::MemRelinquish),
        3 => Order::Spin {
            rounds: random.below(1000),
        },
        4 => Order::FillVectors { seed: random.next() },
        5 => drive::access(Access::Load8, address + 8 * random.below(512), 0),
        6 => Order::Timer {
            ticks: random.below(500),
            sleep: random.one_in(2),
        },
        _ => Order::Fill {
            address,
            frames: 1,
            value: random.next(),
        },
    }
}

/// Runs a guest for a while, with the host pinning and unpinning what it lends, and leaves it wherever it is.
fn live(vm: &Vm, random: &mut Random) -> TestResult {
    vm.ready()?;
    for _ in 0..random.below(12) {
        vm.order(0, order(random))?;
    }
    // In the middle of an order: after so many runs, each of which may end by anything.
    let mut answer = Answer::Done(order(random).encode());
    for _ in 0..random.below(4) {
        let exit = vm.run(0, answer)?;
        answer = Answer::None;
        if let Exit::Service { .. } = exit {
            break;
        }
        // What the guest gave up is nobody's until it is taken back.
        if let Exit::Relinquished { .. } = exit {
            vm.handle_exit(0, exit)?;
        } else if random.one_in(2) {
            vm.handle_exit(0, exit)?;
        }
    }
    Ok(())
}

/// Kills the guest, and takes everything back: the count must be right, and private pages zero (see [`Vm::bury`]).
fn die(vm: Vm) -> TestResult {
    let [private, shared, borrowed] = frames_of(&vm)?;
    ensure_eq!(
        (private + shared, borrowed),
        (vm.pages(), 0),
        "frames before the end"
    );
    let left = vm.kill()?;
    ensure_eq!(left, vm.pages(), "frames left");
    vm.bury()
}

case!(a_guest_killed_at_any_point_gives_every_page_back, {
    let mut random = Random::new(0xdead, 1);
    for _ in 0..DEATHS {
        one(&mut random)?;
    }
    Ok(())
});

case!(
    a_guest_killed_while_the_host_is_interrupted_gives_every_page_back,
    {
        let mut random = Random::new(0xdead, 2);
        for _ in 0..DEATHS / 5 {
            one_while_interrupted(&mut random)?;
        }
        Ok(())
    }
);

fn one(random: &mut Random) -> TestResult {
    let vm = Vm::launch(Plan::protected())?;
    live(&vm, random)?;
    die(vm)
}

fn one_while_interrupted(random: &mut Random) -> TestResult {
    timer::interrupt_every(sysreg::counter_frequency() / (1000 + random.below(4000)));
    let result = one(random);
    timer::stop();
    drive::take_interrupts();
    result
}

fn one_from_another_cpu(random: &mut Random) -> TestResult {
    let vm = Vm::launch(Plan::protected())?;
    vm.ready()?;
    for gfn in PAGE..PAGE + 4 {
        vm.fill(gfn, random.next())?;
    }
    let pause = random.below(20_000);
    kill_from_elsewhere(&vm, pause)?;
    vm.bury()
}

/// Kills `count` guests, in each of these ways. The stream of numbers is number `stream` of `seed`.
///
/// # Errors
/// The first that does not give every page back.
pub(crate) fn kill(seed: u64, stream: u64, count: u64) -> TestResult {
    let mut random = Random::new(seed, stream);
    for _ in 0..count {
        match random.below(4) {
            0 => one_while_interrupted(&mut random)?,
            1 if cpu::count() > 1 => one_from_another_cpu(&mut random)?,
            _ => one(&mut random)?,
        }
    }
    Ok(())
}

case!(a_guest_killed_from_another_cpu_gives_every_page_back, {
    needs_cpus(2)?;
    let mut random = Random::new(0xdead, 3);
    for _ in 0..DEATHS / 5 {
        one_from_another_cpu(&mut random)?;
    }
    Ok(())
});

/// CPU 1 runs the guest, which spins; this one ends it as soon as it can.
fn kill_from_elsewhere(vm: &Vm, pause: u64) -> TestResult {
    let (killed, result) = (
        AtomicBool::new(false),
        spin::mutex::TicketMutex::<Option<Outcome>>::new(None),
    );
    cpu::run_on_first(2, |cpu| {
        if cpu == 1 {
            timer::interrupt_every(sysreg::counter_frequency() / 5000);
            let mut answer = Answer::Done(Order::Spin { rounds: u64::MAX }.encode());
            while !killed.load(Ordering::Acquire) {
                vm.vcpus[0].enter(answer);
                answer = Answer::None;
                let run = VmCall::Run {
                    vm: vm.handle(),
                    index: 0,
                };
                match calls::call(run) {
                    Ok([..]) => drive::take_interrupts(),
                    Err(_) => break,
                }
            }
            timer::stop();
            return;
        }
        for _ in 0..pause {
            core::hint::spin_loop();
        }
        // While it runs it cannot be ended: between two runs it can.
        loop {
            match calls::call(VmCall::Destroy { vm: vm.handle() }) {
                Err(error) if error.status() == Some(Status::VcpuRunning) => sysreg::relax(),
                Err(error) if error.status() == Some(Status::FramesLeft) => break,
                other => {
                    *result.lock() = Some(Outcome::Failed(crate::registry::Failure {
                        file: file!(),
                        line: line!(),
                        text: crate::registry::text(format_args!("destroy: {other:?}")),
                    }));
                    break;
                }
            }
        }
        killed.store(true, Ordering::Release);
    });
    result.into_inner().map_or(Ok(()), Err)
}

case!(a_guest_killed_with_pinned_pages_waits_for_the_host, {
    let vm = super::support::running_with(4)?;
    for gfn in PAGE..PAGE + 4 {
        vm.fill(gfn, gfn)?;
        super::support::ensure_done(&vm, GuestCallId::MemShare, gfn)?;
        calls::pin(FrameRange::new(vm.frame(gfn)?, 1))?;
    }
    vm.kill()?;
    for gfn in PAGE..PAGE + 4 {
        let call = VmCall::Reclaim {
            vm: vm.handle(),
            range: Vm::page(gfn),
        };
        super::support::ensure_refused_of(&vm, call, Status::Pinned, &[vm.frame(gfn)?])?;
        ensure_state(vm.frame(gfn)?, FrameState::GuestSharedHost, 1)?;
        calls::unpin(FrameRange::new(vm.frame(gfn)?, 1))?;
    }
    vm.bury()
});

case!(two_cpus_take_a_dead_guest_apart, {
    needs_cpus(2)?;
    let vm = super::support::running_with(40)?;
    for gfn in PAGE..PAGE + 40 {
        vm.fill(gfn, gfn)?;
    }
    vm.kill()?;
    let errors = crate::cases::support::FirstError::new();
    cpu::run_everywhere(|cpu| {
        for gfn in (PAGE..PAGE + 40).skip(cpu).step_by(cpu::count()) {
            if let Err(outcome) = calls::reclaim(vm.handle(), Vm::page(gfn)) {
                errors.keep(outcome);
            }
        }
        // And everybody all of it, which is done by now or in another's hands.
        if let Err(outcome) = calls::reclaim(vm.handle(), vm.plan.declared()) {
            errors.keep(outcome);
        }
    });
    errors.ensure_none()?;
    vm.bury()
});
