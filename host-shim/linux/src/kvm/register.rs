//! Registers of a vCPU, by KVM's names.
//!
//! A name is `KVM_REG_ARM64`, the size, the kind, and the number of that kind (Linux,
//! `Documentation/virt/kvm/api.rst`, 4.68).
//!
//! Of a VM that is not protected there is all that a vCPU has. A protected VM's vCPUs have the core registers, of which
//! Freehold takes two, PC and x0 of the first vCPU, and what follows from the VM and the machine; and none of them any more
//! once it has begun.

mod own;

pub(super) use own::{Own, at_reset};

use crate::Errno;
use VcpuRegister::{
    Fpcr, Fpsr, General, Key, Pc, Pstate, System, TimerCompare, TimerControl, VectorHigh, VectorLow,
};
use host_shim::{CallError, Hypercall, Hypervisor};
use hyp_abi::guest_support::system_register;
use hyp_abi::vcpu_register::SystemRegister as S;
use hyp_abi::{GuestSupport, VcpuRegister};

/// `KVM_REG_ARM64`, the architecture in a name.
const ARM64: u64 = 0x60 << 56;
/// The size in a name: 2^n bytes.
const SIZE_SHIFT: u32 = 52;
const SIZE: u64 = 0xF << SIZE_SHIFT;
/// `KVM_REG_SIZE_U64`.
const U64: u64 = 3 << SIZE_SHIFT;
/// `KVM_REG_ARM_COPROC_MASK`: the kind in a name.
const KIND: u64 = 0xFFF << 16;
/// `KVM_REG_ARM_CORE`: the number is a place in `struct kvm_regs`, in units of 4 bytes.
const CORE: u64 = 0x10 << 16;
/// `KVM_REG_ARM64_SYSREG`: the number is that of the instructions which access the register.
const SYSTEM: u64 = 0x13 << 16;
/// `KVM_REG_ARM_FW`: what the hypervisor's firmware is like.
const FIRMWARE: u64 = 0x14 << 16;
const NUMBER: u64 = 0xFFFF;

/// Bytes of `struct kvm_regs`.
const BYTES: usize = 864;

/// A register's value: up to 16 bytes.
pub(super) type Value = [u8; 16];

/// What firmware of Freehold's answers to the guest, by number: the version of PSCI, 1.1; that SMCCC_ARCH_WORKAROUND_1 is
/// there, _2 is not required, _3 is there.
const FIRMWARE_VALUES: [u64; 4] = [0x1_0001, 1, 3, 1];

/// A register.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Register {
    /// One of 8 bytes, or of 4, that EL2 has.
    Vcpu(VcpuRegister),
    /// One of 16 bytes, of which EL2 has the halves.
    Vector(u8),
    /// An SPSR of a mode that only a CPU of 32 bits has: Abort, Undefined, IRQ, FIQ.
    Banked(u8),
    /// What the hypervisor's firmware is like.
    Firmware(u64),
    /// A feature ID register, by its number.
    Feature(u64),
    /// CNTVCT_EL0.
    Count,
}

/// What of the registers there is.
#[derive(Clone, Copy, Debug)]
pub(super) struct Choice {
    /// Vectors, FPSR and FPCR.
    pub(super) floating_point: bool,
    /// The keys of pointer authentication.
    pub(super) keys: bool,
    /// Only those of a protected VM.
    pub(super) protected: bool,
}

impl Choice {
    /// What vCPUs of a VM have on this machine that is not protected.
    ///
    /// # Errors
    /// EL2 does not answer.
    pub(super) fn of_machine<K: Hypercall>(
        hypervisor: &Hypervisor<K>,
        support: &GuestSupport,
    ) -> Result<Self, CallError> {
        let read = |crm, op2| {
            let number = system_register(3, 0, 0, crm, op2);
            hypervisor.guest_register(number, support.min_ipa_bits.into())
        };
        let (pfr0, isar1, isar2) = (read(4, 0)?, read(6, 1)?, read(6, 2)?);
        Ok(Self {
            floating_point: pfr0 >> 16 & 0xF != 0xF,
            // ID_AA64ISAR1_EL1.APA, API, GPA, GPI; ID_AA64ISAR2_EL1.GPA3, APA3 (Arm ARM DDI 0487, D24.2.76).
            keys: isar1 & (0xFF << 4 | 0xFF << 24) != 0 || isar2 & 0xFF << 8 != 0,
            protected: false,
        })
    }
}

