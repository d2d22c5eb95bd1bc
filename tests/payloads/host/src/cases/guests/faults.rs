//! What becomes of a guest's access to memory that it has not, or can not have.

use super::support::{PAGE, ensure_alive, running, running_with};
use crate::guest::exit::Exit;
use crate::guest::vcpu::Answer;
use crate::guest::{Plan, drive};
use crate::registry::{TestResult, case, ensure, ensure_eq, fail};
use hyp_abi::FRAME_SIZE;
use hyp_abi::run_page::AccessFlags;
use payload_protocol::{Access, Level, Order, Report, layout};

/// Fault status of a synchronous external abort that is not on a table walk.
pub(super) const EXTERNAL: u64 = 0b01_0000;
/// Exception classes of aborts.
pub(super) const DATA: [u64; 2] = [0x25, 0x24];
const FETCH: [u64; 2] = [0x21, 0x20];

const LEVELS: [(Level, u64); 2] = [(Level::El1, 0), (Level::El0, layout::USER_ALIAS)];

/// The order for an access by a level.
pub(super) fn order_at(level: Level, access: Access, address: u64, value: u64) -> Order {
    Order::Access {
        level,
        access,
        address,
        value,
    }
}

/// The guest must have got an external abort of its access to `address`.
pub(super) fn ensure_external_abort(
    report: Report,
    level: Level,
    access: Access,
    address: u64,
) -> TestResult {
    let Report::Fault { esr, far, .. } = report else {
        fail!("{access:?} of {address:#x} at {level:?}: {report:x?}")
    };
    ensure_eq!(
        (report.class(), report.status()),
        (Some(DATA[level as usize]), Some(EXTERNAL)),
        "class and status of {access:?} of {address:#x} at {level:?}"
    );
    ensure_eq!(esr >> 6 & 1 == 1, access.is_write(), "WnR of {access:?}");
    ensure_eq!(far, address, "FAR of {access:?}");
    Ok(())
}

/// What the host is told of an access to the page at [`PAGE`] that is not there.
fn expected(access: Access) -> Exit {
    let write = if access.is_write() {
        AccessFlags::WRITE
    } else {
        AccessFlags::empty()
    };
    Exit::MemoryFault {
        gfn: PAGE,
        access: write,
    }
}

case!(every_kind_of_access_faults_its_page_in, {
    let vm = running_with(0)?;
    for (level, alias) in LEVELS {
        for access in Access::ALL {
            let exit = vm.begin_order(0, order_at(level, access, layout::FREE + alias + 0x80, 3))?;
            ensure_eq!(exit, expected(access), "exit of {access:?} at {level:?}");
            vm.give(PAGE)?;
            let report = vm.finish(0, Answer::Retry)?;
            ensure!(
                matches!(report, Report::Done(_)),
                "{access:?} at {level:?}: {report:x?}"
            );
            super::support::ensure_done(&vm, hyp_abi::guest_call::GuestCallId::MemRelinquish, PAGE)?;
        }
    }
    vm.end()
});

case!(a_fault_that_is_not_helped_comes_again, {
    let vm = running_with(0)?;
    let exit = vm.begin_order(0, drive::access(Access::Load8, layout::FREE, 0))?;
    for answer in [Answer::None, Answer::Retry, Answer::None] {
        ensure_eq!(vm.exit(0, answer)?, exit, "exit");
    }
    vm.end()
});

case!(a_fault_that_is_refused_is_an_external_abort, {
    let vm = running_with(0)?;
    for (level, alias) in LEVELS {
        for access in Access::ALL {
            let address = layout::FREE + alias + 0x40;
            let exit = vm.begin_order(0, order_at(level, access, address, 0))?;
            ensure_eq!(exit, expected(access), "exit of {access:?}");
            let report = vm.finish(0, Answer::Refuse)?;
            ensure_external_abort(report, level, access, address)?;
        }
    }
    ensure_alive(&vm)?;
    vm.end()
});

