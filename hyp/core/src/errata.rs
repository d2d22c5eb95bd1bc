//! What is known to be wrong with which CPU, by its MIDR.
//!
//! Facts only; who acts on them is the machine's one door for each: TLB invalidation, VTTBR, the vectors. Each
//! fact is decided per CPU, except that a broadcast TLB invalidation must be repeated if *any* CPU needs it, for
//! the fault is in the CPU that receives it.
//!
//! - [`Midr`]: which core, which revision.
//! - [`Errata`]: the faults that Freehold works around.
//! - [`vector`]: what the vectors must do against branch predictors that were trained below EL2.
//!
//! Sources: Arm's Software Developer Errata Notices, by erratum number; CVE-2025-10263 for the notices of 2026.

pub mod vector;

/// MIDR_EL1: which core this is.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub struct Midr(u32);

/// A core: implementer and part number of MIDR_EL1.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub struct Core {
    /// Bits 31:24.
    pub implementer: u8,
    /// Bits 15:4.
    pub part: u16,
}

/// A revision, rNpM: variant and revision of MIDR_EL1.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub struct Revision {
    /// Bits 23:20.
    pub variant: u8,
    /// Bits 3:0.
    pub revision: u8,
}

impl Midr {
    /// From MIDR_EL1, of which bits 31:0 count.
    #[must_use]
    pub const fn new(value: u64) -> Self {
        Self(value as u32)
    }

    /// Which core.
    #[must_use]
    pub const fn core(self) -> Core {
        Core {
            implementer: (self.0 >> 24) as u8,
            part: (self.0 >> 4) as u16 & 0xfff,
        }
    }

    /// Which revision.
    #[must_use]
    pub const fn revision(self) -> Revision {
        Revision {
            variant: (self.0 >> 20) as u8 & 0xf,
            revision: self.0 as u8 & 0xf,
        }
    }

    /// Whether this is one of `cores`, of any revision.
    #[must_use]
    pub fn is_one_of(self, cores: &[Core]) -> bool {
        cores.contains(&self.core())
    }

    /// Whether this is one of `ranges`.
    #[must_use]
    pub fn is_within(self, ranges: &[Range]) -> bool {
        let (core, revision) = (self.core(), self.revision());
        ranges
            .iter()
            .any(|range| range.core == core && range.first <= revision && revision <= range.last)
    }
}

/// Revisions of a core, both ends included.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Range {
    core: Core,
    first: Revision,
    last: Revision,
}

/// r*a*p*b* to r*c*p*d* of a core.
const fn range(core: Core, first: (u8, u8), last: (u8, u8)) -> Range {
    Range {
        core,
        first: Revision {
            variant: first.0,
            revision: first.1,
        },
        last: Revision {
            variant: last.0,
            revision: last.1,
        },
    }
}

/// All revisions of a core.
const fn all(core: Core) -> Range {
    range(core, (0, 0), (0xf, 0xf))
}

/// Names cores: implementer, then each name with its part number.
macro_rules! cores {
    ($($implementer:literal: $($name:ident = $part:literal),+;)*) => {
        impl Core {
            $($(
                #[doc = concat!("Part ", stringify!($part), " of implementer ", stringify!($implementer), ".")]
                pub const $name: Self = Self { implementer: $implementer, part: $part };
            )+)*
        }
    };
}

