//! The registers of a vCPU as its host reads and writes them, if its VM is not protected.
//!
//! What is written comes to the CPU when the vCPU is run, by the same instructions as what the guest has left. So a
//! register that the guest can itself set to anything takes any value here: it brings about nothing that the guest could
//! not. The others, which only EL2 can write, take what has a meaning. See [`hyp_abi::vcpu_register`] for the values.
//!
//! What an exit waits for stays as it is: the host's answer is then about the registers as they are by then.
//!
//! No number or value here leads to an address of EL2's, so a CPU that guesses a check right gives nothing away.

use super::context::{GicInterface, SystemRegisters, VcpuContext};
use super::state::{Life, Vm};
use super::table::LockedVm;
use super::timer::{ENABLE, IMASK};
use super::vcpu::{Power, Vcpu, VcpuSlot};
use crate::hardware::{GuestSupport, Hardware};
use crate::ownership::Ownership;
use crate::trap::id::IdRegisters;
use crate::trap::pstate::is_guest_pstate;
use hyp_abi::Status;
use hyp_abi::vcpu_register::{SystemRegister, VcpuRegister};

/// ICH_VMCR_EL2: VENG0 (0), VENG1 (1), VFIQEn (3), VCBPR (4), VEOIM (9), VBPR1 (20:18), VBPR0 (23:21), VPMR (31:24).
/// VAckCtl (2) is RES0 where there is nothing but system registers, as for all guests; VFIQEn is RES1 there (GIC
/// architecture, IHI 0069, 12.4).
const VMCR_ALLOWED: u64 = 1 << 0 | 1 << 1 | 1 << 3 | 1 << 4 | 1 << 9 | 0b111 << 18 | 0b111 << 21 | 0xff << 24;

/// What a register of 32 bits can hold. Of the active priorities, bit 63 of the first is of non-maskable interrupts,
/// which guests do not have.
const WORD: u64 = 0xffff_ffff;

/// ID_AA64PFR0_EL1.FP of a CPU without floating point.
const NO_FLOATING_POINT: u8 = 0xf;

/// The bits of half a vector register.
const HALF: u32 = 64;

/// Defines which field a system register is.
macro_rules! system_registers {
    ($($register:ident $field:ident)*) => {
        const fn system(registers: &SystemRegisters, register: SystemRegister) -> u64 {
            match register {
                $(SystemRegister::$register => registers.$field,)*
            }
        }

        const fn system_place(registers: &mut SystemRegisters, register: SystemRegister) -> &mut u64 {
            match register {
                $(SystemRegister::$register => &mut registers.$field,)*
            }
        }
    };
}

system_registers! {
    SpEl0 sp_el0
    SpEl1 sp_el1
    ElrEl1 elr_el1
    SpsrEl1 spsr_el1
    SctlrEl1 sctlr_el1
    CpacrEl1 cpacr_el1
    Ttbr0El1 ttbr0_el1
    Ttbr1El1 ttbr1_el1
    TcrEl1 tcr_el1
    EsrEl1 esr_el1
    Afsr0El1 afsr0_el1
    Afsr1El1 afsr1_el1
    FarEl1 far_el1
    MairEl1 mair_el1
    AmairEl1 amair_el1
    VbarEl1 vbar_el1
    ContextidrEl1 contextidr_el1
    TpidrEl0 tpidr_el0
    TpidrroEl0 tpidrro_el0
    TpidrEl1 tpidr_el1
    ParEl1 par_el1
    CntkctlEl1 cntkctl_el1
    CsselrEl1 csselr_el1
    MpidrEl1 vmpidr_el2
}

/// Whether vCPUs have a register where the CPU that booted is `id`.
const fn exists(id: &IdRegisters, support: GuestSupport, register: VcpuRegister) -> bool {
    use VcpuRegister as R;
    match register {
        R::Key(_) => id.pointer_authentication(),
        R::Fpsr | R::Fpcr | R::VectorLow(_) | R::VectorHigh(_) => id.fp() != NO_FLOATING_POINT,
        R::ActivePriorities0(number) | R::ActivePriorities1(number) => number < support.active_priorities,
        _ => true,
    }
}

