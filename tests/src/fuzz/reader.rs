//! Numbers out of the bytes of an input.
//!
//! A register is one byte most of the time, so that an input which makes sense is short, and a change of one byte makes
//! another that does:
//!
//! | byte | the register |
//! |---|---|
//! | 00 to 3f | that number |
//! | 40 to 7f | the address of a frame: the first is eight before [`FIRST_FRAME`] |
//! | 80 to bf | 2 to the power of the low six bits |
//! | c0 to ef | that power less one, of every second one |
//! | f0 to fd | what the last call answered in x1, and what is near to it |
//! | fe | the address of a frame, as above, by the next byte, and one byte more |
//! | ff | the next eight bytes |

use hyp_abi::FRAME_SIZE;

/// The first frame of RAM of the machines that inputs are tried on.
pub(super) const FIRST_FRAME: u64 = 16;

/// An input that is read from the front. Past its end everything is zero.
#[derive(Debug)]
pub(super) struct Reader<'a> {
    left: &'a [u8],
    /// What the last call answered.
    pub(super) answered: u64,
}

impl<'a> Reader<'a> {
    pub(super) const fn new(data: &'a [u8]) -> Self {
        Self {
            left: data,
            answered: 0,
        }
    }

    /// Whether nothing is left.
    pub(super) const fn is_empty(&self) -> bool {
        self.left.is_empty()
    }

    pub(super) const fn byte(&mut self) -> u8 {
        match self.left {
            [first, rest @ ..] => {
                self.left = rest;
                *first
            }
            [] => 0,
        }
    }

    /// Eight bytes, the low one first.
    pub(super) fn word(&mut self) -> u64 {
        u64::from_le_bytes(std::array::from_fn(|_| self.byte()))
    }

    /// A register, in the short way of the table above.
    pub(super) fn register(&mut self) -> u64 {
        let byte = self.byte();
        let low = u64::from(byte & 0x3f);
        match byte {
            0x00..=0x3f => low,
            0x40..=0x7f => frame(low),
            0x80..=0xbf => 1 << low,
            0xc0..=0xef => (1 << (2 * (low & 0x1f))) - 1,
            0xf0..=0xfd => (self.answered ^ (low & 1)).wrapping_add(frame(8) * ((low >> 1) & 3)),
            0xfe => frame(u64::from(self.byte())) + 1,
            0xff => self.word(),
        }
    }
}

/// The address of the frame with this number, counted from eight before RAM.
const fn frame(number: u64) -> u64 {
    (FIRST_FRAME - 8 + number) * FRAME_SIZE
}
