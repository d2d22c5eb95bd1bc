//! Every call that names a guest frame number, with a page in every state: the exact answer, and that a refusal changed
//! nothing.

use super::support::{
    BEHIND, INVALID, ONE_DONE, PAGE, about_page, ensure_done, ensure_guest_refused, ensure_page_state,
    ensure_refused_of, force, frames_of, running, running_with,
};
use crate::cases::support::ensure_state;
use crate::guest::{Plan, Vm, calls};
use crate::registry::{TestResult, case, ensure_eq, succeed};
use hyp_abi::guest_call::GuestCallId;
use hyp_abi::vm::Permissions;
use hyp_abi::{FRAME_SIZE, FrameRange, FrameState, GuestRange, Status, VmCall};

/// The first guest frame number that a guest of 32 bits of IPA cannot have.
const OUT_OF_RANGE: u64 = 1 << 20;

/// Calls with a range of guest frame numbers, for a VM of the right kind.
fn ranged(vm: &Vm, range: GuestRange) -> alloc::vec::Vec<VmCall> {
    let handle = vm.handle();
    let mut calls = alloc::vec![VmCall::Audit { vm: handle, range }];
    if vm.plan.is_protected() {
        calls.push(VmCall::Reclaim { vm: handle, range });
    } else {
        calls.extend([
            VmCall::Unshare { vm: handle, range },
            VmCall::SetPermissions {
                vm: handle,
                range,
                permissions: Permissions::READ.bits(),
            },
            VmCall::TestAge { vm: handle, range },
        ]);
    }
    calls
}

/// Ranges that no guest has.
fn ensure_ranges_refused(vm: &Vm) -> TestResult {
    for (gfn, frames, status) in [
        (PAGE, 0, Status::EmptyRange),
        (OUT_OF_RANGE, 1, Status::GfnOutOfRange),
        (OUT_OF_RANGE - 1, 2, Status::GfnOutOfRange),
        (PAGE, u64::MAX, Status::GfnOutOfRange),
        (u64::MAX, 1, Status::GfnOutOfRange),
        (u64::MAX, u64::MAX, Status::GfnOutOfRange),
        (1 << 52, 1, Status::GfnOutOfRange),
    ] {
        for call in ranged(vm, GuestRange::new(gfn, frames)) {
            ensure_refused_of(vm, call, status, &[])?;
        }
    }
    Ok(())
}

case!(a_range_out_of_reach_is_refused, {
    let vm = Vm::create(Plan::open())?;
    ensure_ranges_refused(&vm)?;
    vm.end()?;
    let vm = Vm::create(Plan::protected())?;
    vm.give(PAGE)?;
    vm.kill()?;
    ensure_ranges_refused(&vm)?;
    vm.bury()
});

/// Donating or sharing one frame to `gfn` must be refused.
fn ensure_giving_refused(vm: &Vm, range: FrameRange, gfn: u64, status: Status) -> TestResult {
    let handle = vm.handle();
    let call = if vm.plan.is_protected() {
        VmCall::Donate {
            vm: handle,
            range,
            gfn,
        }
    } else {
        VmCall::Share {
            vm: handle,
            range,
            gfn,
            permissions: Permissions::all().bits(),
        }
    };
    ensure_refused_of(vm, call, status, &[range.base])
}

case!(a_page_is_given_where_there_is_none_and_may_be_one, {
    let vm = running_with(2)?;
    let range = vm.set_aside(1)?;
    ensure_giving_refused(&vm, range, PAGE, Status::GfnMapped)?;
    ensure_done(&vm, GuestCallId::MemShare, PAGE + 1)?;
    ensure_giving_refused(&vm, range, PAGE + 1, Status::GfnMapped)?;
    for gfn in [OUT_OF_RANGE, 1 << 40, 1 << 52, u64::MAX] {
        ensure_giving_refused(&vm, range, gfn, Status::GfnOutOfRange)?;
    }
    force(&vm, PAGE)?;
    ensure_giving_refused(&vm, range, PAGE, Status::GfnLost)?;
    vm.end()
});

