//! Errors about guests.

use super::Mutation;

pub(super) const MUTATIONS: &[Mutation] = &[];
