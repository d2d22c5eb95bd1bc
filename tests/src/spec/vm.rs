//! VMs, as the specification has them: what was fixed, where each is in its life, its vCPUs, and what every guest
//! frame number stands for.
//!
//! What is not laid down — how many pages a guest's table takes for what it maps — is taken from the system after each
//! call, and must add up: see [`Vms::pages`].
//!
//! - [`answer`]: which answers of a ranged call are admitted.
//! - [`life`]: creation, launch, end; [`memory`]: frames that come and go; [`frames`]: frames by their addresses.
//! - [`guest`]: what a guest does, and what comes of it; [`run`]: one run of a vCPU; [`registers`]: the
//!   registers that its host may see.

pub mod answer;
pub(in crate::spec) mod call;
mod frames;
pub mod guest;
mod life;
mod memory;
pub mod registers;
pub mod run;

pub use call::Effect;

use hyp_abi::vm::{Permissions, VmHandle};
use std::collections::BTreeMap;

/// What a guest frame number stands for, if for anything.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Place {
    /// A frame of the VM's own.
    Mine {
        /// Its number.
        frame: u64,
        /// Whether the guest shares it with the host.
        shared: bool,
    },
    /// A frame of the host's.
    Borrowed {
        /// Its number.
        frame: u64,
        /// What the guest may do with it.
        permissions: Permissions,
    },
    /// A frame was here, and was taken by force.
    Lost,
    /// The guest lets the host emulate a device here.
    Device,
}

impl Place {
    /// The frame that stands behind it.
    #[must_use]
    pub const fn frame(self) -> Option<u64> {
        match self {
            Self::Mine { frame, .. } | Self::Borrowed { frame, .. } => Some(frame),
            Self::Lost | Self::Device => None,
        }
    }

    /// What the guest may do here.
    #[must_use]
    pub const fn permissions(self) -> Permissions {
        match self {
            Self::Mine { .. } => Permissions::all(),
            Self::Borrowed { permissions, .. } => permissions,
            Self::Lost | Self::Device => Permissions::empty(),
        }
    }
}

/// Where a VM is in its life.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Life {
    /// Being filled.
    Created,
    /// It can run.
    Launched,
    /// It turned itself off.
    Off,
    /// Being taken apart.
    Dying,
}

/// A vCPU.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Vcpu {
    /// The number of its run page.
    pub run_page: u64,
    /// Whether it is powered.
    pub on: bool,
    /// Where it begins, if it has not run since it was turned on: instruction and x0.
    pub start: Option<(u64, u64)>,
    /// What its last exit waits for.
    pub waits: guest::Waits,
    /// What is known of its registers.
    pub registers: registers::Registers,
}

/// A VM.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Vm {
    /// The generation of its handle.
    pub generation: u32,
    /// Whether the host can not see its memory.
    pub protected: bool,
    /// Whether its MMIO guard is in force from launch.
    pub guard_required: bool,
    /// Whether its MMIO guard is in force.
    pub guard: bool,
    /// The most vCPUs.
    pub max_vcpus: u64,
    /// How many guest frame numbers it has.
    pub gfns: u64,
    /// Where it is in its life.
    pub life: Life,
    /// The memory that it declared: first guest frame number, and how many.
    pub ranges: Vec<(u64, u64)>,
    /// How much less than the physical counter its virtual counter is.
    pub counter_offset: u64,
    /// Its vCPUs.
    pub vcpus: BTreeMap<u64, Vcpu>,
    /// What its guest frame numbers stand for.
    pub places: BTreeMap<u64, Place>,
    /// Frames that it gave up, since it was created.
    pub relinquished: u64,
    /// Frames that were taken from it by force, since it was created.
    pub lost: u64,
    /// Pages in its reserve.
    pub reserve: u64,
    /// Pages of its table, without the root.
    pub tables: u64,
    /// Pages of its root.
    pub root: u64,
}

impl Vm {
    /// Whether it declared this guest frame number as memory.
    #[must_use]
    pub fn is_memory(&self, gfn: u64) -> bool {
        let inside = |(first, frames): &(u64, u64)| gfn >= *first && gfn - first < *frames;
        self.ranges.iter().any(inside)
    }

    /// Frames of its own that only it reaches, those that it shares, and those that it borrows.
    #[must_use]
    pub fn counts(&self) -> (u64, u64, u64) {
        let mut counts = (0, 0, 0);
        for place in self.places.values() {
            match place {
                Place::Mine { shared: false, .. } => counts.0 += 1,
                Place::Mine { shared: true, .. } => counts.1 += 1,
                Place::Borrowed { .. } => counts.2 += 1,
                Place::Lost | Place::Device => {}
            }
        }
        counts
    }

    /// Pages of EL2's that it takes in all.
    #[must_use]
    pub fn pages(&self) -> u64 {
        1 + self.root + self.vcpus.len() as u64 + self.reserve + self.tables
    }

    /// Its handle, for its slot.
    #[must_use]
    pub const fn handle(&self, slot: u8) -> VmHandle {
        VmHandle {
            slot,
            generation: self.generation,
        }
    }
}

/// All VMs.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash)]
pub struct Vms {
    /// By slot.
    pub(in crate::spec) live: BTreeMap<u8, Vm>,
    /// The generation of the last handle of each slot.
    pub(in crate::spec) generations: BTreeMap<u8, u32>,
}

impl Vms {
    /// The VM in a slot.
    #[must_use]
    pub fn get(&self, slot: u8) -> Option<&Vm> {
        self.live.get(&slot)
    }

    /// All of them, with their slots.
    pub fn iter(&self) -> impl Iterator<Item = (u8, &Vm)> {
        self.live.iter().map(|(slot, vm)| (*slot, vm))
    }

    /// The slot of the VM that a register names.
    #[must_use]
    pub fn named(&self, register: u64) -> Option<u8> {
        let handle = VmHandle::from_register(register)?;
        let vm = self.live.get(&handle.slot)?;
        (vm.generation == handle.generation).then_some(handle.slot)
    }

    /// What its register holds for the VM in a slot; for an empty slot, a handle that is none.
    #[must_use]
    pub fn register(&self, slot: u8) -> u64 {
        self.live
            .get(&slot)
            .map_or(u64::from(slot), |vm| vm.handle(slot).to_register())
    }

    /// Pages of EL2's pool that all of them take.
    pub(super) fn pages(&self) -> u64 {
        self.live.values().map(Vm::pages).sum()
    }

    pub(super) fn forget_the_past(&mut self) {
        self.generations.clear();
        for vm in self.live.values_mut() {
            vm.generation = 0;
            vm.relinquished = 0;
            vm.lost = 0;
        }
    }
}
