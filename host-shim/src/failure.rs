//! Why an object of the shim did not do what it was asked.

use crate::account::OverLimit;
use crate::kernel::NotReachable;
use crate::{CallError, RangeError};
use hyp_abi::Status;
use thiserror::Error;

/// Why guest memory, a VM or a vCPU did not do what it was asked. Offsets are bytes in a file.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Error)]
pub enum Error {
    /// An argument is none of the values that are documented: misaligned, out of range, an unknown flag.
    #[error("an argument has no meaning")]
    InvalidArgument,
    /// There is something already: a slot at that place, a binding of that part of the file, a vCPU of that index.
    #[error("there is something already")]
    Exists,
    /// There is nothing there: no slot of that number.
    #[error("there is nothing there")]
    NotFound,
    /// The operation is none that this object has.
    #[error("the operation is not supported")]
    NotSupported,
    /// The file was not created to be mapped.
    #[error("the file cannot be mapped")]
    NotMappable,
    /// The provider has no frame of the size that is wanted.
    #[error("there is no memory")]
    NoMemory,
    /// The account allows no more frames.
    #[error("the account's limit is reached")]
    OverLimit,
    /// No memory stands behind the guest frame number: there is no slot, or its file was closed.
    #[error("no memory stands behind the guest's page")]
    NoBacking,
    /// The page is the guest's own, or nobody's: the host may not touch it.
    #[error("the host may not touch the page at offset {offset:#x}")]
    NotShared {
        /// Where.
        offset: u64,
    },
    /// A guest that lives has the page, and nothing but force takes it.
    #[error("a guest has the page at offset {offset:#x}")]
    InUse {
        /// Where.
        offset: u64,
    },
    /// The host has pinned the page.
    #[error("the page at offset {offset:#x} is pinned")]
    Pinned {
        /// Where.
        offset: u64,
    },
    /// A part of a huge page would be punched, which the file does not allow.
    #[error("the huge page at offset {offset:#x} cannot be punched in part")]
    PartOfHugePage {
        /// Where the huge page begins.
        offset: u64,
    },
    /// The page has a hardware memory error.
    #[error("the page has a memory error")]
    Poisoned,
    /// The guest's page was taken by force, and nothing can be put in its place.
    #[error("the guest's page was taken by force")]
    Lost,
    /// The kernel could not reach a frame that it had.
    #[error("the kernel cannot reach a frame of its own")]
    NotReachable,
    /// The VM is not at a point of its life at which that has a meaning.
    #[error("the VM is launched already, not yet, or dying")]
    WrongState,
    /// The VM is gone.
    #[error("the VM is gone")]
    Gone,
    /// A vCPU of the VM is running.
    #[error("a vCPU is running")]
    Running,
    /// The VM is dying, and still has frames: the host has pinned them, or had no memory to take them back with.
    #[error("the VM still has {0} frames")]
    FramesLeft(u64),
    /// Whoever asked is being killed ([`crate::Kernel::is_killed`]). What was done by then stays done.
    #[error("whoever asked is being killed")]
    Interrupted,
    /// EL2 refused, for a reason that has no other name here.
    #[error(transparent)]
    Call(CallError),
}

impl Error {
    /// Linux's number of the error, positive.
    #[must_use]
    pub const fn errno(self) -> i32 {
        match self {
            Self::NotFound => 2,                                                 // ENOENT
            Self::Gone => 3,                                                     // ESRCH
            Self::Interrupted => 4,                                              // EINTR
            Self::NoMemory | Self::OverLimit => 12,                              // ENOMEM
            Self::NoBacking | Self::NotShared { .. } | Self::NotReachable => 14, // EFAULT
            Self::InUse { .. } | Self::Pinned { .. } | Self::Running | Self::FramesLeft(_) => 16, // EBUSY
            Self::Exists => 17,                                                  // EEXIST
            Self::NotMappable => 19,                                             // ENODEV
            Self::InvalidArgument | Self::PartOfHugePage { .. } => 22,           // EINVAL
            Self::NotSupported => 95,                                            // EOPNOTSUPP
            Self::WrongState => 77,                                              // EBADFD
            Self::Poisoned | Self::Lost => 133,                                  // EHWPOISON
            Self::Call(_) => 5,                                                  // EIO
        }
    }

    /// EL2's reason, if it has no name of its own here.
    #[must_use]
    pub const fn status(self) -> Option<Status> {
        match self {
            Self::Call(error) => error.status(),
            _ => None,
        }
    }
}

impl From<CallError> for Error {
    fn from(error: CallError) -> Self {
        let CallError::Refused { status, detail } = error else {
            return Self::Call(error);
        };
        match status {
            Status::NoMemory | Status::VmNeedsMemory => Self::NoMemory,
            Status::Poisoned => Self::Poisoned,
            Status::GfnLost => Self::Lost,
            Status::NoSuchVm => Self::Gone,
            Status::WrongVmState => Self::WrongState,
            Status::VcpuExists => Self::Exists,
            Status::VcpuRunning => Self::Running,
            Status::FramesLeft => Self::FramesLeft(detail),
            _ => Self::Call(error),
        }
    }
}

impl From<RangeError> for Error {
    fn from(error: RangeError) -> Self {
        error.error.into()
    }
}

impl From<OverLimit> for Error {
    fn from(_: OverLimit) -> Self {
        Self::OverLimit
    }
}

impl From<NotReachable> for Error {
    fn from(_: NotReachable) -> Self {
        Self::NotReachable
    }
}

/// A ranged operation that stopped before its end.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Error)]
#[error("after {done} frames: {error}")]
pub struct PartError {
    /// How many frames, from the front, were done. They stay done.
    pub done: u64,
    /// Why the frame after them was not.
    pub error: Error,
}

impl From<PartError> for Error {
    fn from(error: PartError) -> Self {
        error.error
    }
}
