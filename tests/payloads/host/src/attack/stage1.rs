//! What EL1 can do with its own translation: aliases, tables in frames that are not its own, and no translation.

use super::attacker::Attacker;
use super::call;
use super::gadget::{Bare, without_mmu};
use super::ground::Holding;
use super::tally::{self, Kind};
use crate::exception::class;
use crate::paging::SpareTable;
use crate::paging::window::{Attributes, Window};
use crate::probe::{self, Access, Level};
use hyp_abi::{FRAME_SIZE, FrameRange, HostCall, Status};
use spin::mutex::TicketMutex;

/// There is one spare table.
static WALK: TicketMutex<()> = TicketMutex::new(());

const ATTRIBUTES: [Attributes; 6] = [
    Attributes::ReadWrite,
    Attributes::ReadOnly,
    Attributes::User,
    Attributes::UserReadOnly,
    Attributes::NonCacheable,
    Attributes::ExecutableDevice,
];

impl Attacker<'_> {
    /// One attack by way of stage 1.
    pub(super) fn stage1(&mut self) {
        match self.random.below(8) {
            0..4 => self.alias(),
            4..6 => self.mmu_off(),
            _ => self.walk(),
        }
    }

    /// A frame is given away while this CPU keeps it mapped elsewhere, in other attributes.
    fn alias(&mut self) {
        let Some(index) = self.plot_in(&[Holding::Host]) else {
            return;
        };
        let frame = self.plots[index].any_frame(&mut self.random);
        let range = FrameRange::new(frame, 1);
        let Some(window) = Window::new(1) else { return };
        let attributes = self.random.pick(&ATTRIBUTES);
        window.map(0, frame, attributes);
        let (level, access) = (self.any_level(), self.any_access());
        // So that the TLB holds it, where stage 1 allows it at all.
        let _ = probe::access(level, access, window.address(), 0);
        match call::drive(HostCall::DonateHyp, range) {
            Ok(()) => {}
            Err((_, Status::NoMemory)) => return,
            Err(error) => return self.fail(format_args!("donating {frame:#x} answered {error:x?}")),
        }
        let result = probe::access(level, access, window.address(), 0);
        tally::attack(Kind::Alias, result.is_ok());
        if let Ok(value) = result {
            self.fail(format_args!(
                "{access:?} by {level:?} through {attributes:?} of {frame:#x} gave {value:#x}"
            ));
        }
        // Back: it is there again, and zero.
        if let Err((_, status)) = call::drive(HostCall::ReclaimHyp, range) {
            self.plots[index].holding = Holding::Torn;
            if status != Status::NoMemory {
                self.fail(format_args!("reclaiming {frame:#x} answered {status:?}"));
            }
            return;
        }
        let result = probe::access(Level::El1, Access::Load8, frame, 0);
        let seen = probe::access(Level::El1, Access::Load8, window.address(), 0);
        tally::attack(Kind::Alias, result.is_ok());
        if result != Ok(0) || seen != Ok(0) {
            self.fail(format_args!(
                "{frame:#x} came back as {result:x?}, through {attributes:?} {seen:x?}"
            ));
        }
    }

    /// Stage 1 off, and then an access: stage 2 is all that there is.
    fn mmu_off(&mut self) {
        if self.random.one_in(4) {
            let frame = self.scratch_frame();
            let value = self.random.next();
            let stored = without_mmu(Bare::Store(value), frame);
            let loaded = without_mmu(Bare::Load, frame);
            tally::attack(Kind::MmuOff, loaded.is_ok());
            if stored.is_err() || loaded != Ok(value) {
                self.fail(format_args!(
                    "{frame:#x} with the MMU off: {stored:x?}, {loaded:x?}"
                ));
            }
            return;
        }
        let address = self.forbidden() & !7;
        let bare = match self.random.below(3) {
            0 => Bare::Load,
            1 => Bare::Store(self.random.next()),
            _ => Bare::Fetch,
        };
        let result = without_mmu(bare, address);
        tally::attack(Kind::MmuOff, result.is_ok());
        let class = match bare {
            Bare::Fetch => class::INSTRUCTION_ABORT_SAME,
            _ => class::DATA_ABORT_SAME,
        };
        let is_refusal = |esr: u64| esr >> 26 & 0x3f == class && esr & 0x3f == super::access::REFUSED;
        match result {
            Err((esr, far)) if is_refusal(esr) && far == address => {}
            result => self.fail(format_args!(
                "{bare:?} of {address:#x} with the MMU off: {result:x?}"
            )),
        }
    }

    /// A translation table in a frame that is EL2's: the walk must be refused, and not take what is there.
    fn walk(&mut self) {
        let Some(lock) = WALK.try_lock() else { return };
        let frame = self.forbidden() & !(FRAME_SIZE - 1);
        let table = SpareTable::new(frame);
        table.hang();
        let level = Level::El1;
        let access = self.any_access();
        let result = probe::access(level, access, table.address(), 0);
        tally::attack(Kind::Walk, result.is_ok());
        self.must_be_refused(
            format_args!("{access:?} through a table at {frame:#x}"),
            level,
            result,
        );
        table.unhang();
        drop(lock);
    }
}
