//! The interface, with a kernel and an EL2 of tests.

mod system;
