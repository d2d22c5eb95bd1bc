//! Whatever a guest and its host do, EL2 does not panic, and the vCPU is at rest afterwards.

use super::*;
use hyp_abi::run_page::{ENTRY_ICH_HCR, ENTRY_LIST, ENTRY_LIST_COUNT};
use proptest::prelude::*;
use std::vec;

/// Numbers among which calls, addresses and their neighbours are.
fn number() -> impl Strategy<Value = u64> {
    prop_oneof![
        any::<u64>(),
        0..40_u64,
        Just(ENTRY),
        Just(1 << 40),
        Just(u64::MAX),
        (0..16_u64).prop_map(|number| 0xc600_0000 + number),
        (0..16_u64).prop_map(|number| 0x8400_0000 + number),
        (0..16_u64).prop_map(|number| 0xc400_0000 + number),
        (0x50..0x54_u64).prop_map(|number| 0x8400_0000 + number),
        Just(0xc600_4660),
        Just(0xc600_4680),
        (0..64_u64).prop_map(|page| ENTRY + (page << 12)),
    ]
}

fn class() -> impl Strategy<Value = u64> {
    prop_oneof![0..64_u64, Just(0x16), Just(0x24), Just(0x20), Just(0x18)]
}

/// A trap, and the registers that the guest has then.
fn trap() -> impl Strategy<Value = (u8, u64, u64, u64, Vec<u64>, u64)> {
    let iss = prop_oneof![any::<u64>(), Just(0), Just(0b111), Just(1 << 24 | 0b111)];
    (
        0..12_u8,
        (class(), iss).prop_map(|(class, iss)| class << 26 | iss & 0x03ff_ffff),
        number(),
        number(),
        prop::collection::vec(number(), 8),
        any::<u64>(),
    )
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(300))]

    #[test]
    fn no_trap_and_no_record_panics(
        protected: bool,
        traps in prop::collection::vec(trap(), 1..24),
        records in prop::collection::vec(prop::collection::vec(number(), 12), 1..12),
    ) {
        let bench = Bench::new();
        let flags = if protected { VmFlags::PROTECTED } else { VmFlags::empty() };
        let vm = bench.launched(flags, 3);
        bench.plays(traps.into_iter().map(|(kind, esr, far, ipa, x, pstate)| {
            act(move |context| {
                context.x[..8].copy_from_slice(&x);
                context.pstate = pstate;
                let kind = match kind {
                    0 => TrapKind::Interrupt,
                    1 => TrapKind::SError,
                    _ => TrapKind::Synchronous,
                };
                Trap { kind, ..aborts(esr, far, ipa) }
            })
        }));
        for record in records {
            bench.write(0, ENTRY_FLAGS, record[0] & 7);
            bench.write(0, ENTRY_ANSWER, record[1] & 3);
            for (number, value) in record[2..6].iter().enumerate() {
                bench.write(0, ENTRY_VALUES + number, *value);
            }
            bench.write(0, ENTRY_LIST_COUNT, record[6] & 7);
            bench.write(0, ENTRY_ICH_HCR, record[7]);
            for (number, value) in record[8..].iter().enumerate() {
                bench.write(0, ENTRY_LIST + number, *value);
            }
            let status = bench.ask(VmCall::Run { vm, index: 0 }).status;
            prop_assert!(matches!(
                status,
                Status::Success | Status::InvalidParameter | Status::VcpuOff | Status::WrongVmState
            ));
            prop_assert_eq!(bench.hw().loaded_guest(), None);
        }
        bench.destroy(vm);
    }

    #[test]
    fn no_call_about_vms_panics(calls in prop::collection::vec((0..21_u32, prop::collection::vec(number(), 6)), 1..40)) {
        let bench = Bench::new();
        let vm = bench.guest();
        for (id, mut arguments) in calls {
            if arguments[0] & 1 == 0 {
                arguments[0] = vm;
            }
            let mut registers = [0; 7];
            registers[0] = 0xc600_4620 + u64::from(id);
            registers[1..].copy_from_slice(&arguments);
            host_call(bench.own, registers);
        }
    }
}
