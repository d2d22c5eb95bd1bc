//! Memory of guests in its real sizes: ranges and blocks, given, lent, given up and taken back.

use super::support::{INVALID, PAGE, ensure_done, ensure_page_state, frames_of, running, running_with};
use crate::cases::support::{REGION_FRAMES, ensure_all_refused, ensure_state};
use crate::guest::exit::Exit;
use crate::guest::vcpu::Answer;
use crate::guest::{Plan, Vm, calls, drive};
use crate::registry::{Outcome, TestResult, case, ensure, ensure_eq, fail, succeed};
use crate::{sysreg, timer};
use hyp_abi::guest_call::GuestCallId;
use hyp_abi::{FRAME_SIZE, FrameState, GuestRange, REGION_SIZE, VmCall};
use payload_protocol::{Order, Report, layout, pattern};

/// The guest frame number of a region that the payload guest leaves alone, aligned to its size.
pub(super) const BLOCK: u64 = (layout::FREE + (2 << 20)) / FRAME_SIZE;

/// A plan with frames for two regions beside the image.
fn plan() -> Plan {
    Plan::protected().backing(3 * REGION_FRAMES, REGION_SIZE)
}

/// Gives a guest a region in one piece at [`BLOCK`], so that both sides can map it as a block.
pub(super) fn give_block(vm: &Vm) -> Result<u64, Outcome> {
    vm.skip_to_alignment(REGION_FRAMES)?;
    vm.give_run(BLOCK, REGION_FRAMES)
}

/// Makes a ranged call of the guest until all is done, or it is refused. Answers how many granules are.
fn ranged(vm: &Vm, call: GuestCallId, gfn: u64, frames: u64) -> Result<(u64, u64), Outcome> {
    let mut done = 0;
    while done < frames {
        let [x0, count, ..] = vm.hvc(call.into(), [(gfn + done) * FRAME_SIZE, frames - done, 0])?;
        if x0 != 0 {
            return Ok((x0, done));
        }
        ensure!((1..=frames - done).contains(&count), "{call:?}: {count} granules");
        done += count;
    }
    Ok((0, done))
}

fn ensure_whole(vm: &Vm, call: GuestCallId, gfn: u64, frames: u64) -> TestResult {
    ensure_eq!(
        ranged(vm, call, gfn, frames)?,
        (0, frames),
        "{call:?} of {frames} granules"
    );
    Ok(())
}

case!(a_block_is_given_whole, {
    let vm = running(plan())?;
    let first = give_block(&vm)?;
    ensure_eq!(first % REGION_SIZE, 0, "address of the block");
    for index in [0, 1, 255, 511] {
        ensure_all_refused(first + index * FRAME_SIZE)?;
        vm.ensure_filled(BLOCK + index, None)?;
        vm.fill(BLOCK + index, index)?;
    }
    for index in [0, 1, 255, 511] {
        vm.ensure_filled(BLOCK + index, Some(index))?;
    }
    vm.end()
});

case!(a_block_off_its_alignment_is_given_in_pages, {
    let vm = running(plan())?;
    vm.skip_to_alignment(REGION_FRAMES)?;
    let gfn = BLOCK + 7;
    vm.give_run(gfn, REGION_FRAMES)?;
    for index in [0, 200, 511] {
        vm.ensure_filled(gfn + index, None)?;
    }
    vm.end()
});

case!(one_page_of_a_block_is_lent_and_the_rest_is_not, {
    let vm = running(plan())?;
    let first = give_block(&vm)?;
    vm.fill(BLOCK + 9, 0x99)?;
    ensure_done(&vm, GuestCallId::MemShare, BLOCK + 9)?;
    let view = vm.frame_view(BLOCK + 9)?;
    ensure_eq!(view.find_wrong(|at| pattern(0x99, at)), None, "the lent page");
    for index in [0, 8, 10, 511] {
        ensure_all_refused(first + index * FRAME_SIZE)?;
    }
    ensure_done(&vm, GuestCallId::MemUnshare, BLOCK + 9)?;
    ensure_all_refused(first + 9 * FRAME_SIZE)?;
    vm.ensure_filled(BLOCK + 9, Some(0x99))?;
    vm.end()
});

case!(a_block_is_lent_and_taken_back_whole, {
    let vm = running(plan())?;
    let first = give_block(&vm)?;
    vm.fill(BLOCK + 300, 0x300)?;
    for _ in 0..3 {
        ensure_whole(&vm, GuestCallId::MemShare, BLOCK, REGION_FRAMES)?;
        for index in [0, 300, 511] {
            ensure_page_state(&vm, BLOCK + index, Some(0))?;
        }
        let view = vm.frame_view(BLOCK + 300)?;
        ensure_eq!(view.find_wrong(|at| pattern(0x300, at)), None, "a lent page");
        ensure_whole(&vm, GuestCallId::MemUnshare, BLOCK, REGION_FRAMES)?;
        for index in [0, 300, 511] {
            ensure_all_refused(first + index * FRAME_SIZE)?;
        }
    }
    vm.ensure_filled(BLOCK + 300, Some(0x300))?;
    vm.end()
});

