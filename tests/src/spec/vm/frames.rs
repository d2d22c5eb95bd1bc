//! Frames of guests, by their physical addresses: taken by force, pinned, taken back.

use super::super::{Demand, Holding, Memory, bad_range, refusal};
use super::Place;
use super::answer::{done, lacking};
use super::call::Case;
use hyp_abi::{FRAME_SIZE, FrameRange, Status};

/// The most pins of a frame.
const MOST_PINS: u16 = 4095;

impl Memory {
    /// Why nobody may have a frame, whatever is asked; else the call's own reason.
    fn other(holding: Option<Holding>, reason: Status) -> Vec<Status> {
        match holding {
            None => vec![Status::NotMemory],
            Some(
                holding @ (Holding::Poisoned
                | Holding::Reserved
                | Holding::Device
                | Holding::InWork
                | Holding::Parked { .. }),
            ) => {
                let mut reasons = vec![reason];
                reasons.extend(refusal(Demand::PlainHost, holding));
                reasons
            }
            Some(_) => vec![reason],
        }
    }

    pub(super) fn force_reclaim(&mut self, case: &mut Case<'_>, address: u64) -> Result<(), String> {
        let frame = address / FRAME_SIZE;
        let holding = self.holding(case.layout, frame);
        let reasons = match (bad_range(FrameRange::new(address, 1)), holding) {
            (Some(status), _) => vec![status],
            (None, Some(Holding::Guest { .. })) => Vec::new(),
            (None, other) => Self::other(other, Status::NotOwner),
        };
        if case.refused(&reasons)? {
            return Ok(());
        }
        let Some(Holding::Guest { slot, gfn }) = holding else {
            return Err("no guest has it".to_owned());
        };
        let available = self.means(case, Some(slot));
        match case.answer.status {
            Status::NoMemory => return lacking("pages of the pool", case.answer.values[0], available.pool),
            Status::VmNeedsMemory => {
                return lacking("pages of the reserve", case.answer.values[0], available.reserve);
            }
            Status::Poisoned if self.broken.contains(&frame) && case.answer.values == [0; 3] => {
                self.lose_if_broken(case, slot, gfn, frame);
                return Ok(());
            }
            _ => {}
        }
        let done = case.answer.values[0].min(1);
        case.success([done, 0, 0])?;
        self.turn(case, frame, Holding::Host, true);
        let vm = self.vm(slot);
        vm.places.insert(gfn, Place::Lost);
        vm.lost += 1;
        Ok(())
    }

    /// Carries a ranged call out in which each frame is judged, and changed, for itself.
    fn each(
        &mut self,
        case: &mut Case<'_>,
        range: FrameRange,
        next: impl Fn(Option<Holding>) -> Result<Holding, Vec<Status>>,
    ) -> Result<(), String> {
        let bad: Vec<Status> = bad_range(range).into_iter().collect();
        if case.refused(&bad)? {
            return Ok(());
        }
        let first = range.base / FRAME_SIZE;
        let judge = |index: u64| {
            next(self.holding(case.layout, first + index))
                .err()
                .unwrap_or_default()
        };
        let done = done(case.answer, range.frames, &self.means(case, None), judge)?;
        self.whole_answer(case, done)?;
        for frame in first..first + done {
            let old = self.holding(case.layout, frame);
            let new = next(old).map_err(|reasons| format!("{frame:#x} is refused with {reasons:?}"))?;
            let zero = old == Some(Holding::Relinquished);
            self.turn(case, frame, new, zero);
        }
        Ok(())
    }

    pub(super) fn pin_shared(&mut self, case: &mut Case<'_>, range: FrameRange) -> Result<(), String> {
        self.each(case, range, |holding| match holding {
            Some(Holding::GuestShared { pins, .. }) if pins >= MOST_PINS => Err(vec![Status::CountOverflow]),
            Some(Holding::GuestShared { slot, gfn, pins }) => Ok(Holding::GuestShared {
                slot,
                gfn,
                pins: pins + 1,
            }),
            other => Err(Self::other(other, Status::NotShared)),
        })
    }

    pub(super) fn unpin_shared(&mut self, case: &mut Case<'_>, range: FrameRange) -> Result<(), String> {
        self.each(case, range, |holding| match holding {
            Some(Holding::GuestShared {
                slot,
                gfn,
                pins: pins @ 1..,
            }) => Ok(Holding::GuestShared {
                slot,
                gfn,
                pins: pins - 1,
            }),
            other => Err(Self::other(other, Status::NotPinned)),
        })
    }

    pub(super) fn take_back_given_up(
        &mut self,
        case: &mut Case<'_>,
        range: FrameRange,
    ) -> Result<(), String> {
        self.each(case, range, |holding| match holding {
            Some(Holding::Relinquished) => Ok(Holding::Host),
            Some(Holding::Poisoned) => Err(vec![Status::Poisoned]),
            other => Err(Self::other(other, Status::NotRelinquished)),
        })
    }
}
