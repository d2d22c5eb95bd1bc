//! Reads of memory that is not EL2's own: frames that may be broken, and pages that the host writes meanwhile.

#![expect(unsafe_code, reason = "reads and writes memory that Rust does not own")]

use crate::fixup::{self, Aborted};
use core::arch::global_asm;
use hyp_core::addr::{FRAME_SIZE, Frame};

global_asm!(include_str!("fixup.S"), include_str!("copy.S"));

/// Bytes that are read at once: a line of most caches, and a block of SHA-256.
pub(crate) const PIECE: usize = 64;

/// Words of a page.
const WORDS: usize = FRAME_SIZE as usize / size_of::<u64>();

unsafe extern "C" {
    /// Reads 64 bytes at `from`, a multiple of 16, to `to`. Returns 0, or `from` if memory answered with an abort.
    fn copy_piece(from: u64, to: *mut u8) -> u64;
    /// Reads `words` aligned words at `from`, each once, to `to`. Returns 0, or 1 if memory at `from` answered with an abort.
    fn copy_shared_in(to: *mut u64, from: u64, words: usize) -> u64;
    /// Writes `words` aligned words at `from` to `to`, each once. Returns 0, or 1 if memory at `to` answered with an abort.
    fn copy_shared_out(to: u64, from: *const u64, words: usize) -> u64;
}

/// Shows what lies in `[start, end)`, both multiples of [`PIECE`], to `sink`, piece by piece.
///
/// # Errors
/// The address at which memory answered with an abort.
///
/// # Safety
/// The range is mapped at EL2.
pub(crate) unsafe fn read(start: u64, end: u64, sink: &mut dyn FnMut(&[u8])) -> Result<(), u64> {
    fixup::survive(|| {
        let mut piece = [0; PIECE];
        for at in (start..end).step_by(PIECE) {
            // SAFETY: the range is mapped, as the caller vouches; an abort is fixed up; there is room for a piece.
            match unsafe { copy_piece(at, piece.as_mut_ptr()) } {
                0 => sink(&piece),
                at => return Err(at),
            }
        }
        Ok(())
    })
}

/// The address of `count` words of a page that is pinned, from the one with index `first` on, if they lie in it.
#[inline(always)]
fn shared_words(frame: Frame, first: usize, count: usize) -> Result<u64, Aborted> {
    if first < WORDS && count <= WORDS - first {
        Ok(frame.address().value() + (first * size_of::<u64>()) as u64)
    } else {
        Err(Aborted)
    }
}

/// Reads words of a page that is pinned, each once.
///
/// # Errors
/// [`Aborted`], also if they do not lie in the page.
#[inline(always)]
pub(crate) fn shared_load(frame: Frame, first: usize, words: &mut [u64]) -> Result<(), Aborted> {
    let from = shared_words(frame, first, words.len())?;
    fixup::survive(|| {
        // SAFETY: a pinned frame is mapped at EL2, at its own address, until it is unpinned, and no reference to it
        // exists. The host may write it at any time: the assembly reads each word once. An abort is fixed up.
        match unsafe { copy_shared_in(words.as_mut_ptr(), from, words.len()) } {
            0 => Ok(()),
            _ => Err(Aborted),
        }
    })
}

/// Writes words of a page that is pinned, each once.
///
/// # Errors
/// As for [`shared_load`].
#[inline(always)]
pub(crate) fn shared_store(frame: Frame, first: usize, words: &[u64]) -> Result<(), Aborted> {
    let to = shared_words(frame, first, words.len())?;
    fixup::survive(|| {
        // SAFETY: as for `shared_load`; nothing of EL2's is in the page.
        match unsafe { copy_shared_out(to, words.as_ptr(), words.len()) } {
            0 => Ok(()),
            _ => Err(Aborted),
        }
    })
}
