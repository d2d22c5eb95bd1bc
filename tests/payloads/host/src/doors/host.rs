//! Pages between the host and EL2, and first touches of devices.

use super::acts::{call, done, load, ranged, refused};
use crate::cases::support::{REGION_FRAMES, frames_aligned};
use crate::frames::Frames;
use crate::paging::window::{Attributes, Window};
use crate::registry::{Outcome, TestResult, ensure_eq, skip};
use hyp_abi::{FrameRange, HostCall, REGION_SIZE, Status};

/// A device that nobody has touched yet, in a GiB of its own: the PCIe configuration space of QEMU's virt machine.
const LONELY_DEVICE: u64 = 0x40_1000_0000;

/// A device that nobody has touched yet, beside others: the first virtio-mmio transport of QEMU's virt machine.
const DEVICE_AMONG_OTHERS: u64 = 0x0a00_0000;

/// More regions than an address each, by which EL2 would invalidate them, is worth.
const MANY_REGIONS: u64 = 129;

/// So many regions.
pub(super) fn regions(count: u64) -> Result<Frames, Outcome> {
    frames_aligned(count * REGION_FRAMES, REGION_SIZE)
}

/// As many pages as a region has, half of them in each of two.
pub(super) fn across(regions: &Frames) -> FrameRange {
    FrameRange::new(regions.frame(REGION_FRAMES / 2), REGION_FRAMES)
}

pub(super) fn share() -> TestResult {
    let region = regions(1)?;
    let page = region.one(3);
    ranged("share_page_of_block", HostCall::ShareHyp(page), 1)?;
    ranged("unshare_page", HostCall::UnshareHyp(page), 1)?;
    ranged("collapse_node", HostCall::Collapse(region.range()), REGION_FRAMES)?;
    ranged("share_2m", HostCall::ShareHyp(region.range()), REGION_FRAMES)?;
    ranged("unshare_2m", HostCall::UnshareHyp(region.range()), REGION_FRAMES)?;
    region.free();
    let two = regions(2)?;
    let range = across(&two);
    ranged("share_512_pages", HostCall::ShareHyp(range), REGION_FRAMES)?;
    ranged("unshare_512_pages", HostCall::UnshareHyp(range), REGION_FRAMES)?;
    two.free();
    Ok(())
}

pub(super) fn donate_pages() -> TestResult {
    let region = regions(1)?;
    ranged("donate_page_of_block", HostCall::DonateHyp(region.one(3)), 1)?;
    ranged("donate_page", HostCall::DonateHyp(region.one(7)), 1)?;
    // Its pages have descriptors of their own by now, and an odd number of them takes both forms of invalidation.
    let few = FrameRange::new(region.frame(20), 41);
    ranged("donate_41_pages", HostCall::DonateHyp(few), 41)?;
    ranged("reclaim_41_pages", HostCall::ReclaimHyp(few), 41)?;
    ranged("reclaim_page", HostCall::ReclaimHyp(region.one(7)), 1)?;
    ranged("reclaim_page", HostCall::ReclaimHyp(region.one(3)), 1)?;
    ranged(
        "collapse_block",
        HostCall::Collapse(region.range()),
        REGION_FRAMES,
    )?;
    region.free();
    Ok(())
}

pub(super) fn donate_blocks() -> TestResult {
    let region = regions(1)?;
    ranged("donate_2m", HostCall::DonateHyp(region.range()), REGION_FRAMES)?;
    ranged("reclaim_2m", HostCall::ReclaimHyp(region.range()), REGION_FRAMES)?;
    // A region whose pages had descriptors of their own.
    let page = region.one(5);
    ranged("donate_page_of_block", HostCall::DonateHyp(page), 1)?;
    ranged("reclaim_page", HostCall::ReclaimHyp(page), 1)?;
    ranged(
        "donate_2m_of_pages",
        HostCall::DonateHyp(region.range()),
        REGION_FRAMES,
    )?;
    ranged("reclaim_2m", HostCall::ReclaimHyp(region.range()), REGION_FRAMES)?;
    region.free();
    let two = regions(2)?;
    let range = across(&two);
    ranged("donate_512_pages", HostCall::DonateHyp(range), REGION_FRAMES)?;
    ranged("reclaim_512_pages", HostCall::ReclaimHyp(range), REGION_FRAMES)?;
    two.free();
    Ok(())
}

pub(super) fn pin() -> TestResult {
    let region = regions(1)?;
    let ring = region.one(9);
    ranged("share_page_of_block", HostCall::ShareHyp(ring), 1)?;
    let frame = ring.base;
    done("pin", HostCall::TraceAttach { cpu: 0, frame })?;
    done("unpin", HostCall::TraceDetach { cpu: 0 })?;
    ranged("unshare_page", HostCall::UnshareHyp(ring), 1)?;
    ranged("collapse_node", HostCall::Collapse(region.range()), REGION_FRAMES)?;
    region.free();
    Ok(())
}

pub(super) fn pool() -> TestResult {
    let region = regions(1)?;
    let page = region.one(11);
    ranged("top_up_page", HostCall::PoolTopUp(page), 1)?;
    // The pool's own pages are used first, so this one is all that it can spare.
    let [status, start, frames, _] = call("drain_page", HostCall::PoolDrain { frames: 16 });
    ensure_eq!(
        [status, start, frames],
        [Status::Success.to_register(), page.base, 1],
        "drain_page"
    );
    ranged(
        "collapse_block",
        HostCall::Collapse(region.range()),
        REGION_FRAMES,
    )?;
    ranged("top_up_2m", HostCall::PoolTopUp(region.range()), REGION_FRAMES)?;
    Ok(())
}

pub(super) fn refuse() -> TestResult {
    let region = regions(1)?;
    let page = region.one(13);
    ranged("donate_page_of_block", HostCall::DonateHyp(page), 1)?;
    for (name, what) in [
        ("share_refused", HostCall::ShareHyp(page)),
        ("donate_refused", HostCall::DonateHyp(page)),
        ("top_up_refused", HostCall::PoolTopUp(page)),
    ] {
        refused(name, what, Status::NotOwner)?;
    }
    ensure_eq!(
        load("load_refused", page.base, page.base)?,
        false,
        "a load from a donated page went through"
    );
    ranged("reclaim_page", HostCall::ReclaimHyp(page), 1)?;
    region.free();
    Ok(())
}

pub(super) fn touch_devices() -> TestResult {
    let Some(window) = Window::new(1) else {
        skip!("the window has no page left")
    };
    for (name, address) in [
        ("touch_lonely_device", LONELY_DEVICE),
        ("touch_device_among_others", DEVICE_AMONG_OTHERS),
    ] {
        window.map(0, address, Attributes::ExecutableDevice);
        ensure_eq!(load(name, address, window.address())?, true, "{name}");
    }
    Ok(())
}

/// The last scene: the memory is not given back, because it would take long to scrub.
pub(super) fn donate_many() -> TestResult {
    let many = regions(MANY_REGIONS)?;
    ranged(
        "donate_many_regions",
        HostCall::DonateHyp(many.range()),
        MANY_REGIONS * REGION_FRAMES,
    )
}
