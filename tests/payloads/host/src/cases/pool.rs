//! EL2's pool of table and node pages: topping up, draining, running out.

use super::support::{
    REGION_FRAMES, ensure_all_refused, ensure_refused, ensure_state, fill_pool, frames_aligned,
};
use crate::frames::{self, Frames};
use crate::hypercall::HYPERVISOR;
use crate::registry::{Outcome, case, ensure, ensure_eq, fail, skip, succeed};
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
    let (free_after, total_after) = pool()?;
    ensure_eq!(total_after, total + REGION_FRAMES, "all pages");
    // EL2 maps what it is given, which may take a table or two.
    let expected = free + REGION_FRAMES - 2..=free + REGION_FRAMES;
    ensure!(
        expected.contains(&free_after),
        "{free} free pages before, {free_after} after"
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
    // What the host gave comes back and is the payload's from then on; what the boot reserved stays.
    let mut drained: ArrayVec<FrameRange, 1024> = ArrayVec::new();
    let end = loop {
        match HYPERVISOR.pool_drain(REGION_FRAMES) {
            Ok(Some(range)) if !drained.is_full() => drained.push(range),
            end => break end,
        }
    };
    // The rest is used up: a region with one shared frame in it takes a page or two.
    let mut regions: ArrayVec<Frames, 1024> = ArrayVec::new();
    let mut needed = None;
    while let (None, false, Some(region)) = (
        needed,
        regions.is_full(),
        frames::allocate_aligned(REGION_FRAMES, REGION_SIZE),
    ) {
        let call = HostCall::ShareHyp(region.one(1));
        match HYPERVISOR.call(call) {
            Ok(_) => regions.push(region),
            Err(CallError::Refused {
                status: Status::NoMemory,
                detail,
            }) => {
                ensure_refused(call, Status::NoMemory, &[region.frame(0), region.frame(1)])?;
                ensure_state(region.frame(1), FrameState::Host, 0)?;
                needed = Some(detail);
                region.free();
            }
            Err(error) => fail!("{error:?}"),
        }
    }
    let (free, total) = pool()?;
    let mut topped_up = Ok(());
    if needed.is_some() {
        // A region of its own is what an empty pool can always be given: there is no other way out.
        let region = frames_aligned(REGION_FRAMES, REGION_SIZE)?;
        topped_up = HYPERVISOR.pool_top_up(region.range());
        if topped_up.is_err() {
            region.free();
        }
    }
    // Whatever has come of it, the cases after this one need the pages.
    for region in regions {
        succeed!(HYPERVISOR.unshare(region.one(1)));
        succeed!(HYPERVISOR.collapse(region.range()));
        region.free();
    }
    for range in drained {
        Frames::adopt(range).free();
    }
    succeed!(topped_up);
    match needed {
        Some(needed) => ensure!((1..=8).contains(&needed), "{needed} pages needed for one frame"),
        None => {
            skip!("too little memory to use {free} of {total} pages up after draining ended with {end:x?}")
        }
    }
    Ok(())
});
