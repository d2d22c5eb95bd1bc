//! The registers of a vCPU that the host may read and write, of a VM that is not protected, and how one is named.
//!
//! A register is named by 64 bits: its kind in bits 15:8, its number of that kind in bits 7:0, zero above.
//!
//! | kind | numbers | register |
//! |---|---|---|
//! | 0 | 0 to 30 | x0 to x30 |
//! | 1 | 0 to 3 | PC, PSTATE, FPSR, FPCR |
//! | 2 | 0 to 31 | V0 to V31, bits 63:0 |
//! | 3 | 0 to 31 | V0 to V31, bits 127:64 |
//! | 4 | 0 to 23 | the system registers of [`SystemRegister`] |
//! | 5 | 0 to 9 | the keys of pointer authentication: IA, IB, DA, DB, GA, of each the low half first |
//! | 6 | 0 to 2 | CNTV_CTL_EL0, CNTV_CVAL_EL0, the offset of the virtual counter |
//! | 7 | 0 | ICH_VMCR_EL2 |
//! | 8 | 0 to 3 | ICH_AP0R0_EL2 to ICH_AP0R3_EL2 |
//! | 9 | 0 to 3 | ICH_AP1R0_EL2 to ICH_AP1R3_EL2 |
//! | 10 | 0 | power |
//!
//! MDSCR_EL1 and DISR_EL1 are not among them, because no guest is shown them. A value reads as the guest left it, and
//! what is written is what the guest finds when it is run; bits that the CPU does not keep are gone by then, as if the
//! guest itself had written the register. Most registers take any value. These do not:
//!
//! | register | values |
//! |---|---|
//! | PSTATE | M is EL0t, EL1t or EL1h; N, Z, C, V, D, A, I and F; and those of BTYPE, SSBS, ALLINT, PAN, UAO, DIT, TCO and PM that the CPU has; no other bit |
//! | FPSR, FPCR | bits 31:0 |
//! | MPIDR_EL1 | none: it is read-only |
//! | the keys | where the CPU has pointer authentication; else they cannot be read either |
//! | V0 to V31, FPSR, FPCR | where the CPU has floating point; else they cannot be read either |
//! | CNTV_CTL_EL0 | ENABLE (0) and IMASK (1). ISTATUS is neither read nor written: it follows from the others |
//! | ICH_VMCR_EL2 | VENG0 (0), VENG1 (1), VFIQEn (3), VCBPR (4), VEOIM (9), VBPR1 (20:18), VBPR0 (23:21), VPMR (31:24) |
//! | `ICH_AP0R<n>_EL2`, `ICH_AP1R<n>_EL2` | bits 31:0, none of which is set in the register of the same number of the other group; a register that the CPU lacks cannot be read either |
//! | power | 0 or 1 |
//!
//! A guest of which EL2 holds the virtual timer back ([`crate::run_page`]) may find IMASK set all the same.

use num_enum::{IntoPrimitive, TryFromPrimitive};

/// A system register of EL1 or EL0. Its number is that of kind 4.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, IntoPrimitive, TryFromPrimitive)]
#[repr(u8)]
#[expect(missing_docs, reason = "each is the register of its name")]
pub enum SystemRegister {
    SpEl0 = 0,
    SpEl1 = 1,
    ElrEl1 = 2,
    SpsrEl1 = 3,
    SctlrEl1 = 4,
    CpacrEl1 = 5,
    Ttbr0El1 = 6,
    Ttbr1El1 = 7,
    TcrEl1 = 8,
    EsrEl1 = 9,
    Afsr0El1 = 10,
    Afsr1El1 = 11,
    FarEl1 = 12,
    MairEl1 = 13,
    AmairEl1 = 14,
    VbarEl1 = 15,
    ContextidrEl1 = 16,
    TpidrEl0 = 17,
    TpidrroEl0 = 18,
    TpidrEl1 = 19,
    ParEl1 = 20,
    CntkctlEl1 = 21,
    CsselrEl1 = 22,
    /// MPIDR_EL1, which follows from the index of the vCPU. Read-only.
    MpidrEl1 = 23,
}

