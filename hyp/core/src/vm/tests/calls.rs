//! The calls of guests that EL2 answers by itself.

use super::*;
use hyp_abi::guest_call::{KVM_UID, SMCCC_VERSION};
use hyp_abi::{Counter, Features};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

const NOT_SUPPORTED: u64 = u64::MAX;
const INVALID_PARAMETER: u64 = (-3_i64).cast_unsigned();

/// What x0 to x3 are after a call, which must leave the other registers and go on behind it.
#[track_caller]
fn ask(bench: Bench, vm: u64, x: [u64; 4]) -> [u64; 4] {
    let seen = Arc::new([const { AtomicU64::new(0) }; 4]);
    let copy = Arc::clone(&seen);
    bench.plays([
        act(move |context| {
            for (number, register) in context.x.iter_mut().enumerate() {
                *register = 1000 + number as u64;
            }
            context.x[..4].copy_from_slice(&x);
            context.pc = ENTRY + 4;
            synchronous(ESR_HVC)
        }),
        look(move |context| {
            for (seen, x) in copy.iter().zip(context.x) {
                seen.store(x, Ordering::SeqCst);
            }
            assert!((4..31).all(|number| context.x[number] == 1000 + number as u64));
            assert_eq!(context.pc, ENTRY + 4);
        }),
    ]);
    bench.runs_to(vm, ExitReason::Interrupt, []);
    [0, 1, 2, 3].map(|number| seen[number].load(Ordering::SeqCst))
}

#[test]
fn a_guest_finds_kvm() {
    let bench = Bench::new();
    let vm = bench.guest();
    assert_eq!(ask(bench, vm, [0x8000_0000, 9, 9, 9]), [SMCCC_VERSION, 0, 0, 0]);
    assert_eq!(ask(bench, vm, [0x8600_ff01, 9, 9, 9]), KVM_UID.map(u64::from));
    let plain = bench.launched(VmFlags::empty(), 1);
    assert_eq!(ask(bench, vm, [0x8600_0000, 0, 0, 0]), [0xffd, 0, 0, 0]);
    assert_eq!(ask(bench, plain, [0x8600_0000, 0, 0, 0]), [0xde1, 0, 0, 0]);
}

#[test]
fn what_is_not_advertised_is_not_there() {
    let bench = Bench::new();
    for flags in [VmFlags::PROTECTED, VmFlags::empty()] {
        let vm = bench.launched(flags, 1);
        let [bits, ..] = ask(bench, vm, [0x8600_0000, 0, 0, 0]);
        for number in 1..128 {
            let [x0, ..] = ask(bench, vm, [0xc600_0000 | number, 1, 1, 1]);
            let advertised = number < 64 && bits >> number & 1 != 0;
            assert_eq!(x0 == NOT_SUPPORTED, !advertised, "{number}");
        }
        bench.destroy(vm);
    }
}

#[test]
fn features_agree_with_the_calls() {
    let bench = Bench::new();
    let vm = bench.guest();
    let features = |function| ask(bench, vm, [0x8000_0001, function, 9, 9]);
    for function in [0x8000_0000, 0x8000_0001, 0x8000_8000, 0x8000_3fff] {
        assert_eq!(features(function), [0; 4], "{function:#x}");
    }
    assert_eq!(features(0x8000_7fff), [(-2_i64).cast_unsigned(), 0, 0, 0]);
    for function in [0x8000_0002, 0x8400_0000, 0x8600_0000, 0, 0xc000_0000] {
        assert_eq!(features(function), [NOT_SUPPORTED, 0, 0, 0], "{function:#x}");
    }
    for function in [0x8000_8000, 0x8000_7fff, 0x8000_3fff] {
        assert_eq!(ask(bench, vm, [function, 1, 1, 1])[0], 0);
    }
}

