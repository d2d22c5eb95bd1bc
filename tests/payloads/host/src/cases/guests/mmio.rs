//! Devices that the host emulates: what it is told of an access, and what the guest gets.

use super::faults::{ensure_external_abort, order_at};
use super::support::{ensure_alive, running, running_with};
use crate::guest::exit::Exit;
use crate::guest::vcpu::Answer;
use crate::guest::{Plan, drive};
use crate::registry::{case, ensure, ensure_eq, fail};
use hyp_abi::FRAME_SIZE;
use payload_protocol::{Access, Level, Order, Report, layout};

/// What the guest stores.
const DATA: u64 = 0x8877_6655_4433_2211;

/// `value`, cut to so many bytes.
fn cut(value: u64, bytes: u64) -> u64 {
    value & u64::MAX >> (64 - 8 * bytes)
}

const LEVELS: [(Level, u64); 2] = [(Level::El1, 0), (Level::El0, layout::USER_ALIAS)];

case!(a_load_is_told_and_gets_what_the_host_says, {
    let vm = running_with(0)?;
    for (level, alias) in LEVELS {
        for access in Access::ALL {
            let (false, Some(bytes)) = (access.is_write(), access.emulated_bytes()) else {
                continue;
            };
            for offset in [0, 8, 0xff8] {
                let ipa = layout::DEVICE + offset;
                let exit = vm.begin_order(0, order_at(level, access, ipa + alias, 0))?;
                ensure_eq!(
                    exit,
                    Exit::MmioRead { ipa, bytes },
                    "exit of {access:?} at {level:?}"
                );
                // Of a value that is too large the guest gets as much as it asked for.
                let report = vm.finish(0, Answer::Done([DATA, 1, 2, 3]))?;
                ensure_eq!(
                    report,
                    Report::Done([cut(DATA, bytes), 0, 0, 0, 0]),
                    "{access:?} at {level:?}"
                );
            }
        }
    }
    vm.end()
});

case!(a_store_is_told_with_its_data_and_no_more, {
    let vm = running_with(0)?;
    for (level, alias) in LEVELS {
        for access in Access::ALL {
            let (true, Some(bytes)) = (access.is_write(), access.emulated_bytes()) else {
                continue;
            };
            let ipa = layout::DEVICE + 0x18;
            let exit = vm.begin_order(0, order_at(level, access, ipa + alias, DATA))?;
            let value = cut(DATA, bytes);
            ensure_eq!(
                exit,
                Exit::MmioWrite { ipa, bytes, value },
                "exit of {access:?} at {level:?}"
            );
            let report = vm.finish(0, Answer::Done([0; 4]))?;
            ensure!(
                matches!(report, Report::Done(_)),
                "{access:?} at {level:?}: {report:x?}"
            );
        }
    }
    vm.end()
});

case!(a_signed_load_is_extended_as_the_guest_asked, {
    let vm = running_with(0)?;
    // LDRSB, LDRSH and LDRSW X1, [X0]; LDRSB W1, [X0]; LDR W1, [X0].
    for (instruction, bytes, expected) in [
        (0x3980_0001, 1, 0xffff_ffff_ffff_ff91),
        (0x7980_0001, 2, 0xffff_ffff_ffff_8f91),
        (0xb980_0001, 4, 0xffff_ffff_8f8f_8f91),
        (0x39c0_0001, 1, 0xffff_ff91),
        (0xb940_0001, 4, 0x8f8f_8f91),
    ] {
        let order = Order::Execute {
            level: Level::El1,
            instruction,
            registers: [layout::DEVICE, DATA],
        };
        let exit = vm.begin_order(0, order)?;
        ensure_eq!(
            exit,
            Exit::MmioRead {
                ipa: layout::DEVICE,
                bytes
            },
            "exit of {instruction:#x}"
        );
        let report = vm.finish(0, Answer::Done([0x8f8f_8f8f_8f8f_8f91, 0, 0, 0]))?;
        ensure_eq!(
            report,
            Report::Done([layout::DEVICE, expected, 0, 0, 0]),
            "{instruction:#x}"
        );
    }
    vm.end()
});

case!(the_zero_register_is_told_as_zero_and_takes_nothing, {
    let vm = running_with(0)?;
    // STR XZR, [X0]; LDR XZR, [X0].
    for (instruction, expected) in [
        (
            0xf900_001f,
            Exit::MmioWrite {
                ipa: layout::DEVICE,
                bytes: 8,
                value: 0,
            },
        ),
        (
            0xf940_001f,
            Exit::MmioRead {
                ipa: layout::DEVICE,
                bytes: 8,
            },
        ),
    ] {
        let order = Order::Execute {
            level: Level::El1,
            instruction,
            registers: [layout::DEVICE, DATA],
        };
        let exit = vm.begin_order(0, order)?;
        ensure_eq!(exit, expected, "exit of {instruction:#x}");
        let report = vm.finish(0, Answer::Done([0x1234; 4]))?;
        ensure_eq!(
            report,
            Report::Done([layout::DEVICE, DATA, 0, 0, 0]),
            "{instruction:#x}"
        );
    }
    vm.end()
});

