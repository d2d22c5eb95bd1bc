//! What happens to contents, seen from both sides: kept, zeroed, or not to be read by any kind of access.

use super::support::{PAGE, ensure_done, force, running, running_with};
use crate::cases::support::{ensure_all_refused, ensure_state, pooled_frames};
use crate::guest::exit::Exit;
use crate::guest::vcpu::Answer;
use crate::guest::{Plan, Vm, calls, drive};
use crate::probe::{self, Access, Level};
use crate::registry::{TestResult, case, ensure, ensure_eq, fail, succeed};
use hyp_abi::guest_call::GuestCallId;
use hyp_abi::{FRAME_SIZE, FrameRange, FrameState, VmCall};
use payload_protocol::{Report, layout, pattern};

/// A pattern that no scrubbed page has.
const SECRET: u64 = 0x5ec2_e75e_c2e7_5ec2;

/// Every word of the frame must be as the guest's [`payload_protocol::Order::Fill`] leaves it.
fn ensure_pattern(vm: &Vm, gfn: u64, value: u64) -> TestResult {
    let view = vm.frame_view(gfn)?;
    let wrong = view.find_wrong(|address| pattern(value, address));
    ensure_eq!(wrong, None, "contents of page {gfn:#x}");
    Ok(())
}

case!(a_guests_own_page_is_refused_by_every_kind_of_access, {
    let vm = running_with(1)?;
    vm.fill(PAGE, SECRET)?;
    let frame = vm.frame(PAGE)?;
    for offset in [0, 0x340, FRAME_SIZE - 64] {
        ensure_all_refused(frame + offset)?;
    }
    vm.ensure_filled(PAGE, Some(SECRET))?;
    vm.end()
});

case!(every_page_of_a_guest_is_refused, {
    let vm = running_with(4)?;
    for gfn in vm.gfns() {
        ensure_all_refused(vm.frame(gfn)? + 0x80)?;
    }
    vm.end()
});

case!(a_guests_own_page_is_refused_before_its_launch_too, {
    let vm = Vm::load(Plan::protected())?;
    let frame = vm.give_filled(PAGE, SECRET)?;
    ensure_all_refused(frame)?;
    vm.launch_loaded()?;
    vm.ready()?;
    ensure_eq!(
        vm.load8(layout::FREE)?,
        SECRET ^ frame,
        "what was given before the launch"
    );
    vm.end()
});

case!(a_page_given_before_the_launch_keeps_its_contents, {
    let vm = Vm::load(Plan::protected())?;
    let frame = vm.give_filled(PAGE, SECRET)?;
    vm.launch_loaded()?;
    vm.ready()?;
    for offset in (0..FRAME_SIZE).step_by(0x200) {
        ensure_eq!(
            vm.load8(layout::FREE + offset)?,
            SECRET ^ (frame + offset),
            "word at {offset:#x}"
        );
    }
    vm.end()
});

case!(a_page_given_after_the_launch_comes_zeroed, {
    let vm = running(Plan::protected())?;
    for gfn in PAGE..PAGE + 4 {
        vm.give_filled(gfn, SECRET)?;
        vm.ensure_filled(gfn, None)?;
    }
    vm.end()
});

case!(a_guest_with_its_mmu_off_sees_zeroes_too, {
    let mut plan = Plan::protected();
    plan.start.mmu_off = true;
    let vm = running(plan)?;
    vm.give_filled(PAGE, SECRET)?;
    vm.ensure_filled(PAGE, None)?;
    vm.end()
});

case!(what_a_guest_wrote_before_it_lends_is_the_hosts_to_read, {
    let vm = running_with(1)?;
    vm.fill(PAGE, SECRET)?;
    ensure_done(&vm, GuestCallId::MemShare, PAGE)?;
    ensure_pattern(&vm, PAGE, SECRET)?;
    vm.ensure_filled(PAGE, Some(SECRET))?;
    vm.end()
});

case!(what_the_host_wrote_to_a_lent_page_is_the_guests_afterwards, {
    let vm = running_with(1)?;
    ensure_done(&vm, GuestCallId::MemShare, PAGE)?;
    let (view, frame) = (vm.frame_view(PAGE)?, vm.frame(PAGE)?);
    view.fill(SECRET);
    ensure_eq!(
        vm.load8(layout::FREE + 0x40)?,
        SECRET ^ (frame + 0x40),
        "while it is lent"
    );
    ensure_done(&vm, GuestCallId::MemUnshare, PAGE)?;
    ensure_eq!(
        vm.load8(layout::FREE + 0x48)?,
        SECRET ^ (frame + 0x48),
        "afterwards"
    );
    ensure_all_refused(frame)?;
    vm.end()
});

