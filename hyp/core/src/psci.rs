//! The host's power management: PSCI, relayed to the firmware so that every CPU comes back through EL2.
//!
//! A CPU that the firmware starts or wakes begins at the address that the call named, at the highest level below
//! EL3. Were the host's calls passed on, its code would run at EL2. So EL2 keeps the host's address for itself,
//! gives the firmware its own, and enters the host when the CPU has been made ready.
//!
//! - [`relay`]: the calls, one by one.
//! - [`slot`]: the power state of one CPU as the relay knows it, and where the host wants it to begin.
//! - `double`: a firmware for tests.
//!
//! Source: Arm Power State Coordination Interface, DEN0022 issue F.b (version 1.3).

#[cfg(any(test, feature = "doubles"))]
pub mod double;
pub mod relay;
pub mod slot;

pub use arm_psci::{ErrorCode, FunctionId};
pub use relay::Relay;
pub use slot::{Arrival, Slot};

/// The firmware below, reached by SMC on this CPU.
pub trait Firmware {
    /// Calls `function` with x1 to x3 and returns x0. A call that powers the CPU down does not return.
    fn call(&self, function: u32, arguments: [u64; 3]) -> u64;
}

/// Whether a function identifier lies in one of the two ranges that DEN0028 sets aside for PSCI.
#[must_use]
pub const fn is_psci(function: u32) -> bool {
    matches!(function, 0x8400_0000..=0x8400_001f | 0xc400_0000..=0xc400_001f)
}
