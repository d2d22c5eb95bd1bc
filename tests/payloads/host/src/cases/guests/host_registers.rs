//! The registers of a guest that is not protected, as its host reads and writes them: what the host writes the guest finds,
//! what the guest leaves the host reads, each register, and nothing that cannot be comes to the CPU.

use super::support::{PAGE, ensure_refused_of, running};
use crate::guest::all_registers::{
    self, BINARY_POINT_0, BINARY_POINT_1, BLOCK, CONTROL, COUNTERS, DAIF, EXCEPTIONS, GROUP_0, GROUP_1, NZCV,
    PRIORITY_MASK, Place, place, word,
};
use crate::guest::calls::call;
use crate::guest::exit::Exit;
use crate::guest::vcpu::Answer;
use crate::guest::{Plan, Vm};
use crate::hypercall::HYPERVISOR;
use crate::registry::{Outcome, TestResult, case, ensure, ensure_eq, fail, succeed};
use crate::sysreg;
use alloc::vec::Vec;
use hyp_abi::run_page::WaitKind;
use hyp_abi::vcpu_register::{SystemRegister, VcpuRegister};
use hyp_abi::{FRAME_SIZE, Status, VmCall, VmHandle};
use payload_protocol::layout;

/// The page of code, and that of the block.
const CODE: u64 = layout::FREE;
const DATA: u64 = layout::FREE + FRAME_SIZE;

const PC: VcpuRegister = VcpuRegister::Pc;
const PSTATE: VcpuRegister = VcpuRegister::Pstate;
const POWER: VcpuRegister = VcpuRegister::Power;
const OFFSET: VcpuRegister = VcpuRegister::CounterOffset;
const SP: VcpuRegister = VcpuRegister::System(SystemRegister::SpEl1);
const MPIDR: VcpuRegister = VcpuRegister::System(SystemRegister::MpidrEl1);
const VBAR: VcpuRegister = VcpuRegister::System(SystemRegister::VbarEl1);

/// ICH_VMCR_EL2: VENG0, VENG1, VEOIM, VBPR1 = 5, VBPR0 = 4, VPMR = 0xf0; and VFIQEn, which is RES1.
const VMCR: u64 = 0b11 | 1 << 9 | 5 << 18 | 4 << 21 | 0xf0 << 24;
const VMCR_RES1: u64 = 1 << 3;

/// A guest that has come to nothing yet, with the two pages; its host may look at its registers.
fn guest(vcpus: u64) -> Result<Vm, Outcome> {
    let vm = Vm::launch(Plan::open().vcpus(vcpus))?;
    vm.give(PAGE)?;
    vm.give(PAGE + 1)?;
    all_registers::write_programs(&vm.frame_view(PAGE)?);
    Ok(vm)
}

fn handle(vm: &Vm) -> Result<VmHandle, Outcome> {
    match VmHandle::from_register(vm.handle()) {
        Some(handle) => Ok(handle),
        None => fail!("the VM has no handle"),
    }
}

fn read(vm: &Vm, index: u64, register: VcpuRegister) -> Result<u64, Outcome> {
    Ok(succeed!(HYPERVISOR.read_register(handle(vm)?, index, register)))
}

/// Sets a register, which must read as it was set.
fn write(vm: &Vm, index: u64, register: VcpuRegister, value: u64) -> TestResult {
    succeed!(HYPERVISOR.write_register(handle(vm)?, index, register, value));
    ensure_eq!(read(vm, index, register)?, value, "{register:?}");
    Ok(())
}

/// Whether there is the register on this machine.
fn exists(vm: &Vm, register: VcpuRegister) -> bool {
    let name = register.to_register();
    call(VmCall::ReadRegister {
        vm: vm.handle(),
        index: 0,
        register: name,
    })
    .is_ok()
}

