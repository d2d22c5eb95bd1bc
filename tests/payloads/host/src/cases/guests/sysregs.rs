//! What a guest's instructions find: a fixed list of features, and nothing of what is hidden.

use super::support::{ensure_alive, running};
use crate::guest::exit::Exit;
use crate::guest::vcpu::Answer;
use crate::guest::{Plan, Vm, drive};
use crate::probe;
use crate::registry::{Outcome, TestResult, case, ensure, ensure_eq, fail};
use crate::{sysreg, timer};
use payload_protocol::{Level, Order, Report};

/// `MRS X0, S<op0>_<op1>_C<n>_C<m>_<op2>`.
pub(super) const fn mrs(op0: u32, op1: u32, n: u32, m: u32, op2: u32) -> u32 {
    0xd530_0000 | (op0 - 2) << 19 | op1 << 16 | n << 12 | m << 8 | op2 << 5
}

/// `MSR S<op0>_<op1>_C<n>_C<m>_<op2>, X0`.
const fn msr(op0: u32, op1: u32, n: u32, m: u32, op2: u32) -> u32 {
    mrs(op0, op1, n, m, op2) & !(1 << 21)
}

fn execute(instruction: u32, x0: u64) -> Order {
    Order::Execute {
        level: Level::El1,
        instruction,
        registers: [x0, 0],
    }
}

pub(super) fn read(vm: &Vm, instruction: u32) -> Result<u64, Outcome> {
    let [value, ..] = vm.done(0, execute(instruction, 0))?;
    Ok(value)
}

/// A field of four bits.
const fn field(value: u64, shift: u32) -> u64 {
    value >> shift & 0xf
}

case!(what_is_hidden_is_not_in_the_feature_registers, {
    let vm = running(Plan::protected())?;
    let (pfr0, pfr1, dfr0) = (
        read(&vm, mrs(3, 0, 0, 4, 0))?,
        read(&vm, mrs(3, 0, 0, 4, 1))?,
        read(&vm, mrs(3, 0, 0, 5, 0))?,
    );
    // ID_AA64PFR0_EL1: no EL2, no EL3, no SVE, no AMU, no MPAM, no RME; EL0 and EL1 in AArch64 at least.
    for (name, shift) in [("EL2", 8), ("SVE", 32), ("MPAM", 40), ("AMU", 44), ("RME", 52)] {
        ensure_eq!(field(pfr0, shift), 0, "ID_AA64PFR0_EL1.{name}");
    }
    ensure!(
        field(pfr0, 0) > 0 && field(pfr0, 4) > 0,
        "ID_AA64PFR0_EL1 {pfr0:#x}"
    );
    // ID_AA64PFR1_EL1: no MTE, no SME.
    for (name, shift) in [("MTE", 8), ("SME", 24)] {
        ensure_eq!(field(pfr1, shift), 0, "ID_AA64PFR1_EL1.{name}");
    }
    // ID_AA64DFR0_EL1: no trace, no PMU, no SPE, no filtering.
    for (name, shift) in [
        ("TraceVer", 4),
        ("PMSVer", 32),
        ("TraceFilt", 40),
        ("TraceBuffer", 44),
    ] {
        ensure_eq!(field(dfr0, shift), 0, "ID_AA64DFR0_EL1.{name}");
    }
    ensure!(
        [0, 0xf].contains(&field(dfr0, 8)),
        "ID_AA64DFR0_EL1.PMUVer in {dfr0:#x}"
    );
    vm.end()
});

case!(a_guest_sees_no_more_addresses_than_it_has, {
    for ipa_bits in [32, 36] {
        let vm = running(Plan {
            ipa_bits,
            ..Plan::protected()
        })?;
        let mmfr0 = read(&vm, mrs(3, 0, 0, 7, 0))?;
        let bits = [32, 36, 40, 42, 44, 48, 52][field(mmfr0, 0).min(6) as usize];
        ensure!(bits <= ipa_bits, "{bits} bits of {ipa_bits}");
        vm.end()?;
    }
    Ok(())
});

/// Takes off the guest's own traps of SVE and SME, which come before EL2's: CPACR_EL1.ZEN and SMEN, beside FPEN.
pub(super) fn untrap_vectors(vm: &Vm) -> TestResult {
    let all = 0b11 << 16 | 0b11 << 20 | 0b11 << 24;
    vm.done(0, execute(msr(3, 0, 1, 0, 2), all)).map(|_| ())
}

