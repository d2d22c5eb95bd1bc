//! Guests: their life, their memory, their registers, and what they and the host may do about each other.

mod borrowing;
mod contents;
mod digest;
mod every_frame;
mod every_page;
mod every_vm;
mod faults;
mod frame;
mod guard;
mod guest_calls;
mod host_registers;
mod interrupts;
pub(crate) mod killing;
mod life;
mod limits;
mod mmio;
mod power;
mod ranges;
mod registers;
mod run_pages;
mod shim;
mod support;
mod sysregs;
mod together;
mod told;
mod transitions;
mod vectors;
