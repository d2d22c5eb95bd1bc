//! The story that `cargo run` tells.
#![cfg(not(shuttle))]

use anyhow::Result;
use freehold_runner::setup;
use freehold_runner::story::{self, Course, Host};

#[test]
fn the_story_of_debian_and_its_guest_goes_as_it_must() {
    let (is_well, told) = told(|out| story::tell(out, Host::Linux)).unwrap();
    assert!(is_well, "{told}");
    fits(&told);
}

#[test]
fn the_story_without_kvm_goes_as_it_must_in_both_acts() {
    let (is_well, told) = told(|out| story::tell(out, Host::Bare)).unwrap();
    assert!(is_well, "{told}");
    fits(&told);
}

#[test]
fn a_story_in_which_the_guest_gives_its_secret_away_is_no_good() {
    let (is_well, told) = told(|out| story::tell_protected(out, Course::Spoiled)).unwrap();
    assert!(!is_well, "{told}");
    let is_found = told
        .lines()
        .any(|line| line.starts_with("  ✗ program") && line.ends_with("looks there for the guest's secret"));
    assert!(is_found, "{told}");
}

#[test]
fn a_story_in_which_the_host_forgets_to_pin_is_no_good() {
    let (is_well, told) = told(|out| story::tell_second(out, Course::Spoiled)).unwrap();
    assert!(!is_well, "{told}");
    let last = told.lines().rfind(|line| line.starts_with("  ✗ guest call"));
    assert!(
        last.is_some_and(|line| line.ends_with("wants it back while it is pinned")),
        "{told}"
    );
}

/// How the story went, and what was told, without colors.
fn told(tell: impl FnOnce(&mut Vec<u8>) -> Result<bool>) -> Result<(bool, String)> {
    setup::ensure_tools()?;
    let mut told = Vec::new();
    let is_well = tell(&mut told)?;
    let text = anstream::adapter::strip_str(&String::from_utf8_lossy(&told)).to_string();
    Ok((is_well, text))
}

fn fits(told: &str) {
    for line in told.lines() {
        assert!(line.chars().count() <= 80, "too wide for a terminal: {line}");
    }
}