/// Whether a register that exists takes this value, beside what `gic` has.
fn admits(id: &IdRegisters, gic: &GicInterface, register: VcpuRegister, value: u64) -> bool {
    use VcpuRegister as R;
    let apart = |others: &[u64; 4], number: u8| {
        let other = others.get(usize::from(number)).copied().unwrap_or(0);
        value & !WORD == 0 && value & other == 0
    };
    match register {
        R::Pstate => is_guest_pstate(id, value),
        R::Fpsr | R::Fpcr => value & !WORD == 0,
        R::System(SystemRegister::MpidrEl1) => false,
        R::TimerControl => value & !(ENABLE | IMASK) == 0,
        R::GicControl => value & !VMCR_ALLOWED == 0,
        // A priority that is active in both groups is UNPREDICTABLE (IHI 0069, 12.4, ICH_AP1R<n>_EL2).
        R::ActivePriorities0(number) => apart(&gic.active_priorities_1, number),
        R::ActivePriorities1(number) => apart(&gic.active_priorities_0, number),
        R::Power => value <= 1,
        _ => true,
    }
}

impl VcpuContext {
    /// A register, unless it is none of a vCPU's registers.
    fn register(&self, register: VcpuRegister) -> Option<u64> {
        use VcpuRegister as R;
        let vector = |number: u8| self.simd.v.get(usize::from(number)).copied();
        match register {
            R::General(number) => self.x.get(usize::from(number)).copied(),
            R::Pc => Some(self.pc),
            R::Pstate => Some(self.pstate),
            R::Fpsr => Some(self.simd.fpsr),
            R::Fpcr => Some(self.simd.fpcr),
            R::VectorLow(number) => vector(number).map(|v| v as u64),
            R::VectorHigh(number) => vector(number).map(|v| (v >> HALF) as u64),
            R::System(register) => Some(system(&self.system, register)),
            R::Key(number) => self.keys.get(usize::from(number)).copied(),
            R::TimerControl => Some(self.timer.own_control()),
            R::TimerCompare => Some(self.timer.compare),
            R::GicControl => Some(self.gic.vmcr),
            R::ActivePriorities0(number) => {
                let registers = &self.gic.active_priorities_0;
                registers.get(usize::from(number)).copied()
            }
            R::ActivePriorities1(number) => {
                let registers = &self.gic.active_priorities_1;
                registers.get(usize::from(number)).copied()
            }
            R::CounterOffset | R::Power => None,
        }
    }

    /// Sets a register to a value that it admits.
    fn set_register(&mut self, register: VcpuRegister, value: u64) {
        use VcpuRegister as R;
        let place = match register {
            R::General(number) => self.x.get_mut(usize::from(number)),
            R::Pc => Some(&mut self.pc),
            R::Pstate => Some(&mut self.pstate),
            R::Fpsr => Some(&mut self.simd.fpsr),
            R::Fpcr => Some(&mut self.simd.fpcr),
            R::VectorLow(number) => {
                if let Some(v) = self.simd.v.get_mut(usize::from(number)) {
                    *v = *v >> HALF << HALF | u128::from(value);
                }
                None
            }
            R::VectorHigh(number) => {
                if let Some(v) = self.simd.v.get_mut(usize::from(number)) {
                    *v = u128::from(value) << HALF | u128::from(*v as u64);
                }
                None
            }
            R::System(register) => Some(system_place(&mut self.system, register)),
            R::Key(number) => self.keys.get_mut(usize::from(number)),
            R::TimerControl => {
                self.timer.release();
                Some(&mut self.timer.control)
            }
            R::TimerCompare => {
                self.timer.release();
                Some(&mut self.timer.compare)
            }
            R::GicControl => Some(&mut self.gic.vmcr),
            R::ActivePriorities0(number) => self.gic.active_priorities_0.get_mut(usize::from(number)),
            R::ActivePriorities1(number) => self.gic.active_priorities_1.get_mut(usize::from(number)),
            R::CounterOffset | R::Power => None,
        };
        if let Some(place) = place {
            *place = value;
        }
    }
}

