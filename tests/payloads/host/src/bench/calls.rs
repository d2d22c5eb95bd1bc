//! Calls that move no memory: the empty one, the firmware's, sharing with EL2 and its end.

use super::bracket::{Figure, Mark, sample};
use crate::cases::support::{REGION_FRAMES, fill_pool, frames_aligned};
use crate::hypercall::{HYPERVISOR, Hvc};
use crate::registry::{Outcome, TestResult, ensure_eq, succeed};
use core::hint::black_box;
use host_shim::{Hypercall, RangeError};
use hyp_abi::{FRAME_SIZE, FrameRange, HostCall, HostCallId, REGION_SIZE, Status};

/// Samples of a single call.
pub(super) const MANY: usize = 101;

/// Samples of a ranged call, or of one that needs a long preparation.
pub(super) const SOME: usize = 11;

/// PSCI_VERSION (DEN0022, 5.1.1), which the host may have from the firmware.
const PSCI_VERSION: u32 = 0x8400_0000;

/// A call as an assembly programmer would make it: the registers are ready, and nothing looks at the answer.
pub(super) fn bare(call: HostCall) -> impl FnMut() -> [u64; 4] {
    let registers = black_box(call.encode());
    move || Hvc.call(registers)
}

/// The answer of a call that must have done one frame.
pub(super) fn one_frame_done(answer: [u64; 4]) -> TestResult {
    ensure_eq!(
        [answer[0], answer[1]],
        [Status::Success.to_register(), 1],
        "answer and frames done"
    );
    Ok(())
}

/// The answer of a ranged call, resumed until done.
pub(super) fn all_done(result: Result<(), RangeError>) -> TestResult {
    succeed!(result);
    Ok(())
}

pub(super) fn nothing() -> TestResult {
    Ok(())
}

/// A call that there is not.
pub(super) fn empty(mark: Mark) -> Result<Figure, Outcome> {
    let mut registers = HostCall::Version.encode();
    registers[0] += HostCallId::COUNT as u64;
    let registers = black_box(registers);
    sample(
        MANY,
        mark,
        nothing,
        || Hvc.call(registers),
        |[status, ..]| {
            ensure_eq!(status, Status::NotSupported.to_register(), "answer");
            Ok(())
        },
    )
}

/// An SMC that goes through to the firmware.
pub(super) fn firmware(mark: Mark) -> Result<Figure, Outcome> {
    let call = || smccc::smc32(black_box(PSCI_VERSION), [0; 7])[0];
    let version = call();
    sample(MANY, mark, nothing, call, |answer| {
        ensure_eq!(answer, version, "answer");
        ensure_eq!(answer >> 16, 1, "major version");
        Ok(())
    })
}

/// One page of a 2 MiB block that agrees as a whole, so that the map needs a node for it.
pub(super) fn share_page_of_block(mark: Mark) -> Result<Figure, Outcome> {
    fill_pool()?;
    let region = frames_aligned(REGION_FRAMES, REGION_SIZE)?;
    let page = region.one(3);
    let figure = sample(SOME, mark, nothing, bare(HostCall::ShareHyp(page)), |answer| {
        one_frame_done(answer)?;
        succeed!(HYPERVISOR.unshare(page));
        succeed!(HYPERVISOR.collapse(region.range()));
        Ok(())
    })?;
    region.free();
    Ok(figure)
}

pub(super) fn share_page(mark: Mark) -> Result<Figure, Outcome> {
    with_page(|page| {
        sample(MANY, mark, nothing, bare(HostCall::ShareHyp(page)), |answer| {
            one_frame_done(answer)?;
            all_done(HYPERVISOR.unshare(page))
        })
    })
}

pub(super) fn unshare_page(mark: Mark) -> Result<Figure, Outcome> {
    with_page(|page| {
        sample(
            MANY,
            mark,
            || all_done(HYPERVISOR.share(page)),
            bare(HostCall::UnshareHyp(page)),
            one_frame_done,
        )
    })
}

/// A page that is EL2's.
pub(super) fn share_refused(mark: Mark) -> Result<Figure, Outcome> {
    with_page(|page| {
        succeed!(HYPERVISOR.donate(page));
        let figure = sample(
            MANY,
            mark,
            nothing,
            bare(HostCall::ShareHyp(page)),
            |[status, ..]| {
                ensure_eq!(status, Status::NotOwner.to_register(), "answer");
                Ok(())
            },
        )?;
        succeed!(HYPERVISOR.reclaim(page));
        Ok(figure)
    })
}

/// A page with neighbours in its region, which a page at a region's edge has but one of.
pub(super) fn with_page(work: impl FnOnce(FrameRange) -> Result<Figure, Outcome>) -> Result<Figure, Outcome> {
    fill_pool()?;
    let region = frames_aligned(REGION_FRAMES, REGION_SIZE)?;
    let figure = work(region.one(REGION_FRAMES / 2))?;
    succeed!(HYPERVISOR.collapse(region.range()));
    region.free();
    Ok(figure)
}

/// The frames of a range in the middle of two regions.
fn with_unaligned(work: impl FnOnce(FrameRange) -> Result<Figure, Outcome>) -> Result<Figure, Outcome> {
    fill_pool()?;
    let regions = frames_aligned(2 * REGION_FRAMES, REGION_SIZE)?;
    let half = REGION_FRAMES / 2;
    let figure = work(FrameRange::new(
        regions.range().base + half * FRAME_SIZE,
        REGION_FRAMES,
    ))?;
    regions.free();
    Ok(figure)
}

fn with_region(work: impl FnOnce(FrameRange) -> Result<Figure, Outcome>) -> Result<Figure, Outcome> {
    let region = frames_aligned(REGION_FRAMES, REGION_SIZE)?;
    let figure = work(region.range())?;
    region.free();
    Ok(figure)
}

fn share_range(mark: Mark, range: FrameRange) -> Result<Figure, Outcome> {
    let share = || HYPERVISOR.share(black_box(range));
    sample(SOME, mark, nothing, share, |result| {
        all_done(result)?;
        all_done(HYPERVISOR.unshare(range))
    })
}

fn unshare_range(mark: Mark, range: FrameRange) -> Result<Figure, Outcome> {
    let share = || all_done(HYPERVISOR.share(range));
    sample(
        SOME,
        mark,
        share,
        || HYPERVISOR.unshare(black_box(range)),
        all_done,
    )
}

pub(super) fn share_unaligned(mark: Mark) -> Result<Figure, Outcome> {
    with_unaligned(|range| share_range(mark, range))
}

pub(super) fn unshare_unaligned(mark: Mark) -> Result<Figure, Outcome> {
    with_unaligned(|range| unshare_range(mark, range))
}

pub(super) fn share_region(mark: Mark) -> Result<Figure, Outcome> {
    with_region(|range| share_range(mark, range))
}

pub(super) fn unshare_region(mark: Mark) -> Result<Figure, Outcome> {
    with_region(|range| unshare_range(mark, range))
}
