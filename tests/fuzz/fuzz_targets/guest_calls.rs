//! Calls of a guest. How to run it: see the README beside this folder.
#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| freehold_tests::fuzz::guest_calls(data));