/// A value that a register keeps on every CPU, and with which the programs run: the MMU off, vectors open, exceptions
/// where they are seen. `salt` tells one round from another.
fn value(register: VcpuRegister, salt: u64) -> u64 {
    use SystemRegister as S;
    let number = register.to_register();
    let any = (0x9e37_79b9_7f4a_7c15_u64 ^ salt << 40).wrapping_mul(number * 2 + 3);
    match register {
        VcpuRegister::Fpsr => 0x0800_0000 | salt & 0x1f,
        // DN, FZ, RMode.
        VcpuRegister::Fpcr => 0x0240_0000 | (salt & 1) << 23,
        VcpuRegister::TimerControl => 0b10 | salt & 1,
        VcpuRegister::ActivePriorities0(_) => 1 << (5 + (salt & 3)),
        VcpuRegister::ActivePriorities1(_) => 1 << (9 + (salt & 3)),
        VcpuRegister::System(register) => match register {
            // RES1, SA, SA0, I, UCT, nTWI, nTWE, UCI.
            S::SctlrEl1 => 0x30d0_0800 | 0b11 << 3 | 1 << 12 | 1 << 15 | 0b101 << 16 | (salt & 1) << 26,
            S::CpacrEl1 => 0b11 << 20,
            S::VbarEl1 => CODE + EXCEPTIONS,
            S::EsrEl1 => 0x5600_0000 | salt,
            S::SpsrEl1 => 0x8000_03c5 | (salt & 1) << 29,
            S::ContextidrEl1 => any >> 32,
            S::CntkctlEl1 => 0b11 | (salt & 1) << 9,
            S::CsselrEl1 => (salt & 1) << 1,
            S::Ttbr0El1 | S::Ttbr1El1 => any & 0xffff_0000_ffff_f000,
            S::TcrEl1 => 0x10 | 0x10 << 16 | (salt & 1) << 7 | 0b10 << 30,
            S::ParEl1 => any & 0x0000_0000_ffff_f000,
            // These may be RAZ/WI (DDI 0487, D24.2).
            S::Afsr0El1 | S::Afsr1El1 | S::AmairEl1 => 0,
            _ => any,
        },
        _ => any,
    }
}

/// The registers that a block has one word for, but for those that are read-only.
fn in_blocks(vm: &Vm) -> Vec<(VcpuRegister, usize)> {
    VcpuRegister::all()
        .filter(|register| *register != MPIDR && exists(vm, *register))
        .filter_map(|register| Some((register, place(register)?)))
        .collect()
}

/// The guest must wait at that place.
fn run_to(vm: &Vm, index: usize, stop: u64) -> TestResult {
    let exit = vm.exit(index, Answer::None)?;
    ensure_eq!(
        read(vm, index as u64, PC)?,
        stop,
        "where it stopped: {exit:x?}, PSTATE {:#x}, ESR {:#x}",
        read(vm, index as u64, PSTATE)?,
        read(vm, index as u64, VcpuRegister::System(SystemRegister::EsrEl1))?
    );
    ensure_eq!(exit, Exit::Wait(WaitKind::Interrupt), "exit");
    Ok(())
}

/// The bits of a register that say the same at any time: ISTATUS follows from the time.
fn steady(register: VcpuRegister, value: u64) -> u64 {
    match register {
        VcpuRegister::TimerControl => value & 0b11,
        _ => value,
    }
}