impl<H: Hardware> Vm<H> {
    /// Sets the offset of the virtual counter, which every vCPU has with it. None of them runs.
    fn set_counter_offset(&mut self, offset: u64) {
        for slot in &mut self.vcpus {
            if let VcpuSlot::Resting { home, .. } = slot {
                home.context.timer.offset = offset;
            }
        }
    }

    /// A vCPU that no CPU has.
    fn resting(&mut self, index: u8) -> Result<(&mut Vcpu, &mut Power), Status> {
        match self.vcpus.get_mut(usize::from(index)) {
            None | Some(VcpuSlot::Absent) => Err(Status::NoSuchVcpu),
            Some(VcpuSlot::Running) => Err(Status::VcpuRunning),
            Some(VcpuSlot::Resting { home, power }) => Ok((home, power)),
        }
    }
}

impl<H: Hardware> Ownership<'_, H> {
    /// The lock of a VM whose registers are its host's to see, and which can run.
    fn lock_open(&self, vm: u64) -> Result<LockedVm<'_, H>, Status> {
        let vm = self.vms().lock(self.hardware(), vm)?;
        if vm.config.protected {
            return Err(Status::WrongVmKind);
        }
        match vm.life {
            Life::Launched { off: false, .. } => Ok(vm),
            Life::Launched { off: true, .. } | Life::Created | Life::Dying => Err(Status::WrongVmState),
        }
    }

    /// The register of this name, if vCPUs of this machine have it.
    fn checked_register(&self, name: u64) -> Result<VcpuRegister, Status> {
        let hw = self.hardware();
        VcpuRegister::from_register(name)
            .filter(|register| exists(hw.id_registers(), hw.guest_support(), *register))
            .ok_or(Status::InvalidParameter)
    }

    /// A register of a vCPU; see [`hyp_abi::VmCall::ReadRegister`].
    ///
    /// # Errors
    /// [`Status::NoSuchVm`], [`Status::WrongVmKind`], [`Status::WrongVmState`], [`Status::NoSuchVcpu`],
    /// [`Status::VcpuRunning`], [`Status::InvalidParameter`].
    #[inline(never)]
    pub fn read_vcpu_register(&self, vm: u64, index: u64, name: u64) -> Result<u64, Status> {
        let mut vm = self.lock_open(vm)?;
        let index = vm.checked_index(self.hardware(), index)?;
        let (vcpu, power) = vm.resting(index)?;
        let value = match (self.checked_register(name)?, vcpu.start) {
            (VcpuRegister::CounterOffset, _) => Some(vcpu.context.timer.offset),
            (VcpuRegister::Power, _) => Some(u64::from(*power != Power::Off)),
            (register, None) => vcpu.context.register(register),
            // It has what it had before it was turned on; it will begin anew.
            (register, Some(start)) => VcpuContext::reset(index, start).register(register),
        };
        value.ok_or(Status::InvalidParameter)
    }

    /// Sets a register of a vCPU; see [`hyp_abi::VmCall::WriteRegister`].
    ///
    /// # Errors
    /// [`Status::NoSuchVm`], [`Status::WrongVmKind`], [`Status::WrongVmState`], [`Status::NoSuchVcpu`],
    /// [`Status::VcpuRunning`], [`Status::InvalidParameter`].
    #[inline(never)]
    pub fn write_vcpu_register(&self, vm: u64, index: u64, name: u64, value: u64) -> Result<(), Status> {
        let mut vm = self.lock_open(vm)?;
        let index = vm.checked_index(self.hardware(), index)?;
        let runs = vm.running() != 0;
        let (vcpu, power) = vm.resting(index)?;
        let register = self.checked_register(name)?;
        let begins_with = GicInterface::default();
        let gic = match vcpu.start {
            None => &vcpu.context.gic,
            Some(_) => &begins_with,
        };
        if !admits(self.hardware().id_registers(), gic, register, value) {
            return Err(Status::InvalidParameter);
        }
        if register == VcpuRegister::CounterOffset {
            // It is the VM's: all of its vCPUs agree on the time.
            if runs {
                return Err(Status::VcpuRunning);
            }
            vm.set_counter_offset(value);
            return Ok(());
        }
        // What it begins with must not come over what is written.
        if let Some(start) = vcpu.start.take() {
            vcpu.begin(index, start);
            *power = Power::On;
        }
        match register {
            VcpuRegister::Power => *power = if value == 0 { Power::Off } else { Power::On },
            register => vcpu.context.set_register(register, value),
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::vec::Vec;

    const SUPPORT: GuestSupport = GuestSupport {
        min_ipa_bits: 32,
        max_ipa_bits: 48,
        list_registers: 4,
        active_priorities: 1,
        interface: 0x9000_0003,
    };

    fn missing(id: &IdRegisters, active_priorities: u8) -> Vec<VcpuRegister> {
        let support = GuestSupport {
            active_priorities,
            ..SUPPORT
        };
        VcpuRegister::all()
            .filter(|register| !exists(id, support, *register))
            .collect()
    }

    #[test]
    fn a_vcpu_has_the_registers_that_the_machine_has() {
        let all = IdRegisters {
            isar1: 1 << 4,
            ..IdRegisters::NONE
        };
        assert_eq!(missing(&all, 4), []);
        assert_eq!(missing(&IdRegisters::NONE, 4).len(), 10);
        assert_eq!(missing(&all, 1).len(), 6);
        assert_eq!(
            missing(&all, 2),
            [
                VcpuRegister::ActivePriorities0(2),
                VcpuRegister::ActivePriorities0(3),
                VcpuRegister::ActivePriorities1(2),
                VcpuRegister::ActivePriorities1(3),
            ]
        );
        let without_floating_point = IdRegisters {
            pfr0: 0xff << 16,
            ..all
        };
        assert_eq!(missing(&without_floating_point, 4).len(), 2 * 32 + 2);
    }

    #[test]
    fn a_register_takes_the_bits_that_it_can_have() {
        let gic = GicInterface {
            active_priorities_0: [1 << 3, 0, 0, 0],
            active_priorities_1: [0, 1 << 31, 0, 0],
            ..GicInterface::default()
        };
        for register in VcpuRegister::all() {
            let bits = match register {
                VcpuRegister::Pstate => continue,
                VcpuRegister::Fpsr | VcpuRegister::Fpcr => 0xffff_ffff,
                VcpuRegister::System(SystemRegister::MpidrEl1) => {
                    assert!(!admits(&IdRegisters::NONE, &gic, register, 1 << 31));
                    continue;
                }
                VcpuRegister::TimerControl => 0b11,
                VcpuRegister::GicControl => 0xfffc_021b,
                VcpuRegister::ActivePriorities0(1) => 0x7fff_ffff,
                VcpuRegister::ActivePriorities1(0) => 0xffff_fff7,
                VcpuRegister::ActivePriorities0(_) | VcpuRegister::ActivePriorities1(_) => 0xffff_ffff,
                VcpuRegister::Power => 0b1,
                _ => u64::MAX,
            };
            for bit in 0..64 {
                let admitted = admits(&IdRegisters::NONE, &gic, register, 1 << bit);
                assert_eq!(admitted, bits >> bit & 1 != 0, "{register:?}, bit {bit}");
            }
            assert!(admits(&IdRegisters::NONE, &gic, register, 0));
            assert!(admits(&IdRegisters::NONE, &gic, register, bits), "{register:?}");
        }
    }

    #[test]
    fn every_register_has_a_place_of_its_own() {
        let mut context = VcpuContext::default();
        let inside = || {
            VcpuRegister::all()
                .filter(|register| !matches!(register, VcpuRegister::CounterOffset | VcpuRegister::Power))
        };
        for (number, register) in (1..).zip(inside()) {
            context.set_register(register, number);
        }
        for (number, register) in (1..).zip(inside()) {
            let expected = match register {
                VcpuRegister::TimerControl => number & (ENABLE | IMASK),
                _ => number,
            };
            assert_eq!(context.register(register), Some(expected), "{register:?}");
        }
        assert_eq!(
            context.simd.v[5],
            (4_u128 + 31 + 32 + 5 + 1) << 64 | (31 + 4 + 5 + 1)
        );
        assert_eq!((context.system.mdscr_el1, context.system.disr_el1), (0, 0));
    }
}
