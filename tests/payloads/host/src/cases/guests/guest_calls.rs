//! What a guest may ask of EL2, by its documented numbers: answers, registers, restarts.

use super::support::{
    BEHIND, DONE, INVALID, ONE_DONE, PAGE, UNSUPPORTED, about_page, ensure_alive, ensure_done,
    ensure_page_state, ensure_returns, next_exit, running, running_with,
};
use crate::guest::exit::Exit;
use crate::guest::vcpu::Answer;
use crate::guest::{Plan, Vm, calls, drive};
use crate::registry::{TestResult, case, ensure, ensure_eq, fail, succeed};
use hyp_abi::guest_call::{
    GuestCallId, HOST_SERVICE_FIRST, HOST_SERVICE_LAST, KVM_UID, MEMINFO_HAS_RANGE, SMCCC_VERSION,
    feature_bit,
};
use hyp_abi::run_page::AccessFlags;
use hyp_abi::{FRAME_SIZE, FrameRange, Status, VmCall};
use payload_protocol::{Conduit, Level, Order, Report, layout};

case!(the_calling_convention_is_1_1, {
    let vm = running(Plan::protected())?;
    ensure_returns(&vm, GuestCallId::SmcccVersion, [0; 3], [SMCCC_VERSION, 0, 0, 0])?;
    ensure_returns(
        &vm,
        GuestCallId::SmcccArchFeatures,
        [GuestCallId::SmcccVersion as u64, 0, 0],
        DONE,
    )?;
    ensure_returns(
        &vm,
        GuestCallId::SmcccArchFeatures,
        [GuestCallId::SmcccArchFeatures as u64, 0, 0],
        DONE,
    )?;
    ensure_returns(
        &vm,
        GuestCallId::SmcccArchFeatures,
        [0x8400_0000, 0, 0],
        UNSUPPORTED,
    )?;
    vm.end()
});

case!(the_workarounds_are_there_if_they_say_so, {
    let vm = running(Plan::protected())?;
    for call in [
        GuestCallId::SmcccWorkaround1,
        GuestCallId::SmcccWorkaround2,
        GuestCallId::SmcccWorkaround3,
    ] {
        let [feature, ..] = vm.hvc(GuestCallId::SmcccArchFeatures.into(), [call as u64, 0, 0])?;
        // 0: there; 1 or −2: not needed; −1: not there (DEN0028, 7).
        ensure!(
            [0, 1, 0_u64.wrapping_sub(2), u64::MAX].contains(&feature),
            "feature of {call:?}: {feature:#x}"
        );
        if feature != u64::MAX {
            let [x0, ..] = vm.hvc(call.into(), [0; 3])?;
            ensure_eq!(x0, 0, "{call:?}");
        }
    }
    vm.end()
});

case!(the_uid_is_kvms, {
    let vm = running(Plan::protected())?;
    ensure_returns(&vm, GuestCallId::VendorUid, [0; 3], KVM_UID.map(u64::from))?;
    vm.end()
});

/// The features that a guest is told must be those that it has: each call behind a bit is there, each other is not.
fn ensure_features(plan: Plan) -> TestResult {
    let vm = running(plan)?;
    let [word, upper @ ..] = vm.hvc(GuestCallId::VendorFeatures.into(), [0; 3])?;
    ensure_eq!(upper, [0; 3], "the upper words of the features");
    let with_bits = GuestCallId::ALL
        .into_iter()
        .filter_map(|call| Some((call, feature_bit(call)?)));
    for (call, bit) in with_bits {
        // Arguments that each refuses that does anything.
        let answer = vm.hvc(call.into(), [1, 1, 1])?;
        let is_there = answer != UNSUPPORTED;
        ensure_eq!(
            word & 1 << bit != 0,
            is_there,
            "{call:?} by its bit, and by its answer"
        );
    }
    vm.end()
}

case!(a_protected_guest_has_the_features_that_it_is_told, {
    ensure_features(Plan::protected())
});
case!(an_open_guest_has_the_features_that_it_is_told, {
    ensure_features(Plan::open())
});