case!(a_block_is_given_up_whole, {
    let vm = running(plan())?;
    give_block(&vm)?;
    vm.fill(BLOCK, 1)?;
    vm.fill(BLOCK + 511, 2)?;
    // The driver takes back, and looks at, what the guest gives up.
    ensure_whole(&vm, GuestCallId::MemRelinquish, BLOCK, REGION_FRAMES)?;
    ensure!(!vm.has(BLOCK) && !vm.has(BLOCK + 511), "pages are left");
    ensure_eq!(
        calls::statistic(vm.handle(), hyp_abi::vm::VmStatistic::Relinquished)?,
        REGION_FRAMES,
        "pages given up"
    );
    vm.end()
});

case!(a_page_in_the_middle_of_a_block_is_given_up, {
    let vm = running(plan())?;
    let first = give_block(&vm)?;
    vm.fill(BLOCK + 100, 5)?;
    vm.fill(BLOCK + 101, 6)?;
    ensure_done(&vm, GuestCallId::MemRelinquish, BLOCK + 100)?;
    vm.ensure_filled(BLOCK + 101, Some(6))?;
    vm.ensure_filled(BLOCK + 99, None)?;
    ensure_all_refused(first + 101 * FRAME_SIZE)?;
    succeed!(crate::probe::access(
        crate::probe::Level::El1,
        crate::probe::Access::Load8,
        first + 100 * FRAME_SIZE,
        0
    ));
    // Another page comes in its place, zeroed.
    vm.give(BLOCK + 100)?;
    vm.ensure_filled(BLOCK + 100, None)?;
    vm.end()
});

case!(a_page_in_the_middle_of_a_block_is_taken_by_force, {
    let vm = running(plan())?;
    give_block(&vm)?;
    vm.fill(BLOCK + 100, 5)?;
    vm.fill(BLOCK + 101, 6)?;
    super::support::force(&vm, BLOCK + 100)?;
    vm.ensure_filled(BLOCK + 101, Some(6))?;
    let exit = vm.begin_order(
        0,
        drive::access(payload_protocol::Access::Load1, (BLOCK + 100) * FRAME_SIZE, 0),
    )?;
    ensure_eq!(exit, Exit::Lost(BLOCK + 100), "exit");
    vm.end()
});

case!(a_range_of_the_guests_stops_where_a_page_is_in_another_state, {
    let vm = running_with(8)?;
    ensure_done(&vm, GuestCallId::MemShare, PAGE + 5)?;
    let (x0, done) = ranged(&vm, GuestCallId::MemShare, PAGE, 8)?;
    ensure_eq!((x0, done), (INVALID[0], 5), "MEM_SHARE of eight granules");
    for (index, lent) in [(0, Some(0)), (4, Some(0)), (5, Some(0)), (6, None), (7, None)] {
        ensure_page_state(&vm, PAGE + index, lent)?;
    }
    let (x0, done) = ranged(&vm, GuestCallId::MemUnshare, PAGE, 8)?;
    ensure_eq!((x0, done), (INVALID[0], 6), "MEM_UNSHARE of eight granules");
    vm.end()
});

case!(a_range_of_the_guests_faults_in_what_is_missing, {
    let vm = running_with(2)?;
    ensure_whole(&vm, GuestCallId::MemShare, PAGE, 6)?;
    for gfn in PAGE..PAGE + 6 {
        ensure_page_state(&vm, gfn, Some(0))?;
    }
    vm.end()
});

case!(a_range_of_the_guests_stops_at_a_pinned_page, {
    let vm = running_with(6)?;
    ensure_whole(&vm, GuestCallId::MemShare, PAGE, 6)?;
    let pinned = hyp_abi::FrameRange::new(vm.frame(PAGE + 3)?, 1);
    calls::pin(pinned)?;
    let [x0, done, ..] = vm.hvc(GuestCallId::MemUnshare.into(), [PAGE * FRAME_SIZE, 6, 0])?;
    ensure_eq!((x0, done), (0, 3), "MEM_UNSHARE of six granules");
    let order = drive::hvc(GuestCallId::MemUnshare.into(), [(PAGE + 3) * FRAME_SIZE, 3, 0]);
    ensure_eq!(vm.begin_order(0, order)?, Exit::Pinned(PAGE + 3), "exit");
    calls::unpin(pinned)?;
    let [x0, done, ..] = vm.hvc_returns(GuestCallId::MemUnshare.into(), Answer::Retry)?;
    ensure_eq!((x0, done), (0, 3), "MEM_UNSHARE of the rest");
    vm.end()
});

