//! A vCPU's entries and exits.

use super::{Synced, Vgic};
use crate::vcpu::Entry;
use crate::{Error, Kernel, Vcpu};

impl Vgic {
    /// Adds what a vCPU should see of interrupts to its next entry. Called with the host's interrupts off, so that
    /// whoever finds something for it afterwards can bring it back by one.
    #[must_use]
    pub fn enter(&self, vcpu: usize, entry: Entry) -> Entry {
        match self.flush(vcpu) {
            Some(load) => entry.interrupts(load.control, &load.list),
            None => entry,
        }
    }

    /// Takes back what became of them, after the exit of a vCPU that [`Vgic::enter`] was called for. The timer's line is
    /// set as the exit says.
    ///
    /// # Errors
    /// Those of [`Vcpu::interrupts`]. Then the list registers count as untouched.
    pub fn leave<K: Kernel>(&self, vcpu: &Vcpu<K>) -> Result<Synced, Error> {
        let interrupts = vcpu.interrupts()?;
        Ok(usize::try_from(vcpu.index())
            .map_or_else(|_| Synced::default(), |index| self.sync(index, &interrupts)))
    }
}
