//! Makes a fresh Debian able to build and boot everything: Rust's targets, QEMU, a cross compiler.
//!
//! What is there is left alone. What is missing is installed if we may (as root, by apt); otherwise the exact
//! command is the error. Everything that needs the network or the system's package manager is here or in
//! [`crate::debian`].

mod packages;
mod targets;

use crate::workspace::{self, Lock};
use anyhow::Result;

/// The Rust target of the EL2 image and of the bare-metal payloads.
pub const BARE_TARGET: &str = "aarch64-unknown-none-softfloat";

/// The Rust target of programs that run in a Linux host.
pub const LINUX_TARGET: &str = "aarch64-unknown-linux-musl";

/// Sees to it that all tools are there.
///
/// # Errors
/// If something is missing that cannot be installed; the error says what to type.
pub fn ensure_tools() -> Result<()> {
    let _lock = Lock::acquire(&workspace::target_directory("locks")?.join("setup"))?;
    targets::ensure(&[BARE_TARGET, LINUX_TARGET])?;
    packages::ensure()
}
