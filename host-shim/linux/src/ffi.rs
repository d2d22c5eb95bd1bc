//! The way to the skin and back: the kernel's functions as the trait [`Linux`](crate::Linux), and what the skin calls.
//!
//! The skin and this are built together, and [`skin`] mirrors `skin/freehold.h`.
#![expect(
    unsafe_code,
    reason = "functions of another language are called, and called by it, with what it calls pointers"
)]

mod allocator;
mod entries;
mod hypercall;
mod kernel;
mod lock;
mod panic;
mod skin;

use kernel::Skin;
