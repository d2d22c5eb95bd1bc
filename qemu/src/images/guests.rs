//! What a Linux host needs to run Linux guests: the virtual machine monitor, guest kernels and their initramfs.

use super::initramfs::{self, Archive};
use crate::{debian::Packages, workspace};
use anyhow::Result;
use std::path::{Path, PathBuf};

/// Where a host finds the virtual machine monitor.
pub const VMM: &str = "/freehold-vmm";
/// Where it finds the guest kernel that can lend memory.
pub const KERNEL: &str = "/guest/kernel";
/// Where it finds Debian's kernel, as a guest that has never heard of Freehold.
pub const DEBIAN: &str = "/guest/debian";
/// Where it finds the initramfs of the guests, which runs a script.
pub const INITRAMFS: &str = "/guest/initramfs";

/// An archive to lay beneath a host's (`Linux::initrd`): the monitor, the guest kernels, and an initramfs whose work is
/// `script`. The guest's Debian kernel and busybox are those of `packages`. `name` tells archives apart.
///
/// # Errors
/// If something cannot be built or read.
pub fn archive(name: &str, packages: &Packages, script: &str) -> Result<PathBuf> {
    let mut archive = Archive::new();
    archive.directory("guest")?;
    let mut add = |path: &str, file: &Path| archive.copy(path.trim_start_matches('/'), file);
    add(VMM, &super::vmm()?)?;
    add(KERNEL, &super::guest_kernel()?)?;
    add(DEBIAN, &packages.kernel)?;
    let guest = initramfs::for_guest(&packages.busybox, script)?;
    archive.program(INITRAMFS.trim_start_matches('/'), &guest)?;
    let file = workspace::target_directory("images/guests")?.join(format!("{name}.cpio"));
    workspace::write_whole(&file, &archive.finish()?)?;
    Ok(file)
}
