//! Puts kernel, initramfs and device tree into the guest's memory before it runs.

use crate::{
    image,
    layout::Placement,
    memory::Ram,
    options::Options,
    tree::{self, Description},
};
use anyhow::{Context as _, Result, ensure};
use linux_loader::loader::{KernelLoader as _, pe::PE};
use std::{fs::File, io::Read as _, path::Path};
use vm_memory::{Bytes as _, GuestAddress};

/// Where the boot CPU begins, and with what in x0.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Entry {
    /// Address of the first instruction.
    pub(crate) pc: u64,
    /// Address of the device tree.
    pub(crate) x0: u64,
}

/// Decides where everything lies.
///
/// # Errors
/// If a file cannot be read, is no kernel, or does not fit.
pub(crate) fn place(options: &Options) -> Result<Placement> {
    let kernel = open(&options.kernel)?;
    let mut header = [0; image::HEADER];
    (&kernel)
        .read_exact(&mut header)
        .map_err(anyhow::Error::from)
        .and_then(|()| image::memory(&header))
        .with_context(|| format!("{} cannot be booted", options.kernel.display()))
        .and_then(|kernel| {
            let initrd = match &options.initrd {
                Some(file) => size(file)?,
                None => 0,
            };
            Placement::new(options.memory.0, kernel, initrd, options.bounce_bytes())
        })
}

/// Fills the guest's memory.
///
/// # Errors
/// If a file cannot be read, or has grown meanwhile.
pub(crate) fn load(options: &Options, placement: &Placement, virtio: usize, ram: &Ram) -> Result<Entry> {
    let memory = ram.memory();
    let mut kernel = open(&options.kernel)?;
    let loaded = PE::load(
        memory,
        Some(GuestAddress(placement.kernel.start)),
        &mut kernel,
        None,
    )
    .with_context(|| format!("cannot load {}", options.kernel.display()))?;
    ensure!(
        loaded.kernel_end <= placement.kernel.end(),
        "{} is longer than its header says",
        options.kernel.display()
    );
    if let Some(file) = &options.initrd {
        let length = usize::try_from(placement.initrd.size)?;
        memory
            .read_exact_volatile_from(GuestAddress(placement.initrd.start), &mut open(file)?, length)
            .with_context(|| format!("cannot load {}", file.display()))?;
    }
    let mut seed = [0; 64];
    let seed = match options.protected {
        true => None,
        false => {
            open(Path::new("/dev/urandom"))?
                .read_exact(&mut seed)
                .context("cannot read random numbers")?;
            Some(&seed[..])
        }
    };
    let description = Description {
        command_line: &options.cmdline,
        cpus: options.cpus,
        virtio,
        seed,
    };
    let tree = tree::build(placement, &description)?;
    ensure!(
        tree.len() as u64 <= placement.tree.size,
        "the device tree is too long"
    );
    memory
        .write_slice(&tree, GuestAddress(placement.tree.start))
        .context("cannot load the device tree")?;
    Ok(Entry {
        pc: loaded.kernel_load.0,
        x0: placement.tree.start,
    })
}

fn open(path: &Path) -> Result<File> {
    File::open(path).with_context(|| format!("cannot open {}", path.display()))
}

fn size(path: &Path) -> Result<u64> {
    let metadata = std::fs::metadata(path).with_context(|| format!("cannot open {}", path.display()))?;
    ensure!(metadata.is_file(), "{} is no file", path.display());
    Ok(metadata.len())
}
