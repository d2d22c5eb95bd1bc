//! System registers by name: those whose access from EL1 says something about who sits at EL2.

use crate::device::Device;
use crate::instructions::{BTI_C, Encoding, ISB, RET};
use crate::interface::{RUN_OWN_PAGE, Run};
use std::io::Result;

/// Names and encodings (op0, op1, CRn, CRm, op2; Arm ARM DDI 0487, D23; IHI 0069 for those of the GIC).
const REGISTERS: &[(&str, [u8; 5])] = &[
    // What a host may always read.
    ("MIDR_EL1", [3, 0, 0, 0, 0]),
    ("MPIDR_EL1", [3, 0, 0, 0, 5]),
    ("ID_AA64PFR0_EL1", [3, 0, 0, 4, 0]),
    ("ID_AA64DFR0_EL1", [3, 0, 0, 5, 0]),
    ("ID_AA64ISAR0_EL1", [3, 0, 0, 6, 0]),
    ("ID_AA64MMFR0_EL1", [3, 0, 0, 7, 0]),
    ("ID_AA64MMFR1_EL1", [3, 0, 0, 7, 1]),
    ("CURRENTEL", [3, 0, 4, 2, 2]),
    // The host's own, some of which a hypervisor may trap.
    ("SCTLR_EL1", [3, 0, 1, 0, 0]),
    ("ACTLR_EL1", [3, 0, 1, 0, 1]),
    ("CPACR_EL1", [3, 0, 1, 0, 2]),
    ("RGSR_EL1", [3, 0, 1, 0, 5]),
    ("GCR_EL1", [3, 0, 1, 0, 6]),
    ("ZCR_EL1", [3, 0, 1, 2, 0]),
    ("TRFCR_EL1", [3, 0, 1, 2, 1]),
    ("SMCR_EL1", [3, 0, 1, 2, 6]),
    ("TTBR0_EL1", [3, 0, 2, 0, 0]),
    ("TTBR1_EL1", [3, 0, 2, 0, 1]),
    ("TCR_EL1", [3, 0, 2, 0, 2]),
    ("APIAKEYLO_EL1", [3, 0, 2, 1, 0]),
    ("PMSCR_EL1", [3, 0, 9, 9, 0]),
    ("PMBLIMITR_EL1", [3, 0, 9, 10, 0]),
    ("TRBLIMITR_EL1", [3, 0, 9, 11, 0]),
    ("MAIR_EL1", [3, 0, 10, 2, 0]),
    ("LORC_EL1", [3, 0, 10, 4, 3]),
    ("VBAR_EL1", [3, 0, 12, 0, 0]),
    ("CNTKCTL_EL1", [3, 0, 14, 1, 0]),
    // Debug, trace and performance.
    ("DBGBCR0_EL1", [2, 0, 0, 0, 5]),
    ("MDCCINT_EL1", [2, 0, 0, 2, 0]),
    ("MDSCR_EL1", [2, 0, 0, 2, 2]),
    ("OSLAR_EL1", [2, 0, 1, 0, 4]),
    ("PMCR_EL0", [3, 3, 9, 12, 0]),
    ("PMCCNTR_EL0", [3, 3, 9, 13, 0]),
    ("PMUSERENR_EL0", [3, 3, 9, 14, 0]),
    // Timers.
    ("CNTFRQ_EL0", [3, 3, 14, 0, 0]),
    ("CNTPCT_EL0", [3, 3, 14, 0, 1]),
    ("CNTVCT_EL0", [3, 3, 14, 0, 2]),
    ("CNTP_CTL_EL0", [3, 3, 14, 2, 1]),
    ("CNTP_CVAL_EL0", [3, 3, 14, 2, 2]),
    ("CNTV_CTL_EL0", [3, 3, 14, 3, 1]),
    ("CNTV_CVAL_EL0", [3, 3, 14, 3, 2]),
    // Interrupts.
    ("ICC_SGI1R_EL1", [3, 0, 12, 11, 5]),
    ("ICC_ASGI1R_EL1", [3, 0, 12, 11, 6]),
    ("ICC_SGI0R_EL1", [3, 0, 12, 11, 7]),
    ("ICC_SRE_EL1", [3, 0, 12, 12, 5]),
    // EL2's: undefined at EL1.
    ("VPIDR_EL2", [3, 4, 0, 0, 0]),
    ("VMPIDR_EL2", [3, 4, 0, 0, 5]),
    ("SCTLR_EL2", [3, 4, 1, 0, 0]),
    ("HCR_EL2", [3, 4, 1, 1, 0]),
    ("MDCR_EL2", [3, 4, 1, 1, 1]),
    ("CPTR_EL2", [3, 4, 1, 1, 2]),
    ("TTBR0_EL2", [3, 4, 2, 0, 0]),
    ("TCR_EL2", [3, 4, 2, 0, 2]),
    ("VTTBR_EL2", [3, 4, 2, 1, 0]),
    ("VTCR_EL2", [3, 4, 2, 1, 2]),
    ("SPSR_EL2", [3, 4, 4, 0, 0]),
    ("ELR_EL2", [3, 4, 4, 0, 1]),
    ("SP_EL1", [3, 4, 4, 1, 0]),
    ("ESR_EL2", [3, 4, 5, 2, 0]),
    ("FAR_EL2", [3, 4, 6, 0, 0]),
    ("HPFAR_EL2", [3, 4, 6, 0, 4]),
    ("VBAR_EL2", [3, 4, 12, 0, 0]),
    ("ICC_SRE_EL2", [3, 4, 12, 9, 5]),
    ("ICH_HCR_EL2", [3, 4, 12, 11, 0]),
    ("TPIDR_EL2", [3, 4, 13, 0, 2]),
    ("CNTVOFF_EL2", [3, 4, 14, 0, 3]),
    ("CNTHCTL_EL2", [3, 4, 14, 1, 0]),
    ("SCTLR_EL12", [3, 5, 1, 0, 0]),
    // EL3's.
    ("SCR_EL3", [3, 6, 1, 1, 0]),
];

