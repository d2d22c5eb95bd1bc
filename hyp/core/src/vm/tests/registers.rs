//! The registers of a vCPU, as its host reads and writes them.

use super::*;
use crate::vm::reset::SCTLR_EL1_RESET;
use crate::vm::{Life, Power, VcpuSlot};
use hyp_abi::vcpu_register::{SystemRegister, VcpuRegister};

const CPU_ON: u64 = 0xc400_0003;
const CPU_OFF: u64 = 0x8400_0002;
const AFFINITY_INFO: u64 = 0xc400_0004;
const SYSTEM_OFF: u64 = 0x8400_0008;

const X0: VcpuRegister = VcpuRegister::General(0);
const SCTLR: VcpuRegister = VcpuRegister::System(SystemRegister::SctlrEl1);

const fn read(vm: u64, index: u64, name: u64) -> VmCall {
    VmCall::ReadRegister {
        vm,
        index,
        register: name,
    }
}

fn write(vm: u64, index: u64, register: VcpuRegister, value: u64) -> VmCall {
    VmCall::WriteRegister {
        vm,
        index,
        register: register.to_register(),
        value,
    }
}

impl Bench {
    #[track_caller]
    fn register(self, vm: u64, index: u64, register: VcpuRegister) -> u64 {
        self.done(read(vm, index, register.to_register()))
    }

    #[track_caller]
    fn sets(self, vm: u64, index: u64, register: VcpuRegister, value: u64) {
        assert_eq!(self.done(write(vm, index, register, value)), 0);
    }

    /// All registers that the double's vCPUs have.
    fn registers(self, vm: u64, index: u64) -> Vec<(VcpuRegister, u64)> {
        VcpuRegister::all()
            .filter_map(|register| {
                let answer = self.ask(read(vm, index, register.to_register()));
                (answer.status == Status::Success).then_some((register, answer.values[0]))
            })
            .collect()
    }

    /// The context of a vCPU that rests, and whether it is powered.
    fn at_rest(self, vm: u64, index: usize) -> (VcpuContext, Power) {
        let vm = self.own.vms().lock(self.hw(), vm).unwrap();
        match &vm.vcpus[index] {
            VcpuSlot::Resting { home, power } => (home.context.clone(), *power),
            other => panic!("{other:?}"),
        }
    }
}

fn open(bench: Bench, vcpus: u64) -> u64 {
    bench.launched(VmFlags::empty(), vcpus)
}

/// A value that a register takes on any CPU.
fn value(register: VcpuRegister) -> u64 {
    let number = register.to_register();
    match register {
        VcpuRegister::Pstate => 0x6000_03c4,
        VcpuRegister::Fpsr | VcpuRegister::Fpcr => 0x0800_0000 | number,
        VcpuRegister::TimerControl => 0b11,
        VcpuRegister::GicControl => 0xf0f0_021b,
        VcpuRegister::ActivePriorities0(_) => 0xffff_0000,
        VcpuRegister::ActivePriorities1(_) => 0x0000_ffff,
        VcpuRegister::Power => 1,
        _ => 0x5ee0_0000_0000_0000 | number,
    }
}

#[test]
fn what_is_written_is_what_the_guest_finds_and_what_is_read() {
    let bench = Bench::new();
    let vm = open(bench, 1);
    for (register, old) in bench.registers(vm, 0) {
        if register == VcpuRegister::System(SystemRegister::MpidrEl1) {
            bench.refused(write(vm, 0, register, old), Status::InvalidParameter);
            continue;
        }
        bench.sets(vm, 0, register, value(register));
        assert_eq!(bench.register(vm, 0, register), value(register), "{register:?}");
    }
    // No write has changed what another one wrote.
    let all = bench.registers(vm, 0);
    assert_eq!(all.len(), 31 + 4 + 64 + 24 + 3 + 1 + 2 * 2 + 1);
    for (register, now) in &all {
        match register {
            VcpuRegister::System(SystemRegister::MpidrEl1) => assert_eq!(*now, 1 << 31),
            register => assert_eq!(*now, value(*register), "{register:?}"),
        }
    }
    let written = bench.at_rest(vm, 0).0;
    let program = move |_: &GuestRegime, context: &mut VcpuContext| {
        assert_eq!(context.timer.offset, value(VcpuRegister::CounterOffset));
        let mut found = context.clone();
        // The entry record turns the interface on or leaves it.
        found.gic.control = written.gic.control;
        bench
            .hw()
            .with_guest_registers(|system| assert_eq!(*system, written.system));
        assert_eq!(found, written);
        context.x[7] = 8;
        bench.hw().with_guest_registers(|system| system.far_el1 = 9);
        interrupt()
    };
    bench.hw().play_vcpu(0, Box::new(program));
    bench.runs_to(vm, ExitReason::Interrupt, []);
    for (register, old) in all {
        let expected = match register {
            VcpuRegister::General(7) => 8,
            VcpuRegister::System(SystemRegister::FarEl1) => 9,
            _ => old,
        };
        assert_eq!(bench.register(vm, 0, register), expected, "{register:?}");
    }
}

