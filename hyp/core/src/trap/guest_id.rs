//! The feature ID registers that a guest sees: a fixed list, field by field, computed from those of the first CPU.
//!
//! Reads of them trap (`HCR_EL2.TID3`), and [`GuestCpu::read`] answers. A field is shown because it is listed here,
//! with the highest value that a guest is told; what the CPU has less of is shown as it is. A field that is not listed
//! says "not there". So a guest knows of nothing that EL2 does not keep for it, traps, or has not heard of.
//!
//! Listed is what needs no state beyond the general-purpose and SIMD registers and the EL1 registers that
//! [`crate::vm::context`] keeps, and what is a plain property of the CPU (what it speculates, how its TLBs take hints).
//! Not listed, on purpose:
//! - SVE, SME, memory tags, the PMU, profiling, trace, branch records, activity monitors, MPAM, LORegions, transactions,
//!   guarded control stacks, 64-byte stores, stage-1 permission indirection and overlays, 128-bit descriptors,
//!   non-maskable interrupts: their state is the host's, or nobody's;
//! - RAS, with implicit error synchronization: an SError is the host's, and there are no error records to see;
//! - SCXTNUM_ELx, so CSV2 is shown as 1 at most: the registers are not switched, and they trap;
//! - `WFIT` and `WFET`: the host, which is told that a guest waits, would not be told until when;
//! - big-endian data: what a device that the host emulates is told of a store is the register as it stands;
//! - 52-bit addresses, EL2, EL3, Secure state, AArch32 at any level: a guest has none. (A kernel that goes to AArch32 at
//!   EL0 all the same, on a CPU that has it, runs there under the same traps.)
//!
//! Debug is shown at its architectural minimum, since it cannot be absent: two breakpoints, two watchpoints, one of
//! them for contexts. Their registers read as zero and ignore writes ([`super::guest_sysreg`]).
//!
//! Source: Arm ARM DDI 0487, D24.2, each register by name; D24.1.3 for how fields are compared: most are unsigned
//! and grow with the feature, a few are signed, with 0b1111 for "not there".

use super::id::IdRegisters;
use super::syndrome::SystemRegister;
use hyp_abi::vm::{affinity_of, vcpu_at};

/// What a guest's CPUs are computed from.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct GuestCpu<'a> {
    /// The ID registers of the CPU that booted. Those of the CPU on which the guest happens to run do not count:
    /// what a guest sees does not change under it.
    pub id: &'a IdRegisters,
    /// Bits of an IPA, as the VM was created.
    pub ipa_bits: u32,
}

/// What a guest is told of one field.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Limit {
    /// What the CPU has, up to this much.
    AtMost(u64),
    /// The same, and a CPU that has another of them is another CPU to software: it does the same things differently.
    JustAsUpTo(u64),
    /// As `AtMost`, where the field is a signed number: 0b1000 to 0b1111 are less than 0.
    SignedAtMost(u64),
    /// This, whatever the CPU has.
    Always(u64),
}

/// A field of four bits, by its lowest one, and its limit.
type Field = (u32, Limit);

use Limit::{Always, AtMost, JustAsUpTo, SignedAtMost};

const PFR0: &[Field] = &[
    // EL0, EL1: AArch64 alone.
    (0, Always(1)),
    (4, Always(1)),
    // FP, AdvSIMD: up to half precision.
    (16, SignedAtMost(1)),
    (20, SignedAtMost(1)),
    // GIC: the system registers of GICv3.
    (24, AtMost(1)),
    // DIT.
    (48, AtMost(1)),
    // CSV2, CSV3.
    (56, AtMost(1)),
    (60, AtMost(1)),
];

const PFR1: &[Field] = &[
    // BT.
    (0, AtMost(1)),
    // SSBS: 2 has MSR and MRS of PSTATE.SSBS.
    (4, AtMost(2)),
];

/// ID_AA64PFR1_EL1.CSV2_frac, which means something where ID_AA64PFR0_EL1.CSV2 is 1 on the CPU, too. 2 would be
/// SCXTNUM_ELx.
const CSV2_FRAC: Field = (32, AtMost(1));

const DFR0: &[Field] = &[
    // DebugVer: 6 is the Armv8 debug architecture, and the least.
    (0, Always(6)),
    // BRPs, WRPs: how many, less one. 0 is reserved.
    (12, Always(1)),
    (20, Always(1)),
    // CTX_CMPs: how many of the breakpoints know contexts, less one.
    (28, Always(0)),
    // DoubleLock, MTPMU: 0b1111 is "not there".
    (36, Always(0xf)),
    (48, Always(0xf)),
];

