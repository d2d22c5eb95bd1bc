//! The host kernel's side of Freehold.
//!
//! A host kernel reaches EL2 through one trait, [`Hypercall`]: seven registers go in, four come back. Everything
//! else here is built on it and knows nothing of the machine, so the same code runs in a kernel, in a bare-metal
//! payload, and in one process together with the hypervisor's core.
//!
//! - [`hypercall`]: the trait.
//! - [`hypervisor`]: [`Hypervisor`], the typed client. One method a call; ranged calls are resumed until done.
//! - [`error`]: why a call did not do what it was asked, and how far a ranged call came.
//! - [`shared_range`]: frames that are shared with EL2 for as long as a value lives.
//!
//! With the feature `alloc`, on by default, what a host needs to run guests:
//!
//! - [`kernel`]: what is asked of the kernel: reach memory, wait.
//! - [`frames`], [`provider`], [`account`]: frame numbers, where frames come from, who pays for them.
//! - [`host`]: [`Host`], which gives EL2 the pages that it lacks and repeats the call.
//! - [`memfd`]: [`GuestMemfd`], a guest's memory; pins on it.
//! - [`vm`]: [`Vm`], its memory slots, faults, life and end.
//! - [`vcpu`]: [`Vcpu`], runs and exits.
//! - [`vgic`]: [`vgic::Vgic`], the interrupt controller of a guest.
//! - [`sync`]: its locks.
//! - [`failure`]: why one of these did not do what it was asked.
//!
//! With the feature `fake` there is a small EL2 for tests.
//!
//! # Locks
//!
//! A lock is never held over work on contents. What keeps an extent of a file from changing hands meanwhile is
//! its *hold*: see [`memfd`]. Order: hold of an extent → a slot's record → everything else, and of everything else one
//! at a time. No code waits for a hold while it has one.
#![no_std]
#![forbid(unsafe_code)]

#[cfg(feature = "alloc")]
extern crate alloc;

pub mod error;
pub mod hypercall;
pub mod hypervisor;
pub mod shared_range;

pub use error::{CallError, RangeError};
pub use hypercall::Hypercall;
pub use hypervisor::{Audit, FrameInfo, Hypervisor, HypervisorInfo};
pub use shared_range::SharedRange;

#[cfg(feature = "alloc")]
pub mod account;
#[cfg(feature = "alloc")]
pub mod failure;
#[cfg(feature = "alloc")]
pub mod frames;
#[cfg(feature = "alloc")]
pub mod host;
#[cfg(feature = "alloc")]
pub mod kernel;
#[cfg(feature = "alloc")]
pub mod memfd;
#[cfg(feature = "alloc")]
pub mod provider;
#[cfg(feature = "alloc")]
mod range_set;
#[cfg(feature = "alloc")]
pub mod sync;
#[cfg(feature = "alloc")]
pub mod vcpu;
#[cfg(feature = "alloc")]
pub mod vgic;
#[cfg(feature = "alloc")]
pub mod vm;

#[cfg(feature = "alloc")]
pub use failure::{Error, PartError};
#[cfg(feature = "alloc")]
pub use frames::{Block, MAX_ORDER, Pfn, REGION_ORDER};
#[cfg(feature = "alloc")]
pub use host::Host;
#[cfg(feature = "alloc")]
pub use kernel::{HostMemory, Kernel, NotReachable};
#[cfg(feature = "alloc")]
pub use memfd::{GuestMemfd, MemfdConfig};
#[cfg(feature = "alloc")]
pub use vcpu::{Exit, Vcpu};
#[cfg(feature = "alloc")]
pub use vm::{SlotConfig, Vm, VmConfig};

#[cfg(feature = "alloc")]
#[cfg(any(test, feature = "fake"))]
pub mod fake;
#[cfg(feature = "alloc")]
#[cfg(test)]
mod tests;

/// The README's example, which must compile.
#[cfg(all(doctest, feature = "alloc"))]
#[doc = include_str!("../README.md")]
struct Readme;