/// The names that [`parse`] knows.
pub(crate) fn names() -> impl Iterator<Item = &'static str> {
    REGISTERS.iter().map(|(name, _)| *name)
}

/// A register by name (`HCR_EL2`) or by encoding, as an assembler writes it (`S3_4_C1_C1_0`). With an S1 encoding
/// this is a system instruction: `S1_0_C7_C8_0` is AT S1E1R.
///
/// # Errors
/// If the text is neither.
pub(crate) fn parse(text: &str) -> std::result::Result<Encoding, String> {
    let upper = text.to_ascii_uppercase();
    let fields = match REGISTERS.iter().find(|(name, _)| *name == upper) {
        Some((_, fields)) => Some(*fields),
        None => parse_fields(&upper),
    };
    let [op0, op1, crn, crm, op2] =
        fields.ok_or_else(|| format!("{text:?} is no register (see `sysreg list`) and no S3_4_C1_C1_0"))?;
    Ok(Encoding {
        op0,
        op1,
        crn,
        crm,
        op2,
    })
}

fn parse_fields(text: &str) -> Option<[u8; 5]> {
    let mut parts = text.strip_prefix('S')?.split('_');
    let mut field = |prefix: &str, range: std::ops::RangeInclusive<u8>| {
        let value: u8 = parts.next()?.strip_prefix(prefix)?.parse().ok()?;
        range.contains(&value).then_some(value)
    };
    let fields = [
        field("", 1..=3)?,
        field("", 0..=7)?,
        field("C", 0..=15)?,
        field("C", 0..=15)?,
        field("", 0..=7)?,
    ];
    parts.next().is_none().then_some(fields)
}

/// Reads a register at EL1. Does not return if that is undefined.
///
/// # Errors
/// What the module says.
pub(crate) fn read(device: &Device, register: Encoding) -> Result<u64> {
    execute(device, [BTI_C, register.read(), RET], 0)
}

/// Writes a register at EL1, or executes a system instruction. Does not return if that is undefined.
///
/// # Errors
/// What the module says.
pub(crate) fn write(device: &Device, register: Encoding, value: u64) -> Result<()> {
    execute(device, [BTI_C, register.write(), ISB, RET], value).map(drop)
}

/// Executes a function of our own at EL1.
fn execute<const N: usize>(device: &Device, code: [u32; N], argument: u64) -> Result<u64> {
    let mut run = Run {
        address: RUN_OWN_PAGE,
        words: N as u32,
        ..Run::default()
    };
    for (place, word) in run.code.iter_mut().zip(code) {
        *place = word;
    }
    run.x[0] = argument;
    device.run(&mut run)?;
    Ok(run.x[0])
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::collections::HashSet;

    #[test]
    fn names_and_encodings_are_registers() {
        let hcr = Encoding {
            op0: 3,
            op1: 4,
            crn: 1,
            crm: 1,
            op2: 0,
        };
        assert_eq!(parse("hcr_el2"), Ok(hcr));
        assert_eq!(parse("s3_4_c1_c1_0"), Ok(hcr));
        assert_eq!(hcr.to_string(), "S3_4_C1_C1_0");
        assert_eq!(parse("S1_0_C7_C8_0").map(|at| at.op0), Ok(1));
        for text in [
            "",
            "HCR",
            "S0_0_C0_C0_0",
            "S3_8_C0_C0_0",
            "S3_0_C16_C0_0",
            "S3_0_0_0_0",
            "S3_0_C1_C1_0_1",
        ] {
            assert!(parse(text).is_err(), "{text}");
        }
    }

    #[test]
    fn no_two_registers_are_the_same() {
        let encodings: HashSet<_> = REGISTERS.iter().map(|(_, fields)| fields).collect();
        let by_name: HashSet<_> = names().collect();
        assert_eq!(
            (encodings.len(), by_name.len()),
            (REGISTERS.len(), REGISTERS.len())
        );
    }
}
