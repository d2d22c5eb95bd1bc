//! From an ELF file to the flat image that is loaded: its segments where they belong, from the lowest address on.
//!
//! Memory that the program wants zeroed behind its last byte is not in the file: the Image header says how much
//! memory the image takes, and the program's entry zeroes it.

use anyhow::{Context as _, Result, bail, ensure};
use object::{
    Endianness,
    elf::{EM_AARCH64, FileHeader64, PT_LOAD},
    read::elf::{FileHeader as _, ProgramHeader as _},
};

/// No image of ours comes near it; a segment at a stray address does not fill the memory of this machine.
const LARGEST: u64 = 64 << 20;

/// Lays out the segments of an ELF file for arm64.
pub(super) fn flatten(elf: &[u8]) -> Result<Vec<u8>> {
    let header = FileHeader64::<Endianness>::parse(elf).context("not a 64-bit ELF file")?;
    let endian = header.endian()?;
    ensure!(header.e_machine(endian) == EM_AARCH64, "not for arm64");
    let segments: Vec<_> = header
        .program_headers(endian, elf)?
        .iter()
        .filter(|segment| segment.p_type(endian) == PT_LOAD && segment.p_filesz(endian) > 0)
        .collect();
    let Some(base) = segments.iter().map(|segment| segment.p_paddr(endian)).min() else {
        bail!("nothing in it is loaded");
    };
    ensure!(
        header.e_entry(endian) == segments[0].p_vaddr(endian) && segments[0].p_paddr(endian) == base,
        "its entry is not its first byte, where the loader will jump to"
    );
    let mut image = Vec::new();
    for segment in segments {
        let data = segment
            .data(endian, elf)
            .ok()
            .context("a segment reaches beyond the end of the file")?;
        let start = segment.p_paddr(endian) - base;
        let end = start.checked_add(data.len() as u64).filter(|&end| end <= LARGEST);
        let end = end.with_context(|| format!("a segment lies {start:#x} bytes behind the first"))?;
        let (start, end) = (usize::try_from(start)?, usize::try_from(end)?);
        image.resize(image.len().max(end), 0);
        image[start..end].copy_from_slice(data);
    }
    ensure!(
        header_image_size(&image).is_some(),
        "it has no arm64 Image header"
    );
    Ok(image)
}

/// The `image_size` of an arm64 Image header, if `image` begins with one.
pub(super) fn header_image_size(image: &[u8]) -> Option<u64> {
    let magic = image.get(56..60)?;
    let size = image.get(16..24)?;
    (magic == b"ARM\x64").then(|| u64::from_le_bytes(size.try_into().unwrap_or_default()))
}

#[cfg(test)]
mod tests {
    use super::*;

    /// An ELF file with segments of (physical address, contents).
    fn elf(entry: u64, segments: &[(u64, &[u8])]) -> Vec<u8> {
        let mut file = vec![0; 64 + 56 * segments.len()];
        file[..7].copy_from_slice(b"\x7fELF\x02\x01\x01");
        let mut put = |at: usize, bytes: &[u8]| file[at..at + bytes.len()].copy_from_slice(bytes);
        put(16, &2u16.to_le_bytes());
        put(18, &EM_AARCH64.0.to_le_bytes());
        put(20, &1u32.to_le_bytes());
        put(24, &entry.to_le_bytes());
        put(32, &64u64.to_le_bytes());
        put(52, &64u16.to_le_bytes());
        put(54, &56u16.to_le_bytes());
        put(56, &(segments.len() as u16).to_le_bytes());
        let mut offset = (64 + 56 * segments.len()) as u64;
        for (index, (address, contents)) in segments.iter().enumerate() {
            let at = 64 + 56 * index;
            let size = contents.len() as u64;
            put(at, &PT_LOAD.0.to_le_bytes());
            for (field, value) in [
                (8, offset),
                (16, *address),
                (24, *address),
                (32, size),
                (40, size + 4096),
            ] {
                put(at + field, &value.to_le_bytes());
            }
            offset += size;
        }
        segments
            .iter()
            .for_each(|(_, contents)| file.extend_from_slice(contents));
        file
    }

    fn image_header(size: u64) -> [u8; 64] {
        let mut header = [0; 64];
        header[16..24].copy_from_slice(&size.to_le_bytes());
        header[56..60].copy_from_slice(b"ARM\x64");
        header
    }

    #[test]
    fn segments_lie_where_they_belong_and_the_tail_is_left_out() {
        let header = image_header(0x9000);
        let image = flatten(&elf(0x1000, &[(0x1000, &header), (0x1100, b"data")])).unwrap();
        assert_eq!(image.len(), 0x104);
        assert_eq!(&image[..64], &header);
        assert!(image[64..0x100].iter().all(|&byte| byte == 0));
        assert_eq!(&image[0x100..], b"data");
        assert_eq!(header_image_size(&image), Some(0x9000));
    }

    #[test]
    fn what_the_loader_would_misread_is_refused() {
        let header = image_header(1);
        let refused = |file: &[u8], why: &str| {
            let error = flatten(file).unwrap_err().to_string();
            assert!(error.contains(why), "{error}");
        };
        refused(b"no ELF", "not a 64-bit ELF");
        refused(&elf(0, &[]), "nothing");
        refused(&elf(0x1004, &[(0x1000, &header)]), "entry");
        refused(&elf(0x1000, &[(0x1000, &[0; 64])]), "header");
        refused(
            &elf(0x1000, &[(0x1000, &header), (1 << 40, b"far")]),
            "behind the first",
        );
    }
}
