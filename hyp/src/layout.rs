//! Where the parts of the image lie: the linker script's symbols, as addresses.

#![expect(
    unsafe_code,
    reason = "symbols of the linker script and of assembly are declared"
)]

use hyp_core::addr::{FRAME_SIZE, Frame, FrameSpan};

macro_rules! symbols {
    ($($(#[$doc:meta])* $function:ident = $symbol:ident;)*) => {
        unsafe extern "C" { $(static $symbol: u8;)* }
        $(
            $(#[$doc])*
            #[must_use]
            pub(crate) fn $function() -> u64 {
                (&raw const $symbol).addr() as u64
            }
        )*
    };
}

symbols! {
    /// The first byte of the image: the base of every offset in a backtrace.
    image_start = _image_start;
    /// The end of the code.
    text_end = _text_end;
    /// The end of what is read-only.
    rodata_end = _rodata_end;
    /// The start of what only the boot uses; the end of what stays.
    boot_start = _boot_start;
    /// The end of what only the boot uses.
    boot_end = _boot_end;
    /// The end of the early tables.
    early_tables_end = _early_tables_end;
    /// The first byte after the image.
    image_end = _image_end;
    /// The first fixup.
    fixup_start = _fixup_start;
    /// The end of the fixups.
    fixup_end = _fixup_end;
    /// Where a CPU that the firmware starts comes in.
    secondary_entry = entry_secondary;
}

/// The frames from `start` to `end`.
///
/// # Panics
/// If that is no run of whole frames below 2^48: the linker script aligns every symbol that is used here.
#[must_use]
pub(crate) fn frames(start: u64, end: u64) -> FrameSpan {
    assert!(
        start.is_multiple_of(FRAME_SIZE) && end.is_multiple_of(FRAME_SIZE),
        "the linker script aligns this"
    );
    Frame::new(start / FRAME_SIZE)
        .zip(end.checked_sub(start))
        .and_then(|(first, bytes)| FrameSpan::new(first, bytes / FRAME_SIZE))
        .expect("the image lies below 2^48")
}
