//! `/dev/kvm` and what it makes, with no more between than a system call.
#![expect(unsafe_code, reason = "system calls take pointers")]

mod mapping;

pub(crate) use mapping::Mapping;

use std::fs::{File, OpenOptions};
use std::io::{Read as _, Write as _};
use std::os::fd::{AsRawFd as _, FromRawFd as _, OwnedFd};

/// What [`Fd::fallocate`] does: allocates, or frees. A file of guest memory keeps its size.
pub(crate) const KEEP: i32 = libc::FALLOC_FL_KEEP_SIZE;
pub(crate) const PUNCH: i32 = KEEP | libc::FALLOC_FL_PUNCH_HOLE;

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

#[expect(clippy::needless_pass_by_value, reason = "errors are mapped by it")]
fn errno(error: std::io::Error) -> Errno {
    Errno(error.raw_os_error().unwrap_or_default())
}

fn last_error() -> Errno {
    errno(std::io::Error::last_os_error())
}

/// What a system call returned: a negative number is an error.
fn returned(result: impl TryInto<u64>) -> Result<u64, Errno> {
    result.try_into().map_err(|_| last_error())
}

/// Commands without a structure: the number only.
pub(crate) const GET_API_VERSION: u32 = 0xAE00;
pub(crate) const CREATE_VM: u32 = 0xAE01;
pub(crate) const CHECK_EXTENSION: u32 = 0xAE03;
pub(crate) const GET_VCPU_MMAP_SIZE: u32 = 0xAE04;

pub(crate) const CREATE_VCPU: u32 = 0xAE41;
pub(crate) const RUN: u32 = 0xAE80;

/// Commands with a structure.
pub(crate) const GET_DIRTY_LOG: u32 = 0x4010_AE42;
pub(crate) const SET_USER_MEMORY_REGION: u32 = 0x4020_AE46;
pub(crate) const SET_USER_MEMORY_REGION2: u32 = 0x40A0_AE49;
pub(crate) const CREATE_GUEST_MEMFD: u32 = 0xC040_AED4;
pub(crate) const GET_MP_STATE: u32 = 0x8004_AE98;
pub(crate) const SET_MP_STATE: u32 = 0x4004_AE99;
pub(crate) const GET_ONE_REG: u32 = 0x4010_AEAB;
pub(crate) const SET_ONE_REG: u32 = 0x4010_AEAC;
pub(crate) const ARM_VCPU_INIT: u32 = 0x4020_AEAE;
pub(crate) const ARM_PREFERRED_TARGET: u32 = 0x8020_AEAF;
pub(crate) const GET_REG_LIST: u32 = 0xC008_AEB0;
pub(crate) const ARM_VCPU_FINALIZE: u32 = 0x4004_AEC2;
pub(crate) const SET_SIGNAL_MASK: u32 = 0x4004_AE8B;
pub(crate) const ARM_SET_COUNTER_OFFSET: u32 = 0x4010_AEB5;
pub(crate) const CREATE_IRQCHIP: u32 = 0xAE60;
pub(crate) const IRQ_LINE: u32 = 0x4008_AE61;
pub(crate) const SET_GSI_ROUTING: u32 = 0x4008_AE6A;
pub(crate) const IRQFD: u32 = 0x4020_AE76;
pub(crate) const IOEVENTFD: u32 = 0x4040_AE79;
pub(crate) const ENABLE_CAP: u32 = 0x4068_AEA3;
pub(crate) const SIGNAL_MSI: u32 = 0x4020_AEA5;
pub(crate) const CREATE_DEVICE: u32 = 0xC00C_AEE0;
pub(crate) const SET_DEVICE_ATTR: u32 = 0x4018_AEE1;
pub(crate) const GET_DEVICE_ATTR: u32 = 0x4018_AEE2;
pub(crate) const HAS_DEVICE_ATTR: u32 = 0x4018_AEE3;

/// The type of a protected VM.
pub(crate) const PROTECTED: u64 = 1 << 31;

/// A descriptor.
#[derive(Debug)]
pub(crate) struct Fd(File);

impl Fd {
    /// The descriptor that the kernel has just made for us.
    fn made(raw: u64) -> Self {
        // SAFETY: the callers' system calls made it, and nobody else has it.
        Self(unsafe { File::from_raw_fd(raw as i32) })
    }