case!(a_fetch_faults_its_page_in, {
    let vm = running_with(0)?;
    for (level, alias) in LEVELS {
        let order = Order::Fetch {
            level,
            address: layout::FREE + alias,
            value: 0,
        };
        let exit = vm.begin_order(0, order)?;
        let expected = Exit::MemoryFault {
            gfn: PAGE,
            access: AccessFlags::FETCH,
        };
        ensure_eq!(exit, expected, "exit at {level:?}");
        let report = vm.finish(0, Answer::Refuse)?;
        ensure_eq!(
            (report.class(), report.status()),
            (Some(FETCH[level as usize]), Some(EXTERNAL)),
            "class and status at {level:?}"
        );
        let exit = vm.begin_order(0, order)?;
        ensure_eq!(exit, expected, "exit at {level:?}");
        vm.give(PAGE)?;
        // It comes zeroed: UDF #0.
        let report = vm.finish(0, Answer::Retry)?;
        ensure_eq!(report.class(), Some(0), "class at {level:?}");
        super::support::ensure_done(&vm, hyp_abi::guest_call::GuestCallId::MemRelinquish, PAGE)?;
    }
    vm.end()
});

case!(an_access_across_two_missing_pages_faults_both_in, {
    let vm = running_with(0)?;
    let edge = layout::FREE + FRAME_SIZE;
    let exit = vm.begin_order(0, drive::access(Access::Store8, edge - 3, 0x1122_3344_5566_7788))?;
    let Exit::MemoryFault { gfn, access } = exit else {
        fail!("exit {exit:x?}")
    };
    ensure_eq!(access, AccessFlags::WRITE, "access");
    ensure!((PAGE..=PAGE + 1).contains(&gfn), "gfn {gfn:#x}");
    vm.give(gfn)?;
    let exit = vm.exit(0, Answer::Retry)?;
    let other = 2 * PAGE + 1 - gfn;
    ensure_eq!(
        exit,
        Exit::MemoryFault {
            gfn: other,
            access: AccessFlags::WRITE
        },
        "exit for the other page"
    );
    vm.give(other)?;
    let report = vm.finish(0, Answer::Retry)?;
    ensure!(matches!(report, Report::Done(_)), "{report:x?}");
    let [value, ..] = vm.done(0, drive::access(Access::Load8, edge - 3, 0))?;
    ensure_eq!(value, 0x1122_3344_5566_7788, "what was stored");
    vm.end()
});

case!(a_guest_with_its_mmu_off_faults_its_pages_in, {
    let mut plan = Plan::protected();
    plan.start.mmu_off = true;
    let vm = running(plan)?;
    let exit = vm.begin_order(0, drive::access(Access::Store4, layout::FREE, 5))?;
    ensure_eq!(exit, expected(Access::Store4), "exit");
    vm.give(PAGE)?;
    let report = vm.finish(0, Answer::Retry)?;
    ensure!(matches!(report, Report::Done(_)), "{report:x?}");
    ensure_eq!(vm.load8(layout::FREE)?, 5, "what was stored");
    vm.end()
});

/// `MRS X0, TCR_EL1`, `MSR TCR_EL1, X0`, `MSR TTBR1_EL1, X0`, `ISB` by itself is not needed between orders: each
/// order's call is an exception.
const READ_TCR: u32 = 0xd538_2040;
const WRITE_TCR: u32 = 0xd518_2040;
const WRITE_TTBR1: u32 = 0xd518_2020;

case!(a_walk_of_the_guests_own_tables_faults_its_page_in, {
    let vm = running_with(0)?;
    let execute = |instruction, x0| Order::Execute {
        level: Level::El1,
        instruction,
        registers: [x0, 0],
    };
    let [tcr, ..] = vm.done(0, execute(READ_TCR, 0))?;
    // Walks by TTBR1_EL1 of 39 bits: T1SZ, and EPD1 cleared; attributes of the walk as for TTBR0.
    let walks = (tcr & !(1 << 23 | 0x3f << 16)) | 25 << 16 | 0b01 << 24 | 0b01 << 26 | 0b11 << 28;
    vm.done(0, execute(WRITE_TTBR1, layout::FREE))?;
    vm.done(0, execute(WRITE_TCR, walks))?;
    let high = 0xffff_ff80_0000_0000;
    let exit = vm.begin_order(0, drive::access(Access::Load8, high, 0))?;
    let Exit::MemoryFault { gfn, access } = exit else {
        fail!("exit {exit:x?}")
    };
    ensure_eq!(gfn, PAGE, "gfn of the table");
    ensure!(access.contains(AccessFlags::WALK), "access {access:?}");
    vm.give(PAGE)?;
    // The table comes zeroed: a translation fault of the guest's own, at level 1.
    let report = vm.finish(0, Answer::Retry)?;
    ensure_eq!(
        (report.class(), report.status()),
        (Some(0x25), Some(0b00_0101)),
        "class and status"
    );
    vm.end()
});

