//! The story that `cargo run` tells.
#![cfg(not(shuttle))]

use freehold_runner::setup;
use freehold_runner::story::{self, Course};

#[test]
fn the_story_goes_as_it_must_in_both_acts() {
    setup::ensure_tools().unwrap();
    let mut told = Vec::new();
    let is_well = story::tell(&mut told).unwrap();
    let told = plain(&told);
    assert!(is_well, "{told}");
    for line in told.lines() {
        assert!(line.chars().count() <= 80, "too wide for a terminal: {line}");
    }
}

#[test]
fn a_story_in_which_the_host_forgets_to_pin_is_no_good() {
    setup::ensure_tools().unwrap();
    let mut told = Vec::new();
    let is_well = story::tell_second(&mut told, Course::Spoiled).unwrap();
    let told = plain(&told);
    assert!(!is_well, "{told}");
    let last = told.lines().rfind(|line| line.starts_with("  ✗ guest call"));
    assert!(
        last.is_some_and(|line| line.ends_with("wants it back while it is pinned")),
        "{told}"
    );
}

/// What was told, without colors.
fn plain(told: &[u8]) -> String {
    anstream::adapter::strip_str(&String::from_utf8_lossy(told)).to_string()
}