case!(a_lent_page_is_read_and_written_by_every_kind_of_access, {
    let vm = running_with(1)?;
    ensure_done(&vm, GuestCallId::MemShare, PAGE)?;
    let frame = vm.frame(PAGE)?;
    for level in Level::ALL {
        for access in Access::ALL {
            succeed!(probe::access(level, access, level.address(frame), 0x77));
        }
    }
    vm.end()
});

case!(a_page_lent_and_taken_back_many_times_keeps_its_contents, {
    let vm = running_with(1)?;
    vm.fill(PAGE, SECRET)?;
    let frame = vm.frame(PAGE)?;
    for _ in 0..20 {
        ensure_done(&vm, GuestCallId::MemShare, PAGE)?;
        ensure_pattern(&vm, PAGE, SECRET)?;
        ensure_done(&vm, GuestCallId::MemUnshare, PAGE)?;
        ensure!(
            probe::access(Level::El1, Access::Load8, frame, 0).is_err(),
            "the host reads what was taken back"
        );
    }
    vm.ensure_filled(PAGE, Some(SECRET))?;
    vm.end()
});

case!(neighbors_of_a_lent_page_are_refused, {
    let vm = running(Plan::protected())?;
    let first = vm.give_run(PAGE, 3)?;
    ensure_done(&vm, GuestCallId::MemShare, PAGE + 1)?;
    ensure_all_refused(first + FRAME_SIZE - 64)?;
    ensure_all_refused(first + 2 * FRAME_SIZE)?;
    succeed!(probe::access(Level::El1, Access::Load8, first + FRAME_SIZE, 0));
    vm.end()
});

case!(a_relinquished_page_is_refused_until_it_is_taken_back_zeroed, {
    let vm = running_with(1)?;
    vm.fill(PAGE, SECRET)?;
    let frame = vm.frame(PAGE)?;
    let order = drive::hvc(GuestCallId::MemRelinquish.into(), [layout::FREE, 0, 0]);
    let exit = vm.begin_order(0, order)?;
    ensure_eq!(exit, Exit::Relinquished { gfn: PAGE, frames: 1 }, "exit");
    ensure_state(frame, FrameState::Relinquished, 0)?;
    ensure_all_refused(frame)?;
    vm.take_relinquished(PAGE, 1)?;
    vm.hvc_returns(GuestCallId::MemRelinquish.into(), Answer::None)?;
    vm.end()
});

case!(a_lent_page_that_is_given_up_comes_zeroed, {
    let vm = running_with(1)?;
    vm.fill(PAGE, SECRET)?;
    ensure_done(&vm, GuestCallId::MemShare, PAGE)?;
    ensure_done(&vm, GuestCallId::MemRelinquish, PAGE)?;
    vm.end()
});

case!(
    private_pages_of_a_dead_guest_come_zeroed_and_lent_ones_as_they_are,
    {
        let vm = running_with(3)?;
        for gfn in PAGE..PAGE + 3 {
            vm.fill(gfn, SECRET + gfn)?;
        }
        ensure_done(&vm, GuestCallId::MemShare, PAGE + 1)?;
        vm.kill()?;
        let views = [
            vm.frame_view(PAGE)?,
            vm.frame_view(PAGE + 1)?,
            vm.frame_view(PAGE + 2)?,
        ];
        for gfn in PAGE..PAGE + 3 {
            calls::reclaim(vm.handle(), Vm::page(gfn))?;
        }
        ensure_eq!(views[0].find_wrong(|_| 0), None, "a private page");
        ensure_eq!(
            views[1].find_wrong(|address| pattern(SECRET + PAGE + 1, address)),
            None,
            "a lent page"
        );
        ensure_eq!(views[2].find_wrong(|_| 0), None, "another private page");
        for gfn in PAGE..PAGE + 3 {
            vm.forget(gfn)?;
        }
        vm.bury()
    }
);

case!(a_page_of_a_dying_guest_is_refused_until_it_is_reclaimed, {
    let vm = running_with(1)?;
    vm.fill(PAGE, SECRET)?;
    vm.kill()?;
    ensure_all_refused(vm.frame(PAGE)?)?;
    vm.bury()
});

case!(a_page_taken_by_force_comes_zeroed_and_is_lost_to_the_guest, {
    let vm = running_with(2)?;
    vm.fill(PAGE, SECRET)?;
    vm.fill(PAGE + 1, SECRET)?;
    force(&vm, PAGE)?;
    vm.ensure_filled(PAGE + 1, Some(SECRET))?;
    let exit = vm.begin_order(0, drive::access(Access::Load8, layout::FREE, 0))?;
    ensure_eq!(exit, Exit::Lost(PAGE), "exit");
    vm.end()
});

case!(a_guest_that_meets_a_lost_page_dies_alone, {
    let other = running_with(1)?;
    other.fill(PAGE, SECRET)?;
    let vm = running_with(1)?;
    force(&vm, PAGE)?;
    let exit = vm.begin_order(0, drive::access(Access::Load8, layout::FREE, 0))?;
    ensure_eq!(exit, Exit::Lost(PAGE), "exit");
    vm.end()?;
    other.ensure_filled(PAGE, Some(SECRET))?;
    other.end()
});

