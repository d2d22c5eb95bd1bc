//! Every exit, and what of the guest's registers reaches the host with it.

use super::*;
use crate::trap::inject::SPSR_EL1H;
use crate::vm::reset::SCTLR_EL1_RESET;
use hyp_abi::run_page::WaitKind;

/// A register value of the guest's that must not reach the host: unlike any address or number in a test.
const fn secret(number: u64) -> u64 {
    0x5ec2_e7a1_0000_0000 | number << 8
}

/// Whether a word of the run page shows a secret, in part.
fn shows_secret(word: u64) -> bool {
    word >> 32 == secret(0) >> 32 || word >> 16 & 0xffff == secret(0) >> 48
}

/// Fills all registers of the guest with secrets.
fn keep_secrets(bench: Bench, context: &mut VcpuContext) {
    for (number, x) in context.x.iter_mut().enumerate() {
        *x = secret(number as u64);
    }
    for (number, v) in context.simd.v.iter_mut().enumerate() {
        *v = u128::from(secret(64 + number as u64)) << 64 | u128::from(secret(64));
    }
    context.keys = [secret(100); 10];
    context.gic.active_priorities_1 = [secret(102); 4];
    context.gic.vmcr = secret(103);
    bench.hw().with_guest_registers(|system| {
        system.sp_el0 = secret(110);
        system.sp_el1 = secret(111);
        system.elr_el1 = secret(112);
        system.ttbr0_el1 = secret(113);
        system.tpidr_el1 = secret(114);
        system.vbar_el1 = secret(115);
        system.far_el1 = secret(116);
    });
}

/// The words of the run page that show a secret.
fn leaks(bench: Bench) -> Vec<(usize, u64)> {
    let page = Frame::new(RUN_PAGES).unwrap();
    (0..512)
        .map(|word| (word, bench.hw().word(page, word)))
        .filter(|(_, value)| shows_secret(*value))
        .collect()
}

/// Has a guest full of secrets trap, and checks that the host is told `reason` and `values`, and learns nothing else.
#[track_caller]
fn leaks_nothing<const N: usize>(trap: Trap, reason: ExitReason, values: [u64; N]) {
    let bench = Bench::new();
    let vm = bench.launched(VmFlags::PROTECTED, 2);
    bench.plays([act(move |context| {
        keep_secrets(bench, context);
        trap
    })]);
    bench.runs_to(vm, reason, values);
    assert_eq!(leaks(bench), []);
}

/// The same for a call with these x0 to x3.
#[track_caller]
fn call_leaks_nothing<const N: usize>(x: [u64; 4], reason: ExitReason, values: [u64; N]) {
    let bench = Bench::new();
    let vm = bench.launched(VmFlags::PROTECTED, 2);
    bench.plays([act(move |context| {
        keep_secrets(bench, context);
        context.x[..4].copy_from_slice(&x);
        context.pc += 4;
        synchronous(ESR_HVC)
    })]);
    bench.runs_to(vm, reason, values);
    assert_eq!(leaks(bench), []);
}