#[test]
fn a_vcpu_that_was_turned_on_reads_as_it_will_begin_and_loses_nothing_that_is_written() {
    let bench = Bench::new();
    let vm = open(bench, 1);
    // A look leaves it as it is.
    assert_eq!(bench.register(vm, 0, X0), 77);
    assert_eq!(bench.register(vm, 0, VcpuRegister::Pc), ENTRY);
    assert_eq!(bench.register(vm, 0, VcpuRegister::Pstate), 0x3c5);
    assert_eq!(bench.register(vm, 0, SCTLR), SCTLR_EL1_RESET);
    assert_eq!(bench.register(vm, 0, VcpuRegister::Power), 1);
    assert_eq!(bench.at_rest(vm, 0).1, Power::Pending);
    // The offset is the VM's.
    bench.sets(vm, 0, VcpuRegister::CounterOffset, 5);
    assert_eq!(bench.at_rest(vm, 0).1, Power::Pending);
    bench.sets(vm, 0, VcpuRegister::General(3), 33);
    assert_eq!(bench.at_rest(vm, 0).1, Power::On);
    bench.plays([look(move |context| {
        assert_eq!((context.pc, context.pstate), (ENTRY, 0x3c5));
        assert_eq!(context.x[..5], [77, 0, 0, 33, 0]);
        assert_eq!(context.timer.offset, 5);
        bench
            .hw()
            .with_guest_registers(|system| assert_eq!(system.sctlr_el1, SCTLR_EL1_RESET));
    })]);
    bench.runs_to(vm, ExitReason::Interrupt, []);
}

#[test]
fn a_vcpu_that_never_was_on_reads_as_reset_and_can_be_turned_on_with_what_is_written() {
    let bench = Bench::new();
    let vm = open(bench, 18);
    for (register, value) in bench.registers(vm, 17) {
        let expected = match register {
            VcpuRegister::Pstate => 0x3c5,
            SCTLR => SCTLR_EL1_RESET,
            VcpuRegister::System(SystemRegister::MpidrEl1) => 0x8000_0101,
            _ => 0,
        };
        assert_eq!(value, expected, "{register:?}");
    }
    bench.sets(vm, 17, VcpuRegister::Pc, ENTRY + 8);
    bench.sets(vm, 17, VcpuRegister::Pstate, 0x4);
    bench.refused(VmCall::Run { vm, index: 17 }, Status::VcpuOff);
    bench.sets(vm, 17, VcpuRegister::Power, 1);
    bench.vcpu_plays(
        17,
        [look(move |context| {
            assert_eq!((context.pc, context.pstate), (ENTRY + 8, 0x4));
            bench
                .hw()
                .with_guest_registers(|system| assert_eq!(system.vmpidr_el2, 0x8000_0101));
        })],
    );
    assert_eq!(bench.run(vm, 17).0, ExitReason::Interrupt);
}

