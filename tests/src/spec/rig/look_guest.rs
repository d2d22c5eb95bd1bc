//! Looking at VMs: what each is, how many pages it takes, and where its table leads, descriptor by descriptor.

use super::super::vm::{Life, Place, Vm};
use super::Rig;
use hyp_abi::vm::Permissions;
use hyp_core::addr::FRAME_SIZE;
use hyp_core::double::Machine;
use hyp_core::geometry::Geometry;
use hyp_core::pgtable::{
    Descriptor, Execute, Shareability, Stage2, Stage2Access, Stage2Attributes, Stage2Memory, Table,
};
use hyp_core::vm::{GuestAnnotation, LockedVm, Power, VcpuSlot};

/// The lock of the VM in a slot, if one lives there.
pub(super) fn vm<G: Geometry>(rig: &Rig<G>, slot: u8) -> Option<LockedVm<'_, Machine<G>>> {
    rig.system.vms().lock_slot(rig.system.hardware(), slot)?.into_vm()
}

/// The frames of the tables of a guest, without the root.
pub(super) fn tables<G: Geometry>(rig: &Rig<G>, table: &Table<Stage2, G>) -> Vec<u64> {
    table
        .entries(rig.system.hardware(), table.span())
        .filter_map(|entry| match entry.descriptor {
            Descriptor::Table(page) => Some(page.frame().number()),
            _ => None,
        })
        .collect()
}

/// All pages of EL2's that VMs take.
pub(super) fn pages<G: Geometry>(rig: &Rig<G>) -> Vec<u64> {
    let mut found = Vec::new();
    for slot in (1..=rig.layout.places).filter_map(|slot| u8::try_from(slot).ok()) {
        let Some(vm) = vm(rig, slot) else { continue };
        found.extend(vm.homes().iter().map(|page| page.frame().number()));
        let root = vm.table.root().frame().number();
        found.extend(root..root + vm.root_pages());
        found.extend(tables(rig, &vm.table));
        let reserve = vm.reserve.list(rig.system.hardware());
        found.extend(reserve.iter().map(|page| page.frame().number()));
    }
    found
}

/// Compares all VMs.
pub(super) fn all<G: Geometry>(rig: &Rig<G>) -> Result<(), String> {
    for slot in (1..=rig.layout.places).filter_map(|slot| u8::try_from(slot).ok()) {
        one(rig, slot)?;
    }
    Ok(())
}

/// Compares the VM in a slot.
pub(super) fn one<G: Geometry>(rig: &Rig<G>, slot: u8) -> Result<(), String> {
    let (found, wanted) = (vm(rig, slot), rig.memory.vms.get(slot));
    let (found, wanted) = match (found, wanted) {
        (None, None) => return Ok(()),
        (Some(found), Some(wanted)) => (found, wanted),
        (found, wanted) => {
            return Err(format!(
                "slot {slot}: a VM lives there: {}, should: {}",
                found.is_some(),
                wanted.is_some()
            ));
        }
    };
    state(&found, slot, wanted)?;
    let tables = tables(rig, &found.table).len() as u64;
    if (found.table_pages, tables) != (wanted.tables, wanted.tables) {
        return Err(format!(
            "the table of {slot} has {tables} pages, counted {}, taken {}",
            found.table_pages, wanted.tables
        ));
    }
    let table = found.table;
    drop(found);
    leaves(rig, slot, wanted, &table)
}

