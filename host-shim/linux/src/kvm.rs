//! KVM's interface (Linux, `Documentation/virt/kvm/api.rst`).
//!
//! - [`system`]: `/dev/kvm` itself. [`System`] is what the module has as a whole.
//! - [`vm`]: what `KVM_CREATE_VM` makes.
//! - [`slots`]: the VM's memory. [`memfd`]: files of it.
//! - [`vcpu`]: what `KVM_CREATE_VCPU` makes. [`run`]: `KVM_RUN`. [`run_page`]: the page that both share with user space.
//!   [`register`]: registers by name.
//! - [`place`]: what others see of a vCPU.
//! - [`gate`]: what one task at a time has.
//! - [`controller`]: the seam between vCPUs and the interrupt controller.
//! - [`interrupts`]: the interrupt controller, and the lines that end there.
//! - [`doorbell`]: places where a guest's store is a signal.
//! - [`capability`]: what `KVM_CHECK_EXTENSION` answers.
//! - [`abi`]: the numbers and structures of the interface.
//! - [`memory`]: frames from the kernel's allocator, and who pays for them.
//! - [`statistics`]: what is told under `/sys/kernel/debug/freehold`.
//!
//! # The life of a VM
//!
//! EL2 has a VM from `KVM_CREATE_VM` on. It is launched by the first `KVM_RUN` of a vCPU that is on; of a protected one, by
//! that of vCPU 0. Until then slots, devices and registers are user space's to set up.
//!
//! The registers of a protected VM's vCPUs are then its own: `KVM_GET_ONE_REG`, `KVM_SET_ONE_REG`, `KVM_ARM_VCPU_INIT` and a
//! change by `KVM_SET_MP_STATE` are refused with EPERM, and CPU interfaces of the controller are not there (ENXIO). Of what
//! was set before, Freehold takes PC and x0 of vCPU 0.
//!
//! A guest that ends itself (PSCI SYSTEM_OFF, SYSTEM_RESET) does so with all its vCPUs, which are off then, and as if they began anew.
//! `KVM_RUN` tells it once, and waits for a signal from then on. A VM that is not protected is launched again by the first
//! `KVM_RUN` of a vCPU that was turned on since, by `KVM_ARM_VCPU_INIT` or `KVM_SET_MP_STATE`; its memory is as the guest
//! and user space have left it. A protected VM is not: what its guest had is zeroed before anybody else sees it, so there is
//! nothing that it could begin with, and user space makes another VM.
//!
//! # What is otherwise than KVM has it
//!
//! - `KVM_ARM_SET_COUNTER_OFFSET` and the register `KVM_REG_ARM_TIMER_CNT` are about the virtual counter. The physical one
//!   is the machine's for every guest. Neither is there for a protected VM.
//! - Guests have the pointer authentication that the machine has, whether `KVM_ARM_VCPU_INIT` asks for it or not.
//! - Guests have no physical timer, performance monitor, debug registers or registers of 32-bit modes other than the SPSRs,
//!   and those hold what they are set to.
//! - MIDR_EL1, REVIDR_EL1 and CTR_EL0 are the machine's, and not among the registers that are listed.
#![forbid(unsafe_code)]

pub mod abi;
pub mod capability;
pub mod controller;
pub mod doorbell;
pub mod gate;
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
pub use gate::Gate;
pub use memfd::Memfd;
pub use place::Place;
pub use system::{Refusal, System};
pub use vcpu::Vcpu;
pub use vm::{Seen, Vm};

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
