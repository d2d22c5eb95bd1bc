use super::*;
use crate::psci::double::{FirmwareDouble, PoweredDown, Recorded, powered_down};
use crate::psci::is_psci;
use std::vec;
use std::vec::Vec;

mod suspend;

/// Two clusters of two; the first CPU is on. The arguments of EL2's entry tell the CPUs apart.
const AFFINITIES: [u64; 4] = [0x0, 0x1, 0x100, 0x1_0000_0101];
const EL2_ENTRY: u64 = 0x1_8020_0000;
const ENTRY: u64 = 0x4800_0000;
const CONTEXT: u64 = 0xfeed_face_cafe_beef;

const INVALID_PARAMETERS: u64 = -2_i64 as u64;
const DENIED: u64 = -3_i64 as u64;
const ALREADY_ON: u64 = -4_i64 as u64;
const ON_PENDING: u64 = -5_i64 as u64;
const INTERNAL_FAILURE: u64 = -6_i64 as u64;
const INVALID_ADDRESS: u64 = -9_i64 as u64;
const NOT_SUPPORTED: u64 = u64::MAX;

fn slots() -> Vec<Slot> {
    AFFINITIES
        .into_iter()
        .enumerate()
        .map(|(number, affinity)| {
            let argument = 0xa000 + number as u64;
            if number == 0 {
                Slot::on(affinity, argument)
            } else {
                Slot::off(affinity, argument)
            }
        })
        .collect()
}

struct Bench {
    firmware: FirmwareDouble,
    slots: Vec<Slot>,
}

impl Bench {
    fn new() -> Self {
        Self {
            firmware: FirmwareDouble::new(&AFFINITIES),
            slots: slots(),
        }
    }

    fn relay(&self) -> Relay<'_> {
        let relay = Relay::new(&self.slots, EL2_ENTRY, &self.firmware.on_cpu(0));
        let _ = self.firmware.take_calls();
        relay
    }

    /// The host may execute below 2 GiB only.
    fn call(&self, cpu: usize, function: FunctionId, arguments: [u64; 3]) -> u64 {
        let relay = Relay::new(&self.slots, EL2_ENTRY, &self.firmware.on_cpu(0));
        let _ = self.firmware.take_calls();
        let [a1, a2, a3] = arguments;
        let registers = [u64::from(u32::from(function)), a1, a2, a3];
        relay.call(cpu, registers, &self.firmware.on_cpu(cpu), |entry| {
            entry < 0x8000_0000
        })
    }

    fn calls(&self) -> Vec<(u32, [u64; 3])> {
        self.firmware
            .take_calls()
            .into_iter()
            .map(|call| (call.function, call.arguments))
            .collect()
    }

    /// Turns a CPU on and lets it arrive.
    fn turn_on(&self, cpu: usize) {
        let target = AFFINITIES[cpu];
        assert_eq!(self.call(0, FunctionId::CpuOn64, [target, ENTRY, CONTEXT]), 0);
        assert_eq!(self.relay().arrive(cpu), Some(arrival(false)));
    }
}

fn arrival(resumed: bool) -> Arrival {
    Arrival {
        resumed,
        start: Start {
            entry: ENTRY,
            context: CONTEXT,
        },
    }
}

#[test]
fn a_cpu_begins_at_el2_and_then_where_the_host_said() {
    for function in [FunctionId::CpuOn32, FunctionId::CpuOn64] {
        let bench = Bench::new();
        assert_eq!(bench.call(0, function, [1, ENTRY, CONTEXT]), 0);
        assert_eq!(bench.calls(), [(0xc400_0003, [1, EL2_ENTRY, 0xa001])]);
        assert_eq!(bench.firmware.began(1), Some((EL2_ENTRY, 0xa001)));
        assert_eq!(bench.relay().arrive(1), Some(arrival(false)));
        assert_eq!(bench.relay().arrive(1), None);
    }
}

#[test]
fn cpu_on_knows_its_cpus() {
    let bench = Bench::new();
    for target in [2, 0x1_0000_0000, 0x8000_0001, 1 << 24, 1 << 40 | 1, u64::MAX] {
        let answer = bench.call(0, FunctionId::CpuOn64, [target, ENTRY, 0]);
        assert_eq!(answer, INVALID_PARAMETERS, "{target:#x}");
    }
    assert_eq!(bench.calls(), []);
    assert_eq!(
        bench.call(0, FunctionId::CpuOn64, [0x1_0000_0101, ENTRY, CONTEXT]),
        0
    );
    assert_eq!(bench.relay().arrive(3), Some(arrival(false)));
}

