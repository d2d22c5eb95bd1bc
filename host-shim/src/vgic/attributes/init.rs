//! From what user space said to a controller.

use super::*;
use crate::vgic::is_number_of_interrupts;
use crate::vgic::register::{Distributor, Redistributor};

impl VgicDevice {
    /// How many interrupts there are, or will be.
    pub(super) fn interrupts(&self) -> u32 {
        self.setup.lock().interrupts.unwrap_or(PRIVATE)
    }

    pub(super) fn set_interrupts(&self, value: u32) -> Result<(), Errno> {
        if !is_number_of_interrupts(value) {
            return Err(Errno::Invalid);
        }
        let mut setup = self.setup.lock();
        if setup.interrupts.is_some() {
            return Err(Errno::Busy);
        }
        setup.interrupts = Some(value);
        Ok(())
    }

    /// Makes the controller. To do so again does nothing.
    pub(super) fn init(&self) -> Result<(), Errno> {
        if self.vgic.is_completed() {
            return Ok(());
        }
        let (config, revision) = {
            let setup = self.setup.lock();
            let config = VgicConfig {
                vcpus: setup.placement.vcpus(),
                interrupts: setup.interrupts.unwrap_or(DEFAULT_INTERRUPTS),
                interface: self.interface,
            };
            (config, setup.revision)
        };
        if config.vcpus.is_empty() {
            return Err(Errno::NoDevice);
        }
        let vgic = Vgic::new(&config).map_err(|error| match error {
            NoVgic::Config => Errno::Invalid,
            NoVgic::Memory => Errno::NoMemory,
        })?;
        vgic.set_revision(revision);
        self.setup.lock().interrupts = Some(config.interrupts);
        self.vgic.call_once(|| vgic);
        self.tell_last();
        Ok(())
    }

    /// Tells the controller whose redistributors are followed by none.
    pub(super) fn tell_last(&self) {
        if let Some(vgic) = self.vgic.get() {
            let last = self.setup.lock().placement.last();
            vgic.set_last(last);
        }
    }

    pub(super) fn register(&self, frame: Frame, offset: u32) -> Result<u32, Errno> {
        if let Some(vgic) = self.vgic.get() {
            if !has_register(frame, offset, vgic.interrupts() as usize) {
                return Err(Errno::NoSuchAddress);
            }
            return Ok(vgic.user_read(frame, offset));
        }
        match early(frame, offset) {
            Some(Distributor::Identification) => {
                Ok(crate::vgic::frames::identification(self.setup.lock().revision))
            }
            Some(_) => Ok(0),
            None => Err(Errno::Busy),
        }
    }

    pub(super) fn set_register(&self, frame: Frame, offset: u32, value: u32) -> Result<VcpuSet, Errno> {
        if let Some(vgic) = self.vgic.get() {
            if !has_register(frame, offset, vgic.interrupts() as usize) {
                return Err(Errno::NoSuchAddress);
            }
            return (vgic.user_write(frame, offset, value)).map_err(|_| Errno::Invalid);
        }
        match early(frame, offset) {
            Some(Distributor::Identification) => {
                let mut setup = self.setup.lock();
                let now = crate::vgic::frames::identification(setup.revision);
                setup.revision = checked_revision(now, value).map_err(|_| Errno::Invalid)?;
            }
            Some(_) if value == 0 => {}
            Some(_) => return Err(Errno::Invalid),
            None => return Err(Errno::Busy),
        }
        Ok(VcpuSet::EMPTY)
    }
}

/// A register that there is before there is a controller: GICD_IIDR, and GICD_TYPER2, which is zero.
fn early(frame: Frame, offset: u32) -> Option<Distributor> {
    let register = match frame {
        Frame::Distributor => Distributor::at(offset, 4, 0),
        Frame::Redistributor(_) => None,
    };
    register.filter(|register| matches!(register, Distributor::Identification | Distributor::Type2))
}

/// Whether a frame has a register of 32 bits, or a half of one of 64.
pub(super) fn has_register(frame: Frame, offset: u32, interrupts: usize) -> bool {
    match frame {
        Frame::Distributor => Distributor::at(offset, 4, interrupts).is_some(),
        Frame::Redistributor(_) => Redistributor::at(offset, 4).is_some(),
    }
}
