//! For searches that come back to an earlier state: all VMs are copied and put back, and their pages are named.

use super::{LockedVm, SlotState, Vms};
use crate::double::{Home, Machine};
use crate::geometry::Geometry;
use crate::hardware::TablePage;
use crate::vm::{Vcpu, VcpuSlot, Vm};
use core::array;
use std::vec::Vec;

/// All VMs as they once were.
#[derive(Debug)]
pub struct SavedVms<G: Geometry> {
    slots: Vec<SlotState<Machine<G>>>,
}

impl<G: Geometry> Clone for SavedVms<G> {
    fn clone(&self) -> Self {
        Self {
            slots: self.slots.iter().map(copy_of_slot).collect(),
        }
    }
}

impl<G: Geometry> Drop for SavedVms<G> {
    fn drop(&mut self) {
        for slot in self.slots.drain(..) {
            forget(slot);
        }
    }
}

fn copy_of_vcpu<G: Geometry>(slot: &VcpuSlot<Machine<G>>) -> VcpuSlot<Machine<G>> {
    match slot {
        VcpuSlot::Absent => VcpuSlot::Absent,
        VcpuSlot::Resting { home, power } => VcpuSlot::Resting {
            home: Home::<Vcpu>::new(home.page(), (**home).clone()),
            power: *power,
        },
        VcpuSlot::Running => VcpuSlot::Running,
    }
}

fn copy_of_vm<G: Geometry>(home: &Home<Vm<Machine<G>>>) -> Home<Vm<Machine<G>>> {
    let copy = Vm {
        handle: home.handle,
        config: home.config,
        life: home.life,
        table: home.table,
        reserve: home.reserve.duplicate(),
        counts: home.counts,
        table_pages: home.table_pages,
        ranges: home.ranges.clone(),
        digest: home.digest.clone(),
        guard: home.guard,
        vcpus: array::from_fn(|index| copy_of_vcpu(&home.vcpus[index])),
    };
    Home::new(home.page(), copy)
}

fn copy_of_slot<G: Geometry>(slot: &SlotState<Machine<G>>) -> SlotState<Machine<G>> {
    SlotState {
        generation: slot.generation,
        vm: slot.vm.as_ref().map(copy_of_vm),
    }
}

/// A VM ends as if it had never been: what it claims is another copy's.
fn forget<G: Geometry>(slot: SlotState<Machine<G>>) {
    if let Some(mut vm) = slot.vm {
        core::mem::take(&mut vm.reserve).forget();
    }
}

impl<G: Geometry> Vms<'_, Machine<G>> {
    /// All VMs as they are.
    #[must_use]
    pub fn save(&self) -> SavedVms<G> {
        SavedVms {
            slots: self
                .slots
                .iter()
                .map(|slot| copy_of_slot(&slot.0.lock()))
                .collect(),
        }
    }

    /// All VMs as they once were. Tables and pool are brought back apart from this.
    pub fn restore(&self, saved: &SavedVms<G>) {
        for (slot, old) in self.slots.iter().zip(&saved.slots) {
            let mut state = slot.0.lock();
            forget(core::mem::replace(&mut *state, copy_of_slot(old)));
        }
    }
}

impl<G: Geometry> LockedVm<'_, Machine<G>> {
    /// The pages in which the VM and its vCPUs live. A vCPU that runs is left out.
    #[must_use]
    pub fn homes(&self) -> Vec<TablePage> {
        let vm = self.0.state.vm.as_ref().map(Home::page);
        let vcpus = self.vcpus.iter().filter_map(|slot| match slot {
            VcpuSlot::Resting { home, .. } => Some(home.page()),
            VcpuSlot::Absent | VcpuSlot::Running => None,
        });
        vm.into_iter().chain(vcpus).collect()
    }
}
