//! Memory given to EL2 and given back, in all its sizes.

use super::bracket::{Figure, Mark, sample};
use super::calls::{MANY, SOME, all_done, bare, nothing, one_frame_done, with_page};
use crate::cases::support::{REGION_FRAMES, fill_pool, frames_aligned};
use crate::frames::{self, Frames};
use crate::hypercall::HYPERVISOR;
use crate::registry::{Outcome, skip, succeed};
use core::hint::black_box;
use hyp_abi::{FRAME_SIZE, HostCall, REGION_SIZE};

const GIGABYTE: u64 = 1 << 30;

/// Samples of what takes seconds; the first one warms up.
pub(super) const FEW: usize = 2;

/// The first page donated of a 2 MiB block: the block is split in the host's table and in the map.
pub(super) fn donate_page_of_block(mark: Mark) -> Result<Figure, Outcome> {
    fill_pool()?;
    let region = frames_aligned(REGION_FRAMES, REGION_SIZE)?;
    let page = region.one(3);
    let figure = sample(SOME, mark, nothing, bare(HostCall::DonateHyp(page)), |answer| {
        one_frame_done(answer)?;
        succeed!(HYPERVISOR.reclaim(page));
        succeed!(HYPERVISOR.collapse(region.range()));
        Ok(())
    })?;
    region.free();
    Ok(figure)
}

/// One page where the tables are split already.
pub(super) fn donate_page(mark: Mark) -> Result<Figure, Outcome> {
    with_page(|page| {
        sample(MANY, mark, nothing, bare(HostCall::DonateHyp(page)), |answer| {
            one_frame_done(answer)?;
            all_done(HYPERVISOR.reclaim(page))
        })
    })
}

pub(super) fn give_back_page(mark: Mark) -> Result<Figure, Outcome> {
    with_page(|page| {
        sample(
            MANY,
            mark,
            || all_done(HYPERVISOR.donate(page)),
            bare(HostCall::ReclaimHyp(page)),
            one_frame_done,
        )
    })
}

pub(super) fn donate_region(mark: Mark) -> Result<Figure, Outcome> {
    donate(SOME, mark, frames_aligned(REGION_FRAMES, REGION_SIZE)?)
}

pub(super) fn give_back_region(mark: Mark) -> Result<Figure, Outcome> {
    give_back(SOME, mark, frames_aligned(REGION_FRAMES, REGION_SIZE)?)
}

pub(super) fn donate_gigabyte(mark: Mark) -> Result<Figure, Outcome> {
    donate(FEW, mark, gigabyte()?)
}

pub(super) fn give_back_gigabyte(mark: Mark) -> Result<Figure, Outcome> {
    give_back(FEW, mark, gigabyte()?)
}

fn gigabyte() -> Result<Frames, Outcome> {
    match frames::allocate_aligned(GIGABYTE / FRAME_SIZE, GIGABYTE) {
        Some(frames) => Ok(frames),
        None => skip!("the machine has no free GiB"),
    }
}

fn donate(samples: usize, mark: Mark, frames: Frames) -> Result<Figure, Outcome> {
    let range = frames.range();
    let donate = || HYPERVISOR.donate(black_box(range));
    let figure = sample(samples, mark, nothing, donate, |result| {
        all_done(result)?;
        all_done(HYPERVISOR.reclaim(range))
    })?;
    frames.free();
    Ok(figure)
}

fn give_back(samples: usize, mark: Mark, frames: Frames) -> Result<Figure, Outcome> {
    let range = frames.range();
    let figure = sample(
        samples,
        mark,
        || all_done(HYPERVISOR.donate(range)),
        || HYPERVISOR.reclaim(black_box(range)),
        all_done,
    )?;
    frames.free();
    Ok(figure)
}
