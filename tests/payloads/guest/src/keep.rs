//! A secret in memory, for as long as the VM lives.
#![expect(unsafe_code, reason = "reads and writes pages of its own")]

use crate::{MAX_VCPUS, sysreg};
use core::ptr::with_exposed_provenance_mut;
use core::sync::atomic::{AtomicU64, Ordering::Relaxed};
use hyp_abi::FRAME_SIZE;
use payload_protocol::layout::{KEPT, KEPT_PAGES};
use payload_protocol::{Report, Secret};

const WORDS: u64 = FRAME_SIZE / 8;

/// The seed that each page was written with; 0 for one that was not. A vCPU uses its own alone.
static SEEDS: [[AtomicU64; KEPT_PAGES as usize]; MAX_VCPUS] =
    [const { [const { AtomicU64::new(0) }; KEPT_PAGES as usize] }; MAX_VCPUS];

fn word(page: u64, number: u64) -> *mut u64 {
    with_exposed_provenance_mut((page + 8 * number) as usize)
}

/// Writes a page of this vCPU's, or compares it with what was written.
pub(crate) fn keep(page: u64, seed: u64) -> Report {
    let vcpu = sysreg::vcpu();
    let number = page % KEPT_PAGES;
    let address = KEPT + (vcpu as u64 * KEPT_PAGES + number) * FRAME_SIZE;
    let kept = &SEEDS[vcpu][number as usize];
    // What the secret is made from is what it was at first: an order that was garbled on its way spoils nothing.
    let seed = match kept.load(Relaxed) {
        0 => {
            let secret = Secret::new(seed);
            for number in 0..WORDS {
                // SAFETY: this page is memory that nothing else of the image uses, and this vCPU's own.
                unsafe { word(address, number).write_volatile(secret.word(number as u16)) };
            }
            kept.store(seed, Relaxed);
            seed
        }
        seed => seed,
    };
    let secret = Secret::new(seed);
    // SAFETY: as above.
    let got = |number| unsafe { word(address, number).read_volatile() };
    let wrong = (0..WORDS)
        .filter(|&number| got(number) != secret.word(number as u16))
        .count();
    match wrong {
        0 => Report::Done([0; 5]),
        wrong => Report::Spoiled {
            address,
            differences: [wrong as u64, 0, 0],
        },
    }
}
