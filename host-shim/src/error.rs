//! Why a call did not do what it was asked.

use hyp_abi::Status;
use thiserror::Error;

/// Why one call failed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Error)]
pub enum CallError {
    /// EL2 refused, and changed nothing.
    #[error("refused: {status}")]
    Refused {
        /// The reason.
        status: Status,
        /// The first result register. With [`Status::NoMemory`] and [`Status::VmNeedsMemory`] it is the number of
        /// pages that EL2 or the VM lacks, with [`Status::FramesLeft`] the number of frames.
        detail: u64,
    },
    /// The answer in x0 is no status that this client knows.
    #[error("the answer {0:#x} is no known status")]
    UnknownStatus(u64),
    /// EL2 answered success with results that the call cannot have.
    #[error("the result {0:#x} makes no sense for this call")]
    BadResult(u64),
    /// A ranged call came back again and again without having done a frame.
    #[error("the call makes no progress")]
    NoProgress,
}

impl CallError {
    /// EL2's reason, if it gave one.
    #[must_use]
    pub const fn status(&self) -> Option<Status> {
        match self {
            Self::Refused { status, .. } => Some(*status),
            Self::UnknownStatus(_) | Self::BadResult(_) | Self::NoProgress => None,
        }
    }

    /// How many pages the caller must add with `PoolTopUp` before the call can succeed, if that is what it lacks.
    #[must_use]
    pub const fn pages_needed(&self) -> Option<u64> {
        match self {
            Self::Refused {
                status: Status::NoMemory,
                detail,
            } => Some(*detail),
            _ => None,
        }
    }

    /// How many pages the caller must add to the VM's reserve with `TopUp`, if that is what the call lacks.
    #[must_use]
    pub const fn vm_pages_needed(&self) -> Option<u64> {
        match self {
            Self::Refused {
                status: Status::VmNeedsMemory,
                detail,
            } => Some(*detail),
            _ => None,
        }
    }
}

/// A ranged call that ended before its last frame.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Error)]
#[error("after {done} frames: {error}")]
pub struct RangeError {
    /// How many frames, from the front, were done. They stay done.
    pub done: u64,
    /// Why the frame after them was not.
    pub error: CallError,
}
