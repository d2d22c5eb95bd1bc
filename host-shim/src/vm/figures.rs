//! What is told of a VM to those who do not keep it.

use super::{Identity, Vm};
use crate::{Error, Kernel};
use alloc::sync::Arc;
use hyp_abi::VmHandle;
use hyp_abi::vm::{VmFlags, VmStatistic};

/// A VM's figures. They do not keep it: it ends while somebody reads them, and all of its memory is free then.
#[derive(Debug)]
pub struct Figures<K: Kernel> {
    core: Arc<Identity<K>>,
}

impl<K: Kernel> Figures<K> {
    /// What kind of VM it is, or was.
    #[must_use]
    pub fn flags(&self) -> VmFlags {
        self.core.flags()
    }

    /// Its last handle.
    #[must_use]
    pub fn handle(&self) -> VmHandle {
        self.core.handle()
    }

    /// Asks for a figure.
    ///
    /// # Errors
    /// [`Error::Gone`].
    pub fn statistic(&self, statistic: VmStatistic) -> Result<u64, Error> {
        self.core.statistic(statistic)
    }
}

impl<K: Kernel> Vm<K> {
    /// Its figures.
    #[must_use]
    pub fn figures(&self) -> Figures<K> {
        Figures {
            core: Arc::clone(&self.core),
        }
    }

    /// Asks for a figure.
    ///
    /// # Errors
    /// [`Error::Gone`].
    pub fn statistic(&self, statistic: VmStatistic) -> Result<u64, Error> {
        self.core.statistic(statistic)
    }
}

impl<K: Kernel> Identity<K> {
    fn statistic(&self, statistic: VmStatistic) -> Result<u64, Error> {
        self.call(|vm| self.host().hypervisor().vm_statistic(vm, statistic))
    }
}
