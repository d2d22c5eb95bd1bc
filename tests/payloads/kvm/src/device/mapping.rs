//! Memory that is mapped.
#![expect(unsafe_code, reason = "system calls take pointers")]

mod changes;

use super::{Errno, Fd, last_error, returned};

/// Memory of a descriptor, mapped shared.
#[derive(Debug)]
pub(crate) struct Mapping {
    address: usize,
    length: usize,
}

impl Mapping {
    pub(crate) fn of(fd: &Fd, offset: u64, length: u64) -> Result<Self, Errno> {
        Self::with(fd, offset, length, libc::MAP_SHARED)
    }

    pub(crate) fn with(fd: &Fd, offset: u64, length: u64, flags: i32) -> Result<Self, Errno> {
        let length = length as usize;
        let protection = libc::PROT_READ | libc::PROT_WRITE;
        // SAFETY: the kernel chooses a place where there is nothing.
        let address = unsafe {
            libc::mmap(
                core::ptr::null_mut(),
                length,
                protection,
                flags,
                fd.raw(),
                offset as i64,
            )
        };
        if address == libc::MAP_FAILED {
            return Err(last_error());
        }
        Ok(Self {
            address: address.expose_provenance(),
            length,
        })
    }

    /// Memory of the process's own, zero, that begins at a multiple of `align`.
    pub(crate) fn anonymous(length: u64, align: u64) -> Result<Self, Errno> {
        // What lies around it stays, and is never touched.
        let around = Self::place(0, length + align, libc::MAP_PRIVATE | libc::MAP_ANONYMOUS)?;
        Ok(Self {
            address: around.next_multiple_of(align as usize),
            length: length as usize,
        })
    }

    /// Maps memory of the process's own, and returns where.
    fn place(address: usize, length: u64, flags: i32) -> Result<usize, Errno> {
        let length = length as usize;
        let protection = libc::PROT_READ | libc::PROT_WRITE;
        let wanted = core::ptr::with_exposed_provenance_mut(address);
        // SAFETY: the kernel takes a place only where there is nothing, or it is a part of what we have mapped.
        let address = unsafe { libc::mmap(wanted, length, protection, flags, -1, 0) };
        if address == libc::MAP_FAILED {
            return Err(last_error());
        }
        Ok(address.expose_provenance())
    }

    /// Takes a part of it away.
    pub(crate) fn unmap(&self, offset: u64, length: u64) {
        // SAFETY: nobody has a reference to it.
        let result = unsafe { libc::munmap(self.at::<u8>(offset).cast(), length as usize) };
        assert_eq!(result, 0);
    }

    /// Puts memory of the process's own there again. Refused if something else has been mapped there in the meantime.
    pub(crate) fn map_again(&self, offset: u64, length: u64) -> Result<(), Errno> {
        let flags = libc::MAP_PRIVATE | libc::MAP_ANONYMOUS | libc::MAP_FIXED_NOREPLACE;
        Self::place(self.address + offset as usize, length, flags).map(drop)
    }

    /// Puts new memory of the process's own in the place of a part of it.
    pub(crate) fn replace(&self, offset: u64, length: u64) -> Result<(), Errno> {
        let flags = libc::MAP_PRIVATE | libc::MAP_ANONYMOUS | libc::MAP_FIXED;
        Self::place(self.address + offset as usize, length, flags).map(drop)
    }

    /// Says what may be done with a part of it.
    pub(crate) fn protect(&self, offset: u64, length: u64, protection: i32) {
        assert_eq!(self.try_to_protect(offset, length, protection), Ok(()));
    }

    /// The same, where the kernel may refuse it.
    pub(crate) fn try_to_protect(&self, offset: u64, length: u64, protection: i32) -> Result<(), Errno> {
        // SAFETY: nobody has a reference to it.
        let result = unsafe { libc::mprotect(self.at::<u8>(offset).cast(), length as usize, protection) };
        returned(result).map(drop)
    }

    /// Says what is to become of a part of it: see `madvise`.
    pub(crate) fn advise(&self, offset: u64, length: u64, advice: i32) -> Result<(), Errno> {
        // SAFETY: what is there may be lost, and nobody has a reference to it.
        let result = unsafe { libc::madvise(self.at::<u8>(offset).cast(), length as usize, advice) };
        returned(result).map(drop)
    }

    /// Says from which nodes the pages of a part of it are to come: a mask.
    pub(crate) fn set_policy(&self, offset: u64, length: u64, policy: i32, nodes: u64) -> Result<(), Errno> {
        // What there is no node for is no mask at all.
        let (mask, bits) = if nodes == 0 {
            (core::ptr::null(), 0_u64)
        } else {
            (&raw const nodes, 64)
        };
        // SAFETY: the mask is there until it returns; the kernel checks the address.
        let result = unsafe {
            libc::syscall(
                libc::SYS_mbind,
                self.at::<u8>(offset),
                length,
                policy,
                mask,
                bits,
                0,
            )
        };
        returned(result).map(drop)
    }

