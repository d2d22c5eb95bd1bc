//! What Freehold promises, and the ways in which it is made to prove it.
//!
//! - [`doors`]: the doors of the EL2 image, by an instruction trace of it.
//! - [`fuzz`]: what the fuzz targets try.
//! - [`linux`]: cases on Debian's kernels as the host, and machines that are refused.
//! - [`on_machine`]: the cases of a payload that runs under QEMU, one test each.
//! - [`spec`]: the specification of ownership, and the judge that holds the lower half in one process against it.
//! - [`trials`]: how test programs run that list their cases themselves.
#![forbid(unsafe_code)]

#[cfg(not(shuttle))]
pub mod doors;
#[cfg(not(shuttle))]
pub mod fuzz;
#[cfg(not(shuttle))]
pub mod linux;
#[cfg(not(shuttle))]
pub mod on_machine;
pub mod spec;
#[cfg(not(shuttle))]
pub mod trials;
