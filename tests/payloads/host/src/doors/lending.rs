//! Pages of a protected guest: how it gets them, what it does with them, and how they come back.

use super::acts::{Deed, load, refused};
use super::guest::{BLOCKS, CODE, Guest, about, give_back, pages};
use super::host::{across, regions};
use crate::cases::support::REGION_FRAMES;
use crate::frames::Frames;
use crate::guest::exit::Exit;
use crate::guest::vcpu::Answer;
use crate::registry::{TestResult, ensure_eq};
use hyp_abi::guest_call::GuestCallId::{
    self, MemRelinquish, MemShare, MemUnshare, MmioGuardEnroll, MmioGuardMap, MmioGuardUnmap,
};
use hyp_abi::guest_call::INVALID_PARAMETER;
use hyp_abi::run_page::AccessFlags;
use hyp_abi::vm::VmFlags;
use hyp_abi::{FrameRange, HostCall, Status, VmCall};

/// Guest frame numbers behind the code, for single pages.
const PAGES: u64 = CODE + 0x10;

/// For several.
const MANY: u64 = CODE + 0x40;

/// How many.
const FEW: u64 = 41;

/// Where the guest has no memory.
const DEVICE: u64 = 0x9000;

/// A page inside a block.
const INSIDE: u64 = BLOCKS[0] + 0x21;

/// The whole life of pages, on CPU 0.
pub(super) fn play() -> TestResult {
    let guest = Guest::new(VmFlags::PROTECTED, 1)?;
    let [singles, block, two] = [regions(1)?, regions(1)?, regions(2)?];
    donate(&guest, &singles, &block, &two)?;
    lend_pages(&guest)?;
    lend_of_block(&guest)?;
    pin(&guest, &singles)?;
    fault_in(&guest, &singles)?;
    relinquish(&guest, &singles, &block)?;
    refuse(&guest, &singles)?;
    guard(&guest)?;
    take_by_force(&guest, &singles, &block)?;
    guest.rename()?;
    end(guest)?;
    [singles, block, two].into_iter().try_for_each(give_back)
}

/// After the launch. What this leaves: page n of `singles` at `PAGES + n` for 0 to 3, `FEW` pages at `MANY`, a block.
fn donate(guest: &Guest, singles: &Frames, block: &Frames, two: &Frames) -> TestResult {
    guest.donate("donate_page_of_block_to_guest", singles.one(0), PAGES)?;
    for page in 1..4 {
        guest.donate("donate_page_to_guest", singles.one(page), PAGES + page)?;
    }
    let few = FrameRange::new(singles.frame(0x40), FEW);
    guest.donate("donate_41_pages_to_guest", few, MANY)?;
    guest.donate("donate_2m_to_guest", block.range(), BLOCKS[0])?;
    guest.donate("donate_512_pages_to_guest", across(two), BLOCKS[1])
}

fn lend_pages(guest: &Guest) -> TestResult {
    guest.about("guest_shares_page", MemShare, PAGES, 1)?;
    guest.about("guest_unshares_page", MemUnshare, PAGES, 1)?;
    guest.about("guest_shares_41_pages", MemShare, MANY, FEW)?;
    guest.about("guest_unshares_41_pages", MemUnshare, MANY, FEW)
}

fn lend_of_block(guest: &Guest) -> TestResult {
    guest.about("guest_shares_page_of_block", MemShare, INSIDE, 1)?;
    guest.about("guest_unshares_page_of_block", MemUnshare, INSIDE, 1)?;
    guest.about("guest_shares_2m", MemShare, BLOCKS[0], REGION_FRAMES)?;
    guest.about("guest_unshares_2m", MemUnshare, BLOCKS[0], REGION_FRAMES)
}

fn pin(guest: &Guest, singles: &Frames) -> TestResult {
    let frame = singles.one(0);
    guest.about("guest_shares_page", MemShare, PAGES, 1)?;
    guest.ranged("pin_shared", VmCall::PinShared(frame), 1)?;
    let exit = guest.exits("guest_unshares_pinned", MemUnshare, PAGES, 1)?;
    ensure_eq!(exit, Exit::Pinned(PAGES), "exit");
    guest.ranged("unpin_shared", VmCall::UnpinShared(frame), 1)?;
    // EL2 does it, before the guest runs again.
    let done = guest.reports("unshare_after_unpin", 0, Answer::Retry, &[])?;
    ensure_eq!(done, [0, 1, 0, 0], "unshare_after_unpin");
    Ok(())
}

/// Pages that the guest reaches for before it has them, by an access and by a call. They are pages 4 and 5.
fn fault_in(guest: &Guest, singles: &Frames) -> TestResult {
    let exit = guest.load("guest_loads_absent_page", PAGES + 4, &[])?;
    let load = Exit::MemoryFault {
        gfn: PAGES + 4,
        access: AccessFlags::empty(),
    };
    ensure_eq!(exit, load, "exit");
    guest.donate("donate_page_to_guest", singles.one(4), PAGES + 4)?;
    guest.reports("go_on_after_an_exit", 0, Answer::Retry, &[])?;
    let exit = guest.exits("guest_shares_absent_page", MemShare, PAGES + 5, 1)?;
    let call = Exit::MemoryFault {
        gfn: PAGES + 5,
        access: AccessFlags::CALL,
    };
    ensure_eq!(exit, call, "exit");
    guest.donate("donate_page_to_guest", singles.one(5), PAGES + 5)?;
    guest.again("guest_shares_page_again", MemShare, PAGES + 5, 1)
}

