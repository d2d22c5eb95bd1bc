//! Bytes that are no device tree, or one that no machine has: an answer, never a panic.

use super::*;
use crate::machine::fixture::{GOOD, ONE_CPU, Tree, damage, nasty_word};
use crate::machine::walk::MAX_DEPTH;
use proptest::prelude::*;

#[test]
fn a_tree_nested_without_end_is_refused() {
    let nest = |depth: usize| {
        let mut path = std::string::String::from("/");
        (0..depth).fold(Tree::from(ONE_CPU), |tree, _| {
            let tree = tree.node(&path, "n");
            path.push_str(if path.len() > 1 { "/n" } else { "n" });
            tree
        })
    };
    assert!(describe(&nest(MAX_DEPTH - 1).dtb()).is_ok());
    assert_eq!(
        describe(&nest(MAX_DEPTH).dtb()).unwrap_err(),
        RefusalReason::TreeTooDeep(MAX_DEPTH)
    );
}

#[test]
fn every_truncation_is_refused() {
    for size in 0..ONE_CPU.len() {
        assert!(describe(&ONE_CPU[..size]).is_err(), "{size} bytes");
    }
    let mut header = ONE_CPU.to_vec();
    header[4..8].copy_from_slice(&u32::MAX.to_be_bytes());
    assert_eq!(describe(&header), Err(RefusalReason::TreeTooLarge(u32::MAX)));
}

proptest! {
    #[test]
    fn damaged_trees_never_panic(
        which in 0..GOOD.len(),
        changes in prop::collection::vec((any::<usize>(), nasty_word()), 1..6),
    ) {
        // The answer may be either; what counts is that there is one.
        if let Ok(machine) = describe(&damage(GOOD[which], &changes)) {
            prop_assert!(!machine.cpus.is_empty());
            prop_assert!(machine.memory.end() <= 1 << 48);
            prop_assert!(machine.device_end <= 1 << 48);
        }
    }

    #[test]
    fn noise_never_panics(mut bytes in prop::collection::vec(any::<u8>(), 0..400)) {
        prop_assert!(describe(&bytes).is_err());
        let size = u32::try_from(bytes.len()).unwrap();
        for (place, word) in [(0, 0xd00d_feed), (4, size)] {
            if let Some(field) = bytes.get_mut(place..place + 4) {
                field.copy_from_slice(&word.to_be_bytes());
            }
        }
        prop_assert!(describe(&bytes).is_err());
    }
}
