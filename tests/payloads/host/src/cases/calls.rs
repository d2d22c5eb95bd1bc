//! The calls themselves: what they answer to whom, and which registers they leave alone.

use super::support::{counter, ensure_refused};
use crate::hypercall::{Conduit, HYPERVISOR, Hvc, call_with_all};
use crate::machine::machine;
use crate::probe::{self, Level};
use crate::registry::{TestResult, case, ensure, ensure_eq, fail, succeed};
use host_shim::Hypercall;
use hyp_abi::host_call::{CALL_UID, FREEHOLD_UID, HOST_CALL_BASE};
use hyp_abi::{Counter, FRAME_SIZE, FrameRange, HostCall, HostCallId, Status};

/// `HVC #imm` and `SMC #imm`.
const fn hvc(immediate: u32) -> u32 {
    0xd400_0002 | immediate << 5
}

case!(version_names_the_calls_and_the_cpus, {
    let info = succeed!(HYPERVISOR.version());
    ensure_eq!(info.version, hyp_abi::VERSION);
    ensure_eq!(info.cpus as usize, machine().cpus.len());
    ensure_eq!(
        info.features.bits(),
        info.features.iter().fold(0, |bits, one| bits | one.bits()),
        "known features"
    );
    Ok(())
});

case!(the_uid_is_freeholds, {
    let answer = Hvc.call([u64::from(CALL_UID), 0, 0, 0, 0, 0, 0]);
    ensure_eq!(answer, FREEHOLD_UID.map(u64::from));
    Ok(())
});

case!(a_number_that_is_no_call_is_not_supported, {
    let base = u64::from(HOST_CALL_BASE);
    for function in [
        0,
        base - 1,
        base + HostCallId::COUNT as u64,
        base | 1 << 32,
        base & !(1 << 30),
        base & !(1 << 31),
        0x8000_0000,
        0xdead_beef_dead_beef,
        u64::MAX,
    ] {
        let answer = Hvc.call([function, 1, 2, 3, 4, 5, 6]);
        ensure_eq!(
            answer[0],
            Status::NotSupported.to_register(),
            "function {function:#x}"
        );
    }
    Ok(())
});

case!(an_hvc_with_another_number_is_not_a_call, {
    for immediate in [1, 0xff, 0xffff] {
        let registers = [u64::from(HOST_CALL_BASE), 0];
        let [x0, _] = succeed!(probe::execute(Level::El1, hvc(immediate), registers));
        ensure_eq!(x0, Status::NotSupported.to_register(), "HVC #{immediate:#x}");
    }
    Ok(())
});

case!(an_hvc_of_el0_is_undefined, {
    // Arm ARM DDI 0487, C6.2: HVC is undefined at EL0 and never reaches EL2.
    let before = counter(Counter::HostExits)?;
    let Err(fault) = probe::execute(Level::El0, hvc(0), [u64::from(HOST_CALL_BASE), 0]) else {
        fail!("a user program made a hypercall")
    };
    ensure_eq!(fault.class(), crate::exception::class::UNKNOWN);
    let exits = counter(Counter::HostExits)? - before;
    ensure_eq!(
        exits,
        1,
        "entries into EL2, of which the second reading of the counter is one"
    );
    Ok(())
});

case!(calls_preserve_x4_to_x17, {
    for function in HostCallId::all()
        .map(HostCallId::function_id)
        .chain([HOST_CALL_BASE + 99, CALL_UID])
    {
        let mut registers: [u64; 18] = core::array::from_fn(|n| 0x0101_0101_0101_0101 * (n as u64 + 0x40));
        registers[0] = u64::from(function);
        // Arguments that every call refuses or answers without an effect; a page that PoolDrain gives is left unused.
        registers[1] = 1;
        registers[2] = 0;
        let after = call_with_all(Conduit::Hvc, registers);
        ensure_eq!(after[4..], registers[4..], "x4 to x17 after call {function:#x}");
    }
    Ok(())
});

