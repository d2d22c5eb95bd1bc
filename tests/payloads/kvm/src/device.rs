//! `/dev/kvm` and what it makes, with no more between than a system call.
#![expect(unsafe_code, reason = "system calls take pointers")]

use std::fs::{File, OpenOptions};
use std::os::fd::{AsRawFd as _, FromRawFd as _};

/// An error number, as it is.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) struct Errno(pub(crate) i32);

impl std::fmt::Debug for Errno {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{}", std::io::Error::from_raw_os_error(self.0))
    }
}

impl std::fmt::Display for Errno {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        std::fmt::Debug::fmt(self, f)
    }
}

fn last_error() -> Errno {
    Errno(std::io::Error::last_os_error().raw_os_error().unwrap_or_default())
}

/// Commands without a structure: the number only.
pub(crate) const GET_API_VERSION: u32 = 0xAE00;
pub(crate) const CREATE_VM: u32 = 0xAE01;
pub(crate) const CHECK_EXTENSION: u32 = 0xAE03;
pub(crate) const GET_VCPU_MMAP_SIZE: u32 = 0xAE04;

/// The type of a protected VM.
pub(crate) const PROTECTED: u64 = 1 << 31;

/// A descriptor.
#[derive(Debug)]
pub(crate) struct Fd(File);

impl Fd {
    pub(crate) fn raw(&self) -> i32 {
        self.0.as_raw_fd()
    }

    /// A command whose argument is a number.
    pub(crate) fn ioctl(&self, command: u32, argument: u64) -> Result<u64, Errno> {
        // SAFETY: the kernel checks whatever it takes for an address, and no command writes to one that is given here.
        let result = unsafe { libc::ioctl(self.raw(), command as libc::c_int, argument) };
        u64::try_from(result).map_err(|_| last_error())
    }

    /// A command that makes a descriptor.
    pub(crate) fn make(&self, command: u32, argument: u64) -> Result<Self, Errno> {
        let raw = self.ioctl(command, argument)? as i32;
        // SAFETY: the command made it, and nobody else has it.
        Ok(Self(unsafe { File::from_raw_fd(raw) }))
    }
}

/// `/dev/kvm`.
#[derive(Debug)]
pub(crate) struct Kvm(pub(crate) Fd);

impl Kvm {
    pub(crate) fn open() -> Result<Self, Errno> {
        let file = OpenOptions::new().read(true).write(true).open("/dev/kvm");
        file.map(|file| Self(Fd(file)))
            .map_err(|error| Errno(error.raw_os_error().unwrap_or_default()))
    }

    pub(crate) fn create_vm(&self, kind: u64) -> Result<Fd, Errno> {
        self.0.make(CREATE_VM, kind)
    }
}
