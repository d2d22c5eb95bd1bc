//! ESR_EL2 as a type: why an exception came to EL2.
//!
//! The decode is total. An exception class that the architecture reserves, or that EL2 has no use for, is
//! [`Syndrome::Other`] or [`Syndrome::Reserved`], never a panic. Aborts have their own module, [`super::abort`].
//!
//! Source: Arm ARM DDI 0487, D24.2, "ESR_EL2, Exception Syndrome Register (EL2)".

use super::abort::Abort;

/// The three registers that describe an exception to EL2, as they were read at its entry. FAR_EL2 and HPFAR_EL2
/// mean something for some classes only; the decode knows for which.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Default)]
pub struct FaultRegisters {
    /// ESR_EL2.
    pub esr: u64,
    /// FAR_EL2: a virtual address.
    pub far: u64,
    /// HPFAR_EL2: the page of an intermediate physical address, in bits 47:4.
    pub hpfar: u64,
}

/// A trapped `MSR`, `MRS` or system instruction of AArch64.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct SystemAccess {
    /// What is accessed.
    pub register: SystemRegister,
    /// The general-purpose register, 0 to 31; 31 is XZR.
    pub rt: u8,
    /// Whether it is a read (`MRS`, `SYSL`).
    pub read: bool,
}

/// The encoding of a system register or system instruction.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct SystemRegister {
    /// 0 to 3.
    pub op0: u8,
    /// 0 to 7.
    pub op1: u8,
    /// 0 to 15.
    pub crn: u8,
    /// 0 to 15.
    pub crm: u8,
    /// 0 to 7.
    pub op2: u8,
}

impl SystemRegister {
    /// The register with this encoding. Each part is cut to the width of its field.
    #[must_use]
    pub const fn new(op0: u8, op1: u8, crn: u8, crm: u8, op2: u8) -> Self {
        Self {
            op0: op0 & 0b11,
            op1: op1 & 0b111,
            crn: crn & 0b1111,
            crm: crm & 0b1111,
            op2: op2 & 0b111,
        }
    }
}

/// Why an exception came to EL2.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Syndrome {
    /// No reason is given (EC 0): an instruction that is UNDEFINED at EL2, or disabled by `HCR_EL2.HCD`.
    Unknown,
    /// `WFI`, `WFE` or their timed forms.
    Wfx {
        /// 0 `WFI`, 1 `WFE`, 2 `WFIT`, 3 `WFET`.
        instruction: u8,
    },
    /// An AArch32 coprocessor access of EL0 (EC 0x03 to 0x06, 0x08, 0x0C).
    Coprocessor {
        /// The exception class.
        ec: u8,
    },
    /// Floating point, Advanced SIMD, SVE or SME, trapped by `CPTR_EL2.TFP`.
    FloatingPoint,
    /// SVE, trapped by `CPTR_EL2.TZ`.
    Sve,
    /// SME, trapped by `CPTR_EL2.TSM`.
    Sme,
    /// Pointer authentication, trapped by `HCR_EL2.API`.
    PointerAuthentication,
    /// An instruction with no class of its own (`LD64B`, `ST64B*`, `TSTART` …).
    OtherInstruction {
        /// Bits 24:0 of the syndrome.
        iss: u32,
    },
    /// PSTATE.IL was set.
    IllegalExecution,
    /// `HVC` from AArch32.
    Hvc32 {
        /// The immediate of the instruction.
        immediate: u16,
    },
    /// `SMC` from AArch32.
    Smc32,
    /// `HVC` from AArch64. The preferred return address is past the instruction.
    Hvc64 {
        /// The immediate of the instruction.
        immediate: u16,
    },
    /// `SMC` from AArch64, trapped by `HCR_EL2.TSC`. The preferred return address is the instruction itself.
    Smc64 {
        /// The immediate of the instruction.
        immediate: u16,
    },
    /// `MSR`, `MRS` or a system instruction.
    SystemRegister(SystemAccess),
    /// `MSRR`, `MRRS` or a 128-bit system instruction.
    SystemRegister128(SystemAccess),
    /// `ERET` and its authenticated forms.
    Eret,
    /// An abort on an instruction fetch of EL1 or EL0.
    InstructionAbort(Abort),
    /// An abort on a data access of EL1 or EL0.
    DataAbort(Abort),
    /// An abort of EL2 itself, on a fetch or a data access.
    OwnAbort(Abort),
    /// A misaligned program counter.
    PcAlignment,
    /// A misaligned stack pointer.
    SpAlignment,
    /// SError.
    SystemError {
        /// Bits 24:0 of the syndrome.
        iss: u32,
    },
    /// A debug exception: breakpoint, watchpoint, step, vector catch, `BRK`, `BKPT`.
    Debug {
        /// The exception class.
        ec: u8,
    },
    /// A class that the architecture defines and EL2 has no use for.
    Other {
        /// The exception class.
        ec: u8,
        /// Bits 24:0 of the syndrome.
        iss: u32,
    },
    /// A class that the architecture reserves.
    Reserved {
        /// The exception class.
        ec: u8,
        /// Bits 24:0 of the syndrome.
        iss: u32,
    },
}

