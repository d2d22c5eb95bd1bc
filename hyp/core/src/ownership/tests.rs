//! Every call against every state, refusals that change nothing, the order of each transition, and faults.

mod aborts;
mod broken;
mod matrix;
mod order;
mod refusals;
mod transitions;

use super::{Devices, Ownership};
use crate::addr::{Frame, FrameSpan};
use crate::double::{Machine, system};
use crate::geometry::Arm4K;
use crate::map::Entry;
use std::vec::Vec;

pub(in crate::ownership) type System = Ownership<'static, Machine<Arm4K>>;

/// First frame of the RAM of the test machine: 1 GiB, where QEMU's virt machine has it.
pub(in crate::ownership) const RAM: u64 = 0x4_0000;
/// Frames of RAM: 16 regions.
pub(in crate::ownership) const RAM_FRAMES: u64 = 16 * 512;

pub(in crate::ownership) fn span(start: u64, frames: u64) -> FrameSpan {
    FrameSpan::new(Frame::new(start).unwrap(), frames).unwrap()
}

/// A machine with 32 MiB of RAM, of which EL2 reserved the first 2 MiB at boot.
pub(in crate::ownership) fn machine() -> System {
    system(&[span(RAM, RAM_FRAMES)], span(RAM, 512), Devices::new())
}

/// The first frame of a region that is the host's.
pub(in crate::ownership) const HOST_REGION: u64 = RAM + 512;

/// All entries of the map, to show that a refusal has changed none.
pub(in crate::ownership) fn picture(system: &System) -> Vec<Entry> {
    let map = system.map();
    map.regions()
        .flat_map(|region| {
            let locked = map.lock(system.hardware(), region.start()).unwrap();
            (0..512).map(|index| locked.entry(index)).collect::<Vec<_>>()
        })
        .collect()
}

/// Map, host table and EL2's table agree, and no CPU holds a stale translation.
pub(in crate::ownership) fn assert_sound(system: &System) {
    for region in system.map().regions() {
        let report = system.audit(region).unwrap();
        assert_eq!((report.frames, report.disagreements), (region.frames(), 0));
    }
    assert_eq!(system.guest_census(), [""; 0]);
    system.hardware().assert_coherent();
}