case!(what_is_hidden_is_undefined, {
    let vm = running(Plan::protected())?;
    untrap_vectors(&vm)?;
    for (name, instruction) in [
        ("PMCR_EL0", mrs(3, 3, 9, 12, 0)),
        ("PMCCNTR_EL0", mrs(3, 3, 9, 13, 0)),
        ("PMEVCNTR0_EL0", mrs(3, 3, 14, 8, 0)),
        ("PMSCR_EL1", mrs(3, 0, 9, 9, 0)),
        ("TRFCR_EL1", mrs(3, 0, 1, 2, 1)),
        ("ZCR_EL1", mrs(3, 0, 1, 2, 0)),
        ("SMCR_EL1", mrs(3, 0, 1, 2, 6)),
        ("SVCR", mrs(3, 3, 4, 2, 2)),
        ("AMCR_EL0", mrs(3, 3, 13, 2, 0)),
        ("LORC_EL1", mrs(3, 0, 10, 4, 3)),
        ("TRCIDR0", mrs(2, 1, 0, 8, 7)),
        ("RGSR_EL1", mrs(3, 0, 1, 0, 5)),
        ("TFSR_EL1", mrs(3, 0, 5, 6, 0)),
        ("HCR_EL2", mrs(3, 4, 1, 1, 0)),
        ("VBAR_EL2", mrs(3, 4, 12, 0, 0)),
        ("SCR_EL3", mrs(3, 6, 1, 1, 0)),
        ("SCTLR_EL12", mrs(3, 5, 1, 0, 0)),
        ("CNTHCTL_EL2", mrs(3, 4, 14, 1, 0)),
        ("CNTP_CTL_EL02", mrs(3, 5, 14, 2, 1)),
    ] {
        let report = vm.order(0, execute(instruction, 0))?;
        ensure_eq!(report.class(), Some(0), "class of a read of {name}: {report:x?}");
    }
    ensure_alive(&vm)?;
    vm.end()
});

case!(the_physical_timer_is_the_hosts, {
    let vm = running(Plan::protected())?;
    let before = timer::interrupts();
    timer::interrupt_every(sysreg::counter_frequency() / 500);
    let all = || -> TestResult {
        // CNTP_CTL_EL0, CNTP_CVAL_EL0, CNTP_TVAL_EL0: to the guest they are there and do nothing.
        for op2 in [1, 2, 0] {
            for value in [0, u64::MAX] {
                vm.done(0, execute(msr(3, 3, 14, 2, op2), value))?;
                ensure_eq!(read(&vm, mrs(3, 3, 14, 2, op2))?, 0, "CNTP register {op2}");
            }
        }
        let deadline = sysreg::counter() + 20 * sysreg::counter_frequency();
        while timer::interrupts() < before + 5 && sysreg::counter() < deadline {
            vm.done(0, Order::Spin { rounds: 5000 })?;
        }
        Ok(())
    };
    let result = all();
    timer::stop();
    drive::take_interrupts();
    result?;
    ensure!(timer::interrupts() >= before + 5, "the host's timer stopped");
    vm.end()
});

/// What a read of a register came to: what a guest is told, or that it is undefined.
fn peek(vm: &Vm, instruction: u32) -> Result<Option<u64>, Outcome> {
    let mut exit = vm.begin_order(0, execute(instruction, 0))?;
    // Interrupt acknowledge and the like are the guest's own affair; nothing else may leave for the host.
    if matches!(exit, Exit::MemoryFault { .. }) {
        vm.handle_exit(0, exit)?;
        exit = vm.exit(0, Answer::Retry)?;
    }
    match drive::report(exit)? {
        Report::Done([value, ..]) => Ok(Some(value)),
        report @ Report::Fault { .. } if report.class() == Some(0) => Ok(None),
        // A trap of the ID space may come back as what it is (FEAT_IDST).
        report @ Report::Fault { .. } if report.class() == Some(0x18) => Ok(None),
        other => fail!("{instruction:#x}: {other:x?}"),
    }
}

/// Every register of `op0` can be read, or is undefined; EL2 and the guest survive both.
fn sweep(op0: u32) -> TestResult {
    let vm = running(Plan::protected())?;
    untrap_vectors(&vm)?;
    let (mut there, mut undefined) = (0, 0);
    for op1 in 0..8 {
        for n in 0..16 {
            for m in 0..16 {
                for op2 in 0..8 {
                    match peek(&vm, mrs(op0, op1, n, m, op2))? {
                        Some(_) => there += 1,
                        None => undefined += 1,
                    }
                }
            }
        }
    }
    ensure_eq!(there + undefined, 8 * 16 * 16 * 8, "registers that were tried");
    ensure!(undefined > there, "{there} registers are there");
    ensure_alive(&vm)?;
    vm.end()
}