case!(a_frame_is_lent_where_there_is_none_and_may_be_one, {
    let vm = Vm::create(Plan::open())?;
    vm.give(PAGE)?;
    let range = vm.set_aside(1)?;
    ensure_giving_refused(&vm, range, PAGE, Status::GfnMapped)?;
    for gfn in [OUT_OF_RANGE, 1 << 40, 1 << 52, u64::MAX] {
        ensure_giving_refused(&vm, range, gfn, Status::GfnOutOfRange)?;
    }
    vm.end()
});

case!(a_page_that_is_not_there_is_not_unshared, {
    let vm = Vm::create(Plan::open())?;
    vm.give(PAGE)?;
    let call = |gfn| VmCall::Unshare {
        vm: vm.handle(),
        range: Vm::page(gfn),
    };
    for gfn in [PAGE + 1, PAGE - 1, BEHIND, 0] {
        ensure_refused_of(&vm, call(gfn), Status::GfnNotMapped, &[vm.frame(PAGE)?])?;
    }
    vm.end()
});

case!(pages_without_a_frame_count_as_reclaimed, {
    let vm = running_with(3)?;
    force(&vm, PAGE + 1)?;
    vm.kill()?;
    let [done, ..] = succeed!(calls::call(VmCall::Reclaim {
        vm: vm.handle(),
        range: GuestRange::new(PAGE + 8, 16)
    }));
    ensure_eq!(done, 16, "pages done where there are none");
    let [done, ..] = succeed!(calls::call(VmCall::Reclaim {
        vm: vm.handle(),
        range: Vm::page(PAGE + 1)
    }));
    ensure_eq!(done, 1, "pages done where one was lost");
    vm.bury()
});

case!(a_pinned_page_is_not_reclaimed, {
    let vm = running_with(2)?;
    ensure_done(&vm, GuestCallId::MemShare, PAGE)?;
    let frame = FrameRange::new(vm.frame(PAGE)?, 1);
    calls::pin(frame)?;
    vm.kill()?;
    let call = VmCall::Reclaim {
        vm: vm.handle(),
        range: Vm::page(PAGE),
    };
    ensure_refused_of(&vm, call, Status::Pinned, &[frame.base])?;
    calls::unpin(frame)?;
    vm.bury()
});

case!(permissions_without_reading_are_none, {
    let vm = Vm::create(Plan::open())?;
    vm.give(PAGE)?;
    let range = vm.set_aside(1)?;
    for permissions in [
        0,
        Permissions::WRITE.bits(),
        Permissions::EXECUTE.bits(),
        (Permissions::WRITE | Permissions::EXECUTE).bits(),
        Permissions::READ.bits() | 1 << 3,
        u64::MAX,
    ] {
        let handle = vm.handle();
        for call in [
            VmCall::Share {
                vm: handle,
                range,
                gfn: PAGE + 1,
                permissions,
            },
            VmCall::SetPermissions {
                vm: handle,
                range: Vm::page(PAGE),
                permissions,
            },
        ] {
            ensure_refused_of(
                &vm,
                call,
                Status::InvalidParameter,
                &[range.base, vm.frame(PAGE)?],
            )?;
        }
    }
    vm.end()
});

case!(permissions_of_what_is_not_there_are_passed_over, {
    let vm = Vm::create(Plan::open())?;
    vm.give(PAGE)?;
    let [done, ..] = succeed!(calls::call(VmCall::SetPermissions {
        vm: vm.handle(),
        range: GuestRange::new(PAGE, 40),
        permissions: Permissions::READ.bits()
    }));
    ensure_eq!(done, 40, "pages done");
    vm.end()
});

/// The guest's calls about a page of its own.
const OF_PAGES: [GuestCallId; 3] = [
    GuestCallId::MemShare,
    GuestCallId::MemUnshare,
    GuestCallId::MemRelinquish,
];

