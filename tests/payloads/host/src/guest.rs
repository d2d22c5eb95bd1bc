//! Guests: what a host kernel has to do for them, as plainly as it can be done.
//!
//! The cases look at EL2's own answers, so this does not go through the shim's VMs: it makes the calls themselves, keeps
//! no more books than it needs to end a guest, and hides no refusal. A guest is the payload guest, or code of a case's
//! own.
//!
//! - [`calls`]: the calls, ranged ones resumed.
//! - [`image`]: the payload guest, as the loader left it.
//! - [`kernel`]: what the shim's own VMs need of this kernel.
//! - [`plan`]: what a VM is to be.
//! - [`vm`]: a VM, its memory and its end.
//! - [`vcpu`], [`run_page`], [`exit`]: one run of a vCPU.
//! - [`vgic`]: interrupts on their way to a vCPU.
//! - [`drive`]: runs until the guest reports, with every exit in between answered as a host must.
//! - [`schedule`]: several vCPUs of several VMs on several CPUs.
//! - [`all_registers`]: programs that report and load every register of a guest's.
//! - [`registers`]: all of the host's own registers, across a run.
//! - [`sve`]: the host's SVE state.
//! - [`scan`]: the search for a guest's secret.

pub(crate) mod all_registers;
pub(crate) mod calls;
pub(crate) mod drive;
pub(crate) mod exit;
pub(crate) mod image;
pub(crate) mod kernel;
pub(crate) mod plan;
pub(crate) mod registers;
pub(crate) mod run_page;
pub(crate) mod scan;
pub(crate) mod schedule;
pub(crate) mod sve;
pub(crate) mod vcpu;
pub(crate) mod vgic;
pub(crate) mod vm;

pub(crate) use plan::Plan;
pub(crate) use vm::Vm;
