//! Whether an access of the host that faulted in its stage 2 may go on.
//!
//! The map judges, under the lock of the frame's region: while one CPU breaks a mapping to make another, a second
//! CPU faults on memory that is its own. Only what the map forbids is given back to the host as an exception.

use super::{DeviceOwner, DeviceRange, Ownership};
use crate::addr::{FrameSpan, Ipa};
use crate::geometry::Geometry;
use crate::hardware::{Event, Hardware, LockName};
use crate::map::OwnershipMap;
use crate::pgtable::{Change, EngineError, IpaSpan, LargestLeaf, Stage2Attributes};
use crate::state::State;

/// How the host reached for an address.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum HostAccess {
    /// A load.
    Read,
    /// A store.
    Write,
    /// An instruction fetch.
    Fetch,
}

/// What becomes of an access that faulted.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum AbortVerdict {
    /// It is allowed by now: the host goes back to the same instruction.
    Retry,
    /// It is forbidden: the host gets an exception.
    Inject,
    /// EL2 carries it out, as far as the owner of these registers lets it.
    Emulate(DeviceRange),
}

impl<H: Hardware> Ownership<'_, H> {
    /// Judges an access of the host to `address` that faulted in stage 2, and maps device registers that it
    /// touches for the first time.
    pub fn judge_host_abort(&self, address: Ipa, access: HostAccess) -> AbortVerdict {
        let frame = address.host_address().frame();
        let Some(region) = self.map.lock(&self.hw, frame) else {
            return self.judge_device_access(address, access);
        };
        let index = OwnershipMap::<H::Geometry>::index_of(frame);
        match region.entry(index).state() {
            State::Device => {
                if access == HostAccess::Fetch {
                    return AbortVerdict::Inject;
                }
                self.map_device(IpaSpan::identity(FrameSpan::single(frame)), LargestLeaf::Page)
            }
            // RAM that the host may use is always mapped, for every kind of access, when the lock is free: the fault
            // came from a table in the middle of a change, which is over.
            state if state.host_may_access() => AbortVerdict::Retry,
            _ => AbortVerdict::Inject,
        }
    }

    /// Judges an access to an address at which no RAM lies.
    fn judge_device_access(&self, address: Ipa, access: HostAccess) -> AbortVerdict {
        // Nobody executes from device registers: the host's table maps them without that right.
        if access == HostAccess::Fetch || address.value() >> self.host.ia_bits() != 0 {
            return AbortVerdict::Inject;
        }
        let devices = self.devices.lock();
        self.hw.observe(Event::Locked(LockName::HostDevices));
        let verdict = match devices.find(address.host_address()) {
            Some(range) if range.owner == DeviceOwner::Hyp => AbortVerdict::Inject,
            Some(range) => AbortVerdict::Emulate(range),
            None => self.map_device_block(address, |start, end| devices.overlapping(start, end).is_some()),
        };
        self.hw.observe(Event::Unlocked(LockName::HostDevices));
        verdict
    }

    /// Maps the largest block around `address` in which there is no RAM and no register of another owner.
    fn map_device_block(&self, address: Ipa, taken: impl Fn(u64, u64) -> bool) -> AbortVerdict {
        let sizes = [
            (1, LargestLeaf::Gigabyte),
            (2, LargestLeaf::Region),
            (3, LargestLeaf::Page),
        ];
        let Some(entry) = self.host.walk(&self.hw, address) else {
            return AbortVerdict::Inject;
        };
        if entry.descriptor.is_valid() {
            // Another CPU has mapped it since.
            return AbortVerdict::Retry;
        }
        for (level, largest) in sizes.into_iter().filter(|(level, _)| *level >= entry.level) {
            let shift = <H::Geometry as Geometry>::level_shift(level);
            let start = address.align_down(shift);
            let Some(span) = IpaSpan::new(start, <H::Geometry as Geometry>::level_frames(level)) else {
                continue;
            };
            if self.host.contains(span)
                && !taken(start.value(), span.end())
                && !self.map.holds_ram(start.value(), span.end())
            {
                return self.map_device(span, largest);
            }
        }
        AbortVerdict::Inject
    }

    /// Maps device registers for the host. Without the pages for it the access is refused, and may be tried again
    /// once the pool has some.
    fn map_device(&self, span: IpaSpan, largest: LargestLeaf) -> AbortVerdict {
        let change = Change::Map {
            pa: span.start().host_address(),
            attributes: Stage2Attributes::HOST_DEVICE,
            largest,
        };
        match self.host.apply(&self.hw, span, change) {
            Ok(owed) => {
                owed.complete(&self.hw);
                AbortVerdict::Retry
            }
            // Another CPU has mapped a part of it since.
            Err(EngineError::Mapped { .. }) => AbortVerdict::Retry,
            Err(_) => AbortVerdict::Inject,
        }
    }
}
