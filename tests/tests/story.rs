//! The story that `cargo run` tells.
#![cfg(not(shuttle))]

use freehold_runner::setup;
use freehold_runner::story::{self, Course};

#[test]
fn the_story_goes_as_it_must_in_both_acts() {
    setup::ensure_tools().unwrap();
    let mut told = Vec::new();
    let is_well = story::tell(&mut told).unwrap();
    assert!(is_well, "{}", String::from_utf8_lossy(&told));
}

#[test]
fn a_story_in_which_the_host_forgets_to_pin_is_no_good() {
    setup::ensure_tools().unwrap();
    let mut told = Vec::new();
    let is_well = story::tell_second(&mut told, Course::Spoiled).unwrap();
    let told = String::from_utf8_lossy(&told);
    assert!(!is_well, "{told}");
    assert!(told.contains("wants it back while it is pinned"), "{told}");
}
