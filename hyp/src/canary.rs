//! Canaries: pages of EL2's that hold a secret, for a test that looks for it where it must not be.
//!
//! Only with the feature `canary`, never in a shipped image. The secret is written into the image before it boots.
//! At the end of the boot most of the free pages of EL2's pool are filled with it and never used, so that EL2 has to live
//! on what the host brings. What the host brings is filled with it too before the pool has it, and of the first
//! spans one page is never used. The runner then looks into the machine's memory: every canary must be
//! as it was, and the secret must be nowhere but in EL2's own pages.

#![expect(
    unsafe_code,
    reason = "fills pages of EL2's, and keeps symbols for the runner"
)]

use crate::pool;
use core::ptr;
use core::sync::atomic::{AtomicU64, Ordering};
use hyp_core::addr::{FRAME_SIZE, Frame, FrameSpan};

/// Pages that the boot leaves in the pool for its own first steps and those of the host.
const LEFT_AT_BOOT: u64 = 24;

/// Of so many spans of a region or more, and of so many smaller ones, a page is kept.
const LARGE_SPANS: u64 = 2;
const SMALL_SPANS: u64 = 4;

/// Frames of a large span.
const LARGE: u64 = 512;

/// Room for the addresses of the canaries.
const MOST: usize = 640;

/// The secret. These values are never used: without the runner's there is no secret.
#[used]
#[unsafe(no_mangle)]
#[unsafe(link_section = ".data.canary")]
static FREEHOLD_CANARY_SECRET: [AtomicU64; 2] = [
    AtomicU64::new(0x6361_6e61_7279_2030),
    AtomicU64::new(0x6361_6e61_7279_2031),
];

/// The addresses of the canaries, as many as are not zero.
#[used]
#[unsafe(no_mangle)]
static FREEHOLD_CANARY_PAGES: [AtomicU64; MOST] = [const { AtomicU64::new(0) }; MOST];

/// How many addresses are taken, and how many spans of each size have one.
static TAKEN: AtomicU64 = AtomicU64::new(0);
static LARGE_TAKEN: AtomicU64 = AtomicU64::new(0);
static SMALL_TAKEN: AtomicU64 = AtomicU64::new(0);

/// Half of the secret, as the runner left it.
fn secret(half: usize) -> u64 {
    // SAFETY: the static is there; it is read as what it is. Volatile, because the compiler has not seen who writes it.
    unsafe { FREEHOLD_CANARY_SECRET[half].as_ptr().read_volatile() }
}

/// What a page holds at `address`: the secret as it is, and the secret mixed with the address, by turns.
fn word(address: u64) -> u64 {
    let half = secret((address / 8 % 2) as usize);
    if address & 16 == 0 { half } else { half ^ address }
}

/// Fills a frame of EL2's.
fn fill(frame: Frame) {
    let start = frame.address().value();
    for address in (start..start + FRAME_SIZE).step_by(8) {
        let at: *mut u64 = ptr::with_exposed_provenance_mut(address as usize);
        // SAFETY: the frame is EL2's, mapped at its own address, and nobody uses it: it comes from the pool, or is on
        // its way there.
        unsafe { at.write_volatile(word(address)) };
    }
}

/// Remembers a canary. Returns whether there was room for it.
fn remember(frame: Frame) -> bool {
    let index = TAKEN.fetch_add(1, Ordering::Relaxed) as usize;
    let Some(slot) = FREEHOLD_CANARY_PAGES.get(index) else {
        return false;
    };
    slot.store(frame.address().value(), Ordering::Relaxed);
    true
}

/// Takes pages out of what the boot gave to the pool.
pub(crate) fn plant() {
    while pool::pages().0 > LEFT_AT_BOOT {
        let Some(page) = pool::allocate() else { break };
        fill(page.frame());
        if !remember(page.frame()) {
            pool::free(page);
            break;
        }
    }
}

/// Fills what the host brings. Returns what the pool gets of it.
pub(crate) fn plant_in(span: FrameSpan) -> FrameSpan {
    span.iter().for_each(fill);
    let (taken, most) = if span.frames() >= LARGE {
        (&LARGE_TAKEN, LARGE_SPANS)
    } else {
        (&SMALL_TAKEN, SMALL_SPANS)
    };
    if span.frames() == 1 || taken.fetch_add(1, Ordering::Relaxed) >= most || !remember(span.start()) {
        return span;
    }
    span.split_at(1).1.unwrap_or(span)
}
