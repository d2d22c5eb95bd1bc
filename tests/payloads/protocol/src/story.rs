//! The story of a protected guest, which the payload host plays and the runner tells.
//!
//! Both ends know the same [`Step`]s. The host plays them in their order and says of each, a line each:
//!
//! ```text
//! story begin <number>
//! story fact <number> <name> <value>
//! story out <number> <what it found>
//! story end <number> <0, or 1 if the step went wrong>
//! ```
//!
//! Facts are `frame`, `before`, `after` (an address, and the state of the frame there, as EL2 tells the host) and
//! `counted` (by how much EL2's counter of refused accesses grew). With the line [`LOOK`] it asks the runner to look into
//! the machine from outside, and waits. `story total <steps>` ends it: that many steps were played.

use crate::Start;
use num_enum::{IntoPrimitive, TryFromPrimitive};

/// The line by which the host asks to be looked at. It goes on when QEMU's power button is pressed.
pub const LOOK: &str = "story look";

/// The most vCPUs of the guest.
pub const VCPUS: u64 = 1;

/// Bits of the guest's IPAs.
pub const IPA_BITS: u64 = 32;

/// Frames of memory that the guest declares, from [`crate::layout::MEMORY`] on.
pub const MEMORY: u64 = (16 << 20) / hyp_abi::FRAME_SIZE;

/// What the guest finds in x0.
pub const START: Start = Start {
    index: 0,
    mmu_off: false,
    tag: 0x00f5_ee40_1d00,
};

/// What the guest makes its secret from.
pub const SEED: u64 = 0x7e11_0000_cafe_f00d;

/// A step of the story. The first word says who acts: the host, or the guest.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, IntoPrimitive, TryFromPrimitive)]
#[repr(u64)]
#[expect(missing_docs, reason = "the runner has a sentence for each")]
pub enum Step {
    HostCountsFrames,
    HostCreatesVm,
    HostGivesImage,
    HostLoads,
    HostStores,
    HostJumps,
    ProgramLoads,
    ProgramJumps,
    HostTriesEverything,
    HostSharesIt,
    HostGivesItToAnother,
    HostLaunches,
    HostReadsDigest,
    GuestReadsDigest,
    GuestMissesPage,
    HostGivesPage,
    GuestFindsZeroes,
    GuestHoldsSecret,
    HostSearches,
    GuestStillKnows,
    GuestWritesLetter,
    GuestLends,
    HostReadsLetter,
    HostAnswers,
    GuestReadsAnswer,
    HostPins,
    HostShowsPinned,
    GuestIsRefused,
    GuestIsGranted,
    HostLoadsAgain,
    GuestGivesUp,
    HostLoadsGivenUp,
    HostTakesBack,
    HostFindsZeroes,
    GuestLendsForGood,
    GuestSpins,
    HostKills,
    HostRunsDead,
    HostLoadsFromDead,
    HostReclaims,
    HostComparesPages,
    HostBuries,
    HostShowsOther,
    OtherLives,
    HostEndsOther,
    HostCountsAgain,
    HostAudits,
    HostShowsEnd,
}

impl Step {
    /// How many there are.
    pub const COUNT: u64 = Self::HostShowsEnd as u64 + 1;

    /// All of them, in their order.
    pub fn all() -> impl Iterator<Item = Self> {
        (0..Self::COUNT).filter_map(|number| Self::try_from(number).ok())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_steps_are_numbered_without_a_gap() {
        assert_eq!(Step::all().count() as u64, Step::COUNT);
        assert!(Step::try_from(Step::COUNT).is_err());
    }
}
