//! The life of a VM: from its creation to its end, and what it is called.

use super::support::{
    DONE, PAGE, ensure_alive, ensure_refused, ensure_run_refused, frames_of, pool_free, running, running_with,
};
use crate::cases::support::{POOL_LOW, ensure_state, fill_pool_to, needs_cpus};
use crate::cpu;
use crate::guest::exit::Exit;
use crate::guest::vcpu::Answer;
use crate::guest::{Plan, Vm, calls};
use crate::hypercall::HYPERVISOR;
use crate::machine::machine;
use crate::registry::{Outcome, TestResult, case, ensure, ensure_eq, fail, succeed};
use core::sync::atomic::{AtomicBool, Ordering};
use hyp_abi::host_call::Statistic;
use hyp_abi::vm::VmStatistic;
use hyp_abi::{Counter, FRAME_SIZE, FrameRange, FrameState, Status, VmCall, VmHandle};
use payload_protocol::{Order, Report, Start, layout};
use spin::mutex::TicketMutex;

/// CurrentEL at EL1.
const EL1: u64 = 1 << 2;
/// SCTLR_EL1 bits that a reset clears: M, C and I.
const MMU_AND_CACHES: u64 = 1 << 0 | 1 << 2 | 1 << 12;

/// How many VMs in a row must leave nothing.
const ROUNDS: u32 = 3;

/// The first report of a guest must say that it began as a CPU does.
fn ensure_began(vm: &Vm, start: Start) -> TestResult {
    match vm.begin(0)? {
        Report::Ready {
            start: x0,
            level,
            sctlr,
        } => {
            ensure_eq!(x0, start.to_register(), "x0");
            ensure_eq!(level, EL1, "CurrentEL");
            ensure_eq!(sctlr & MMU_AND_CACHES, 0, "SCTLR_EL1");
            Ok(())
        }
        other => fail!("the guest began with {other:x?}"),
    }
}

case!(a_guest_begins_at_its_entry_with_its_argument, {
    let plan = Plan::protected();
    let vm = Vm::launch(plan)?;
    ensure_began(&vm, plan.start)?;
    ensure_alive(&vm)?;
    vm.end()
});

case!(a_guest_that_is_not_protected_begins_the_same_way, {
    let plan = Plan::open();
    let vm = Vm::launch(plan)?;
    ensure_began(&vm, plan.start)?;
    ensure_alive(&vm)?;
    vm.end()
});

case!(a_guest_with_its_mmu_off_runs, {
    let mut plan = Plan::protected();
    plan.start.mmu_off = true;
    let vm = Vm::launch(plan)?;
    ensure_began(&vm, plan.start)?;
    vm.store8(layout::FREE, 0x1234)?;
    ensure_eq!(vm.load8(layout::FREE)?, 0x1234, "memory");
    vm.end()
});

case!(every_size_of_ipa_space_runs, {
    let largest = super::limits::largest_ipa_bits()?;
    for ipa_bits in super::limits::SMALLEST_IPA_BITS..=largest {
        let vm = running(Plan {
            ipa_bits,
            ..Plan::protected()
        })?;
        ensure_alive(&vm)?;
        vm.end()?;
    }
    Ok(())
});

/// After each of some VMs, EL2 must use as many pages of its pool as before.
fn ensure_nothing_stays(live: impl Fn() -> TestResult) -> TestResult {
    // Twice what makes a new VM fill the pool, or the pages that the filling costs would be taken for the VM's.
    fill_pool_to(2 * POOL_LOW)?;
    let before = pool_used()?;
    for round in 0..ROUNDS {
        live()?;
        ensure_eq!(pool_used()?, before, "pages that EL2 uses after VM {round}");
    }
    Ok(())
}

/// Pages of EL2's pool that it uses. What only stays split does not count: the region that a frame is the first to leave
/// costs a node and a table, which stay until somebody asks for a collapse.
fn pool_used() -> Result<u64, Outcome> {
    for memory in &machine().memory {
        let range = FrameRange::new(memory.start, (memory.end - memory.start) / FRAME_SIZE);
        succeed!(HYPERVISOR.collapse(range));
    }
    let total = succeed!(HYPERVISOR.statistic(Statistic::PoolTotal));
    Ok(total - pool_free()?)
}

