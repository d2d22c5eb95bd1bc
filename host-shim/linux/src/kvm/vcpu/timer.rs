//! A vCPU's attributes: `KVM_ARM_VCPU_TIMER_CTRL`, which interrupt its timer has (Linux,
//! `Documentation/virt/kvm/devices/vcpu.rst`). It is the same for all vCPUs of a VM.

use super::super::abi::devices::{DeviceAttr, GET_DEVICE_ATTR, HAS_DEVICE_ATTR};
use super::super::{read_user, write_user};
use super::Vcpu;
use crate::{Errno, Linux};

/// `KVM_ARM_VCPU_PMU_V3_CTRL`. No vCPU has a performance monitor.
const PMU: u32 = 0;
/// `KVM_ARM_VCPU_TIMER_CTRL`.
const TIMER: u32 = 1;
/// `KVM_ARM_VCPU_TIMER_IRQ_VTIMER`. Guests have no other timer.
const VIRTUAL: u64 = 0;

impl<L: Linux> Vcpu<L> {
    /// A command about an attribute.
    pub(super) fn device_attribute(&self, command: u32, argument: u64) -> Result<u64, Errno> {
        let linux = self.vm.linux();
        let asked: DeviceAttr = read_user(linux, argument)?;
        match (asked.group, asked.attr) {
            (TIMER, VIRTUAL) if command == HAS_DEVICE_ATTR => Ok(0),
            (PMU, _) if command != HAS_DEVICE_ATTR => Err(Errno::NODEV),
            (TIMER, VIRTUAL) => {
                let interrupts = self.vm.wires().interrupts();
                if command == GET_DEVICE_ATTR {
                    return write_user(linux, asked.addr, &interrupts.timer()).map(|()| 0);
                }
                if interrupts.device().is_none() {
                    return Err(Errno::INVAL);
                }
                let interrupt: u32 = read_user(linux, asked.addr)?;
                if !(16..32).contains(&interrupt) {
                    return Err(Errno::INVAL);
                }
                self.vm.before_launch(|| {
                    interrupts.set_timer(interrupt);
                    Ok(0)
                })
            }
            _ => Err(Errno::NXIO),
        }
    }
}