case!(an_access_that_says_nothing_of_itself_is_an_external_abort, {
    let vm = running_with(0)?;
    for (level, alias) in LEVELS {
        for access in Access::ALL {
            // An exclusive or DC ZVA of device memory may fault in stage 1 already.
            let in_stage_1 = matches!(access, Access::LoadExclusive | Access::ZeroLine);
            if access.emulated_bytes().is_some() || in_stage_1 {
                continue;
            }
            let address = layout::DEVICE + alias + 0x40;
            let report = vm.order(0, order_at(level, access, address, 0))?;
            ensure_external_abort(report, level, access, address)?;
        }
    }
    ensure_alive(&vm)?;
    vm.end()
});

case!(a_refused_access_is_an_external_abort, {
    let vm = running_with(0)?;
    for (level, alias) in LEVELS {
        for access in [Access::Load4, Access::Store8] {
            let address = layout::DEVICE + alias;
            vm.begin_order(0, order_at(level, access, address, 0))?;
            let report = vm.finish(0, Answer::Refuse)?;
            ensure_external_abort(report, level, access, address)?;
        }
    }
    vm.end()
});

case!(an_access_that_is_not_answered_comes_again, {
    let vm = running_with(0)?;
    let exit = vm.begin_order(0, drive::access(Access::Load8, layout::DEVICE, 0))?;
    for answer in [Answer::None, Answer::Retry] {
        ensure_eq!(vm.exit(0, answer)?, exit, "exit");
    }
    let report = vm.finish(0, Answer::Done([9, 0, 0, 0]))?;
    ensure_eq!(report, Report::Done([9, 0, 0, 0, 0]), "what came in the end");
    vm.end()
});

case!(an_access_across_the_end_of_a_page_is_never_told, {
    // The page behind the device's is not the device's.
    let mut plan = Plan::protected();
    plan.start.mmu_off = false;
    let vm = running(plan)?;
    let edge = layout::DEVICE + FRAME_SIZE;
    for access in [Access::Load8, Access::Store4, Access::Load2] {
        let report = vm.order(0, drive::access(access, edge - 1, 0))?;
        // Stage 1 has it as a device: an alignment fault, or stage 2's abort.
        ensure!(report.class() == Some(0x25), "{access:?}: {report:x?}");
    }
    vm.end()
});

case!(nobody_executes_a_device, {
    let vm = running_with(0)?;
    let fetch = |level, address| Order::Fetch {
        level,
        address,
        value: 0,
    };
    let report = vm.order(0, fetch(Level::El1, layout::DEVICE))?;
    ensure_eq!(report.class(), Some(0x21), "class");
    ensure_alive(&vm)?;
    vm.end()
});

case!(a_guest_with_its_mmu_off_reaches_devices, {
    let mut plan = Plan::protected();
    plan.start.mmu_off = true;
    let vm = running(plan)?;
    let exit = vm.begin_order(0, drive::access(Access::Store4, layout::DEVICE, 0x41))?;
    let expected = Exit::MmioWrite {
        ipa: layout::DEVICE,
        bytes: 4,
        value: 0x41,
    };
    ensure_eq!(exit, expected, "exit");
    let report = vm.finish(0, Answer::Done([0; 4]))?;
    ensure!(matches!(report, Report::Done(_)), "{report:x?}");
    vm.end()
});

case!(no_access_to_memory_is_told_as_one_to_a_device, {
    // Every kind, at every place of the declared memory's ends: the host learns a number of a page, and no data.
    let vm = running_with(0)?;
    let end = layout::MEMORY + (16 << 20);
    for address in [layout::MEMORY, layout::FREE, end - 64] {
        for access in Access::ALL {
            let exit = vm.begin_order(0, drive::access(access, address, DATA))?;
            let Exit::MemoryFault { gfn, .. } = exit else {
                fail!("{access:?} of {address:#x}: exit {exit:x?}")
            };
            ensure_eq!(gfn, address / FRAME_SIZE, "gfn");
            vm.finish(0, Answer::Refuse)?;
        }
    }
    // One byte further it is a device's.
    let exit = vm.begin_order(0, drive::access(Access::Load1, end, 0))?;
    ensure_eq!(exit, Exit::MmioRead { ipa: end, bytes: 1 }, "exit");
    vm.end()
});

case!(a_loop_over_a_device_is_told_each_time, {
    let vm = running_with(0)?;
    let order = Order::Repeat {
        access: Access::Load4,
        address: layout::DEVICE,
        rounds: 200,
    };
    let mut exit = vm.begin_order(0, order)?;
    for round in 0..200 {
        let expected = Exit::MmioRead {
            ipa: layout::DEVICE,
            bytes: 4,
        };
        ensure_eq!(exit, expected, "exit {round}");
        exit = vm.exit(0, Answer::Done([round, 0, 0, 0]))?;
    }
    ensure_eq!(
        drive::report(exit)?,
        Report::Done([199, 0, 0, 0, 0]),
        "the last value"
    );
    vm.end()
});

case!(an_open_guest_has_devices_too, {
    let vm = running(Plan::open())?;
    let exit = vm.begin_order(0, drive::access(Access::Load4, layout::DEVICE, 0))?;
    let expected = Exit::MmioRead {
        ipa: layout::DEVICE,
        bytes: 4,
    };
    ensure_eq!(exit, expected, "exit");
    let report = vm.finish(0, Answer::Done([3, 0, 0, 0]))?;
    ensure_eq!(report, Report::Done([3, 0, 0, 0, 0]), "what it loaded");
    vm.end()
});
