//! Which SMCs of the host reach the firmware.
//!
//! The list is of what is allowed; whatever is not on it answers NOT_SUPPORTED, the secure world's services (FF-A)
//! and the firmware's entropy source among it. PSCI is not passed on but relayed ([`crate::psci`]).
//!
//! The answer of ARCH_FEATURES agrees with the list: of a function that is filtered it says that there is none.
//!
//! Source: SMC Calling Convention, Arm DEN0028, issue G.

use crate::psci;

/// The SMC Calling Convention's "no such function".
pub const NOT_SUPPORTED: i64 = -1;

/// SMCCC_VERSION.
pub const SMCCC_VERSION: u32 = 0x8000_0000;
/// SMCCC_ARCH_FEATURES.
pub const ARCH_FEATURES: u32 = 0x8000_0001;
/// SMCCC_ARCH_SOC_ID.
pub const ARCH_SOC_ID: u32 = 0x8000_0002;
/// SMCCC_ARCH_WORKAROUND_1: CVE-2017-5715.
pub const ARCH_WORKAROUND_1: u32 = 0x8000_8000;
/// SMCCC_ARCH_WORKAROUND_2: CVE-2018-3639.
pub const ARCH_WORKAROUND_2: u32 = 0x8000_7fff;
/// SMCCC_ARCH_WORKAROUND_3: CVE-2017-5715 and CVE-2022-23960.
pub const ARCH_WORKAROUND_3: u32 = 0x8000_3fff;

/// Bit 16 of a function identifier (SMCCC 1.3): the caller has no live SVE state. A hint, not a part of the name.
const SVE_HINT: u32 = 1 << 16;
/// Bit 31 of a function identifier: a fast call.
const FAST: u32 = 1 << 31;
/// Bit 30: the 64-bit convention.
const SIXTY_FOUR: u32 = 1 << 30;

/// What is done about an SMC of the host.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Verdict {
    /// Answered here: x0. The firmware never hears of it.
    Answer(i64),
    /// PSCI: hand x0 to x3 to the relay.
    Psci([u64; 4]),
    /// Passed to the firmware with these x0 to x3; its x0 to x3 are the answer.
    Forward([u64; 4]),
}

/// Judges an SMC by the immediate of the instruction and by x0 to x3.
#[must_use]
pub fn judge(immediate: u16, registers: [u64; 4]) -> Verdict {
    let refused = Verdict::Answer(NOT_SUPPORTED);
    // The convention has no other immediate, and a function identifier has 32 bits.
    let Ok(function) = u32::try_from(registers[0]) else {
        return refused;
    };
    if immediate != 0 {
        return refused;
    }
    let function = without_hint(function);
    let arguments = arguments(function, registers);
    if psci::is_psci(function) {
        return Verdict::Psci(arguments);
    }
    let allowed = match function {
        // The argument of ARCH_FEATURES is a 32-bit function identifier.
        ARCH_FEATURES => passes(arguments[1] as u32),
        // 0 asks for the version, 1 for the revision: two numbers, and the host may know its machine. What more
        // there is (the name of the SoC, in x1 to x17) is another function identifier.
        ARCH_SOC_ID => arguments[1] <= 1,
        _ => passes(function),
    };
    if allowed {
        Verdict::Forward(arguments)
    } else {
        refused
    }
}

/// Whether a function other than PSCI reaches the firmware.
///
/// None of them takes an address: an argument here is a number that the firmware compares.
const fn passes(function: u32) -> bool {
    matches!(
        function,
        SMCCC_VERSION
            | ARCH_FEATURES
            | ARCH_SOC_ID
            | ARCH_WORKAROUND_1
            | ARCH_WORKAROUND_2
            | ARCH_WORKAROUND_3
    )
}

/// The identifier without the SVE hint, which only a fast call has.
const fn without_hint(function: u32) -> u32 {
    if function & FAST != 0 {
        function & !SVE_HINT
    } else {
        function
    }
}

/// x0 to x3 as the firmware may see them: the arguments of a 32-bit function are W1 to W3, and what is above
/// them is nobody's business (DEN0028, the SMC32 convention).
fn arguments(function: u32, registers: [u64; 4]) -> [u64; 4] {
    let [_, x1, x2, x3] = registers;
    let wide = function & SIXTY_FOUR != 0;
    let cut = |value: u64| if wide { value } else { value & 0xffff_ffff };
    [u64::from(function), cut(x1), cut(x2), cut(x3)]
}

#[cfg(test)]
mod tests {
    use super::*;