#[test]
fn a_number_that_is_no_call_is_not_supported() {
    let bench = Bench::new();
    let vm = bench.guest();
    for function in [
        0,
        1,
        0x8000_0002,
        0x8600_0001,
        0x8400_0060,
        0xc600_4600,
        0xc600_4661,
        0xc600_467f,
        0xc600_4700,
        0xffff_ffff,
        u64::MAX,
    ] {
        assert_eq!(ask(bench, vm, [function, 9, 9, 9]), [NOT_SUPPORTED, 0, 0, 0]);
    }
    // The upper half of x0 is a part of the name.
    for function in [0x8600_0000, 0x8000_0000, 0xc600_0002, 0xc600_4680] {
        for upper in [1 << 32, 0xffff_ffff << 32] {
            assert_eq!(ask(bench, vm, [upper | function, 0, 0, 0])[0], NOT_SUPPORTED);
        }
    }
}

#[test]
fn another_immediate_is_no_call() {
    let bench = Bench::new();
    let vm = bench.guest();
    for immediate in [1, 0xffff] {
        for function in [0x8600_0000, 0x8000_0000, 0xc600_4680] {
            bench.plays([
                act(move |context| {
                    context.x[0] = function;
                    synchronous(ESR_HVC | immediate)
                }),
                look(|context| assert_eq!(context.x[0], NOT_SUPPORTED)),
            ]);
            bench.runs_to(vm, ExitReason::Interrupt, []);
        }
    }
}

#[test]
fn arguments_that_must_be_zero_are() {
    let bench = Bench::new();
    let vm = bench.guest();
    for (function, results) in [
        (0xc600_0002, [4096, 1, 0, 0]),
        (0xc600_0005, [4096, 0, 0, 0]),
        (0xc600_0006, [0; 4]),
    ] {
        assert_eq!(ask(bench, vm, [function, 0, 0, 0]), results);
        for x in [
            [function, 1, 0, 0],
            [function, 0, 1, 0],
            [function, 0, 0, 1 << 63],
        ] {
            assert_eq!(ask(bench, vm, x), [INVALID_PARAMETER, 0, 0, 0]);
        }
    }
    for function in [0xc600_0003, 0xc600_0004, 0xc600_0009] {
        for x in [[function, 0x8000_0000, 0, 1], [function, 0x8000_0008, 0, 0]] {
            assert_eq!(ask(bench, vm, x), [INVALID_PARAMETER, 0, 0, 0]);
        }
    }
    for function in [0xc600_0007, 0xc600_0008] {
        for x in [[function, 0x900_0000, 1, 0], [function, 0x900_0000, 0, 1]] {
            assert_eq!(ask(bench, vm, x), [INVALID_PARAMETER, 0, 0, 0]);
        }
    }
    for function in [0xc600_000a, 0xc600_000b] {
        for x in [[function, 0x900_0000, 0, 0], [function, 0x900_0000, 1, 1]] {
            assert_eq!(ask(bench, vm, x), [INVALID_PARAMETER, 0, 0, 0]);
        }
    }
}

#[test]
fn a_guest_learns_its_digest() {
    let bench = Bench::new();
    let vm = bench.guest();
    for half in [0, 1] {
        let [low, high, _] = bench.ask(VmCall::Digest { vm, half }).values;
        assert_eq!(ask(bench, vm, [0xc600_4660, half, 0, 0]), [0, low, high, 0]);
    }
    for half in [2, u64::MAX] {
        assert_eq!(
            ask(bench, vm, [0xc600_4660, half, 0, 0]),
            [INVALID_PARAMETER, 0, 0, 0]
        );
    }
}

#[test]
fn without_entropy_there_is_no_trng() {
    let bench = Bench::new();
    let vm = bench.guest();
    for function in [0x8400_0050, 0x8400_0051, 0x8400_0052, 0x8400_0053, 0xc400_0053] {
        assert_eq!(ask(bench, vm, [function, 32, 0, 0]), [NOT_SUPPORTED, 0, 0, 0]);
    }
}

