//! The interface, with a kernel and an EL2 of tests.

mod devices;
mod doorbells;
mod failing;
mod irqfds;
mod launch;
mod readme;
mod registers;
mod resets;
mod run;
mod slots;
mod system;