case!(a_call_that_is_none_is_not_supported, {
    let vm = running(Plan::protected())?;
    for function in [
        0,
        0x7fff_ffff,
        0x8000_0002,
        0x8400_0020,
        0x8400_00ff,
        0xc600_0000,
        0xc600_0001,
        0xc600_000c,
        0xc600_4600,
        0xc600_4620,
        0xc600_4661,
        HOST_SERVICE_FIRST - 1,
        HOST_SERVICE_LAST + 1,
        0x8600_0002,
        0x8600_ff00,
        0xffff_ffff,
    ] {
        ensure_eq!(
            vm.hvc(function, [1, 2, 3])?,
            UNSUPPORTED,
            "function {function:#x}"
        );
    }
    vm.end()
});

case!(an_hvc_with_another_number_is_not_a_call, {
    let vm = running(Plan::protected())?;
    for immediate in [1, 0xff, 0xffff] {
        let order = Order::Execute {
            level: Level::El1,
            instruction: 0xd400_0002 | immediate << 5,
            registers: [u64::from(GuestCallId::SmcccVersion as u32), 0],
        };
        let [x0, ..] = vm.done(0, order)?;
        ensure_eq!(x0, UNSUPPORTED[0], "HVC #{immediate:#x}");
    }
    vm.end()
});

case!(a_function_of_more_than_32_bits_is_none, {
    let vm = running(Plan::protected())?;
    let order = Order::Execute {
        level: Level::El1,
        instruction: 0xd400_0002,
        registers: [1 << 32 | u64::from(GuestCallId::SmcccVersion as u32), 0],
    };
    let [x0, ..] = vm.done(0, order)?;
    ensure_eq!(x0, UNSUPPORTED[0], "x0");
    vm.end()
});

case!(a_guest_has_no_firmware, {
    let vm = running(Plan::protected())?;
    for function in [
        0x8000_0000,
        0x8400_0000,
        0x8400_0008,
        0xc400_0003,
        GuestCallId::MemShare.into(),
    ] {
        let order = Order::Call {
            conduit: Conduit::Smc,
            function,
            arguments: [PAGE * FRAME_SIZE, 0, 0],
        };
        let Report::Done([x0, .., changed]) = vm.order(0, order)? else {
            fail!("SMC {function:#x} faulted")
        };
        ensure_eq!(
            (x0, changed),
            (UNSUPPORTED[0], 0),
            "x0 and changed registers of SMC {function:#x}"
        );
    }
    ensure_alive(&vm)?;
    vm.end()
});

case!(a_call_of_user_code_is_undefined, {
    let vm = running(Plan::protected())?;
    let order = Order::Execute {
        level: Level::El0,
        instruction: 0xd400_0002,
        registers: [u64::from(GuestCallId::SmcccVersion as u32), 0],
    };
    ensure_eq!(vm.order(0, order)?.class(), Some(0), "exception class");
    vm.end()
});

case!(meminfo_says_the_granule_and_that_there_are_ranges, {
    let vm = running(Plan::protected())?;
    ensure_returns(
        &vm,
        GuestCallId::MemInfo,
        [0; 3],
        [FRAME_SIZE, MEMINFO_HAS_RANGE, 0, 0],
    )?;
    vm.end()
});

case!(calls_without_arguments_refuse_any, {
    let vm = running(Plan::protected())?;
    for call in [
        GuestCallId::MemInfo,
        GuestCallId::MmioGuardInfo,
        GuestCallId::MmioGuardEnroll,
    ] {
        for arguments in [[1, 0, 0], [0, 1, 0], [0, 0, 1], [u64::MAX, 0, 0], [0, 0, 1 << 63]] {
            ensure_returns(&vm, call, arguments, INVALID)?;
        }
    }
    // Enrolling was refused, so an absent address outside the memory is still a device.
    let exit = vm.begin_order(
        0,
        drive::access(payload_protocol::Access::Load4, layout::DEVICE, 0),
    )?;
    ensure!(matches!(exit, Exit::MmioRead { .. }), "exit {exit:x?}");
    vm.end()
});

case!(
    a_page_that_is_not_there_is_faulted_in_by_the_call_that_shares_it,
    {
        let vm = running_with(0)?;
        let share = GuestCallId::MemShare.into();
        let exit = vm.begin_order(0, drive::hvc(share, [layout::FREE, 0, 0]))?;
        let expected = Exit::MemoryFault {
            gfn: PAGE,
            access: AccessFlags::CALL,
        };
        ensure_eq!(exit, expected, "exit");
        ensure_eq!(
            next_exit(&vm, Answer::None)?,
            expected,
            "exit while it is not there"
        );
        vm.give(PAGE)?;
        ensure_eq!(vm.hvc_returns(share, Answer::Retry)?, ONE_DONE, "MEM_SHARE");
        ensure_page_state(&vm, PAGE, Some(0))?;
        vm.end()
    }
);

