//! The counters that Freehold keeps for each CPU. They are always on.

use num_enum::{IntoPrimitive, TryFromPrimitive};

/// A counter of one CPU: how often something happened there since boot. They wrap after 2^64.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, IntoPrimitive, TryFromPrimitive)]
#[repr(u64)]
pub enum Counter {
    /// Entries into EL2 from the host, for any reason.
    HostExits = 0,
    /// Hypercalls, known or not.
    Hypercalls = 1,
    /// Hypercalls that were refused.
    HypercallsRefused = 2,
    /// SMCs that the host issued.
    Smcs = 3,
    /// SMCs that the firmware never saw.
    SmcsRefused = 4,
    /// Stage-2 aborts of the host.
    HostAborts = 5,
    /// Stage-2 aborts that were answered by a mapping, or found to be allowed by now.
    HostAbortsRetried = 6,
    /// Stage-2 aborts that were given back to the host as an exception.
    HostAbortsInjected = 7,
    /// Accesses to device registers that EL2 carried out for the host.
    DeviceAccesses = 8,
    /// Host instructions that EL2 answered with an undefined-instruction exception.
    UndefinedInjected = 9,
    /// TLB invalidation instructions.
    TlbInvalidations = 10,
    /// Frames that were scrubbed.
    FramesScrubbed = 11,
    /// Table and node pages taken from the pool.
    PoolAllocations = 12,
    /// Blocks of a stage-2 table that were split.
    BlocksSplit = 13,
    /// Tables that were folded into a block.
    BlocksFolded = 14,
    /// Calls that stopped early because an interrupt waited.
    CallsInterrupted = 15,
    /// Entries into a guest.
    GuestEntries = 16,
    /// Exits of a guest that came back to the host.
    GuestExits = 17,
    /// Calls of guests, known or not.
    GuestCalls = 18,
    /// Calls of guests that were refused.
    GuestCallsRefused = 19,
    /// Stage-2 aborts of guests.
    GuestAborts = 20,
    /// Pages of the pool that answered with an external abort as they were taken. Nobody gets them any more.
    PoolPagesBroken = 21,
}

impl Counter {
    /// How many counters there are.
    pub const COUNT: usize = 22;

    /// All counters, in the order of their numbers.
    pub fn all() -> impl Iterator<Item = Self> {
        (0..Self::COUNT as u64).filter_map(|number| Self::try_from(number).ok())
    }
}
