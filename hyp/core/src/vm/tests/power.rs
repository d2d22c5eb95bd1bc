//! PSCI, as the guest sees it.

use super::*;
use crate::vm::reset::SCTLR_EL1_RESET;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

const VERSION: u64 = 0x8400_0000;
const SUSPEND_64: u64 = 0xc400_0001;
const CPU_OFF: u64 = 0x8400_0002;
const CPU_ON_32: u64 = 0x8400_0003;
const CPU_ON_64: u64 = 0xc400_0003;
const AFFINITY_32: u64 = 0x8400_0004;
const AFFINITY_64: u64 = 0xc400_0004;
const MIGRATE_INFO_TYPE: u64 = 0x8400_0006;
const SYSTEM_OFF: u64 = 0x8400_0008;
const SYSTEM_RESET: u64 = 0x8400_0009;
const FEATURES: u64 = 0x8400_000a;

const NOT_SUPPORTED: i64 = -1;
const INVALID_PARAMETERS: i64 = -2;
const ALREADY_ON: i64 = -4;
const ON_PENDING: i64 = -5;
const INVALID_ADDRESS: i64 = -9;

/// What x0 to x3 are after a call that EL2 answers.
#[track_caller]
fn answered(bench: Bench, vm: u64, x: [u64; 4]) -> [u64; 4] {
    let seen = Arc::new([const { AtomicU64::new(0) }; 4]);
    let copy = Arc::clone(&seen);
    bench.plays([
        hvc(x),
        look(move |context| {
            for (seen, x) in copy.iter().zip(context.x) {
                seen.store(x, Ordering::SeqCst);
            }
        }),
    ]);
    bench.runs_to(vm, ExitReason::Interrupt, []);
    [0, 1, 2, 3].map(|number| seen[number].load(Ordering::SeqCst))
}

#[track_caller]
fn answers(bench: Bench, vm: u64, x: [u64; 4], expected: i64) {
    assert_eq!(
        answered(bench, vm, x),
        [expected.cast_unsigned(), 0, 0, 0],
        "{x:x?}"
    );
}

#[test]
fn the_version_is_1_1_and_features_tell_what_is_there() {
    let bench = Bench::new();
    let vm = bench.guest();
    answers(bench, vm, [VERSION, 9, 9, 9], 0x1_0001);
    answers(bench, vm, [MIGRATE_INFO_TYPE, 0, 0, 0], 2);
    for function in [
        VERSION,
        0x8400_0001,
        SUSPEND_64,
        CPU_OFF,
        CPU_ON_32,
        CPU_ON_64,
        AFFINITY_32,
        AFFINITY_64,
        MIGRATE_INFO_TYPE,
        SYSTEM_OFF,
        SYSTEM_RESET,
        FEATURES,
        0x8000_0000,
    ] {
        answers(bench, vm, [FEATURES, function, 0, 0], 0);
    }
    for function in [
        0x8400_0005,
        0x8400_0007,
        0x8400_000e,
        0xc400_000e,
        0xc400_0012,
        0xc400_0002,
        0x8400_001f,
        0xc600_0003,
        0x8000_0001,
    ] {
        answers(bench, vm, [FEATURES, function, 0, 0], NOT_SUPPORTED);
        if function >> 24 == 0x84 || function >> 24 == 0xc4 {
            answers(bench, vm, [function, 0, 0, 0], NOT_SUPPORTED);
        }
    }
    // The upper half of x0 is a part of the name.
    answers(bench, vm, [1 << 32 | VERSION, 0, 0, 0], NOT_SUPPORTED);
}

#[test]
fn a_vcpu_is_turned_on_once_and_begins_where_it_was_told() {
    let bench = Bench::new();
    let vm = bench.launched(VmFlags::PROTECTED, 3);
    bench.refused(VmCall::Run { vm, index: 1 }, Status::VcpuOff);
    for (x, expected) in [
        ([CPU_ON_64, 0, ENTRY, 0], ALREADY_ON),
        ([CPU_ON_64, 3, ENTRY, 0], INVALID_PARAMETERS),
        ([CPU_ON_64, 0x100, ENTRY, 0], INVALID_PARAMETERS),
        ([CPU_ON_64, 1 << 31 | 1, ENTRY, 0], INVALID_PARAMETERS),
        ([CPU_ON_64, 1 << 40 | 1, ENTRY, 0], INVALID_PARAMETERS),
        ([CPU_ON_64, 1, ENTRY + 2, 0], INVALID_ADDRESS),
        ([CPU_ON_64, 1, 1 << 40, 0], INVALID_ADDRESS),
    ] {
        answers(bench, vm, x, expected);
    }
    bench.plays([
        hvc([CPU_ON_64, 1, ENTRY + 0x1000, 0xabcd]),
        // It has been answered when the host hears of it.
        act(|context| {
            assert_eq!(context.x[..4], [0; 4]);
            interrupt()
        }),
    ]);
    bench.runs_to(vm, ExitReason::CpuOn, [1]);
    bench.runs_to(vm, ExitReason::Interrupt, []);
    answers(bench, vm, [CPU_ON_64, 1, ENTRY, 0], ON_PENDING);
    answers(bench, vm, [AFFINITY_64, 1, 0, 0], 2);
    bench.vcpu_plays(
        1,
        [look(move |context| {
            assert_eq!((context.pc, context.x[0]), (ENTRY + 0x1000, 0xabcd));
            assert_eq!(context.pstate, 0x3c5);
            bench.hw().with_guest_registers(|system| {
                assert_eq!(system.sctlr_el1, SCTLR_EL1_RESET);
                assert_eq!(system.vmpidr_el2, 1 << 31 | 1);
            });
        })],
    );
    assert_eq!(bench.run(vm, 1).0, ExitReason::Interrupt);
    answers(bench, vm, [CPU_ON_64, 1, ENTRY, 0], ALREADY_ON);
    answers(bench, vm, [AFFINITY_64, 1, 0, 0], 0);
}