#[test]
fn power_is_what_psci_says_it_is() {
    let bench = Bench::new();
    let vm = open(bench, 2);
    let affinity = |expected| {
        bench.plays([
            hvc([AFFINITY_INFO, 1, 0, 0]),
            look(move |context| assert_eq!(context.x[0], expected)),
        ]);
        bench.runs_to(vm, ExitReason::Interrupt, []);
    };
    affinity(1);
    bench.sets(vm, 1, VcpuRegister::Power, 1);
    affinity(0);
    bench.sets(vm, 1, VcpuRegister::Power, 0);
    affinity(1);
    assert_eq!(bench.register(vm, 1, VcpuRegister::Power), 0);
    bench.refused(VmCall::Run { vm, index: 1 }, Status::VcpuOff);
    // The guest turns it on: it begins anew, whatever the host has written while it was off.
    bench.sets(vm, 1, VcpuRegister::General(5), 5);
    bench.plays([hvc([CPU_ON, 1, ENTRY, 6])]);
    bench.runs_to(vm, ExitReason::CpuOn, [1]);
    assert_eq!(bench.register(vm, 1, VcpuRegister::General(5)), 0);
    assert_eq!(bench.register(vm, 1, X0), 6);
    affinity(2);
    // Turned off before it ran, and on again, it goes on with what it would have begun with.
    bench.sets(vm, 1, VcpuRegister::Power, 0);
    bench.sets(vm, 1, VcpuRegister::Power, 1);
    bench.vcpu_plays(
        1,
        [
            look(|context| assert_eq!((context.pc, context.x[0]), (ENTRY, 6))),
            hvc([CPU_OFF, 0, 0, 0]),
        ],
    );
    assert_eq!(bench.run(vm, 1).0, ExitReason::Interrupt);
    assert_eq!(bench.run(vm, 1).0, ExitReason::CpuOff);
    assert_eq!(bench.register(vm, 1, VcpuRegister::Pc), ENTRY + 4);
    assert_eq!(bench.register(vm, 1, VcpuRegister::Power), 0);
}

#[test]
fn an_answer_is_about_the_registers_as_they_are_by_then() {
    const DEVICE: u64 = 0x1000;
    // A load of eight bytes to x5.
    const LOAD: u64 = 0x24 << 26 | IL | 1 << 24 | 3 << 22 | 5 << 16 | 1 << 15 | 0b110;
    for (answer, pc, x5) in [
        (Answer::Retry, ENTRY + 0x100, 55),
        (Answer::Done, ENTRY + 0x104, 99),
    ] {
        let bench = Bench::new();
        let vm = open(bench, 1);
        bench.plays([
            act(|_| aborts(LOAD, DEVICE, DEVICE)),
            look(move |context| assert_eq!((context.pc, context.x[5]), (pc, x5))),
        ]);
        bench.runs_to(vm, ExitReason::MmioRead, [DEVICE, 8]);
        bench.sets(vm, 0, VcpuRegister::General(5), 55);
        bench.sets(vm, 0, VcpuRegister::Pc, ENTRY + 0x100);
        bench.answers(answer, [99, 0, 0, 0]);
        bench.runs_to(vm, ExitReason::Interrupt, []);
    }
    // The end of the address space is no end of EL2's.
    let bench = Bench::new();
    let vm = open(bench, 1);
    bench.plays([
        act(|_| aborts(LOAD, DEVICE, DEVICE)),
        look(|context| assert_eq!(context.pc, 3)),
    ]);
    bench.runs_to(vm, ExitReason::MmioRead, [DEVICE, 8]);
    bench.sets(vm, 0, VcpuRegister::Pc, u64::MAX);
    bench.answers(Answer::Done, [0; 4]);
    bench.runs_to(vm, ExitReason::Interrupt, []);
}

#[test]
fn a_register_that_is_read_or_written_while_its_vcpu_runs_is_not() {
    let bench = Bench::new();
    let vm = open(bench, 2);
    bench.plays([look(move |_| {
        let offset = VcpuRegister::CounterOffset;
        bench.refused(read(vm, 0, X0.to_register()), Status::VcpuRunning);
        bench.refused(read(vm, 0, offset.to_register()), Status::VcpuRunning);
        bench.refused(write(vm, 0, X0, 0), Status::VcpuRunning);
        // The other one rests, but time is the same for both.
        bench.refused(write(vm, 1, offset, 1), Status::VcpuRunning);
        bench.sets(vm, 1, X0, 5);
        assert_eq!(bench.register(vm, 1, X0), 5);
        assert_eq!(bench.register(vm, 1, offset), 0);
    })]);
    bench.runs_to(vm, ExitReason::Interrupt, []);
    bench.sets(vm, 1, VcpuRegister::CounterOffset, 1);
    assert_eq!(bench.register(vm, 0, VcpuRegister::CounterOffset), 1);
}

/// Both calls must be refused, and nothing may change.
#[track_caller]
fn refused(bench: Bench, vm: u64, index: u64, status: Status) {
    bench.refused(read(vm, index, X0.to_register()), status);
    bench.refused(write(vm, index, X0, 1), status);
    bench.refused(write(vm, index, VcpuRegister::CounterOffset, 1), status);
}