cores! {
    // Arm.
    0x41: CORTEX_A53 = 0xd03, CORTEX_A35 = 0xd04, CORTEX_A55 = 0xd05, CORTEX_A57 = 0xd07, CORTEX_A72 = 0xd08,
        CORTEX_A73 = 0xd09, CORTEX_A75 = 0xd0a, CORTEX_A76 = 0xd0b, NEOVERSE_N1 = 0xd0c, CORTEX_A77 = 0xd0d,
        CORTEX_A76AE = 0xd0e, NEOVERSE_V1 = 0xd40, CORTEX_A78 = 0xd41, CORTEX_A78AE = 0xd42, CORTEX_X1 = 0xd44,
        CORTEX_A510 = 0xd46, CORTEX_A710 = 0xd47, CORTEX_X2 = 0xd48, NEOVERSE_N2 = 0xd49, CORTEX_A78C = 0xd4b,
        CORTEX_X1C = 0xd4c, CORTEX_A715 = 0xd4d, CORTEX_X3 = 0xd4e, NEOVERSE_V2 = 0xd4f, CORTEX_A720 = 0xd81,
        CORTEX_X4 = 0xd82, NEOVERSE_V3AE = 0xd83, NEOVERSE_V3 = 0xd84, CORTEX_X925 = 0xd85, C1_ULTRA = 0xd8c,
        C1_PREMIUM = 0xd90;
    // Broadcom.
    0x42: BRAHMA_B53 = 0x100;
    // HiSilicon.
    0x48: TSV110 = 0xd01, HIP09 = 0xd02;
    // NVIDIA.
    0x4e: OLYMPUS = 0x010;
    // Qualcomm.
    0x51: FALKOR_V1 = 0x800, KRYO_3XX_SILVER = 0x803, KRYO_4XX_GOLD = 0x804, KRYO_4XX_SILVER = 0x805;
    // Microsoft.
    0x6d: COBALT_100 = 0xd49;
    // Ampere.
    0xc0: AMPERE1 = 0xac3;
}

/// A broadcast TLBI; DSB may be over before every access through the entry is; a second TLBI; DSB waits for them.
const REPEAT_TLBI: &[Range] = &[
    // 1286807, and 4193800 for every revision.
    all(Core::CORTEX_A76),
    // 2441007.
    all(Core::CORTEX_A55),
    // 2441009.
    range(Core::CORTEX_A510, (0, 0), (1, 1)),
    // 4193801, 4193798, 4193791, 4193793, 4193794.
    all(Core::CORTEX_A76AE),
    all(Core::CORTEX_A77),
    all(Core::CORTEX_A78),
    all(Core::CORTEX_A78AE),
    all(Core::CORTEX_A78C),
    // 4193788.
    all(Core::CORTEX_A710),
    all(Core::CORTEX_X2),
    // 4193791, 4193792, 4193786, 4118414, 4193781.
    all(Core::CORTEX_X1),
    all(Core::CORTEX_X1C),
    all(Core::CORTEX_X3),
    all(Core::CORTEX_X4),
    all(Core::CORTEX_X925),
    // 4193780.
    all(Core::C1_ULTRA),
    all(Core::C1_PREMIUM),
    // 4193800, 4193789, 4193790, 4193787, 4193784.
    all(Core::NEOVERSE_N1),
    all(Core::NEOVERSE_N2),
    all(Core::NEOVERSE_V1),
    all(Core::NEOVERSE_V2),
    all(Core::NEOVERSE_V3),
    all(Core::NEOVERSE_V3AE),
    // Cores of others that share the fault: 4193789, T410-OLY-1029, Falkor 1009, and 1286807 by another name.
    all(Core::COBALT_100),
    all(Core::OLYMPUS),
    range(Core::FALKOR_V1, (0, 0), (0, 0)),
    range(Core::KRYO_4XX_GOLD, (0xc, 0xe), (0xf, 0xe)),
];

/// An address translation that the CPU speculates, while it is between two sets of tables, may be kept in the TLB.
const SPECULATIVE_AT: &[Range] = &[
    // 1319537.
    all(Core::CORTEX_A57),
    // 1319367.
    all(Core::CORTEX_A72),
    // 1165522.
    range(Core::CORTEX_A76, (0, 0), (2, 0)),
    // 1530923.
    range(Core::CORTEX_A55, (0, 0), (2, 0)),
    // The same by another name.
    range(Core::KRYO_4XX_SILVER, (0xd, 0xe), (0xd, 0xe)),
];

/// 834220: a fault of stage 1 may be reported as one of stage 2.
const WRONG_STAGE: &[Range] = &[range(Core::CORTEX_A57, (0, 0), (1, 2))];

/// 1508412: a read of PAR_EL1 beside a store-exclusive and a load from a device may stop the CPU for good.
const PAR_READ: &[Range] = &[range(Core::CORTEX_A77, (0, 0), (1, 0))];

/// The faults of a CPU that Freehold works around.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Default)]
pub struct Errata {
    /// Every TLBI; DSB that is broadcast must be done twice, if any CPU of the machine has this.
    pub repeat_tlbi: bool,
    /// Stage 1 must be unreachable (`TCR_EL1.EPD0`, `EPD1`, with an ISB) while VTTBR_EL2 and EL1's own registers
    /// do not belong to the same context.
    pub speculative_at: bool,
    /// A stage-2 abort may not be one, and HPFAR_EL2 cannot be trusted: see
    /// [`crate::trap::Abort::address_without_hpfar`].
    pub wrong_stage: bool,
    /// A read of PAR_EL1 needs a DMB SY before and after it.
    pub par_read: bool,
}

