//! The payload guest, as the loader left it: the ramdisk of this kernel.
#![expect(unsafe_code, reason = "copies the image to frames")]

use crate::frames::Frames;
use crate::machine::machine;
use crate::registry::{Outcome, fail};
use core::ptr::{slice_from_raw_parts, with_exposed_provenance, with_exposed_provenance_mut};
use hyp_abi::FRAME_SIZE;

/// How many frames the image takes: what is in the file. Behind it the guest's memory is zero.
pub(crate) fn frames() -> Result<u64, Outcome> {
    match &machine().ramdisk {
        Some(image) => Ok((image.end - image.start).div_ceil(FRAME_SIZE)),
        None => fail!("there is no payload guest: the machine has no ramdisk"),
    }
}

/// Copies page number `page` of the image to a frame. The last one is filled up with zeroes.
pub(crate) fn copy_page(page: u64, frame: &Frames) -> Result<(), Outcome> {
    let Some(image) = &machine().ramdisk else {
        fail!("there is no payload guest: the machine has no ramdisk")
    };
    let from = image.start + page * FRAME_SIZE;
    let length = (image.end - from).min(FRAME_SIZE);
    frame.zero();
    let source = with_exposed_provenance::<u8>(from as usize);
    let target = with_exposed_provenance_mut::<u8>(frame.frame(0) as usize);
    // SAFETY: the ramdisk is RAM that the frame allocator leaves alone, and the frame is the caller's.
    unsafe { target.copy_from_nonoverlapping(source, length as usize) };
    Ok(())
}

/// The image, byte by byte.
pub(crate) fn bytes() -> Result<&'static [u8], Outcome> {
    let Some(image) = &machine().ramdisk else {
        fail!("there is no payload guest: the machine has no ramdisk")
    };
    let length = (image.end - image.start) as usize;
    let bytes = slice_from_raw_parts(with_exposed_provenance::<u8>(image.start as usize), length);
    // SAFETY: the ramdisk is RAM, mapped one to one, which nobody writes to and nothing gives away.
    Ok(unsafe { &*bytes })
}