const ISAR0: &[Field] = &[
    // AES, SHA1, SHA2, CRC32.
    (4, AtMost(2)),
    (8, AtMost(1)),
    (12, AtMost(2)),
    (16, AtMost(1)),
    // Atomic: 3 is LSE128.
    (20, AtMost(3)),
    // RDM, SHA3, SM3, SM4, DP, FHM.
    (28, AtMost(1)),
    (32, AtMost(1)),
    (36, AtMost(1)),
    (40, AtMost(1)),
    (44, AtMost(1)),
    (48, AtMost(1)),
    // TS: 2 is FEAT_FlagM2.
    (52, AtMost(2)),
    // TLB: 2 is ranges. They reach a guest's own VMID only.
    (56, AtMost(2)),
    // RNDR.
    (60, AtMost(1)),
];

const ISAR1: &[Field] = &[
    // DPB: 2 is DC CVADP.
    (0, AtMost(2)),
    // APA, API: 5 is FPACCOMBINE; 6, FEAT_PAuth_LR, comes with more state.
    (4, JustAsUpTo(5)),
    (8, JustAsUpTo(5)),
    // JSCVT, FCMA.
    (12, AtMost(1)),
    (16, AtMost(1)),
    // LRCPC: 3 is FEAT_LRCPC3.
    (20, AtMost(3)),
    // GPA, GPI.
    (24, JustAsUpTo(1)),
    (28, JustAsUpTo(1)),
    // FRINTTS, SB.
    (32, AtMost(1)),
    (36, AtMost(1)),
    // SPECRES: 2 is COSP RCTX. They reach a guest's own VMID only.
    (40, AtMost(2)),
    // BF16: 2 is FPCR.EBF.
    (44, AtMost(2)),
    // DGH, I8MM.
    (48, AtMost(1)),
    (52, AtMost(1)),
];

const ISAR2: &[Field] = &[
    // RPRES.
    (4, AtMost(1)),
    // GPA3, APA3: as GPA and APA.
    (8, JustAsUpTo(1)),
    (12, JustAsUpTo(5)),
    // MOPS: its state is in the general-purpose registers, and EL1 mends an operation that changed CPUs.
    (16, AtMost(1)),
    // BC, PAC_frac, CLRBHB.
    (20, AtMost(1)),
    (24, JustAsUpTo(1)),
    (28, AtMost(1)),
    // CSSC.
    (52, AtMost(1)),
    // ATS1A.
    (60, AtMost(1)),
];

const MMFR0: &[Field] = &[
    // ASIDBits: 2 is 16 bits.
    (4, AtMost(2)),
    // TGran16: 1 is "there", 2 adds 52 bits. TGran64, TGran4: 0 is "there", 1 adds 52 bits, 0b1111 is "not there".
    (20, AtMost(1)),
    (24, SignedAtMost(0)),
    (28, SignedAtMost(0)),
    // ExS.
    (44, AtMost(1)),
    // ECV: 1 is the self-synchronized views of the counters; 2 would be the offset, which is EL2's.
    (60, AtMost(1)),
];

const MMFR1: &[Field] = &[
    // HAFDBS: 2 is the dirty state; more would need TCR2_EL1.
    (0, AtMost(2)),
    // HPDS, PAN, SpecSEI.
    (12, AtMost(2)),
    (20, AtMost(3)),
    (24, AtMost(1)),
    // ETS.
    (36, AtMost(3)),
    // AFP: FPCR holds all of it.
    (44, AtMost(1)),
    // nTLBPA, CMOW, ECBHB.
    (48, AtMost(1)),
    (56, AtMost(1)),
    (60, AtMost(1)),
];

const MMFR2: &[Field] = &[
    // CnP, UAO.
    (0, AtMost(1)),
    (4, AtMost(1)),
    // VARange: 1 is 52 bits with the 64 KiB granule.
    (16, AtMost(1)),
    // CCIDX: CCSIDR_EL1 is not trapped, so its layout is the CPU's.
    (20, JustAsUpTo(1)),
    // ST, AT (of single copy atomicity), IDS.
    (28, AtMost(1)),
    (32, AtMost(1)),
    (36, AtMost(1)),
    // TTL, BBM, E0PD.
    (48, AtMost(1)),
    (52, AtMost(2)),
    (60, AtMost(1)),
];

