//! The module's device: its requests, and mappings of physical addresses.
#![expect(unsafe_code, reason = "system calls that take pointers")]

use crate::interface::{Access, Call, DEVICE, MMAP_DEVICE, PAGES_ALLOCATE, PAGES_FREE, Pages, Request, Run};
use anyhow::{Context, anyhow};
use std::fs::{File, OpenOptions};
use std::io::{Error, ErrorKind, Result};
use std::os::fd::AsRawFd;
use std::ptr::{NonNull, null_mut};

/// Bytes in a page of this Linux. Debian's arm64 kernels for the cloud have no other.
const PAGE: u64 = 4096;

/// The open device.
#[derive(Debug)]
pub(crate) struct Device {
    file: File,
}

impl Device {
    /// Opens the device.
    ///
    /// # Errors
    /// If the module is not loaded, or the caller is not root.
    pub(crate) fn open() -> anyhow::Result<Self> {
        match OpenOptions::new().read(true).write(true).open(DEVICE) {
            Ok(file) => Ok(Self { file }),
            Err(error) if error.kind() == ErrorKind::NotFound => Err(anyhow!(
                "the probe's module is not loaded: start with --module FILE, a freehold-probe.ko that was built \
                 for this kernel"
            )),
            Err(error) => Err(error).context(DEVICE),
        }
    }

    /// Carries out a load or store at EL1. Does not return if a bare one faults.
    ///
    /// # Errors
    /// What the module says, or the system.
    pub(crate) fn access(&self, access: &mut Access) -> Result<()> {
        self.request(Access::NUMBER, access)
    }

    /// Jumps to an address at EL1. Does not return if that faults.
    ///
    /// # Errors
    /// What the module says, or the system.
    pub(crate) fn run(&self, run: &mut Run) -> Result<()> {
        self.request(Run::NUMBER, run)
    }

    /// Issues an HVC or SMC. Does not return if it is undefined.
    ///
    /// # Errors
    /// What the module says, or the system: an HVC is not issued by a kernel that runs at EL2 itself.
    pub(crate) fn call(&self, call: &mut Call) -> Result<()> {
        self.request(Call::NUMBER, call)
    }

    /// Allocates 2^`order` zeroed kernel pages, and answers their physical address.
    ///
    /// # Errors
    /// If there are none, or the order is larger than the kernel's allocator has.
    pub(crate) fn allocate_pages(&self, order: u32) -> Result<u64> {
        let mut pages = Pages {
            order,
            ..Pages::default()
        };
        self.request(PAGES_ALLOCATE, &mut pages)?;
        Ok(pages.base)
    }

    /// Gives pages back to the kernel, which must be able to touch them. Those that are not given back before the
    /// device is closed stay allocated for good.
    ///
    /// # Errors
    /// If this handle has allocated no such pages.
    pub(crate) fn free_pages(&self, base: u64, order: u32) -> Result<()> {
        self.request(
            PAGES_FREE,
            &mut Pages {
                base,
                order,
                ..Pages::default()
            },
        )
    }

    fn request<T>(&self, number: u32, argument: &mut T) -> Result<()> {
        // SAFETY: the number holds the size of T, which the module reads and writes, and nothing more; every bit
        // pattern is a value of the structures in `interface`.
        let result = unsafe { libc::ioctl(self.file.as_raw_fd(), number as _, std::ptr::from_mut(argument)) };
        if result < 0 {
            Err(Error::last_os_error())
        } else {
            Ok(())
        }
    }

    /// Maps the pages that hold `size` bytes at the physical address `address` into this process.
    ///
    /// # Errors
    /// If the address is none of a CPU, or the process may map no more.
    pub(crate) fn map(
        &self,
        address: u64,
        size: u64,
        protection: Protection,
        memory: Memory,
    ) -> Result<Mapping> {
        let out_of_range = || Error::from_raw_os_error(libc::ERANGE);
        let offset = address % PAGE;
        let length = (offset + size).next_multiple_of(PAGE);
        let length = usize::try_from(length).map_err(|_| out_of_range())?;
        let device = match memory {
            Memory::Normal => 0,
            Memory::Device => MMAP_DEVICE,
        };
        if address >= MMAP_DEVICE {
            return Err(out_of_range());
        }
        let position = libc::off_t::try_from((address - offset) | device).map_err(|_| out_of_range())?;
        // SAFETY: the kernel chooses an unused place, so nothing of ours is replaced.
        let start = unsafe {
            libc::mmap(
                null_mut(),
                length,
                protection.bits(),
                libc::MAP_SHARED,
                self.file.as_raw_fd(),
                position,
            )
        };
        if start == libc::MAP_FAILED {
            return Err(Error::last_os_error());
        }
        let start = NonNull::new(start.cast()).ok_or_else(out_of_range)?;
        Ok(Mapping {
            start,
            length,
            offset: offset as usize,
        })
    }
}

/// What a mapping is for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Protection {
    /// Loads.
    Read,
    /// Loads and stores.
    Write,
    /// Loads and instruction fetches.
    Execute,
    /// All of these.
    All,
}

impl Protection {
    const fn bits(self) -> libc::c_int {
        match self {
            Self::Read => libc::PROT_READ,
            Self::Write => libc::PROT_READ | libc::PROT_WRITE,
            Self::Execute => libc::PROT_READ | libc::PROT_EXEC,
            Self::All => libc::PROT_READ | libc::PROT_WRITE | libc::PROT_EXEC,
        }
    }
}

/// The memory type of a mapping.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Memory {
    /// Normal, cacheable.
    Normal,
    /// Device-nGnRnE.
    Device,
}

/// A mapping of physical pages in this process, until it is dropped.
#[derive(Debug)]
pub(crate) struct Mapping {
    start: NonNull<u8>,
    length: usize,
    offset: usize,
}

impl Mapping {
    /// Where the address that was asked for is found.
    pub(crate) fn pointer(&self) -> *mut u8 {
        self.start.as_ptr().wrapping_add(self.offset)
    }
}

impl Drop for Mapping {
    fn drop(&mut self) {
        // SAFETY: the mapping is ours, and its pointers die with it by the contract of `pointer`'s users, who only
        // reach it through instructions of `machine`.
        unsafe { libc::munmap(self.start.as_ptr().cast(), self.length) };
    }
}