case!(a_call_about_a_page_that_the_host_will_not_give_fails, {
    let vm = running_with(0)?;
    let share = GuestCallId::MemShare.into();
    let exit = vm.begin_order(0, drive::hvc(share, [layout::FREE, 0, 0]))?;
    ensure!(matches!(exit, Exit::MemoryFault { .. }), "exit {exit:x?}");
    ensure_eq!(vm.hvc_returns(share, Answer::Refuse)?, INVALID, "MEM_SHARE");
    vm.end()
});

/// A guest with a page that it lends and the host has pinned, at the exit that its call about it makes.
fn at_a_pinned_page(call: GuestCallId) -> Result<(Vm, FrameRange), crate::registry::Outcome> {
    let vm = running_with(1)?;
    ensure_done(&vm, GuestCallId::MemShare, PAGE)?;
    let frame = FrameRange::new(vm.frame(PAGE)?, 1);
    calls::pin(frame)?;
    let exit = vm.begin_order(0, drive::hvc(call.into(), [layout::FREE, 0, 0]))?;
    ensure_eq!(exit, Exit::Pinned(PAGE), "exit of {call:?}");
    ensure_page_state(&vm, PAGE, Some(1))?;
    Ok((vm, frame))
}

/// The host refuses: the guest is told, and nothing has changed.
fn pinned_and_refused(call: GuestCallId) -> TestResult {
    let (vm, frame) = at_a_pinned_page(call)?;
    ensure_eq!(vm.hvc_returns(call.into(), Answer::Refuse)?, INVALID, "{call:?}");
    ensure_page_state(&vm, PAGE, Some(1))?;
    calls::unpin(frame)?;
    vm.end()
}

/// The host unpins and has the call made again: it is done.
fn pinned_and_retried(call: GuestCallId) -> TestResult {
    let (vm, frame) = at_a_pinned_page(call)?;
    calls::unpin(frame)?;
    ensure_eq!(vm.hvc_returns(call.into(), Answer::Retry)?, ONE_DONE, "{call:?}");
    vm.end()
}

/// The host says to try again and has not unpinned: the guest is told, and nothing has changed.
fn pinned_still(call: GuestCallId) -> TestResult {
    let (vm, frame) = at_a_pinned_page(call)?;
    ensure_eq!(vm.hvc_returns(call.into(), Answer::Retry)?, INVALID, "{call:?}");
    ensure_page_state(&vm, PAGE, Some(1))?;
    // The next call is a new one.
    let exit = vm.begin_order(0, drive::hvc(call.into(), [layout::FREE, 0, 0]))?;
    ensure_eq!(exit, Exit::Pinned(PAGE), "exit of the next call");
    calls::unpin(frame)?;
    ensure_eq!(vm.hvc_returns(call.into(), Answer::Retry)?, ONE_DONE, "{call:?}");
    vm.end()
}

case!(an_unshare_of_a_pinned_page_is_refused_by_the_host, {
    pinned_and_refused(GuestCallId::MemUnshare)
});
case!(an_unshare_of_a_page_that_is_unpinned_in_time_is_done, {
    pinned_and_retried(GuestCallId::MemUnshare)
});
case!(an_unshare_of_a_page_that_stays_pinned_fails, {
    pinned_still(GuestCallId::MemUnshare)
});
case!(a_relinquish_of_a_pinned_page_is_refused_by_the_host, {
    pinned_and_refused(GuestCallId::MemRelinquish)
});
case!(a_relinquish_of_a_page_that_is_unpinned_in_time_is_done, {
    pinned_and_retried(GuestCallId::MemRelinquish)
});
case!(a_relinquish_of_a_page_that_stays_pinned_fails, {
    pinned_still(GuestCallId::MemRelinquish)
});

case!(a_pin_more_is_a_pin_more, {
    let vm = running_with(1)?;
    ensure_done(&vm, GuestCallId::MemShare, PAGE)?;
    let frame = FrameRange::new(vm.frame(PAGE)?, 1);
    for pins in 1..=5 {
        calls::pin(frame)?;
        ensure_page_state(&vm, PAGE, Some(pins))?;
    }
    for pins in (0..5).rev() {
        calls::unpin(frame)?;
        ensure_page_state(&vm, PAGE, Some(pins))?;
    }
    ensure_done(&vm, GuestCallId::MemUnshare, PAGE)?;
    vm.end()
});

