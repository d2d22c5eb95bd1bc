//! Loads, stores and fetches by EL1 and EL0, to what is the CPU's own and to what is not.

use super::attacker::Attacker;
use super::ground::Holding;
use super::tally::{self, Kind};
use crate::cpu;
use crate::exception::Fault;
use crate::machine::machine;
use crate::paging::window::{Attributes, Window};
use crate::probe::{self, Access, Level};
use hyp_abi::FRAME_SIZE;

/// The fault status that Freehold puts into the abort of an access that it refuses: alignment fault.
pub(super) const REFUSED: u64 = 0b10_0001;

/// Stores whose value is all that they change.
const PLAIN_STORES: [Access; 2] = [Access::Store8, Access::StoreRelease];

impl Attacker<'_> {
    /// One access, of any kind to anything.
    pub(super) fn access(&mut self) {
        match self.random.below(100) {
            0..20 => self.own_memory(),
            20..45 => self.donated_memory(),
            45..60 => self.hyp_memory(),
            60..68 => self.contested_memory(),
            68..80 => self.across_an_edge(),
            80..95 => self.fetch(),
            _ => self.nothing_there(),
        }
    }

    pub(super) fn any_level(&mut self) -> Level {
        self.random.pick(&Level::ALL)
    }

    pub(super) fn any_access(&mut self) -> Access {
        self.random.pick(&Access::ALL)
    }

    /// Fails the run, with the place.
    pub(super) fn fail(&self, text: core::fmt::Arguments<'_>) {
        tally::fail(format_args!("CPU {} step {}: {text}", cpu::number(), self.step));
    }

    /// The access must have come back as Freehold's refusal. Returns whether it was refused at all.
    pub(super) fn must_be_refused(
        &self,
        what: core::fmt::Arguments<'_>,
        level: Level,
        result: Result<u64, Fault>,
    ) -> bool {
        match result {
            Ok(value) => {
                self.fail(format_args!("{what} went through and gave {value:#x}"));
                false
            }
            Err(fault) => {
                let is_abort =
                    fault.class() == level.data_abort() || fault.class() == level.instruction_abort();
                if !is_abort || fault.status() != REFUSED {
                    self.fail(format_args!("{what} ended in {fault:?}"));
                }
                true
            }
        }
    }

    /// Memory that is the CPU's own, shared or not, is there for it.
    fn own_memory(&mut self) {
        let Some(index) = self.plot_in(&[Holding::Host, Holding::Shared, Holding::Ring]) else {
            return;
        };
        let level = self.any_level();
        let plot = &self.plots[index];
        let address = plot.any_frame(&mut self.random) + self.random.below(FRAME_SIZE / 64) * 64;
        // What a shared plot holds is known, and must stay.
        let (access, value) = match plot.holding {
            Holding::Host => (self.random.pick(&Access::ALL), self.random.next()),
            Holding::Shared => (self.random.pick(&PLAIN_STORES), plot.word(address)),
            _ => (Access::Load8, 0),
        };
        let result = probe::access(level, access, level.address(address), value);
        tally::attack(Kind::OwnMemory, result.is_ok());
        if let Err(fault) = result {
            self.fail(format_args!(
                "{access:?} by {level:?} of its own {address:#x} ended in {fault:?}"
            ));
        }
    }

    fn donated_memory(&mut self) {
        let Some(index) = self.donated_plot() else { return };
        let address = self.plots[index].any_frame(&mut self.random) + self.random.below(FRAME_SIZE / 64) * 64;
        self.forbidden_access(Kind::DonatedMemory, address);
    }

    fn hyp_memory(&mut self) {
        let hyp = &self.ground.hyp;
        let address = match self.random.below(8) {
            0 => hyp.start,
            1 => hyp.end - 64,
            _ => hyp.start + self.random.below((hyp.end - hyp.start) / 64) * 64,
        };
        self.forbidden_access(Kind::HypMemory, address);
    }

    fn forbidden_access(&mut self, kind: Kind, address: u64) {
        let (level, access) = (self.any_level(), self.any_access());
        let result = probe::access(level, access, level.address(address), self.random.next());
        tally::attack(kind, result.is_ok());
        self.must_be_refused(
            format_args!("{access:?} by {level:?} of {address:#x}"),
            level,
            result,
        );
    }

    /// What others share and donate meanwhile: it works or is refused, and nothing else.
    fn contested_memory(&mut self) {
        let (level, access) = (self.any_level(), self.any_access());
        let frame = self.random.below(self.ground.contested.frames);
        let address =
            self.ground.contested.base + frame * FRAME_SIZE + self.random.below(FRAME_SIZE / 64) * 64;
        let result = probe::access(level, access, level.address(address), self.random.next());
        tally::attack(Kind::ContestedMemory, result.is_ok());
        if result.is_err() {
            self.must_be_refused(
                format_args!("{access:?} by {level:?} of {address:#x}"),
                level,
                result,
            );
        }
    }

    /// An access that begins before an edge of what is donated and ends behind it.
    fn across_an_edge(&mut self) {
        let Some(index) = self.donated_plot() else { return };
        let level = self.any_level();
        let (access, size) = self.random.pick(&[
            (Access::Load2, 2),
            (Access::Load4, 4),
            (Access::Load8, 8),
            (Access::LoadPair, 16),
            (Access::LoadVector, 16),
        ]);
        let range = self.plots[index].range;
        let edge = if self.random.one_in(2) {
            range.base
        } else {
            range.base + range.frames * FRAME_SIZE
        };
        // Behind the last frame of RAM there is nothing that stage 1 maps.
        if edge == self.ground.end {
            return;
        }
        let address = edge - 1 - self.random.below(size - 1);
        let result = probe::access(level, access, level.address(address), 0);
        tally::attack(Kind::AcrossEdge, result.is_ok());
        self.must_be_refused(
            format_args!("{access:?} by {level:?} across {edge:#x}"),
            level,
            result,
        );
    }

    fn fetch(&mut self) {
        let level = self.any_level();
        if self.random.one_in(4) {
            let frame = self.scratch_frame();
            crate::frames::Frames::adopt(hyp_abi::FrameRange::new(frame, 1))
                .write_code(0, &[probe::end_of_code(level)]);
            let result = probe::fetch(level, level.address(frame), 7);
            tally::attack(Kind::Fetch, result.is_ok());
            if result != Ok(7) {
                self.fail(format_args!(
                    "{level:?} could not execute its own {frame:#x}: {result:?}"
                ));
            }
            return;
        }
        let address = self.forbidden() & !3;
        let result = probe::fetch(level, level.address(address), 0);
        tally::attack(Kind::Fetch, result.is_ok());
        self.must_be_refused(
            format_args!("a fetch by {level:?} from {address:#x}"),
            level,
            result,
        );
    }

    /// Addresses where the machine has nothing: an abort or zeroes, and the host lives on.
    fn nothing_there(&mut self) {
        let Some(window) = Window::new(1) else { return };
        let address = match self.random.below(4) {
            // Between the devices of QEMU's virt machine (hw/arm/virt.c, base_memmap).
            0 => 0x0b00_0000 + self.random.below(1 << 12) * FRAME_SIZE,
            1 => self.ground.end + self.random.below(1 << 18) * FRAME_SIZE,
            2 => 1 << (36 + self.random.below(12)),
            _ => (self.random.next() & ((1 << 48) - 1) | 1 << 45) & !(FRAME_SIZE - 1),
        };
        let attributes = self.random.pick(&[
            Attributes::ReadWrite,
            Attributes::NonCacheable,
            Attributes::ExecutableDevice,
        ]);
        window.map(0, address, attributes);
        let is_store = self.random.one_in(2);
        let access = if is_store { Access::Store4 } else { Access::Load4 };
        let result = probe::access(Level::El1, access, window.address(), 0);
        tally::attack(Kind::Nothing, result.is_ok());
        if let Err(fault) = result
            && fault.class() != Level::El1.data_abort()
        {
            self.fail(format_args!(
                "{access:?} of {address:#x}, where nothing is, ended in {fault:?}"
            ));
        }
    }

    /// The frame of this CPU's redistributor region that a device attack reaches for.
    pub(super) fn redistributor(&self) -> Option<u64> {
        crate::interrupts::own_redistributor_address(machine())
    }
}
