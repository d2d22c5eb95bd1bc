//! Linux as Freehold's host: what the kernel module does.
//!
//! The module offers KVM's documented interface (Linux, `Documentation/virt/kvm/api.rst`) on `/dev/kvm`, backed by
//! Freehold. It has three layers, and the kernel is only in the last two:
//!
//! - [`kvm`]: the interface. Commands are decoded here, and VMs, vCPUs and files of memory kept. It reaches the kernel
//!   by the trait [`Linux`] and EL2 by `host_shim`, so its tests run on the machine you sit at.
//! - `ffi`: the trait on top of the skin's functions, and the functions that the skin calls. All unsafe code is there.
//! - `skin/`, in C: file operations that call this crate, and functions around what the kernel offers as macros, inline
//!   functions, or in a form that depends on its version.
//!
//! What allocates may sleep, and does not fail: the kernel lets it wait for memory. What a user chooses the size of is
//! bounded before it is allocated. Nothing is allocated in an interrupt, or with interrupts off.
#![cfg_attr(target_os = "none", no_std)]

extern crate alloc;

pub mod errno;
#[cfg(target_os = "none")]
mod ffi;
pub mod kvm;
pub mod linux;

pub use errno::Errno;
pub use linux::{Descriptor, Linux};