impl Errata {
    /// The faults of the core that MIDR_EL1 names.
    #[must_use]
    pub fn of(midr: Midr) -> Self {
        Self {
            repeat_tlbi: midr.is_within(REPEAT_TLBI),
            speculative_at: midr.is_within(SPECULATIVE_AT),
            wrong_stage: midr.is_within(WRONG_STAGE),
            par_read: midr.is_within(PAR_READ),
        }
    }

    /// The faults of either.
    #[must_use]
    pub const fn or(self, other: Self) -> Self {
        Self {
            repeat_tlbi: self.repeat_tlbi | other.repeat_tlbi,
            speculative_at: self.speculative_at | other.speculative_at,
            wrong_stage: self.wrong_stage | other.wrong_stage,
            par_read: self.par_read | other.par_read,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The MIDR of a revision of a core.
    pub(super) fn midr(core: Core, variant: u32, revision: u32) -> Midr {
        Midr::new(u64::from(
            u32::from(core.implementer) << 24
                | variant << 20
                | 0xf << 16
                | u32::from(core.part) << 4
                | revision,
        ))
    }

    #[test]
    fn a_midr_is_taken_apart() {
        // Neoverse N1 r4p1 as QEMU has it.
        let n1 = Midr::new(0x414f_d0c1);
        assert_eq!(n1.core(), Core::NEOVERSE_N1);
        assert_eq!(
            n1.revision(),
            Revision {
                variant: 4,
                revision: 1
            }
        );
        assert_eq!(n1, midr(Core::NEOVERSE_N1, 4, 1));
    }

    #[test]
    fn the_cores_of_the_test_machines() {
        let of = |value| Errata::of(Midr::new(value));
        let none = Errata::default();
        // Cortex-A53 r0p4, and QEMU's `max`.
        assert_eq!(of(0x410f_d034), none);
        assert_eq!(of(0x000f_0510), none);
        // Cortex-A72 r0p3.
        let a72 = of(0x410f_d083);
        assert!(a72.speculative_at && !a72.repeat_tlbi && !a72.wrong_stage);
        // Cortex-A76 r4p1 and Neoverse N1 r4p1.
        for midr in [0x414f_d0b1, 0x414f_d0c1] {
            assert!(of(midr).repeat_tlbi && !of(midr).speculative_at);
        }
    }

    #[test]
    fn ranges_end_where_the_notices_say() {
        let of = |core, variant, revision| Errata::of(midr(core, variant, revision));
        assert!(of(Core::CORTEX_A76, 2, 0).speculative_at);
        assert!(!of(Core::CORTEX_A76, 2, 1).speculative_at);
        assert!(!of(Core::CORTEX_A76, 3, 0).speculative_at);
        assert!(of(Core::CORTEX_A55, 1, 0xf).speculative_at);
        assert!(!of(Core::CORTEX_A55, 2, 1).speculative_at);
        assert!(of(Core::CORTEX_A510, 1, 1).repeat_tlbi);
        assert!(!of(Core::CORTEX_A510, 1, 2).repeat_tlbi);
        assert!(of(Core::CORTEX_A57, 1, 2).wrong_stage);
        assert!(!of(Core::CORTEX_A57, 1, 3).wrong_stage);
        assert!(of(Core::CORTEX_A77, 1, 0).par_read);
        assert!(!of(Core::CORTEX_A77, 1, 1).par_read);
    }

    #[test]
    fn a_part_number_of_another_implementer_is_another_core() {
        let other = Core {
            implementer: 0x42,
            ..Core::CORTEX_A76
        };
        assert_eq!(Errata::of(midr(other, 0, 0)), Errata::default());
    }

    #[test]
    fn the_machine_has_the_faults_of_all_its_cpus() {
        let little = Errata::of(midr(Core::CORTEX_A55, 2, 0));
        let big = Errata::of(midr(Core::CORTEX_A57, 1, 0));
        let both = little.or(big);
        assert!(both.repeat_tlbi && both.speculative_at && both.wrong_stage);
    }
}