    fn call(function: u64) -> Verdict {
        judge(0, [function, 0, 0, 0])
    }

    #[test]
    fn the_allow_list_is_this_long() {
        for function in [
            SMCCC_VERSION,
            ARCH_WORKAROUND_1,
            ARCH_WORKAROUND_2,
            ARCH_WORKAROUND_3,
        ] {
            let registers = [u64::from(function), 1, 2, 3];
            assert_eq!(judge(0, registers), Verdict::Forward(registers));
        }
        // All function numbers of the architecture's range, 32- and 64-bit.
        let passed = (0x8000_0000..0x8001_0000_u64)
            .chain(0xc000_0000..0xc001_0000)
            .filter(|function| matches!(call(*function), Verdict::Forward(_)))
            .count();
        // The four above and SOC_ID; ARCH_FEATURES of function 0 is refused.
        assert_eq!(passed, 5);
    }

    #[test]
    fn nobody_else_is_let_through() {
        for function in [
            0x8400_0060, // FFA_ERROR
            0x8400_0063, // FFA_VERSION
            0x8400_0066, // FFA_RXTX_MAP
            0xc400_0072, // FFA_MEM_DONATE
            0x8400_0050, // TRNG_VERSION
            0xc400_0053, // TRNG_RND
            0xc400_0020, // SDEI_VERSION
            0x8200_0000, // SiP
            0x8300_0000, // OEM
            0x8600_ff01, // vendor-specific hypervisor
            0xb200_0000, // trusted OS
            0x0000_0000, // yielding
            0xc400_01b0, // RMI
            0xc000_0002, // SOC_ID's 64-bit form
        ] {
            assert_eq!(call(function), Verdict::Answer(NOT_SUPPORTED), "{function:#x}");
        }
    }

    #[test]
    fn features_agrees_with_the_filter() {
        let ask = |function: u64| judge(0, [u64::from(ARCH_FEATURES), function, 0, 0]);
        for function in (0x8000_0000..0x8001_0000_u64).step_by(1) {
            let passes = matches!(
                judge(0, [function, u64::from(SMCCC_VERSION), 0, 0]),
                Verdict::Forward(_)
            ) || function == u64::from(ARCH_SOC_ID);
            assert_eq!(
                matches!(ask(function), Verdict::Forward(_)),
                passes,
                "{function:#x}"
            );
        }
        assert_eq!(ask(0x8400_0063), Verdict::Answer(NOT_SUPPORTED));
        assert_eq!(ask(0x8400_0003), Verdict::Answer(NOT_SUPPORTED));
    }

    #[test]
    fn an_immediate_or_a_wide_identifier_is_refused() {
        let version = u64::from(SMCCC_VERSION);
        assert_eq!(judge(1, [version, 0, 0, 0]), Verdict::Answer(NOT_SUPPORTED));
        assert_eq!(judge(0xffff, [version, 0, 0, 0]), Verdict::Answer(NOT_SUPPORTED));
        assert_eq!(call(version | 1 << 32), Verdict::Answer(NOT_SUPPORTED));
        assert_eq!(call(u64::MAX), Verdict::Answer(NOT_SUPPORTED));
    }

    #[test]
    fn a_32_bit_call_hands_on_32_bits() {
        assert_eq!(
            judge(0, [0x8000_7fff, 0xffff_ffff_0000_0001, u64::MAX, u64::MAX]),
            Verdict::Forward([0x8000_7fff, 1, 0xffff_ffff, 0xffff_ffff])
        );
        assert_eq!(
            judge(0, [0xc400_0003, u64::MAX, 1, 2]),
            Verdict::Psci([0xc400_0003, u64::MAX, 1, 2])
        );
    }

    #[test]
    fn the_sve_hint_is_not_part_of_the_name() {
        assert_eq!(
            call(u64::from(SMCCC_VERSION | SVE_HINT)),
            Verdict::Forward([u64::from(SMCCC_VERSION), 0, 0, 0])
        );
        assert_eq!(call(0x8401_0002), Verdict::Psci([0x8400_0002, 0, 0, 0]));
        assert_eq!(call(0x0001_0000), Verdict::Answer(NOT_SUPPORTED));
    }

    #[test]
    fn the_machine_has_two_numbers() {
        let ask = |what: u64| judge(0, [u64::from(ARCH_SOC_ID), what, 0, 0]);
        assert!(matches!(ask(0), Verdict::Forward(_)));
        assert!(matches!(ask(1), Verdict::Forward(_)));
        assert_eq!(ask(2), Verdict::Answer(NOT_SUPPORTED));
    }
}
