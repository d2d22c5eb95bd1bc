//! The mutations.
//!
//! [`PUBLISHED`] are the errors that Cambridge's executable specification of pKVM comes with, as peers of ours report
//! them; each has a counterpart here. The others are errors that this design invites.

mod guest_life;
mod guest_memory;
mod host;
mod tables;

use super::{Layer, Mutation};

/// The fifteen injected errors of the mutation kit of "Ghost in the Android Shell" (SOSP 2025), by short names. Ten
/// are about the protocol of page tables, five about what calls do.
pub const PUBLISHED: [&str; 15] = [
    "missing TLBI, first site",
    "missing TLBI, second site",
    "missing write of 0",
    "missing break",
    "missing invalidate",
    "wrong TLBI, first",
    "wrong TLBI, second",
    "plain instead of ordered store",
    "wrong page",
    "missing VMID switch",
    "share checks omitted",
    "donate without the host half",
    "create-VM error keeps donated memory",
    "share without locks",
    "wrong completer id",
];

/// All mutations.
pub fn all() -> impl Iterator<Item = Mutation> {
    [
        tables::MUTATIONS,
        host::MUTATIONS,
        guest_memory::MUTATIONS,
        guest_life::MUTATIONS,
    ]
    .into_iter()
    .flatten()
    .copied()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::workspace;
    use std::{collections::BTreeSet, fs};

    #[test]
    fn no_mutation_is_stale() {
        for mutation in all() {
            let text = fs::read_to_string(workspace::root().join(mutation.file)).unwrap();
            let mutated = mutation.apply(&text).unwrap();
            assert_ne!(mutated, text, "{}", mutation.name);
        }
    }

    #[test]
    fn every_name_is_one_word_and_unique() {
        let mut names = BTreeSet::new();
        for mutation in all() {
            assert!(!mutation.name.contains(char::is_whitespace), "{}", mutation.name);
            assert!(names.insert(mutation.name), "{}", mutation.name);
        }
    }

    #[test]
    fn every_published_error_has_its_counterpart() {
        let named: BTreeSet<_> = all().filter_map(|mutation| mutation.like).collect();
        assert_eq!(named, BTreeSet::from(PUBLISHED));
    }
}