/// The registers of EL2's that are system registers to KVM, in the order of their numbers there. Those that it has as core
/// registers are not among them. A number that KVM documents as wrong: the compare value of the timer has the one of
/// CNTVCT_EL0, and the count has that of CNTV_CVAL_EL0.
const SYSTEM_REGISTERS: [(u64, VcpuRegister); 33] = [
    (system_register(3, 0, 0, 0, 5), System(S::MpidrEl1)),
    (system_register(3, 0, 1, 0, 0), System(S::SctlrEl1)),
    (system_register(3, 0, 1, 0, 2), System(S::CpacrEl1)),
    (system_register(3, 0, 2, 0, 0), System(S::Ttbr0El1)),
    (system_register(3, 0, 2, 0, 1), System(S::Ttbr1El1)),
    (system_register(3, 0, 2, 0, 2), System(S::TcrEl1)),
    (system_register(3, 0, 2, 1, 0), Key(0)),
    (system_register(3, 0, 2, 1, 1), Key(1)),
    (system_register(3, 0, 2, 1, 2), Key(2)),
    (system_register(3, 0, 2, 1, 3), Key(3)),
    (system_register(3, 0, 2, 2, 0), Key(4)),
    (system_register(3, 0, 2, 2, 1), Key(5)),
    (system_register(3, 0, 2, 2, 2), Key(6)),
    (system_register(3, 0, 2, 2, 3), Key(7)),
    (system_register(3, 0, 2, 3, 0), Key(8)),
    (system_register(3, 0, 2, 3, 1), Key(9)),
    (system_register(3, 0, 5, 1, 0), System(S::Afsr0El1)),
    (system_register(3, 0, 5, 1, 1), System(S::Afsr1El1)),
    (system_register(3, 0, 5, 2, 0), System(S::EsrEl1)),
    (system_register(3, 0, 6, 0, 0), System(S::FarEl1)),
    (system_register(3, 0, 7, 4, 0), System(S::ParEl1)),
    (system_register(3, 0, 10, 2, 0), System(S::MairEl1)),
    (system_register(3, 0, 10, 3, 0), System(S::AmairEl1)),
    (system_register(3, 0, 12, 0, 0), System(S::VbarEl1)),
    (system_register(3, 0, 13, 0, 1), System(S::ContextidrEl1)),
    (system_register(3, 0, 13, 0, 4), System(S::TpidrEl1)),
    (system_register(3, 0, 14, 1, 0), System(S::CntkctlEl1)),
    (system_register(3, 2, 0, 0, 0), System(S::CsselrEl1)),
    (system_register(3, 3, 13, 0, 2), System(S::TpidrEl0)),
    (system_register(3, 3, 13, 0, 3), System(S::TpidrroEl0)),
    (system_register(3, 3, 14, 0, 2), TimerCompare),
    (system_register(3, 3, 14, 3, 1), TimerControl),
    (COUNT, VcpuRegister::CounterOffset),
];

/// The number of the count.
const COUNT: u64 = system_register(3, 3, 14, 3, 2);

/// The feature ID registers: CRm 1 to 7, and all of their op2.
const FEATURES: core::ops::RangeInclusive<u64> =
    system_register(3, 0, 0, 1, 0)..=system_register(3, 0, 0, 7, 7);

/// The core register at a place in the structure, and its size in bytes. `None` if none begins there.
fn core_at(place: usize) -> Option<(Register, usize)> {
    let word = |register| Some((Register::Vcpu(register), 8));
    if place >= BYTES {
        return None;
    }
    let index = (place / 8) as u8;
    match place {
        336..848 if place.is_multiple_of(16) => Some((Register::Vector(((place - 336) / 16) as u8), 16)),
        848 => Some((Register::Vcpu(Fpsr), 4)),
        852 => Some((Register::Vcpu(Fpcr), 4)),
        _ if !place.is_multiple_of(8) => None,
        _ => match index {
            0..=30 => word(General(index)),
            31 => word(System(S::SpEl0)),
            32 => word(Pc),
            33 => word(Pstate),
            34 => word(System(S::SpEl1)),
            35 => word(System(S::ElrEl1)),
            36 => word(System(S::SpsrEl1)),
            37..=40 => Some((Register::Banked(index - 37), 8)),
            _ => None,
        },
    }
}

