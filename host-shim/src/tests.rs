//! The objects together, against a small EL2.
//!
//! Names that begin with `gm`, `sr`, `pc`, `px`, `pf` or `ar` and a number play a case of Linux's own tests of
//! guest_memfd and of its neighbours: guest_memfd_test, set_memory_region_test, private_mem_conversions_test,
//! private_mem_kvm_exits_test, pre_fault_memory_test, and what KVM's code for arm64 says.

extern crate std;

mod end;
mod file;
mod guest;
mod huge;
mod memory;
mod patience;
mod pins;
mod races;
mod renew;
mod slots;
pub(crate) mod support;
mod user;
mod walk;
