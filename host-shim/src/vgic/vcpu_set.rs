//! Sets of vCPUs.

use core::fmt;
use core::ops::{BitOr, BitOrAssign};
use hyp_abi::vm::MAX_VCPUS;

/// A set of vCPUs, by their index.
#[derive(Clone, Copy, Default, PartialEq, Eq, Hash)]
pub struct VcpuSet(u64);

impl VcpuSet {
    /// No vCPU.
    pub const EMPTY: Self = Self(0);

    /// One vCPU; no vCPU, if there is none of that index.
    #[must_use]
    pub const fn one(vcpu: usize) -> Self {
        if vcpu < MAX_VCPUS {
            Self(1 << vcpu)
        } else {
            Self::EMPTY
        }
    }

    /// Those with an index below `count`.
    #[must_use]
    pub fn first(count: usize) -> Self {
        (0..count).collect()
    }

    /// A bit for each index.
    #[must_use]
    pub const fn bits(self) -> u64 {
        self.0
    }

    /// Those whose bit is set.
    #[must_use]
    pub const fn from_bits(bits: u64) -> Self {
        Self(bits)
    }

    /// Whether there is none in it.
    #[must_use]
    pub const fn is_empty(self) -> bool {
        self.0 == 0
    }

    /// Whether a vCPU is in it.
    #[must_use]
    pub const fn contains(self, vcpu: usize) -> bool {
        vcpu < MAX_VCPUS && self.0 >> vcpu & 1 != 0
    }

    /// The set without one vCPU.
    #[must_use]
    pub const fn without(self, vcpu: usize) -> Self {
        Self(self.0 & !Self::one(vcpu).0)
    }

    /// How many indices there must be for the highest to be one.
    #[must_use]
    pub const fn span(self) -> usize {
        (u64::BITS - self.0.leading_zeros()) as usize
    }

    /// Their indices, ascending.
    pub fn iter(self) -> impl Iterator<Item = usize> {
        ones(self.0)
    }
}

impl BitOr for VcpuSet {
    type Output = Self;

    fn bitor(self, other: Self) -> Self {
        Self(self.0 | other.0)
    }
}

impl BitOrAssign for VcpuSet {
    fn bitor_assign(&mut self, other: Self) {
        self.0 |= other.0;
    }
}

impl FromIterator<usize> for VcpuSet {
    fn from_iter<T: IntoIterator<Item = usize>>(vcpus: T) -> Self {
        vcpus
            .into_iter()
            .fold(Self::EMPTY, |set, vcpu| set | Self::one(vcpu))
    }
}

impl fmt::Debug for VcpuSet {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_set().entries(self.iter()).finish()
    }
}

/// The numbers of the bits that are set, ascending.
pub(super) fn ones(bits: impl Into<u64>) -> impl Iterator<Item = usize> {
    let mut bits: u64 = bits.into();
    core::iter::from_fn(move || {
        let number = bits.trailing_zeros();
        bits &= bits.wrapping_sub(1);
        (number < u64::BITS).then_some(number as usize)
    })
}