case!(a_guest_gives_a_page_up_and_gets_another, {
    let vm = running_with(1)?;
    vm.fill(PAGE, 0x600d)?;
    let first = vm.frame(PAGE)?;
    let relinquish = GuestCallId::MemRelinquish.into();
    let exit = vm.begin_order(0, drive::hvc(relinquish, [layout::FREE, 0, 0]))?;
    ensure_eq!(exit, Exit::Relinquished { gfn: PAGE, frames: 1 }, "exit");
    vm.take_relinquished(PAGE, 1)?;
    ensure_eq!(
        vm.hvc_returns(relinquish, Answer::None)?,
        ONE_DONE,
        "MEM_RELINQUISH"
    );
    let exit = vm.begin_order(0, drive::access(payload_protocol::Access::Load8, layout::FREE, 0))?;
    let expected = Exit::MemoryFault {
        gfn: PAGE,
        access: AccessFlags::empty(),
    };
    ensure_eq!(exit, expected, "exit");
    vm.give(PAGE)?;
    let Report::Done([value, ..]) = vm.finish(0, Answer::Retry)? else {
        fail!("the access faulted")
    };
    ensure_eq!(value, 0, "the page that came instead of {first:#x}");
    ensure_eq!(
        calls::statistic(vm.handle(), hyp_abi::vm::VmStatistic::Relinquished)?,
        1,
        "pages given up"
    );
    vm.end()
});

case!(a_lent_page_is_given_up_too, {
    let vm = running_with(1)?;
    ensure_done(&vm, GuestCallId::MemShare, PAGE)?;
    ensure_eq!(
        about_page(&vm, GuestCallId::MemRelinquish, PAGE)?,
        ONE_DONE,
        "MEM_RELINQUISH"
    );
    ensure!(!vm.has(PAGE), "the host was not told");
    vm.end()
});

case!(what_was_given_up_cannot_be_called_about, {
    let vm = running_with(1)?;
    ensure_done(&vm, GuestCallId::MemRelinquish, PAGE)?;
    for call in [GuestCallId::MemUnshare, GuestCallId::MemRelinquish] {
        ensure_eq!(about_page(&vm, call, PAGE)?, INVALID, "{call:?}");
    }
    vm.end()
});

case!(a_call_that_needs_pages_says_how_many_and_is_restarted, {
    // A block's worth: sharing one page of it splits what the host and the map have of it.
    let plan = Plan {
        reserve: 0,
        ..Plan::protected()
    };
    let vm = Vm::load(plan.backing(64 + 1024, 2 << 20))?;
    let call = |vm: &Vm| VmCall::Statistics {
        vm: vm.handle(),
        statistic: hyp_abi::vm::VmStatistic::ReservePages.into(),
    };
    vm.launch_loaded()?;
    vm.ready()?;
    super::ranges::give_block(&vm)?;
    let share = GuestCallId::MemShare.into();
    let address = super::ranges::BLOCK * FRAME_SIZE + 5 * FRAME_SIZE;
    let mut needed = 0;
    let mut exit = vm.begin_order(0, drive::hvc(share, [address, 0, 0]))?;
    while let Exit::MemoryNeeded(pages) = exit {
        ensure!((1..=8).contains(&pages), "{pages} pages are needed");
        needed += 1;
        ensure!(needed <= 8, "the call never has enough");
        succeed!(calls::call(VmCall::TopUp {
            vm: vm.handle(),
            pages
        }));
        exit = vm.exit(0, Answer::Retry)?;
    }
    let report = drive::report(exit)?;
    ensure!(matches!(report, Report::Done([0, 1, 0, 0, 0])), "{report:x?}");
    succeed!(calls::call(call(&vm)));
    vm.end()
});

case!(the_host_may_say_nothing_to_an_exit, {
    let vm = running_with(1)?;
    // An answer that does not belong to the exit before is refused, and the exit still waits for its own.
    let exit = vm.begin_order(
        0,
        drive::access(payload_protocol::Access::Load8, layout::DEVICE, 0),
    )?;
    ensure!(matches!(exit, Exit::MmioRead { .. }), "exit {exit:x?}");
    vm.vcpus[0].enter(Answer::Done([0x1234, 0, 0, 0]));
    vm.vcpus[0].page.write(hyp_abi::run_page::ENTRY_ANSWER, 9);
    super::support::ensure_run_refused(&vm, 0, Status::InvalidParameter)?;
    let Report::Done([value, ..]) = vm.finish(0, Answer::Done([0x1234, 0, 0, 0]))? else {
        fail!("the access faulted")
    };
    ensure_eq!(value, 0x1234, "what the device said");
    vm.end()
});

