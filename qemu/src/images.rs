//! What is put into the machine: the EL2 image, payloads, the probe and its module, initramfs archives.
//!
//! Everything is built by a cargo or make of its own, in `target/images`, so that a `cargo test` that waits for an
//! image does not wait for itself. Each image is built when it is first asked for; after that cargo's and make's
//! own bookkeeping says whether anything must be done again.

mod cargo;
mod flat;
mod guest_kernel;
pub mod guests;
pub mod initramfs;
mod module;

use crate::{
    debian::Packages,
    setup::{BARE_TARGET, LINUX_TARGET},
    workspace,
};
use anyhow::{Context as _, Result};
use std::{
    fs,
    path::{Path, PathBuf},
};

/// A bare-metal image.
#[derive(Clone, Debug)]
pub struct Image {
    /// With symbols and line tables.
    pub elf: PathBuf,
    /// What is loaded: a flat arm64 Image.
    pub flat: PathBuf,
}

/// Builds the EL2 image, Freehold itself, as it is shipped.
///
/// # Errors
/// If it does not build; the error holds what the compiler said.
pub fn hypervisor() -> Result<Image> {
    bare_metal("hyp", None, "Building Freehold")
}

/// Builds the EL2 image with a cargo feature that some test needs, apart from the image that is shipped.
///
/// # Errors
/// If it does not build; the error holds what the compiler said.
pub fn hypervisor_with(feature: &str) -> Result<Image> {
    bare_metal(
        "hyp",
        Some(feature),
        &format!("Building Freehold with the feature {feature}"),
    )
}

/// Builds the bare-metal host kernel of the tests.
///
/// # Errors
/// If it does not build; the error holds what the compiler said.
pub fn payload_host() -> Result<Image> {
    bare_metal("payload-host", None, "Building the payload host")
}

/// Builds the bare-metal guest kernel of the tests, which the payload host finds as its ramdisk.
///
/// # Errors
/// If it does not build; the error holds what the compiler said.
pub fn payload_guest() -> Result<Image> {
    bare_metal("payload-guest", None, "Building the payload guest")
}

/// Builds the probe, a static program for a Linux host.
///
/// # Errors
/// If it does not build; the error holds what the compiler said.
pub fn probe() -> Result<PathBuf> {
    cargo::build("freehold-probe", LINUX_TARGET, None, "Building the probe")
}

/// Builds the virtual machine monitor, a static program for a Linux host.
///
/// # Errors
/// If it does not build; the error holds what the compiler said.
pub fn vmm() -> Result<PathBuf> {
    cargo::build(
        "freehold-vmm",
        LINUX_TARGET,
        None,
        "Building the virtual machine monitor",
    )
}

/// Builds a guest kernel that can lend memory to its host, an arm64 Image. It takes some minutes the first time.
///
/// # Errors
/// If its sources cannot be had, or it does not build.
pub fn guest_kernel() -> Result<PathBuf> {
    guest_kernel::build()
}

/// Builds the probe's kernel module for the kernel of `packages`.
///
/// # Errors
/// If it does not build; the error holds what the compiler said.
pub fn probe_module(packages: &Packages) -> Result<PathBuf> {
    module::build(
        &workspace::root().join("tests/payloads/probe/module"),
        "freehold-probe",
        None,
        packages,
    )
}

/// Builds the cases for `/dev/kvm`, a static program for a Linux host.
///
/// # Errors
/// If it does not build; the error holds what the compiler said.
pub fn payload_kvm() -> Result<PathBuf> {
    cargo::build(
        "payload-kvm",
        LINUX_TARGET,
        None,
        "Building the cases for /dev/kvm",
    )
}

/// Builds the module that makes Linux Freehold's host, for the kernel of `packages`.
///
/// # Errors
/// If it does not build; the error holds what the compiler said.
pub fn linux_module(packages: &Packages) -> Result<PathBuf> {
    let library = cargo::build_library("freehold-linux", BARE_TARGET, "Building the host's module")?;
    module::build(
        &workspace::root().join("host-shim/linux/skin"),
        "freehold",
        Some(&library),
        packages,
    )
}

fn bare_metal(package: &str, feature: Option<&str>, title: &str) -> Result<Image> {
    let elf = cargo::build(package, BARE_TARGET, feature, title)?;
    let contents = fs::read(&elf).with_context(|| format!("cannot read {}", elf.display()))?;
    let flat = elf.with_added_extension("img");
    let bytes = flat::flatten(&contents).with_context(|| format!("{} cannot be loaded", elf.display()))?;
    workspace::write_whole(&flat, &bytes)?;
    Ok(Image { elf, flat })
}

/// How many bytes of memory an arm64 Image takes, from its header (Linux, `Documentation/arch/arm64/booting.rst`).
///
/// # Errors
/// If the file cannot be read or has no such header.
pub fn image_size(image: &Path) -> Result<u64> {
    use std::io::Read as _;
    let mut header = [0; 64];
    let mut file = fs::File::open(image).with_context(|| format!("cannot open {}", image.display()))?;
    file.read_exact(&mut header)
        .with_context(|| format!("cannot read {}", image.display()))?;
    flat::header_image_size(&header).with_context(|| format!("{} is not an arm64 Image", image.display()))
}
