//! What an A64 instruction word means, as far as the order of a hypervisor's doors is concerned.
//!
//! [`Operation::decode`] names the instructions that a trace tells and a census counts: TLB and cache
//! maintenance, barriers, writes of the registers that rule translation and traps, exception calls and returns.
//! Everything else decodes to `None`. The words are read by hand, so that no disassembler is needed: the tables
//! are Arm ARM DDI 0487, C4.1 (encoding index) and C5 (the system instruction class).

use serde::{Deserialize, Serialize};
use std::borrow::Cow;

/// The kind of an architecturally interesting instruction.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Kind {
    /// TLB invalidation.
    Tlbi,
    /// Data synchronization barrier.
    Dsb,
    /// Data memory barrier.
    Dmb,
    /// Instruction synchronization barrier.
    Isb,
    /// Speculation barrier: SB, SSBB or PSSBB.
    Sb,
    /// Data cache maintenance, zeroing included.
    Dc,
    /// Instruction cache maintenance.
    Ic,
    /// Address translation by instruction.
    At,
    /// Write of one of the registers that [`Operation::decode`] knows.
    Msr,
    /// Exception return.
    Eret,
    /// Call to the supervisor, EL1.
    Svc,
    /// Call to the hypervisor, EL2.
    Hvc,
    /// Call to the secure monitor, EL3.
    Smc,
}

/// An interesting instruction: its kind, and which of that kind it is.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Operation {
    /// The kind.
    pub kind: Kind,
    /// The operand as assemblers write it, in lower case: `vmalls12e1is`, `ish`, `civac`, `vttbr_el2`; the
    /// immediate of a call, `#0`; empty where there is none. A system instruction without a name of its own
    /// here is `op1_cn_cm_op2`, its four fields.
    pub name: Cow<'static, str>,
}

/// The fields of a system instruction or register access that say which one it is.
#[derive(Clone, Copy, PartialEq, Eq)]
struct SysFields {
    op1: u8,
    crn: u8,
    crm: u8,
    op2: u8,
}

impl SysFields {
    const fn of(word: u32) -> Self {
        Self {
            op1: bits(word, 16, 3),
            crn: bits(word, 12, 4),
            crm: bits(word, 8, 4),
            op2: bits(word, 5, 3),
        }
    }

    fn raw(self) -> Cow<'static, str> {
        let Self { op1, crn, crm, op2 } = self;
        Cow::Owned(format!("{op1}_c{crn}_c{crm}_{op2}"))
    }
}

#[expect(
    clippy::cast_possible_truncation,
    reason = "at most four bits are left after the mask"
)]
const fn bits(word: u32, low: u32, width: u32) -> u8 {
    (word >> low & ((1 << width) - 1)) as u8
}

impl Operation {
    /// Decodes an instruction word; `None` if it is not one of the interesting ones.
    #[must_use]
    pub fn decode(word: u32) -> Option<Self> {
        exception(word)
            .or_else(|| barrier(word))
            .or_else(|| system(word))
            .or_else(|| register_write(word))
    }

    fn new(kind: Kind, name: impl Into<Cow<'static, str>>) -> Self {
        Self {
            kind,
            name: name.into(),
        }
    }
}

/// Exception generation and return: Arm ARM C4.1.
fn exception(word: u32) -> Option<Operation> {
    // ERET, ERETAA, ERETAB.
    if matches!(word, 0xD69F_03E0 | 0xD69F_0BFF | 0xD69F_0FFF) {
        return Some(Operation::new(Kind::Eret, ""));
    }
    let kind = match word & 0xFFE0_001F {
        0xD400_0001 => Kind::Svc,
        0xD400_0002 => Kind::Hvc,
        0xD400_0003 => Kind::Smc,
        _ => return None,
    };
    Some(Operation::new(kind, format!("#{}", word >> 5 & 0xFFFF)))
}

/// Barriers: Arm ARM C4.1, class "Barriers". CRm is the domain, op2 the kind.
fn barrier(word: u32) -> Option<Operation> {
    if word & 0xFFFF_F01F != 0xD503_301F {
        return None;
    }
    let domain = bits(word, 8, 4);
    match bits(word, 5, 3) {
        // DSB with the nXS qualifier: the domain is in the upper two bits of CRm.
        1 if domain & 0b11 == 0b10 => Some(Operation::new(
            Kind::Dsb,
            ["oshnxs", "nshnxs", "ishnxs", "synxs"][usize::from(domain >> 2)],
        )),
        4 if domain == 0 => Some(Operation::new(Kind::Sb, "ssbb")),
        4 if domain == 4 => Some(Operation::new(Kind::Sb, "pssbb")),
        4 => Some(Operation::new(Kind::Dsb, domain_name(domain))),
        5 => Some(Operation::new(Kind::Dmb, domain_name(domain))),
        6 => Some(Operation::new(Kind::Isb, "")),
        7 => Some(Operation::new(Kind::Sb, "")),
        _ => None,
    }
}

