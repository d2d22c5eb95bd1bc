//! PSCI, as EL2 answers it to guests (Arm DEN0022).

use super::support::{ensure_alive, ensure_run_refused, running};
use crate::guest::exit::Exit;
use crate::guest::vcpu::Answer;
use crate::guest::{Plan, Vm, drive, vgic};
use crate::registry::{TestResult, case, ensure, ensure_eq, fail};
use hyp_abi::Status;
use hyp_abi::run_page::WaitKind;
use payload_protocol::{Order, Report, Start, layout};

/// Function identifiers.
pub(super) const VERSION: u32 = 0x8400_0000;
pub(super) const CPU_OFF: u32 = 0x8400_0002;
pub(super) const SYSTEM_OFF: u32 = 0x8400_0008;
const CPU_SUSPEND: u32 = 0xc400_0001;
const CPU_SUSPEND_32: u32 = 0x8400_0001;
const CPU_ON: u32 = 0xc400_0003;
const CPU_ON_32: u32 = 0x8400_0003;
const AFFINITY_INFO: u32 = 0xc400_0004;
const AFFINITY_INFO_32: u32 = 0x8400_0004;
const MIGRATE: u32 = 0xc400_0005;
const MIGRATE_INFO_TYPE: u32 = 0x8400_0006;
const SYSTEM_RESET: u32 = 0x8400_0009;
const FEATURES: u32 = 0x8400_000a;
const SYSTEM_SUSPEND: u32 = 0xc400_000e;
const SYSTEM_RESET2: u32 = 0xc400_0012;
const MEM_PROTECT: u32 = 0x8400_0013;

/// Errors.
const NOT_SUPPORTED: u64 = 0_u64.wrapping_sub(1);
const INVALID_PARAMETERS: u64 = 0_u64.wrapping_sub(2);
const ALREADY_ON: u64 = 0_u64.wrapping_sub(4);
const ON_PENDING: u64 = 0_u64.wrapping_sub(5);
const INVALID_ADDRESS: u64 = 0_u64.wrapping_sub(9);

/// What AFFINITY_INFO answers.
const ON: u64 = 0;
const OFF: u64 = 1;
const PENDING: u64 = 2;

/// The order by which a vCPU turns on vCPU `index`, to begin in the payload guest.
fn start_order(index: u8) -> Order {
    Order::Start {
        target: vgic::affinity(index.into()),
        start: start_of(index).to_register(),
    }
}

fn start_of(index: u8) -> Start {
    Start {
        index,
        mmu_off: false,
        tag: 0x5ec0 + u64::from(index),
    }
}

/// vCPU 0 turns vCPU `index` on, which comes up.
pub(super) fn start(vm: &Vm, index: u8) -> TestResult {
    let exit = vm.begin_order(0, start_order(index))?;
    ensure_eq!(exit, Exit::CpuOn(index.into()), "exit");
    let report = vm.finish(0, Answer::None)?;
    ensure_eq!(report, Report::Done([0; 5]), "CPU_ON");
    match vm.begin(index.into())? {
        Report::Ready { start, .. } if start == start_of(index).to_register() => Ok(()),
        other => fail!("vCPU {index} began with {other:x?}"),
    }
}

/// A call of vCPU 0 must return this x0, and zeroes in x1 to x3.
fn ensure_returns(vm: &Vm, function: u32, arguments: [u64; 3], x0: u64) -> TestResult {
    let got = vm.hvc(function, arguments)?;
    ensure_eq!(got, [x0, 0, 0, 0], "PSCI {function:#x} {arguments:x?}");
    Ok(())
}

case!(the_version_is_1_1, {
    let vm = running(Plan::protected())?;
    ensure_returns(&vm, VERSION, [0; 3], 0x1_0001)?;
    vm.end()
});

case!(features_are_those_that_are_there, {
    let vm = running(Plan::protected())?;
    for function in [
        VERSION,
        CPU_SUSPEND,
        CPU_SUSPEND_32,
        CPU_OFF,
        CPU_ON,
        CPU_ON_32,
        AFFINITY_INFO,
        AFFINITY_INFO_32,
        MIGRATE_INFO_TYPE,
        SYSTEM_OFF,
        SYSTEM_RESET,
        FEATURES,
    ] {
        ensure_returns(&vm, FEATURES, [function.into(), 0, 0], 0)?;
    }
    for function in [
        MIGRATE,
        SYSTEM_SUSPEND,
        SYSTEM_RESET2,
        MEM_PROTECT,
        0x8400_000b,
        0x8400_001f,
    ] {
        ensure_returns(&vm, FEATURES, [function.into(), 0, 0], NOT_SUPPORTED)?;
        ensure_returns(&vm, function, [0; 3], NOT_SUPPORTED)?;
    }
    vm.end()
});