#[test]
fn no_exit_shows_more_than_it_needs() {
    const DATA: u64 = 0x24 << 26 | IL;
    const FETCH: u64 = 0x20 << 26 | IL;
    const ISV: u64 = 1 << 24;
    let gfn = ENTRY >> 12;
    leaks_nothing(interrupt(), ExitReason::Interrupt, []);
    leaks_nothing(
        synchronous(0x01 << 26 | IL),
        ExitReason::Wait,
        [WaitKind::Interrupt.into()],
    );
    leaks_nothing(
        synchronous(0x01 << 26 | IL | 1),
        ExitReason::Wait,
        [WaitKind::Event.into()],
    );
    // The offset in the page, and the virtual address, stay the guest's own.
    leaks_nothing(
        aborts(DATA | 0b111, secret(200) | 0x123, ENTRY),
        ExitReason::MemoryFault,
        [gfn],
    );
    leaks_nothing(
        aborts(DATA | 1 << 6 | 0b111, secret(200), ENTRY),
        ExitReason::MemoryFault,
        [gfn, 1],
    );
    leaks_nothing(
        aborts(FETCH | 0b111, secret(200), ENTRY),
        ExitReason::MemoryFault,
        [gfn, 2],
    );
    leaks_nothing(
        aborts(DATA | 1 << 7 | 0b111, secret(200), ENTRY),
        ExitReason::MemoryFault,
        [gfn, 4],
    );
    // A described access inside the VM's memory gives the host no data.
    leaks_nothing(
        aborts(
            DATA | ISV | 3 << 22 | 9 << 16 | 1 << 6 | 0b111,
            secret(200),
            ENTRY,
        ),
        ExitReason::MemoryFault,
        [gfn, 1],
    );
    leaks_nothing(
        aborts(DATA | ISV | 9 << 16 | 0b111, 0x18, 0x900_0000),
        ExitReason::MmioRead,
        [0x900_0018, 1],
    );
    // One byte of x9, which is zero.
    leaks_nothing(
        aborts(DATA | ISV | 9 << 16 | 1 << 6 | 0b111, 0x18, 0x900_0000),
        ExitReason::MmioWrite,
        [0x900_0018, 1, 0],
    );
    leaks_nothing(synchronous(0x1a << 26 | IL), ExitReason::Unhandled, [0x1a]);
    call_leaks_nothing([0x8400_0002, 1, 2, 3], ExitReason::CpuOff, []);
    call_leaks_nothing([0xc400_0003, 1, ENTRY, 3], ExitReason::CpuOn, [1]);
    call_leaks_nothing(
        [0xc400_0001, 0, 2, 3],
        ExitReason::Wait,
        [WaitKind::Suspend.into()],
    );
    call_leaks_nothing([0x8400_0008, 1, 2, 3], ExitReason::SystemOff, []);
    call_leaks_nothing([0x8400_0009, 1, 2, 3], ExitReason::SystemReset, []);
}

#[test]
fn a_host_service_is_told_its_arguments_and_no_more() {
    let bench = Bench::new();
    let vm = bench.guest();
    for function in [0xc600_4680, 0xc600_46ff] {
        bench.plays([act(move |context| {
            keep_secrets(bench, context);
            context.x[0] = function;
            context.pc += 4;
            synchronous(ESR_HVC)
        })]);
        let (reason, values) = bench.run(vm, 0);
        assert_eq!(reason, ExitReason::HostService);
        let told: Vec<u64> = (1..7).map(secret).collect();
        assert_eq!((values[0], &values[1..]), (function, &told[..]));
        assert_eq!(leaks(bench).len(), 6);
        bench.answers(Answer::Done, [1, 2, 3, 4]);
        bench.plays([look(|context| {
            assert_eq!(context.x[..4], [1, 2, 3, 4]);
            assert!((4..31).all(|number| context.x[number] == secret(number as u64)));
        })]);
        bench.runs_to(vm, ExitReason::Interrupt, []);
        bench.says_nothing();
    }
}

#[test]
fn an_interrupt_that_is_sent_is_told_by_what_was_written() {
    for (op2, kind) in [(5, 0), (6, 1), (7, 2)] {
        let bench = Bench::new();
        let vm = bench.guest();
        let iss = 3 << 20 | op2 << 17 | 12 << 10 | 9 << 5 | 11 << 1;
        bench.plays([
            act(move |context| {
                keep_secrets(bench, context);
                context.x[9] = 0x0100_0001;
                synchronous(0x18 << 26 | IL | iss)
            }),
            look(|context| assert_eq!(context.pc, ENTRY + 4)),
        ]);
        bench.runs_to(vm, ExitReason::SendInterrupt, [0x0100_0001, kind]);
        assert_eq!(leaks(bench), []);
        bench.runs_to(vm, ExitReason::Interrupt, []);
    }
}