fn domain_name(domain: u8) -> Cow<'static, str> {
    let name = match domain {
        1 => "oshld",
        2 => "oshst",
        3 => "osh",
        5 => "nshld",
        6 => "nshst",
        7 => "nsh",
        9 => "ishld",
        10 => "ishst",
        11 => "ish",
        13 => "ld",
        14 => "st",
        15 => "sy",
        other => return Cow::Owned(format!("#{other}")),
    };
    Cow::Borrowed(name)
}

/// SYS, by which caches, TLBs and address translation are asked: Arm ARM C5.1.3.
fn system(word: u32) -> Option<Operation> {
    if word & 0xFFF8_0000 != 0xD508_0000 {
        return None;
    }
    let fields = SysFields::of(word);
    let named = |kind, name: Option<&'static str>| {
        Some(Operation {
            kind,
            name: name.map_or_else(|| fields.raw(), Cow::Borrowed),
        })
    };
    match (fields.crn, fields.crm) {
        // CRn 9 is the same set with the nXS qualifier (FEAT_XS).
        (8, _) => named(Kind::Tlbi, tlbi_name(fields)),
        (9, _) => {
            let name = tlbi_name(fields).map_or_else(|| fields.raw(), |name| format!("{name}nxs").into());
            Some(Operation {
                kind: Kind::Tlbi,
                name,
            })
        }
        (7, 1 | 5) => named(Kind::Ic, ic_name(fields)),
        (7, 4 | 6 | 10..=14) => named(Kind::Dc, dc_name(fields)),
        (7, 8 | 9) => named(Kind::At, at_name(fields)),
        _ => None,
    }
}

fn tlbi_name(fields: SysFields) -> Option<&'static str> {
    Some(match (fields.op1, fields.crm, fields.op2) {
        (0, 1, 0) => "vmalle1os",
        (0, 1, 1) => "vae1os",
        (0, 1, 2) => "aside1os",
        (0, 1, 3) => "vaae1os",
        (0, 1, 5) => "vale1os",
        (0, 1, 7) => "vaale1os",
        (0, 2, 1) => "rvae1is",
        (0, 2, 3) => "rvaae1is",
        (0, 2, 5) => "rvale1is",
        (0, 2, 7) => "rvaale1is",
        (0, 3, 0) => "vmalle1is",
        (0, 3, 1) => "vae1is",
        (0, 3, 2) => "aside1is",
        (0, 3, 3) => "vaae1is",
        (0, 3, 5) => "vale1is",
        (0, 3, 7) => "vaale1is",
        (0, 5, 1) => "rvae1os",
        (0, 5, 3) => "rvaae1os",
        (0, 5, 5) => "rvale1os",
        (0, 5, 7) => "rvaale1os",
        (0, 6, 1) => "rvae1",
        (0, 6, 3) => "rvaae1",
        (0, 6, 5) => "rvale1",
        (0, 6, 7) => "rvaale1",
        (0, 7, 0) => "vmalle1",
        (0, 7, 1) => "vae1",
        (0, 7, 2) => "aside1",
        (0, 7, 3) => "vaae1",
        (0, 7, 5) => "vale1",
        (0, 7, 7) => "vaale1",
        (4, 0, 1) => "ipas2e1is",
        (4, 0, 2) => "ripas2e1is",
        (4, 0, 5) => "ipas2le1is",
        (4, 0, 6) => "ripas2le1is",
        (4, 1, 0) => "alle2os",
        (4, 1, 1) => "vae2os",
        (4, 1, 4) => "alle1os",
        (4, 1, 5) => "vale2os",
        (4, 1, 6) => "vmalls12e1os",
        (4, 2, 1) => "rvae2is",
        (4, 2, 5) => "rvale2is",
        (4, 3, 0) => "alle2is",
        (4, 3, 1) => "vae2is",
        (4, 3, 4) => "alle1is",
        (4, 3, 5) => "vale2is",
        (4, 3, 6) => "vmalls12e1is",
        (4, 4, 0) => "ipas2e1os",
        (4, 4, 1) => "ipas2e1",
        (4, 4, 2) => "ripas2e1",
        (4, 4, 3) => "ripas2e1os",
        (4, 4, 4) => "ipas2le1os",
        (4, 4, 5) => "ipas2le1",
        (4, 4, 6) => "ripas2le1",
        (4, 4, 7) => "ripas2le1os",
        (4, 5, 1) => "rvae2os",
        (4, 5, 5) => "rvale2os",
        (4, 6, 1) => "rvae2",
        (4, 6, 5) => "rvale2",
        (4, 7, 0) => "alle2",
        (4, 7, 1) => "vae2",
        (4, 7, 4) => "alle1",
        (4, 7, 5) => "vale2",
        (4, 7, 6) => "vmalls12e1",
        _ => return None,
    })
}

