//! The Rust targets that images are built for.

use crate::{process, progress::Step, workspace};
use anyhow::{Result, bail};
use std::{path::Path, process::Command};

/// Adds those of `targets` that the toolchain in use lacks.
pub(super) fn ensure(targets: &[&str]) -> Result<()> {
    let mut missing = Vec::new();
    for &target in targets {
        if !is_installed(target)? {
            missing.push(target);
        }
    }
    if missing.is_empty() {
        return Ok(());
    }
    if process::find("rustup").is_none() {
        bail!(
            "this Rust toolchain lacks the targets {}, and there is no rustup to add them",
            missing.join(", ")
        );
    }
    let mut step = Step::announced(format!("Adding the Rust targets {}", missing.join(", ")));
    let mut command = Command::new("rustup");
    command
        .args(["target", "add"])
        .args(&missing)
        .current_dir(workspace::root());
    process::run(&mut step, command)?;
    step.done();
    Ok(())
}

/// Whether the compiler that cargo uses here has the target's `core`.
fn is_installed(target: &str) -> Result<bool> {
    let mut command = Command::new("rustc");
    command
        .args(["--print", "target-libdir", "--target", target])
        .current_dir(workspace::root());
    let directory = process::output(command)?;
    let directory = Path::new(directory.trim());
    Ok(directory.is_dir()
        && directory
            .read_dir()?
            .filter_map(Result::ok)
            .any(|entry| entry.file_name().to_string_lossy().starts_with("libcore-")))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_target_that_nobody_adds_is_missing() {
        // The compiler knows it, and it has no prebuilt `core`.
        assert!(!is_installed("armv6k-nintendo-3ds").unwrap());
    }
}
