//! The machine's device tree: read, and written for the host.

use hyp_core::machine::tree::{Edits, edit, output_bound};
use hyp_core::machine::{PhysRange, describe, tree_size};

/// Reads a device tree, and if it is one, writes the host's.
///
/// # Panics
/// If what was read cannot be, or the host's tree is larger than was said.
pub fn device_tree(data: &[u8]) {
    let _ = tree_size(data);
    let Ok(machine) = describe(data) else { return };
    assert!(!machine.cpus.is_empty());
    assert!(machine.memory.end() <= 1 << 48);
    assert!(machine.device_end <= 1 << 48);
    let reserved: Vec<PhysRange> = PhysRange::new(0x4000_0000, 0x20_0000).into_iter().collect();
    let edits = Edits {
        reserved: &reserved,
        bootargs: Some("console=ttyAMA0"),
        ramdisk: reserved.first().copied(),
        rng_seed: machine.rng_seed,
        kaslr_seed: None,
    };
    let mut output = vec![0; output_bound(data.len(), &edits)];
    if let Ok(bytes) = edit(data, &mut output, &edits) {
        // The host's tree is one.
        let _ = describe(&output[..bytes]);
    }
}
