//! The memory that the attack is fought over.
//!
//! Some of it belongs to one CPU, which keeps book of it ([`Plot`]) and so knows what every call must answer; some
//! is contested by all, and only what is impossible is a failure there. Every plot that other frames follow ends
//! at a guard: a frame that is donated for good, so that a call which runs past the end is refused.

use super::guests::place::{NATURES, Place};
use super::random::Random;
use super::tally;
use crate::frames::{self, Frames};
use crate::hypercall::HYPERVISOR;
use crate::{cpu, machine};
use arrayvec::ArrayVec;
use core::ops::Range;
use host_shim::CallError;
use hyp_abi::{FRAME_SIZE, FrameRange, REGION_SIZE, Status};

/// 4 KiB frames in a region.
pub(super) const REGION_FRAMES: u64 = REGION_SIZE / FRAME_SIZE;

/// Single frames of each CPU, each between those of other CPUs.
const SINGLES: u64 = 24;

/// Lengths of the runs of frames of each CPU.
const RUNS: [u64; 5] = [2, 3, 8, 17, 40];

/// The most guards: one for each run, and two for the regions of each CPU.
const MAX_GUARDS: usize = cpu::MAX * (RUNS.len() + 2);

/// Frames of a CPU that it may do anything to.
const SCRATCH: u64 = 4;

/// Frames that all CPUs fight over.
const CONTESTED: u64 = 12;

/// Regions that go to EL2's pool and come back. The last one does not go before the end of the attack.
pub(super) const BANK_REGIONS: u64 = 11;

/// What a CPU knows of a plot of its own.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Holding {
    /// The host's own.
    Host,
    /// Shared with EL2. The contents are the plot's pattern.
    Shared,
    /// Shared with EL2, and perhaps pinned: another CPU may have ended the trace.
    Ring,
    /// Given to EL2.
    Donated,
    /// A call ended half way for want of pages.
    Torn,
}

/// Frames of one CPU, in one piece and in one state.
#[derive(Clone, Debug)]
pub(super) struct Plot {
    /// Which.
    pub(super) range: FrameRange,
    /// In which state.
    pub(super) holding: Holding,
    /// What the frames hold, as [`Frames::fill`] takes it, once they are shared or donated.
    pub(super) pattern: u64,
    /// Whether a call may run past the end: what follows refuses it.
    pub(super) guarded: bool,
}

impl Plot {
    const fn new(range: FrameRange, guarded: bool) -> Self {
        Self {
            range,
            holding: Holding::Host,
            pattern: 0,
            guarded,
        }
    }

    /// The frames, to fill or look at.
    pub(super) fn frames(&self) -> Frames {
        Frames::adopt(self.range)
    }

    /// Physical address of a frame of it.
    pub(super) fn any_frame(&self, random: &mut Random) -> u64 {
        self.range.base + random.below(self.range.frames) * FRAME_SIZE
    }

    /// What a word at `address` holds while the contents are the pattern.
    pub(super) const fn word(&self, address: u64) -> u64 {
        self.pattern ^ address
    }
}

/// What one CPU has.
#[derive(Debug)]
pub(super) struct Estate {
    /// Its plots.
    pub(super) plots: ArrayVec<Plot, 40>,
    /// Frames that it may do anything to.
    pub(super) scratch: FrameRange,
}

/// What all CPUs know.
#[derive(Debug)]
pub(super) struct Ground {
    /// Freehold's own memory, as the device tree reserves it.
    pub(super) hyp: Range<u64>,
    /// RAM ends here.
    pub(super) end: u64,
    /// Frames that all CPUs fight over.
    pub(super) contested: FrameRange,
    /// The frames that go to EL2's pool and come back.
    pub(super) bank: FrameRange,
    /// Frames that are donated for good, which is to the end of the attack.
    pub(super) guards: ArrayVec<FrameRange, MAX_GUARDS>,
    /// Where VMs live.
    pub(super) places: ArrayVec<Place, { NATURES.len() }>,
}

/// Why there is no attack.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct TooSmall;

/// Frames at a multiple of `alignment` bytes.
pub(super) fn take(count: u64, alignment: u64) -> Result<FrameRange, TooSmall> {
    frames::allocate_aligned(count, alignment)
        .map(|frames| frames.range())
        .ok_or(TooSmall)
}

/// A part of `range`.
fn part(range: FrameRange, first: u64, count: u64) -> FrameRange {
    FrameRange::new(range.base + first * FRAME_SIZE, count)
}

