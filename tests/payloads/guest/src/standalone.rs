//! A guest without a host: it gives itself orders whose outcome it knows, and ends QEMU with what came of them.

use crate::{agent, hold};
use hyp_abi::FRAME_SIZE;
use payload_protocol::layout::{DEVICE, FREE, NON_CACHEABLE_ALIAS, USER_ALIAS};
use payload_protocol::{Access, Conduit, Level, Order, Report};

/// PSCI VERSION and CPU_OFF, which QEMU itself answers.
const PSCI_VERSION: u32 = 0x8400_0000;

/// `UDF #0`.
const UNDEFINED: u32 = 0;

/// Does what it can without a host, and ends: with 0 if all went as it must, or else with the number of what did not.
pub(crate) fn run() -> ! {
    let failed = CHECKS.iter().position(|check| !check());
    semihosting::process::exit(failed.map_or(0, |number| number as i32 + 1))
}

const CHECKS: [fn() -> bool; 10] = [
    memory_is_what_was_written,
    the_aliases_show_the_same_memory,
    every_access_goes_through_at_both_levels,
    a_wild_access_is_a_fault,
    an_undefined_instruction_is_a_fault,
    code_that_was_written_runs,
    a_call_is_answered_and_keeps_the_rest,
    the_timer_interrupts,
    vectors_stay_filled,
    a_secret_stays_in_every_register,
];

fn access(level: Level, access: Access, address: u64, value: u64) -> Report {
    agent::carry_out(Order::Access {
        level,
        access,
        address,
        value,
    })
}

fn is_done(report: Report, expected: u64) -> bool {
    matches!(report, Report::Done([value, ..]) if value == expected)
}

fn memory_is_what_was_written() -> bool {
    let (address, frames) = (FREE, 3);
    let zeroes = agent::carry_out(Order::Verify {
        address,
        frames,
        value: None,
    });
    agent::carry_out(Order::Fill {
        address,
        frames,
        value: 7,
    });
    let verify = |value| {
        agent::carry_out(Order::Verify {
            address,
            frames,
            value: Some(value),
        })
    };
    is_done(zeroes, 0) && is_done(verify(7), 0) && is_done(verify(8), 3 * FRAME_SIZE / 8)
}

fn the_aliases_show_the_same_memory() -> bool {
    access(Level::El1, Access::Store8, FREE, 0x1234);
    is_done(
        access(Level::El1, Access::Load8, FREE + NON_CACHEABLE_ALIAS, 0),
        0x1234,
    ) && is_done(access(Level::El0, Access::Load8, FREE + USER_ALIAS, 0), 0x1234)
}

fn every_access_goes_through_at_both_levels() -> bool {
    Access::ALL.iter().all(|&kind| {
        [(Level::El1, FREE), (Level::El0, FREE + USER_ALIAS)]
            .iter()
            .all(|&(level, address)| matches!(access(level, kind, address, 1), Report::Done(_)))
    })
}

fn a_wild_access_is_a_fault() -> bool {
    // Above the table's 39 bits: a translation fault at level 0 (FSC 0b000100).
    let wild = 1 << 40;
    let report = access(Level::El1, Access::Load8, wild, 0);
    let user = access(Level::El0, Access::Store4, FREE, 0);
    matches!(report, Report::Fault { far, .. } if far == wild)
        && (report.class(), report.status()) == (Some(0x25), Some(0b00_0100))
        && (user.class(), user.status()) == (Some(0x24), Some(0b00_1101))
}

fn an_undefined_instruction_is_a_fault() -> bool {
    Level::ALL.iter().all(|&level| {
        let report = agent::carry_out(Order::Execute {
            level,
            instruction: UNDEFINED,
            registers: [0; 2],
        });
        report.class() == Some(0)
    })
}

fn code_that_was_written_runs() -> bool {
    // ADD X0, X0, X1.
    let add = agent::carry_out(Order::Execute {
        level: Level::El1,
        instruction: 0x8b01_0000,
        registers: [40, 2],
    });
    // A fetch from a device's place: nothing is there, or nothing that is code.
    let nowhere = agent::carry_out(Order::Fetch {
        level: Level::El0,
        address: DEVICE + USER_ALIAS,
        value: 0,
    });
    is_done(add, 42) && nowhere.class() == Some(0x20)
}

fn a_call_is_answered_and_keeps_the_rest() -> bool {
    let report = agent::carry_out(Order::Call {
        conduit: Conduit::Hvc,
        function: PSCI_VERSION,
        arguments: [0; 3],
    });
    matches!(report, Report::Done([version, _, _, _, 0]) if version >> 16 >= 1)
}

/// Stores by which the GIC of QEMU's virt machine (IHI 0069, 12.9 and 12.10) comes to hand on the virtual timer's
/// interrupt: GICD_CTLR, GICR_WAKER, GICR_IGROUPR0, GICR_ISENABLER0. Below a host there is no such thing.
const GIC: [(u64, u64); 4] = [
    (0x0800_0000, 1 << 4 | 1 << 1),
    (0x080a_0014, 0),
    (0x080b_0080, u64::MAX),
    (0x080b_0100, 1 << 27),
];

fn the_timer_interrupts() -> bool {
    for (register, value) in GIC {
        access(Level::El1, Access::Store4, register, value);
    }
    [false, true].iter().all(|&sleep| {
        let order = Order::Timer { ticks: 1000, sleep };
        matches!(agent::carry_out(order), Report::Done([ticks, ..]) if ticks >= 1000)
    }) && agent::carry_out(Order::Taken { interrupt: 27 }) == Report::Done([2, 2, 27, 0, 0])
}

fn vectors_stay_filled() -> bool {
    hold::fill_vectors(3);
    is_done(agent::carry_out(Order::VerifyVectors { seed: 3 }), 0)
        && is_done(
            agent::carry_out(Order::VerifyVectors { seed: 4 }),
            u64::from(u32::MAX),
        )
}

fn a_secret_stays_in_every_register() -> bool {
    use payload_protocol::Door;
    [
        (Door::Load, FREE),
        (Door::Store, FREE),
        (Door::Call, u64::from(PSCI_VERSION)),
    ]
    .iter()
    .all(|&(door, argument)| {
        let order = Order::Hold {
            seed: 9,
            door,
            argument,
        };
        matches!(agent::carry_out(order), Report::Done([0, 0, 0, ..]))
    })
}
