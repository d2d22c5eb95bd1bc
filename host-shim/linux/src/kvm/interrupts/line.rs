//! `KVM_IRQ_LINE` and `KVM_SIGNAL_MSI`: user space as a device.

use super::{Interrupts, Routes, routes};
use crate::kvm::abi::devices::{IRQ_TYPE_PPI, IRQ_TYPE_SPI, IrqLevel, MSI_VALID_DEVID, Msi};
use crate::kvm::{read_user, write_user};
use crate::{Errno, Linux};
use core::mem;
use host_shim::vgic::PRIVATE;

/// How many SGIs there are: the numbers of PPIs begin there.
const SGIS: u32 = 16;

impl<L: Linux> Interrupts<L> {
    /// `KVM_IRQ_LINE`, and `KVM_IRQ_LINE_STATUS` if the answer is to be `told`.
    ///
    /// # Errors
    /// [`Errno::FAULT`]; [`Errno::NXIO`] if there is no controller in the kernel, or the line is that of a vCPU and none of
    /// its; [`Errno::BUSY`] if it is not made yet; [`Errno::INVAL`] if there is no such line.
    pub fn set_line(&self, argument: u64, told: bool) -> Result<u64, Errno> {
        let asked: IrqLevel = read_user(&self.linux, argument)?;
        let (kind, intid) = (asked.irq >> 24 & 0xf, asked.irq & 0xffff);
        let vcpu = ((asked.irq >> 28) << 8 | asked.irq >> 16 & 0xff) as usize;
        if kind == 0 || self.device().is_none() && (kind == IRQ_TYPE_SPI || kind == IRQ_TYPE_PPI) {
            return Err(Errno::NXIO);
        }
        let valid = match kind {
            IRQ_TYPE_SPI => intid >= PRIVATE,
            IRQ_TYPE_PPI => {
                let exists = self.places.get(vcpu).is_some_and(|place| place.is_completed());
                exists && (SGIS..PRIVATE).contains(&intid)
            }
            _ => false,
        };
        if !valid {
            return Err(Errno::INVAL);
        }
        let high = asked.level != 0;
        let done = self.with_vgic(|vgic| match vgic.set_level(intid, vcpu, high) {
            Ok(concerned) => (concerned, Ok(0)),
            Err(_) => (Default::default(), Err(Errno::INVAL)),
        });
        let done = done.ok_or(Errno::BUSY)?;
        if told && done.is_ok() {
            write_user(&self.linux, argument, &asked)?;
        }
        done
    }

    /// `KVM_SIGNAL_MSI`.
    ///
    /// # Errors
    /// [`Errno::FAULT`]; [`Errno::INVAL`]; [`Errno::NODEV`], as there is no ITS.
    pub fn signal_message(&self, argument: u64) -> Result<u64, Errno> {
        let message: Msi = read_user(&self.linux, argument)?;
        if self.device().is_none() || message.flags & !MSI_VALID_DEVID != 0 {
            return Err(Errno::INVAL);
        }
        Err(Errno::NODEV)
    }

    /// `KVM_SET_GSI_ROUTING`.
    ///
    /// # Errors
    /// Those of [`Routes::read`].
    pub fn set_routes(&self, argument: u64) -> Result<u64, Errno> {
        let mut routes = Routes::read(&self.linux, argument)?;
        self.routes.with(|now| mem::swap(now, &mut routes));
        Ok(0)
    }

    /// The controller is made: its pins get the lines of the same number.
    pub(super) fn route_straight(&self, interrupts: u32) {
        let mut routes = Routes::straight(interrupts.saturating_sub(routes::FIRST_SPI));
        self.routes.with(|now| mem::swap(now, &mut routes));
    }
}
