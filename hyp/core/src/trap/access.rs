//! A load or store that EL2 carries out in the host's place, and the step past an instruction.
//!
//! An abort with a valid instruction syndrome names one register, a width and how a loaded value is extended.
//! [`DataAccess`] turns that into the value to store, or the value that the register gets.
//!
//! Source: Arm ARM DDI 0487, D24.2, ESR_EL2 (SAS, SSE, SRT, SF); J1.2, `AArch32.ITAdvance`.

use super::inject::{SPSR_AARCH32, SPSR_BTYPE, SPSR_SS};
use super::syndrome::instruction_length;

/// The number of the register that reads as zero and ignores writes.
pub const XZR: u8 = 31;

/// How wide an access is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Width {
    /// 1 byte.
    Byte,
    /// 2 bytes.
    Half,
    /// 4 bytes.
    Word,
    /// 8 bytes.
    Double,
}

impl Width {
    /// From the SAS field, of which only the low two bits count.
    #[must_use]
    pub const fn from_sas(sas: u8) -> Self {
        match sas & 0b11 {
            0 => Self::Byte,
            1 => Self::Half,
            2 => Self::Word,
            _ => Self::Double,
        }
    }

    /// In bytes.
    #[must_use]
    pub const fn bytes(self) -> u64 {
        match self {
            Self::Byte => 1,
            Self::Half => 2,
            Self::Word => 4,
            Self::Double => 8,
        }
    }

    /// In bits.
    #[must_use]
    pub const fn bits(self) -> u32 {
        match self {
            Self::Byte => 8,
            Self::Half => 16,
            Self::Word => 32,
            Self::Double => 64,
        }
    }

    /// `value` cut to this width.
    #[must_use]
    pub const fn cut(self, value: u64) -> u64 {
        value & (u64::MAX >> (64 - self.bits()))
    }

    /// `value`, already of this width, with its bytes in the opposite order.
    #[must_use]
    pub const fn swap(self, value: u64) -> u64 {
        value.swap_bytes() >> (64 - self.bits())
    }
}

/// A load or store of one general-purpose register.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct DataAccess {
    /// How much of memory is accessed.
    pub width: Width,
    /// Whether a loaded value is sign-extended.
    pub sign_extend: bool,
    /// Which register, in the AArch64 view: 0 to 30, or [`XZR`].
    pub register: u8,
    /// Whether the register is used with 64 bits; otherwise a load clears its upper half.
    pub sixty_four: bool,
    /// Whether the access has acquire or release semantics.
    pub ordered: bool,
    /// Whether it is a store.
    pub write: bool,
}

impl DataAccess {
    /// The value that a store puts into memory, cut to its width. `registers` are x0 to x30.
    #[must_use]
    pub fn stored(&self, registers: &[u64; 31], big_endian: bool) -> u64 {
        let value = registers.get(usize::from(self.register)).copied().unwrap_or(0);
        let value = self.width.cut(value);
        if big_endian { self.width.swap(value) } else { value }
    }

    /// Puts what a load found in memory into its register; a load to [`XZR`] changes nothing.
    pub fn load(&self, registers: &mut [u64; 31], memory: u64, big_endian: bool) {
        if let Some(register) = registers.get_mut(usize::from(self.register)) {
            *register = self.extended(memory, big_endian);
        }
    }

    /// What the register gets for a loaded value: extended by sign or by zeros, to 64 or to 32 bits.
    #[must_use]
    pub const fn extended(&self, memory: u64, big_endian: bool) -> u64 {
        let value = self.width.cut(memory);
        let value = if big_endian { self.width.swap(value) } else { value };
        let spare = 64 - self.width.bits();
        let value = if self.sign_extend {
            ((value << spare).cast_signed() >> spare).cast_unsigned()
        } else {
            value
        };
        if self.sixty_four {
            value
        } else {
            Width::Word.cut(value)
        }
    }
}

/// Whether data accesses of the interrupted code are big-endian: PSTATE.E for AArch32, SCTLR_EL1.EE at EL1,
/// SCTLR_EL1.E0E at EL0.
#[must_use]
pub const fn big_endian(spsr: u64, sctlr_el1: u64) -> bool {
    const SPSR_E: u64 = 1 << 9;
    const SPSR_EL: u64 = 0b11 << 2;
    const SCTLR_EE: u64 = 1 << 25;
    const SCTLR_E0E: u64 = 1 << 24;
    if spsr & SPSR_AARCH32 != 0 {
        spsr & SPSR_E != 0
    } else if spsr & SPSR_EL != 0 {
        sctlr_el1 & SCTLR_EE != 0
    } else {
        sctlr_el1 & SCTLR_E0E != 0
    }
}

/// Where the interrupted code goes on: ELR_EL2 and SPSR_EL2.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Resume {
    /// ELR_EL2.
    pub elr: u64,
    /// SPSR_EL2.
    pub spsr: u64,
}

impl Resume {
    /// Steps past the trapped instruction, as if it had been executed.
    ///
    /// The software-step state machine advances with it (SS becomes 0, so that a step exception follows), BTYPE
    /// is that after an instruction which is no branch, and a T32 instruction in an IT block moves the block on.
    #[must_use]
    pub const fn past(self, esr: u64) -> Self {
        let elr = self.elr.wrapping_add(instruction_length(esr));
        if self.spsr & SPSR_AARCH32 != 0 {
            Self {
                elr: elr & 0xffff_ffff,
                spsr: advance_it(self.spsr & !SPSR_SS),
            }
        } else {
            Self {
                elr,
                spsr: self.spsr & !(SPSR_SS | SPSR_BTYPE),
            }
        }
    }
}

