//! Freehold's EL2 image: how this machine does what `hyp-core` decides.
//!
//! - [`entry`], [`boot`], [`secondary`], [`refuse`]: how the CPUs come in.
//! - [`layout`], [`mmu`], [`private_area`], [`window`], [`pool`], [`machine`], [`memory`]: EL2's own memory.
//! - [`vectors`], [`exit`], [`smc`], [`device`]: the host's exits and their answers.
//! - [`world`], [`home`], [`copy`]: guests.
//! - [`registers`], [`hardening`], [`cpu`]: what the CPU is, and how it is set up for the host.
//! - [`tlb`], [`vttbr`], [`cache`], [`barrier`]: the doors; nobody else issues these instructions.
//! - [`hardware`]: all of it as hyp-core sees it.
//! - [`percpu`], [`trace`]: what belongs to one CPU.
//! - [`console`], [`panic`], [`fixup`], [`farewell`]: words, and the end.
#![no_std]
#![no_main]

mod barrier;
mod boot;
mod cache;
#[cfg(feature = "canary")]
mod canary;
mod console;
mod copy;
mod cpu;
mod device;
mod digest;
mod entry;
mod exit;
mod farewell;
mod fixup;
mod hardening;
mod hardware;
mod home;
mod layout;
mod machine;
mod memory;
mod mmu;
mod panic;
#[cfg(feature = "panic-test")]
mod panic_test;
mod percpu;
mod pool;
mod private_area;
mod refuse;
mod registers;
mod secondary;
mod smc;
mod tlb;
mod trace;
mod vectors;
mod vttbr;
mod window;
mod world;
