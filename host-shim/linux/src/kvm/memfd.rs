//! Files of guest memory: what `KVM_CREATE_GUEST_MEMFD` makes.

use super::{System, Vm, abi, read_user, statistics};
use crate::{Descriptor, Errno, Linux};
use alloc::string::String;
use alloc::sync::Arc;
use host_shim::memfd::{FallocateMode, MemfdFlags};
use host_shim::{GuestMemfd, MemfdConfig, Pfn};
use hyp_abi::FRAME_SIZE;

/// A file of guest memory. It outlives its VM's descriptors, but not as memory of the guest: the VM ends with those.
#[derive(Debug)]
pub struct Memfd<L: Linux> {
    // First: the module is there until the memory is freed.
    file: GuestMemfd<L>,
    _system: Arc<System<L>>,
}

impl<L: Linux> Memfd<L> {
    /// The file, as the shim has it.
    pub(super) const fn file(&self) -> &GuestMemfd<L> {
        &self.file
    }
}

impl<L: Linux> Vm<L> {
    /// `KVM_CREATE_GUEST_MEMFD`.
    pub(super) fn create_memfd(&self, argument: u64) -> Result<u64, Errno> {
        let asked: abi::CreateGuestMemfd = read_user(self.linux(), argument)?;
        let flags = MemfdFlags::from_bits(asked.flags).ok_or(Errno::INVAL)?;
        if asked.size == 0 || !asked.size.is_multiple_of(FRAME_SIZE) || i64::try_from(asked.size).is_err() {
            return Err(Errno::INVAL);
        }
        let config = MemfdConfig {
            flags,
            ..MemfdConfig::new(asked.size)
        };
        self.linux()
            .open_file(c"[kvm-gmem]", asked.size, &mut |mappings| {
                let source = self.ledger().source();
                let file = GuestMemfd::create_mapped(self.shim()?, config, source, Some(mappings))?;
                Ok(Arc::new(Memfd {
                    file,
                    _system: Arc::clone(self.system()),
                }))
            })
    }
}

impl<L: Linux> Descriptor for Memfd<L> {
    fn ioctl(self: Arc<Self>, _: u32, _: u64) -> Result<u64, Errno> {
        Err(Errno::NOTTY)
    }

    fn describe(&self) -> String {
        statistics::of_file(self)
    }

    fn pages(&self) -> Option<u64> {
        let can_be_mapped = self.file.flags().contains(MemfdFlags::MMAP);
        can_be_mapped.then(|| self.file.size() / FRAME_SIZE)
    }

    fn fault(&self, page: u64, insert: &mut dyn FnMut(Pfn) -> Result<(), Errno>) -> Result<(), Errno> {
        let offset = page.checked_mul(FRAME_SIZE).ok_or(Errno::FAULT)?;
        let guard = self.file.host_page(offset)?;
        insert(guard.pfn())
    }

    fn fallocate(&self, mode: u32, offset: u64, length: u64) -> Result<(), Errno> {
        let mode = FallocateMode::from_bits(mode).ok_or(Errno::OPNOTSUPP)?;
        Ok(self.file.fallocate(mode, offset, length)?)
    }
}
