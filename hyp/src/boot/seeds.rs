//! The seeds of the device tree: EL2 consumes them, and gives the host others.
//!
//! What the bootloader put there is EL2's entropy. The host gets values that a one-way function makes of it, each with
//! a label of its own, so that a host which knows its seeds knows nothing of EL2's secrets, nor one of the other. The
//! machine's tree lies in memory that becomes the host's, so the seeds are wiped there.

#![expect(unsafe_code, reason = "wipes bytes of the machine's tree")]

use crate::cache;
use core::ptr;
use hyp_core::machine::{MachineDescription, PhysRange};
use sha2::{Digest, Sha256};

/// Bytes of what the function makes at once.
const BLOCK: usize = 32;

/// Where the machine's own seeds lie in its tree.
pub(super) struct Spent([Option<PhysRange>; 2]);

impl Spent {
    /// Notes where they lie.
    pub(super) fn of(machine: &MachineDescription<'_>) -> Self {
        Self([machine.rng_seed, machine.kaslr_seed].map(|seed| {
            let seed = seed?;
            PhysRange::new(seed.as_ptr().addr() as u64, seed.len() as u64)
        }))
    }

    /// Wipes them, from the caches too: the host may read its memory past them.
    ///
    /// # Safety
    /// The tree is mapped for writing, and nobody uses what was read from it any more.
    pub(super) unsafe fn wipe(self) {
        for range in self.0.into_iter().flatten() {
            for address in range.start()..range.end() {
                let byte: *mut u8 = ptr::with_exposed_provenance_mut(address as usize);
                // SAFETY: it lies in the tree, which is mapped for writing and of which nobody holds a reference.
                unsafe { byte.write_volatile(0) };
            }
            // SAFETY: as above.
            unsafe { cache::clean(range.address(), range.size()) };
        }
    }
}

/// The host's seeds, as far as the machine's tree has any.
pub(super) struct HostSeeds {
    rng: Option<[u8; 2 * BLOCK]>,
    kaslr: Option<[u8; BLOCK]>,
}

impl HostSeeds {
    /// Makes the host's seeds of the machine's.
    pub(super) fn of(machine: &MachineDescription<'_>) -> Self {
        let block = |label: &str| -> [u8; BLOCK] {
            let mut hash = Sha256::new();
            // The label comes with its length, and so does each seed: no two inputs run together the same way.
            for part in [
                label.as_bytes(),
                machine.rng_seed.unwrap_or(&[]),
                machine.kaslr_seed.unwrap_or(&[]),
            ] {
                hash.update((part.len() as u64).to_le_bytes());
                hash.update(part);
            }
            hash.finalize().into()
        };
        let rng = machine.rng_seed.map(|_| {
            let mut seed = [0; 2 * BLOCK];
            let (first, second) = seed.split_at_mut(BLOCK);
            first.copy_from_slice(&block("freehold host rng-seed 0"));
            second.copy_from_slice(&block("freehold host rng-seed 1"));
            seed
        });
        Self {
            rng,
            kaslr: machine.kaslr_seed.map(|_| block("freehold host kaslr-seed")),
        }
    }

    /// The host's `rng-seed`.
    pub(super) fn rng(&self) -> Option<&[u8]> {
        self.rng.as_ref().map(<[u8; 2 * BLOCK]>::as_slice)
    }

    /// The host's `kaslr-seed`: 8 bytes, as kernels read it.
    pub(super) fn kaslr(&self) -> Option<&[u8]> {
        self.kaslr.as_ref().and_then(|seed| seed.get(..8))
    }
}