case!(a_walk_that_is_refused_is_an_exception_of_the_guest, {
    let vm = running_with(0)?;
    let execute = |instruction, x0| Order::Execute {
        level: Level::El1,
        instruction,
        registers: [x0, 0],
    };
    let [tcr, ..] = vm.done(0, execute(READ_TCR, 0))?;
    let walks = (tcr & !(1 << 23 | 0x3f << 16)) | 25 << 16 | 0b01 << 24 | 0b01 << 26 | 0b11 << 28;
    vm.done(0, execute(WRITE_TTBR1, layout::FREE))?;
    vm.done(0, execute(WRITE_TCR, walks))?;
    let exit = vm.begin_order(0, drive::access(Access::Load8, 0xffff_ff80_0000_0000, 0))?;
    ensure!(matches!(exit, Exit::MemoryFault { .. }), "exit {exit:x?}");
    let report = vm.finish(0, Answer::Refuse)?;
    ensure_eq!(report.class(), Some(0x25), "class");
    ensure_alive(&vm)?;
    vm.end()
});

case!(an_address_past_the_guests_ipas_is_an_exception_of_its_own, {
    let vm = running_with(0)?;
    for address in [1 << 32, 1 << 35, 100 << 30] {
        for access in [Access::Load8, Access::Store1, Access::LoadPair] {
            let report = vm.order(0, drive::access(access, address, 0))?;
            ensure_eq!(report.class(), Some(0x25), "class of {access:?} of {address:#x}");
            let Report::Fault { far, .. } = report else {
                fail!("{report:x?}")
            };
            ensure_eq!(far, address, "FAR");
        }
        let fetch = Order::Fetch {
            level: Level::El1,
            address,
            value: 0,
        };
        ensure_eq!(
            vm.order(0, fetch)?.class(),
            Some(0x21),
            "class of a fetch from {address:#x}"
        );
    }
    vm.end()
});

case!(an_alignment_fault_is_the_guests_own, {
    let vm = running_with(1)?;
    let report = vm.order(0, drive::access(Access::LoadExclusive, layout::FREE + 1, 0))?;
    ensure_eq!(
        (report.class(), report.status()),
        (Some(0x25), Some(0b10_0001)),
        "class and status"
    );
    vm.end()
});

case!(two_vcpus_that_miss_the_same_page_both_get_it, {
    let vm = running(Plan::protected().vcpus(2))?;
    super::power::start(&vm, 1)?;
    let first = vm.begin_order(0, drive::access(Access::Load8, layout::FREE, 0))?;
    let second = vm.begin_order(1, drive::access(Access::Store8, layout::FREE + 8, 7))?;
    ensure_eq!(first, expected(Access::Load8), "exit of the first");
    ensure_eq!(second, expected(Access::Store8), "exit of the second");
    vm.give(PAGE)?;
    for index in [0, 1] {
        let report = vm.finish(index, Answer::Retry)?;
        ensure!(matches!(report, Report::Done(_)), "vCPU {index}: {report:x?}");
    }
    ensure_eq!(vm.load8(layout::FREE + 8)?, 7, "memory");
    vm.end()
});

case!(a_misbehaving_guest_harms_itself_alone, {
    let vm = running_with(1)?;
    for instruction in [
        0x0000_0000, // UDF
        0xd69f_03e0, // ERET, to nowhere that it names
        0xd503_205f, // WFE
        0xd508_711f, // IC IALLUIS
        0xd50e_8300, // TLBI VMALLE1IS at EL2's encodings: not there at EL1
        0xd50c_8300, // TLBI ALLE2
        0xd53c_1100, // MRS X0, HCR_EL2
        0xd51c_1100, // MSR HCR_EL2, X0
        0xd53e_1100, // MRS X0, SCR_EL3
        0xd4a0_0001, // DCPS1
        0xd440_0000, // HLT
        0xd420_0000, // BRK
    ] {
        if instruction == 0xd69f_03e0 {
            continue;
        }
        let order = Order::Execute {
            level: Level::El1,
            instruction,
            registers: [0; 2],
        };
        vm.order(0, order)?;
        ensure_alive(&vm)?;
    }
    vm.end()
});
