//! The seeds of the fuzz targets, replayed without a fuzzer. `tests/fuzz/README.md` says how to run one.

use freehold_tests::fuzz::{TARGETS, Target};
use std::fs;
use std::path::PathBuf;

/// Where a target's seeds lie.
fn seeds(name: &str) -> PathBuf {
    let tests = PathBuf::from(env!("CARGO_MANIFEST_DIR"));
    match name {
        // The trees of QEMU are there already.
        "device_tree" => tests.join("../hyp/core/tests-data"),
        _ => tests.join("fuzz/seeds").join(name),
    }
}

fn replay((name, try_input): Target) {
    let mut inputs: Vec<PathBuf> = fs::read_dir(seeds(name))
        .and_then(|entries| entries.map(|entry| Ok(entry?.path())).collect())
        .expect("the seeds are part of the sources");
    inputs.sort();
    assert!(inputs.len() > 2, "{name} has no seeds");
    for input in inputs {
        println!("{}", input.display());
        let bytes = fs::read(&input).expect("a seed is a file");
        try_input(&bytes);
        // What an input begins with is an input.
        for end in 0..bytes.len().min(400) {
            try_input(&bytes[..end]);
        }
    }
}

#[test]
fn calls_of_the_host_that_were_found_are_answered() {
    replay(TARGETS[0]);
}

#[test]
fn calls_of_a_guest_that_were_found_are_answered() {
    replay(TARGETS[1]);
}

#[test]
fn aborts_that_were_found_are_answered() {
    replay(TARGETS[2]);
}

#[test]
fn device_trees_that_were_found_are_read() {
    replay(TARGETS[3]);
}

/// The crate of the fuzzer is built by hand only, so that nobody else notices when it falls behind.
#[test]
fn every_target_has_its_program() {
    let fuzz = PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("fuzz");
    let manifest = fs::read_to_string(fuzz.join("Cargo.toml")).unwrap();
    for (name, _) in TARGETS {
        let program = fs::read_to_string(fuzz.join(format!("fuzz_targets/{name}.rs"))).unwrap();
        assert!(
            program.contains(&format!("freehold_tests::fuzz::{name}(data)")),
            "{name}"
        );
        assert!(manifest.contains(&format!("name = \"{name}\"")), "{name}");
    }
}