#[test]
fn registers_are_those_of_launched_vms_that_are_not_protected() {
    let bench = Bench::new();
    refused(bench, 0x101, 0, Status::NoSuchVm);
    let protected = bench.guest();
    refused(bench, protected, 0, Status::WrongVmKind);
    let vm = bench.create(VmFlags::empty(), 2);
    bench.create_vcpu(vm, 0);
    refused(bench, vm, 0, Status::WrongVmState);
    bench.done(VmCall::Launch {
        vm,
        entry: ENTRY,
        argument: 77,
    });
    for index in [1, 2, 64, u64::MAX] {
        refused(bench, vm, index, Status::NoSuchVcpu);
    }
    assert_eq!(bench.register(vm, 0, X0), 77);
    bench.plays([hvc([SYSTEM_OFF, 0, 0, 0])]);
    bench.runs_to(vm, ExitReason::SystemOff, []);
    refused(bench, vm, 0, Status::WrongVmState);
    bench.own.vms().lock(bench.hw(), vm).unwrap().life = Life::Dying;
    refused(bench, vm, 0, Status::WrongVmState);
}

#[test]
fn a_register_or_a_value_that_cannot_be_is_refused_and_nothing_has_changed() {
    let bench = Bench::new();
    let vm = open(bench, 1);
    let before = bench.registers(vm, 0);
    let at_rest = bench.at_rest(vm, 0);
    // The double's CPU has no keys, and two registers of active priorities.
    for name in [
        0x1f,
        0x104,
        0x220,
        0x418,
        0x500,
        0x509,
        0x603,
        0x701,
        0x802,
        0x903,
        0xa01,
        1 << 16,
        u64::MAX,
    ] {
        bench.refused(read(vm, 0, name), Status::InvalidParameter);
        let call = VmCall::WriteRegister {
            vm,
            index: 0,
            register: name,
            value: 0,
        };
        bench.refused(call, Status::InvalidParameter);
    }
    for (register, value) in [
        // EL2, EL3, EL0 with SP_EL1, AArch32, IL, SS, a flag that the CPU lacks.
        (VcpuRegister::Pstate, 0x3c9),
        (VcpuRegister::Pstate, 0x3cd),
        (VcpuRegister::Pstate, 0x3c1),
        (VcpuRegister::Pstate, 0x3d0),
        (VcpuRegister::Pstate, 1 << 20 | 0x3c5),
        (VcpuRegister::Pstate, 1 << 21 | 0x3c5),
        (VcpuRegister::Pstate, 1 << 22 | 0x3c5),
        (VcpuRegister::Fpsr, 1 << 32),
        (VcpuRegister::Fpcr, 1 << 32),
        (VcpuRegister::TimerControl, 0b100),
        (VcpuRegister::GicControl, 0b100),
        (VcpuRegister::ActivePriorities0(0), 1 << 63),
        (VcpuRegister::ActivePriorities1(1), 1 << 32),
        (VcpuRegister::Power, 2),
        (VcpuRegister::System(SystemRegister::MpidrEl1), 1 << 31),
    ] {
        bench.refused(write(vm, 0, register, value), Status::InvalidParameter);
    }
    assert_eq!(bench.registers(vm, 0), before);
    assert_eq!(bench.at_rest(vm, 0), at_rest);
    bench.sets(vm, 0, VcpuRegister::ActivePriorities0(0), 0b110);
    let overlap = write(vm, 0, VcpuRegister::ActivePriorities1(0), 0b010);
    bench.refused(overlap, Status::InvalidParameter);
    bench.sets(vm, 0, VcpuRegister::ActivePriorities1(0), 0b001);
}

#[test]
fn a_timer_that_el2_holds_back_is_set_anew() {
    let bench = Bench::new();
    let vm = open(bench, 1);
    bench.sets(vm, 0, VcpuRegister::TimerControl, 1);
    {
        let mut vm = bench.own.vms().lock(bench.hw(), vm).unwrap();
        let VcpuSlot::Resting { home, .. } = &mut vm.vcpus[0] else {
            panic!("it rests")
        };
        home.context.timer.held = true;
        home.context.timer.control = 0b111;
    }
    assert_eq!(bench.register(vm, 0, VcpuRegister::TimerControl), 0b001);
    bench.sets(vm, 0, VcpuRegister::TimerCompare, 500);
    let timer = bench.at_rest(vm, 0).0.timer;
    assert_eq!((timer.control, timer.compare, timer.held), (1, 500, false));
}