/// Pages 1 and 5 go, of which the latter is lent; and one of the block.
fn relinquish(guest: &Guest, singles: &Frames, block: &Frames) -> TestResult {
    let give_up = |name: &str, gfn: u64, range: FrameRange| {
        let frames = range.frames;
        let exit = guest.exits(name, MemRelinquish, gfn, frames)?;
        ensure_eq!(exit, Exit::Relinquished { gfn, frames }, "exit");
        guest.reports("go_on_after_an_exit", 0, Answer::None, &[])?;
        let name = if frames == 1 {
            "take_back"
        } else {
            "take_back_41_pages"
        };
        guest.ranged(name, VmCall::TakeBack(range), frames)
    };
    give_up("guest_relinquishes_page", PAGES + 1, singles.one(1))?;
    give_up("guest_relinquishes_lent_page", PAGES + 5, singles.one(5))?;
    give_up("guest_relinquishes_page_of_block", INSIDE, block.one(0x21))?;
    guest.donate("donate_page_to_guest", block.one(0x21), INSIDE)?;
    let few = FrameRange::new(singles.frame(0x40), FEW);
    give_up("guest_relinquishes_41_pages", MANY, few)?;
    guest.donate("donate_41_pages_to_guest", few, MANY)
}

/// What is refused does nothing, or takes back what it has begun.
fn refuse(guest: &Guest, singles: &Frames) -> TestResult {
    let vm = guest.handle();
    let donate = |page: u64, gfn: u64| VmCall::Donate {
        vm,
        range: singles.one(page),
        gfn,
    };
    let range = pages(PAGES, 1);
    for (name, what, status) in [
        ("donate_to_guest_refused", donate(0, PAGES + 1), Status::NotOwner),
        ("donate_over_a_page_refused", donate(1, PAGES), Status::GfnMapped),
        (
            "reclaim_from_living_guest_refused",
            VmCall::Reclaim { vm, range },
            Status::WrongVmState,
        ),
        ("run_refused", VmCall::Run { vm, index: 9 }, Status::NoSuchVcpu),
    ] {
        refused(name, HostCall::Vm(what), status)?;
    }
    let frame = singles.frame(0);
    ensure_eq!(
        load("load_from_guest_refused", frame, frame)?,
        false,
        "a load from a page of a guest went through"
    );
    let got = guest.call("guest_unshares_private_page", 0, about(MemUnshare, PAGES, 1))?;
    ensure_eq!(
        got[0],
        INVALID_PARAMETER.cast_unsigned(),
        "unshare of a private page"
    );
    Ok(())
}

/// The guest says where its devices are.
fn guard(guest: &Guest) -> TestResult {
    let call = |name: &str, call: GuestCallId, gfn: u64| {
        let got = guest.call(name, 0, about(call, gfn, 0))?;
        ensure_eq!(got, [0; 4], "{name}");
        Ok(())
    };
    call("guest_enrolls_in_guard", MmioGuardEnroll, 0)?;
    call("guest_maps_device", MmioGuardMap, DEVICE)?;
    call("guest_unmaps_device", MmioGuardUnmap, DEVICE)
}

/// Page 2 goes, and one of the second block, which is made of pages.
fn take_by_force(guest: &Guest, singles: &Frames, block: &Frames) -> TestResult {
    let take = |name: &str, frame: u64| guest.done(name, VmCall::ForceReclaim { frame });
    take("force_reclaim", singles.frame(2))?;
    take("force_reclaim", block.frame(0x21))?;
    let gfn = PAGES + 2;
    let deed = Deed::Fault(gfn, AccessFlags::empty());
    let exit = guest.load("guest_loads_lost_page", gfn, &[deed])?;
    ensure_eq!(exit, Exit::Lost(gfn), "exit");
    Ok(())
}

/// Everything comes back; a page of it is lent.
fn end(guest: Guest) -> TestResult {
    let vm = guest.handle();
    guest.kill()?;
    let take = |name: &str, gfn: u64, frames: u64| {
        let range = pages(gfn, frames);
        guest.ranged(name, VmCall::Reclaim { vm, range }, frames)
    };
    take("reclaim_page_from_guest", PAGES, 1)?;
    take("reclaim_page_from_guest", PAGES + 3, 1)?;
    take("reclaim_page_from_guest", PAGES + 4, 1)?;
    take("reclaim_41_pages_from_guest", MANY, FEW)?;
    take("reclaim_2m_from_guest", BLOCKS[0], REGION_FRAMES)?;
    take("reclaim_512_pages_from_guest", BLOCKS[1], REGION_FRAMES)?;
    guest.end()
}
