//! Addresses: physical, intermediate physical, and frames.
//!
//! An address from a register is an allegation. It becomes one of these types only through a check, and the
//! arithmetic on them is checked: a sum that does not fit is `None`, never a small number.

use core::fmt;

/// Bits 11:0 of an address: the offset in a 4 KiB frame.
pub const FRAME_SHIFT: u32 = 12;

/// Bytes in a frame.
pub const FRAME_SIZE: u64 = 1 << FRAME_SHIFT;

/// The widest physical address that Freehold deals in: 48 bits (no FEAT_LPA2).
pub const MAX_ADDRESS_BITS: u32 = 48;

/// A physical address, in bytes, below 2^48.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default)]
pub struct PhysAddr(u64);

/// An intermediate physical address, in bytes, below 2^48: what stage 1 of the host or a guest produces. The
/// host's IPAs equal physical addresses.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default)]
pub struct Ipa(u64);

/// A 4 KiB frame of physical memory, by its number (PFN).
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default)]
pub struct Frame(u64);

macro_rules! byte_address {
    ($name:ident, $tag:literal) => {
        impl $name {
            /// The address `value`, or `None` if it has bits above 47.
            #[must_use]
            #[inline]
            pub const fn new(value: u64) -> Option<Self> {
                if value >> MAX_ADDRESS_BITS == 0 {
                    Some(Self(value))
                } else {
                    None
                }
            }

            /// The address as a number.
            #[must_use]
            #[inline]
            pub const fn value(self) -> u64 {
                self.0
            }

            /// The address `bytes` further on, or `None` past 48 bits.
            #[must_use]
            #[inline]
            pub const fn checked_add(self, bytes: u64) -> Option<Self> {
                match self.0.checked_add(bytes) {
                    Some(sum) => Self::new(sum),
                    None => None,
                }
            }

            /// Whether the address is a multiple of `2^shift`.
            #[must_use]
            #[inline]
            pub const fn is_aligned(self, shift: u32) -> bool {
                self.0 & ((1 << shift) - 1) == 0
            }

            /// The address rounded down to a multiple of `2^shift`.
            #[must_use]
            #[inline]
            pub const fn align_down(self, shift: u32) -> Self {
                Self(self.0 & !((1 << shift) - 1))
            }
        }

        impl fmt::Debug for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                write!(f, concat!($tag, "{:#x}"), self.0)
            }
        }

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                write!(f, "{:#x}", self.0)
            }
        }
    };
}

byte_address!(PhysAddr, "pa:");
byte_address!(Ipa, "ipa:");

impl PhysAddr {
    /// The frame that the address lies in.
    #[must_use]
    #[inline]
    pub const fn frame(self) -> Frame {
        Frame(self.0 >> FRAME_SHIFT)
    }

    /// The IPA of this address in the host's table, which maps every address to itself.
    #[must_use]
    #[inline]
    pub const fn host_ipa(self) -> Ipa {
        Ipa(self.0)
    }
}

impl Ipa {
    /// The physical address behind this IPA of the host, whose table maps every address to itself.
    #[must_use]
    #[inline]
    pub const fn host_address(self) -> PhysAddr {
        PhysAddr(self.0)
    }
}

impl Frame {
    /// The frame with number `pfn`, or `None` if its address has bits above 47.
    #[must_use]
    #[inline]
    pub const fn new(pfn: u64) -> Option<Self> {
        if pfn >> (MAX_ADDRESS_BITS - FRAME_SHIFT) == 0 {
            Some(Self(pfn))
        } else {
            None
        }
    }

    /// The frame's number.
    #[must_use]
    #[inline]
    pub const fn number(self) -> u64 {
        self.0
    }

    /// The address of its first byte.
    #[must_use]
    #[inline]
    pub const fn address(self) -> PhysAddr {
        PhysAddr(self.0 << FRAME_SHIFT)
    }