case!(a_vm_goes_without_a_trace, {
    ensure_nothing_stays(|| {
        let mut vm = Vm::create(Plan {
            vcpus: 4,
            ..Plan::protected()
        })?;
        for _ in 0..4 {
            vm.add_vcpu()?;
        }
        ensure_eq!(calls::statistic(vm.handle(), VmStatistic::Vcpus)?, 4, "vCPUs");
        let pages = calls::statistic(vm.handle(), VmStatistic::PagesTotal)?;
        ensure!(pages >= 6 + vm.plan.reserve, "{pages} pages in all");
        vm.end()
    })
});

case!(a_guest_with_memory_goes_without_a_trace, {
    ensure_nothing_stays(|| running_with(3)?.end())
});

case!(a_vm_counts_its_frames, {
    let vm = running_with(5)?;
    let [private, shared, borrowed] = frames_of(&vm)?;
    ensure_eq!((private, shared, borrowed), (vm.pages(), 0, 0), "frames");
    vm.end()
});

case!(a_dying_vm_says_how_many_frames_are_left, {
    let vm = running_with(5)?;
    let pages = vm.pages();
    ensure_eq!(vm.kill()?, pages, "frames left");
    ensure_eq!(vm.kill()?, pages, "frames left, asked once more");
    for (number, gfn) in (PAGE..PAGE + 5).enumerate() {
        calls::reclaim(vm.handle(), Vm::page(gfn))?;
        ensure_state(vm.frame(gfn)?, FrameState::Host, 0)?;
        ensure_eq!(vm.kill()?, pages - 1 - number as u64, "frames left");
    }
    vm.bury()
});

case!(a_dying_vm_runs_no_more, {
    let vm = running_with(1)?;
    vm.kill()?;
    ensure_run_refused(&vm, 0, Status::WrongVmState)?;
    vm.bury()
});

case!(a_vm_runs_only_after_its_launch, {
    let vm = Vm::load(Plan::protected())?;
    ensure_run_refused(&vm, 0, Status::WrongVmState)?;
    vm.launch_loaded()?;
    vm.ready()?;
    vm.end()
});

case!(a_launch_happens_once, {
    let vm = running(Plan::protected())?;
    let again = VmCall::Launch {
        vm: vm.handle(),
        entry: layout::IMAGE,
        argument: 0,
    };
    super::support::ensure_refused_of(&vm, again, Status::WrongVmState, &[])?;
    ensure_alive(&vm)?;
    vm.end()
});

case!(a_launch_needs_a_first_vcpu_and_an_entry, {
    let mut vm = Vm::create(Plan::protected())?;
    let launch = |vm: &Vm, entry| VmCall::Launch {
        vm: vm.handle(),
        entry,
        argument: 0,
    };
    super::support::ensure_refused_of(&vm, launch(&vm, layout::IMAGE), Status::NoSuchVcpu, &[])?;
    vm.add_vcpu()?;
    for entry in [layout::IMAGE + 1, layout::IMAGE + 2, layout::IMAGE + 3] {
        super::support::ensure_refused_of(&vm, launch(&vm, entry), Status::InvalidParameter, &[])?;
    }
    for entry in [1 << 32, 1 << 48, !3] {
        super::support::ensure_refused_of(&vm, launch(&vm, entry), Status::GfnOutOfRange, &[])?;
    }
    vm.end()
});

case!(a_vm_that_was_destroyed_is_named_by_nothing, {
    let vm = running(Plan::protected())?;
    let stale = vm.handle();
    vm.end()?;
    super::every_vm::ensure_all_refused(stale, Status::NoSuchVm)
});

case!(a_slot_that_is_used_again_has_another_handle, {
    let first = Vm::create(Plan::protected())?;
    let stale = first.handle();
    first.end()?;
    let second = Vm::create(Plan::protected())?;
    let (old, new) = (
        VmHandle::from_register(stale),
        VmHandle::from_register(second.handle()),
    );
    ensure!(old != new, "both are {old:?}");
    ensure_eq!(
        old.map(|handle| handle.slot),
        new.map(|handle| handle.slot),
        "slots"
    );
    super::every_vm::ensure_all_refused(stale, Status::NoSuchVm)?;
    second.end()
});