/// The calls that take a range.
const RANGED: [fn(FrameRange) -> HostCall; 7] = [
    HostCall::PoolTopUp,
    HostCall::ShareHyp,
    HostCall::UnshareHyp,
    HostCall::DonateHyp,
    HostCall::ReclaimHyp,
    HostCall::Collapse,
    HostCall::Audit,
];

/// Every ranged call must refuse the range with this status.
fn ensure_range_refused(base: u64, frames: u64, status: Status) -> TestResult {
    for call in RANGED {
        ensure_refused(call(FrameRange::new(base, frames)), status, &[])?;
    }
    Ok(())
}

case!(a_misaligned_range_is_refused, {
    let base = machine().memory[0].start;
    for offset in [1, 8, FRAME_SIZE / 2, FRAME_SIZE - 1] {
        ensure_range_refused(base + offset, 1, Status::Misaligned)?;
        // Alignment comes first, whatever else is wrong.
        ensure_range_refused(base + offset, 0, Status::Misaligned)?;
        ensure_range_refused(base + offset, u64::MAX, Status::Misaligned)?;
    }
    Ok(())
});

case!(an_empty_range_is_refused, {
    ensure_range_refused(machine().memory[0].start, 0, Status::EmptyRange)?;
    ensure_range_refused(0, 0, Status::EmptyRange)?;
    ensure_refused(HostCall::PoolDrain { frames: 0 }, Status::EmptyRange, &[])
});

case!(a_range_past_the_physical_addresses_is_refused, {
    let base = machine().memory[0].start;
    for (base, frames) in [
        (base, u64::MAX),
        (base, u64::MAX / FRAME_SIZE + 1),
        (base, 1 << 52),
        (!(FRAME_SIZE - 1), 1),
        (!(FRAME_SIZE - 1), 2),
        (1 << 52, 1),
    ] {
        ensure_range_refused(base, frames, Status::RangeOverflow)?;
    }
    Ok(())
});

case!(a_frame_that_cannot_be_is_refused_by_frame_state, {
    for (frame, status) in [
        (machine().memory[0].start + 1, Status::Misaligned),
        (!(FRAME_SIZE - 1), Status::RangeOverflow),
        (machine().uart, Status::NotMemory),
        (0, Status::NotMemory),
    ] {
        ensure_refused(HostCall::FrameState { frame }, status, &[])?;
    }
    Ok(())
});

case!(numbers_that_name_nothing_are_invalid, {
    let cpus = machine().cpus.len() as u64;
    let frame = machine().memory[0].start;
    for call in [
        HostCall::Statistics { statistic: 8 },
        HostCall::Statistics { statistic: u64::MAX },
        HostCall::Counter {
            cpu: 0,
            counter: Counter::COUNT as u64,
        },
        HostCall::Counter {
            cpu: cpus,
            counter: 0,
        },
        HostCall::Counter {
            cpu: u64::MAX,
            counter: 0,
        },
        HostCall::Counter {
            cpu: 1 << 32,
            counter: 0,
        },
        HostCall::TraceAttach { cpu: cpus, frame },
        HostCall::TraceDetach { cpu: cpus },
        HostCall::TraceDetach { cpu: u64::MAX },
    ] {
        ensure_refused(call, Status::InvalidParameter, &[])?;
    }
    ensure_refused(HostCall::TraceDetach { cpu: 0 }, Status::WrongTraceState, &[])
});

case!(every_call_is_counted, {
    let calls = counter(Counter::Hypercalls)?;
    let refused = counter(Counter::HypercallsRefused)?;
    for _ in 0..10 {
        ensure!(HYPERVISOR.frame_state(1).is_err());
    }
    // Both counters were read once in between, and one more time now.
    ensure_eq!(counter(Counter::Hypercalls)? - calls, 12, "calls");
    ensure_eq!(
        counter(Counter::HypercallsRefused)? - refused,
        10,
        "refused calls"
    );
    Ok(())
});
