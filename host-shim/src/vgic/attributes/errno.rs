//! Why the device did not do what it was asked.

use thiserror::Error;

/// An error, as Linux numbers it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Error)]
#[repr(i32)]
pub enum Errno {
    /// ENOENT: there is no such redistributor region.
    #[error("there is no such region")]
    NotFound = 2,
    /// ENXIO: there is no such attribute, or something that it needs was not set.
    #[error("there is no such attribute, or its condition is not met")]
    NoSuchAddress = 6,
    /// E2BIG: the address is outside of what the guest can address.
    #[error("the address is too big")]
    TooBig = 7,
    /// ENOMEM: there is no memory.
    #[error("there is no memory")]
    NoMemory = 12,
    /// EBUSY: a vCPU runs, or it is too early or too late for that.
    #[error("busy")]
    Busy = 16,
    /// EEXIST: it is set already.
    #[error("it is set already")]
    Exists = 17,
    /// ENODEV: there is no vCPU.
    #[error("there is no vCPU")]
    NoDevice = 19,
    /// EINVAL: the value or the vCPU is none that can be.
    #[error("the value is invalid")]
    Invalid = 22,
}

impl Errno {
    /// Linux's number of the error, positive.
    #[must_use]
    pub const fn number(self) -> i32 {
        self as i32
    }
}
