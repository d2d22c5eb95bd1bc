//! The calls between Freehold and the kernels above it: numbers, arguments, results and errors.
//!
//! Everything that crosses a register is described here once, and both ends use it: the hypervisor decodes a
//! [`HostCall`] from registers, the host's shim encodes one. Nothing in this crate knows how a call is carried
//! out. A value that arrives in a register is an allegation; decoding gives it a type, never a meaning.
//!
//! - [`host_call`]: what the host kernel may ask, and how it sits in registers.
//! - [`vm_call`], [`vm`]: what it may ask about VMs, and how they are named; [`vcpu_register`]: the registers of a
//!   vCPU.
//! - [`run_page`]: what host and EL2 pass with a run of a vCPU.
//! - [`guest_call`]: what a guest may ask.
//! - [`guest_support`]: what guests can be on this machine.
//! - [`status`]: what a call answers when it is refused, one value a reason.
//! - [`range`]: a run of 4 KiB frames, as a caller names it.
//! - [`frame`]: the states of a frame that a caller may be told.
//! - [`counter`]: the counters that Freehold keeps for each CPU.
//! - [`trace`]: the records of the trace ring that the host may share.
#![no_std]
#![forbid(unsafe_code)]

pub mod counter;
pub mod frame;
pub mod guest_call;
pub mod guest_support;
pub mod host_call;
pub mod range;
pub mod run_page;
pub mod status;
pub mod trace;
pub mod vcpu_register;
pub mod vm;
pub mod vm_call;

pub use counter::Counter;
pub use frame::FrameState;
pub use guest_call::GuestCallId;
pub use guest_support::GuestSupport;
pub use host_call::{CallId, Features, HostCall, HostCallId, HostReturn};
pub use range::FrameRange;
pub use status::Status;
pub use vcpu_register::VcpuRegister;
pub use vm::VmHandle;
pub use vm_call::{GuestRange, VmCall, VmCallId};

/// Bytes in a frame. Freehold's stage-2 tables use the 4 KiB granule and no other.
pub const FRAME_SIZE: u64 = 4096;

/// Bytes in a region: what one entry of the ownership map and one level-2 descriptor describe.
pub const REGION_SIZE: u64 = 2 * 1024 * 1024;

/// The version of the host's calls. The major number changes when a call changes its meaning, the minor
/// number when calls are added.
pub const VERSION: Version = Version { major: 0, minor: 3 };

/// A version of the host's calls, as [`HostCall::Version`] answers it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Version {
    /// Changes when a call changes its meaning.
    pub major: u16,
    /// Changes when calls are added.
    pub minor: u16,
}

impl Version {
    /// The version in one register: major in bits 31:16, minor in bits 15:0.
    #[must_use]
    pub const fn to_register(self) -> u64 {
        ((self.major as u64) << 16) | self.minor as u64
    }

    /// The version from a register that [`Version::to_register`] made.
    #[must_use]
    pub const fn from_register(value: u64) -> Self {
        Self {
            major: (value >> 16) as u16,
            minor: value as u16,
        }
    }
}