case!(every_debug_register_can_be_read_or_is_undefined, { sweep(2) });
case!(every_system_register_can_be_read_or_is_undefined, { sweep(3) });

case!(a_guest_reads_the_same_features_on_every_cpu, {
    crate::cases::support::needs_cpus(2)?;
    let vm = running(Plan::protected())?;
    for (m, op2) in [
        (0, 0),
        (4, 0),
        (4, 1),
        (5, 0),
        (6, 0),
        (6, 1),
        (7, 0),
        (7, 1),
        (7, 2),
    ] {
        let instruction = mrs(3, 0, 0, m, op2);
        let here = read(&vm, instruction)?;
        let there = crate::cpu::answer_of(1, || read(&vm, instruction))?;
        ensure_eq!(there, here, "{instruction:#x}");
    }
    vm.end()
});

case!(system_registers_are_each_guests_own, {
    let (first, second) = (running(Plan::protected())?, running(Plan::protected())?);
    // TPIDR_EL0, TPIDRRO_EL0, CONTEXTIDR_EL1, FAR_EL1, AFSR is not everywhere, AMAIR not either.
    let registers = [
        (3, 13, 0, 2),
        (3, 13, 0, 3),
        (0, 13, 0, 1),
        (0, 6, 0, 0),
        (0, 5, 2, 0),
    ];
    for (number, (op1, n, m, op2)) in registers.into_iter().enumerate() {
        let number = number as u64;
        first.done(0, execute(msr(3, op1, n, m, op2), 0x1111 + number))?;
        second.done(0, execute(msr(3, op1, n, m, op2), 0x2222 + number))?;
    }
    for (number, (op1, n, m, op2)) in registers.into_iter().enumerate() {
        let number = number as u64;
        ensure_eq!(
            read(&first, mrs(3, op1, n, m, op2))?,
            0x1111 + number,
            "register {number} of the first"
        );
        ensure_eq!(
            read(&second, mrs(3, op1, n, m, op2))?,
            0x2222 + number,
            "register {number} of the second"
        );
    }
    first.end()?;
    second.end()
});

/// Registers by which the guest, or this kernel, would lose its footing: SCTLR_EL1, CPACR_EL1, TTBR0_EL1, TCR_EL1,
/// VBAR_EL1, MAIR_EL1, TPIDR_EL1, SPSel, DAIF, PAN and its like.
const FOOTING: [(u32, u32, u32, u32); 10] = [
    (0, 1, 0, 0),
    (0, 1, 0, 2),
    (0, 2, 0, 0),
    (0, 2, 0, 2),
    (0, 12, 0, 0),
    (0, 10, 2, 0),
    (0, 13, 0, 4),
    (0, 4, 2, 0),
    (3, 4, 2, 1),
    (0, 4, 2, 3),
];

/// What this kernel reads of a register, if it can read it.
fn of_the_host(instruction: u32) -> Option<u64> {
    probe::execute(probe::Level::El1, instruction, [0; 2])
        .ok()
        .map(|[value, _]| value)
}

case!(nothing_that_a_guest_writes_to_a_register_is_in_the_hosts, {
    const SECRET: u64 = 0x5a3c_96e1_5a3c_96e0;
    let vm = running(Plan::protected())?;
    untrap_vectors(&vm)?;
    let mut written = 0;
    for op1 in [0, 3] {
        for (n, m, op2) in (0..16 * 16 * 8).map(|number| (number >> 7, number >> 3 & 0xf, number & 7)) {
            // The GIC's are interrupts' own affair, and the timers count.
            if FOOTING.contains(&(op1, n, m, op2)) || n == 14 || n == 12 && m >= 8 {
                continue;
            }
            let (get, set) = (mrs(3, op1, n, m, op2), msr(3, op1, n, m, op2));
            let Some(own) = peek(&vm, get)? else { continue };
            let before = of_the_host(get);
            if vm.order(0, execute(set, SECRET))?.class().is_some() {
                continue;
            }
            written += 1;
            ensure_eq!(of_the_host(get), before, "the host's S3_{op1}_C{n}_C{m}_{op2}");
            vm.done(0, execute(set, own))?;
        }
    }
    ensure!(written >= 10, "the guest could write {written} registers only");
    ensure_alive(&vm)?;
    vm.end()
});
