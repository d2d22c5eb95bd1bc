//! Guests that are not protected: they borrow the host's memory, with the rights that it gives them.

use super::faults::ensure_external_abort;
use super::support::{PAGE, ensure_alive, frames_of, running};
use crate::cases::support::{REGION_FRAMES, ensure_state};
use crate::guest::exit::Exit;
use crate::guest::vcpu::Answer;
use crate::guest::{Plan, Vm, calls, drive};
use crate::probe;
use crate::registry::{Outcome, TestResult, case, ensure, ensure_eq, fail, succeed};
use hyp_abi::run_page::AccessFlags;
use hyp_abi::vm::Permissions;
use hyp_abi::{FRAME_SIZE, FrameRange, FrameState, GuestRange, REGION_SIZE, VmCall};
use payload_protocol::{Access, Level, Order, Report, layout};

/// A running guest, and a frame that it borrows at [`PAGE`] with these rights.
fn with_rights(permissions: Permissions) -> Result<(Vm, u64), Outcome> {
    let vm = running(Plan::open())?;
    let range = vm.set_aside(1)?;
    crate::frames::Frames::adopt(range).fill(0x77);
    calls::share(vm.handle(), range, PAGE, permissions.bits())?;
    vm.note(PAGE, range.base);
    Ok((vm, range.base))
}

fn set(vm: &Vm, permissions: Permissions) -> TestResult {
    let [done, ..] = succeed!(calls::call(VmCall::SetPermissions {
        vm: vm.handle(),
        range: Vm::page(PAGE),
        permissions: permissions.bits()
    }));
    ensure_eq!(done, 1, "pages done");
    Ok(())
}

/// The guest's access to the page is told to the host as a fault that it can help.
fn ensure_faults(vm: &Vm, access: Access) -> TestResult {
    let exit = vm.begin_order(0, drive::access(access, layout::FREE, 0))?;
    let write = if access.is_write() {
        AccessFlags::WRITE
    } else {
        AccessFlags::empty()
    };
    ensure_eq!(
        exit,
        Exit::MemoryFault {
            gfn: PAGE,
            access: write
        },
        "exit of {access:?}"
    );
    let report = vm.finish(0, Answer::Refuse)?;
    ensure_external_abort(report, Level::El1, access, layout::FREE)
}

case!(a_page_is_borrowed_read_only, {
    let (vm, frame) = with_rights(Permissions::READ)?;
    ensure_eq!(vm.load8(layout::FREE)?, 0x77 ^ frame, "what the guest reads");
    for access in Access::ALL.into_iter().filter(|access| access.is_write()) {
        ensure_faults(&vm, access)?;
    }
    let view = vm.frame_view(PAGE)?;
    ensure_eq!(view.find_wrong(|at| 0x77 ^ at), None, "contents");
    vm.end()
});

case!(a_write_protected_page_is_released_to_the_guest_that_waits, {
    let (vm, _) = with_rights(Permissions::all())?;
    vm.store8(layout::FREE, 1)?;
    set(&vm, Permissions::READ)?;
    let exit = vm.begin_order(0, drive::access(Access::Store8, layout::FREE, 2))?;
    ensure_eq!(
        exit,
        Exit::MemoryFault {
            gfn: PAGE,
            access: AccessFlags::WRITE
        },
        "exit"
    );
    ensure_eq!(vm.frame_view(PAGE)?.contents().next(), Some(1), "memory");
    set(&vm, Permissions::all())?;
    let report = vm.finish(0, Answer::Retry)?;
    ensure!(matches!(report, Report::Done(_)), "{report:x?}");
    ensure_eq!(vm.frame_view(PAGE)?.contents().next(), Some(2), "memory");
    vm.end()
});

case!(a_page_is_borrowed_without_execution, {
    let (vm, _) = with_rights(Permissions::READ | Permissions::WRITE)?;
    // MOVZ X0, #42; RET.
    vm.frame_view(PAGE)?.write_code(0, &[0xd280_0540, 0xd65f_03c0]);
    let fetch = Order::Fetch {
        level: Level::El1,
        address: layout::FREE,
        value: 0,
    };
    let exit = vm.begin_order(0, fetch)?;
    ensure_eq!(
        exit,
        Exit::MemoryFault {
            gfn: PAGE,
            access: AccessFlags::FETCH
        },
        "exit"
    );
    set(&vm, Permissions::all())?;
    let report = vm.finish(0, Answer::Retry)?;
    ensure_eq!(report, Report::Done([42, 0, 0, 0, 0]), "what the code answers");
    vm.end()
});

case!(used_pages_are_told_from_unused_ones, {
    let vm = running(Plan::open())?;
    for gfn in PAGE..PAGE + 4 {
        vm.give(gfn)?;
    }
    let age = || -> Result<(u64, u64), Outcome> {
        let [frames, used, _] = succeed!(calls::call(VmCall::TestAge {
            vm: vm.handle(),
            range: GuestRange::new(PAGE, 8)
        }));
        Ok((frames, used))
    };
    // They come as used; from the first look on, the guest's own use counts.
    age()?;
    ensure_eq!(age()?, (8, 0), "pages looked at, and used, when nobody did");
    vm.load8(layout::FREE)?;
    vm.store8(layout::FREE + 2 * FRAME_SIZE, 1)?;
    ensure_eq!(age()?, (8, 2), "pages looked at, and used");
    ensure_eq!(age()?, (8, 0), "pages looked at, and used since");
    vm.load8(layout::FREE + 3 * FRAME_SIZE)?;
    ensure_eq!(age()?, (8, 1), "pages looked at, and used since");
    vm.end()
});

