//! The registers that name a stage-2 table: VTCR_EL2 and VTTBR_EL2, for the host's and for guests'.
//!
//! Source: Arm ARM DDI 0487, D24.2, VTCR_EL2 and VTTBR_EL2; D8.2 for what start levels go with what sizes.

use crate::hardware::TablePage;

/// Where VTTBR_EL2 holds the VMID: bits 55:48, since VTCR_EL2.VS says that it has 8 bits.
pub const VTTBR_VMID_SHIFT: u32 = 48;

/// VTCR_EL2 bit 31: RES1.
const VTCR_RES1: u64 = 1 << 31;
/// VTCR_EL2.SH0: walks are inner shareable.
const VTCR_SH0_INNER: u64 = 0b11 << 12;
/// VTCR_EL2.ORGN0: walks are write-back, write-allocate in the outer caches.
const VTCR_ORGN0_WRITE_BACK: u64 = 0b01 << 10;
/// VTCR_EL2.IRGN0: the same in the inner ones.
const VTCR_IRGN0_WRITE_BACK: u64 = 0b01 << 8;
/// The lowest bit of VTCR_EL2.PS.
const VTCR_PS_SHIFT: u32 = 16;
/// The lowest bit of VTCR_EL2.SL0.
const VTCR_SL0_SHIFT: u32 = 6;

/// VTCR_EL2 for a table that resolves `ipa_bits` bits (31 to 48) from `start_level` on (0 to 2), on CPUs whose physical
/// addresses have the size `pa_range`, as ID_AA64MMFR0_EL1.PARange encodes it, at most 5.
///
/// Zero are: TG0 (the 4 KiB granule); VS (VMIDs have 8 bits); HA and HD (EL2 sets access flags itself, and nothing but EL2
/// writes a stage-2 descriptor); HWU59 to HWU62 (no bit of a descriptor is the implementation's); NSA, NSW; DS and SL2
/// (no 52-bit addresses); everything of later features.
#[must_use]
pub const fn vtcr(ipa_bits: u32, start_level: u8, pa_range: u64) -> u64 {
    // With the 4 KiB granule SL0 counts up where levels count down: level 2 is 0, level 1 is 1, level 0 is 2.
    let sl0 = 2_u64.saturating_sub(start_level as u64);
    let t0sz = 64_u64.saturating_sub(ipa_bits as u64) & 0x3f;
    VTCR_RES1
        | (pa_range & 0b111) << VTCR_PS_SHIFT
        | VTCR_SH0_INNER
        | VTCR_ORGN0_WRITE_BACK
        | VTCR_IRGN0_WRITE_BACK
        | sl0 << VTCR_SL0_SHIFT
        | t0sz
}

/// VTTBR_EL2 for the table at `root` (whose tables lie side by side from there on), with this VMID; 0 is the host's. CnP
/// is clear, so that no CPU's TLB entries are another's.
#[must_use]
pub fn vttbr(root: TablePage, vmid: u8) -> u64 {
    root.frame().address().value() | u64::from(vmid) << VTTBR_VMID_SHIFT
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::addr::PhysAddr;
    use crate::machine::InputSize;

    #[test]
    fn a_guest_of_each_size() {
        // (bits, start level, PARange, expected): 40 bits from level 1, two tables side by side; 44 and 48 from level 0.
        for (bits, level, range, expected) in [
            (32, 1, 2, 0x8002_3560),
            (39, 1, 4, 0x8004_3559),
            (40, 1, 2, 0x8002_3558),
            (43, 1, 5, 0x8005_3555),
            (44, 0, 4, 0x8004_3594),
            (48, 0, 5, 0x8005_3590),
        ] {
            assert_eq!(vtcr(bits, level, range), expected, "{bits} bits");
        }
    }

    #[test]
    fn the_fields_are_those_of_the_input_size() {
        for bits in 31..=48 {
            let size = InputSize::covering(1 << bits, 48);
            let value = vtcr(size.bits(), size.start_level(), 5);
            assert_eq!(value & 0x3f, u64::from(size.t0sz()));
            assert_eq!(value >> 6 & 0b11, u64::from(size.sl0()));
        }
    }

    #[test]
    fn nothing_that_is_given_spills_into_other_fields() {
        for bits in [0, 31, 48, 64, 65, u32::MAX] {
            for level in [0, 1, 2, 3, u8::MAX] {
                for range in [0, 5, 7, 8, u64::MAX] {
                    // RES1, PS, SH0, ORGN0, IRGN0, SL0, T0SZ, and no bit more.
                    let value = vtcr(bits, level, range);
                    assert_eq!(value & !0x8007_35ff, 0);
                    assert_eq!(value & 0x8000_3500, 0x8000_3500);
                }
            }
        }
    }

    #[test]
    fn the_vmid_stands_above_the_root() {
        let root = TablePage::new(PhysAddr::new(0x8_4000_2000).unwrap().frame());
        assert_eq!(vttbr(root, 0), 0x8_4000_2000);
        assert_eq!(vttbr(root, 1), 0x0001_0008_4000_2000);
        assert_eq!(vttbr(root, 255), 0x00ff_0008_4000_2000);
    }
}
