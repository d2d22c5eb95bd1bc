//! A vCPU's interface to the interrupt controller, as user space saves and restores it.

use super::Inside;
use crate::{Errno as Reason, Linux};
use host_shim::vgic::attributes::{CpuInterface, Errno};
use hyp_abi::VcpuRegister;

fn register(group: usize, index: usize) -> VcpuRegister {
    match group {
        0 => VcpuRegister::ActivePriorities0(index as u8),
        _ => VcpuRegister::ActivePriorities1(index as u8),
    }
}

/// The error of a register that cannot be had.
fn errno(reason: Reason) -> Errno {
    match reason {
        Reason::INVAL => Errno::NoSuchAddress,
        _ => Errno::Busy,
    }
}

impl<L: Linux> CpuInterface for Inside<'_, L> {
    fn control(&self) -> Result<u64, Errno> {
        let control = self.vcpu.read(self, VcpuRegister::GicControl);
        control.map_err(errno)
    }

    fn set_control(&mut self, value: u64) -> Result<(), Errno> {
        let vcpu = self.vcpu;
        let set = vcpu.write(self, VcpuRegister::GicControl, value);
        set.map_err(errno)
    }

    fn active_priorities(&self, group: usize, index: usize) -> Result<u32, Errno> {
        let value = self.vcpu.read(self, register(group, index));
        value.map(|value| value as u32).map_err(errno)
    }

    fn set_active_priorities(&mut self, group: usize, index: usize, value: u32) -> Result<(), Errno> {
        let vcpu = self.vcpu;
        // A priority is active in one group at most, and what is written last counts.
        let other = register(1 - group, index);
        let left = vcpu.read(self, other).map_err(errno)? & !u64::from(value);
        vcpu.write(self, other, left).map_err(errno)?;
        let set = vcpu.write(self, register(group, index), value.into());
        set.map_err(errno)
    }
}

/// Stands for an interface of which it is only asked whether there is one.
#[derive(Debug)]
pub(in crate::kvm) struct Unseen;

impl CpuInterface for Unseen {
    fn control(&self) -> Result<u64, Errno> {
        Err(Errno::Busy)
    }

    fn set_control(&mut self, _: u64) -> Result<(), Errno> {
        Err(Errno::Busy)
    }

    fn active_priorities(&self, _: usize, _: usize) -> Result<u32, Errno> {
        Err(Errno::Busy)
    }

    fn set_active_priorities(&mut self, _: usize, _: usize, _: u32) -> Result<(), Errno> {
        Err(Errno::Busy)
    }
}
