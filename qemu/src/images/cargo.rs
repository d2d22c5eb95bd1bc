//! Packages of this workspace, built for the machine.

use crate::{process, progress::Step, workspace};
use anyhow::{Result, bail};
use std::{env, path::PathBuf, process::Command};

/// Builds the program of `package` for `target`, in the release profile; returns the program. With a `feature` it is
/// built in a directory of its own, so that nobody finds one program in the other's place.
pub(super) fn build(package: &str, target: &str, feature: Option<&str>, title: &str) -> Result<PathBuf> {
    build_file(package, package, target, feature, title)
}

/// Builds the static library of `package` for `target`, in the release profile; returns the library.
pub(super) fn build_library(package: &str, target: &str, title: &str) -> Result<PathBuf> {
    let name = format!("lib{}.a", package.replace('-', "_"));
    build_file(package, &name, target, None, title)
}

fn build_file(
    package: &str,
    name: &str,
    target: &str,
    feature: Option<&str>,
    title: &str,
) -> Result<PathBuf> {
    let directory = match feature {
        None => workspace::target_directory("images")?,
        Some(feature) => workspace::target_directory(&format!("images-{feature}"))?,
    };
    let mut command = Command::new(env::var_os("CARGO").unwrap_or_else(|| "cargo".into()));
    command
        .current_dir(workspace::root())
        .args([
            "build",
            "--release",
            "--package",
            package,
            "--target",
            target,
            "--target-dir",
        ])
        .arg(&directory)
        // The flags of these targets are in the workspace's configuration; flags in the environment would take
        // their place.
        .env_remove("RUSTFLAGS")
        .env_remove("CARGO_ENCODED_RUSTFLAGS")
        .env_remove("CARGO_BUILD_TARGET");
    if let Some(feature) = feature {
        command.args(["--features", feature]);
    }
    let mut step = Step::begin(title);
    process::run(&mut step, command)?;
    step.done();
    let file = directory.join(target).join("release").join(name);
    if !file.is_file() {
        bail!("cargo built {package} and left nothing at {}", file.display());
    }
    Ok(file)
}
