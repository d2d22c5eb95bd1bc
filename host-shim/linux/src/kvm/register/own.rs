//! Registers that EL2 does not have: of a vCPU whose VM has not begun, and those that no vCPU has.

use super::mpidr;
use alloc::collections::BTreeMap;
use hyp_abi::VcpuRegister;
use hyp_abi::vcpu_register::SystemRegister;

/// PSTATE of a CPU that begins: EL1h, all exceptions masked.
const RESET_PSTATE: u64 = 0x3C5;
/// SCTLR_EL1 of a CPU that begins, as EL2 has it: MMU and caches off (Arm ARM DDI 0487, D24.2.150).
const RESET_SCTLR: u64 = 0x30D0_0800;

/// The registers of a vCPU, as user space has set them.
#[derive(Debug)]
pub(in crate::kvm) struct Own {
    vcpu: u64,
    set: BTreeMap<VcpuRegister, u64>,
    /// SPSRs of modes that the guest cannot be in: they hold what they are set to, whatever the VM does.
    pub(in crate::kvm) banked: [u64; 4],
    /// It is off when the VM begins.
    pub(in crate::kvm) off: bool,
}

/// What a register of a vCPU is when it begins.
pub(in crate::kvm) const fn at_reset(vcpu: u64, register: VcpuRegister) -> u64 {
    match register {
        VcpuRegister::Pstate => RESET_PSTATE,
        VcpuRegister::System(SystemRegister::SctlrEl1) => RESET_SCTLR,
        VcpuRegister::System(SystemRegister::MpidrEl1) => mpidr(vcpu),
        _ => 0,
    }
}

impl Own {
    /// Of a vCPU that begins anew, with that index.
    pub(in crate::kvm) const fn new(vcpu: u64, off: bool) -> Self {
        Self {
            vcpu,
            set: BTreeMap::new(),
            banked: [0; 4],
            off,
        }
    }

    /// A register.
    pub(in crate::kvm) fn get(&self, register: VcpuRegister) -> u64 {
        let set = self.set.get(&register).copied();
        set.unwrap_or_else(|| at_reset(self.vcpu, register))
    }

    /// Sets a register.
    pub(in crate::kvm) fn set(&mut self, register: VcpuRegister, value: u64) {
        self.set.insert(register, value);
    }

    /// EL2 has them from now on. Should it have them no more one day, the vCPU is off, and as if it began anew.
    pub(in crate::kvm) fn forget(&mut self) {
        self.set.clear();
        self.off = true;
    }

    /// Those that were set.
    pub(in crate::kvm) fn all_set(&self) -> impl Iterator<Item = (VcpuRegister, u64)> {
        self.set.iter().map(|(register, value)| (*register, *value))
    }
}
