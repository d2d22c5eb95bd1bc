//! What the guests keep that the payload host has when it resets its machine.

/// What the guest makes its secret from that runs when the machine is reset.
pub const SEED: u64 = 0x1057_0e1e_c7ed_0001;

/// What the guest made its secret from that is gone by then.
pub const SEED_OF_THE_DEAD: u64 = 0x1057_0e1e_c7ed_0002;
