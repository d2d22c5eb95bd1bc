//! The search of all memory that the host can read for a guest's secret.
#![expect(unsafe_code, reason = "reads all of the host's memory")]

use crate::machine::machine;
use crate::probe::{self, Access, Level};
use core::arch::asm;
use hyp_abi::FRAME_SIZE;
use payload_protocol::Secret;

/// What a search gave.
#[derive(Debug, Default)]
pub(crate) struct Found {
    /// Frames that were searched.
    pub(crate) frames: u64,
    /// Frames that the host may not read.
    pub(crate) refused: u64,
    /// The address of the first word of the secret, and how many there are.
    pub(crate) first: Option<u64>,
    /// How many words there are.
    pub(crate) words: u64,
}

/// Searches all RAM. It must not change hands meanwhile.
pub(crate) fn all_memory(secret: Secret) -> Found {
    let mut found = Found::default();
    for range in &machine().memory {
        for frame in (range.start..range.end).step_by(FRAME_SIZE as usize) {
            if probe::access(Level::El1, Access::Load8, frame, 0).is_err() {
                found.refused += 1;
                continue;
            }
            found.frames += 1;
            let words = words_in(frame, secret);
            if words > 0 {
                found.first.get_or_insert(frame);
                found.words += words;
            }
        }
    }
    found
}

/// How many words of a frame are of the secret. The loop keeps what it reads and compares in registers, so that the
/// search leaves nothing to find.
fn words_in(frame: u64, secret: Secret) -> u64 {
    let count: u64;
    // SAFETY: the frame is RAM, mapped one to one, that the host may read; reading changes nothing.
    unsafe {
        asm!(
            "mov {count}, xzr",
            "2: ldp {a}, {b}, [{at}], #16",
            "lsr {a}, {a}, #{shift}",
            "lsr {b}, {b}, #{shift}",
            "cmp {a}, {tag}",
            "cinc {count}, {count}, eq",
            "cmp {b}, {tag}",
            "cinc {count}, {count}, eq",
            "cmp {at}, {end}",
            "b.lo 2b",
            at = inout(reg) frame => _,
            end = in(reg) frame + FRAME_SIZE,
            tag = in(reg) secret.tag(),
            count = out(reg) count,
            a = out(reg) _,
            b = out(reg) _,
            shift = const Secret::shift(),
            options(nostack, readonly),
        )
    };
    count
}
