//! The registers of vCPUs that are not protected, as far as the host can know them: what a vCPU begins with, and what the
//! host has written since. What the guest has made of them once it has run is not followed.

use super::super::Memory;
use super::call::Case;
use super::guest::Waits;
use super::{Life, Vcpu};
use hyp_abi::Status;
use hyp_abi::vcpu_register::{SystemRegister, VcpuRegister};
use std::collections::BTreeMap;

/// PSTATE and SCTLR_EL1 of a vCPU that begins: EL1h, everything masked; its MMU off.
const PSTATE: u64 = 0x3c5;
const SCTLR: u64 = 0x30d0_0800;
/// SCTLR_EL1.EE and E0E.
const BIG_ENDIAN: u64 = 0b11 << 24;

/// What is known of a vCPU's registers.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash)]
pub struct Registers {
    /// Where it begins, if it has not run since: its first instruction and x0.
    begins: Option<(u64, u64)>,
    /// What the host wrote since it last ran.
    written: BTreeMap<VcpuRegister, u64>,
    /// Whether exceptions go elsewhere, or data is big-endian, than with what it began with.
    pub(super) odd: bool,
}

impl Registers {
    /// Those of a vCPU that begins.
    #[must_use]
    pub const fn beginning(entry: u64, argument: u64) -> Self {
        Self {
            begins: Some((entry, argument)),
            written: BTreeMap::new(),
            odd: false,
        }
    }

    /// The guest has run.
    pub(super) fn forget(&mut self) {
        self.begins = None;
        self.written.clear();
    }

    fn set(&mut self, register: VcpuRegister, value: u64) {
        self.odd |= match register {
            VcpuRegister::Pstate => value & 0xf != PSTATE & 0xf,
            VcpuRegister::System(SystemRegister::VbarEl1) => value >> 11 != 0,
            VcpuRegister::System(SystemRegister::SctlrEl1) => value & BIG_ENDIAN != 0,
            _ => false,
        };
        self.written.insert(register, value);
    }

    /// A register of the vCPU with this index, if it is known.
    pub(super) fn get(&self, index: u64, register: VcpuRegister) -> Option<u64> {
        if register == VcpuRegister::System(SystemRegister::MpidrEl1) {
            return Some(1 << 31 | index >> 4 << 8 | index & 0xf);
        }
        let beginning = || {
            let (entry, argument) = self.begins?;
            Some(match register {
                VcpuRegister::General(0) => argument,
                VcpuRegister::Pc => entry,
                VcpuRegister::Pstate => PSTATE,
                VcpuRegister::System(SystemRegister::SctlrEl1) => SCTLR,
                _ => 0,
            })
        };
        self.written.get(&register).copied().or_else(beginning)
    }
}

/// Whether the double's vCPUs have the register: its CPU has floating point and no pointer authentication, and two
/// registers of active priorities for each group.
const fn exists(register: VcpuRegister) -> bool {
    match register {
        VcpuRegister::Key(_) => false,
        VcpuRegister::ActivePriorities0(number) | VcpuRegister::ActivePriorities1(number) => number < 2,
        _ => true,
    }
}

/// The same active priorities of the other group.
const fn other_group(register: VcpuRegister) -> Option<VcpuRegister> {
    match register {
        VcpuRegister::ActivePriorities0(number) => Some(VcpuRegister::ActivePriorities1(number)),
        VcpuRegister::ActivePriorities1(number) => Some(VcpuRegister::ActivePriorities0(number)),
        _ => None,
    }
}

/// Whether a register can have a value, as it is documented, on a CPU of Armv8.0.
fn takes(vcpu: &Vcpu, index: u64, register: VcpuRegister, value: u64) -> bool {
    use VcpuRegister as R;
    let within = |mask: u64| value & !mask == 0;
    match register {
        R::Pstate => within(0xf000_03c5) && [0, 4, 5].contains(&(value & 0xf)),
        R::Fpsr | R::Fpcr => within(0xffff_ffff),
        R::System(SystemRegister::MpidrEl1) => false,
        R::TimerControl => within(0b11),
        R::GicControl => within(0xfffc_021b),
        R::ActivePriorities0(_) | R::ActivePriorities1(_) => {
            let other = other_group(register).and_then(|other| vcpu.registers.get(index, other));
            within(0xffff_ffff) && value & other.unwrap_or(0) == 0
        }
        R::Power => value <= 1,
        _ => true,
    }
}

impl Memory {
    /// Why a register cannot be read, if it cannot.
    fn no_register(&self, slot: u8, index: u64, name: u64) -> Vec<Status> {
        let vm = &self.vms.live[&slot];
        let mut reasons = Vec::new();
        if vm.protected {
            reasons.push(Status::WrongVmKind);
        }
        if vm.life != Life::Launched {
            reasons.push(Status::WrongVmState);
        }
        if !vm.vcpus.contains_key(&index) {
            reasons.push(Status::NoSuchVcpu);
        }
        if !VcpuRegister::from_register(name).is_some_and(exists) {
            reasons.push(Status::InvalidParameter);
        }
        reasons
    }

    pub(super) fn read_register(
        &self,
        case: &Case<'_>,
        slot: u8,
        index: u64,
        name: u64,
    ) -> Result<(), String> {
        if case.refused(&self.no_register(slot, index, name))? {
            return Ok(());
        }
        let vm = &self.vms.live[&slot];
        let vcpu = &vm.vcpus[&index];
        let register = VcpuRegister::from_register(name).ok_or("the register is none")?;
        let known = match register {
            VcpuRegister::CounterOffset => Some(vm.counter_offset),
            VcpuRegister::Power => Some(u64::from(vcpu.on)),
            register => vcpu.registers.get(index, register),
        };
        case.success([known.unwrap_or(case.answer.values[0]), 0, 0])
    }

    pub(super) fn write_register(
        &mut self,
        case: &Case<'_>,
        slot: u8,
        index: u64,
        name: u64,
        value: u64,
    ) -> Result<(), String> {
        let mut reasons = self.no_register(slot, index, name);
        let register = VcpuRegister::from_register(name);
        if let (Some(register), Some(vcpu)) = (register, self.vms.live[&slot].vcpus.get(&index)) {
            let unknown =
                other_group(register).is_some_and(|other| vcpu.registers.get(index, other).is_none());
            if !takes(vcpu, index, register, value) || (unknown && case.answer.status != Status::Success) {
                reasons.push(Status::InvalidParameter);
            }
        }
        if case.refused(&reasons)? {
            return Ok(());
        }
        case.success([0; 3])?;
        let vm = self.vm(slot);
        let register = register.ok_or("the register is none")?;
        if register == VcpuRegister::CounterOffset {
            vm.counter_offset = value;
            return Ok(());
        }
        let vcpu = vm.vcpus.get_mut(&index).ok_or("the vCPU is none")?;
        if vcpu.start.take().is_some() {
            vcpu.waits = Waits::Nothing;
        }
        match register {
            VcpuRegister::Power => vcpu.on = value == 1,
            register => vcpu.registers.set(register, value),
        }
        Ok(())
    }
}
