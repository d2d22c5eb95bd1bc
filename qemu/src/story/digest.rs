//! The launch digest of the story's guest, worked out from its image alone, as the call that launches it documents
//! ([`hyp_abi::VmCall::Launch`]).

use hyp_abi::{FRAME_SIZE, vm::VmFlags};
use payload_protocol::{layout, story};
use sha2::{Digest as _, Sha256};
use std::fmt::Write as _;

/// What a digest begins with.
const DOMAIN: &[u8] = b"Freehold launch\0";

/// The digest of a guest that begins with `image`, in hexadecimal.
pub(super) fn of(image: &[u8]) -> String {
    let mut frames = Sha256::new();
    for (page, contents) in (0_u64..).zip(image.chunks(FRAME_SIZE as usize)) {
        // The rest of the last page is zero.
        let mut whole = contents.to_vec();
        whole.resize(FRAME_SIZE as usize, 0);
        frames.update((layout::IMAGE / FRAME_SIZE + page).to_le_bytes());
        frames.update(Sha256::digest(&whole));
    }
    let mut digest = Sha256::new();
    digest.update(DOMAIN);
    for number in [
        VmFlags::PROTECTED.bits(),
        story::VCPUS,
        story::IPA_BITS,
        layout::IMAGE,
        story::START.to_register(),
        1,
        layout::MEMORY / FRAME_SIZE,
        story::MEMORY,
    ] {
        digest.update(number.to_le_bytes());
    }
    digest.update(frames.finalize());
    digest.finalize().iter().fold(String::new(), |mut text, byte| {
        let _ = write!(text, "{byte:02x}");
        text
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_byte_counts_and_none_behind_the_end() {
        let image = vec![7; 5000];
        let digest = of(&image);
        assert_eq!(digest.len(), 64);
        let mut other = image.clone();
        other[4999] = 8;
        assert_ne!(of(&other), digest);
        let mut longer = image;
        longer.resize(8192, 0);
        assert_eq!(of(&longer), digest);
    }
}
