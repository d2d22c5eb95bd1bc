//! The kernel: an arm64 Image (Linux, Documentation/arch/arm64/booting.rst).

use crate::layout::BLOCK;
use anyhow::{Result, ensure};

/// Length of an Image's header.
pub const HEADER: usize = 64;

/// "ARM\x64".
const MAGIC: [u8; 4] = *b"ARM\x64";

/// How many bytes from a 2 MiB boundary on an Image takes, from its header.
///
/// # Errors
/// If it has no such header, or an old one that does not tell.
pub fn memory(header: &[u8; HEADER]) -> Result<u64> {
    let number = |offset| u64::from_le_bytes(std::array::from_fn(|index| header[offset + index]));
    ensure!(header[56..60] == MAGIC, "it is no arm64 Image");
    let (text_offset, size, flags) = (number(8), number(16), number(24));
    ensure!(size != 0, "its header is of a kernel before 3.17");
    ensure!(flags & 1 == 0, "it is a big-endian kernel");
    ensure!(text_offset < BLOCK, "its header makes no sense");
    let end = text_offset.checked_add(size);
    end.ok_or_else(|| anyhow::anyhow!("its header makes no sense"))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn header(text_offset: u64, size: u64, flags: u64) -> [u8; HEADER] {
        let mut header = [0; HEADER];
        header[8..16].copy_from_slice(&text_offset.to_le_bytes());
        header[16..24].copy_from_slice(&size.to_le_bytes());
        header[24..32].copy_from_slice(&flags.to_le_bytes());
        header[56..60].copy_from_slice(&MAGIC);
        header
    }

    #[test]
    fn an_image_tells_its_size() {
        assert_eq!(memory(&header(0, 0x10_0000, 0xa)).unwrap(), 0x10_0000);
        assert_eq!(memory(&header(0x8_0000, 0x10_0000, 0)).unwrap(), 0x18_0000);
    }

    #[test]
    fn what_is_no_image_is_refused() {
        assert!(memory(&[0; HEADER]).is_err());
        assert!(memory(&header(0, 0, 0)).is_err());
        assert!(memory(&header(0, 0x10_0000, 1)).is_err());
        assert!(memory(&header(u64::MAX, 2, 0)).is_err());
        assert!(memory(&header(1, u64::MAX, 0)).is_err());
    }
}