/// Bytes of the value of the register of that name.
pub(super) const fn size_of(id: u64) -> usize {
    1 << (id >> SIZE_SHIFT & 0xF)
}

impl Register {
    /// The register of that name.
    ///
    /// # Errors
    /// [`Errno::INVAL`] if it is another architecture's, or half a register; [`Errno::NOENT`].
    pub(super) fn from_name(id: u64, choice: Choice) -> Result<Self, Errno> {
        if (id & !SIZE) >> 32 != ARM64 >> 32 {
            return Err(Errno::INVAL);
        }
        let number = id & NUMBER;
        let register = match id & KIND {
            CORE => {
                let (place, size) = (number as usize * 4, size_of(id));
                if place + size >= BYTES {
                    return Err(Errno::NOENT);
                }
                let (register, bytes) = core_at(place).ok_or(Errno::INVAL)?;
                if bytes != size {
                    return Err(Errno::INVAL);
                }
                register
            }
            _ if id & SIZE != U64 => return Err(Errno::NOENT),
            FIRMWARE if number < FIRMWARE_VALUES.len() as u64 => Self::Firmware(number),
            SYSTEM if FEATURES.contains(&number) => Self::Feature(number),
            SYSTEM if number == COUNT => Self::Count,
            SYSTEM => {
                let known = SYSTEM_REGISTERS.iter().find(|(known, _)| *known == number);
                Self::Vcpu(known.ok_or(Errno::NOENT)?.1)
            }
            _ => return Err(Errno::NOENT),
        };
        if register.is_chosen(choice) {
            Ok(register)
        } else {
            Err(Errno::NOENT)
        }
    }

    const fn is_chosen(self, choice: Choice) -> bool {
        match self {
            Self::Vector(_) | Self::Vcpu(Fpsr | Fpcr) => choice.floating_point,
            Self::Vcpu(Key(_)) => choice.keys && !choice.protected,
            Self::Vcpu(
                General(_) | Pc | Pstate | System(S::SpEl0 | S::SpEl1 | S::ElrEl1 | S::SpsrEl1 | S::MpidrEl1),
            ) => true,
            Self::Vcpu(_) | Self::Count => !choice.protected,
            Self::Banked(_) | Self::Firmware(_) | Self::Feature(_) => true,
        }
    }

    /// What `KVM_GET_REG_LIST` answers: the core registers, the firmware's, and the system registers, as KVM has them, and
    /// each in the order of the numbers.
    pub(super) fn names(choice: Choice) -> impl Iterator<Item = u64> {
        let core = (0..BYTES).step_by(4).filter_map(|place| {
            let size = u64::from(core_at(place)?.1.trailing_zeros());
            Some(ARM64 | size << SIZE_SHIFT | CORE | (place as u64 / 4))
        });
        let firmware = (0..FIRMWARE_VALUES.len() as u64).map(|number| ARM64 | U64 | FIRMWARE | number);
        let (identity, others) = SYSTEM_REGISTERS.split_at(1);
        let numbers = |registers: &'static [(u64, VcpuRegister)]| registers.iter().map(|(number, _)| *number);
        let system = numbers(identity)
            .chain(FEATURES)
            .chain(numbers(others))
            .map(|number| ARM64 | U64 | SYSTEM | number);
        core.chain(firmware)
            .chain(system)
            .filter(move |id| Self::from_name(*id, choice).is_ok())
    }

    /// What of Freehold's firmware has a number.
    pub(super) fn firmware(number: u64) -> u64 {
        let known = usize::try_from(number)
            .ok()
            .and_then(|number| FIRMWARE_VALUES.get(number));
        known.copied().unwrap_or(0)
    }

    /// Both halves of a vector register.
    pub(super) const fn halves(vector: u8) -> [VcpuRegister; 2] {
        [VectorLow(vector), VectorHigh(vector)]
    }
}

