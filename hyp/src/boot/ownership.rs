//! The ownership map and the host's table as they are when the host starts: all RAM is the host's, but EL2's own
//! and the firmware's.

#![expect(unsafe_code, reason = "turns the array of the map into a slice")]

use super::tables::HypTable;
use crate::hardware::Machine;
use crate::machine as kept;
use core::ptr;
use core::slice;
use hyp_abi::vm::MAX_VMS;
use hyp_core::Hardware;
use hyp_core::addr::{Frame, FrameSpan};
use hyp_core::geometry::{Arm4K, Geometry};
use hyp_core::hardware::{Regime, TablePage};
use hyp_core::machine::{BootPlan, MachineDescription, PhysRange};
use hyp_core::map::{Entry, OwnershipMap};
use hyp_core::ownership::{Devices, Ownership};
use hyp_core::pgtable::{Change, IpaSpan, LargestLeaf, Stage2, Stage2Attributes, Table};
use hyp_core::state::{HypUse, State};
use hyp_core::sync::{AtomicU64, Ordering};
use hyp_core::vm::VmSlot;

type HostTable = Table<Stage2, Arm4K>;
/// The places of the VMs.
static VM_SLOTS: [VmSlot<Machine>; MAX_VMS] = [const { VmSlot::new() }; MAX_VMS];

type Map = OwnershipMap<'static, Arm4K>;

/// Makes the map and the host's table, and keeps the ownership of the machine in [`crate::machine`].
///
/// # Panics
/// If the pool runs out of the pages that the plan keeps for it.
pub(super) fn set_up(machine: &MachineDescription<'_>, plan: &BootPlan, hyp: HypTable, devices: Devices) {
    let map = build_map(machine, plan);
    let host = build_host_table(machine, plan);
    kept::set_ownership(Ownership::new(Machine, map, host, hyp, devices, &VM_SLOTS));
    claim(plan.reservation, Entry::hyp(HypUse::Boot));
    claim_firmware(machine);
    claim_gaps(machine);
    kept::ownership().keep_spare();
}

fn build_map(machine: &MachineDescription<'_>, plan: &BootPlan) -> Map {
    let words: *const AtomicU64 = ptr::with_exposed_provenance(plan.ownership_array.start() as usize);
    let count = plan.regions as usize;
    // SAFETY: the plan keeps the array for the map, 8 bytes for each region; it is mapped in the boot's tables and
    // in the final one. Whatever is there is a valid `u64`, and the map sets every word before it reads one.
    let words = unsafe { slice::from_raw_parts(words, count) };
    let ranges = machine
        .memory
        .regions()
        .iter()
        .map(|region| region.frames_touched());
    Map::new(words, ranges).expect("the plan counts the regions of the same memory")
}

/// The host's table, with every region that holds some RAM mapped whole. What is not the host's is claimed after.
fn build_host_table(machine: &MachineDescription<'_>, plan: &BootPlan) -> HostTable {
    let root = plan.host_root.frames_touched();
    for frame in root.iter() {
        // The pool's pages come zeroed; the root is not one of them.
        for entry in Machine.table(TablePage::new(frame)) {
            entry.store(0, Ordering::Relaxed);
        }
    }
    let size = plan.input_size;
    let host = HostTable::new(
        TablePage::new(root.start()),
        size.start_level(),
        size.bits(),
        Regime::Host,
    )
    .expect("the plan's root is aligned to its size");
    for run in machine.memory.blocks(Arm4K::REGION_SHIFT) {
        let regions = Frame::new(run.first << Arm4K::BITS_PER_LEVEL)
            .and_then(|start| FrameSpan::new(start, run.count << Arm4K::BITS_PER_LEVEL))
            .expect("RAM lies below 2^48");
        let pa = regions.start().address();
        let attributes = Stage2Attributes::HOST_MEMORY;
        let change = Change::Map {
            pa,
            attributes,
            largest: LargestLeaf::Region,
        };
        let mapped = host.apply(&Machine, IpaSpan::identity(regions), change);
        mapped
            .expect("the plan keeps pages enough for the host's table")
            .complete(&Machine);
    }
    host
}

/// Takes what the firmware wants nobody to map. Its ranges may overlap, or name memory that is not there.
fn claim_firmware(machine: &MachineDescription<'_>) {
    let kept = || {
        machine
            .reservations
            .iter()
            .filter(|reservation| reservation.no_map)
    };
    for region in machine.memory.regions() {
        let mut at = region.start();
        while at < region.end() {
            let frames = |reservation: &hyp_core::machine::Reservation| {
                PhysRange::from(reservation.range.frames_touched())
            };
            let next = kept()
                .map(frames)
                .filter(|range| range.end() > at)
                .min_by_key(|range| range.start());
            let Some(range) = next.filter(|range| range.start() < region.end()) else {
                break;
            };
            let end = range.end().min(region.end());
            if let Some(range) = PhysRange::from_bounds(range.start().max(at), end) {
                claim(range, Entry::plain(State::Reserved));
            }
            at = end;
        }
    }
}

/// Takes the frames of the map's regions that are no RAM: device registers, or nothing.
fn claim_gaps(machine: &MachineDescription<'_>) {
    for run in machine.memory.blocks(Arm4K::REGION_SHIFT) {
        let end = (run.first + run.count) << Arm4K::REGION_SHIFT;
        let mut at = run.first << Arm4K::REGION_SHIFT;
        while at < end {
            let next = machine.memory.regions().iter().find(|region| region.end() > at);
            let ram = next.map_or(end, |region| region.start().clamp(at, end));
            if let Some(gap) = PhysRange::from_bounds(at, ram) {
                claim(gap, Entry::plain(State::Device));
            }
            at = next.map_or(end, |region| region.end().max(ram));
        }
    }
}

fn claim(range: PhysRange, entry: Entry) {
    let frames = range.frames_touched();
    let claimed = kept::ownership().claim_at_boot(frames, entry);
    assert_eq!(
        claimed.map_err(|refusal| refusal.status),
        Ok(frames.frames()),
        "{range} could not be claimed"
    );
}
