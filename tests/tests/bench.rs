//! The benchmarks run and are complete. What they cost is for `cargo run -- bench` to say.

use freehold_runner::bench::{CPUS, operations, payload::Images};
use freehold_runner::setup;

#[test]
fn every_benchmark_runs_and_is_known() {
    setup::ensure_tools().expect("QEMU is there or can be installed");
    let images = Images::build().expect("the images build");
    for cpu in CPUS {
        if let Err(error) = operations::check(&images, cpu) {
            panic!("{cpu}: {error:#}");
        }
    }
}