case!(there_is_nothing_to_migrate, {
    let vm = running(Plan::protected())?;
    ensure_returns(&vm, MIGRATE_INFO_TYPE, [0; 3], 2)?;
    vm.end()
});

case!(a_vcpu_is_turned_on_once, {
    let vm = running(Plan::protected().vcpus(2))?;
    ensure_returns(&vm, AFFINITY_INFO, [1, 0, 0], OFF)?;
    ensure_run_refused(&vm, 1, Status::VcpuOff)?;
    let exit = vm.begin_order(0, start_order(1))?;
    ensure_eq!(exit, Exit::CpuOn(1), "exit");
    ensure_eq!(vm.finish(0, Answer::None)?, Report::Done([0; 5]), "CPU_ON");
    // It has not run yet.
    ensure_returns(&vm, AFFINITY_INFO, [1, 0, 0], PENDING)?;
    ensure_returns(&vm, CPU_ON, [1, layout::IMAGE, 0], ON_PENDING)?;
    vm.begin(1)?;
    ensure_returns(&vm, AFFINITY_INFO, [1, 0, 0], ON)?;
    ensure_returns(&vm, CPU_ON, [1, layout::IMAGE, 0], ALREADY_ON)?;
    ensure_returns(&vm, CPU_ON, [0, layout::IMAGE, 0], ALREADY_ON)?;
    vm.end()
});

case!(a_vcpu_begins_with_what_it_was_given_and_nothing_of_the_others, {
    let vm = running(Plan::protected().vcpus(2))?;
    vm.done(0, Order::FillVectors { seed: 77 })?;
    let exit = vm.begin_order(0, start_order(1))?;
    ensure_eq!(exit, Exit::CpuOn(1), "exit");
    vm.finish(0, Answer::None)?;
    let Report::Ready { start, level, sctlr } = vm.begin(1)? else {
        fail!("vCPU 1 did not begin")
    };
    ensure_eq!(start, start_of(1).to_register(), "x0");
    ensure_eq!(level, 1 << 2, "CurrentEL");
    ensure_eq!(sctlr & (1 << 0 | 1 << 2 | 1 << 12), 0, "SCTLR_EL1");
    let [differ, ..] = vm.done(1, Order::VerifyVectors { seed: 77 })?;
    ensure_eq!(
        differ,
        u64::from(u32::MAX),
        "vector registers that are not those of vCPU 0"
    );
    vm.end()
});

case!(a_target_that_is_none_is_invalid, {
    let vm = running(Plan {
        vcpus: 4,
        ..Plan::protected().vcpus(2)
    })?;
    for target in [2, 3, 4, 16, 0x100, 1 << 16, 1 << 24, 1 << 32, u64::MAX, 1 << 31] {
        if target < vm.plan.vcpus {
            continue;
        }
        for function in [CPU_ON, AFFINITY_INFO] {
            let arguments = match function {
                CPU_ON => [target, layout::IMAGE, 0],
                _ => [target, 0, 0],
            };
            ensure_returns(&vm, function, arguments, INVALID_PARAMETERS)?;
        }
    }
    vm.end()
});

case!(an_entry_that_is_none_is_invalid, {
    let vm = running(Plan::protected().vcpus(2))?;
    for entry in [layout::IMAGE + 2, layout::IMAGE + 1, 1 << 32, 1 << 48, !3] {
        ensure_returns(&vm, CPU_ON, [1, entry, 0], INVALID_ADDRESS)?;
    }
    ensure_returns(&vm, AFFINITY_INFO, [1, 0, 0], OFF)?;
    vm.end()
});

case!(affinity_info_knows_groups, {
    let vm = running(Plan::protected().vcpus(2))?;
    for level in [1, 2, 3] {
        ensure_returns(&vm, AFFINITY_INFO, [0, level, 0], ON)?;
        ensure_returns(&vm, AFFINITY_INFO, [1, level, 0], ON)?;
    }
    ensure_returns(&vm, AFFINITY_INFO, [0, 4, 0], INVALID_PARAMETERS)?;
    ensure_returns(&vm, AFFINITY_INFO, [0, u64::MAX, 0], INVALID_PARAMETERS)?;
    vm.end()
});