/// The host writes every register of a vCPU, and the guest must find each.
fn ensure_found(vm: &Vm, index: u64, salt: u64) -> TestResult {
    let registers = in_blocks(vm);
    ensure!(registers.len() > 31 + 64 + 20, "{} registers", registers.len());
    let data = vm.frame_view(PAGE + 1)?;
    let mut block = [0; BLOCK];
    all_registers::set_keys(&mut block, exists(vm, VcpuRegister::Key(0)));
    all_registers::write_block(&data, &block);
    for (register, _) in &registers {
        write(vm, index, *register, value(*register, salt))?;
    }
    let offset = 0x1234_5678_9abc ^ salt << 32;
    write(vm, index, OFFSET, offset)?;
    write(vm, index, VcpuRegister::GicControl, VMCR)?;
    write(vm, index, SP, DATA)?;
    write(vm, index, PC, CODE + Place::Report.offset())?;
    let flags = 0x5 ^ salt & 0xf;
    write(vm, index, PSTATE, flags << 28 | 0x3c5)?;
    run_to(vm, index as usize, CODE + Place::Reported.offset())?;
    let found = all_registers::read_block(&data);
    for (register, at) in &registers {
        let (found, wanted) = (steady(*register, found[*at]), value(*register, salt));
        ensure_eq!(found, wanted, "what the guest finds in {register:?}");
    }
    for (number, wanted) in [
        (NZCV, flags << 28),
        (DAIF, 0xf << 6),
        (PRIORITY_MASK, 0xf0),
        (BINARY_POINT_0, 4),
        (BINARY_POINT_1, 5),
        (GROUP_0, 1),
        (GROUP_1, 1),
    ] {
        ensure_eq!(found[word(number)], wanted, "word {number}");
    }
    // EOImode and CBPR.
    ensure_eq!(found[word(CONTROL)] & 0b11, 0b10, "ICC_CTLR_EL1");
    let mpidr = read(vm, index, MPIDR)?;
    let seen = place(MPIDR).map(|at| found[at]);
    ensure_eq!(seen, Some(mpidr), "MPIDR_EL1");
    let [before, physical, after] = COUNTERS.map(|number| found[word(number)]);
    let virtual_time = physical.wrapping_sub(offset);
    ensure!(
        virtual_time.wrapping_sub(before) <= after.wrapping_sub(before),
        "the virtual counter went from {before:#x} to {after:#x}, the physical one was at {physical:#x}"
    );
    // The host's is not behind, whatever its guest's is.
    let here = sysreg::counter();
    ensure!(
        here.wrapping_sub(physical) < 60 * sysreg::counter_frequency(),
        "the host's counter is at {here:#x}, the physical one was at {physical:#x}"
    );
    Ok(())
}

/// The guest sets every register, and the host must read each.
fn ensure_read(vm: &Vm, index: u64, salt: u64) -> TestResult {
    let registers = in_blocks(vm);
    let data = vm.frame_view(PAGE + 1)?;
    let mut block = [0; BLOCK];
    all_registers::set_keys(&mut block, exists(vm, VcpuRegister::Key(0)));
    for (register, at) in &registers {
        block[*at] = value(*register, salt);
    }
    for (number, value) in [
        (NZCV, 0x9 << 28),
        (PRIORITY_MASK, 0xf0),
        (CONTROL, 0b10),
        (BINARY_POINT_0, 4),
        (BINARY_POINT_1, 5),
        (GROUP_0, 1),
        (GROUP_1, 1),
    ] {
        block[word(number)] = value;
    }
    all_registers::write_block(&data, &block);
    write(vm, index, SP, DATA)?;
    write(vm, index, PC, CODE + Place::Load.offset())?;
    write(vm, index, PSTATE, 0x3c5)?;
    run_to(vm, index as usize, CODE + Place::Loaded.offset())?;
    for (register, _) in &registers {
        let (found, wanted) = (read(vm, index, *register)?, value(*register, salt));
        ensure_eq!(found, wanted, "what the host reads of {register:?}");
    }
    ensure_eq!(read(vm, index, SP)?, DATA, "SP_EL1");
    ensure_eq!(read(vm, index, PSTATE)?, 0x9000_03c5, "PSTATE");
    ensure_eq!(
        read(vm, index, VcpuRegister::GicControl)?,
        VMCR | VMCR_RES1,
        "ICH_VMCR_EL2"
    );
    Ok(())
}

case!(what_the_host_writes_the_guest_finds, {
    let vm = guest(1)?;
    for salt in [0, 1, 0x2a] {
        ensure_found(&vm, 0, salt)?;
    }
    vm.end()
});