case!(a_guest_shares_what_is_private, {
    let vm = running_with(1)?;
    ensure_eq!(
        about_page(&vm, GuestCallId::MemShare, PAGE)?,
        ONE_DONE,
        "MEM_SHARE"
    );
    ensure_page_state(&vm, PAGE, Some(0))?;
    let [private, shared, _] = frames_of(&vm)?;
    ensure_eq!((private, shared), (vm.pages() - 1, 1), "frames");
    vm.end()
});

case!(a_guest_does_not_share_twice, {
    let vm = running_with(1)?;
    ensure_done(&vm, GuestCallId::MemShare, PAGE)?;
    ensure_guest_refused(&vm, GuestCallId::MemShare, PAGE)?;
    vm.end()
});

case!(a_guest_does_not_unshare_what_is_private, {
    let vm = running_with(1)?;
    ensure_guest_refused(&vm, GuestCallId::MemUnshare, PAGE)?;
    vm.end()
});

case!(a_guest_unshares_once, {
    let vm = running_with(1)?;
    ensure_done(&vm, GuestCallId::MemShare, PAGE)?;
    ensure_done(&vm, GuestCallId::MemUnshare, PAGE)?;
    ensure_page_state(&vm, PAGE, None)?;
    ensure_guest_refused(&vm, GuestCallId::MemUnshare, PAGE)?;
    vm.end()
});

case!(a_guest_neither_unshares_nor_relinquishes_what_is_not_there, {
    let vm = running_with(1)?;
    for gfn in [PAGE + 1, BEHIND, 0, 1 << 19] {
        ensure_guest_refused(&vm, GuestCallId::MemUnshare, gfn)?;
        ensure_guest_refused(&vm, GuestCallId::MemRelinquish, gfn)?;
    }
    vm.end()
});

case!(a_guest_shares_nothing_outside_its_memory, {
    let vm = running_with(1)?;
    for gfn in [BEHIND, 0, 1 << 19, OUT_OF_RANGE, 1 << 40, 1 << 51] {
        ensure_guest_refused(&vm, GuestCallId::MemShare, gfn)?;
    }
    vm.end()
});

case!(a_lost_page_is_neither_shared_nor_given_up, {
    let vm = running_with(1)?;
    force(&vm, PAGE)?;
    for call in OF_PAGES {
        ensure_guest_refused(&vm, call, PAGE)?;
    }
    vm.end()
});

case!(an_address_off_its_page_is_refused, {
    let vm = running_with(1)?;
    ensure_done(&vm, GuestCallId::MemShare, PAGE)?;
    for call in OF_PAGES {
        for offset in [1, 8, 0x800, 0xfff] {
            let got = vm.hvc(call.into(), [PAGE * FRAME_SIZE + offset, 0, 0])?;
            ensure_eq!(got, INVALID, "{call:?} at offset {offset:#x}");
        }
    }
    ensure_page_state(&vm, PAGE, Some(0))?;
    vm.end()
});

case!(a_third_argument_must_be_zero, {
    let vm = running_with(2)?;
    ensure_done(&vm, GuestCallId::MemShare, PAGE + 1)?;
    for call in OF_PAGES {
        for third in [1, 1 << 32, u64::MAX] {
            for gfn in [PAGE, PAGE + 1] {
                let got = vm.hvc(call.into(), [gfn * FRAME_SIZE, 1, third])?;
                ensure_eq!(got, INVALID, "{call:?} with x3 {third:#x}");
            }
        }
    }
    ensure_page_state(&vm, PAGE, None)?;
    ensure_page_state(&vm, PAGE + 1, Some(0))?;
    vm.end()
});

case!(an_open_guest_has_no_calls_about_memory, {
    let vm = running(Plan::open())?;
    vm.give(PAGE)?;
    for call in OF_PAGES.into_iter().chain([GuestCallId::MemInfo]) {
        let arguments = if call == GuestCallId::MemInfo {
            [0; 3]
        } else {
            [PAGE * FRAME_SIZE, 0, 0]
        };
        let got = vm.hvc(call.into(), arguments)?;
        ensure_eq!(got, super::support::UNSUPPORTED, "{call:?}");
    }
    ensure_state(vm.frame(PAGE)?, FrameState::HostSharedGuest, 1)?;
    vm.end()
});