/// MPIDR_EL1 of a vCPU. EL2 and KVM name vCPUs by their affinity alike.
pub(super) const fn mpidr(vcpu: u64) -> u64 {
    1 << 31 | hyp_abi::vm::affinity_of(vcpu as usize) as u64
}

#[cfg(test)]
mod tests {
    use super::*;

    const ALL: Choice = Choice {
        floating_point: true,
        keys: true,
        protected: false,
    };

    fn names(choice: Choice) -> Vec<u64> {
        Register::names(choice).collect()
    }

    #[test]
    fn every_register_that_el2_has_is_told_but_those_of_the_controller_and_power() {
        let told: Vec<_> = names(ALL)
            .into_iter()
            .flat_map(|id| match Register::from_name(id, ALL).unwrap() {
                Register::Vcpu(register) => vec![register],
                Register::Vector(vector) => Register::halves(vector).to_vec(),
                Register::Count => vec![VcpuRegister::CounterOffset],
                Register::Banked(_) | Register::Firmware(_) | Register::Feature(_) => Vec::new(),
            })
            .collect();
        for register in VcpuRegister::all() {
            use VcpuRegister as R;
            let is_elsewhere = matches!(
                register,
                R::GicControl | R::ActivePriorities0(_) | R::ActivePriorities1(_) | R::Power
            );
            let times = told.iter().filter(|told| **told == register).count();
            assert_eq!(times, usize::from(!is_elsewhere), "{register:?}");
        }
    }

    #[test]
    fn names_are_those_of_linux_and_in_order() {
        let all = names(ALL);
        for kind in [CORE, FIRMWARE, SYSTEM] {
            let of_kind = all.iter().filter(|id| **id & KIND == kind);
            assert!(of_kind.map(|id| id & NUMBER).is_sorted());
        }
        // 41 words, 32 vectors, FPSR, FPCR; firmware; 33 of EL2's and 56 of features.
        assert_eq!(all.len(), 41 + 34 + 4 + 33 + 56);
        for (id, register) in [
            (0x6030_0000_0010_003e, Register::Vcpu(System(S::SpEl0))),
            (0x6030_0000_0010_0040, Register::Vcpu(Pc)),
            (0x6040_0000_0010_0054, Register::Vector(0)),
            (0x6020_0000_0010_00d5, Register::Vcpu(Fpcr)),
            (0x6030_0000_0014_0000, Register::Firmware(0)),
            (0x6030_0000_0013_c005, Register::Vcpu(System(S::MpidrEl1))),
            (0x6030_0000_0013_c020, Register::Feature(0xc020)),
            (0x6030_0000_0013_df02, Register::Vcpu(TimerCompare)),
            (0x6030_0000_0013_df19, Register::Vcpu(TimerControl)),
            (0x6030_0000_0013_df1a, Register::Count),
        ] {
            assert_eq!(Register::from_name(id, ALL), Ok(register), "{id:#x}");
            assert!(all.contains(&id));
        }
    }

    #[test]
    fn what_there_is_not_has_no_name() {
        for (id, errno) in [
            // Half a register, one of the wrong size, and what is past the end.
            (0x6030_0000_0010_0001, Errno::INVAL),
            (0x6020_0000_0010_0000, Errno::INVAL),
            (0x6030_0000_0010_00d8, Errno::NOENT),
            // Another architecture, other kinds, numbers and sizes.
            (0x2030_0000_0010_0000, Errno::INVAL),
            (0x6030_0000_0015_0000, Errno::NOENT),
            (0x6030_0000_0014_0004, Errno::NOENT),
            (0x6030_0000_0013_ffff, Errno::NOENT),
            (0x6020_0000_0013_c005, Errno::NOENT),
        ] {
            assert_eq!(Register::from_name(id, ALL), Err(errno), "{id:#x}");
        }
        let (plain, protected) = (
            Choice {
                floating_point: false,
                keys: false,
                ..ALL
            },
            Choice {
                protected: true,
                ..ALL
            },
        );
        assert_eq!(names(plain).len(), names(ALL).len() - 34 - 10);
        assert_eq!(names(protected).len(), 41 + 34 + 4 + 1 + 56);
    }
}