#[test]
fn cpu_on_knows_who_is_on() {
    let bench = Bench::new();
    assert_eq!(bench.call(0, FunctionId::CpuOn64, [0, ENTRY, 0]), ALREADY_ON);
    assert_eq!(bench.call(0, FunctionId::CpuOn64, [1, ENTRY, CONTEXT]), 0);
    assert_eq!(bench.call(0, FunctionId::CpuOn64, [1, ENTRY + 4, 0]), ON_PENDING);
    // The second caller's arguments are not the ones that count.
    assert_eq!(bench.relay().arrive(1), Some(arrival(false)));
    assert_eq!(bench.call(0, FunctionId::CpuOn64, [1, ENTRY, 0]), ALREADY_ON);
}

#[test]
fn an_entry_that_the_host_may_not_execute_is_refused() {
    let bench = Bench::new();
    for entry in [0x8000_0000, EL2_ENTRY, ENTRY + 1, ENTRY + 2, u64::MAX] {
        assert_eq!(bench.call(0, FunctionId::CpuOn64, [1, entry, 0]), INVALID_ADDRESS);
        let state = 1 << 30;
        assert_eq!(
            bench.call(0, FunctionId::CpuSuspend64, [state, entry, 0]),
            INVALID_ADDRESS
        );
        assert_eq!(
            bench.call(0, FunctionId::SystemSuspend64, [entry, 0, 0]),
            INVALID_ADDRESS
        );
    }
    assert_eq!(bench.calls(), []);
    assert_eq!(bench.slots[0].power(), Power::On);
    assert_eq!(bench.slots[1].power(), Power::Off);
}

#[test]
fn a_refusal_of_the_firmware_is_taken_back() {
    let bench = Bench::new();
    for answer in [DENIED, INTERNAL_FAILURE, 0xffff_fffe] {
        bench.firmware.script(FunctionId::CpuOn64, answer);
        let expected = i64::from((answer as u32).cast_signed()).cast_unsigned();
        assert_eq!(bench.call(0, FunctionId::CpuOn64, [1, ENTRY, 0]), expected);
        assert_eq!(bench.slots[1].power(), Power::Off);
        assert_eq!(bench.relay().arrive(1), None);
    }
    bench.turn_on(1);
}

#[test]
fn a_cpu_leaves_and_comes_back() {
    let bench = Bench::new();
    bench.turn_on(1);
    let down = powered_down(|| bench.call(1, FunctionId::CpuOff, [0; 3]));
    assert_eq!(down, Ok(PoweredDown { resume: None }));
    assert_eq!(bench.slots[1].power(), Power::Leaving);
    assert!(!bench.firmware.is_on(1));
    assert_eq!(bench.call(0, FunctionId::AffinityInfo64, [1, 0, 0]), 1);
    bench.turn_on(1);
}

#[test]
fn a_cpu_that_has_not_quite_left_is_still_on() {
    let bench = Bench::new();
    bench.turn_on(1);
    // It has said so to EL2, but the firmware has not turned it off yet.
    bench.slots[1].leave();
    assert_eq!(bench.call(0, FunctionId::CpuOn64, [1, ENTRY, 0]), ALREADY_ON);
    assert_eq!(bench.slots[1].power(), Power::Leaving);
    let down = powered_down(|| bench.firmware.on_cpu(1).call(FunctionId::CpuOff.into(), [0; 3]));
    assert!(down.is_ok());
    bench.turn_on(1);
}

#[test]
fn a_denied_cpu_off_leaves_the_cpu_on() {
    let bench = Bench::new();
    bench.firmware.script(FunctionId::CpuOff, DENIED);
    assert_eq!(bench.call(0, FunctionId::CpuOff, [0; 3]), DENIED);
    assert_eq!(bench.slots[0].power(), Power::On);
    assert_eq!(bench.relay().arrive(0), None);
}

#[test]
fn affinity_info_tells_the_hosts_story() {
    let bench = Bench::new();
    let info = |target, level| bench.call(0, FunctionId::AffinityInfo64, [target, level, 0]);
    assert_eq!(info(0, 0), 0);
    assert_eq!(info(1, 0), 1);
    assert_eq!(bench.call(0, FunctionId::CpuOn64, [1, ENTRY, CONTEXT]), 0);
    // To the firmware it is on.
    assert!(bench.firmware.is_on(1));
    assert_eq!(info(1, 0), 2);
    assert!(bench.relay().arrive(1).is_some());
    assert_eq!(info(1, 0), 0);
    for (target, level) in [
        (2, 0),
        (0, 4),
        (0, 1 << 32),
        (1 << 24, 0),
        (0x200, 1),
        (2 << 32, 3),
    ] {
        assert_eq!(info(target, level), INVALID_PARAMETERS, "{target:#x} {level}");
    }
    let _ = bench.calls();
    let _ = info(0x100, 1);
    assert_eq!(bench.calls(), [(0xc400_0004, [0x100, 1, 0])]);
}

