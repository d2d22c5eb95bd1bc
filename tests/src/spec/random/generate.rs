//! What a host might do next.

use super::Act;
use crate::spec::rig::Rig;
use crate::spec::{Holding, World};
use hyp_abi::host_call::HOST_CALL_BASE;
use hyp_abi::{FRAME_SIZE, FrameRange, HostCall};
use hyp_core::geometry::Arm4K;

/// Regions at the end of RAM that calls on whole regions like.
const WHOLE_REGIONS: usize = 2;

/// Numbers that look random and are the same for the same seed (SplitMix64).
#[derive(Debug)]
pub(super) struct Source {
    state: u64,
}

impl Source {
    pub(super) const fn new(seed: u64) -> Self {
        Self { state: seed }
    }

    pub(super) fn next(&mut self) -> u64 {
        self.state = self.state.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut mixed = self.state;
        mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        mixed ^ (mixed >> 31)
    }

    pub(super) fn below(&mut self, end: u64) -> u64 {
        self.next() % end.max(1)
    }

    /// Whether something happens that happens once in `times`.
    pub(super) fn once_in(&mut self, times: u64) -> bool {
        self.below(times) == 0
    }

    pub(super) fn pick<T: Copy>(&mut self, from: &[T]) -> T {
        from[self.below(from.len() as u64) as usize]
    }

    /// The next act.
    pub(super) fn act(&mut self, rig: &Rig<Arm4K>) -> Act {
        if self.once_in(1500) {
            return Act::Break(self.frame(rig));
        }
        let world = self.world();
        let registers = match self.below(16) {
            0..=8 => self.fitting(rig).encode(),
            9..=14 => self.blind(rig).encode(),
            _ => self.senseless(rig),
        };
        Act::Call { registers, world }
    }

    pub(super) fn world(&mut self) -> World {
        match self.below(10) {
            0 => World {
                pool_limit: Some(self.below(6)),
                interrupt_after: None,
            },
            1 | 3 => World {
                pool_limit: None,
                interrupt_after: Some(self.below(40)),
            },
            2 if self.once_in(3) => World {
                pool_limit: Some(self.below(4)),
                interrupt_after: Some(self.below(4)),
            },
            _ => World::default(),
        }
    }

    /// A frame of RAM, often at a border of its region. The last two regions are mostly left to calls on whole ones.
    pub(super) fn frame(&mut self, rig: &Rig<Arm4K>) -> u64 {
        let regions = &rig.layout().regions;
        let kept = if self.once_in(32) { 0 } else { WHOLE_REGIONS };
        self.pick(&regions[..regions.len() - kept]) + self.offset()
    }

    fn offset(&mut self) -> u64 {
        match self.below(4) {
            0 => self.pick(&[0, 1, 2, 510, 511]),
            1 => self.pick(&[15, 16, 17, 255, 256, 300]),
            2 => 0,
            _ => self.below(512),
        }
    }

    pub(super) fn length(&mut self) -> u64 {
        match self.below(8) {
            0..=2 => 1,
            3 => self.pick(&[2, 3, 15, 16, 17, 33]),
            4 => self.pick(&[510, 511, 512, 513, 514]),
            5 => 512 * (1 + self.below(4)),
            6 => 1 + self.below(1600),
            _ => 1 + self.below(64),
        }
    }