#[test]
fn a_vcpu_begins_reset() {
    let bench = Bench::new();
    let vm = bench.guest();
    bench.plays([look(move |context| {
        assert_eq!((context.pc, context.x[0]), (ENTRY, 77));
        assert!(context.x[1..].iter().all(|x| *x == 0));
        assert_eq!(context.pstate, 0x3c0 | SPSR_EL1H);
        bench.hw().with_guest_registers(|system| {
            assert_eq!(system.sctlr_el1, SCTLR_EL1_RESET);
            assert_eq!(system.vmpidr_el2, 1 << 31);
        });
        let guest = bench.hw().loaded_guest().unwrap();
        assert_eq!((u64::from(guest.slot), guest.vcpu), (vm & 0xff, 0));
        assert_eq!(
            (guest.ipa_bits, guest.start_level, guest.protected),
            (40, 1, true)
        );
    })]);
    bench.runs_to(vm, ExitReason::Interrupt, []);
}

#[test]
fn a_vcpu_moves_between_cpus() {
    let bench = Bench::new();
    let vm = bench.guest();
    for turn in 0..4 {
        let last = turn;
        bench.plays([act(move |context| {
            if last > 0 {
                assert_eq!(context.x[20], last);
            }
            context.x[20] = last + 1;
            interrupt()
        })]);
        std::thread::spawn(move || bench.runs_to(vm, ExitReason::Interrupt, []))
            .join()
            .unwrap();
    }
}

#[test]
fn what_a_guest_is_not_given_is_undefined_to_it() {
    for class in [0x00, 0x03, 0x08, 0x09, 0x0a, 0x0c, 0x14, 0x19, 0x1d] {
        let bench = Bench::new();
        let vm = bench.guest();
        bench.plays([
            act(move |_| {
                bench
                    .hw()
                    .with_guest_registers(|system| system.vbar_el1 = 0xffff_8000);
                synchronous(class << 26 | IL)
            }),
            look(move |context| {
                assert_eq!(context.pc, 0xffff_8200);
                bench.hw().with_guest_registers(|system| {
                    assert_eq!((system.elr_el1, system.esr_el1), (ENTRY, IL));
                });
            }),
        ]);
        bench.runs_to(vm, ExitReason::Interrupt, []);
    }
}

#[test]
fn what_nobody_carries_out_is_told_to_the_host_again_and_again() {
    for class in [
        0x07, 0x0e, 0x12, 0x1a, 0x22, 0x25, 0x26, 0x2f, 0x30, 0x3c, 0x02, 0x3f,
    ] {
        let bench = Bench::new();
        let vm = bench.guest();
        bench.plays([
            act(move |_| synchronous(class << 26 | IL)),
            act(move |context| {
                assert_eq!(context.pc, ENTRY);
                synchronous(class << 26 | IL)
            }),
        ]);
        bench.runs_to(vm, ExitReason::Unhandled, [class]);
        bench.runs_to(vm, ExitReason::Unhandled, [class]);
    }
}

#[test]
fn a_system_error_is_told_to_the_host() {
    let bench = Bench::new();
    let vm = bench.guest();
    bench.plays([act(|_| Trap {
        kind: TrapKind::SError,
        ..interrupt()
    })]);
    bench.runs_to(vm, ExitReason::Unhandled, [0x2f]);
}

#[test]
fn a_guest_that_waits_goes_on_after_the_instruction() {
    for (esr, kind) in [
        (0, WaitKind::Interrupt),
        (1, WaitKind::Event),
        (2, WaitKind::Interrupt),
        (3, WaitKind::Event),
    ] {
        let bench = Bench::new();
        let vm = bench.guest();
        bench.plays([
            act(move |_| synchronous(0x01 << 26 | IL | esr)),
            look(|context| assert_eq!(context.pc, ENTRY + 4)),
        ]);
        bench.runs_to(vm, ExitReason::Wait, [kind.into()]);
        bench.runs_to(vm, ExitReason::Interrupt, []);
    }
}

#[test]
fn a_guest_has_no_firmware() {
    let bench = Bench::new();
    let vm = bench.guest();
    bench.plays([
        act(|context| {
            context.x[..4].copy_from_slice(&[0x8400_0000, 1, 2, 3]);
            synchronous(0x17 << 26 | IL)
        }),
        look(|context| {
            assert_eq!(context.x[..4], [u64::MAX, 1, 2, 3]);
            assert_eq!(context.pc, ENTRY + 4);
        }),
    ]);
    bench.runs_to(vm, ExitReason::Interrupt, []);
}
