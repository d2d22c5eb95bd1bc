//! The few arm64 instructions that the tool makes up and has executed at EL0 or EL1.

/// `ret`.
pub(crate) const RET: u32 = 0xd65f_03c0;

/// `bti c`: lets a kernel that checks its branches call code of ours; does nothing elsewhere.
pub(crate) const BTI_C: u32 = 0xd503_245f;

/// `isb`: system-register writes take effect for what follows.
pub(crate) const ISB: u32 = 0xd503_3fdf;

/// What the planted function returns.
pub(crate) const PLANTED_VALUE: u64 = 42;

/// A function that returns [`PLANTED_VALUE`]: `movz x0, #42` and `ret`. A jump to it needs no BTI, because
/// kernels that check branches check them in their own text and modules only.
pub(crate) const PLANTED: [u32; 2] = [0xd280_0000 | (PLANTED_VALUE as u32) << 5, RET];

/// The encoding of a system register or system instruction (Arm ARM DDI 0487, C5.1.2).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Encoding {
    /// 1 for system instructions, 2 for debug registers, 3 for the others.
    pub(crate) op0: u8,
    /// 0 to 7.
    pub(crate) op1: u8,
    /// 0 to 15.
    pub(crate) crn: u8,
    /// 0 to 15.
    pub(crate) crm: u8,
    /// 0 to 7.
    pub(crate) op2: u8,
}

impl std::fmt::Display for Encoding {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(
            f,
            "S{}_{}_C{}_C{}_{}",
            self.op0, self.op1, self.crn, self.crm, self.op2
        )
    }
}

impl Encoding {
    /// `mrs x0, …`, or `sysl x0, …`.
    pub(crate) fn read(self) -> u32 {
        self.write() | 1 << 21
    }

    /// `msr …, x0`, or `sys …, x0`.
    pub(crate) fn write(self) -> u32 {
        0xd500_0000
            | u32::from(self.op0) << 19
            | u32::from(self.op1) << 16
            | u32::from(self.crn) << 12
            | u32::from(self.crm) << 8
            | u32::from(self.op2) << 5
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn encodings_are_those_of_the_assembler() {
        // As GNU as encodes them.
        let midr_el1 = Encoding {
            op0: 3,
            op1: 0,
            crn: 0,
            crm: 0,
            op2: 0,
        };
        assert_eq!(midr_el1.read(), 0xd538_0000); // mrs x0, midr_el1
        let hcr_el2 = Encoding {
            op0: 3,
            op1: 4,
            crn: 1,
            crm: 1,
            op2: 0,
        };
        assert_eq!(hcr_el2.write(), 0xd51c_1100); // msr hcr_el2, x0
        let mdscr_el1 = Encoding {
            op0: 2,
            op1: 0,
            crn: 0,
            crm: 2,
            op2: 2,
        };
        assert_eq!(mdscr_el1.read(), 0xd530_0240); // mrs x0, mdscr_el1
        let at_s1e1r = Encoding {
            op0: 1,
            op1: 0,
            crn: 7,
            crm: 8,
            op2: 0,
        };
        assert_eq!(at_s1e1r.write(), 0xd508_7800); // at s1e1r, x0
        assert_eq!(PLANTED[0], 0xd280_0540); // mov x0, #42
    }
}
