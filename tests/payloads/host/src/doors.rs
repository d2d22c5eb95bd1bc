//! Operations for an instruction trace, one act at a time.
//!
//! Whoever traces EL2 from outside compares what it did in each act with what it should have done. An act is one call
//! or one access, between two marker instructions; after it a line on the console says what it was:
//! `D call <name> <x0> <x1> <x2> = <x0> <x1> <x2>` or `D load <name> <address> <outcome>`, numbers in hexadecimal,
//! the outcome `done` or `refused`. So the acts and the markers come in the same order. Nothing else of this CPU goes
//! to EL2 between the markers.

use crate::bench::{mark, tell_facts};
use crate::cases::support::{REFUSED, REGION_FRAMES, frames_aligned};
use crate::console::println;
use crate::frames::Frames;
use crate::hypercall::Hvc;
use crate::paging::window::{Attributes, Window};
use crate::probe::{self, Access, Level};
use crate::registry::{Failure, Outcome, TestResult, ensure_eq, skip};
use crate::sysreg;
use host_shim::Hypercall;
use hyp_abi::{FrameRange, HostCall, REGION_SIZE, Status};

/// The marker before an act.
const BEGIN: u16 = 1;

/// The marker after it.
const END: u16 = 2;

/// A device that nobody has touched yet, in a GiB of its own: the PCIe configuration space of QEMU's virt machine.
const LONELY_DEVICE: u64 = 0x40_1000_0000;

/// A device that nobody has touched yet, beside others: the first virtio-mmio transport of QEMU's virt machine.
const DEVICE_AMONG_OTHERS: u64 = 0x0a00_0000;

/// More regions than an address each, by which EL2 would invalidate them, is worth.
const MANY_REGIONS: u64 = 129;

/// How a run of acts went.
pub(crate) struct Played {
    /// Scenes.
    pub(crate) scenes: usize,
    /// Scenes that went wrong.
    pub(crate) failed: usize,
}

/// Plays every scene, in an order on which later ones depend. Before them the facts, as benchmarks tell them.
pub(crate) fn play() -> Played {
    tell_facts();
    let scenes: &[fn() -> TestResult] = &[
        share,
        donate_pages,
        donate_blocks,
        pin,
        pool,
        refuse,
        touch_devices,
        donate_many,
    ];
    let mut failed = 0;
    for scene in scenes {
        match sysreg::without_irqs(scene) {
            Ok(()) => {}
            Err(Outcome::Skipped(why)) => {
                failed += 1;
                println!("D fail {why}");
            }
            Err(Outcome::Failed(Failure { file, line, text })) => {
                failed += 1;
                println!("D fail {file}:{line} {text}");
            }
        }
    }
    Played {
        scenes: scenes.len(),
        failed,
    }
}

/// Makes a call as an act.
fn call(name: &str, call: HostCall) -> [u64; 4] {
    let registers = call.encode();
    mark::<BEGIN>();
    let answer = Hvc.call(registers);
    mark::<END>();
    let ([x0, x1, x2, ..], [r0, r1, r2, _]) = (registers, answer);
    println!("D call {name} {x0:x} {x1:x} {x2:x} = {r0:x} {r1:x} {r2:x}");
    answer
}

/// Makes a call as an act that must do `frames` frames at once.
fn ranged(name: &str, what: HostCall, frames: u64) -> TestResult {
    let [status, done, ..] = call(name, what);
    ensure_eq!(
        [status, done],
        [Status::Success.to_register(), frames],
        "{name}: status and frames done"
    );
    Ok(())
}

/// Reads from a physical address, which is mapped at `at`, as an act, and says whether that was let through.
fn load(name: &str, address: u64, at: u64) -> Result<bool, Outcome> {
    mark::<BEGIN>();
    let result = probe::access(Level::El1, Access::Load4, at, 0);
    mark::<END>();
    if let Err(fault) = result {
        ensure_eq!(fault.status(), REFUSED, "{name}: status of the abort");
    }
    let outcome = if result.is_ok() { "done" } else { "refused" };
    println!("D load {name} {address:x} {outcome}");
    Ok(result.is_ok())
}

fn regions(count: u64) -> Result<Frames, Outcome> {
    frames_aligned(count * REGION_FRAMES, REGION_SIZE)
}

/// As many pages as a region has, half of them in each of two.
fn across(regions: &Frames) -> FrameRange {
    FrameRange::new(regions.frame(REGION_FRAMES / 2), REGION_FRAMES)
}

fn share() -> TestResult {
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

fn donate_pages() -> TestResult {
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

fn donate_blocks() -> TestResult {
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

fn pin() -> TestResult {
    let region = regions(1)?;
    let ring = region.one(9);
    ranged("share_page_of_block", HostCall::ShareHyp(ring), 1)?;
    let frame = ring.base;
    let done = Status::Success.to_register();
    let [status, ..] = call("pin", HostCall::TraceAttach { cpu: 0, frame });
    ensure_eq!(status, done, "pin");
    let [status, ..] = call("unpin", HostCall::TraceDetach { cpu: 0 });
    ensure_eq!(status, done, "unpin");
    ranged("unshare_page", HostCall::UnshareHyp(ring), 1)?;
    ranged("collapse_node", HostCall::Collapse(region.range()), REGION_FRAMES)?;
    region.free();
    Ok(())
}

fn pool() -> TestResult {
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

fn refuse() -> TestResult {
    let region = regions(1)?;
    let page = region.one(13);
    ranged("donate_page_of_block", HostCall::DonateHyp(page), 1)?;
    for (name, what) in [
        ("share_refused", HostCall::ShareHyp(page)),
        ("donate_refused", HostCall::DonateHyp(page)),
        ("top_up_refused", HostCall::PoolTopUp(page)),
    ] {
        let [status, ..] = call(name, what);
        ensure_eq!(status, Status::NotOwner.to_register(), "{name}");
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

fn touch_devices() -> TestResult {
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
fn donate_many() -> TestResult {
    let many = regions(MANY_REGIONS)?;
    ranged(
        "donate_many_regions",
        HostCall::DonateHyp(many.range()),
        MANY_REGIONS * REGION_FRAMES,
    )
}
