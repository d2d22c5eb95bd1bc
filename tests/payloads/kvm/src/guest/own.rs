//! Guests in memory of the process's own.

use super::{BASE, DATA, Do, P, PAGES, Vcpu, make_vcpus, write_program};
use crate::device::{Errno, Fd, Kvm, Mapping, SET_USER_MEMORY_REGION};
use kvm_bindings::{KVM_MEM_READONLY, kvm_userspace_memory_region};

/// A slot of memory that is mapped.
pub(crate) fn own_slot(
    slot: u32,
    flags: u32,
    gpa: u64,
    size: u64,
    memory: &Mapping,
    offset: u64,
) -> kvm_userspace_memory_region {
    kvm_userspace_memory_region {
        slot,
        flags,
        guest_phys_addr: gpa,
        memory_size: size,
        userspace_addr: memory.address() as u64 + offset,
    }
}

/// Adds a slot of memory of the process's own, changes it, or deletes it.
pub(crate) fn set_own_slot(vm: &Fd, mut slot: kvm_userspace_memory_region) -> Result<(), Errno> {
    vm.pass(SET_USER_MEMORY_REGION, &mut slot).map(drop)
}

/// A VM that is not protected, in memory of this process's own: the program and the lists, and behind them as many pages as
/// are wanted, from [`DATA`] on.
#[derive(Debug)]
pub(crate) struct OwnGuest {
    // First: the guest goes before its memory.
    pub(crate) vcpus: Vec<Vcpu>,
    pub(crate) vm: Fd,
    pub(crate) memory: Mapping,
}

impl OwnGuest {
    /// Pages in front of what it works with.
    pub(crate) const FRONT: u64 = DATA - BASE;

    pub(crate) fn new(pages: u64, lists: &[&[Do]]) -> Result<Self, String> {
        let memory = Mapping::anonymous(Self::FRONT + pages * P, P);
        memory
            .and_then(|memory| Self::in_memory(memory, lists))
            .map_err(|error| format!("a guest: {error:?}"))
    }

    /// One in memory that is mapped already, from its beginning on.
    pub(crate) fn in_memory(memory: Mapping, lists: &[&[Do]]) -> Result<Self, Errno> {
        let vm = Kvm::open()?.create_vm(0)?;
        set_own_slot(&vm, own_slot(0, 0, BASE, memory.length(), &memory, 0))?;
        write_program(&memory, 0);
        let vcpus = make_vcpus(&vm, &memory, lists)?;
        Ok(Self { vcpus, vm, memory })
    }

    /// One whose program lies in a slot of its own, that it may only read.
    pub(crate) fn with_fixed_program(lists: &[&[Do]]) -> Result<Self, Errno> {
        let memory = Mapping::anonymous(PAGES * P, P)?;
        let vm = Kvm::open()?.create_vm(0)?;
        let rest = memory.length() - P;
        set_own_slot(&vm, own_slot(1, KVM_MEM_READONLY, BASE, P, &memory, 0))?;
        set_own_slot(&vm, own_slot(0, 0, BASE + P, rest, &memory, P))?;
        write_program(&memory, 0);
        let vcpus = make_vcpus(&vm, &memory, lists)?;
        Ok(Self { vcpus, vm, memory })
    }

    /// The only vCPU, or the first.
    pub(crate) fn vcpu(&self) -> &Vcpu {
        &self.vcpus[0]
    }

    /// The offset of an address of the guest's in its memory.
    pub(crate) const fn offset(address: u64) -> u64 {
        address - BASE
    }
}
