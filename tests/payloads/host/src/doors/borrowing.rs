//! Pages that the host shares with a guest that is not protected.

use super::acts::Deed;
use super::guest::{BLOCKS, CODE, Guest, give_back, pages};
use super::host::regions;
use crate::cases::support::REGION_FRAMES;
use crate::guest::exit::Exit;
use crate::guest::vcpu::Answer;
use crate::registry::{TestResult, ensure_eq};
use hyp_abi::run_page::AccessFlags;
use hyp_abi::vm::{Permissions, VmFlags};
use hyp_abi::{FrameRange, VmCall};

/// Guest frame numbers behind the code.
const PAGES: u64 = CODE + 0x10;

/// For several, and how many.
const MANY: u64 = CODE + 0x40;
const FEW: u64 = 41;

/// A page inside a block.
const INSIDE: u64 = BLOCKS[0] + 0x21;

/// From the first sharing to the last unsharing, on CPU 0.
pub(super) fn play() -> TestResult {
    let guest = Guest::new(VmFlags::empty(), 1)?;
    let [singles, block] = [regions(1)?, regions(1)?];
    for page in 0..2 {
        guest.share("share_page_with_guest", singles.one(page), PAGES + page)?;
    }
    let few = FrameRange::new(singles.frame(0x40), FEW);
    guest.share("share_41_pages_with_guest", few, MANY)?;
    guest.share("share_2m_with_guest", block.range(), BLOCKS[0])?;
    guest.share("share_2m_with_guest", block.range(), BLOCKS[1])?;
    protect(&guest)?;
    look_at_age(&guest)?;
    unshare(&guest)?;
    guest.end()?;
    [singles, block].into_iter().try_for_each(give_back)
}

fn protect(guest: &Guest) -> TestResult {
    let vm = guest.handle();
    let read = Permissions::READ.bits();
    let set = |name: &str, gfn: u64, frames: u64, permissions: u64| {
        let call = VmCall::SetPermissions {
            vm,
            range: pages(gfn, frames),
            permissions,
        };
        guest.ranged(name, call, frames)
    };
    set("write_protect_page", PAGES, 1, read)?;
    let denied = [Deed::Denied(PAGES, AccessFlags::WRITE)];
    let exit = guest.store("guest_stores_to_protected_page", PAGES, &denied)?;
    let fault = Exit::MemoryFault {
        gfn: PAGES,
        access: AccessFlags::WRITE,
    };
    ensure_eq!(exit, fault, "exit");
    set("allow_writes_to_page", PAGES, 1, Permissions::all().bits())?;
    guest.reports("go_on_after_an_exit", 0, Answer::Retry, &[])?;
    set("write_protect_41_pages", MANY, FEW, read)?;
    set("write_protect_page_of_block", INSIDE, 1, read)?;
    set("write_protect_2m", BLOCKS[1], REGION_FRAMES, read)
}

fn look_at_age(guest: &Guest) -> TestResult {
    let vm = guest.handle();
    let age = |name: &str, gfn: u64, frames: u64| {
        let range = pages(gfn, frames);
        guest.ranged(name, VmCall::TestAge { vm, range }, frames)
    };
    age("test_age_of_page", PAGES, 1)?;
    guest.load("guest_loads_aged_page", PAGES, &[Deed::Unused(PAGES)])?;
    age("test_age_of_41_pages", MANY, FEW)?;
    age("test_age_of_2m", BLOCKS[1], REGION_FRAMES)?;
    guest
        .load("guest_loads_aged_block", BLOCKS[1], &[Deed::Unused(BLOCKS[1])])
        .map(|_| ())
}

fn unshare(guest: &Guest) -> TestResult {
    let vm = guest.handle();
    let end = |name: &str, gfn: u64, frames: u64| {
        let range = pages(gfn, frames);
        guest.ranged(name, VmCall::Unshare { vm, range }, frames)
    };
    end("unshare_page_with_guest", PAGES, 1)?;
    end("unshare_page_with_guest", PAGES + 1, 1)?;
    end("unshare_41_pages_with_guest", MANY, FEW)?;
    end("unshare_page_of_block_with_guest", BLOCKS[1] + 3, 1)?;
    end("unshare_511_pages_with_guest", BLOCKS[1] + 4, REGION_FRAMES - 4)?;
    end("unshare_3_pages_with_guest", BLOCKS[1], 3)?;
    end("unshare_512_pages_with_guest", BLOCKS[0], REGION_FRAMES)
}
