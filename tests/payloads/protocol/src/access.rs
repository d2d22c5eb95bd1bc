//! Kinds of accesses, as the snippets of both payloads carry them out.

use num_enum::{IntoPrimitive, TryFromPrimitive};

/// Where an access is made from.
#[derive(Clone, Copy, Debug, PartialEq, Eq, IntoPrimitive, TryFromPrimitive)]
#[repr(u8)]
pub enum Level {
    /// As a kernel does.
    El1 = 0,
    /// As a user program does.
    El0 = 1,
}

impl Level {
    /// Both.
    pub const ALL: [Self; 2] = [Self::El1, Self::El0];
}

/// A kind of access, in the order of the snippets.
#[derive(Clone, Copy, Debug, PartialEq, Eq, IntoPrimitive, TryFromPrimitive)]
#[repr(u8)]
#[expect(missing_docs, reason = "each is the instruction of its name")]
pub enum Access {
    Load1,
    Load2,
    Load4,
    Load8,
    LoadPair,
    LoadWriteBack,
    LoadExclusive,
    LoadAcquire,
    LoadVector,
    Store1,
    Store2,
    Store4,
    Store8,
    StorePair,
    StoreWriteBack,
    StoreRelease,
    StoreVector,
    ZeroLine,
}

impl Access {
    /// All kinds.
    pub const ALL: [Self; 18] = [
        Self::Load1,
        Self::Load2,
        Self::Load4,
        Self::Load8,
        Self::LoadPair,
        Self::LoadWriteBack,
        Self::LoadExclusive,
        Self::LoadAcquire,
        Self::LoadVector,
        Self::Store1,
        Self::Store2,
        Self::Store4,
        Self::Store8,
        Self::StorePair,
        Self::StoreWriteBack,
        Self::StoreRelease,
        Self::StoreVector,
        Self::ZeroLine,
    ];

    /// Whether it writes.
    #[must_use]
    pub const fn is_write(self) -> bool {
        self as u8 >= Self::Store1 as u8
    }

    /// How many bytes it moves, and whether a trap of it says all that is needed to emulate it: one general register,
    /// no write-back, not exclusive (Arm ARM DDI 0487, D24.2.40, ISV).
    #[must_use]
    pub const fn emulated_bytes(self) -> Option<u64> {
        match self {
            Self::Load1 | Self::Store1 => Some(1),
            Self::Load2 | Self::Store2 => Some(2),
            Self::Load4 | Self::Store4 => Some(4),
            Self::Load8 | Self::Store8 | Self::LoadAcquire | Self::StoreRelease => Some(8),
            _ => None,
        }
    }
}