case!(a_frame_goes_from_guest_to_guest_zeroed, {
    let page = pooled_frames(1)?;
    page.fill(SECRET);
    let first = running(Plan::protected())?;
    calls::donate(first.handle(), page.range(), PAGE)?;
    first.fill(PAGE, SECRET)?;
    let pages = first.pages();
    ensure_eq!(first.kill()?, pages + 1, "frames left");
    calls::reclaim(first.handle(), Vm::page(PAGE))?;
    first.bury()?;
    let second = running(Plan::protected())?;
    page.fill(SECRET);
    calls::donate(second.handle(), page.range(), PAGE)?;
    second.ensure_filled(PAGE, None)?;
    let pages = second.pages();
    ensure_eq!(second.kill()?, pages + 1, "frames left");
    calls::reclaim(second.handle(), Vm::page(PAGE))?;
    second.bury()?;
    page.free();
    Ok(())
});

case!(one_guest_cannot_be_given_what_another_has, {
    let (first, second) = (running_with(1)?, running(Plan::protected())?);
    let frame = first.frame(PAGE)?;
    let donate = VmCall::Donate {
        vm: second.handle(),
        range: FrameRange::new(frame, 1),
        gfn: PAGE,
    };
    super::support::ensure_refused_of(&second, donate, hyp_abi::Status::NotOwner, &[frame])?;
    ensure_done(&first, GuestCallId::MemShare, PAGE)?;
    super::support::ensure_refused_of(&second, donate, hyp_abi::Status::NotOwner, &[frame])?;
    second.end()?;
    first.end()
});

case!(a_page_that_a_guest_borrows_is_the_hosts_to_read, {
    let vm = running(Plan::open())?;
    let frame = vm.give_filled(PAGE, SECRET)?;
    ensure_eq!(vm.load8(layout::FREE)?, SECRET ^ frame, "what the guest reads");
    vm.fill(PAGE, SECRET)?;
    ensure_pattern(&vm, PAGE, SECRET)?;
    let view = vm.frame_view(PAGE)?;
    vm.end()?;
    // The frame went back to the allocator with its contents, and nobody has had it since.
    ensure_eq!(
        view.find_wrong(|address| pattern(SECRET, address)),
        None,
        "contents afterwards"
    );
    Ok(())
});

case!(fw_cfg_is_refused_while_a_guest_has_memory, {
    // QEMU's firmware device can write anywhere by DMA: registers 16 to 23 take the address of a command. The host does
    // not reach them, so no guest's memory is reached through them.
    const FW_CFG_DMA: u64 = 0x0902_0010;
    let vm = running_with(1)?;
    vm.fill(PAGE, SECRET)?;
    let command = pooled_frames(1)?;
    command.zero();
    for access in [Access::Store8, Access::Store4, Access::StorePair] {
        for level in Level::ALL {
            let Err(_) = probe::access(
                level,
                access,
                level.address(FW_CFG_DMA),
                command.frame(0).swap_bytes(),
            ) else {
                fail!("{access:?} of fw_cfg's DMA register from {level:?} went through")
            };
        }
    }
    command.free();
    vm.ensure_filled(PAGE, Some(SECRET))?;
    vm.end()
});

case!(cacheable_or_not_a_guest_sees_its_own_memory, {
    let vm = running_with(1)?;
    vm.store8(layout::FREE, 0x1111)?;
    for alias in [layout::NON_CACHEABLE_ALIAS, layout::DEVICE_ALIAS] {
        ensure_eq!(
            vm.load8(layout::FREE + alias)?,
            0x1111,
            "through alias {alias:#x}"
        );
        vm.store8(layout::FREE + alias, 0x2222)?;
        ensure_eq!(
            vm.load8(layout::FREE)?,
            0x2222,
            "after a store through alias {alias:#x}"
        );
        vm.store8(layout::FREE, 0x1111)?;
    }
    vm.end()
});

case!(a_guest_uses_its_memory_by_every_kind_of_access, {
    let vm = running_with(1)?;
    for level in [payload_protocol::Level::El1, payload_protocol::Level::El0] {
        let base = match level {
            payload_protocol::Level::El1 => layout::FREE,
            payload_protocol::Level::El0 => layout::FREE + layout::USER_ALIAS,
        };
        for access in Access::ALL {
            let order = payload_protocol::Order::Access {
                level,
                access,
                address: base + 0x80,
                value: 0x99,
            };
            let report = vm.order(0, order)?;
            ensure!(
                matches!(report, Report::Done(_)),
                "{access:?} at {level:?}: {report:x?}"
            );
        }
    }
    vm.end()
});