case!(a_forged_handle_names_nothing, {
    let vm = Vm::create(Plan::protected())?;
    let handle = vm.handle();
    for forged in [
        0,
        1,
        handle ^ 1,
        handle + 0x100,
        handle.wrapping_sub(0x100),
        handle | 1 << 40,
        handle | 1 << 63,
        handle & 0xff,
        handle & !0xff,
        u64::MAX,
    ] {
        ensure_refused(
            VmCall::Statistics {
                vm: forged,
                statistic: 0,
            },
            Status::NoSuchVm,
            &[],
        )?;
        ensure_refused(VmCall::Destroy { vm: forged }, Status::NoSuchVm, &[])?;
    }
    super::every_vm::ensure_all_refused(handle ^ 1, Status::NoSuchVm)?;
    vm.end()
});

case!(a_renamed_vm_goes_on_under_its_new_handle_alone, {
    let vm = running_with(1)?;
    vm.store8(layout::FREE, 0xabcd)?;
    vm.done(0, Order::FillVectors { seed: 5 })?;
    let digest = super::digest::of(&vm)?;
    let frames = frames_of(&vm)?;
    let stale = vm.rename()?;
    ensure!(stale != vm.handle(), "the handle is the same");
    super::every_vm::ensure_all_refused(stale, Status::NoSuchVm)?;
    ensure_eq!(super::digest::of(&vm)?, digest, "digest");
    ensure_eq!(frames_of(&vm)?, frames, "frames");
    ensure_eq!(vm.load8(layout::FREE)?, 0xabcd, "memory");
    let [differ, ..] = vm.done(0, Order::VerifyVectors { seed: 5 })?;
    ensure_eq!(differ, 0, "vector registers");
    vm.end()
});

case!(a_vm_is_renamed_at_every_point_of_its_life_but_the_end, {
    let vm = Vm::load(Plan::protected())?;
    vm.rename()?;
    vm.launch_loaded()?;
    vm.rename()?;
    vm.ready()?;
    vm.rename()?;
    ensure_alive(&vm)?;
    vm.kill()?;
    super::support::ensure_refused_of(&vm, VmCall::Rename { vm: vm.handle() }, Status::WrongVmState, &[])?;
    vm.bury()
});

/// Waits until a CPU is in a guest, and stays there.
fn wait_until_inside(cpu: u64) -> bool {
    let count = |counter| HYPERVISOR.counter(cpu, counter).unwrap_or(0);
    let mut inside = 0;
    for _ in 0..10_000_000 {
        let (exits, entries) = (count(Counter::GuestExits), count(Counter::GuestEntries));
        inside = if entries > exits { inside + 1 } else { 0 };
        if inside == 1000 {
            return true;
        }
    }
    false
}

/// Runs `while_running` on this CPU while another one is in the guest of `vm`, which spins until it is told to stop.
fn while_another_runs(vm: &Vm, while_running: impl Fn() -> TestResult + Sync) -> TestResult {
    needs_cpus(2)?;
    // The guest lends a page, through which it is told.
    super::support::ensure_done(vm, hyp_abi::guest_call::GuestCallId::MemShare, PAGE)?;
    let flag = vm.frame_view(PAGE)?;
    flag.zero();
    let order = Order::Poll {
        address: layout::FREE,
        value: 0,
    };
    let result = TicketMutex::<_>::new(None);
    let seen = AtomicBool::new(false);
    cpu::run_on_first(2, |cpu| {
        if cpu == 1 {
            *result.lock() = Some(vm.done(0, order));
            return;
        }
        seen.store(wait_until_inside(1), Ordering::Release);
        *result.lock() = while_running().err().map(Err);
        flag.fill(1);
    });
    ensure!(
        seen.load(Ordering::Acquire),
        "the other CPU was never seen in the guest"
    );
    match result.into_inner() {
        Some(Ok([value, ..])) => {
            ensure!(value != 0, "the guest stopped by itself");
            Ok(())
        }
        Some(Err(outcome)) => Err(outcome),
        None => fail!("no CPU ran the guest"),
    }
}

case!(a_vcpu_runs_on_one_cpu_at_a_time, {
    let vm = running_with(1)?;
    while_another_runs(&vm, || ensure_running_refused(&vm))?;
    vm.end()
});

/// While a vCPU runs: it cannot be run, and its VM can neither be destroyed nor renamed.
fn ensure_running_refused(vm: &Vm) -> TestResult {
    let handle = vm.handle();
    for call in [
        VmCall::Run { vm: handle, index: 0 },
        VmCall::Destroy { vm: handle },
        VmCall::Rename { vm: handle },
    ] {
        match calls::call(call) {
            Err(error) => ensure_eq!(error.status(), Some(Status::VcpuRunning), "{call:x?}"),
            Ok(_) => return super::support::went_through("a call about a VM that runs"),
        }
    }
    Ok(())
}

