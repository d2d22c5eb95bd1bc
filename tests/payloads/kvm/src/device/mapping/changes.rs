//! What the kernel can be asked to do with a mapping as a whole, or with parts of it.

use super::super::{Errno, Fd, returned};
use super::Mapping;

/// `UFFDIO_API`, and the only version that there is; `UFFDIO_REGISTER`, and its mode for pages that are missing.
const USERFAULT_API: u32 = 0xC018_AA3F;
const USERFAULT_VERSION: u64 = 0xAA;
const USERFAULT_REGISTER: u32 = 0xC020_AA00;
const USERFAULT_MISSING: u64 = 1;

impl Mapping {
    /// Makes a part of it longer or shorter, or maps that once more; the flags are those of `mremap`. Returns where.
    pub(crate) fn resize(&self, offset: u64, old: u64, new: u64, flags: i32) -> Result<u64, Errno> {
        let at = self.address + offset as usize;
        let at = core::ptr::with_exposed_provenance_mut(at);
        // SAFETY: nobody has a reference to it.
        let result = unsafe { libc::mremap(at, old as usize, new as usize, flags) };
        returned(result.expose_provenance().cast_signed())
    }

    /// Moves all of it to another place. Where it was there is nothing.
    pub(crate) fn moved(mut self) -> Result<Self, Errno> {
        let place = Self::place(0, self.length as u64, libc::MAP_PRIVATE | libc::MAP_ANONYMOUS)?;
        let flags = libc::MREMAP_MAYMOVE | libc::MREMAP_FIXED;
        let (from, to) = (
            core::ptr::with_exposed_provenance_mut(self.address),
            core::ptr::with_exposed_provenance_mut::<u8>(place),
        );
        // SAFETY: nobody has a reference to it, nor to what was at the new place, which is ours.
        let result = unsafe { libc::mremap(from, self.length, self.length, flags, to) };
        returned(result.expose_provenance().cast_signed())?;
        self.address = place;
        Ok(self)
    }

    /// Shows another page of what is mapped at a page of it.
    pub(crate) fn show(&self, offset: u64, page: u64) -> Result<(), Errno> {
        // SAFETY: nobody has a reference to it.
        let result = unsafe {
            libc::syscall(
                libc::SYS_remap_file_pages,
                self.at::<u8>(offset),
                4096_usize,
                0_usize,
                page,
                0_usize,
            )
        };
        returned(result).map(drop)
    }

    /// Keeps a part of it in memory.
    pub(crate) fn lock(&self, offset: u64, length: u64) -> Result<(), Errno> {
        // SAFETY: the kernel checks the address.
        let result = unsafe { libc::mlock(self.at::<u8>(offset).cast(), length as usize) };
        returned(result).map(drop)
    }

    /// Writes a part of it to where it belongs.
    pub(crate) fn sync(&self, offset: u64, length: u64) -> Result<(), Errno> {
        // SAFETY: the kernel checks the address.
        let result = unsafe { libc::msync(self.at::<u8>(offset).cast(), length as usize, libc::MS_SYNC) };
        returned(result).map(drop)
    }

    /// Has whoever has the descriptor told of pages that are missing in all of it, and put in what he likes.
    pub(crate) fn watch_faults(&self) -> Result<Fd, Errno> {
        // SAFETY: it has no pointers.
        let raw = unsafe { libc::syscall(libc::SYS_userfaultfd, libc::O_CLOEXEC) };
        let faults = returned(raw).map(Fd::made)?;
        faults.pass(USERFAULT_API, &mut [USERFAULT_VERSION, 0, 0])?;
        let mut range = [self.address as u64, self.length as u64, USERFAULT_MISSING, 0];
        faults.pass(USERFAULT_REGISTER, &mut range)?;
        Ok(faults)
    }
}
