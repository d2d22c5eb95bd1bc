//! The cases, by what they are about.

mod calls;
mod devices;
mod every_call;
mod framework;
pub(crate) mod guests;
mod ownership;
mod pool;
mod psci;
mod refusal;
pub(crate) mod support;
mod sysreg;
mod together;
mod trace;

/// Cases of this module need no Freehold below them.
pub(crate) const WITHOUT_FREEHOLD: &str = "framework::";