#[test]
fn the_version_is_no_newer_than_what_is_known() {
    let bench = Bench::new();
    assert_eq!(bench.call(0, FunctionId::PsciVersion, [0; 3]), 0x1_0001);
    bench.firmware.script(FunctionId::PsciVersion, 0x2_0000);
    assert_eq!(bench.call(0, FunctionId::PsciVersion, [0; 3]), 0x1_0003);
    bench.firmware.script(FunctionId::PsciVersion, 0xffff_ffff);
    assert_eq!(bench.call(0, FunctionId::PsciVersion, [0; 3]), NOT_SUPPORTED);
}

#[test]
fn calls_that_end_the_system_pass() {
    for (function, arguments, forwarded) in [
        (FunctionId::SystemOff, [1, 2, 3], (0x8400_0008, [0; 3])),
        (FunctionId::SystemReset, [1, 2, 3], (0x8400_0009, [0; 3])),
        (FunctionId::SystemReset232, [0, 9, 3], (0xc400_0012, [0, 9, 0])),
        (FunctionId::SystemReset264, [0, 9, 3], (0xc400_0012, [0, 9, 0])),
        (FunctionId::SystemOff264, [1, 0, 3], (0xc400_0015, [1, 0, 0])),
    ] {
        let bench = Bench::new();
        let down = powered_down(|| bench.call(0, function, arguments));
        assert_eq!(down, Ok(PoweredDown { resume: None }));
        assert_eq!(bench.calls(), [forwarded]);
    }
    let bench = Bench::new();
    for (function, arguments) in [
        (FunctionId::SystemReset264, [0x8000_0000, 0, 0]),
        (FunctionId::SystemReset264, [1, 0, 0]),
        (FunctionId::SystemOff264, [1, 1, 0]),
        (FunctionId::SystemOff232, [2, 0, 0]),
        (FunctionId::PsciSetSuspendMode, [2, 0, 0]),
        (FunctionId::Migrate64, [5, 0, 0]),
    ] {
        assert_eq!(bench.call(0, function, arguments), INVALID_PARAMETERS);
    }
    assert_eq!(bench.calls(), []);
}

#[test]
fn small_calls_pass() {
    let bench = Bench::new();
    assert_eq!(bench.call(0, FunctionId::MigrateInfoType, [7; 3]), 2);
    assert_eq!(
        bench.call(0, FunctionId::MigrateInfoUpCpu64, [7; 3]),
        0x1_0000_0002
    );
    assert_eq!(bench.call(0, FunctionId::Migrate32, [1, 0, 0]), -7_i64 as u64);
    assert_eq!(bench.call(0, FunctionId::PsciSetSuspendMode, [1, 0, 0]), 0);
    assert_eq!(
        bench.call(9, FunctionId::MigrateInfoType, [0; 3]),
        INTERNAL_FAILURE
    );
}

/// Every function identifier of PSCI's ranges, and what the relay says of it.
#[test]
fn features_agrees_with_what_is_done() {
    let all = (0x8400_0000..0x8400_0020_u32).chain(0xc400_0000..0xc400_0020);
    let mut supported = vec![];
    for function in all {
        assert!(is_psci(function));
        let bench = Bench::new();
        let answer = bench.call(0, FunctionId::PsciFeatures, [u64::from(function), 0, 0]);
        let relay = bench.relay();
        // PSCI_FEATURES needs something to be asked about; to the others this is an argument like another.
        let registers = [u64::from(function), 0x8400_0000, 0, 0];
        let done = powered_down(|| relay.call(0, registers, &bench.firmware.on_cpu(0), |_| true));
        let refused = done == Err(NOT_SUPPORTED);
        assert_eq!(answer == NOT_SUPPORTED, refused, "{function:#x}");
        if !refused {
            supported.push(function);
        } else {
            assert_eq!(bench.calls(), [], "{function:#x}");
        }
    }
    assert_eq!(supported.len(), 23);
    let bench = Bench::new();
    let ask = |function: u64| bench.call(0, FunctionId::PsciFeatures, [function, 0, 0]);
    assert_eq!(ask(0x8000_0000), 0);
    assert_eq!(ask(0xc400_0001), 2);
    assert_eq!(ask(0x8400_0001), 2);
    assert_eq!(ask(0x8400_0060), NOT_SUPPORTED);
    assert_eq!(ask(1 << 32 | 0x8400_0000), NOT_SUPPORTED);
    bench.firmware.make_old();
    assert_eq!(ask(0xc400_000e), NOT_SUPPORTED);
}

#[test]
fn the_caller_is_the_one_that_goes() {
    let bench = Bench::new();
    bench.turn_on(2);
    let down = powered_down(|| bench.call(2, FunctionId::CpuOff, [0; 3]));
    assert!(down.is_ok());
    assert_eq!(
        bench.firmware.take_calls(),
        [Recorded {
            cpu: 2,
            function: 0x8400_0002,
            arguments: [0; 3]
        }]
    );
    assert_eq!(bench.slots[0].power(), Power::On);
    assert_eq!(bench.slots[2].power(), Power::Leaving);
}
