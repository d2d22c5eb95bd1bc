//! What several cases need.

use crate::frames::{self, Frames};
use crate::hypercall::HYPERVISOR;
use crate::machine::machine;
use crate::probe::{self, Access, Level};
use crate::registry::{Failure, Outcome, TestResult, ensure_eq, fail, skip, succeed, text};
use arrayvec::ArrayVec;
use host_shim::{CallError, FrameInfo};
use hyp_abi::host_call::Statistic;
use hyp_abi::{Counter, FRAME_SIZE, FrameRange, FrameState, HostCall, REGION_SIZE, Status};
use spin::mutex::TicketMutex;

/// 4 KiB frames in a region.
pub(crate) const REGION_FRAMES: u64 = REGION_SIZE / FRAME_SIZE;

/// The fault status that Freehold puts into the abort of an access that it refuses: alignment fault, which a kernel
/// that has never heard of it survives.
pub(crate) const REFUSED: u64 = 0b10_0001;

/// Fewer free pages than this in EL2's pool, and the cases give it more before they begin.
pub(crate) const POOL_LOW: u64 = 64;

/// Frames for a case, or the case is skipped.
pub(crate) fn frames(count: u64) -> Result<Frames, Outcome> {
    frames_aligned(count, FRAME_SIZE)
}

/// Frames at a multiple of `alignment` bytes for a case, or the case is skipped.
pub(crate) fn frames_aligned(count: u64, alignment: u64) -> Result<Frames, Outcome> {
    match frames::allocate_aligned(count, alignment) {
        Some(frames) => Ok(frames),
        None => skip!("no {count} frames in one piece at a multiple of {alignment:#x}"),
    }
}

/// Gives EL2 a region for its tables if it is short of pages, so that a case about something else does not end in
/// `NoMemory`.
pub(crate) fn fill_pool() -> TestResult {
    fill_pool_to(POOL_LOW)
}

/// Gives EL2 a region for its tables unless its pool has so many free pages.
pub(crate) fn fill_pool_to(pages: u64) -> TestResult {
    if succeed!(HYPERVISOR.statistic(Statistic::PoolFree)) < pages {
        // A whole region, which EL2 takes without a table of its own. It stays EL2's.
        let region = frames_aligned(REGION_FRAMES, REGION_SIZE)?;
        succeed!(HYPERVISOR.pool_top_up(region.range()));
    }
    Ok(())
}

/// Frames for a case that makes EL2 split tables.
pub(crate) fn pooled_frames(count: u64) -> Result<Frames, Outcome> {
    fill_pool()?;
    frames(count)
}

/// Skips the case on a machine with fewer CPUs.
pub(crate) fn needs_cpus(count: usize) -> TestResult {
    match machine().cpus.len() {
        present if present < count => Err(Outcome::Skipped(text(format_args!("needs {count} CPUs")))),
        _ => Ok(()),
    }
}

/// Asks Freehold whether its map of all RAM agrees with its tables.
pub(crate) fn audit_everything() -> TestResult {
    for memory in &machine().memory {
        let range = FrameRange::new(memory.start, (memory.end - memory.start) / FRAME_SIZE);
        let audit = succeed!(HYPERVISOR.audit(range));
        ensure_eq!(
            audit.disagreements,
            0,
            "frames whose map and table disagree after the case"
        );
        ensure_eq!(audit.frames, range.frames, "frames that the audit looked at");
    }
    Ok(())
}

/// The frame's state must be this, with this count.
pub(crate) fn ensure_state(frame: u64, state: FrameState, count: u64) -> TestResult {
    let info = succeed!(HYPERVISOR.frame_state(frame));
    ensure_eq!(
        (info.state, info.count),
        (state, count),
        "state of frame {frame:#x}"
    );
    Ok(())
}

/// The call must be refused with this status, and nothing that the host can see may have changed.
pub(crate) fn ensure_refused(call: HostCall, status: Status, around: &[u64]) -> TestResult {
    let before = Seen::look(around)?;
    match HYPERVISOR.call(call) {
        Err(CallError::Refused { status: got, detail }) => {
            ensure_eq!(got, status, "{call:x?}");
            // These say how many.
            let counts = matches!(
                status,
                Status::NoMemory | Status::VmNeedsMemory | Status::FramesLeft
            );
            if !counts {
                ensure_eq!(detail, 0, "{call:x?}: first result of a refusal");
            }
        }
        other => fail!("{call:x?}: got {other:x?}, expected {status:?}"),
    }
    before.ensure_unchanged(around)
}

