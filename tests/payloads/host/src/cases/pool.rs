//! EL2's pool of table and node pages: topping up, draining, running out.

use super::support::{
    REGION_FRAMES, ensure_all_refused, ensure_refused, ensure_state, fill_pool, frames_aligned, pooled_frames,
};
use crate::frames::{self, Frames};
use crate::hypercall::HYPERVISOR;
use crate::registry::{Outcome, case, ensure, ensure_eq, fail, succeed};
use arrayvec::ArrayVec;
use host_shim::CallError;
use hyp_abi::host_call::Statistic;
use hyp_abi::{FrameRange, FrameState, HostCall, REGION_SIZE, Status};

/// Free and all pages of the pool.
fn pool() -> Result<(u64, u64), Outcome> {
    let free = succeed!(HYPERVISOR.statistic(Statistic::PoolFree));
    let total = succeed!(HYPERVISOR.statistic(Statistic::PoolTotal));
    ensure!(free <= total, "{free} free pages of {total}");
    Ok((free, total))
}

case!(a_region_tops_it_up_and_is_refused_to_the_host, {
    let region = frames_aligned(REGION_FRAMES, REGION_SIZE)?;
    region.fill(0x77);
    let (free, total) = pool()?;
    succeed!(HYPERVISOR.pool_top_up(region.range()));
    ensure_eq!(
        pool()?,
        (free + REGION_FRAMES, total + REGION_FRAMES),
        "free and all pages"
    );
    ensure_state(region.frame(100), FrameState::NotYours, 0)?;
    ensure_all_refused(region.frame(100))?;
    Ok(())
});

case!(drained_frames_are_the_hosts_and_zero, {
    fill_pool()?;
    let (free, total) = pool()?;
    let Some(range) = succeed!(HYPERVISOR.pool_drain(8)) else {
        fail!("none of {free} free pages came back")
    };
    ensure!(
        (1..=8).contains(&range.frames),
        "{} pages came back",
        range.frames
    );
    let (free_after, total_after) = pool()?;
    ensure_eq!(total - total_after, range.frames, "pages less in all");
    ensure!(free_after <= free, "{free} free pages before, {free_after} after");
    let back = Frames::adopt(range);
    for index in 0..range.frames {
        ensure_state(back.frame(index), FrameState::Host, 0)?;
    }
    ensure_eq!(back.find_wrong(|_| 0), None, "contents");
    // Not ReclaimHyp's business: neither what is drained nor what is still in the pool.
    ensure_refused(HostCall::ReclaimHyp(range), Status::NotDonated, &[range.base])?;
    back.free();
    Ok(())
});

case!(running_out_is_an_error_that_names_the_need, {
    let subject = pooled_frames(1)?;
    // Whole regions that come back here are remembered, and go back to the pool at the end.
    let mut drained: ArrayVec<FrameRange, 1024> = ArrayVec::new();
    while let Ok(Some(range)) = HYPERVISOR.pool_drain(REGION_FRAMES) {
        if drained.try_push(range).is_err() {
            fail!("the pool comes back in more than {} pieces", drained.capacity());
        }
    }
    let mut refused = None;
    // The frame's region may be split already; then another one's is not.
    for _ in 0..4 {
        let frame = frames_aligned(REGION_FRAMES, REGION_SIZE)?;
        let call = HostCall::ShareHyp(frame.one(1));
        match HYPERVISOR.call(call) {
            Err(CallError::Refused {
                status: Status::NoMemory,
                detail,
            }) => {
                ensure_refused(call, Status::NoMemory, &[frame.frame(0), frame.frame(1)])?;
                refused = Some((frame, detail));
                break;
            }
            Ok(_) => succeed!(HYPERVISOR.unshare(frame.one(1))),
            Err(error) => fail!("{error:?}"),
        }
    }
    let Some((frame, needed)) = refused else {
        fail!("an empty pool refuses nothing")
    };
    ensure!((1..=8).contains(&needed), "{needed} pages needed for one frame");
    // A whole region tops up an empty pool.
    let region = frames_aligned(REGION_FRAMES, REGION_SIZE)?;
    succeed!(HYPERVISOR.pool_top_up(region.range()));
    succeed!(HYPERVISOR.share(frame.one(1)));
    succeed!(HYPERVISOR.unshare(frame.one(1)));
    frame.free();
    subject.free();
    for range in drained {
        Frames::adopt(range).free();
    }
    ensure!(
        frames::allocate(1).is_some_and(|frame| {
            frame.free();
            true
        }),
        "the free frames are gone"
    );
    Ok(())
});
