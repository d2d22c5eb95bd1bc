//! Sharing, donating and taking back: ranges of all sizes, progress, contents.

use super::support::{
    REGION_FRAMES, ensure_all_refused, ensure_state, fill_pool, frames_aligned, pooled_frames,
};
use crate::frames::Frames;
use crate::hypercall::HYPERVISOR;
use crate::registry::{Outcome, TestResult, case, ensure, ensure_eq, succeed};
use crate::{sysreg, timer};
use hyp_abi::host_call::Statistic;
use hyp_abi::{FRAME_SIZE, FrameRange, FrameState, REGION_SIZE, Status};

/// A pattern that no scrubbed frame has.
const SECRET: u64 = 0x5ec2_e75e_c2e7_5ec2;

/// Frames in EL2's books: the host's, those shared with EL2, EL2's own.
fn books() -> Result<[u64; 3], Outcome> {
    let mut books = [0; 3];
    for (slot, statistic) in books.iter_mut().zip([
        Statistic::FramesHost,
        Statistic::FramesSharedHyp,
        Statistic::FramesHyp,
    ]) {
        *slot = succeed!(HYPERVISOR.statistic(statistic));
    }
    Ok(books)
}

/// Shares the frames and ends it: states, books and contents.
fn share_and_unshare(frames: &Frames) -> TestResult {
    let (range, count) = (frames.range(), frames.range().frames);
    frames.fill(SECRET);
    let [host, shared, hyp] = books()?;
    succeed!(HYPERVISOR.share(range));
    for index in [0, count / 2, count - 1] {
        ensure_state(frames.frame(index), FrameState::HostSharedHyp, 0)?;
    }
    ensure_eq!(
        books()?,
        [host - count, shared + count, hyp],
        "books while shared"
    );
    ensure_eq!(
        frames.find_wrong(|address| SECRET ^ address),
        None,
        "contents while shared"
    );
    succeed!(HYPERVISOR.unshare(range));
    for index in [0, count / 2, count - 1] {
        ensure_state(frames.frame(index), FrameState::Host, 0)?;
    }
    ensure_eq!(books()?, [host, shared, hyp], "books afterwards");
    ensure_eq!(
        frames.find_wrong(|address| SECRET ^ address),
        None,
        "contents afterwards"
    );
    Ok(())
}

/// Donates the frames and takes them back: states, books, refusal, zeroes.
fn donate_and_reclaim(frames: &Frames) -> TestResult {
    let (range, count) = (frames.range(), frames.range().frames);
    frames.fill(SECRET);
    let [host, shared, hyp] = books()?;
    succeed!(HYPERVISOR.donate(range));
    for index in [0, count / 2, count - 1] {
        ensure_state(frames.frame(index), FrameState::NotYours, 0)?;
        ensure_all_refused(frames.frame(index) + 0x340)?;
    }
    ensure_eq!(
        books()?,
        [host - count, shared, hyp + count],
        "books while donated"
    );
    succeed!(HYPERVISOR.reclaim(range));
    ensure_eq!(books()?, [host, shared, hyp], "books afterwards");
    ensure_eq!(frames.find_wrong(|_| 0), None, "contents afterwards");
    ensure_state(frames.frame(count - 1), FrameState::Host, 0)
}

/// Cases for one shape of range.
macro_rules! for_the_shape {
    ($module:ident, $frames:expr) => {
        mod $module {
            use super::*;
            case!(is_shared_and_unshared, {
                let frames: Frames = $frames?;
                share_and_unshare(&frames)?;
                frames.free();
                Ok(())
            });
            case!(is_refused_while_donated_and_comes_back_as_zeroes, {
                let frames: Frames = $frames?;
                donate_and_reclaim(&frames)?;
                frames.free();
                Ok(())
            });
        }
    };
}

/// `count` frames that begin in the middle of a region.
fn unaligned(count: u64) -> Result<Frames, Outcome> {
    fill_pool()?;
    // The highest such frames are the end of something that is aligned: begin one frame off on purpose.
    let room = frames_aligned(count + REGION_FRAMES, REGION_SIZE)?;
    Ok(room.part(REGION_FRAMES / 2 + 3, count))
}

/// `count` frames at a multiple of their size.
fn aligned(count: u64) -> Result<Frames, Outcome> {
    fill_pool()?;
    frames_aligned(count, count * FRAME_SIZE)
}

for_the_shape!(one_frame, pooled_frames(1));
for_the_shape!(a_few_frames_over_an_edge, unaligned(300));
for_the_shape!(a_regions_worth_unaligned, unaligned(REGION_FRAMES));
for_the_shape!(a_block_of_2_mib, aligned(REGION_FRAMES));
for_the_shape!(many_blocks, aligned(16 * REGION_FRAMES));
for_the_shape!(blocks_and_a_rest, unaligned(5 * REGION_FRAMES + 17));

mod a_block_of_1_gib {
    use super::*;

