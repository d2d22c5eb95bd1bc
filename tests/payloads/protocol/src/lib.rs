//! What the payload host orders a payload guest to do, and what the guest reports.
//!
//! A payload guest does nothing of its own accord. It calls a service of the host ([`SERVICE`]) with its last
//! [`Report`] in x1 to x6; the host answers with the next [`Order`] in x0 to x3. Both ends use the types of this crate,
//! and nothing else passes between them but memory that the guest shares.
//!
//! - [`layout`]: where a guest lies, and how it is started.
//! - [`order`], [`report`]: the two ends of a call.
//! - [`access`]: kinds of accesses.
//! - [`secret`]: what a guest computes and a host must not find.
//! - [`reset`]: the secrets of guests whose machine is reset.
//! - [`story`]: what the runner's story of a guest consists of.
#![no_std]
#![forbid(unsafe_code)]

pub mod access;
pub mod layout;
pub mod order;
pub mod report;
pub mod reset;
pub mod secret;
pub mod story;

pub use access::{Access, Level};
pub use layout::Start;
pub use order::{Conduit, Door, Order};
pub use report::Report;
pub use secret::Secret;

/// The function identifier of the one service that the guest calls.
pub const SERVICE: u32 = hyp_abi::guest_call::HOST_SERVICE_FIRST;

/// What each eight bytes of a page hold after [`Order::Fill`]: `value`, mixed with their place in the page. The page's
/// own address is left out, because host and guest see it at different ones.
#[must_use]
pub const fn pattern(value: u64, address: u64) -> u64 {
    value ^ (address & (hyp_abi::FRAME_SIZE - 1))
}
