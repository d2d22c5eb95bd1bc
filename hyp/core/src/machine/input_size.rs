//! How wide the host's stage 2 must be, and what its root then looks like.
//!
//! For the 4 KiB granule (Arm ARM DDI 0487, D8.2): a walk may start at a level whose single table would be too
//! small, with up to 16 tables side by side ("concatenated"), which saves a level of lookup on every miss. The
//! concatenated tables are one object that must be aligned to its whole size.

use super::refusal::RefusalReason;
use crate::addr::{FRAME_SIZE, MAX_ADDRESS_BITS};

/// Input bits that one level-1 table covers: 512 entries of 1 GiB.
const LEVEL_1_BITS: u32 = 39;

/// Input bits that 16 concatenated level-1 tables cover.
const MAX_LEVEL_1_BITS: u32 = LEVEL_1_BITS + 4;

/// The fewest input bits for a start at level 1: two entries of the table are in use. A start at level 2 would
/// do for so little, but costs the 1 GiB blocks, and buys nothing.
const MIN_BITS: u32 = 31;

/// The input size of a stage-2 table with the 4 KiB granule, and the root that goes with it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct InputSize {
    bits: u32,
}

impl InputSize {
    /// The smallest input size that holds every address below `end`, on a CPU with `pa_bits` physical address
    /// bits (32 to 48). What lies beyond `pa_bits` no CPU can name, so it does not widen the table.
    #[must_use]
    pub fn covering(end: u64, pa_bits: u32) -> Self {
        let needed = u64::BITS - end.saturating_sub(1).leading_zeros();
        let widest = pa_bits.clamp(MIN_BITS, MAX_ADDRESS_BITS);
        Self {
            bits: needed.clamp(MIN_BITS, widest),
        }
    }

    /// [`InputSize::covering`] for a table that must reach all RAM: below `ram_end`, while `end` may be higher.
    ///
    /// # Errors
    /// [`RefusalReason::MemoryBeyondPaRange`] if the CPU cannot address all of the RAM.
    pub fn covering_memory(ram_end: u64, end: u64, pa_bits: u32) -> Result<Self, RefusalReason> {
        let size = Self::covering(ram_end.max(end), pa_bits);
        if ram_end > size.end() {
            return Err(RefusalReason::MemoryBeyondPaRange {
                end: ram_end,
                bits: pa_bits,
            });
        }
        Ok(size)
    }

    /// Input address bits: 31 to 48.
    #[must_use]
    pub const fn bits(self) -> u32 {
        self.bits
    }

    /// The address after the last one that is translated.
    #[must_use]
    pub const fn end(self) -> u64 {
        1 << self.bits
    }

    /// The value of VTCR_EL2.T0SZ.
    #[must_use]
    pub const fn t0sz(self) -> u32 {
        64 - self.bits
    }

    /// The level at which a walk starts: 1 while at most 16 concatenated tables do, else 0.
    #[must_use]
    pub const fn start_level(self) -> u8 {
        if self.bits <= MAX_LEVEL_1_BITS { 1 } else { 0 }
    }

    /// The value of VTCR_EL2.SL0: for the 4 KiB granule 1 means level 1, 2 means level 0.
    #[must_use]
    pub const fn sl0(self) -> u32 {
        match self.start_level() {
            0 => 2,
            _ => 1,
        }
    }

    /// How many tables the root is made of: 1 to 16, a power of two.
    #[must_use]
    pub const fn root_tables(self) -> u64 {
        if self.start_level() == 1 && self.bits > LEVEL_1_BITS {
            1 << (self.bits - LEVEL_1_BITS)
        } else {
            1
        }
    }

    /// Bytes of the root, and the alignment that it needs.
    #[must_use]
    pub const fn root_bytes(self) -> u64 {
        self.root_tables() * FRAME_SIZE
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn size(bits: u32) -> InputSize {
        InputSize::covering(1 << bits, 48)
    }

    #[test]
    fn the_smallest_size_that_covers() {
        assert_eq!(InputSize::covering(0x8000_0000, 48).bits(), 31);
        assert_eq!(InputSize::covering(0x8000_0001, 48).bits(), 32);
        assert_eq!(InputSize::covering(0x100_0000_0000, 40).bits(), 40);
        assert_eq!(InputSize::covering(0x100_0000_0001, 48).bits(), 41);
        assert_eq!(InputSize::covering(0, 48).bits(), 31);
        assert_eq!(InputSize::covering(u64::MAX, 48).bits(), 48);
    }

    #[test]
    fn level_concatenation_and_registers() {
        let expected = [
            (31, 33, 1, 1),
            (32, 32, 1, 1),
            (39, 25, 1, 1),
            (40, 24, 1, 2),
            (41, 23, 1, 4),
            (42, 22, 1, 8),
            (43, 21, 1, 16),
            (44, 20, 0, 1),
            (48, 16, 0, 1),
        ];
        for (bits, t0sz, level, tables) in expected {
            let size = size(bits);
            assert_eq!(
                (size.bits(), size.t0sz(), size.start_level()),
                (bits, t0sz, level)
            );
            assert_eq!(
                (size.root_tables(), size.root_bytes()),
                (tables, tables * 4096),
                "{bits} bits"
            );
            assert_eq!(size.sl0(), if level == 1 { 1 } else { 2 });
        }
    }

    /// The rule of the Arm ARM's walk (`AArch64.S2InvalidSL`): the root must resolve 1 to 13 bits.
    #[test]
    fn every_choice_is_legal() {
        for pa_bits in [32, 36, 40, 42, 44, 48] {
            for bits in 0..64 {
                let size = InputSize::covering(1 << bits, pa_bits);
                let below = 12 + 9 * (3 - u32::from(size.start_level()));
                assert!((below + 1..=below + 13).contains(&size.bits()));
                assert!(size.bits() <= pa_bits);
                let resolved = size.bits() - below;
                assert_eq!(size.root_tables(), 1 << resolved.saturating_sub(9));
                assert!(
                    size.start_level() == 1 || pa_bits >= 44,
                    "level 0 is reserved on small CPUs"
                );
            }
        }
    }

    #[test]
    fn devices_beyond_the_cpu_are_left_out_and_ram_is_refused() {
        assert_eq!(
            InputSize::covering_memory(0x1_0000_0000, 1 << 40, 36)
                .unwrap()
                .bits(),
            36
        );
        assert_eq!(
            InputSize::covering_memory((1 << 36) + 1, 0, 36),
            Err(RefusalReason::MemoryBeyondPaRange {
                end: (1 << 36) + 1,
                bits: 36
            })
        );
    }
}
