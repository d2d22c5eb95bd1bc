//! Looks for what a guest wrote in all of the host's memory, as `/proc/kcore` shows it.
//!
//! That is an ELF file (System V Application Binary Interface, chapters 4 and 5), with a segment for each piece of memory
//! that the kernel has mapped. What the kernel cannot read there reads as zeroes.

use std::fs::File;
use std::io::{Error, ErrorKind, Result};
use std::os::unix::fs::FileExt as _;

/// Bytes in a page, all of which repeat the word.
const PAGE: usize = 4096;
/// Bytes that are read at once.
const PIECE: usize = 256 * PAGE;
/// Type of a segment that is memory.
const LOAD: u64 = 1;

/// How many pages there are, and in how many of them the word is repeated from the first byte to the last. It is as long
/// as a part of a page, so that each begins with it.
pub(crate) fn scan(word: &[u8]) -> Result<(u64, u64)> {
    if word.is_empty() || !PAGE.is_multiple_of(word.len()) {
        return Err(Error::new(ErrorKind::InvalidInput, "a word that fills no page"));
    }
    let file = File::open("/proc/kcore")?;
    let mut buffer = vec![0; PIECE];
    let (mut pages, mut found) = (0, 0);
    for (offset, size) in segments(&file)? {
        let mut at = 0;
        while at < size {
            let length = usize::try_from(size - at).map_or(PIECE, |rest| rest.min(PIECE));
            let piece = &mut buffer[..length];
            file.read_exact_at(piece, offset + at)?;
            for page in piece.chunks_exact(PAGE) {
                pages += 1;
                found += u64::from(page.chunks_exact(word.len()).all(|part| part == word));
            }
            at += length as u64;
        }
    }
    // What was read is ours, and is not to be found by the next who looks.
    buffer.fill(0);
    std::hint::black_box(&buffer);
    Ok((pages, found))
}

/// Where in the file RAM is, and how many bytes of it.
fn segments(file: &File) -> Result<Vec<(u64, u64)>> {
    let number = |offset: u64, bytes: usize| -> Result<u64> {
        let mut value = [0; 8];
        file.read_exact_at(&mut value[..bytes], offset)?;
        Ok(u64::from_le_bytes(value))
    };
    let (table, entry, count) = (number(32, 8)?, number(54, 2)?, number(56, 2)?);
    let mut segments = Vec::new();
    for header in (0..count).map(|index| table + index * entry) {
        let (offset, physical, size) = (
            number(header + 8, 8)?,
            number(header + 24, 8)?,
            number(header + 32, 8)?,
        );
        // What is no RAM, such as the area of vmalloc, has no physical address.
        if number(header, 4)? == LOAD && physical != u64::MAX {
            segments.push((offset, size));
        }
    }
    Ok(segments)
}
