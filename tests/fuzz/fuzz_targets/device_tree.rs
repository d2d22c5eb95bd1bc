//! The machine's device tree. How to run it: see the README beside this folder.
#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| freehold_tests::fuzz::device_tree(data));
