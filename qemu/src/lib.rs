//! Builds Freehold's images, boots them under QEMU and judges what happens.
//!
//! The program `freehold` (what `cargo run` starts), the tests on the machine and the benchmarks all stand on
//! this library. From the ground up:
//!
//! - [`workspace`], [`progress`], [`process`]: where things lie, what the user sees, how programs are run.
//! - [`setup`]: makes a fresh Debian able to build and boot everything.
//! - [`debian`]: Debian's arm64 kernels, their headers and busybox, in a cache.
//! - [`images`]: the EL2 image, payloads, the probe and its module, initramfs archives.
//! - [`machine`]: QEMU's virt machine: what it is made of, how it is booted, watched and stopped.
//! - [`plugin`]: the QEMU plugin that counts and traces what the machine executes.
//! - [`verdict`]: what a run proved, by the console's protocol and the exit status together.
//! - [`symbols`]: names for the addresses in a panic of EL2, and addresses for names.
//! - [`linux`]: a Linux kernel as Freehold's host, with a script as its work.
//! - [`attack`]: a hostile host, and the search for what it must not get.
//! - [`story`]: the demonstration that `cargo run` gives.
//! - [`mutate`]: errors put into the core one at a time, and the tests that must notice.
//! - [`soak`]: every test in full.
//! - [`bench`]: what Freehold's operations cost, counted.

pub mod attack;
pub mod bench;
pub mod debian;
pub mod images;
pub mod linux;
pub mod machine;
pub mod mutate;
pub mod plugin;
pub mod process;
pub mod progress;
pub mod setup;
pub mod soak;
pub mod story;
pub mod symbols;
pub mod verdict;
pub mod workspace;
