//! All CPUs at once on neighboring and on the same frames.

use super::support::{
    FirstError, REGION_FRAMES, ensure_state, fill_pool, frames_aligned, needs_cpus, pooled_frames,
};
use crate::barrier::Barrier;
use crate::hypercall::HYPERVISOR;
use crate::registry::{Outcome, case, ensure, ensure_eq, fail, succeed};
use crate::{cpu, frames::Frames};
use core::sync::atomic::{AtomicI64, AtomicU64, AtomicUsize, Ordering};
use host_shim::CallError;
use hyp_abi::{FrameRange, FrameState, HostCall, REGION_SIZE, Status};

/// Rounds of each CPU.
const ROUNDS: u64 = 300;

/// A small generator of numbers that need not be good, only many (xorshift64).
struct Numbers(u64);

impl Numbers {
    fn new(cpu: usize) -> Self {
        Self(0x9e37_79b9_7f4a_7c15 ^ (cpu as u64 + 1) << 17)
    }

    fn below(&mut self, bound: u64) -> u64 {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        self.0 % bound
    }
}

/// How many calls for the same frames must succeed.
const ENOUGH: u64 = ROUNDS / 4;

/// How many times its rounds a CPU goes on until they do.
const PATIENCE: u64 = 1000;

/// What has come of all calls for one frame.
#[derive(Default)]
struct Tally {
    shared: AtomicI64,
    donated: AtomicI64,
}

/// The four transitions, with what each adds to the tally.
fn transition(number: u64, range: FrameRange) -> (HostCall, i64, i64) {
    match number {
        0 => (HostCall::ShareHyp(range), 1, 0),
        1 => (HostCall::UnshareHyp(range), -1, 0),
        2 => (HostCall::DonateHyp(range), 0, 1),
        _ => (HostCall::ReclaimHyp(range), 0, -1),
    }
}

/// All CPUs call at random for the same few frames. Afterwards every frame must be in the state that the calls which
/// succeeded add up to.
fn on_the_same(frames: &Frames) -> Result<(), Outcome> {
    let tallies: [Tally; 8] = Default::default();
    let count = frames.range().frames;
    ensure!(count <= tallies.len() as u64, "too many frames");
    let errors = FirstError::new();
    let barrier = Barrier::new(cpu::count());
    let successes = AtomicUsize::new(0);
    cpu::run_everywhere(|cpu| {
        let mut numbers = Numbers::new(cpu);
        barrier.wait();
        // Where eight CPUs share two cores, one that is held up with the frame in transit has all others told Busy
        // for as long: they go on until enough has succeeded, and not for ever.
        for round in 0..ROUNDS * PATIENCE {
            if round >= ROUNDS && successes.load(Ordering::Relaxed) as u64 >= ENOUGH {
                break;
            }
            let index = numbers.below(count);
            let (call, shared, donated) = transition(numbers.below(4), frames.one(index));
            match HYPERVISOR.call(call) {
                Ok([1, ..]) => {
                    successes.fetch_add(1, Ordering::Relaxed);
                    tallies[index as usize]
                        .shared
                        .fetch_add(shared, Ordering::Relaxed);
                    tallies[index as usize]
                        .donated
                        .fetch_add(donated, Ordering::Relaxed);
                }
                Err(CallError::Refused { status, .. }) => {
                    let possible = match call {
                        HostCall::ShareHyp(_) | HostCall::DonateHyp(_) => {
                            [Status::SharedWithHyp, Status::NotOwner, Status::Busy]
                        }
                        HostCall::UnshareHyp(_) => [Status::NotShared, Status::NotOwner, Status::Busy],
                        _ => [Status::NotDonated, Status::Busy, Status::Busy],
                    };
                    if !possible.contains(&status) {
                        errors.report(format_args!("{call:x?}: {status:?}"));
                    }
                }
                other => errors.report(format_args!("{call:x?}: {other:x?}")),
            }
        }
    });
    errors.ensure_none()?;
    ensure!(
        successes.load(Ordering::Relaxed) as u64 >= ENOUGH,
        "almost nothing succeeded"
    );
    for index in 0..count {
        let tally = &tallies[index as usize];
        let sum = (
            tally.shared.load(Ordering::Relaxed),
            tally.donated.load(Ordering::Relaxed),
        );
        let state = match sum {
            (0, 0) => FrameState::Host,
            (1, 0) => FrameState::HostSharedHyp,
            (0, 1) => FrameState::NotYours,
            _ => fail!("frame {index}: shares and donations that succeeded add up to {sum:?}"),
        };
        ensure_state(frames.frame(index), state, 0)?;
        match state {
            FrameState::HostSharedHyp => succeed!(HYPERVISOR.unshare(frames.one(index))),
            FrameState::NotYours => succeed!(HYPERVISOR.reclaim(frames.one(index))),
            _ => {}
        }
        ensure_state(frames.frame(index), FrameState::Host, 0)?;
    }
    Ok(())
}

case!(the_same_frame_is_in_one_state_at_a_time, {
    needs_cpus(2)?;
    let frame = pooled_frames(1)?;
    on_the_same(&frame)?;
    frame.free();
    Ok(())
});