/// ESR_EL2.IL (bit 25): the instruction was 32 bits long.
const IL: u64 = 1 << 25;

impl Syndrome {
    /// Decodes the registers of an exception to EL2. Every value has a meaning here.
    #[must_use]
    pub fn decode(registers: FaultRegisters) -> Self {
        let esr = registers.esr;
        let ec = exception_class(esr);
        let iss = (esr & 0x01ff_ffff) as u32;
        let immediate = esr as u16;
        match ec {
            0x00 => Self::Unknown,
            0x01 => Self::Wfx {
                instruction: (iss & 0b11) as u8,
            },
            0x03..=0x06 | 0x08 | 0x0c => Self::Coprocessor { ec },
            0x07 => Self::FloatingPoint,
            0x09 => Self::PointerAuthentication,
            0x0a => Self::OtherInstruction { iss },
            0x0e => Self::IllegalExecution,
            0x12 => Self::Hvc32 { immediate },
            0x13 => Self::Smc32,
            0x14 => Self::SystemRegister128(system_access(iss)),
            0x16 => Self::Hvc64 { immediate },
            0x17 => Self::Smc64 { immediate },
            0x18 => Self::SystemRegister(system_access(iss)),
            0x19 => Self::Sve,
            0x1a => Self::Eret,
            0x1d => Self::Sme,
            0x20 => Self::InstructionAbort(Abort::decode(registers, true)),
            0x24 => Self::DataAbort(Abort::decode(registers, false)),
            0x21 => Self::OwnAbort(Abort::decode(registers, true)),
            0x25 => Self::OwnAbort(Abort::decode(registers, false)),
            0x22 => Self::PcAlignment,
            0x26 => Self::SpAlignment,
            0x2f => Self::SystemError { iss },
            0x30..=0x35 | 0x38 | 0x3a | 0x3c => Self::Debug { ec },
            // Branch target, SVC, TSTART, PAC failure, granule protection, IMPLEMENTATION DEFINED to EL3, memory
            // operations, trapped floating-point exceptions, guarded control stack, profiling.
            0x0d | 0x11 | 0x15 | 0x1b | 0x1c | 0x1e | 0x1f | 0x27 | 0x28 | 0x2c | 0x2d | 0x3d => {
                Self::Other { ec, iss }
            }
            _ => Self::Reserved { ec, iss },
        }
    }
}

/// The exception class: ESR_ELx bits 31:26.
#[must_use]
#[inline]
pub const fn exception_class(esr: u64) -> u8 {
    (esr >> 26) as u8 & 0x3f
}

/// How many bytes the trapped instruction has: 4, or 2 for a T32 instruction of that length (ESR_ELx.IL = 0).
#[must_use]
#[inline]
pub const fn instruction_length(esr: u64) -> u64 {
    if esr & IL != 0 { 4 } else { 2 }
}

