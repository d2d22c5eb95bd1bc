//! One CPU of the hostile host.

use super::ground::{Estate, Ground, Holding, Plot};
use super::random::Random;
use crate::{sysreg, timer};
use arrayvec::ArrayVec;
use hyp_abi::FrameRange;

/// What one CPU attacks with, and what it knows.
#[derive(Debug)]
pub(super) struct Attacker<'g> {
    /// Its own numbers.
    pub(super) random: Random,
    /// How many attacks it has made.
    pub(super) step: u64,
    /// What all CPUs know.
    pub(super) ground: &'g Ground,
    /// Its plots.
    pub(super) plots: ArrayVec<Plot, 40>,
    /// Frames that it may do anything to.
    pub(super) scratch: FrameRange,
}

impl<'g> Attacker<'g> {
    /// The attacker of CPU `cpu`.
    pub(super) fn new(seed: u64, cpu: usize, ground: &'g Ground, estate: Estate) -> Self {
        Self {
            random: Random::new(seed, cpu as u64 + 1),
            step: 0,
            ground,
            plots: estate.plots,
            scratch: estate.scratch,
        }
    }

    /// Attacks by at least `calls` hypercalls, and between them in every other way, while the timer interrupts.
    /// `between` is called now and then.
    pub(super) fn burst(&mut self, calls: u64, mut between: impl FnMut(&mut Self)) {
        let second = sysreg::counter_frequency();
        // Three milliseconds and more: each is an exit of a guest, which on an emulator is slow.
        timer::interrupt_every(second / 300 + self.random.below(second / 200));
        sysreg::unmask_irqs();
        for call in 0..calls {
            self.step += 1;
            if self.random.one_in(3) {
                self.guests();
            } else {
                self.hypercall();
            }
            if self.random.one_in(2) {
                self.step += 1;
                self.other();
            }
            if call % 16 == 15 {
                between(self);
            }
        }
        sysreg::mask_irqs();
        timer::stop();
    }

    /// One attack other than by hypercall.
    fn other(&mut self) {
        match self.random.below(100) {
            0..40 => self.access(),
            40..48 => self.stage1(),
            48..60 => self.device(),
            60..72 => self.firmware_call(),
            _ => self.system(),
        }
    }

    /// The number of a plot, small ones and large ones alike. Work on a region takes long, so these are rarer.
    pub(super) fn any_plot(&mut self) -> usize {
        let count = self.plots.len() as u64;
        let index = self.random.below(count) as usize;
        if self.plots[index].range.frames >= 64 && !self.random.one_in(4) {
            return self.random.below(count / 2) as usize;
        }
        index
    }

    /// A plot that is donated now, if one is found quickly.
    pub(super) fn donated_plot(&mut self) -> Option<usize> {
        self.plot_in(&[Holding::Donated])
    }

    /// A plot that is in one of these states now, if one is found quickly.
    pub(super) fn plot_in(&mut self, holdings: &[Holding]) -> Option<usize> {
        let count = self.plots.len();
        let from = self.random.below(count as u64) as usize;
        (0..count)
            .map(|offset| (from + offset) % count)
            .find(|&index| holdings.contains(&self.plots[index].holding))
    }

    /// A frame that nothing is kept in.
    pub(super) fn scratch_frame(&mut self) -> u64 {
        self.scratch.base + self.random.below(self.scratch.frames) * hyp_abi::FRAME_SIZE
    }

    /// A physical address that is EL2's by now, or was from the start.
    pub(super) fn forbidden(&mut self) -> u64 {
        let donated = if self.random.one_in(2) {
            self.donated_plot()
        } else {
            None
        };
        let within = self.random.below(hyp_abi::FRAME_SIZE);
        match donated {
            Some(index) => self.plots[index].any_frame(&mut self.random) + within,
            None => {
                let hyp = &self.ground.hyp;
                hyp.start + self.random.below(hyp.end - hyp.start)
            }
        }
    }
}
