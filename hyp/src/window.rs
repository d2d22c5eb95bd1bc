//! A CPU's window: sixteen pages of EL2's addresses that show frames which EL2 does not map, for as long as it
//! scrubs or cleans them.
//!
//! Only its own CPU uses a window, but the table is everyone's, so what it showed is invalidated on all CPUs.

#![expect(unsafe_code, reason = "writes descriptors of EL2's table")]

use crate::barrier::{dsb_ishst, isb};
use crate::percpu::PerCpu;
use crate::private_area;
use crate::tlb;
use core::ptr;
use core::sync::atomic::Ordering;
use hyp_core::addr::{FRAME_SIZE, FrameSpan, Ipa};
use hyp_core::hardware::{Extent, Regime};
use hyp_core::pgtable::{Attributes, HypAccess, HypAttributes};

/// How many frames a window shows at once: 64 KiB.
pub(crate) const WINDOW_FRAMES: u64 = 16;

/// Bits 1:0 of a page descriptor.
const PAGE: u64 = 0b11;

/// Shows `frames` (at most [`WINDOW_FRAMES`]) to `work`, which gets the address range at which they are.
///
/// # Panics
/// If there are too many frames: the core asks for at most 64 KiB.
pub(crate) fn with<R>(frames: FrameSpan, work: impl FnOnce(u64, u64) -> R) -> R {
    assert!(
        frames.frames() <= WINDOW_FRAMES,
        "more frames than a window shows"
    );
    let this = PerCpu::this();
    let start = private_area::window(this.index);
    let entries = this.window.load(Ordering::Relaxed);
    let attributes = HypAttributes::memory(HypAccess::ReadWrite).to_bits();
    for (index, frame) in (0..).zip(frames.iter()) {
        write_entry(entries, index, frame.address().value() | attributes | PAGE);
    }
    dsb_ishst();
    isb();
    let result = work(start, start + frames.bytes());
    for index in 0..frames.frames() {
        write_entry(entries, index, 0);
    }
    if let Some(start) = Ipa::new(start) {
        tlb::invalidate(
            Regime::Hyp,
            Extent::Range {
                start,
                pages: frames.frames(),
                level: Some(3),
            },
        );
    }
    result
}

/// The frame of a span at which the window's address `at` is, as an offset.
pub(crate) fn frame_offset(at: u64) -> u64 {
    at.saturating_sub(private_area::window(PerCpu::this().index)) / FRAME_SIZE
}

fn write_entry(entries: u64, index: u64, descriptor: u64) {
    let entry: *mut u64 = ptr::with_exposed_provenance_mut((entries + index * 8) as usize);
    // SAFETY: `entries` are the last-level entries of this CPU's window (set at boot, never moved), and only this
    // CPU writes them. The window shows nothing that Rust has a reference to.
    unsafe { entry.write_volatile(descriptor) };
}