case!(frames_on_both_sides_of_a_regions_edge_add_up, {
    needs_cpus(2)?;
    fill_pool()?;
    let room = frames_aligned(2 * REGION_FRAMES, REGION_SIZE)?;
    let frames = room.part(REGION_FRAMES - 4, 8);
    on_the_same(&frames)?;
    frames.free();
    Ok(())
});

case!(neighbors_do_not_disturb_each_other, {
    needs_cpus(2)?;
    fill_pool()?;
    let frames = pooled_frames(cpu::count() as u64)?;
    let errors = FirstError::new();
    let barrier = Barrier::new(cpu::count());
    cpu::run_everywhere(|cpu| {
        let own = frames.part_of(cpu as u64);
        barrier.wait();
        for round in 0..ROUNDS {
            own.fill(round);
            let given = HYPERVISOR
                .share(own.range())
                .and_then(|()| HYPERVISOR.unshare(own.range()));
            if let Err(error) = given {
                errors.report(format_args!("round {round}: {error}"));
            }
            if own.find_wrong(|address| round ^ address).is_some() {
                errors.report(format_args!("round {round}: sharing changed the contents"));
            }
            let given = HYPERVISOR
                .donate(own.range())
                .and_then(|()| HYPERVISOR.reclaim(own.range()));
            if let Err(error) = given {
                errors.report(format_args!("round {round}: {error}"));
            }
            if own.find_wrong(|_| 0).is_some() {
                errors.report(format_args!("round {round}: a reclaimed frame is not zero"));
            }
        }
    });
    errors.ensure_none()?;
    frames.free();
    Ok(())
});

case!(a_block_given_by_one_cpu_is_refused_to_all, {
    use crate::probe::{Access, Level};
    needs_cpus(2)?;
    fill_pool()?;
    let block = frames_aligned(REGION_FRAMES, REGION_SIZE)?;
    let errors = FirstError::new();
    let barrier = Barrier::new(cpu::count());
    cpu::run_everywhere(|cpu| {
        for round in 0..20 {
            if cpu == 0
                && let Err(error) = HYPERVISOR.donate(block.range())
            {
                errors.report(format_args!("donate: {error}"));
            }
            barrier.wait();
            let at = block.frame((cpu as u64 * 61 + round * 7) % REGION_FRAMES);
            if super::support::ensure_access_refused(Level::El1, Access::Load8, at).is_err() {
                errors.report(format_args!(
                    "round {round}: CPU {cpu} was not refused frame {at:#x}"
                ));
            }
            barrier.wait();
            if cpu == 0
                && let Err(error) = HYPERVISOR.reclaim(block.range())
            {
                errors.report(format_args!("reclaim: {error}"));
            }
            barrier.wait();
            if crate::probe::access(Level::El1, Access::Load8, at, 0) != Ok(0) {
                errors.report(format_args!(
                    "round {round}: CPU {cpu} cannot read zeroes of frame {at:#x}"
                ));
            }
            barrier.wait();
        }
    });
    errors.ensure_none()?;
    block.free();
    Ok(())
});

case!(
    an_access_to_ones_own_memory_is_never_refused_while_blocks_split_and_fold,
    {
        use crate::probe::{Access, Level};
        needs_cpus(2)?;
        fill_pool()?;
        // One CPU makes the block split and fold all the time; the others use its other frames, which are theirs.
        let block = frames_aligned(REGION_FRAMES, REGION_SIZE)?;
        block.fill(0);
        let errors = FirstError::new();
        let (accesses, done) = (AtomicU64::new(0), AtomicUsize::new(0));
        let barrier = Barrier::new(cpu::count());
        cpu::run_everywhere(|cpu| {
            barrier.wait();
            if cpu == 0 {
                for _ in 0..ROUNDS {
                    let toggled = HYPERVISOR
                        .donate(block.one(3))
                        .and_then(|()| HYPERVISOR.reclaim(block.one(3)))
                        .and_then(|()| HYPERVISOR.collapse(block.range()));
                    if let Err(error) = toggled {
                        errors.report(format_args!("{error}"));
                    }
                }
                done.store(1, Ordering::Release);
                return;
            }
            let mut numbers = Numbers::new(cpu);
            while done.load(Ordering::Acquire) == 0 {
                let at = block.frame(4 + numbers.below(REGION_FRAMES - 4)) + numbers.below(512) * 8;
                for (level, access) in [(Level::El1, Access::Load8), (Level::El0, Access::Store8)] {
                    accesses.fetch_add(1, Ordering::Relaxed);
                    if let Err(fault) = crate::probe::access(level, access, level.address(at), 0) {
                        errors.report(format_args!("CPU {cpu} was refused its own {at:#x}: {fault:?}"));
                    }
                }
            }
        });
        errors.ensure_none()?;
        ensure!(accesses.load(Ordering::Relaxed) > 0, "the other CPUs did nothing");
        succeed!(HYPERVISOR.collapse(block.range()));
        ensure_eq!(
            succeed!(HYPERVISOR.frame_state(block.frame(0))).extent,
            REGION_SIZE
        );
        block.free();
        Ok(())
    }
);
