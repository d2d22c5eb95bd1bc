//! What PSTATE a guest may be given from outside.
//!
//! It reaches the CPU by an ERET of EL2's, so that what is let through here decides where EL2 goes. An M that is EL2 or
//! EL3, or EL0 with the stack pointer of EL1, makes the return illegal (Arm ARM DDI 0487, D1.4, "Illegal exception returns
//! from AArch64 state"). nRW is AArch32, which no guest is shown. IL and SS are the state of an exception that is under
//! way. A bit of a feature that the CPU lacks would be gone when the guest looks.
//!
//! Source: Arm ARM DDI 0487, C5.2, SPSR_EL2.

use super::id::IdRegisters;
use super::inject::{
    SPSR_ALLINT, SPSR_BTYPE, SPSR_DAIF, SPSR_DIT, SPSR_NZCV, SPSR_PAN, SPSR_PM, SPSR_SSBS, SPSR_TCO, SPSR_UAO,
};

/// M\[4:0\]: nRW, the exception level, the stack pointer.
const MODE: u64 = 0b1_1111;
const EL0T: u64 = 0b0_0000;
const EL1T: u64 = 0b0_0100;
const EL1H: u64 = 0b0_0101;

/// What a guest on the CPU that `id` describes can have set, beside M. ALLINT, TCO and PM are of features that guests are
/// not shown, but an exception to EL1 sets them all the same.
fn flags(id: &IdRegisters) -> u64 {
    [
        (id.bt() != 0, SPSR_BTYPE),
        (id.ssbs() != 0, SPSR_SSBS),
        (id.nmi() != 0, SPSR_ALLINT),
        (id.pan() != 0, SPSR_PAN),
        (id.uao() != 0, SPSR_UAO),
        (id.dit() != 0, SPSR_DIT),
        (id.mte() != 0, SPSR_TCO),
        (id.ebep() != 0, SPSR_PM),
    ]
    .into_iter()
    .filter(|(present, _)| *present)
    .fold(SPSR_NZCV | SPSR_DAIF, |flags, (_, bits)| flags | bits)
}

/// Whether a guest on the CPU that `id` describes can have this PSTATE, as SPSR_EL2 holds it.
#[must_use]
pub fn is_guest_pstate(id: &IdRegisters, pstate: u64) -> bool {
    matches!(pstate & MODE, EL0T | EL1T | EL1H) && pstate & !MODE & !flags(id) == 0
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A CPU that has none of the features.
    const PLAIN: IdRegisters = IdRegisters::NONE;

    #[test]
    fn of_all_modes_only_those_of_el0_and_el1_are_a_guests() {
        let allowed: std::vec::Vec<u64> = (0..0x20).filter(|mode| is_guest_pstate(&PLAIN, *mode)).collect();
        assert_eq!(allowed, [0b0_0000, 0b0_0100, 0b0_0101]);
    }

    #[test]
    fn a_flag_is_allowed_where_the_cpu_has_it() {
        let always = 0xf000_03c0_u64;
        for bit in 5..64 {
            let pstate = 1 << bit | EL1H;
            assert_eq!(
                is_guest_pstate(&PLAIN, pstate),
                always >> bit & 1 != 0,
                "bit {bit}"
            );
        }
        for (id, bits) in [
            (IdRegisters { pfr1: 1, ..PLAIN }, 0b11 << 10),
            (
                IdRegisters {
                    pfr1: 1 << 4,
                    ..PLAIN
                },
                1 << 12,
            ),
            (
                IdRegisters {
                    pfr1: 1 << 36,
                    ..PLAIN
                },
                1 << 13,
            ),
            (
                IdRegisters {
                    mmfr1: 1 << 20,
                    ..PLAIN
                },
                1 << 22,
            ),
            (
                IdRegisters {
                    mmfr2: 1 << 4,
                    ..PLAIN
                },
                1 << 23,
            ),
            (
                IdRegisters {
                    pfr0: 1 << 48,
                    ..PLAIN
                },
                1 << 24,
            ),
            (
                IdRegisters {
                    pfr1: 1 << 8,
                    ..PLAIN
                },
                1 << 25,
            ),
            (
                IdRegisters {
                    dfr1: 1 << 48,
                    ..PLAIN
                },
                1 << 32,
            ),
        ] {
            let gained: u64 = (5..64)
                .map(|bit| 1 << bit)
                .filter(|bit| is_guest_pstate(&id, bit | EL1H) && !is_guest_pstate(&PLAIN, bit | EL1H))
                .fold(0, |bits, bit| bits | bit);
            assert_eq!(gained, bits, "{id:x?}");
        }
    }

    #[test]
    fn no_cpu_lets_il_or_ss_or_unknown_bits_through() {
        let all = IdRegisters {
            pfr0: u64::MAX,
            pfr1: u64::MAX,
            dfr1: u64::MAX,
            mmfr1: u64::MAX,
            mmfr2: u64::MAX,
            ..PLAIN
        };
        for bit in [5, 14, 15, 16, 17, 18, 19, 20, 21, 26, 27, 33, 34, 35, 36, 37, 63] {
            assert!(!is_guest_pstate(&all, 1 << bit | EL1H), "bit {bit}");
        }
    }
}
