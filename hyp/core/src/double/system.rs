//! A whole lower half on the double: map, host table and EL2's table over simulated RAM.

use super::Machine;
use crate::addr::{FrameSpan, Ipa};
use crate::geometry::Geometry;
use crate::hardware::Regime;
use crate::map::{Entry, OwnershipMap};
use crate::ownership::{Devices, Ownership};
use crate::pgtable::{Change, HypStage1, IpaSpan, LargestLeaf, Stage2, Stage2Attributes, Table};
use crate::state::HypUse;
use crate::sync::AtomicU64;
use crate::vm::VmSlot;
use std::boxed::Box;
use std::vec::Vec;

/// Width of the input addresses of the tables of a system: all that a table of level 1 and those below resolve.
fn address_bits<G: Geometry>() -> u32 {
    G::level_shift(1) + G::BITS_PER_LEVEL
}

/// The ownership of a machine with this RAM as it is when the host is entered for the first time: everything is the
/// host's and mapped to it, but for `boot`, which EL2 reserved.
///
/// The array of the map lives as long as the program.
///
/// # Panics
/// If the ranges are not ascending and separate, `boot` is not RAM, or its pages do not suffice for the tables.
#[must_use]
pub fn system<G: Geometry>(
    ram: &[FrameSpan],
    boot: FrameSpan,
    devices: Devices,
) -> Ownership<'static, Machine<G>> {
    system_with_places(ram, boot, devices, hyp_abi::vm::MAX_VMS)
}

/// A system with room for so many VMs only.
///
/// # Panics
/// As [`system`].
#[must_use]
pub fn system_with_places<G: Geometry>(
    ram: &[FrameSpan],
    boot: FrameSpan,
    devices: Devices,
    places: usize,
) -> Ownership<'static, Machine<G>> {
    let machine = Machine::<G>::new(ram, boot);
    let bits = address_bits::<G>();
    let host_tables = Table::<Stage2, G>::root_tables(1, bits).expect("level 1 resolves these bits");
    let host = Table::<Stage2, G>::new(machine.allocate_root(host_tables), 1, bits, Regime::Host)
        .expect("the root is aligned");
    let hyp = Table::<HypStage1, G>::new(machine.allocate_root(1), 1, bits, Regime::Hyp)
        .expect("the root is aligned");
    let count = OwnershipMap::<G>::words_needed(ram.iter().copied()).expect("the ranges are in order");
    let words: Vec<AtomicU64> = (0..count).map(|_| AtomicU64::new(0)).collect();
    let map =
        OwnershipMap::new(Box::leak(words.into_boxed_slice()), ram.iter().copied()).expect("the array fits");
    for region in map.regions() {
        let change = Change::Map {
            pa: region.start().address(),
            attributes: Stage2Attributes::HOST_MEMORY,
            largest: LargestLeaf::Region,
        };
        let owed = host
            .apply(&machine, IpaSpan::identity(region), change)
            .expect("the boot pool suffices");
        owed.complete(&machine);
    }
    let slots: Vec<VmSlot<Machine<G>>> = (0..places).map(|_| VmSlot::new()).collect();
    let slots = Box::leak(slots.into_boxed_slice());
    let ownership = Ownership::new(machine, map, host, hyp, devices, slots);
    let claimed = ownership.claim_at_boot(boot, Entry::hyp(HypUse::Boot));
    assert_eq!(claimed, Ok(boot.frames()), "EL2's reservation is RAM");
    ownership
}

/// The address that a CPU uses for the first byte of a frame, in the host's table and in EL2's.
#[must_use]
pub fn identity(frames: FrameSpan) -> Ipa {
    frames.start().address().host_ipa()
}