/// The ISS of a trapped MSR, MRS or system instruction: Op0 21:20, Op2 19:17, Op1 16:14, CRn 13:10, Rt 9:5,
/// CRm 4:1, direction 0 (1 is a read). The 128-bit form has the same fields; its Rt is an even number.
const fn system_access(iss: u32) -> SystemAccess {
    SystemAccess {
        register: SystemRegister::new(
            (iss >> 20) as u8,
            (iss >> 14) as u8,
            (iss >> 10) as u8,
            (iss >> 1) as u8,
            (iss >> 17) as u8,
        ),
        rt: (iss >> 5) as u8 & 0x1f,
        read: iss & 1 != 0,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn decode(esr: u64) -> Syndrome {
        Syndrome::decode(FaultRegisters {
            esr,
            ..FaultRegisters::default()
        })
    }

    #[test]
    fn calls_carry_their_immediate() {
        assert_eq!(decode(0x5a00_0000), Syndrome::Hvc64 { immediate: 0 });
        assert_eq!(decode(0x5a00_ffff), Syndrome::Hvc64 { immediate: 0xffff });
        assert_eq!(decode(0x5e00_0001), Syndrome::Smc64 { immediate: 1 });
        assert_eq!(decode(0x4a00_0007), Syndrome::Hvc32 { immediate: 7 });
        assert_eq!(decode(0x4e00_0000), Syndrome::Smc32);
    }

    #[test]
    fn a_system_register_read_of_id_aa64pfr1() {
        // MRS X3, ID_AA64PFR1_EL1 is S3_0_C0_C4_1.
        let iss = 3 << 20 | 1 << 17 | 3 << 5 | 4 << 1 | 1;
        let access = SystemAccess {
            register: SystemRegister::new(3, 0, 0, 4, 1),
            rt: 3,
            read: true,
        };
        assert_eq!(
            decode(0x18 << 26 | 1 << 25 | iss),
            Syndrome::SystemRegister(access)
        );
    }

    #[test]
    fn a_system_register_write_with_every_field_full() {
        let access = SystemAccess {
            register: SystemRegister::new(3, 7, 15, 15, 7),
            rt: 31,
            read: false,
        };
        assert_eq!(decode(0x18 << 26 | 0x003f_fffe), Syndrome::SystemRegister(access));
    }

    #[test]
    fn every_class_is_sorted() {
        let mut reserved = std::vec::Vec::new();
        for ec in 0..64_u64 {
            match decode(ec << 26) {
                Syndrome::Reserved { ec: got, .. } => {
                    assert_eq!(u64::from(got), ec);
                    reserved.push(got);
                }
                Syndrome::Other { ec: got, .. }
                | Syndrome::Debug { ec: got }
                | Syndrome::Coprocessor { ec: got } => assert_eq!(u64::from(got), ec),
                Syndrome::Unknown => assert_eq!(ec, 0),
                _ => {}
            }
        }
        assert_eq!(
            reserved,
            [
                0x02, 0x0b, 0x0f, 0x10, 0x23, 0x29, 0x2a, 0x2b, 0x2e, 0x36, 0x37, 0x39, 0x3b, 0x3e, 0x3f
            ]
        );
    }

    #[test]
    fn no_value_makes_the_decode_panic() {
        // A xorshift is enough: all that matters is that many bits vary in every class.
        let mut state = 0x9e37_79b9_7f4a_7c15_u64;
        let mut next = || {
            state ^= state << 13;
            state ^= state >> 7;
            state ^= state << 17;
            state
        };
        for ec in 0..64_u64 {
            for _ in 0..2000 {
                let esr = (next() & !(0x3f << 26)) | ec << 26;
                let registers = FaultRegisters {
                    esr,
                    far: next(),
                    hpfar: next(),
                };
                let text = std::format!("{:?}", Syndrome::decode(registers));
                assert!(!text.is_empty());
                if let Syndrome::DataAbort(abort) | Syndrome::InstructionAbort(abort) =
                    Syndrome::decode(registers)
                {
                    let _ = abort.address();
                }
            }
        }
    }
}
