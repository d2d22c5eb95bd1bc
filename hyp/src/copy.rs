//! Reads of memory that is not EL2's own: frames that may be broken, and pages that the host writes meanwhile.

#![expect(unsafe_code, reason = "reads and writes memory that Rust does not own")]

use crate::fixup;
use core::arch::global_asm;
use core::ptr;
use hyp_core::addr::{FRAME_SIZE, Frame};

global_asm!(include_str!("copy.S"));

/// Bytes that are read at once: a line of most caches, and a block of SHA-256.
pub(crate) const PIECE: usize = 64;

/// Words of a page.
const WORDS: usize = FRAME_SIZE as usize / size_of::<u64>();

unsafe extern "C" {
    /// Reads 64 bytes at `from`, a multiple of 16, to `to`. Returns 0, or `from` if memory answered with an abort.
    fn copy_piece(from: u64, to: *mut u8) -> u64;
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

/// A word of a page that is pinned. An index past its end goes around.
fn shared_word(frame: Frame, word: usize) -> *mut u64 {
    let page: *mut u64 = ptr::with_exposed_provenance_mut(frame.address().value() as usize);
    page.wrapping_add(word % WORDS)
}

/// Reads a word of a page that is pinned, once.
pub(crate) fn shared_load(frame: Frame, word: usize) -> u64 {
    // SAFETY: a pinned frame is mapped at EL2, at its own address, until it is unpinned, and no reference to it exists.
    // The host may write it at any time: that is why the read is volatile, of a whole aligned word.
    unsafe { shared_word(frame, word).read_volatile() }
}

/// Writes a word of a page that is pinned.
pub(crate) fn shared_store(frame: Frame, word: usize, value: u64) {
    // SAFETY: as for `shared_load`; nothing of EL2's is in the page.
    unsafe { shared_word(frame, word).write_volatile(value) };
}