    case!(is_shared_and_unshared, {
        let frames = aligned(512 * REGION_FRAMES)?;
        let range = frames.range();
        let [host, shared, hyp] = books()?;
        succeed!(HYPERVISOR.share(range));
        ensure_eq!(
            books()?,
            [host - range.frames, shared + range.frames, hyp],
            "books while shared"
        );
        succeed!(HYPERVISOR.unshare(range));
        ensure_eq!(books()?, [host, shared, hyp], "books afterwards");
        frames.free();
        Ok(())
    });
    case!(is_refused_while_donated_and_comes_back, {
        let frames = aligned(512 * REGION_FRAMES)?;
        let range = frames.range();
        succeed!(HYPERVISOR.donate(range));
        for index in (0..range.frames).step_by(REGION_FRAMES as usize * 37) {
            ensure_all_refused(frames.frame(index))?;
        }
        succeed!(HYPERVISOR.reclaim(range));
        ensure_state(frames.frame(0), FrameState::Host, 0)?;
        frames.free();
        Ok(())
    });
}

case!(a_refusal_in_the_middle_leaves_the_rest_alone, {
    let frames = pooled_frames(8)?;
    frames.fill(SECRET);
    succeed!(HYPERVISOR.share(frames.one(5)));
    let Err(error) = HYPERVISOR.donate(frames.range()) else {
        return Err(Outcome::Failed(failure(line!(), "a shared frame was donated")));
    };
    ensure_eq!(error.error.status(), Some(Status::SharedWithHyp));
    ensure!(error.done <= 5, "{} frames done", error.done);
    for index in 0..8 {
        let expected = match index {
            index if index < error.done => FrameState::NotYours,
            5 => FrameState::HostSharedHyp,
            _ => FrameState::Host,
        };
        ensure_state(frames.frame(index), expected, 0)?;
    }
    if error.done > 0 {
        succeed!(HYPERVISOR.reclaim(FrameRange::new(frames.frame(0), error.done)));
    }
    succeed!(HYPERVISOR.unshare(frames.one(5)));
    frames.free();
    Ok(())
});

case!(neighbors_of_a_donated_frame_stay_usable, {
    let frames = pooled_frames(3)?;
    frames.fill(SECRET);
    succeed!(HYPERVISOR.donate(frames.one(1)));
    for index in [0, 2] {
        let part = frames.part_of(index);
        ensure_eq!(
            part.find_wrong(|address| SECRET ^ address),
            None,
            "neighbor {index}"
        );
        part.fill(1);
        ensure_state(frames.frame(index), FrameState::Host, 0)?;
    }
    succeed!(HYPERVISOR.reclaim(frames.one(1)));
    frames.free();
    Ok(())
});

case!(collapse_rebuilds_a_block, {
    fill_pool()?;
    let block = frames_aligned(REGION_FRAMES, REGION_SIZE)?;
    // Single-frame calls split the block, and do not fold it.
    succeed!(HYPERVISOR.donate(block.one(7)));
    succeed!(HYPERVISOR.reclaim(block.one(7)));
    let free = succeed!(HYPERVISOR.statistic(Statistic::PoolFree));
    succeed!(HYPERVISOR.collapse(block.range()));
    let info = succeed!(HYPERVISOR.frame_state(block.frame(7)));
    ensure_eq!(info.extent, REGION_SIZE, "bytes that agree after the collapse");
    ensure!(
        succeed!(HYPERVISOR.statistic(Statistic::PoolFree)) > free,
        "the pool has no page back"
    );
    block.free();
    Ok(())
});

case!(a_ranged_call_survives_a_storm_of_interrupts, {
    let frames = aligned(32 * REGION_FRAMES)?;
    frames.fill(SECRET);
    let before = timer::interrupts();
    timer::interrupt_every(sysreg::counter_frequency() / 20_000);
    sysreg::unmask_irqs();
    let result = HYPERVISOR
        .donate(frames.range())
        .and_then(|()| HYPERVISOR.reclaim(frames.range()));
    sysreg::mask_irqs();
    timer::stop();
    succeed!(result);
    ensure!(timer::interrupts() > before, "no interrupt came in between");
    ensure_eq!(frames.find_wrong(|_| 0), None, "contents afterwards");
    frames.free();
    Ok(())
});

case!(a_ranged_call_with_masked_interrupts_comes_to_its_end, {
    // The interrupt pends all the time, and the host never takes it: every call may stop early, none may stand still.
    let frames = aligned(8 * REGION_FRAMES)?;
    timer::interrupt_every(1);
    let result = HYPERVISOR
        .donate(frames.range())
        .and_then(|()| HYPERVISOR.reclaim(frames.range()));
    timer::stop();
    succeed!(result);
    frames.free();
    Ok(())
});

fn failure(line: u32, text: &str) -> crate::registry::Failure {
    crate::registry::Failure {
        file: file!(),
        line,
        text: crate::registry::text(format_args!("{text}")),
    }
}
