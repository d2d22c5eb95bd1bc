//! What is true in Freehold: who owns each page, what the tables say, what each call means.
//!
//! The crate is pure: no unsafe code, no assembly, no knowledge of the CPU it was compiled for. It reaches the
//! machine through one trait, [`Hardware`], so the hypervisor's image, the tests, Miri and a fuzzer all run the
//! same code. Policy lives here; the image crate `hyp` knows only how this machine does what is decided here.
//!
//! - [`addr`], [`geometry`], [`sync`]: addresses, table geometry, locks and atomics.
//! - [`hardware`]: what the core asks of the machine, and the events that it reports.
//! - [`map`]: the ownership map, one entry a region, one node of entries where frames differ.
//! - [`pgtable`]: the table engine for stage-2 and for EL2's own stage-1.
//! - [`pool`]: free pages, quickly taken and given.
//! - [`ownership`]: the transitions, checked first and then committed.
//! - [`vm`]: VMs and vCPUs.
//! - [`hypercall`]: what the host may ask.
//! - [`trap`]: what an exception means, and what is done about it.
//! - [`machine`]: the machine as the device tree and the ID registers describe it.
#![no_std]
#![forbid(unsafe_code)]

#[cfg(any(test, feature = "doubles"))]
extern crate std;

pub mod addr;
#[cfg(any(test, feature = "doubles"))]
pub mod double;
pub mod errata;
pub mod geometry;
pub mod hardware;
pub mod hypercall;
pub mod machine;
pub mod map;
pub mod ownership;
pub mod pgtable;
pub mod pool;
pub mod psci;
pub mod state;
pub mod sync;
pub mod trap;
pub mod vm;

pub use addr::{Frame, FrameSpan, Ipa, PhysAddr};
pub use geometry::{Arm4K, Geometry};
pub use hardware::Hardware;