    /// A call that suits what a frame is, on the run of frames that are alike, or on a part of it.
    fn fitting(&mut self, rig: &Rig<Arm4K>) -> HostCall {
        let (mut first, mut length) = (self.frame(rig), self.length());
        if self.once_in(4) {
            // Whole regions, which can be parked.
            let regions = &rig.layout().regions;
            first = self.pick(&regions[regions.len() - WHOLE_REGIONS..]);
            length = 512 * (1 + self.below(3));
        }
        let holding = rig.memory().holding(rig.layout(), first);
        let alike = (first..first + length)
            .take_while(|number| rig.memory().holding(rig.layout(), *number) == holding)
            .count() as u64;
        let range = FrameRange::new(first * FRAME_SIZE, alike.max(1));
        match holding {
            Some(Holding::Host) => match self.below(16) {
                0..=6 => HostCall::ShareHyp(range),
                7 if alike <= 64 => HostCall::PoolTopUp(range),
                _ => HostCall::DonateHyp(range),
            },
            Some(Holding::SharedHyp { .. }) => match self.below(4) {
                0 => HostCall::TraceAttach {
                    cpu: self.below(8),
                    frame: range.base,
                },
                _ => HostCall::UnshareHyp(range),
            },
            Some(Holding::Donated) => HostCall::ReclaimHyp(range),
            Some(Holding::Parked { .. }) => {
                let region = first & !511;
                HostCall::ReclaimHyp(FrameRange::new(region * FRAME_SIZE, 512 * (1 + self.below(2))))
            }
            Some(Holding::Pool) => HostCall::PoolDrain {
                frames: self.pick(&[1, 2, 15, 16, 17, 100]),
            },
            _ => HostCall::TraceDetach { cpu: self.below(8) },
        }
    }

    /// Any call on any range of RAM.
    fn blind(&mut self, rig: &Rig<Arm4K>) -> HostCall {
        let range = FrameRange::new(self.frame(rig) * FRAME_SIZE, self.length());
        match self.below(18) {
            0 | 1 => HostCall::ShareHyp(range),
            2 | 3 => HostCall::UnshareHyp(range),
            4 => HostCall::DonateHyp(range),
            5 | 6 => HostCall::ReclaimHyp(range),
            7 => HostCall::PoolTopUp(FrameRange::new(range.base, range.frames.min(20))),
            8 | 9 => HostCall::PoolDrain {
                frames: self.below(20),
            },
            10 => HostCall::Collapse(range),
            11 => {
                let region = range.base & !(512 * FRAME_SIZE - 1);
                HostCall::Collapse(FrameRange::new(region, 512 * (1 + self.below(3))))
            }
            12 => HostCall::FrameState { frame: range.base },
            13 => HostCall::Statistics {
                statistic: self.below(9),
            },
            14 => HostCall::Counter {
                cpu: self.below(9),
                counter: self.below(17),
            },
            15 => HostCall::Audit(range),
            16 => HostCall::TraceAttach {
                cpu: self.below(9),
                frame: range.base,
            },
            _ => match self.below(4) {
                0 => HostCall::TraceDetach { cpu: self.below(9) },
                1 => HostCall::GuestSupport,
                2 => HostCall::GuestRegister {
                    register: 0xc000 + self.below(80),
                    ipa_bits: 30 + self.below(20),
                },
                _ => HostCall::Version,
            },
        }
    }

    /// Registers that no honest host would have: any function, addresses and counts at the edges of everything.
    fn senseless(&mut self, rig: &Rig<Arm4K>) -> [u64; 7] {
        let mut registers = [0; 7];
        registers[0] = match self.below(8) {
            0 => self.next(),
            1 => u64::from(HOST_CALL_BASE) + self.pick(&[16, 17, 0xffff, u64::MAX >> 33]),
            2 => u64::from(HOST_CALL_BASE) | 1 << 32,
            _ => u64::from(HOST_CALL_BASE) + self.below(16),
        };
        for register in &mut registers[1..] {
            *register = self.edge(rig);
        }
        registers
    }

    pub(super) fn edge(&mut self, rig: &Rig<Arm4K>) -> u64 {
        let value = match self.below(10) {
            0 => 0,
            1 => 1,
            2 => 1 << self.below(64),
            3 => u64::MAX << self.below(64),
            4 => (1 << 48) - FRAME_SIZE * self.below(3),
            5 => self.next(),
            6 => self.length(),
            7 => u64::MAX,
            _ => self.frame(rig) * FRAME_SIZE,
        };
        match self.below(6) {
            0 => value.wrapping_add(1),
            1 => value.wrapping_sub(1),
            2 => value.wrapping_add(FRAME_SIZE),
            _ => value,
        }
    }
}
