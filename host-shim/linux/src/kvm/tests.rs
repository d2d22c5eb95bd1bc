//! The interface, with a kernel and an EL2 of tests.

mod run;
mod system;
