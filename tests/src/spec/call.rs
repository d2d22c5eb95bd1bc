//! Carrying a call out on plain lists.
//!
//! - [`range`](super::range): the transitions of a range of frames.
//! - [`drain`](super::drain), [`trace`](super::trace): the pool's way back, and pins.

use super::about_guests;
use super::memory::{Layout, Memory, Piece};
use super::range::Act;
use super::{Expected, Holding, bad_range};
use hyp_abi::host_call::Statistic;
use hyp_abi::{Counter, FRAME_SIZE, FrameRange, HostCall, Status, VERSION};

/// What happens around a call.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct World {
    /// The pool gives out so many pages and then no more.
    pub pool_limit: Option<u64>,
    /// An interrupt waits once it has been looked for so many times in vain.
    pub interrupt_after: Option<u64>,
}

impl Memory {
    /// Carries a call out, and says what it must answer. `drained` are the frames that left the pool in this call:
    /// which of the free ones go is not laid down. `free_frames` is how many frames that `PoolTopUp` brought are not
    /// in use.
    ///
    /// # Errors
    /// What is wrong with `drained`.
    pub fn call(
        &mut self,
        layout: &Layout,
        world: &World,
        call: HostCall,
        drained: &[u64],
        free_frames: u64,
    ) -> Result<Expected, String> {
        if !drained.is_empty() && !matches!(call, HostCall::PoolDrain { .. }) {
            return Err(format!("{drained:x?} left the pool"));
        }
        Ok(match call {
            HostCall::Version => Expected::success([VERSION.to_register(), 0, layout.cpus as u64]),
            HostCall::ShareHyp(range) => self.ranged(layout, world, Act::Share, range),
            HostCall::UnshareHyp(range) => self.ranged(layout, world, Act::Unshare, range),
            HostCall::DonateHyp(range) => self.ranged(layout, world, Act::Donate, range),
            HostCall::PoolTopUp(range) => self.ranged(layout, world, Act::TopUp, range),
            HostCall::ReclaimHyp(range) => self.ranged(layout, world, Act::Reclaim, range),
            HostCall::PoolDrain { frames } => {
                return self.drain(layout, world, frames, drained, free_frames);
            }
            HostCall::Collapse(range) => self.look_over(layout, world, range, true),
            HostCall::Audit(range) => self.look_over(layout, world, range, false),
            HostCall::FrameState { frame } => self.frame_state(layout, frame),
            HostCall::Statistics { statistic } => self.statistic(layout, statistic),
            HostCall::Counter { cpu, counter } => {
                if cpu >= layout.cpus as u64 || Counter::try_from(counter).is_err() {
                    Expected::refused(Status::InvalidParameter)
                } else {
                    // What it counts is judged elsewhere.
                    Expected::success([0; 3])
                }
            }
            HostCall::TraceAttach { cpu, frame } => self.attach(layout, world, cpu, frame),
            HostCall::TraceDetach { cpu } => self.detach(layout, cpu),
            HostCall::GuestSupport => about_guests::support(layout),
            HostCall::GuestRegister { register, ipa_bits } => {
                about_guests::register(layout, register, ipa_bits)
            }
            HostCall::Vm(_) => return Err("what VMs do is followed, not foretold".to_owned()),
        })
    }

    /// `Collapse` and `Audit`: a walk over the regions of a range.
    fn look_over(&mut self, layout: &Layout, world: &World, range: FrameRange, collapse: bool) -> Expected {
        if let Some(status) = bad_range(range) {
            return Expected::refused(status);
        }
        let start = range.base / FRAME_SIZE;
        let end = start + range.frames;
        let mut polls = world.interrupt_after;
        let mut done = 0;
        while start + done < end {
            let Some(piece) = layout.piece(start + done, end) else {
                if done == 0 {
                    return Expected::refused(Status::NotMemory);
                }
                break;
            };
            if collapse && piece.whole {
                self.fold(layout, piece.region);
            }
            done += piece.frames;
            let waits = polls == Some(0);
            if start + done < end {
                polls = polls.map(|left| left.saturating_sub(1));
                if waits {
                    break;
                }
            }
        }
        Expected::success([done, 0, 0])
    }

    /// The one frame that an address names.
    pub(super) fn named(&self, layout: &Layout, address: u64) -> Result<(Piece, Holding), Status> {
        if let Some(status) = bad_range(FrameRange::new(address, 1)) {
            return Err(status);
        }
        let frame = address / FRAME_SIZE;
        let piece = layout.piece(frame, frame + 1).ok_or(Status::NotMemory)?;
        Ok((piece, self.frames[piece.index]))
    }

    fn frame_state(&self, layout: &Layout, address: u64) -> Expected {
        let (piece, holding) = match self.named(layout, address) {
            Ok(found) => found,
            Err(status) => return Expected::refused(status),
        };
        let (state, count) = holding.told();
        let whole = state != hyp_abi::FrameState::NotYours && self.uniform(layout, piece.region).is_some();
        let frames = if whole { layout.region } else { 1 };
        Expected::success([state.into(), count, frames * FRAME_SIZE])
    }

    fn statistic(&self, layout: &Layout, number: u64) -> Expected {
        let Ok(statistic) = Statistic::try_from(number) else {
            return Expected::refused(Status::InvalidParameter);
        };
        let host = |holding| holding == Holding::Host;
        let shared = |holding| matches!(holding, Holding::SharedHyp { .. });
        let hyp = |holding| matches!(holding, Holding::Boot | Holding::Pool | Holding::Donated);
        let value = match statistic {
            Statistic::Frames => self.frames.len() as u64,
            Statistic::FramesHost => self.count(host),
            Statistic::FramesSharedHyp => self.count(shared),
            Statistic::FramesHyp => self.count(hyp),
            Statistic::FramesOther => {
                self.count(|holding| !host(holding) && !shared(holding) && !hyp(holding))
            }
            Statistic::PoolFree => self.pool_total(layout) - self.pool_used(layout),
            Statistic::PoolTotal => self.pool_total(layout),
            Statistic::ReservedBytes => layout.boot_pages * FRAME_SIZE,
        };
        Expected::success([value, 0, 0])
    }
}
