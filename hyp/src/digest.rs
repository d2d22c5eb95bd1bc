//! SHA-256 of memory that may be broken: by the CPU's own instructions where it has them (FEAT_SHA256), else in software,
//! which takes some fifteen times as many.

#![expect(
    unsafe_code,
    reason = "reads memory that Rust does not own, in assembly that uses vector registers"
)]

use crate::{copy, fixup, world};
use core::arch::global_asm;
use sha2::{Digest as _, Sha256};

global_asm!(include_str!("fixup.S"), include_str!("digest.S"));

unsafe extern "C" {
    /// Counts `blocks` blocks of 64 bytes, at least one, at `from`, a multiple of 16, into `state`. Returns 0, or the
    /// address of the block at which memory answered with an abort.
    fn digest_blocks(state: *mut State, from: u64, blocks: u64) -> u64;
}

/// Bytes of a block of SHA-256.
const BLOCK: usize = 64;

/// The eight words of SHA-256 between two blocks.
#[derive(Debug)]
#[repr(C, align(16))]
struct State([u32; 8]);

/// What is counted last: a one, zeros, and how many bits there were before it (FIPS 180-4, 5.1.1).
#[derive(Debug)]
#[repr(C, align(16))]
struct Padding([u8; BLOCK]);

impl State {
    /// FIPS 180-4, 5.3.3.
    const FIRST: Self = Self([
        0x6a09_e667,
        0xbb67_ae85,
        0x3c6e_f372,
        0xa54f_f53a,
        0x510e_527f,
        0x9b05_688c,
        0x1f83_d9ab,
        0x5be0_cd19,
    ]);

    fn to_bytes(&self) -> [u8; 32] {
        let mut bytes = [0; 32];
        for (to, word) in bytes.as_chunks_mut::<4>().0.iter_mut().zip(self.0) {
            *to = word.to_be_bytes();
        }
        bytes
    }
}

impl Padding {
    /// What is counted after so many bytes, a multiple of [`BLOCK`].
    fn after(bytes: u64) -> Self {
        let mut block = [0; BLOCK];
        block[0] = 0x80;
        block[BLOCK - 8..].copy_from_slice(&(bytes * 8).to_be_bytes());
        Self(block)
    }
}

/// The SHA-256 of what lies in `[start, end)`, both multiples of 64, and not the same.
///
/// # Errors
/// The address at which memory answered with an abort.
///
/// # Safety
/// The range is mapped at EL2.
pub(crate) unsafe fn of(start: u64, end: u64) -> Result<[u8; 32], u64> {
    let by_the_cpu = || {
        // SAFETY: the range is mapped, as the caller vouches. This runs only where the CPU has the instructions, and the
        // vectors are lent.
        unsafe { by_the_cpu(start, end) }
    };
    if let Some(digest) = world::with_vectors(|features| features.sha256, by_the_cpu) {
        return digest;
    }
    let mut sha = Sha256::new();
    // SAFETY: the range is mapped, as the caller vouches.
    unsafe { copy::read(start, end, &mut |part| sha.update(part)) }?;
    Ok(sha.finalize().into())
}

/// As [`of`], by the CPU.
///
/// # Safety
/// The range is mapped at EL2, not empty, and of whole blocks. The CPU has FEAT_SHA256, and nobody else has V0 to V9.
unsafe fn by_the_cpu(start: u64, end: u64) -> Result<[u8; 32], u64> {
    let mut state = State::FIRST;
    let blocks = (end - start) / BLOCK as u64;
    fixup::survive(|| {
        // SAFETY: the CPU has the instructions, the registers are free, and the range is mapped, as the caller vouches; an
        // abort is fixed up.
        match unsafe { digest_blocks(&raw mut state, start, blocks) } {
            0 => Ok(()),
            at => Err(at),
        }
    })?;
    let padding = Padding::after(end - start);
    let last: *const Padding = &raw const padding;
    // SAFETY: as above, for a block of EL2's own, which does not abort.
    unsafe { digest_blocks(&raw mut state, last.addr() as u64, 1) };
    Ok(state.to_bytes())
}
