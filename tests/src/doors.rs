//! The doors of the EL2 image, TLB, VTTBR, descriptors and caches, checked where they are: on the machine.
//!
//! An emulator hides missing maintenance, so that everything works without it. So the image is watched instead: the
//! payload plays operations one by one ([`acts`]), a plugin traces what EL2 executes in each ([`trace`]), the same
//! operation runs in this process on hyp-core's recording double ([`replay`]), and the trace must be what the recorded
//! steps stand for on this CPU ([`refine`]): these barriers and instructions, in this order, so many of each.
//!
//! - [`code`]: the image's instructions and where in the source they come from; what may be where ([`rules`]).
//! - [`session`]: a machine, traced and judged.
//! - [`operations`]: what the payload plays.
//! - [`boot`]: how each CPU comes in, and what holds at any time.

pub mod acts;
pub mod boot;
pub mod code;
pub mod expect;
pub mod operations;
pub mod refine;
pub mod replay;
pub mod rules;
pub mod session;
pub mod trace;