case!(what_the_guest_leaves_the_host_reads, {
    let vm = guest(1)?;
    for salt in [0, 1, 0x2a] {
        ensure_read(&vm, 0, salt)?;
    }
    ensure_found(&vm, 0, 3)?;
    vm.end()
});

case!(what_is_read_and_written_back_is_the_same_guest, {
    let vm = guest(2)?;
    ensure_read(&vm, 0, 5)?;
    // All that the first has goes to the second, which never was on.
    for register in VcpuRegister::all().filter(|register| *register != MPIDR && exists(&vm, *register)) {
        write(&vm, 1, register, read(&vm, 0, register)?)?;
    }
    write(&vm, 1, PC, CODE + Place::Report.offset())?;
    run_to(&vm, 1, CODE + Place::Reported.offset())?;
    let found = all_registers::read_block(&vm.frame_view(PAGE + 1)?);
    for (register, at) in in_blocks(&vm) {
        let wanted = value(register, 5);
        ensure_eq!(steady(register, found[at]), wanted, "{register:?}");
    }
    vm.end()
});

case!(a_vcpu_that_is_off_is_turned_on_where_the_host_wants_it, {
    let vm = guest(2)?;
    ensure_eq!(read(&vm, 1, POWER)?, 0, "power");
    for (register, wanted) in [
        (PC, 0),
        (PSTATE, 0x3c5),
        (MPIDR, 1 << 31 | 1),
        (VcpuRegister::General(0), 0),
        (VcpuRegister::System(SystemRegister::SctlrEl1), 0x30d0_0800),
    ] {
        ensure_eq!(
            read(&vm, 1, register)?,
            wanted,
            "{register:?} of a vCPU that never was on"
        );
    }
    let run = VmCall::Run {
        vm: vm.handle(),
        index: 1,
    };
    ensure_refused_of(&vm, run, Status::VcpuOff, &[])?;
    write(&vm, 1, POWER, 1)?;
    ensure_found(&vm, 1, 9)?;
    write(&vm, 1, POWER, 0)?;
    ensure_refused_of(&vm, run, Status::VcpuOff, &[])?;
    // The first one waits for its first run all the while.
    ensure_eq!(read(&vm, 0, PC)?, layout::IMAGE, "where vCPU 0 begins");
    ensure_eq!(
        read(&vm, 0, VcpuRegister::General(0))?,
        vm.plan.start.to_register(),
        "x0 of vCPU 0"
    );
    vm.ready()?;
    vm.end()
});

case!(a_guest_goes_on_at_the_level_that_its_host_sets, {
    let vm = guest(1)?;
    for (pstate, vector) in [(0x8000_03c0, 0x400), (0x4000_03c4, 0), (0x2000_03c5, 0x200)] {
        write(&vm, 0, VBAR, CODE + EXCEPTIONS)?;
        write(&vm, 0, PC, CODE + Place::Call.offset())?;
        write(&vm, 0, PSTATE, pstate)?;
        run_to(&vm, 0, CODE + EXCEPTIONS + vector + 4)?;
        let system = |register| read(&vm, 0, VcpuRegister::System(register));
        ensure_eq!(system(SystemRegister::EsrEl1)?, 0x15 << 26 | 1 << 25, "ESR_EL1");
        ensure_eq!(system(SystemRegister::SpsrEl1)?, pstate, "SPSR_EL1");
        ensure_eq!(
            system(SystemRegister::ElrEl1)?,
            CODE + Place::Call.offset() + 4,
            "ELR_EL1"
        );
    }
    vm.end()
});

