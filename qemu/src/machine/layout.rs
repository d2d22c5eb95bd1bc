//! Where things lie in the memory of the machine.
//!
//! QEMU puts the kernel it boots itself (Freehold) 2 MiB into RAM, and its device tree at 128 MiB or in the middle
//! of a smaller RAM (`hw/arm/boot.c`). We keep clear of both: the host kernel goes to 64 MiB, or behind the tree
//! if it does not fit before it, and the ramdisk comes after the two.

use super::{Boot, Host, Machine};
use crate::images;
use anyhow::{Context as _, Result, bail, ensure};
use std::fs;

/// Where RAM begins on the virt machine.
pub const RAM: u64 = 0x4000_0000;

/// Where QEMU puts the first byte of the kernel it boots itself ([`Boot::Kernel`]), if its Image header asks for no
/// other offset: Freehold's does not.
pub const FREEHOLD: u64 = RAM + (2 << 20);

/// Where the device tree lies when it is ours ([`Boot::Placed`]); QEMU's own tree goes there too.
pub const TREE: u64 = RAM + (128 << 20);

/// More than any device tree takes, in alignment too: Linux maps it with 2 MiB blocks.
const TREE_SPACE: u64 = 4 << 20;

/// Below this lie QEMU's tree and our stub when the image is placed by us ([`Boot::Placed`]).
const LOWEST: u64 = RAM + (2 << 20);

/// Where a host kernel that fits before the device tree goes.
const HOST: u64 = RAM + (64 << 20);

/// An Image must begin on such a boundary (`Documentation/arch/arm64/booting.rst`).
const ALIGNMENT: u64 = 2 << 20;

/// Physical addresses of a host kernel and its ramdisk.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Placement {
    /// Of the kernel's first byte.
    pub kernel: u64,
    /// Of the ramdisk's first byte.
    pub initrd: u64,
}

/// Where `host` goes in `machine`.
///
/// # Errors
/// If an image cannot be read, or the memory is too small.
pub fn place(machine: &Machine, host: &Host) -> Result<Placement> {
    let kernel_size = images::image_size(&host.image)?;
    let initrd_size = match &host.initrd {
        Some(initrd) => fs::metadata(initrd)
            .with_context(|| format!("cannot read {}", initrd.display()))?
            .len(),
        None => 0,
    };
    let placement = fit(machine.memory.bytes(), kernel_size, initrd_size)?;
    if let Boot::Placed { image, address, .. } = &machine.boot {
        let end = address.saturating_add(images::image_size(image)?);
        let clear = |start: u64, size: u64| end <= start || start.saturating_add(size) <= *address;
        ensure!(
            clear(placement.kernel, kernel_size)
                && clear(placement.initrd, initrd_size)
                && clear(TREE, TREE_SPACE)
                && (LOWEST..RAM + machine.memory.bytes()).contains(address),
            "an image at {address:#x} does not fit beside the host's"
        );
    }
    Ok(placement)
}

fn fit(memory: u64, kernel_size: u64, initrd_size: u64) -> Result<Placement> {
    let behind_tree = TREE + TREE_SPACE;
    let (kernel, free) = if kernel_size <= TREE - HOST {
        (HOST, Some(behind_tree))
    } else {
        let end = behind_tree.checked_add(kernel_size);
        (
            behind_tree,
            end.and_then(|end| end.checked_next_multiple_of(ALIGNMENT)),
        )
    };
    let fits = |free: &u64| {
        free.checked_add(initrd_size)
            .is_some_and(|end| end <= RAM + memory)
    };
    let Some(initrd) = free.filter(fits) else {
        bail!(
            "a kernel of {kernel_size} bytes and a ramdisk of {initrd_size} need more memory than the \
             machine's {} MiB",
            memory >> 20
        );
    };
    Ok(Placement { kernel, initrd })
}

#[cfg(test)]
mod tests {
    use super::*;

    const MIB: u64 = 1 << 20;

    #[test]
    fn a_small_kernel_lies_before_the_tree_and_the_ramdisk_behind() {
        let placement = fit(256 * MIB, 45 * MIB, 10 * MIB).unwrap();
        assert_eq!(
            placement,
            Placement {
                kernel: RAM + 64 * MIB,
                initrd: RAM + 132 * MIB
            }
        );
    }

    #[test]
    fn a_large_kernel_lies_behind_the_tree() {
        let placement = fit(1024 * MIB, 65 * MIB + 1, 10 * MIB).unwrap();
        assert_eq!(
            placement,
            Placement {
                kernel: RAM + 132 * MIB,
                initrd: RAM + 198 * MIB
            }
        );
    }

    #[test]
    fn what_does_not_fit_is_refused() {
        assert!(fit(256 * MIB, 45 * MIB, 125 * MIB).is_err());
        assert!(fit(256 * MIB, 45 * MIB, 124 * MIB).is_ok());
        assert!(fit(256 * MIB, u64::MAX, 1).is_err());
    }
}