impl SystemRegister {
    /// All of them, in the order of their numbers.
    pub fn all() -> impl Iterator<Item = Self> {
        (0..=u8::MAX).map_while(|number| Self::try_from(number).ok())
    }
}

/// A register of a vCPU. See the [module](self) for the values that it takes.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum VcpuRegister {
    /// x0 to x30.
    General(u8),
    /// The program counter.
    Pc,
    /// PSTATE, as SPSR_EL2 has it.
    Pstate,
    /// FPSR.
    Fpsr,
    /// FPCR.
    Fpcr,
    /// Bits 63:0 of V0 to V31.
    VectorLow(u8),
    /// Bits 127:64 of V0 to V31.
    VectorHigh(u8),
    /// A system register.
    System(SystemRegister),
    /// A half of a key of pointer authentication: 0 to 9.
    Key(u8),
    /// CNTV_CTL_EL0.
    TimerControl,
    /// CNTV_CVAL_EL0, in the guest's time.
    TimerCompare,
    /// CNTVOFF_EL2: how much less than CNTPCT_EL0 the guest's CNTVCT_EL0 is, in ticks. It is the VM's, whichever vCPU
    /// is named, and is not written while any of them runs.
    CounterOffset,
    /// ICH_VMCR_EL2.
    GicControl,
    /// `ICH_AP0R<n>_EL2`.
    ActivePriorities0(u8),
    /// `ICH_AP1R<n>_EL2`.
    ActivePriorities1(u8),
    /// 0 is off, 1 is on. Turned on, a vCPU goes on with the registers that it has; the guest's PSCI CPU_ON begins with
    /// new ones instead.
    Power,
}

/// The kinds, as they stand in bits 15:8.
mod kind {
    pub(super) const GENERAL: u8 = 0;
    pub(super) const SPECIAL: u8 = 1;
    pub(super) const VECTOR_LOW: u8 = 2;
    pub(super) const VECTOR_HIGH: u8 = 3;
    pub(super) const SYSTEM: u8 = 4;
    pub(super) const KEY: u8 = 5;
    pub(super) const TIMER: u8 = 6;
    pub(super) const GIC: u8 = 7;
    pub(super) const ACTIVE_PRIORITIES_0: u8 = 8;
    pub(super) const ACTIVE_PRIORITIES_1: u8 = 9;
    pub(super) const POWER: u8 = 10;
}

impl VcpuRegister {
    /// All of them, in the order of their names.
    pub fn all() -> impl Iterator<Item = Self> {
        let names = 0..=u64::from(kind::POWER) << 8 | 0xff;
        names.filter_map(Self::from_register)
    }

    /// The name, as the call's register holds it. A number that its kind does not have makes a name that is none.
    #[must_use]
    pub fn to_register(self) -> u64 {
        let (kind, number) = match self {
            Self::General(number) => (kind::GENERAL, number),
            Self::Pc => (kind::SPECIAL, 0),
            Self::Pstate => (kind::SPECIAL, 1),
            Self::Fpsr => (kind::SPECIAL, 2),
            Self::Fpcr => (kind::SPECIAL, 3),
            Self::VectorLow(number) => (kind::VECTOR_LOW, number),
            Self::VectorHigh(number) => (kind::VECTOR_HIGH, number),
            Self::System(register) => (kind::SYSTEM, register.into()),
            Self::Key(number) => (kind::KEY, number),
            Self::TimerControl => (kind::TIMER, 0),
            Self::TimerCompare => (kind::TIMER, 1),
            Self::CounterOffset => (kind::TIMER, 2),
            Self::GicControl => (kind::GIC, 0),
            Self::ActivePriorities0(number) => (kind::ACTIVE_PRIORITIES_0, number),
            Self::ActivePriorities1(number) => (kind::ACTIVE_PRIORITIES_1, number),
            Self::Power => (kind::POWER, 0),
        };
        u64::from(kind) << 8 | u64::from(number)
    }

