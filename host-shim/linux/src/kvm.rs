//! KVM's interface (Linux, `Documentation/virt/kvm/api.rst`).
//!
//! - [`system`]: `/dev/kvm` itself. [`System`] is what the module has as a whole.
//! - [`vm`]: what `KVM_CREATE_VM` makes.
//! - [`slots`]: the VM's memory. [`memfd`]: files of it.
//! - [`vcpu`]: what `KVM_CREATE_VCPU` makes. [`run`]: `KVM_RUN`. [`run_page`]: the page that both share with user space.
//!   [`register`]: registers by name.
//! - [`place`]: what others see of a vCPU.
//! - [`controller`]: the seam between vCPUs and the interrupt controller.
//! - [`interrupts`]: the interrupt controller, and the lines that end there.
//! - [`doorbell`]: places where a guest's store is a signal.
//! - [`capability`]: what `KVM_CHECK_EXTENSION` answers.
//! - [`abi`]: the numbers and structures of the interface.
//! - [`memory`]: frames from the kernel's allocator, and who pays for them.
//! - [`statistics`]: what is told under `/sys/kernel/debug/freehold`.
#![forbid(unsafe_code)]

pub mod abi;
pub mod capability;
pub mod controller;
pub mod doorbell;
pub mod interrupts;
pub mod memfd;
pub mod memory;
pub mod place;
pub mod register;
pub mod run;
pub mod run_page;
pub mod slots;
pub mod statistics;
pub mod system;
pub mod vcpu;
pub mod vm;

#[cfg(test)]
mod fake;
#[cfg(test)]
mod tests;

pub use controller::Controller;
pub use doorbell::Doorbells;
pub use memfd::Memfd;
pub use place::Place;
pub use system::{Refusal, System};
pub use vcpu::Vcpu;
pub use vm::Vm;

use crate::{Errno, Linux};
use zerocopy::{FromBytes, Immutable, IntoBytes};

/// Reads a structure of the caller's.
fn read_user<T: FromBytes + IntoBytes>(linux: &impl Linux, address: u64) -> Result<T, Errno> {
    let mut value = T::new_zeroed();
    linux.copy_from_user(address, value.as_mut_bytes())?;
    Ok(value)
}

/// Writes a structure of the caller's.
fn write_user<T: IntoBytes + Immutable>(linux: &impl Linux, address: u64, value: &T) -> Result<(), Errno> {
    linux.copy_to_user(address, value.as_bytes())
}
