//! Suspends of one CPU and of the system, on the firmware double.

use super::*;

#[test]
fn a_standby_comes_straight_back() {
    let bench = Bench::new();
    for function in [FunctionId::CpuSuspend32, FunctionId::CpuSuspend64] {
        // No entry is needed, and none is judged.
        assert_eq!(bench.call(0, function, [0x0000_0001, u64::MAX, 0]), 0);
        assert_eq!(bench.calls(), [(0xc400_0001, [1, EL2_ENTRY, 0xa000])]);
        assert_eq!(bench.slots[0].power(), Power::On);
        assert_eq!(bench.relay().arrive(0), None);
    }
}

#[test]
fn a_power_down_comes_back_through_el2() {
    let bench = Bench::new();
    for function in [FunctionId::CpuSuspend32, FunctionId::CpuSuspend64] {
        let down = powered_down(|| bench.call(0, function, [1 << 30 | 5, ENTRY, CONTEXT]));
        assert_eq!(
            down,
            Ok(PoweredDown {
                resume: Some((EL2_ENTRY, 0xa000))
            })
        );
        assert_eq!(bench.call(1, FunctionId::CpuOn64, [0, ENTRY, 0]), ALREADY_ON);
        assert_eq!(bench.relay().arrive(0), Some(arrival(true)));
        assert_eq!(bench.relay().arrive(0), None);
    }
}

#[test]
fn a_power_down_that_did_not_happen_returns() {
    let bench = Bench::new();
    // An interrupt was waiting; or the state is none that the firmware knows.
    for answer in [0, INVALID_PARAMETERS, DENIED] {
        bench.firmware.script(FunctionId::CpuSuspend64, answer);
        assert_eq!(
            bench.call(0, FunctionId::CpuSuspend64, [1 << 30, ENTRY, CONTEXT]),
            answer
        );
        assert_eq!(bench.slots[0].power(), Power::On);
        assert_eq!(bench.relay().arrive(0), None);
    }
}

#[test]
fn power_states_have_two_formats() {
    let new = PowerStateFormat::Extended;
    assert_eq!(new.powers_down(0x0fff_ffff), Some(false));
    assert_eq!(new.powers_down(0x4000_0000), Some(true));
    assert_eq!(new.powers_down(0x8000_0000), None);
    assert_eq!(new.powers_down(0x1000_0000), None);
    let old = PowerStateFormat::Original;
    assert_eq!(old.powers_down(0x0300_ffff), Some(false));
    assert_eq!(old.powers_down(0x0301_0000), Some(true));
    assert_eq!(old.powers_down(0x0400_0000), None);
    assert_eq!(old.powers_down(0x0002_0000), None);

    let bench = Bench::new();
    assert_eq!(
        bench.call(0, FunctionId::CpuSuspend64, [1 << 31, ENTRY, 0]),
        INVALID_PARAMETERS
    );
    assert_eq!(
        bench.call(0, FunctionId::CpuSuspend64, [1 << 32, ENTRY, 0]),
        INVALID_PARAMETERS
    );
    bench.firmware.make_old();
    let down = powered_down(|| bench.call(0, FunctionId::CpuSuspend64, [1 << 16, ENTRY, CONTEXT]));
    assert!(down.is_ok());
    assert_eq!(bench.relay().arrive(0), Some(arrival(true)));
    assert_eq!(
        bench.call(0, FunctionId::CpuSuspend64, [1 << 30, ENTRY, 0]),
        INVALID_PARAMETERS
    );
}

#[test]
fn the_system_sleeps_and_wakes_through_el2() {
    let bench = Bench::new();
    for function in [FunctionId::SystemSuspend32, FunctionId::SystemSuspend64] {
        let down = powered_down(|| bench.call(0, function, [ENTRY, CONTEXT, 0]));
        assert_eq!(
            down,
            Ok(PoweredDown {
                resume: Some((EL2_ENTRY, 0xa000))
            })
        );
        assert_eq!(bench.calls(), [(0xc400_000e, [EL2_ENTRY, 0xa000, 0])]);
        assert_eq!(bench.relay().arrive(0), Some(arrival(true)));
    }
    bench.turn_on(1);
    assert_eq!(
        bench.call(0, FunctionId::SystemSuspend64, [ENTRY, CONTEXT, 0]),
        DENIED
    );
    assert_eq!(bench.slots[0].power(), Power::On);
}
