//! What a guest computes and a host must not find.
//!
//! Every word of a secret carries the same 48 bits, so that one comparison tells it from all else in memory, wherever it
//! comes to lie. Whoever looks for it keeps the bits where they belong to no word: the search would find its own copy.

/// A secret.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Secret {
    /// The bits, right-aligned.
    tag: u64,
}

impl Secret {
    /// Bits of a word that number it.
    const NUMBER_BITS: u32 = 16;

    /// The secret that comes from `seed`.
    #[must_use]
    pub const fn new(seed: u64) -> Self {
        // The finalizer of MurmurHash3, so that no seed looks like its secret.
        let mut tag = seed ^ 0x9e37_79b9_7f4a_7c15;
        tag = (tag ^ tag >> 33).wrapping_mul(0xff51_afd7_ed55_8ccd);
        tag = (tag ^ tag >> 33).wrapping_mul(0xc4ce_b9fe_1a85_ec53);
        // The lowest bit set: a secret is never zero.
        let tag = (tag ^ tag >> 33) >> Self::NUMBER_BITS | 1;
        Self { tag }
    }

    /// Word number `number` of it.
    #[must_use]
    #[inline]
    pub const fn word(self, number: u16) -> u64 {
        self.tag << Self::NUMBER_BITS | number as u64
    }

    /// Whether `word` is one of its words.
    #[must_use]
    #[inline]
    pub const fn is_in(self, word: u64) -> bool {
        word >> Self::NUMBER_BITS == self.tag
    }

    /// What a word is right-shifted by before it is compared with [`Secret::tag`].
    #[must_use]
    pub const fn shift() -> u32 {
        Self::NUMBER_BITS
    }

    /// The bits that every word carries, right-aligned.
    #[must_use]
    pub const fn tag(self) -> u64 {
        self.tag
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_secret_knows_its_words_and_no_others() {
        let secret = Secret::new(1);
        for number in [0, 1, u16::MAX] {
            assert!(secret.is_in(secret.word(number)));
        }
        for word in [0, u64::MAX, secret.tag(), Secret::new(2).word(0)] {
            assert!(!secret.is_in(word), "{word:#x}");
        }
    }
}