    /// The frame `count` further on, or `None` past 48 bits.
    #[must_use]
    #[inline]
    pub const fn checked_add(self, count: u64) -> Option<Self> {
        match self.0.checked_add(count) {
            Some(sum) => Self::new(sum),
            None => None,
        }
    }
}

impl fmt::Debug for Frame {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "pfn:{:#x}", self.0)
    }
}

/// A run of frames that fits the 48-bit address space and is not empty.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct FrameSpan {
    start: Frame,
    frames: u64,
}

impl FrameSpan {
    /// `frames` frames from `start`, or `None` if there are none or they run past 48 bits.
    #[must_use]
    #[inline]
    pub const fn new(start: Frame, frames: u64) -> Option<Self> {
        if frames == 0 || start.checked_add(frames - 1).is_none() {
            return None;
        }
        Some(Self { start, frames })
    }

    /// The single frame `start`.
    #[must_use]
    #[inline]
    pub const fn single(start: Frame) -> Self {
        Self { start, frames: 1 }
    }

    /// The first frame.
    #[must_use]
    #[inline]
    pub const fn start(self) -> Frame {
        self.start
    }

    /// How many frames; at least 1.
    #[must_use]
    #[inline]
    pub const fn frames(self) -> u64 {
        self.frames
    }

    /// The number of the frame after the last one.
    #[must_use]
    #[inline]
    pub const fn end_number(self) -> u64 {
        self.start.0 + self.frames
    }

    /// How many bytes.
    #[must_use]
    #[inline]
    pub const fn bytes(self) -> u64 {
        self.frames << FRAME_SHIFT
    }

    /// Whether `frame` is one of the run.
    #[must_use]
    #[inline]
    pub const fn contains(self, frame: Frame) -> bool {
        frame.0 >= self.start.0 && frame.0 < self.end_number()
    }

    /// The first `frames` frames of the run (all of it if it is shorter; at least one) and what is left.
    #[must_use]
    #[inline]
    pub const fn split_at(self, frames: u64) -> (Self, Option<Self>) {
        if frames >= self.frames {
            return (self, None);
        }
        let first = if frames == 0 { 1 } else { frames };
        if first == self.frames {
            return (self, None);
        }
        let head = Self {
            start: self.start,
            frames: first,
        };
        (
            head,
            Some(Self {
                start: Frame(self.start.0 + first),
                frames: self.frames - first,
            }),
        )
    }

    /// All frames of the run, in order.
    pub fn iter(self) -> impl Iterator<Item = Frame> {
        (self.start.0..self.end_number()).map(Frame)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn addresses_end_at_48_bits() {
        let last = (1_u64 << 48) - 1;
        assert!(PhysAddr::new(last).is_some());
        assert!(PhysAddr::new(last + 1).is_none());
        assert!(PhysAddr::new(last).is_some_and(|address| address.checked_add(1).is_none()));
        assert!(PhysAddr::new(1).is_some_and(|address| address.checked_add(u64::MAX).is_none()));
    }

    #[test]
    fn a_span_is_never_empty_and_never_wraps() {
        let last = Frame::new((1 << 36) - 1).unwrap();
        assert!(FrameSpan::new(last, 0).is_none());
        assert!(FrameSpan::new(last, 1).is_some());
        assert!(FrameSpan::new(last, 2).is_none());
        assert!(FrameSpan::new(last, u64::MAX).is_none());
    }

    #[test]
    fn splitting_a_span_keeps_every_frame() {
        let span = FrameSpan::new(Frame::new(10).unwrap(), 5).unwrap();
        for at in 0..8 {
            let (head, tail) = span.split_at(at);
            assert_eq!(head.frames() + tail.map_or(0, FrameSpan::frames), 5);
            assert_eq!(head.start(), span.start());
            if let Some(tail) = tail {
                assert_eq!(tail.start().number(), head.end_number());
            }
        }
    }
}
