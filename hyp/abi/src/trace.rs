//! The records of the trace ring.
//!
//! A ring is a page that the host shares with EL2 and then attaches for one CPU. EL2 writes a record for
//! each event and never reads the page: its own write index is in EL2's memory. A record with an odd sequence
//! number, or one that is not larger than the record before it, is being written.

use num_enum::{IntoPrimitive, TryFromPrimitive};

/// What a record tells.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, IntoPrimitive, TryFromPrimitive)]
#[repr(u64)]
pub enum TraceEvent {
    /// The host entered EL2. Argument 0: ESR_EL2.
    Entry = 1,
    /// EL2 goes back to the host. Argument 0: x0 as the host will see it.
    Exit = 2,
    /// Frames changed their state. Argument 0: physical address; argument 1: frames in bits 31:0, the old state
    /// in bits 47:32, the new state in bits 63:48 (numbers of EL2's own encoding).
    Transition = 3,
    /// A TLB invalidation. Argument 0: first IPA; argument 1: frames, or all ones for a whole VMID.
    Tlbi = 4,
}

/// Bytes in a record: sequence number, event, two arguments, each a little-endian 64-bit word.
pub const RECORD_SIZE: u64 = 32;
