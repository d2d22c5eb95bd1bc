//! The cases, by what they are about.

mod framework;
pub(crate) mod support;

/// Cases of this module need no Freehold below them.
pub(crate) const WITHOUT_FREEHOLD: &str = "framework::";
