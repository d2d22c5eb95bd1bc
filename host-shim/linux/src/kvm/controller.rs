//! The seam between the runs of vCPUs and a VM's interrupt controller.

use core::fmt::Debug;
use host_shim::vcpu::{Entry, Interrupts};
use host_shim::vgic::VcpuSet;
use hyp_abi::run_page::SgiRegister;

use crate::Errno;

/// An interrupt controller in the kernel, and what else the kernel emulates of a VM.
///
/// All but [`Controller::start`] is called with the interrupts of the CPU off: it does not sleep, allocate or wait.
/// What returns a set of vCPUs has them told by the caller ([`super::Vm::tell`]); the vCPU that it is about may be in it.
pub trait Controller: Debug + Send + Sync {
    /// The VM is about to be launched. Called again if it was refused, by one task at a time.
    ///
    /// # Errors
    /// If the controller is not complete: KVM_RUN answers it.
    fn start(&self) -> Result<(), Errno>;

    /// Adds to an entry of a vCPU what it is to see. Either [`Controller::leave`] follows, or [`Controller::cancel`], or
    /// this again.
    fn enter(&self, vcpu: usize, entry: Entry) -> Entry;

    /// The vCPU was not entered after all.
    fn cancel(&self, vcpu: usize) -> VcpuSet;

    /// Takes back what became of interrupts and timer in a run.
    fn leave(&self, vcpu: usize, interrupts: &Interrupts) -> VcpuSet;

    /// Whether something waits for a vCPU that does not run.
    fn is_pending(&self, vcpu: usize) -> bool;

    /// The virtual timer of a vCPU that does not run has become due.
    fn timer_is_due(&self, vcpu: usize) -> VcpuSet;

    /// A vCPU sends software-generated interrupts: see [`host_shim::Exit::SendInterrupt`].
    fn send(&self, vcpu: usize, register: SgiRegister, value: u64) -> VcpuSet;

    /// A vCPU loads from a device. `None` if it is not one of the kernel's.
    fn load(&self, vcpu: usize, ipa: u64, bytes: u64) -> Option<(u64, VcpuSet)>;

    /// A vCPU stores to a device. `None` if it is not one of the kernel's.
    fn store(&self, vcpu: usize, ipa: u64, bytes: u64, value: u64) -> Option<VcpuSet>;
}
