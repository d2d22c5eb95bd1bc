//! What the fuzz targets try: bytes in, and whatever they are, nothing panics and everything still agrees.
//!
//! Each function takes the bytes of one input and panics if something is wrong. The fuzzer makes up bytes; an ordinary
//! test replays the seeds, so that the targets stay alive where no fuzzer runs.
//!
//! - [`host_calls`]: calls of the host, judged by the specification.
//! - [`guest_calls`]: a guest and its host, judged by the specification, too.
//! - [`aborts`]: what an exception to EL2 says, what is done about it, and what the host is told.
//! - [`device_tree`]: the machine's device tree.

mod aborts;
mod device_tree;
mod guest_calls;
mod host_calls;
mod reader;

pub use aborts::aborts;
pub use device_tree::device_tree;
pub use guest_calls::guest_calls;
pub use host_calls::host_calls;

/// A fuzz target: its name, and what it does with an input.
pub type Target = (&'static str, fn(&[u8]));

/// All targets.
pub const TARGETS: [Target; 4] = [
    ("host_calls", host_calls),
    ("guest_calls", guest_calls),
    ("aborts", aborts),
    ("device_tree", device_tree),
];
