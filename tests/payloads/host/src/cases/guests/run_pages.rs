//! The page through which host and EL2 pass a run: whatever is in it, EL2 reads what it must and believes none of it.

use super::support::{PAGE, ensure_alive, ensure_run_refused, running, running_with};
use crate::attack::random::Random;
use crate::cases::support::{self, ensure_refused, ensure_state, needs_cpus};
use crate::cpu;
use crate::guest::exit::Exit;
use crate::guest::vcpu::Answer;
use crate::guest::{Plan, Vm, calls, drive};
use crate::registry::{Outcome, TestResult, case, ensure, ensure_eq, succeed};
use crate::{sysreg, timer};
use core::sync::atomic::{AtomicBool, Ordering};
use hyp_abi::run_page::{ENTRY_ANSWER, ENTRY_FLAGS, ENTRY_LIST_COUNT, EXIT_REASON, EntryFlags};
use hyp_abi::{FrameState, HostCall, Status, VmCall};
use payload_protocol::{Access, Order, Report, layout};

case!(a_run_page_is_el2s_for_as_long_as_the_vm_is, {
    let vm = running(Plan::protected())?;
    let (frame, range) = (vm.vcpus[0].page.address(), vm.vcpus[0].page.range());
    ensure_state(frame, FrameState::HostSharedHyp, 1)?;
    for (call, status) in [
        (HostCall::UnshareHyp(range), Status::Pinned),
        (HostCall::DonateHyp(range), Status::SharedWithHyp),
        (HostCall::ShareHyp(range), Status::SharedWithHyp),
        (HostCall::PoolTopUp(range), Status::SharedWithHyp),
        (
            HostCall::Vm(VmCall::Donate {
                vm: vm.handle(),
                range,
                gfn: PAGE,
            }),
            Status::SharedWithHyp,
        ),
        (HostCall::Vm(VmCall::ForceReclaim { frame }), Status::NotOwner),
        (HostCall::Vm(VmCall::PinShared(range)), Status::NotShared),
        (HostCall::Vm(VmCall::UnpinShared(range)), Status::NotPinned),
    ] {
        ensure_refused(call, status, &[])?;
    }
    ensure_state(frame, FrameState::HostSharedHyp, 1)?;
    vm.kill()?;
    ensure_state(frame, FrameState::HostSharedHyp, 1)?;
    vm.bury()
});

case!(a_run_page_must_be_shared, {
    let vm = Vm::create(Plan::protected())?;
    let frame = support::frames(1)?;
    let call = VmCall::CreateVcpu {
        vm: vm.handle(),
        index: 0,
        run_page: frame.frame(0),
    };
    super::support::ensure_refused_of(&vm, call, Status::NotShared, &[frame.frame(0)])?;
    frame.free();
    vm.end()
});

case!(flags_that_are_none_have_no_meaning, {
    let vm = running(Plan::protected())?;
    for flags in [1 << 2, 1 << 63, u64::MAX, !(EntryFlags::all().bits())] {
        vm.vcpus[0].enter(Answer::Done(Order::Nothing.encode()));
        vm.vcpus[0].page.write(ENTRY_FLAGS, flags);
        ensure_run_refused(&vm, 0, Status::InvalidParameter)?;
    }
    ensure_alive(&vm)?;
    vm.end()
});

case!(answers_that_are_none_have_no_meaning, {
    let vm = running(Plan::protected())?;
    for answer in [3, 4, 1 << 32, u64::MAX] {
        vm.vcpus[0].enter(Answer::Done(Order::Nothing.encode()));
        vm.vcpus[0].page.write(ENTRY_ANSWER, answer);
        ensure_run_refused(&vm, 0, Status::InvalidParameter)?;
    }
    // An answer that its exit does not know.
    vm.vcpus[0].enter(Answer::Refuse);
    ensure_run_refused(&vm, 0, Status::InvalidParameter)?;
    ensure_alive(&vm)?;
    vm.end()
});

case!(a_done_that_no_exit_waits_for_has_no_meaning, {
    let vm = running_with(0)?;
    let exit = vm.begin_order(0, drive::access(Access::Load8, layout::FREE, 0))?;
    ensure!(matches!(exit, Exit::MemoryFault { .. }), "exit {exit:x?}");
    // A fault on memory is not the host's to carry out: no data of its making reaches the guest.
    vm.vcpus[0].enter(Answer::Done([0x1234; 4]));
    ensure_run_refused(&vm, 0, Status::InvalidParameter)?;
    vm.give(PAGE)?;
    ensure_eq!(
        vm.finish(0, Answer::Retry)?,
        Report::Done([0; 5]),
        "what the guest loaded"
    );
    vm.end()
});

case!(el2_does_not_read_its_own_exit_record, {
    let vm = running_with(1)?;
    for value in [0, u64::MAX, 0x5555_5555_5555_5555] {
        for word in EXIT_REASON..512 {
            vm.vcpus[0].page.write(word, value);
        }
        ensure_alive(&vm)?;
        let exit = vm.begin_order(0, drive::access(Access::Load4, layout::DEVICE, 0))?;
        ensure_eq!(
            exit,
            Exit::MmioRead {
                ipa: layout::DEVICE,
                bytes: 4
            },
            "exit"
        );
        for word in EXIT_REASON..512 {
            vm.vcpus[0].page.write(word, value);
        }
        ensure_eq!(
            vm.finish(0, Answer::Done([7, 0, 0, 0]))?,
            Report::Done([7, 0, 0, 0, 0]),
            "what the guest loaded"
        );
    }
    vm.end()
});

