//! The table of VMs: slots, handles, and the lock of a VM.

#[cfg(any(test, feature = "doubles"))]
mod copy;

#[cfg(any(test, feature = "doubles"))]
pub use copy::SavedVms;

use super::state::Vm;
use crate::hardware::{Event, Hardware, LockName};
use crate::sync::{Lock, LockGuard};
use core::ops::{Deref, DerefMut};
use hyp_abi::{Status, VmHandle};

/// A place for a VM.
#[derive(Debug)]
pub struct VmSlot<H: Hardware>(Lock<SlotState<H>>);

/// What is in a place.
#[derive(Debug)]
struct SlotState<H: Hardware> {
    /// The generation of the last handle that this slot gave out.
    generation: u32,
    vm: Option<H::Home<Vm<H>>>,
}

impl<H: Hardware> VmSlot<H> {
    /// An empty place.
    #[cfg(not(shuttle))]
    #[must_use]
    pub const fn new() -> Self {
        Self(Lock::new(SlotState {
            generation: 0,
            vm: None,
        }))
    }

    /// An empty place.
    #[cfg(shuttle)]
    #[must_use]
    pub fn new() -> Self {
        Self(Lock::new(SlotState {
            generation: 0,
            vm: None,
        }))
    }
}

impl<H: Hardware> Default for VmSlot<H> {
    fn default() -> Self {
        Self::new()
    }
}

/// All VMs. The place of slot `n` is number `n - 1`.
#[derive(Debug)]
pub struct Vms<'m, H: Hardware> {
    slots: &'m [VmSlot<H>],
}

impl<'m, H: Hardware> Vms<'m, H> {
    /// The VMs that live in `slots`, at most 255 of them.
    pub const fn new(slots: &'m [VmSlot<H>]) -> Self {
        Self { slots }
    }

    /// How many VMs there can be.
    #[must_use]
    pub const fn places(&self) -> usize {
        self.slots.len()
    }

    /// Takes the lock of a slot, whatever lives there. `None` for slot 0 and those past the end.
    pub fn lock_slot<'a>(&'a self, hw: &'a H, slot: u8) -> Option<LockedSlot<'a, H>> {
        let place = usize::from(slot)
            .checked_sub(1)
            .filter(|place| *place < self.slots.len())?;
        let place = self.slots.get(hw.bounded(place, self.slots.len()))?;
        let state = place.0.lock();
        hw.observe(Event::Locked(LockName::Vm(slot)));
        Some(LockedSlot { hw, slot, state })
    }

    /// Takes the lock of the VM that a register names.
    ///
    /// # Errors
    /// [`Status::NoSuchVm`].
    pub fn lock<'a>(&'a self, hw: &'a H, register: u64) -> Result<LockedVm<'a, H>, Status> {
        let handle = VmHandle::from_register(register).ok_or(Status::NoSuchVm)?;
        let slot = self.lock_slot(hw, handle.slot).ok_or(Status::NoSuchVm)?;
        slot.into_vm()
            .filter(|vm| vm.handle == handle)
            .ok_or(Status::NoSuchVm)
    }
}

/// A slot whose lock is held.
#[derive(Debug)]
pub struct LockedSlot<'a, H: Hardware> {
    hw: &'a H,
    slot: u8,
    state: LockGuard<'a, SlotState<H>>,
}

impl<'a, H: Hardware> LockedSlot<'a, H> {
    /// The number of the slot.
    #[must_use]
    pub const fn number(&self) -> u8 {
        self.slot
    }

    /// Whether no VM lives here.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.state.vm.is_none()
    }

    /// The VM that lives here.
    #[must_use]
    pub fn into_vm(self) -> Option<LockedVm<'a, H>> {
        if self.is_empty() {
            None
        } else {
            Some(LockedVm(self))
        }
    }

    /// A new handle for this slot, unlike every one before it.
    pub fn next_handle(&mut self) -> VmHandle {
        // After 2^32 handles of one slot the first one comes again.
        self.state.generation = self.state.generation.wrapping_add(1).max(1);
        VmHandle {
            slot: self.slot,
            generation: self.state.generation,
        }
    }

    /// Lets a VM live here.
    pub fn occupy(&mut self, vm: H::Home<Vm<H>>) {
        self.state.vm = Some(vm);
    }
}

impl<H: Hardware> Drop for LockedSlot<'_, H> {
    fn drop(&mut self) {
        self.hw.observe(Event::Unlocked(LockName::Vm(self.slot)));
    }
}

/// A VM whose lock is held.
#[derive(Debug)]
pub struct LockedVm<'a, H: Hardware>(LockedSlot<'a, H>);

impl<H: Hardware> LockedVm<'_, H> {
    /// Gives the VM a new handle.
    pub fn rename(&mut self) -> VmHandle {
        let handle = self.0.next_handle();
        self.handle = handle;
        handle
    }

    /// Takes the VM out of its slot, for good.
    #[must_use]
    pub fn remove(mut self) -> H::Home<Vm<H>> {
        self.0.state.vm.take().expect("a locked VM is in its slot")
    }
}

impl<H: Hardware> Deref for LockedVm<'_, H> {
    type Target = Vm<H>;

    #[inline]
    fn deref(&self) -> &Vm<H> {
        self.0.state.vm.as_ref().expect("a locked VM is in its slot")
    }
}

impl<H: Hardware> DerefMut for LockedVm<'_, H> {
    #[inline]
    fn deref_mut(&mut self) -> &mut Vm<H> {
        self.0.state.vm.as_mut().expect("a locked VM is in its slot")
    }
}