case!(calls_of_32_bits_look_at_32_bits, {
    let vm = running(Plan::protected().vcpus(2))?;
    let garbage = 0xffff_ffff_0000_0000;
    ensure_returns(&vm, AFFINITY_INFO_32, [garbage | 1, garbage, 0], OFF)?;
    let exit = vm.begin_order(
        0,
        drive::hvc(
            CPU_ON_32,
            [garbage | 1, garbage | layout::IMAGE, garbage | 1 << 8],
        ),
    )?;
    ensure_eq!(exit, Exit::CpuOn(1), "exit");
    ensure_eq!(vm.finish(0, Answer::None)?, Report::Done([0; 5]), "CPU_ON");
    let Report::Ready { start, .. } = vm.begin(1)? else {
        fail!("vCPU 1 did not begin")
    };
    ensure_eq!(start, 1 << 8, "x0");
    vm.end()
});

case!(a_vcpu_that_turned_itself_off_can_be_turned_on_again, {
    let vm = running(Plan::protected().vcpus(2))?;
    for _ in 0..3 {
        start(&vm, 1)?;
        vm.done(1, Order::FillVectors { seed: 5 })?;
        let exit = vm.begin_order(1, drive::hvc(CPU_OFF, [0; 3]))?;
        ensure_eq!(exit, Exit::CpuOff, "exit");
        ensure_run_refused(&vm, 1, Status::VcpuOff)?;
        ensure_returns(&vm, AFFINITY_INFO, [1, 0, 0], OFF)?;
    }
    vm.end()
});

case!(the_first_vcpu_can_go_while_the_second_stays, {
    let vm = running(Plan::protected().vcpus(2))?;
    start(&vm, 1)?;
    let exit = vm.begin_order(0, drive::hvc(CPU_OFF, [0; 3]))?;
    ensure_eq!(exit, Exit::CpuOff, "exit");
    vm.done(1, Order::Nothing)?;
    ensure_run_refused(&vm, 0, Status::VcpuOff)?;
    // vCPU 1 turns it on again.
    let exit = vm.begin_order(1, start_order(0))?;
    ensure_eq!(exit, Exit::CpuOn(0), "exit");
    vm.finish(1, Answer::None)?;
    ensure!(
        matches!(vm.begin(0)?, Report::Ready { .. }),
        "vCPU 0 did not begin"
    );
    vm.end()
});

case!(a_vcpu_that_suspends_goes_on_after_an_interrupt, {
    let vm = running(Plan::protected())?;
    for function in [CPU_SUSPEND, CPU_SUSPEND_32] {
        let exit = vm.begin_order(0, drive::hvc(function, [0; 3]))?;
        ensure_eq!(exit, Exit::Wait(WaitKind::Suspend), "exit");
        vm.vcpus[0].interrupt(9);
        let got = vm.hvc_returns(function, Answer::None)?;
        ensure_eq!(got, [0; 4], "CPU_SUSPEND");
    }
    vm.end()
});

/// After the end that a guest has called, no vCPU runs.
fn ensure_ended(function: u32, expected: Exit) -> TestResult {
    let vm = running(Plan::protected().vcpus(2))?;
    start(&vm, 1)?;
    let exit = vm.begin_order(1, drive::hvc(function, [0; 3]))?;
    ensure_eq!(exit, expected, "exit");
    for index in [0, 1] {
        ensure_run_refused(&vm, index, Status::WrongVmState)?;
    }
    vm.end()
}

case!(a_guest_that_is_off_runs_no_more, {
    ensure_ended(SYSTEM_OFF, Exit::SystemOff)
});
case!(a_guest_that_wants_a_reset_runs_no_more, {
    ensure_ended(SYSTEM_RESET, Exit::SystemReset)
});

case!(every_vcpu_reads_its_own_affinity, {
    let vm = running(Plan::protected().vcpus(18))?;
    for index in 0..18 {
        if index > 0 {
            start(&vm, index)?;
        }
        // MRS X0, MPIDR_EL1.
        let order = Order::Execute {
            level: payload_protocol::Level::El1,
            instruction: 0xd538_00a0,
            registers: [0; 2],
        };
        let [mpidr, ..] = vm.done(index.into(), order)?;
        ensure_eq!(
            mpidr & 0xff_00ff_ffff,
            vgic::affinity(index.into()),
            "MPIDR of vCPU {index}"
        );
    }
    ensure_alive(&vm)?;
    vm.end()
});
