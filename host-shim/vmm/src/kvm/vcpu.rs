//! A virtual CPU.

use crate::{boot::Entry, bus::Bus, ending::Ending};
use anyhow::{Context as _, Result};
use kvm_bindings::{
    KVM_ARM_VCPU_POWER_OFF, KVM_ARM_VCPU_PSCI_0_2, KVM_SYSTEM_EVENT_CRASH, KVM_SYSTEM_EVENT_RESET,
    KVM_SYSTEM_EVENT_SHUTDOWN, kvm_vcpu_init,
};
use kvm_ioctls::{VcpuExit, VcpuFd, VmFd};
use std::sync::atomic::{AtomicBool, Ordering};

/// Register identifiers: 64-bit core registers, by their place in `struct kvm_regs` in words of 32 bits.
const X0: u64 = 0x6030_0000_0010_0000;
const PC: u64 = X0 + 32 * 2;

/// A virtual CPU.
#[derive(Debug)]
pub(crate) struct Vcpu {
    vcpu: VcpuFd,
    index: u32,
}

impl Vcpu {
    /// Makes CPU `index` of a machine. All but the first are off until the guest turns them on.
    pub(super) fn new(vm: &VmFd, index: u32, target: kvm_vcpu_init) -> Result<Self> {
        let vcpu = vm
            .create_vcpu(index.into())
            .with_context(|| format!("cannot make CPU {index}"))?;
        let mut features = target;
        features.features[0] |= 1 << KVM_ARM_VCPU_PSCI_0_2;
        if index > 0 {
            features.features[0] |= 1 << KVM_ARM_VCPU_POWER_OFF;
        }
        vcpu.vcpu_init(&features)
            .with_context(|| format!("cannot reset CPU {index}"))?;
        Ok(Self { vcpu, index })
    }

    /// Its number.
    #[must_use]
    pub(crate) fn index(&self) -> u32 {
        self.index
    }

    /// Has it begin at `entry`.
    ///
    /// # Errors
    /// If the system refuses.
    pub(crate) fn enter_at(&self, entry: Entry) -> Result<()> {
        for (register, value) in [(PC, entry.pc), (X0, entry.x0)] {
            self.vcpu
                .set_one_reg(register, &value.to_le_bytes())
                .context("cannot set a register")?;
        }
        Ok(())
    }

    /// Runs it until the guest ends, or `stopped` is seen after a signal.
    ///
    /// # Errors
    /// If the system does not run it.
    pub(crate) fn run(&mut self, bus: &Bus, stopped: &AtomicBool) -> Result<Option<Ending>> {
        while !stopped.load(Ordering::Acquire) {
            let exit = match self.vcpu.run() {
                Ok(exit) => exit,
                Err(error) if [libc::EINTR, libc::EAGAIN].contains(&error.errno()) => continue,
                Err(error) => {
                    return Err(error).with_context(|| format!("cannot run CPU {}", self.index));
                }
            };
            match exit {
                VcpuExit::MmioRead(address, data) => bus.read(address, data),
                VcpuExit::MmioWrite(address, data) => bus.write(address, data),
                VcpuExit::SystemEvent(KVM_SYSTEM_EVENT_SHUTDOWN, _) => return Ok(Some(Ending::Off)),
                VcpuExit::SystemEvent(KVM_SYSTEM_EVENT_RESET, _) => return Ok(Some(Ending::Reset)),
                VcpuExit::SystemEvent(KVM_SYSTEM_EVENT_CRASH, _) => {
                    return Ok(Some(Ending::Stuck("it crashed".to_owned())));
                }
                VcpuExit::MemoryFault { flags, gpa, size } => {
                    let why = format!(
                        "CPU {} has no memory at {gpa:#x} ({size} bytes, flags {flags:#x})",
                        self.index
                    );
                    return Ok(Some(Ending::Stuck(why)));
                }
                other => {
                    let why = format!("CPU {} stopped for an unknown reason: {other:?}", self.index);
                    return Ok(Some(Ending::Stuck(why)));
                }
            }
        }
        Ok(None)
    }
}
