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
#![no_std]
#![forbid(unsafe_code)]

pub mod error;
pub mod hypercall;
pub mod hypervisor;
pub mod shared_range;

pub use error::{CallError, RangeError};
pub use hypercall::Hypercall;
pub use hypervisor::{Audit, FrameInfo, Hypervisor, HypervisorInfo};
pub use shared_range::SharedRange;