#[test]
fn a_vcpu_that_turned_itself_off_forgets_everything() {
    let bench = Bench::new();
    let vm = bench.launched(VmFlags::PROTECTED, 2);
    let turn_on = || {
        bench.plays([hvc([CPU_ON_32, 0xffff_ffff_0000_0001, 0x5555_0000_0000_1000, 7])]);
        bench.runs_to(vm, ExitReason::CpuOn, [1]);
    };
    for _ in 0..2 {
        turn_on();
        bench.vcpu_plays(
            1,
            [act(move |context| {
                // The arguments of the 32-bit form have 32 bits.
                assert_eq!((context.pc, context.x[0]), (0x1000, 7));
                assert_eq!((context.x[5], context.simd.v[3], context.keys[2]), (0, 0, 0));
                bench.hw().with_guest_registers(|system| {
                    assert_eq!(system.ttbr0_el1, 0);
                    system.ttbr0_el1 = 1;
                });
                context.x[5] = 5;
                context.simd.v[3] = 1;
                context.keys[2] = 1;
                context.x[0] = CPU_OFF;
                context.pc += 4;
                synchronous(ESR_HVC)
            })],
        );
        assert_eq!(bench.run(vm, 1).0, ExitReason::CpuOff);
        bench.refused(VmCall::Run { vm, index: 1 }, Status::VcpuOff);
        answers(bench, vm, [AFFINITY_32, 1, 0, 0], 1);
    }
}

#[test]
fn affinity_levels_are_those_of_sixteen_to_a_cluster() {
    let bench = Bench::new();
    let vm = bench.create(VmFlags::PROTECTED, 40);
    for index in [0, 17, 18] {
        bench.create_vcpu(vm, index);
    }
    bench.done(VmCall::Launch {
        vm,
        entry: ENTRY,
        argument: 0,
    });
    let info = |target, level, expected| answers(bench, vm, [AFFINITY_64, target, level, 0], expected);
    info(0, 0, 0);
    info(0x101, 0, 1);
    info(0x102, 0, 1);
    info(0x103, 0, INVALID_PARAMETERS);
    info(1, 0, INVALID_PARAMETERS);
    info(0x10f, 1, 1);
    info(0x200, 1, INVALID_PARAMETERS);
    info(0xffff, 2, 0);
    info(0x1_0000, 2, INVALID_PARAMETERS);
    info(0x1_0000, 3, 0);
    info(1 << 32, 3, INVALID_PARAMETERS);
    info(0, 4, INVALID_PARAMETERS);
    info(0, u64::MAX, INVALID_PARAMETERS);
    bench.plays([hvc([CPU_ON_64, 0x102, ENTRY, 0])]);
    bench.runs_to(vm, ExitReason::CpuOn, [18]);
    info(0x100, 1, 2);
}

#[test]
fn a_suspend_is_a_standby() {
    let bench = Bench::new();
    let vm = bench.guest();
    for x in [
        [SUSPEND_64, 0, 0, 0],
        [0x8400_0001, 0, 1, 0],
        [SUSPEND_64, 1 << 16, ENTRY, 0],
    ] {
        bench.plays([
            hvc(x),
            look(|context| {
                assert_eq!(context.x[..4], [0; 4]);
            }),
        ]);
        bench.runs_to(vm, ExitReason::Wait, [2]);
        bench.runs_to(vm, ExitReason::Interrupt, []);
    }
    answers(bench, vm, [SUSPEND_64, 1 << 30, 0, 0], INVALID_PARAMETERS);
    answers(bench, vm, [SUSPEND_64, 1 << 32, 0, 0], INVALID_PARAMETERS);
    answers(bench, vm, [SUSPEND_64, 1 << 16, ENTRY + 1, 0], INVALID_ADDRESS);
}

#[test]
fn a_vm_that_is_off_never_runs_again() {
    for (function, reason) in [
        (SYSTEM_OFF, ExitReason::SystemOff),
        (SYSTEM_RESET, ExitReason::SystemReset),
    ] {
        let bench = Bench::new();
        let vm = bench.launched(VmFlags::PROTECTED, 2);
        bench.plays([hvc([CPU_ON_64, 1, ENTRY, 0]), hvc([function, 0, 0, 0])]);
        bench.runs_to(vm, ExitReason::CpuOn, [1]);
        bench.runs_to(vm, reason, []);
        for index in [0, 1] {
            bench.refused(VmCall::Run { vm, index }, Status::WrongVmState);
        }
        bench.ask(VmCall::Digest { vm, half: 0 });
        bench.destroy(vm);
    }
}