/// An order that keeps the guest at one device, whose answers mean nothing to it: no record can lead it elsewhere.
const AT_A_DEVICE: Order = Order::Repeat {
    access: Access::Load4,
    address: layout::DEVICE,
    rounds: u64::MAX,
};

/// Runs `body` with a tick, which brings the guest back whatever a record has told it.
fn with_a_tick(body: impl FnOnce() -> TestResult) -> TestResult {
    timer::interrupt_every(sysreg::counter_frequency() / 500);
    let result = body();
    timer::stop();
    drive::take_interrupts();
    result
}

/// A run of vCPU 0 with the record as it is: the exit, or `None` if the record has no meaning.
fn run(vm: &Vm) -> Result<Option<Exit>, Outcome> {
    let results = calls::call(VmCall::Run {
        vm: vm.handle(),
        index: 0,
    });
    match results {
        Ok(results) => {
            drive::take_interrupts();
            vm.vcpus[0].leave(results).map(Some)
        }
        Err(error) => {
            ensure_eq!(error.status(), Some(Status::InvalidParameter), "run");
            Ok(None)
        }
    }
}

case!(a_random_record_is_refused_or_has_a_meaning, {
    let vm = running_with(1)?;
    let mut random = Random::new(0x5eed, 7);
    let mut ran = 0;
    with_a_tick(|| {
        let mut exit = vm.begin_order(0, AT_A_DEVICE)?;
        for _ in 0..2000 {
            if !matches!(exit, Exit::MmioRead { .. } | Exit::Interrupt) {
                // The access was refused, and the guest says so. Nothing else can come of a record.
                drive::report(exit)?;
                exit = vm.begin_order(0, AT_A_DEVICE)?;
            }
            let page = &vm.vcpus[0].page;
            for word in 0..64 {
                let value = match random.below(4) {
                    0 => 0,
                    1 => random.below(20),
                    2 => 1 << random.below(64),
                    _ => random.next(),
                };
                page.write(word, value);
            }
            // Most flags have no meaning, and most answers: let some have one.
            if random.one_in(2) {
                page.write(ENTRY_FLAGS, random.below(4));
                page.write(ENTRY_ANSWER, random.below(4));
                page.write(ENTRY_LIST_COUNT, random.below(6));
            }
            if let Some(after) = run(&vm)? {
                exit = after;
                ran += 1;
            }
        }
        Ok(())
    })?;
    ensure!(ran > 100, "only {ran} records ran");
    vm.end()
});

case!(a_record_that_changes_under_a_run_changes_no_more_than_itself, {
    needs_cpus(2)?;
    let vm = running_with(1)?;
    let stop = AtomicBool::new(false);
    let error = support::FirstError::new();
    vm.begin_order(0, AT_A_DEVICE)?;
    cpu::run_on_first(2, |cpu| {
        let page = &vm.vcpus[0].page;
        if cpu == 1 {
            let mut random = Random::new(3, 3);
            while !stop.load(Ordering::Relaxed) {
                page.write(random.below(128) as usize, random.next());
            }
            return;
        }
        let all = || {
            for _ in 0..3000 {
                // The other CPU may have spoiled it by the time that EL2 looks; what EL2 answers is one or the other.
                page.write(ENTRY_FLAGS, EntryFlags::ANSWER.bits());
                page.write(ENTRY_ANSWER, 2);
                let run = calls::call(VmCall::Run {
                    vm: vm.handle(),
                    index: 0,
                });
                drive::take_interrupts();
                if let Err(error) = run {
                    ensure_eq!(error.status(), Some(Status::InvalidParameter), "run");
                }
            }
            Ok(())
        };
        if let Err(outcome) = with_a_tick(all) {
            error.keep(outcome);
        }
        stop.store(true, Ordering::Relaxed);
    });
    error.ensure_none()?;
    vm.end()
});

case!(a_run_page_that_another_vcpu_uses_too_is_the_hosts_own_fault, {
    // Two vCPUs with one page: the host confuses itself, and nobody else.
    let mut vm = Vm::load(Plan {
        backing: 80,
        vcpus: 1,
        ..Plan::protected()
    })?;
    vm.launch_loaded()?;
    vm.ready()?;
    let other = Vm::create(Plan::protected())?;
    calls::call_supplied(
        other.handle(),
        VmCall::CreateVcpu {
            vm: other.handle(),
            index: 0,
            run_page: vm.vcpus[0].page.address(),
        },
    )?;
    ensure_state(vm.vcpus[0].page.address(), FrameState::HostSharedHyp, 2)?;
    ensure_alive(&vm)?;
    other.end()?;
    ensure_state(vm.vcpus[0].page.address(), FrameState::HostSharedHyp, 1)?;
    vm.vcpus.truncate(1);
    succeed!(calls::call(VmCall::Statistics {
        vm: vm.handle(),
        statistic: 0
    }));
    vm.end()
});
