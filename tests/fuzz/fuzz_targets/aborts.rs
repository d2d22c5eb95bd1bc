//! Exceptions to EL2, and what EL1 is told of them. How to run it: see the README beside this folder.
#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| freehold_tests::fuzz::aborts(data));