case!(no_address_that_the_host_sets_hurts_el2, {
    let vm = guest(1)?;
    for (pc, classes) in [
        // A misaligned PC; aborts of fetches from where nothing is translated, or nothing is.
        (CODE + 2, 0x22..=0x22),
        (1 << 60 | 4, 0x21..=0x21),
        (u64::MAX - 3, 0x21..=0x21),
        // Both: QEMU sees the abort first.
        (u64::MAX, 0x21..=0x22),
    ] {
        write(&vm, 0, VBAR, CODE + EXCEPTIONS)?;
        write(&vm, 0, PC, pc)?;
        write(&vm, 0, PSTATE, 0x3c5)?;
        run_to(&vm, 0, CODE + EXCEPTIONS + 0x204)?;
        let esr = read(&vm, 0, VcpuRegister::System(SystemRegister::EsrEl1))?;
        ensure!(
            classes.contains(&(esr >> 26)),
            "ESR_EL1 {esr:#x} came of PC {pc:#x}"
        );
    }
    ensure_found(&vm, 0, 2)?;
    vm.end()
});

case!(a_value_that_cannot_be_is_refused, {
    let vm = guest(1)?;
    let set = |register: VcpuRegister, value| VmCall::WriteRegister {
        vm: vm.handle(),
        index: 0,
        register: register.to_register(),
        value,
    };
    let refused = |call| ensure_refused_of(&vm, call, Status::InvalidParameter, &[]);
    for mode in 0..0x20 {
        if ![0b00000, 0b00100, 0b00101].contains(&mode) {
            refused(set(PSTATE, 0x3c0 | mode))?;
        }
    }
    for bit in [5, 14, 15, 16, 17, 18, 19, 20, 21, 26, 27]
        .into_iter()
        .chain(33..64)
    {
        refused(set(PSTATE, 1 << bit | 0x3c5))?;
    }
    for (register, bits) in [
        (VcpuRegister::Fpsr, 0xffff_ffff_u64),
        (VcpuRegister::Fpcr, 0xffff_ffff),
        (VcpuRegister::TimerControl, 0b11),
        (VcpuRegister::GicControl, 0xfffc_021b),
        (VcpuRegister::ActivePriorities0(0), 0xffff_ffff),
        (VcpuRegister::ActivePriorities1(0), 0xffff_ffff),
        (POWER, 1),
        (MPIDR, 0),
    ] {
        for bit in (0..64).filter(|bit| bits >> bit & 1 == 0) {
            refused(set(register, 1 << bit))?;
        }
    }
    write(&vm, 0, VcpuRegister::ActivePriorities0(0), 1)?;
    refused(set(VcpuRegister::ActivePriorities1(0), 1))?;
    for name in [
        0x1f,
        0x104,
        0x220,
        0x320,
        0x418,
        0x50a,
        0x603,
        0x701,
        0x804,
        0x904,
        0xa01,
        0xb00,
        1 << 16,
        !0,
    ] {
        let (vm, index) = (vm.handle(), 0);
        refused(VmCall::ReadRegister {
            vm,
            index,
            register: name,
        })?;
        refused(VmCall::WriteRegister {
            vm,
            index,
            register: name,
            value: 0,
        })?;
    }
    vm.end()
});

case!(there_is_no_register_of_a_vcpu_that_is_not_there, {
    let vm = guest(1)?;
    for index in [1, 64, u64::MAX] {
        for call in both(vm.handle(), index) {
            ensure_refused_of(&vm, call, Status::NoSuchVcpu, &[])?;
        }
    }
    vm.end()
});

case!(a_protected_guests_registers_are_its_own, {
    let vm = running(Plan::protected())?;
    for register in VcpuRegister::all() {
        let (handle, index, register) = (vm.handle(), 0, register.to_register());
        for call in [
            VmCall::ReadRegister {
                vm: handle,
                index,
                register,
            },
            VmCall::WriteRegister {
                vm: handle,
                index,
                register,
                value: 0,
            },
        ] {
            ensure_refused_of(&vm, call, Status::WrongVmKind, &[])?;
        }
    }
    super::support::ensure_alive(&vm)?;
    vm.end()
});

/// Both calls, about the PC.
fn both(vm: u64, index: u64) -> [VmCall; 2] {
    let register = PC.to_register();
    [
        VmCall::ReadRegister { vm, index, register },
        VmCall::WriteRegister {
            vm,
            index,
            register,
            value: 0,
        },
    ]
}
