//! The machine's RAM, as the device tree describes it. Freehold's own memory is part of it.

use anyhow::{Context, bail, ensure};
use std::fs;
use std::path::Path;

/// Where Linux shows the device tree.
pub(crate) const DEVICE_TREE: &str = "/sys/firmware/devicetree/base";

/// A piece of RAM: physical addresses in bytes.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Piece {
    /// The first byte.
    pub(crate) start: u64,
    /// The byte after the last.
    pub(crate) end: u64,
}

/// The RAM that the device tree at `root` describes, in the order of addresses.
///
/// # Errors
/// If the tree cannot be read, or describes no RAM.
pub(crate) fn pieces(root: &Path) -> anyhow::Result<Vec<Piece>> {
    let address_cells = cells(&root.join("#address-cells"))?;
    let size_cells = cells(&root.join("#size-cells"))?;
    let mut pieces = Vec::new();
    for entry in fs::read_dir(root)? {
        let node = entry?.path();
        if fs::read(node.join("device_type")).is_ok_and(|kind| kind == b"memory\0") {
            let reg = fs::read(node.join("reg")).with_context(|| format!("{}/reg", node.display()))?;
            pieces.extend(parse_reg(&reg, address_cells, size_cells)?);
        }
    }
    ensure!(!pieces.is_empty(), "{}: no memory node", root.display());
    pieces.sort_unstable();
    Ok(pieces)
}

fn cells(path: &Path) -> anyhow::Result<usize> {
    let bytes = fs::read(path).with_context(|| path.display().to_string())?;
    match *bytes.as_slice() {
        [0, 0, 0, count @ 1..=2] => Ok(count.into()),
        _ => bail!("{}: {bytes:?} is neither 1 nor 2", path.display()),
    }
}

/// Pairs of address and size (Devicetree Specification 0.4, 2.3.6), numbers of so many big-endian 32-bit cells.
fn parse_reg(reg: &[u8], address_cells: usize, size_cells: usize) -> anyhow::Result<Vec<Piece>> {
    let (address_bytes, size_bytes) = (address_cells * 4, size_cells * 4);
    let number = |bytes: &[u8]| {
        bytes
            .iter()
            .fold(0, |value: u64, byte| value << 8 | u64::from(*byte))
    };
    let pairs = reg.chunks_exact(address_bytes + size_bytes);
    ensure!(
        pairs.remainder().is_empty(),
        "a memory node's reg has {} bytes",
        reg.len()
    );
    pairs
        .map(|pair| {
            let (address, size) = pair.split_at(address_bytes);
            let start = number(address);
            let end = start
                .checked_add(number(size))
                .context("a memory node's reg wraps")?;
            Ok(Piece { start, end })
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reg_is_pairs() {
        let reg = [0, 0, 0, 0, 0x40, 0, 0, 0, 0, 0, 0, 0, 0x20, 0, 0, 0];
        assert_eq!(
            parse_reg(&reg, 2, 2).unwrap(),
            [Piece {
                start: 0x4000_0000,
                end: 0x6000_0000
            }]
        );
        let reg = [0, 0, 0x10, 0, 0, 0, 0x10, 0, 0x80, 0, 0, 0, 0, 0, 0x20, 0];
        let pieces = [
            Piece {
                start: 0x1000,
                end: 0x2000,
            },
            Piece {
                start: 0x8000_0000,
                end: 0x8000_2000,
            },
        ];
        assert_eq!(parse_reg(&reg, 1, 1).unwrap(), pieces);
    }

    #[test]
    fn a_bad_reg_is_refused() {
        assert!(parse_reg(&[0; 15], 2, 2).is_err());
        assert!(parse_reg(&[0xff; 16], 2, 2).is_err());
    }

    #[test]
    fn a_tree_without_cells_is_refused() {
        assert!(pieces(Path::new("/nonexistent")).is_err());
    }
}