    /// The register of this name, if there is one.
    #[must_use]
    pub fn from_register(name: u64) -> Option<Self> {
        let [number, kind] = u16::try_from(name).ok()?.to_le_bytes();
        Some(match (kind, number) {
            (kind::GENERAL, 0..=30) => Self::General(number),
            (kind::SPECIAL, 0) => Self::Pc,
            (kind::SPECIAL, 1) => Self::Pstate,
            (kind::SPECIAL, 2) => Self::Fpsr,
            (kind::SPECIAL, 3) => Self::Fpcr,
            (kind::VECTOR_LOW, 0..=31) => Self::VectorLow(number),
            (kind::VECTOR_HIGH, 0..=31) => Self::VectorHigh(number),
            (kind::SYSTEM, _) => Self::System(SystemRegister::try_from(number).ok()?),
            (kind::KEY, 0..=9) => Self::Key(number),
            (kind::TIMER, 0) => Self::TimerControl,
            (kind::TIMER, 1) => Self::TimerCompare,
            (kind::TIMER, 2) => Self::CounterOffset,
            (kind::GIC, 0) => Self::GicControl,
            (kind::ACTIVE_PRIORITIES_0, 0..=3) => Self::ActivePriorities0(number),
            (kind::ACTIVE_PRIORITIES_1, 0..=3) => Self::ActivePriorities1(number),
            (kind::POWER, 0) => Self::Power,
            _ => return None,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_register_survives_its_name() {
        // 31 and 4, two halves of 32, 24, 10, 3, 1, two of 4, 1.
        assert_eq!(
            VcpuRegister::all().count(),
            31 + 4 + 2 * 32 + 24 + 10 + 3 + 1 + 2 * 4 + 1
        );
        for register in VcpuRegister::all() {
            let name = register.to_register();
            assert_eq!(VcpuRegister::from_register(name), Some(register));
            for bit in 16..64 {
                assert_eq!(VcpuRegister::from_register(name | 1 << bit), None, "{register:?}");
            }
        }
    }

    #[test]
    fn names_are_the_kind_and_the_number() {
        for (register, name) in [
            (VcpuRegister::General(30), 0x1e),
            (VcpuRegister::Pc, 0x100),
            (VcpuRegister::Fpcr, 0x103),
            (VcpuRegister::VectorLow(31), 0x21f),
            (VcpuRegister::VectorHigh(0), 0x300),
            (VcpuRegister::System(SystemRegister::SpEl0), 0x400),
            (VcpuRegister::System(SystemRegister::CsselrEl1), 0x416),
            (VcpuRegister::System(SystemRegister::MpidrEl1), 0x417),
            (VcpuRegister::Key(9), 0x509),
            (VcpuRegister::CounterOffset, 0x602),
            (VcpuRegister::GicControl, 0x700),
            (VcpuRegister::ActivePriorities0(3), 0x803),
            (VcpuRegister::ActivePriorities1(3), 0x903),
            (VcpuRegister::Power, 0xa00),
        ] {
            assert_eq!(register.to_register(), name, "{register:?}");
        }
    }

    #[test]
    fn a_number_that_its_kind_does_not_have_names_nothing() {
        for name in [
            0x1f,
            0x104,
            0x220,
            0x320,
            0x418,
            0x50a,
            0x603,
            0x701,
            0x804,
            0x904,
            0xa01,
            0xb00,
            0xffff,
            u64::MAX,
        ] {
            assert_eq!(VcpuRegister::from_register(name), None, "{name:#x}");
        }
        for register in [
            VcpuRegister::General(31),
            VcpuRegister::VectorLow(32),
            VcpuRegister::Key(255),
        ] {
            assert_eq!(VcpuRegister::from_register(register.to_register()), None);
        }
    }
}