fn ic_name(fields: SysFields) -> Option<&'static str> {
    Some(match (fields.op1, fields.crm, fields.op2) {
        (0, 1, 0) => "ialluis",
        (0, 5, 0) => "iallu",
        (3, 5, 1) => "ivau",
        _ => return None,
    })
}

fn dc_name(fields: SysFields) -> Option<&'static str> {
    Some(match (fields.op1, fields.crm, fields.op2) {
        (0, 6, 1) => "ivac",
        (0, 6, 2) => "isw",
        (0, 10, 2) => "csw",
        (0, 14, 2) => "cisw",
        (3, 4, 1) => "zva",
        (3, 10, 1) => "cvac",
        (3, 11, 1) => "cvau",
        (3, 12, 1) => "cvap",
        (3, 13, 1) => "cvadp",
        (3, 14, 1) => "civac",
        _ => return None,
    })
}

fn at_name(fields: SysFields) -> Option<&'static str> {
    Some(match (fields.op1, fields.crm, fields.op2) {
        (0, 8, 0) => "s1e1r",
        (0, 8, 1) => "s1e1w",
        (0, 8, 2) => "s1e0r",
        (0, 8, 3) => "s1e0w",
        (0, 9, 0) => "s1e1rp",
        (0, 9, 1) => "s1e1wp",
        (4, 8, 0) => "s1e2r",
        (4, 8, 1) => "s1e2w",
        (4, 8, 4) => "s12e1r",
        (4, 8, 5) => "s12e1w",
        (4, 8, 6) => "s12e0r",
        (4, 8, 7) => "s12e0w",
        _ => return None,
    })
}

/// MSR (register) to a register with op0 = 3 that rules translation, traps or exceptions, at EL2 or EL1.
/// Registers that any exception return writes (ELR, SPSR) or that hold a pointer (TPIDR) are left out.
fn register_write(word: u32) -> Option<Operation> {
    if word & 0xFFF8_0000 != 0xD518_0000 {
        return None;
    }
    let SysFields { op1, crn, crm, op2 } = SysFields::of(word);
    let name = match (op1, crn, crm, op2) {
        (0, 1, 0, 0) => "sctlr_el1",
        (0, 2, 0, 0) => "ttbr0_el1",
        (0, 2, 0, 1) => "ttbr1_el1",
        (0, 2, 0, 2) => "tcr_el1",
        (4, 0, 0, 0) => "vpidr_el2",
        (4, 0, 0, 5) => "vmpidr_el2",
        (4, 1, 0, 0) => "sctlr_el2",
        (4, 1, 1, 0) => "hcr_el2",
        (4, 1, 1, 1) => "mdcr_el2",
        (4, 1, 1, 2) => "cptr_el2",
        (4, 1, 1, 3) => "hstr_el2",
        (4, 2, 0, 0) => "ttbr0_el2",
        (4, 2, 0, 1) => "ttbr1_el2",
        (4, 2, 0, 2) => "tcr_el2",
        (4, 2, 1, 0) => "vttbr_el2",
        (4, 2, 1, 2) => "vtcr_el2",
        (4, 10, 2, 0) => "mair_el2",
        (4, 12, 0, 0) => "vbar_el2",
        (5, 1, 0, 0) => "sctlr_el12",
        (5, 2, 0, 0) => "ttbr0_el12",
        (5, 2, 0, 1) => "ttbr1_el12",
        (5, 2, 0, 2) => "tcr_el12",
        _ => return None,
    };
    Some(Operation::new(Kind::Msr, name))
}

/// Whether an instruction is of the loads and stores (Arm ARM C4.1: bits 28:25 are x1x0).
#[must_use]
pub const fn accesses_memory(word: u32) -> bool {
    word & 1 << 27 != 0 && word & 1 << 25 == 0
}

/// Whether an instruction uses the vector or floating-point registers, or those of SVE or SME (Arm ARM C4.1).
#[must_use]
pub const fn uses_vectors(word: u32) -> bool {
    match word >> 25 & 0xF {
        // SME, where bit 31 is set, and reserved encodings.
        0b0000 => word >> 31 == 1,
        // SVE.
        0b0010 => true,
        // Scalar floating point and Advanced SIMD.
        0b0111 | 0b1111 => true,
        // Loads and stores with V, bit 26, set.
        _ => accesses_memory(word) && word & 1 << 26 != 0,
    }
}

/// The number in a marker instruction: `movz xzr, #n`, which does nothing and which no compiler makes. Code under
/// test executes one to say which case comes next, see [`marker_word`].
#[must_use]
pub const fn marker(word: u32) -> Option<u16> {
    if word & 0xFFE0_001F == marker_word(0) {
        Some((word >> 5 & 0xFFFF) as u16)
    } else {
        None
    }
}

/// The instruction word of marker `number`.
#[must_use]
pub const fn marker_word(number: u16) -> u32 {
    0xD280_001F | (number as u32) << 5
}

#[cfg(test)]
mod tests;