/// What the host can see of EL2's books and of some frames.
#[derive(Debug, PartialEq)]
pub(crate) struct Seen {
    statistics: ArrayVec<u64, 8>,
    frames: ArrayVec<(Result<FrameInfo, CallError>, Option<u64>), 16>,
}

impl Seen {
    /// Looks at the frames with these addresses: their states, and the first word of each that can be read.
    pub(crate) fn look(around: &[u64]) -> Result<Self, Outcome> {
        let mut statistics = ArrayVec::new();
        for number in 0..8 {
            let statistic = Statistic::try_from(number).expect("there are eight statistics");
            statistics.push(succeed!(HYPERVISOR.statistic(statistic)));
        }
        let is_ram = |frame: u64| machine().memory.iter().any(|range| range.contains(&frame));
        let frames = around.iter().map(|&frame| {
            let info = HYPERVISOR.frame_state(frame);
            // A pinned frame is a trace ring here, and every call writes to it.
            let is_still = is_ram(frame) && info.is_ok_and(|info| info.count == 0);
            let read = || probe::access(Level::El1, Access::Load8, frame, 0).ok();
            (info, is_still.then(read).flatten())
        });
        Ok(Self {
            statistics,
            frames: frames.collect(),
        })
    }

    /// Looks again and compares.
    pub(crate) fn ensure_unchanged(&self, around: &[u64]) -> TestResult {
        ensure_eq!(Self::look(around)?, *self, "what the host can see afterwards");
        Ok(())
    }
}

/// A counter of this CPU.
pub(crate) fn counter(counter: Counter) -> Result<u64, Outcome> {
    Ok(succeed!(HYPERVISOR.counter(crate::cpu::number() as u64, counter)))
}

/// The access must come back as the refusal that Freehold promises.
pub(crate) fn ensure_access_refused(level: Level, access: Access, physical: u64) -> TestResult {
    let address = level.address(physical);
    let Err(fault) = probe::access(level, access, address, 0) else {
        fail!("{access:?} of {physical:#x} from {level:?} went through")
    };
    let expected = (
        level.data_abort(),
        REFUSED,
        address,
        probe::snippet(level, access),
        access.is_write(),
    );
    let got = (
        fault.class(),
        fault.status(),
        fault.far,
        fault.elr,
        fault.is_write(),
    );
    ensure_eq!(
        got,
        expected,
        "{access:?} of {physical:#x} from {level:?}: class, status, FAR, ELR, WnR"
    );
    Ok(())
}

/// Fetching from there must come back as the refusal that Freehold promises.
pub(crate) fn ensure_fetch_refused(level: Level, physical: u64) -> TestResult {
    let address = level.address(physical);
    let Err(fault) = probe::fetch(level, address, 0) else {
        fail!("{level:?} fetched from {physical:#x}")
    };
    let got = (fault.class(), fault.status(), fault.far, fault.elr);
    ensure_eq!(
        got,
        (level.instruction_abort(), REFUSED, address, address),
        "fetch from {physical:#x} by {level:?}"
    );
    Ok(())
}

/// Every kind of access from both levels must be refused.
pub(crate) fn ensure_all_refused(physical: u64) -> TestResult {
    for level in Level::ALL {
        for access in Access::ALL {
            ensure_access_refused(level, access, physical)?;
        }
        ensure_fetch_refused(level, physical)?;
    }
    Ok(())
}

/// The first thing that went wrong on any CPU.
#[derive(Debug)]
pub(crate) struct FirstError(TicketMutex<Option<Outcome>>);

impl FirstError {
    /// Nothing so far.
    pub(crate) const fn new() -> Self {
        Self(TicketMutex::new(None))
    }

    /// Keeps what went wrong, if it is the first.
    pub(crate) fn keep(&self, outcome: Outcome) {
        self.0.lock().get_or_insert(outcome);
    }

    /// Keeps a text, if it is the first.
    #[track_caller]
    pub(crate) fn report(&self, arguments: core::fmt::Arguments<'_>) {
        let location = core::panic::Location::caller();
        self.keep(Outcome::Failed(Failure {
            file: location.file(),
            line: location.line(),
            text: text(arguments),
        }));
    }

    /// Fails the case with what was kept.
    pub(crate) fn ensure_none(&self) -> TestResult {
        self.0.lock().take().map_or(Ok(()), Err)
    }
}
