//! The frames that go to EL2's pool and come back.

use super::ground::{BANK_REGIONS, REGION_FRAMES};
use super::random::Random;
use super::{call, tally};
use crate::frames::Frames;
use hyp_abi::{FRAME_SIZE, FrameRange, HostCall, Status};
use spin::mutex::TicketMutex;

const FRAMES: usize = (BANK_REGIONS * REGION_FRAMES) as usize;

/// Which frames the host holds and may give away, a bit each, and where they are.
struct Bank {
    area: FrameRange,
    held: [u64; FRAMES / 64],
    given: u64,
    returned: u64,
}

static BANK: TicketMutex<Bank> = TicketMutex::new(Bank {
    area: FrameRange::new(0, 0),
    held: [0; FRAMES / 64],
    given: 0,
    returned: 0,
});

impl Bank {
    fn holds(&self, index: u64) -> bool {
        self.held[index as usize / 64] >> (index % 64) & 1 != 0
    }

    fn set(&mut self, first: u64, count: u64, held: bool) {
        for index in first..first + count {
            let bit = 1 << (index % 64);
            let word = &mut self.held[index as usize / 64];
            *word = if held { *word | bit } else { *word & !bit };
        }
    }

    fn range(&self, first: u64, count: u64) -> FrameRange {
        FrameRange::new(self.area.base + first * FRAME_SIZE, count)
    }

    /// Takes an aligned run of `count` frames out of those that are held, from a random place on.
    fn take(&mut self, random: &mut Random, count: u64) -> Option<u64> {
        let runs = FRAMES as u64 / count;
        let from = random.below(runs);
        let first = (0..runs)
            .map(|run| (from + run) % runs * count)
            .find(|&first| (first..first + count).all(|index| self.holds(index)))?;
        self.set(first, count, false);
        Some(first)
    }
}

/// Begins with `area` in the host's hands. Its last region stays out of reach until [`open_reserve`].
pub(super) fn open(area: FrameRange) {
    let mut bank = BANK.lock();
    bank.area = area;
    bank.set(0, FRAMES as u64 - REGION_FRAMES, true);
}

/// The last region may go, too: a whole one, which EL2 can take when it has no page left.
pub(super) fn open_reserve() {
    BANK.lock()
        .set(FRAMES as u64 - REGION_FRAMES, REGION_FRAMES, true);
}

/// Gives a run of `count` frames, a power of two up to a region, to EL2's pool. Returns whether some went.
pub(super) fn give(random: &mut Random, count: u64) -> bool {
    let (first, range) = {
        let mut bank = BANK.lock();
        let Some(first) = bank.take(random, count) else {
            return false;
        };
        (first, bank.range(first, count))
    };
    // What EL2's pool gives back must be zero, not this.
    Frames::adopt(range).fill(random.next());
    let answer = call::drive(HostCall::PoolTopUp, range);
    let given = match answer {
        Ok(()) => count,
        Err((done, _)) => done,
    };
    let mut bank = BANK.lock();
    bank.given += given;
    match answer {
        Ok(()) => {}
        Err((_, Status::NoMemory)) => bank.set(first + given, count - given, true),
        other => {
            drop(bank);
            tally::fail(format_args!("PoolTopUp {:#x} {count}: {other:?}", range.base));
        }
    }
    given > 0
}

/// Asks for up to `limit` frames of EL2's pool. Returns how many came.
///
/// # Errors
/// The refusal.
pub(super) fn drain(limit: u64) -> Result<u64, Status> {
    let [base, count, _] = call::checked(HostCall::PoolDrain { frames: limit })?;
    if count == 0 {
        return Ok(0);
    }
    let mut bank = BANK.lock();
    let first = base.wrapping_sub(bank.area.base) / FRAME_SIZE;
    let is_ours = base >= bank.area.base
        && base.is_multiple_of(FRAME_SIZE)
        && count <= limit
        && first.checked_add(count).is_some_and(|end| end <= FRAMES as u64)
        && !(first..first + count).any(|index| bank.holds(index));
    if !is_ours {
        drop(bank);
        tally::fail(format_args!(
            "PoolDrain gave {count} frames at {base:#x}, which it never got"
        ));
        return Ok(count);
    }
    if let Some((at, value)) = Frames::adopt(bank.range(first, count)).find_wrong(|_| 0) {
        tally::fail(format_args!("PoolDrain: {at:#x} holds {value:#x}"));
    }
    bank.set(first, count, true);
    bank.returned += count;
    Ok(count)
}

/// Frames that went to EL2's pool, and that came back from it.
pub(super) fn balance() -> (u64, u64) {
    let bank = BANK.lock();
    (bank.given, bank.returned)
}