    pub(crate) fn raw(&self) -> i32 {
        self.0.as_raw_fd()
    }

    /// A command whose argument is a number.
    pub(crate) fn ioctl(&self, command: u32, argument: u64) -> Result<u64, Errno> {
        // SAFETY: the kernel checks whatever it takes for an address, and no command writes to one that is given here.
        let result = unsafe { libc::ioctl(self.raw(), command as libc::c_int, argument) };
        returned(result)
    }

    /// A command whose argument is a structure, as large as the command's number says.
    pub(crate) fn pass<T>(&self, command: u32, argument: &mut T) -> Result<u64, Errno> {
        assert_eq!(size_of::<T>(), (command >> 16 & 0x3FFF) as usize);
        // SAFETY: the command writes no more than the structure, which is there until it returns.
        let result = unsafe { libc::ioctl(self.raw(), command as libc::c_int, &raw mut *argument) };
        returned(result)
    }

    /// A command with a structure that makes a descriptor.
    pub(crate) fn make_by<T>(&self, command: u32, argument: &mut T) -> Result<Self, Errno> {
        self.pass(command, argument).map(Self::made)
    }

    /// A command with a structure that makes a descriptor, and says there which.
    pub(crate) fn make_in<T>(
        &self,
        command: u32,
        argument: &mut T,
        descriptor: impl FnOnce(&T) -> u32,
    ) -> Result<Self, Errno> {
        self.pass(command, argument)?;
        Ok(Self::made(descriptor(argument).into()))
    }

    /// Allocates or frees a part of a file.
    pub(crate) fn fallocate(&self, mode: i32, offset: u64, length: u64) -> Result<(), Errno> {
        // SAFETY: it has no pointers.
        let result = unsafe { libc::fallocate(self.raw(), mode, offset as i64, length as i64) };
        returned(result).map(drop)
    }

    /// As what the standard library can do with it.
    pub(crate) const fn file(&self) -> &File {
        &self.0
    }

    /// A command that makes a descriptor.
    pub(crate) fn make(&self, command: u32, argument: u64) -> Result<Self, Errno> {
        self.ioctl(command, argument).map(Self::made)
    }
}

impl From<OwnedFd> for Fd {
    fn from(descriptor: OwnedFd) -> Self {
        Self(descriptor.into())
    }
}

/// An eventfd. Its reads do not wait.
#[derive(Debug)]
pub(crate) struct Eventfd(Fd);

impl Eventfd {
    pub(crate) fn new() -> Result<Self, Errno> {
        // SAFETY: it has no pointers.
        let raw = unsafe { libc::eventfd(0, libc::EFD_NONBLOCK) };
        returned(raw).map(|raw| Self(Fd::made(raw)))
    }

    pub(crate) fn raw(&self) -> i32 {
        self.0.raw()
    }

    pub(crate) fn signal(&self) {
        let written = (&self.0.0).write(&1_u64.to_ne_bytes());
        assert!(written.is_ok_and(|written| written == 8));
    }

    /// How often it was signalled since the last look.
    pub(crate) fn count(&self) -> u64 {
        let mut bytes = [0; 8];
        match (&self.0.0).read(&mut bytes) {
            Ok(8) => u64::from_ne_bytes(bytes),
            _ => 0,
        }
    }
}

/// A file in memory, of so many bytes.
pub(crate) fn shared_memory(length: u64) -> Result<Fd, Errno> {
    // SAFETY: the name ends.
    let raw = unsafe { libc::memfd_create(c"own".as_ptr(), 0) };
    let memory = returned(raw).map(Fd::made)?;
    memory.file().set_len(length).map_err(errno)?;
    Ok(memory)
}

/// `/dev/kvm`.
#[derive(Debug)]
pub(crate) struct Kvm(pub(crate) Fd);

impl Kvm {
    pub(crate) fn open() -> Result<Self, Errno> {
        let file = OpenOptions::new().read(true).write(true).open("/dev/kvm");
        file.map(|file| Self(Fd(file))).map_err(errno)
    }

    pub(crate) fn create_vm(&self, kind: u64) -> Result<Fd, Errno> {
        self.0.make(CREATE_VM, kind)
    }
}
