//! The specification of ownership: what every call of the host must answer, and what is true afterwards.
//!
//! Plain lists over frames, written from what the calls document; nothing here knows how the hypervisor does it.
//!
//! - [`Holding`]: what one frame may be, who may touch it, what the host is told of it.
//! - [`refusal`]: the table of holding and demand; [`bad_range`]: what is judged before it.
//! - [`vectors`]: the table as cases of one call on one frame, to be tried on any system.
//! - [`Memory`]: all frames, trace rings, and how many pages the tables take. [`Memory::call`] carries a call out.
//!
//! What compares it with the system: [`rig`] (one call, and a look at everything), [`explore`] (all calls on all
//! states of a tiny machine), [`random`] (long sequences on the real geometry), [`order`] (calls made at once).

mod about_guests;
mod answer;
mod call;
mod demand;
mod drain;
pub mod explore;
mod holding;
mod memory;
pub mod order;
mod pages;
pub mod random;
mod range;
pub mod rig;
mod trace;
pub mod vectors;
pub mod vm;

pub use answer::Expected;
pub use call::World;
pub use demand::{Demand, bad_range, refusal};
pub use holding::Holding;
pub use memory::{Layout, Memory};