/// Moves the IT state one instruction on: ITSTATE[7:5] is the condition, [4:0] the mask that is shifted out. In
/// SPSR, ITSTATE[7:2] is in bits 15:10 and ITSTATE[1:0] in bits 26:25.
const fn advance_it(spsr: u64) -> u64 {
    const FIELD: u64 = 0x3f << 10 | 0b11 << 25;
    let state = spsr >> 8 & 0xfc | spsr >> 25 & 0b11;
    let state = if state & 0b111 == 0 {
        0
    } else {
        state & 0xe0 | state << 1 & 0x1f
    };
    spsr & !FIELD | (state & 0xfc) << 8 | (state & 0b11) << 25
}

#[cfg(test)]
mod tests {
    use super::*;

    fn access(width: Width, sign_extend: bool, sixty_four: bool, register: u8) -> DataAccess {
        DataAccess {
            width,
            sign_extend,
            register,
            sixty_four,
            ordered: false,
            write: false,
        }
    }

    #[test]
    fn loads_extend_as_their_instruction_says() {
        const MEMORY: u64 = 0x8899_aabb_ccdd_eeff;
        for (width, sign, sixty_four, expected) in [
            (Width::Byte, false, false, 0xff),                // LDRB W
            (Width::Byte, true, false, 0xffff_ffff),          // LDRSB W
            (Width::Byte, true, true, u64::MAX),              // LDRSB X
            (Width::Half, false, false, 0xeeff),              // LDRH W
            (Width::Half, true, false, 0xffff_eeff),          // LDRSH W
            (Width::Half, true, true, 0xffff_ffff_ffff_eeff), // LDRSH X
            (Width::Word, false, false, 0xccdd_eeff),         // LDR W
            (Width::Word, true, true, 0xffff_ffff_ccdd_eeff), // LDRSW X
            (Width::Double, false, true, MEMORY),             // LDR X
        ] {
            let mut registers = [0x5555_5555_5555_5555; 31];
            access(width, sign, sixty_four, 9).load(&mut registers, MEMORY, false);
            assert_eq!(registers[9], expected, "{width:?} {sign} {sixty_four}");
            assert!(
                registers
                    .iter()
                    .enumerate()
                    .all(|(n, r)| n == 9 || *r == 0x5555_5555_5555_5555)
            );
        }
    }

    #[test]
    fn the_zero_register_takes_nothing_and_gives_zero() {
        let mut registers = [7; 31];
        let access = access(Width::Double, false, true, XZR);
        access.load(&mut registers, 1, false);
        assert_eq!(registers, [7; 31]);
        assert_eq!(access.stored(&registers, false), 0);
    }

    #[test]
    fn stores_are_cut_to_their_width() {
        let mut registers = [0; 31];
        registers[30] = 0x1122_3344_5566_7788;
        for (width, expected) in [
            (Width::Byte, 0x88),
            (Width::Half, 0x7788),
            (Width::Word, 0x5566_7788),
            (Width::Double, 0x1122_3344_5566_7788),
        ] {
            assert_eq!(access(width, false, true, 30).stored(&registers, false), expected);
        }
        assert_eq!(
            access(Width::Word, false, false, 30).stored(&registers, true),
            0x8877_6655
        );
    }

    #[test]
    fn a_big_endian_load_is_swapped_before_it_is_extended() {
        assert_eq!(
            access(Width::Half, true, true, 0).extended(0x0080, true),
            0xffff_ffff_ffff_8000
        );
        assert!(big_endian(0b0101, 1 << 25) && !big_endian(0b0101, 1 << 24));
        assert!(big_endian(0, 1 << 24) && !big_endian(0, 1 << 25));
        assert!(big_endian(0b1_0000 | 1 << 9, 0) && !big_endian(0b1_0000, u64::MAX));
    }

    #[test]
    fn stepping_past_an_a64_instruction() {
        let resume = Resume {
            elr: 0x1000,
            spsr: 0b0101 | SPSR_SS | SPSR_BTYPE | 1 << 12,
        };
        assert_eq!(
            resume.past(1 << 25),
            Resume {
                elr: 0x1004,
                spsr: 0b0101 | 1 << 12
            }
        );
    }

    #[test]
    fn stepping_past_a_short_t32_instruction_at_the_end_of_its_world() {
        let resume = Resume {
            elr: 0xffff_fffe,
            spsr: 0b11_0000,
        };
        assert_eq!(resume.past(0).elr, 0);
        let resume = Resume {
            elr: u64::MAX - 3,
            spsr: 0,
        };
        assert_eq!(resume.past(1 << 25).elr, 0);
    }

    #[test]
    fn an_it_block_ends_after_its_last_instruction() {
        let set = |state: u64| 0b11_0000 | (state & 0xfc) << 8 | (state & 0b11) << 25;
        // ITTE EQ: 0000 0110 (condition 0, then, then, else); three instructions.
        let mut resume = Resume {
            elr: 0,
            spsr: set(0b0000_0110),
        };
        for expected in [0b0000_1100, 0b0001_1000, 0] {
            resume = resume.past(0);
            assert_eq!(resume.spsr, set(expected), "{expected:#b}");
        }
    }
}