/// What is not in its table.
fn state<G: Geometry>(found: &LockedVm<'_, Machine<G>>, slot: u8, wanted: &Vm) -> Result<(), String> {
    let wrong = |what: &str| Err(format!("VM {slot}: {what}, should be {wanted:x?}"));
    if found.handle != wanted.handle(slot) || found.guard != wanted.guard {
        return wrong(&format!("{:?}, guard {}", found.handle, found.guard));
    }
    let life = match found.life {
        hyp_core::vm::Life::Created => Life::Created,
        hyp_core::vm::Life::Launched { off: false, .. } => Life::Launched,
        hyp_core::vm::Life::Launched { off: true, .. } => Life::Off,
        hyp_core::vm::Life::Dying => Life::Dying,
    };
    if life != wanted.life {
        return wrong(&format!("{life:?}"));
    }
    let (private, shared, borrowed) = wanted.counts();
    let counts = found.counts;
    if (counts.private, counts.shared, counts.borrowed, counts.in_transit) != (private, shared, borrowed, 0)
        || (counts.relinquished, counts.lost) != (wanted.relinquished, wanted.lost)
    {
        return wrong(&format!("{counts:?}"));
    }
    for (index, place) in found.vcpus.iter().enumerate() {
        let vcpu = wanted.vcpus.get(&(index as u64));
        let fits = match (place, vcpu) {
            (VcpuSlot::Absent, None) => true,
            (VcpuSlot::Resting { home, power }, Some(vcpu)) => {
                home.run_page.number() == vcpu.run_page && (*power == Power::Off) != vcpu.on
            }
            _ => false,
        };
        if !fits {
            return wrong(&format!("vCPU {index} is {place:?}"));
        }
    }
    Ok(())
}

fn fits(attributes: Stage2Attributes, permissions: Permissions) -> bool {
    let mut access = Stage2Access::empty();
    access.set(Stage2Access::READ, permissions.contains(Permissions::READ));
    access.set(Stage2Access::WRITE, permissions.contains(Permissions::WRITE));
    let execute = if permissions.contains(Permissions::EXECUTE) {
        Execute::All
    } else {
        Execute::Never
    };
    attributes.access() == access
        && attributes.execute() == execute
        && attributes.shareability() == Shareability::Inner
        && matches!(
            attributes.memory(),
            Stage2Memory::WriteBack | Stage2Memory::ForcedWriteBack
        )
}

/// Where its table leads.
fn leaves<G: Geometry>(rig: &Rig<G>, slot: u8, wanted: &Vm, table: &Table<Stage2, G>) -> Result<(), String> {
    let mut mapped = 0;
    let mut annotated = 0;
    for entry in table.entries(rig.system.hardware(), table.span()) {
        let first = entry.start.value() / FRAME_SIZE;
        match entry.descriptor {
            Descriptor::Table(_) => {}
            Descriptor::Leaf { pa, attributes } => {
                for offset in 0..entry.pages {
                    let gfn = first + offset;
                    let place = wanted.places.get(&gfn).copied();
                    let frame = pa.value() / FRAME_SIZE + offset;
                    let right = place.is_some_and(|place| {
                        place.frame() == Some(frame) && fits(attributes, place.permissions())
                    });
                    if !right {
                        return Err(format!(
                            "VM {slot}: {gfn:#x} is mapped to {frame:#x} as {attributes:?}, should be {place:x?}"
                        ));
                    }
                }
                mapped += entry.pages;
            }
            Descriptor::Invalid(annotation) => {
                let annotation = GuestAnnotation::decode(annotation);
                if annotation == GuestAnnotation::Absent {
                    continue;
                }
                for gfn in first..first + entry.pages {
                    let place = wanted.places.get(&gfn).copied();
                    let right = match annotation {
                        GuestAnnotation::Lost => place == Some(Place::Lost),
                        GuestAnnotation::Device => place == Some(Place::Device),
                        GuestAnnotation::Busy | GuestAnnotation::Absent => false,
                    };
                    if !right {
                        return Err(format!(
                            "VM {slot}: {gfn:#x} is {annotation:?}, should be {place:x?}"
                        ));
                    }
                }
                annotated += entry.pages;
            }
        }
    }
    let frames = wanted
        .places
        .values()
        .filter(|place| place.frame().is_some())
        .count() as u64;
    let others = wanted.places.len() as u64 - frames;
    if (mapped, annotated) != (frames, others) {
        return Err(format!(
            "VM {slot}: {mapped} pages are mapped, {annotated} annotated; should be {frames}, {others}"
        ));
    }
    Ok(())
}