#[test]
fn entropy_comes_in_the_bits_that_were_asked_for() {
    let bench = Bench::new();
    let vm = bench.guest();
    bench.hw().set_features(Features::ENTROPY);
    assert_eq!(ask(bench, vm, [0x8400_0050, 0, 0, 0]), [0x1_0000, 0, 0, 0]);
    assert!(
        ask(bench, vm, [0x8400_0052, 0, 0, 0])
            .iter()
            .all(|word| *word >> 32 == 0)
    );
    for function in [0x8400_0050, 0x8400_0051, 0x8400_0052, 0x8400_0053, 0xc400_0053] {
        assert_eq!(ask(bench, vm, [0x8400_0051, function, 0, 0])[0], 0);
    }
    assert_eq!(ask(bench, vm, [0x8400_0051, 0x8400_0054, 0, 0])[0], NOT_SUPPORTED);
    // None at the moment.
    assert_eq!(
        ask(bench, vm, [0xc400_0053, 64, 0, 0]),
        [(-3_i64).cast_unsigned(), 0, 0, 0]
    );
    for (function, width, bits) in [
        (0xc400_0053, 64, 1),
        (0xc400_0053, 64, 64),
        (0xc400_0053, 64, 65),
        (0xc400_0053, 64, 192),
        (0x8400_0053, 32, 31),
        (0x8400_0053, 32, 96),
    ] {
        bench.hw().set_entropy(Some(u64::MAX - 10));
        let [status, x1, x2, x3] = ask(bench, vm, [function, bits, 0, 0]);
        assert_eq!(status, 0);
        let ones = [x1, x2, x3].map(u64::count_ones);
        // The double's numbers are all ones, but for their last bits.
        let expected = [
            bits.saturating_sub(2 * width).min(width),
            bits.saturating_sub(width).min(width),
            bits.min(width),
        ];
        for (word, (ones, bits)) in [x1, x2, x3].into_iter().zip(ones.into_iter().zip(expected)) {
            assert!(
                u64::from(ones) <= bits && u64::from(ones) + 4 > bits,
                "{bits} {word:#x}"
            );
            assert!(bits == 64 || word >> bits == 0);
        }
    }
    for (function, bits) in [
        (0xc400_0053, 0),
        (0xc400_0053, 193),
        (0x8400_0053, 97),
        (0x8400_0053, 1 << 32),
    ] {
        assert_eq!(
            ask(bench, vm, [function, bits, 0, 0]),
            [(-2_i64).cast_unsigned(), 0, 0, 0]
        );
    }
}

#[test]
fn calls_are_counted() {
    let bench = Bench::new();
    let vm = bench.guest();
    let counter = |counter| bench.hw().counter(0, counter).unwrap();
    let before = (counter(Counter::GuestCalls), counter(Counter::GuestCallsRefused));
    ask(bench, vm, [0x8600_0000, 0, 0, 0]);
    ask(bench, vm, [0x8000_0000, 0, 0, 0]);
    ask(bench, vm, [1, 0, 0, 0]);
    assert_eq!(counter(Counter::GuestCalls), before.0 + 3);
    assert_eq!(counter(Counter::GuestCallsRefused), before.1 + 1);
    assert_eq!(counter(Counter::GuestEntries), 3);
    assert_eq!(counter(Counter::GuestExits), 3);
}

#[test]
fn a_service_of_the_hosts_is_asked_again_if_it_is_not_answered() {
    let bench = Bench::new();
    let vm = bench.guest();
    bench.plays([hvc([0xc600_4690, 1, 2, 3]), hvc_again()]);
    let (reason, values) = bench.run(vm, 0);
    assert_eq!((reason, values[0]), (ExitReason::HostService, 0xc600_4690));
    bench.answers(Answer::Retry, [0; 4]);
    let (reason, values) = bench.run(vm, 0);
    assert_eq!(
        (reason, values[..4].to_vec()),
        (ExitReason::HostService, std::vec![0xc600_4690, 1, 2, 3])
    );
    bench.answers(Answer::Done, [5, 6, 7, 8]);
    bench.plays([look(|context| {
        assert_eq!((context.pc, context.x[3]), (ENTRY + 4, 8));
    })]);
    bench.runs_to(vm, ExitReason::Interrupt, []);
}
