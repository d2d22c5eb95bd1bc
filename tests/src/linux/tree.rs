//! Edits of the device tree that QEMU makes, to describe a machine that QEMU would not.

use anyhow::{Context as _, Result, bail};

/// Makes a piece of RAM smaller: the memory node of `base` and `old` bytes says `new` bytes. What is no longer
/// described is a hole.
///
/// # Errors
/// If there is no such node, or something else in the tree looks the same.
pub fn shrink_memory(tree: &mut [u8], base: u64, old: u64, new: u64) -> Result<()> {
    // The value of `reg`, with two cells for address and size: the same length, so that it can be written in place.
    let reg: Vec<u8> = [base, old]
        .iter()
        .flat_map(|number| number.to_be_bytes())
        .collect();
    let mut places = (0..tree.len().saturating_sub(reg.len() - 1))
        .step_by(4)
        .filter(|&at| tree[at..].starts_with(&reg));
    let place = places
        .next()
        .with_context(|| format!("the tree describes no RAM of {old:#x} bytes at {base:#x}"))?;
    if places.next().is_some() {
        bail!("more than one property of the tree says {base:#x}, {old:#x}");
    }
    tree[place + 8..place + 16].copy_from_slice(&new.to_be_bytes());
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn tree(numbers: &[u64]) -> Vec<u8> {
        numbers.iter().flat_map(|number| number.to_be_bytes()).collect()
    }

    #[test]
    fn only_the_size_changes() {
        let mut edited = tree(&[7, 0x4000_0000, 0x2000_0000, 7]);
        shrink_memory(&mut edited, 0x4000_0000, 0x2000_0000, 0x1000_0000).unwrap();
        assert_eq!(edited, tree(&[7, 0x4000_0000, 0x1000_0000, 7]));
    }

    #[test]
    fn what_is_not_there_once_is_not_edited() {
        for numbers in [&[1, 2, 3][..], &[1, 2, 1, 2], &[]] {
            let mut edited = tree(numbers);
            assert_eq!(
                shrink_memory(&mut edited, 1, 2, 0).is_ok(),
                numbers.len() == 3,
                "{numbers:?}"
            );
        }
    }
}
