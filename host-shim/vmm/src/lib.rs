//! A small virtual machine monitor that runs Linux as a guest, protected or not, on KVM's interface.
//!
//! It is an example of how Freehold is integrated, and enough to work with: an arm64 Image with its initramfs, several
//! CPUs, a serial port, and virtio disks, network card, console and balloon. From the ground up:
//!
//! - [`options`], [`ending`]: what is asked for, and what comes of it.
//! - [`layout`], [`tree`], [`image`], `boot`: what the guest finds when it begins.
//! - [`memory`]: its RAM, of which the VMM may reach little.
//! - [`bus`], [`serial`], [`virtio`], [`input`]: devices.
//! - `kvm`: the kernel's interface; `machine` puts everything together, [`events`] keeps it going.
//!
//! A **protected** guest is made with `KVM_VM_TYPE_ARM_PROTECTED`. Its memory is a guest_memfd, which the VMM fills by
//! a mapping before the first CPU runs; after that, what is in it is the guest's own. The device tree sets a part of it
//! aside as `restricted-dma-pool`, which the guest lends to its host, and through which all data of virtio devices
//! goes: every device demands `VIRTIO_F_ACCESS_PLATFORM`.

pub mod bus;
pub mod ending;
pub mod events;
pub mod image;
pub mod input;
pub mod layout;
pub mod memory;
pub mod options;
pub mod serial;
pub mod tree;
pub mod virtio;

// The guest is of the host's architecture.
#[cfg(target_arch = "aarch64")]
mod boot;
#[cfg(target_arch = "aarch64")]
mod kvm;
#[cfg(target_arch = "aarch64")]
mod machine;

use anyhow::Result;
use ending::Ending;
use options::Options;

/// Runs the guest that `options` describe to its end.
///
/// # Errors
/// If a file is missing, or the host cannot do what is asked for.
#[cfg(target_arch = "aarch64")]
pub fn run(options: &Options) -> Result<Ending> {
    let mut machine = machine::Machine::new(options)?;
    let ending = machine.run()?;
    if options.report {
        for line in machine.report() {
            eprintln!("freehold-vmm: {line}");
        }
    }
    Ok(ending)
}

/// Runs no guest: they are arm64's, and this program was built for something else, so that its devices can be tested.
///
/// # Errors
/// Always.
#[cfg(not(target_arch = "aarch64"))]
pub fn run(_options: &Options) -> Result<Ending> {
    anyhow::bail!("guests run on arm64 only")
}
