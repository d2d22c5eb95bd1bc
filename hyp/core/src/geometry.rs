//! Table geometry: how many address bits a table level resolves.
//!
//! The machine uses [`Arm4K`]. An exhaustive search uses tables of four entries, so that every reachable state
//! of a whole region fits a search, and a split or a fold is only four frames away.

use crate::addr::FRAME_SHIFT;
use core::fmt::Debug;

/// How many address bits each level of a table resolves. The frame is 4 KiB in every geometry.
pub trait Geometry: Copy + Debug + Send + Sync + 'static {
    /// Address bits that one level resolves: 9 for the 4 KiB granule (Arm ARM DDI 0487, D8.2.1).
    const BITS_PER_LEVEL: u32;

    /// Entries in a table.
    const ENTRIES: usize = 1 << Self::BITS_PER_LEVEL;

    /// Bits of a byte address inside a region, which is what one level-2 descriptor maps.
    const REGION_SHIFT: u32 = FRAME_SHIFT + Self::BITS_PER_LEVEL;

    /// Frames in a region.
    const REGION_FRAMES: u64 = 1 << Self::BITS_PER_LEVEL;

    /// Frames that are scrubbed or cleaned between two looks at waiting interrupts: 64 KiB, and less than a region, so
    /// that the work on one can be parked in every geometry.
    const STEP_FRAMES: u64 = if Self::REGION_FRAMES > 16 {
        16
    } else {
        Self::REGION_FRAMES / 2
    };

    /// Bits of a byte address that the descriptors of `level` (0 to 3) leave to lower levels.
    #[must_use]
    fn level_shift(level: u8) -> u32 {
        FRAME_SHIFT + (3 - u32::from(level.min(3))) * Self::BITS_PER_LEVEL
    }

    /// Frames that one descriptor of `level` maps.
    #[must_use]
    fn level_frames(level: u8) -> u64 {
        1 << (Self::level_shift(level) - FRAME_SHIFT)
    }
}

/// The 4 KiB granule: 512 entries in a table, regions of 2 MiB.
#[derive(Clone, Copy, Debug)]
pub struct Arm4K;

impl Geometry for Arm4K {
    const BITS_PER_LEVEL: u32 = 9;
}

/// Tables of four entries and regions of 16 KiB, for searches that visit every state.
#[cfg(any(test, feature = "doubles"))]
#[derive(Clone, Copy, Debug)]
pub struct Tiny;

#[cfg(any(test, feature = "doubles"))]
impl Geometry for Tiny {
    const BITS_PER_LEVEL: u32 = 2;
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn levels_of_the_arm_granule() {
        assert_eq!(Arm4K::ENTRIES, 512);
        assert_eq!([0, 1, 2, 3].map(Arm4K::level_shift), [39, 30, 21, 12]);
        assert_eq!(Arm4K::level_frames(2), Arm4K::REGION_FRAMES);
        assert_eq!(Tiny::level_frames(2), 4);
        assert_eq!((Arm4K::STEP_FRAMES, Tiny::STEP_FRAMES), (16, 2));
    }
}
