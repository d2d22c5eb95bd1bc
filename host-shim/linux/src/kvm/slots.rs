//! A VM's memory: what `KVM_SET_USER_MEMORY_REGION` and its successor say.

use super::{Memfd, Vm, abi, read_user};
use crate::linux::downcast;
use crate::{Errno, Linux};
use host_shim::memfd::MemfdFlags;
use host_shim::vm::{MAX_SLOT_PAGES, MAX_SLOTS};
use host_shim::{Error, SlotConfig};
use hyp_abi::FRAME_SIZE;

/// The end of what a process can address: with it, an address is one that the caller could have.
const USER_END: u64 = 1 << 52;

impl<L: Linux> Vm<L> {
    /// `KVM_SET_USER_MEMORY_REGION`.
    pub(super) fn set_region(&self, argument: u64) -> Result<u64, Errno> {
        let region: abi::MemoryRegion = read_user(self.linux(), argument)?;
        // What it has no place to tell it cannot ask for.
        if region.flags & abi::MEM_GUEST_MEMFD != 0 {
            return Err(Errno::INVAL);
        }
        self.set(&abi::MemoryRegion2 {
            region,
            guest_memfd_offset: 0,
            guest_memfd: 0,
            pad: [0; 29],
        })
    }

    /// `KVM_SET_USER_MEMORY_REGION2`.
    pub(super) fn set_region2(&self, argument: u64) -> Result<u64, Errno> {
        self.set(&read_user(self.linux(), argument)?)
    }

    fn set(&self, wanted: &abi::MemoryRegion2) -> Result<u64, Errno> {
        let region = &wanted.region;
        let has_file = region.flags & abi::MEM_GUEST_MEMFD != 0;
        let size = region.memory_size;
        let aligned = [size, region.guest_phys_addr, region.userspace_addr]
            .iter()
            .all(|value| value.is_multiple_of(FRAME_SIZE));
        let ends_within = |start: u64, limit: u64| start.checked_add(size).is_some_and(|end| end <= limit);
        let valid = region.flags & !abi::MEM_GUEST_MEMFD == 0
            && aligned
            && ends_within(region.userspace_addr, USER_END)
            && (!has_file
                || wanted.guest_memfd_offset.is_multiple_of(FRAME_SIZE)
                    && ends_within(wanted.guest_memfd_offset, u64::MAX))
            && region.slot < MAX_SLOTS
            && ends_within(region.guest_phys_addr, u64::MAX)
            && size / FRAME_SIZE <= MAX_SLOT_PAGES;
        if !valid {
            return Err(Errno::INVAL);
        }
        let shim = self.shim()?;
        if size == 0 {
            return shim
                .delete_slot(region.slot)
                .map(|()| 0)
                .map_err(|error| match error {
                    Error::NotFound => Errno::INVAL,
                    error => error.into(),
                });
        }
        if !has_file {
            // Memory of the caller's own: not yet.
            return Err(Errno::INVAL);
        }
        if !ends_within(region.guest_phys_addr, 1 << self.ipa_bits()) {
            return Err(Errno::FAULT);
        }
        let descriptor = i32::try_from(wanted.guest_memfd).map_err(|_| Errno::BADF)?;
        let file = downcast::<Memfd<L>>(self.linux().find(descriptor)?)?;
        // As under KVM, what no guest keeps to itself is to be seen by the host.
        if !self.is_protected() && !file.file().flags().contains(MemfdFlags::MMAP) {
            return Err(Errno::INVAL);
        }
        shim.add_slot(SlotConfig {
            slot: region.slot,
            flags: 0,
            ipa: region.guest_phys_addr,
            size,
            file: file.file(),
            offset: wanted.guest_memfd_offset,
        })?;
        Ok(0)
    }
}