    /// The policy at a place of it, and its nodes.
    pub(crate) fn policy(&self, offset: u64) -> Result<(i32, u64), Errno> {
        const BY_ADDRESS: u64 = 2;
        // A mask with room for as many nodes as any kernel has.
        let (mut policy, mut nodes) = (0_i32, [0_u64; 16]);
        let address = self.at::<u8>(offset);
        // SAFETY: both answers have a place.
        let result = unsafe {
            libc::syscall(
                libc::SYS_get_mempolicy,
                &raw mut policy,
                nodes.as_mut_ptr(),
                1024,
                address,
                BY_ADDRESS,
            )
        };
        returned(result).map(|_| (policy, nodes[0]))
    }

    pub(crate) const fn address(&self) -> usize {
        self.address
    }

    pub(crate) const fn length(&self) -> u64 {
        self.length as u64
    }

    fn at<T>(&self, offset: u64) -> *mut T {
        assert!(offset as usize + size_of::<T>() <= self.length);
        core::ptr::with_exposed_provenance_mut(self.address + offset as usize)
    }

    pub(crate) fn read<T: Copy>(&self, offset: u64) -> T {
        // SAFETY: it is mapped, and plain numbers are read. Where the kernel does not let us we die, which is asked for.
        unsafe { self.at::<T>(offset).read_volatile() }
    }

    pub(crate) fn write<T: Copy>(&self, offset: u64, value: T) {
        // SAFETY: as above; nobody has a reference to it.
        unsafe { self.at::<T>(offset).write_volatile(value) };
    }

    /// Reads from a file into it, by a system call.
    pub(crate) fn read_from(&self, fd: i32, offset: u64, length: usize) -> Result<usize, Errno> {
        // SAFETY: the kernel checks the address.
        let result = unsafe { libc::read(fd, self.at::<u8>(offset).cast(), length) };
        returned(result).map(|bytes| bytes as usize)
    }

    /// Writes it to a file, by a system call.
    pub(crate) fn write_to(&self, fd: i32, offset: u64, length: usize) -> Result<usize, Errno> {
        // SAFETY: the kernel checks the address.
        let result = unsafe { libc::write(fd, self.at::<u8>(offset).cast(), length) };
        returned(result).map(|bytes| bytes as usize)
    }

    /// Reads a word of it as another process would, by `process_vm_readv`.
    pub(crate) fn read_as_another(&self, offset: u64) -> Result<u64, Errno> {
        let mut word = 0_u64;
        let (local, remote) = (Self::piece(&raw mut word), Self::piece(self.at(offset)));
        // SAFETY: it asks for the process's own number.
        let process = unsafe { libc::getpid() };
        // SAFETY: the word has a place; the kernel checks the other address.
        let result = unsafe { libc::process_vm_readv(process, &raw const local, 1, &raw const remote, 1, 0) };
        if result == 8 { Ok(word) } else { Err(last_error()) }
    }

    /// Writes a word of it as another process would, by `process_vm_writev`.
    pub(crate) fn write_as_another(&self, offset: u64, mut word: u64) -> Result<(), Errno> {
        let (local, remote) = (Self::piece(&raw mut word), Self::piece(self.at(offset)));
        // SAFETY: it asks for the process's own number.
        let process = unsafe { libc::getpid() };
        // SAFETY: the word is only read; the kernel checks the other address.
        let result =
            unsafe { libc::process_vm_writev(process, &raw const local, 1, &raw const remote, 1, 0) };
        if result == 8 { Ok(()) } else { Err(last_error()) }
    }

    /// Lends it to a pipe, by `vmsplice`.
    pub(crate) fn splice_to(&self, pipe: i32, offset: u64, length: usize) -> Result<usize, Errno> {
        let piece = libc::iovec {
            iov_base: self.at::<u8>(offset).cast(),
            iov_len: length,
        };
        // SAFETY: the kernel checks the address; nobody has a reference to what is there.
        let result = unsafe { libc::vmsplice(pipe, &raw const piece, 1, 0) };
        returned(result).map(|bytes| bytes as usize)
    }

    const fn piece(word: *mut u64) -> libc::iovec {
        libc::iovec {
            iov_base: word.cast(),
            iov_len: 8,
        }
    }
}

impl Drop for Mapping {
    fn drop(&mut self) {
        // SAFETY: it was mapped, and nobody has a reference to it.
        unsafe { libc::munmap(core::ptr::with_exposed_provenance_mut(self.address), self.length) };
    }
}