case!(a_frame_is_borrowed_by_several_guests, {
    let vms = [
        running(Plan::open())?,
        running(Plan::open())?,
        running(Plan::open())?,
    ];
    let frame = crate::cases::support::pooled_frames(1)?;
    for (number, vm) in vms.iter().enumerate() {
        calls::share(vm.handle(), frame.range(), PAGE, Permissions::all().bits())?;
        ensure_state(frame.frame(0), FrameState::HostSharedGuest, number as u64 + 1)?;
    }
    vms[0].store8(layout::FREE, 0x1234)?;
    ensure_eq!(vms[1].load8(layout::FREE)?, 0x1234, "what the second reads");
    succeed!(probe::access(
        probe::Level::El1,
        Access::Store8,
        frame.frame(0),
        0x4321
    ));
    ensure_eq!(vms[2].load8(layout::FREE)?, 0x4321, "what the third reads");
    for (number, vm) in vms.into_iter().enumerate() {
        calls::unshare(vm.handle(), Vm::page(PAGE))?;
        let (state, count) = match 2 - number {
            0 => (FrameState::Host, 0),
            left => (FrameState::HostSharedGuest, left as u64),
        };
        ensure_state(frame.frame(0), state, count)?;
        let exit = vm.begin_order(0, drive::access(Access::Load8, layout::FREE, 0))?;
        ensure!(matches!(exit, Exit::MemoryFault { .. }), "exit {exit:x?}");
        vm.end()?;
    }
    frame.free();
    Ok(())
});

case!(a_borrowed_frame_cannot_be_given_away, {
    let (vm, frame) = with_rights(Permissions::READ)?;
    let range = FrameRange::new(frame, 1);
    for call in [
        hyp_abi::HostCall::DonateHyp(range),
        hyp_abi::HostCall::ShareHyp(range),
        hyp_abi::HostCall::PoolTopUp(range),
    ] {
        crate::cases::support::ensure_refused(call, hyp_abi::Status::SharedWithGuest, &[frame])?;
    }
    vm.end()
});

case!(a_block_is_borrowed_write_protected_and_given_back, {
    let vm = running(Plan {
        ..Plan::open().backing(3 * REGION_FRAMES, REGION_SIZE)
    })?;
    let block = super::ranges::BLOCK;
    let first = super::ranges::give_block(&vm)?;
    ensure_eq!(first % REGION_SIZE, 0, "address of the block");
    let at = |index: u64| (block + index) * FRAME_SIZE;
    vm.store8(at(17), 17)?;
    let mut done = 0;
    while done < REGION_FRAMES {
        let [count, ..] = succeed!(calls::call(VmCall::SetPermissions {
            vm: vm.handle(),
            range: GuestRange::new(block + done, REGION_FRAMES - done),
            permissions: Permissions::READ.bits()
        }));
        done += count;
    }
    ensure_eq!(vm.load8(at(17))?, 17, "memory");
    let exit = vm.begin_order(0, drive::access(Access::Store8, at(511), 1))?;
    ensure_eq!(
        exit,
        Exit::MemoryFault {
            gfn: block + 511,
            access: AccessFlags::WRITE
        },
        "exit"
    );
    // One page is released; the others stay protected.
    calls::call_supplied(
        vm.handle(),
        VmCall::SetPermissions {
            vm: vm.handle(),
            range: Vm::page(block + 511),
            permissions: Permissions::all().bits(),
        },
    )?;
    vm.finish(0, Answer::Retry)?;
    let exit = vm.begin_order(0, drive::access(Access::Store8, at(510), 1))?;
    ensure!(matches!(exit, Exit::MemoryFault { .. }), "exit {exit:x?}");
    vm.finish(0, Answer::Refuse)?;
    calls::unshare(vm.handle(), GuestRange::new(block, REGION_FRAMES))?;
    for index in 0..REGION_FRAMES {
        vm.forget(block + index)?;
    }
    let [_, _, borrowed] = frames_of(&vm)?;
    ensure_eq!(borrowed, vm.pages(), "borrowed frames");
    ensure_alive(&vm)?;
    vm.end()
});

case!(an_open_guest_that_dies_gives_back_what_it_borrows, {
    let (vm, frame) = with_rights(Permissions::all())?;
    vm.fill(PAGE, 5)?;
    let pages = vm.pages();
    ensure_eq!(vm.kill()?, pages, "frames left");
    calls::unshare(vm.handle(), Vm::page(PAGE))?;
    ensure_state(frame, FrameState::Host, 0)?;
    vm.forget(PAGE)?;
    ensure_eq!(vm.kill()?, pages - 1, "frames left");
    vm.bury()
});

case!(an_open_guests_page_faults_in, {
    let vm = running(Plan::open())?;
    for access in Access::ALL {
        let exit = vm.begin_order(0, drive::access(access, layout::FREE + 0x40, 1))?;
        let Exit::MemoryFault { gfn: PAGE, .. } = exit else {
            fail!("exit of {access:?}: {exit:x?}")
        };
        vm.give(PAGE)?;
        let report = vm.finish(0, Answer::Retry)?;
        ensure!(matches!(report, Report::Done(_)), "{access:?}: {report:x?}");
        calls::unshare(vm.handle(), Vm::page(PAGE))?;
        vm.forget(PAGE)?;
    }
    vm.end()
});