case!(guests_calls_preserve_what_they_do_not_return, {
    // The guest looks itself at x4 to x17 with each call; see `Vm::hvc`.
    let vm = running_with(1)?;
    let calls = [
        GuestCallId::SmcccVersion,
        GuestCallId::VendorUid,
        GuestCallId::VendorFeatures,
        GuestCallId::MemInfo,
        GuestCallId::MemShare,
        GuestCallId::MemUnshare,
        GuestCallId::MmioGuardInfo,
        GuestCallId::TrngVersion,
        GuestCallId::TrngRnd64,
        GuestCallId::LaunchDigest,
        GuestCallId::MemRelinquish,
    ];
    for call in calls {
        let arguments = match call {
            GuestCallId::MemShare | GuestCallId::MemUnshare | GuestCallId::MemRelinquish => {
                [layout::FREE, 0, 0]
            }
            GuestCallId::TrngRnd64 => [64, 0, 0],
            _ => [0; 3],
        };
        vm.hvc(call.into(), arguments)?;
    }
    vm.end()
});

case!(entropy_is_there_or_said_not_to_be, {
    let vm = running(Plan::protected())?;
    let [version, ..] = vm.hvc(GuestCallId::TrngVersion.into(), [0; 3])?;
    if version == UNSUPPORTED[0] {
        for call in [
            GuestCallId::TrngFeatures,
            GuestCallId::TrngGetUuid,
            GuestCallId::TrngRnd32,
            GuestCallId::TrngRnd64,
        ] {
            ensure_returns(&vm, call, [32, 0, 0], UNSUPPORTED)?;
        }
        return vm.end();
    }
    ensure_eq!(version, 0x1_0000, "TRNG_VERSION");
    ensure_returns(
        &vm,
        GuestCallId::TrngFeatures,
        [GuestCallId::TrngRnd64 as u64, 0, 0],
        DONE,
    )?;
    // INVALID_PARAMETERS (DEN0098, 2.1), which is another number there than elsewhere.
    let invalid = [0_u64.wrapping_sub(2), 0, 0, 0];
    for bits in [0, 193, u64::MAX] {
        ensure_returns(&vm, GuestCallId::TrngRnd64, [bits, 0, 0], invalid)?;
    }
    for bits in [0, 97, 192] {
        ensure_returns(&vm, GuestCallId::TrngRnd32, [bits, 0, 0], invalid)?;
    }
    let first = vm.hvc(GuestCallId::TrngRnd64.into(), [192, 0, 0])?;
    let second = vm.hvc(GuestCallId::TrngRnd64.into(), [192, 0, 0])?;
    ensure_eq!((first[0], second[0]), (0, 0), "TRNG_RND64");
    ensure!(first != second, "the same 192 bits twice: {first:x?}");
    // The bits are right-aligned in x3, x2, x1 (DEN0098, 2.7); those that were not asked for are zero.
    let [x0, x1, x2, x3] = vm.hvc(GuestCallId::TrngRnd64.into(), [8, 0, 0])?;
    ensure_eq!((x0, x1, x2), (0, 0, 0), "TRNG_RND64 of 8 bits");
    ensure!(x3 < 256, "{x3:#x} has more than 8 bits");
    vm.end()
});

case!(a_guest_shares_nothing_with_a_bad_count, {
    let vm = running_with(1)?;
    for count in [1 << 52, u64::MAX, u64::MAX / FRAME_SIZE + 1] {
        let got = vm.hvc(GuestCallId::MemUnshare.into(), [layout::FREE, count, 0])?;
        ensure_eq!(got, INVALID, "MEM_UNSHARE of {count:#x} granules");
    }
    let beyond = BEHIND * FRAME_SIZE;
    for address in [beyond, 1 << 32, 1 << 47, 1 << 52, !0xfff] {
        let got = vm.hvc(GuestCallId::MemShare.into(), [address, 1, 0])?;
        ensure_eq!(got, INVALID, "MEM_SHARE at {address:#x}");
    }
    vm.end()
});
