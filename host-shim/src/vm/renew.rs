//! A VM that begins again, and the registers of all its vCPUs.

use super::{Identity, Vm};
use crate::{Error, Kernel};
use hyp_abi::VcpuRegister;

impl<K: Kernel> Vm<K> {
    /// Begins again, after the guest has ended itself or at any other time: EL2 gets a new VM, which is as it was before
    /// the launch. Slots, files and vCPUs stay; no memory is declared, and the guest has no page until it asks for it.
    ///
    /// A protected VM cannot: what its guest had comes back zeroed, and there is nothing to begin with.
    ///
    /// # Errors
    /// [`Error::NotSupported`] if it is protected; [`Error::Running`] while a vCPU runs; [`Error::Gone`] if it is to end, or
    /// has; [`Error::NoMemory`]; [`Error::OverLimit`]. Then it cannot be run, and this can be called again.
    pub fn renew(&self) -> Result<(), Error> {
        let core = self.core();
        if core.is_protected() {
            return Err(Error::NotSupported);
        }
        core.renew()
    }

    /// Sets a register of the vCPU with an index: see [`crate::Vcpu::write_register`].
    ///
    /// # Errors
    /// Those of [`crate::Vcpu::write_register`].
    pub fn write_register(&self, index: u64, register: VcpuRegister, value: u64) -> Result<(), Error> {
        let hypervisor = self.core().host().hypervisor();
        self.core()
            .call(|vm| hypervisor.write_register(vm, index, register, value))
    }
}

impl<K: Kernel> Identity<K> {
    fn renew(&self) -> Result<(), Error> {
        let _one_at_a_time = self.ending.lock();
        if self.is_doomed() {
            return Err(Error::Gone);
        }
        self.retire()?;
        self.set_launched(false);
        let hypervisor = self.host().hypervisor();
        let handle = self.host().call(None, || {
            hypervisor.create_vm(self.flags(), self.max_vcpus(), self.ipa_bits())
        })?;
        self.set_handle(handle);
        // Their pages are shared with EL2 as before, which has unpinned them with the last VM.
        for (index, page) in &*self.vcpus.lock() {
            self.call(|vm| hypervisor.create_vcpu(vm, *index, page.address()))?;
        }
        Ok(())
    }
}