case!(a_donation_stops_where_a_frame_is_in_another_state, {
    let vm = running(Plan::protected())?;
    let range = vm.set_aside(8)?;
    let odd = hyp_abi::FrameRange::new(range.base + 5 * FRAME_SIZE, 1);
    succeed!(crate::hypercall::HYPERVISOR.share(odd));
    let donate = |first: u64| VmCall::Donate {
        vm: vm.handle(),
        range: hyp_abi::FrameRange::new(range.base + first * FRAME_SIZE, 8 - first),
        gfn: PAGE + first,
    };
    let mut done = 0;
    let status = loop {
        match calls::call(donate(done)) {
            Ok([count, ..]) => {
                for frame in done..done + count {
                    vm.note(PAGE + frame, range.base + frame * FRAME_SIZE);
                }
                done += count;
            }
            Err(error) => break error.status(),
        }
    };
    ensure_eq!(status, Some(hyp_abi::Status::SharedWithHyp), "status");
    ensure!(done <= 5, "{done} frames done");
    for index in 0..8 {
        let expected = match index {
            index if index < done => FrameState::NotYours,
            5 => FrameState::HostSharedHyp,
            _ => FrameState::Host,
        };
        ensure_state(range.base + index * FRAME_SIZE, expected, 0)?;
    }
    succeed!(crate::hypercall::HYPERVISOR.unshare(odd));
    vm.end()
});

case!(many_pages_are_given_lent_given_up_and_taken_back, {
    let plan = Plan::protected().backing(5 * REGION_FRAMES, REGION_SIZE);
    let vm = running(plan)?;
    vm.skip_to_alignment(REGION_FRAMES)?;
    let frames = 3 * REGION_FRAMES + 17;
    vm.give_run(BLOCK, frames)?;
    let [private, ..] = frames_of(&vm)?;
    ensure_eq!(private, vm.pages(), "private frames");
    ensure_whole(&vm, GuestCallId::MemShare, BLOCK + 3, frames - 5)?;
    let [_, shared, _] = frames_of(&vm)?;
    ensure_eq!(shared, frames - 5, "lent frames");
    ensure_whole(&vm, GuestCallId::MemUnshare, BLOCK + 3, frames - 5)?;
    ensure_whole(
        &vm,
        GuestCallId::MemRelinquish,
        BLOCK + REGION_FRAMES / 2,
        REGION_FRAMES,
    )?;
    vm.audit()?;
    vm.end()
});

case!(long_calls_survive_a_storm_of_interrupts, {
    let plan = Plan::protected().backing(5 * REGION_FRAMES, REGION_SIZE);
    let vm = running(plan)?;
    vm.skip_to_alignment(REGION_FRAMES)?;
    let frames = 3 * REGION_FRAMES;
    let before = timer::interrupts();
    timer::interrupt_every(sysreg::counter_frequency() / 5_000);
    sysreg::unmask_irqs();
    let all = || -> TestResult {
        vm.give_run(BLOCK, frames)?;
        ensure_whole(&vm, GuestCallId::MemShare, BLOCK, frames)?;
        ensure_whole(&vm, GuestCallId::MemUnshare, BLOCK, frames)?;
        ensure_whole(&vm, GuestCallId::MemRelinquish, BLOCK, REGION_FRAMES)
    };
    let result = all();
    sysreg::mask_irqs();
    timer::stop();
    drive::take_interrupts();
    result?;
    ensure!(timer::interrupts() > before, "no interrupt came in between");
    vm.end()
});

case!(a_range_of_a_dying_guest_is_reclaimed_in_pieces, {
    let vm = running(plan())?;
    give_block(&vm)?;
    vm.fill(BLOCK + 3, 3)?;
    ensure_done(&vm, GuestCallId::MemShare, BLOCK + 7)?;
    vm.kill()?;
    for (first, frames) in [(0, 3), (3, 1), (4, 300), (304, 208)] {
        calls::reclaim(vm.handle(), GuestRange::new(BLOCK + first, frames))?;
    }
    vm.bury()
});

case!(audits_count_every_guest_frame_number, {
    let vm = running(plan())?;
    give_block(&vm)?;
    let declared = vm.plan.declared();
    let [frames, wrong, _] = succeed!(calls::call(VmCall::Audit {
        vm: vm.handle(),
        range: declared
    }));
    ensure!((1..=declared.frames).contains(&frames), "{frames} were looked at");
    ensure_eq!(wrong, 0, "that disagree");
    vm.audit()?;
    vm.end()
});

case!(a_guest_writes_and_reads_a_whole_block, {
    let vm = running(plan())?;
    give_block(&vm)?;
    let (address, frames) = (BLOCK * FRAME_SIZE, REGION_FRAMES);
    vm.done(
        0,
        Order::Fill {
            address,
            frames,
            value: 0x1234_5678,
        },
    )?;
    // Lending and taking back splits and folds what the host has of it, and must not touch what the guest has.
    for index in (0..frames).step_by(37) {
        ensure_done(&vm, GuestCallId::MemShare, BLOCK + index)?;
    }
    for index in (0..frames).step_by(37) {
        ensure_done(&vm, GuestCallId::MemUnshare, BLOCK + index)?;
    }
    let Report::Done([wrong, ..]) = vm.order(
        0,
        Order::Verify {
            address,
            frames,
            value: Some(0x1234_5678),
        },
    )?
    else {
        fail!("the guest cannot read its block")
    };
    ensure_eq!(wrong, 0, "words that differ");
    vm.end()
});