impl GuestCpu<'_> {
    /// What a guest reads from an ID register. Zero for one that is not listed here: AArch32's, those of features that
    /// are hidden, and the reserved encodings.
    #[must_use]
    pub fn read(&self, register: SystemRegister) -> u64 {
        let id = self.id;
        match id_number(register) {
            Some((4, 0)) => shown(id.pfr0, PFR0),
            Some((4, 1)) => {
                let fraction: &[Field] = if id.csv2() == 1 { &[CSV2_FRAC] } else { &[] };
                shown(id.pfr1, PFR1) | shown(id.pfr1, fraction)
            }
            Some((5, 0)) => shown(id.dfr0, DFR0),
            Some((6, 0)) => shown(id.isar0, ISAR0),
            Some((6, 1)) => shown(id.isar1, ISAR1),
            Some((6, 2)) => shown(id.isar2, ISAR2),
            Some((7, 0)) => shown(id.mmfr0, MMFR0) | self.pa_range(),
            Some((7, 1)) => shown(id.mmfr1, MMFR1),
            Some((7, 2)) => shown(id.mmfr2, MMFR2),
            _ => 0,
        }
    }

    /// ID_AA64MMFR0_EL1.PARange: what the CPU has, up to the largest size that the VM's IPAs hold. 32 bits is the least
    /// that can be said.
    fn pa_range(&self) -> u64 {
        let fitting = match self.ipa_bits {
            ..36 => 0,
            36..40 => 1,
            40..42 => 2,
            42..44 => 3,
            44..48 => 4,
            48.. => 5,
        };
        (self.id.mmfr0 & 0xf).min(fitting)
    }
}

/// CRm and op2 of a register in the space of the feature ID registers (op0 3, op1 0, CRn 0, CRm 1 to 7).
#[must_use]
pub const fn id_number(register: SystemRegister) -> Option<(u8, u8)> {
    match register {
        SystemRegister {
            op0: 3,
            op1: 0,
            crn: 0,
            crm: crm @ 1..=7,
            op2,
        } => Some((crm, op2)),
        _ => None,
    }
}

/// What is shown of `value`: each listed field within its limit.
fn shown(value: u64, fields: &[Field]) -> u64 {
    fields.iter().fold(0, |result, &(shift, limit)| {
        result | limit.of(value >> shift & 0xf) << shift
    })
}

impl Limit {
    /// What is shown of a field.
    const fn of(self, field: u64) -> u64 {
        match self {
            SignedAtMost(_) if field >= 0b1000 => field,
            AtMost(most) | JustAsUpTo(most) | SignedAtMost(most) => {
                if field < most {
                    field
                } else {
                    most
                }
            }
            Always(always) => always,
        }
    }

    /// Whether a CPU whose field is `other` has what is shown of one whose field is `first`.
    const fn is_met(self, first: u64, other: u64) -> bool {
        let (first, other) = (self.of(first), self.of(other));
        match self {
            AtMost(_) => other >= first,
            JustAsUpTo(_) => other == first,
            // Moved so that the most negative number is 0.
            SignedAtMost(_) => (other ^ 0b1000) >= (first ^ 0b1000),
            Always(_) => true,
        }
    }
}

/// Whether a guest that is shown the CPU `first` finds on the CPU `other` what it was shown. (PARange apart: no IPA of a
/// VM is larger than what the first CPU has.)
#[must_use]
pub fn is_shown_no_less(first: &IdRegisters, other: &IdRegisters) -> bool {
    let fraction: &[Field] = if first.csv2() == 1 && other.csv2() == 1 {
        &[CSV2_FRAC]
    } else {
        &[]
    };
    [
        (first.pfr0, other.pfr0, PFR0),
        (first.pfr1, other.pfr1, PFR1),
        (first.pfr1, other.pfr1, fraction),
        (first.isar0, other.isar0, ISAR0),
        (first.isar1, other.isar1, ISAR1),
        (first.isar2, other.isar2, ISAR2),
        (first.mmfr0, other.mmfr0, MMFR0),
        (first.mmfr1, other.mmfr1, MMFR1),
        (first.mmfr2, other.mmfr2, MMFR2),
    ]
    .into_iter()
    .all(|(first, other, fields)| {
        fields
            .iter()
            .all(|&(shift, limit)| limit.is_met(first >> shift & 0xf, other >> shift & 0xf))
    })
}

/// MPIDR_EL1 of a guest's vCPU, by its index. Bit 31 is RES1; U and MT are 0.
#[must_use]
pub const fn mpidr(vcpu: u8) -> u64 {
    1 << 31 | affinity_of(vcpu as usize) as u64
}

/// The index of the vCPU that PSCI names by the affinity fields of its MPIDR_EL1; all other bits are zero (DEN0022,
/// 5.1.4). `None` if there cannot be one.
#[must_use]
pub const fn vcpu_of(affinity: u64) -> Option<u8> {
    // No vCPU has Aff3, which is not beside the others there.
    if affinity >> 24 != 0 {
        return None;
    }
    match vcpu_at(affinity as u32) {
        Some(vcpu) => Some(vcpu as u8),
        None => None,
    }
}

#[cfg(test)]
mod tests;