case!(a_vcpu_moves_from_cpu_to_cpu, {
    needs_cpus(2)?;
    let vm = running_with(1)?;
    vm.done(0, Order::FillVectors { seed: 11 })?;
    for round in 0..40 {
        cpu::answer_of(1 + round % (cpu::count() - 1), || {
            vm.store8(layout::FREE, round as u64)
        })?;
        ensure_eq!(vm.load8(layout::FREE)?, round as u64, "memory");
    }
    let [differ, ..] = vm.done(0, Order::VerifyVectors { seed: 11 })?;
    ensure_eq!(differ, 0, "vector registers");
    vm.end()
});

case!(code_that_a_guest_changes_is_run_as_it_is_on_every_cpu, {
    needs_cpus(2)?;
    let vm = running_with(1)?;
    // MOVZ X0, #round; RET. The guest cleans what it wrote only as its architecture says.
    for round in 0..40_u64 {
        let movz = 0xd280_0000 | (round as u32) << 5;
        let run = || -> TestResult {
            let [x0, ..] = vm.done(
                0,
                Order::Execute {
                    level: payload_protocol::Level::El1,
                    instruction: movz,
                    registers: [u64::MAX, 0],
                },
            )?;
            ensure_eq!(x0, round, "what the code answers");
            Ok(())
        };
        if round % 2 == 0 {
            run()?;
        } else {
            cpu::answer_of(1, run)?;
        }
    }
    vm.end()
});

case!(a_vcpu_that_was_not_created_does_not_run, {
    let vm = running(Plan::protected())?;
    for index in [1, 63, 64, 255, 1 << 32, u64::MAX] {
        ensure_run_refused(&vm, index, Status::NoSuchVcpu)?;
    }
    vm.end()
});

case!(a_guest_service_gets_its_registers_and_nothing_else, {
    let vm = running(Plan::protected())?;
    let order = crate::guest::drive::hvc(hyp_abi::guest_call::HOST_SERVICE_LAST, [0x11, 0x22, 0x33]);
    let exit = vm.begin_order(0, order)?;
    let Exit::Service { function, arguments } = exit else {
        fail!("the guest left by {exit:x?}")
    };
    ensure_eq!(
        function,
        u64::from(hyp_abi::guest_call::HOST_SERVICE_LAST),
        "function"
    );
    ensure_eq!(arguments[..3], [0x11, 0x22, 0x33], "x1 to x3");
    // Not answered, the guest asks again; answered, it gets what it was given.
    ensure_eq!(vm.exit(0, Answer::None)?, exit, "the same once more");
    ensure_eq!(
        vm.exit(0, Answer::Retry)?,
        exit,
        "the same when told to try again"
    );
    let answer = Answer::Done([5, 6, 7, 8]);
    let got = vm.hvc_returns(hyp_abi::guest_call::HOST_SERVICE_LAST, answer)?;
    ensure_eq!(got, [5, 6, 7, 8], "x0 to x3");
    vm.end()
});

case!(a_vm_that_turned_itself_off_ends_as_any_other, {
    let vm = running_with(1)?;
    let exit = vm.begin_order(0, crate::guest::drive::hvc(0x8400_0008, [0; 3]))?;
    ensure_eq!(exit, Exit::SystemOff, "exit");
    ensure_run_refused(&vm, 0, Status::WrongVmState)?;
    vm.end()
});

case!(a_page_is_given_before_the_launch_and_after, {
    let vm = Vm::load(Plan::protected())?;
    vm.give_filled(PAGE, 0x77)?;
    vm.launch_loaded()?;
    vm.ready()?;
    vm.give_filled(PAGE + 1, 0x77)?;
    let frame = vm.frame(PAGE)?;
    ensure_eq!(
        vm.load8(layout::FREE)?,
        0x77 ^ frame,
        "what was given before the launch"
    );
    vm.ensure_filled(PAGE + 1, None)?;
    ensure_eq!(
        vm.hvc(
            u32::from(hyp_abi::guest_call::GuestCallId::MmioGuardEnroll),
            [0; 3]
        )?,
        DONE,
        "a call"
    );
    ensure_eq!(vm.load8(layout::FREE + FRAME_SIZE)?, 0, "a page that came later");
    vm.end()
});