/// Divides the memory, and hands each CPU's estate to `settle`.
///
/// # Errors
/// If there is too little of it, or no reservation of Freehold's.
pub(super) fn divide(mut settle: impl FnMut(usize, Estate)) -> Result<Ground, TooSmall> {
    let machine = machine::machine();
    let hyp = machine.no_map.first().ok_or(TooSmall)?.clone();
    let end = machine
        .memory
        .iter()
        .map(|range| range.end)
        .max()
        .ok_or(TooSmall)?;
    // The frame that RAM ends with is the first that is handed out.
    let top = take(1, FRAME_SIZE)?;
    let contested = take(CONTESTED, FRAME_SIZE)?;
    let bank = take(BANK_REGIONS * REGION_FRAMES, REGION_SIZE)?;
    let cpus = cpu::count() as u64;
    let singles = take(SINGLES * cpus, FRAME_SIZE)?;
    let mut guards: ArrayVec<FrameRange, MAX_GUARDS> = ArrayVec::new();
    for cpu in 0..cpus {
        let mut plots: ArrayVec<Plot, 40> = ArrayVec::new();
        for single in 0..SINGLES {
            plots.push(Plot::new(part(singles, single * cpus + cpu, 1), false));
        }
        for length in RUNS {
            let run = take(length + 1, FRAME_SIZE)?;
            plots.push(Plot::new(part(run, 0, length), true));
            guards.push(part(run, length, 1));
        }
        // A region; most of one; a run across an edge, with its guard; two regions, with theirs.
        let regions = take(5 * REGION_FRAMES + 1, REGION_SIZE)?;
        plots.push(Plot::new(part(regions, 0, REGION_FRAMES), false));
        plots.push(Plot::new(part(regions, REGION_FRAMES, REGION_FRAMES - 12), false));
        plots.push(Plot::new(part(regions, 2 * REGION_FRAMES - 12, 24), true));
        guards.push(part(regions, 2 * REGION_FRAMES + 12, 1));
        plots.push(Plot::new(
            part(regions, 3 * REGION_FRAMES, 2 * REGION_FRAMES),
            true,
        ));
        guards.push(part(regions, 5 * REGION_FRAMES, 1));
        if cpu == 0 && top.base + FRAME_SIZE == end {
            plots.push(Plot::new(top, true));
        }
        let scratch = take(SCRATCH, FRAME_SIZE)?;
        settle(cpu as usize, Estate { plots, scratch });
    }
    // A first region for the pool, so that the guards find the tables they need.
    super::bank::open(bank);
    super::bank::give(&mut Random::new(0, 0), REGION_FRAMES);
    for &guard in &guards {
        if let Err(error) = HYPERVISOR.donate(guard) {
            tally::fail(format_args!("guard {:#x}: {error}", guard.base));
        }
    }
    let mut places = ArrayVec::new();
    for (number, nature) in NATURES.into_iter().enumerate() {
        places.push(Place::new(number as u64, nature)?);
    }
    Ok(Ground {
        hyp,
        end,
        contested,
        bank,
        guards,
        places,
    })
}

/// Brings frames back to the host, whatever state they are in: shared or donated, whole or in part.
///
/// # Errors
/// The refusal that is in the way.
pub(super) fn bring_back(range: FrameRange) -> Result<(), CallError> {
    // A region whose reclaim was interrupted can only go on as a whole.
    let _ = HYPERVISOR.reclaim(range);
    let _ = HYPERVISOR.unshare(range);
    for index in 0..range.frames {
        let frame = part(range, index, 1);
        let fine = |result: Result<(), host_shim::RangeError>, alike: Status| match result {
            Err(error) if error.error.status() != Some(alike) => Err(error.error),
            _ => Ok(()),
        };
        fine(HYPERVISOR.reclaim(frame), Status::NotDonated)?;
        fine(HYPERVISOR.unshare(frame), Status::NotShared)?;
    }
    Ok(())
}

/// Addresses that a call may stumble over. None of them lets a call take what the payload lives on: all that is the
/// host's is out of reach from there.
pub(super) fn boundary(ground: &Ground, random: &mut Random) -> u64 {
    let address = some_boundary(ground, random);
    let is_ram = machine::machine()
        .memory
        .iter()
        .any(|range| range.contains(&address));
    if is_ram && !ground.hyp.contains(&address) {
        ground.end
    } else {
        address
    }
}

fn some_boundary(ground: &Ground, random: &mut Random) -> u64 {
    let machine = machine::machine();
    let hyp_frames = (ground.hyp.end - ground.hyp.start) / FRAME_SIZE;
    match random.below(16) {
        0 => 0,
        1 => ground.hyp.start,
        2 => ground.hyp.end - FRAME_SIZE,
        3 | 4 => ground.hyp.start + random.below(hyp_frames) * FRAME_SIZE,
        5 => ground.end,
        6 => ground.end + random.below(1 << 20) * FRAME_SIZE,
        7 => 1 << 48,
        8 => (1 << 48) - FRAME_SIZE,
        9 => !(FRAME_SIZE - 1),
        10 => u64::MAX,
        11 => machine.uart,
        12 => machine.gic_distributor,
        13 => 1 << random.below(64),
        14 => random.next() | 1 << 63,
        // Misaligned, in memory that is not the host's.
        _ => ground.hyp.start + random.below(ground.hyp.end - ground.hyp.start),
    }
}

/// Counts that a call may stumble over.
pub(super) fn boundary_count(random: &mut Random) -> u64 {
    match random.below(10) {
        0 => 0,
        1 => 1,
        2 => 2,
        3 => REGION_FRAMES,
        4 => REGION_FRAMES + 1,
        5 => 1 << 18,
        6 => u64::MAX,
        7 => u64::MAX / FRAME_SIZE + 1,
        8 => 1 << random.below(64),
        _ => random.next(),
    }
}
