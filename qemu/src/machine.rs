//! QEMU's virt machine: what it is made of, how it is booted, watched and stopped.
//!
//! A [`Machine`] is plain data; [`Machine::run`] boots it, hands every console line to a callback as it comes, and
//! stops it when its time is up. Where images and the device tree lie in memory is [`layout`]'s; how QEMU is told
//! is [`arguments`]'s; what came of it is a [`Run`].

mod arguments;
mod console;
pub(crate) mod frame;
pub mod layout;
pub(crate) mod qmp;
mod run;
mod stub;

pub use run::{Ending, Run, version};

use anyhow::{Context as _, Result, bail};
use std::{ffi::OsString, fmt, path::PathBuf, str::FromStr};

/// A virt machine with everything that is put into it.
#[derive(Clone, Debug)]
pub struct Machine {
    /// QEMU's name of the CPU model, such as `cortex-a72` or `max`.
    pub cpu: String,
    /// The number of CPUs.
    pub smp: u32,
    /// RAM.
    pub memory: Memory,
    /// A file that is the RAM, and keeps what was in it when the machine has ended. Only for RAM that is whole.
    pub memory_file: Option<PathBuf>,
    /// Splits the RAM into that many memory regions of one NUMA node each; 0 and 1 leave it whole.
    pub nodes: u32,
    /// Whether the CPUs have EL2.
    pub virtualization: bool,
    /// The version of the interrupt controller, 2 or 3.
    pub gic_version: u32,
    /// What runs first.
    pub boot: Boot,
    /// The host kernel that Freehold finds in the device tree.
    pub host: Option<Host>,
    /// Counts instructions: one tick of a 1 GHz counter is one instruction, and idle time is skipped.
    pub icount: bool,
    /// Whether semihosting calls reach the runner.
    pub semihosting: bool,
    /// TCG plugins: the library, with `,name=value` arguments.
    pub plugins: Vec<String>,
    /// Whether a reset starts the machine anew. Else it ends the run.
    pub reboots: bool,
    /// Further arguments for QEMU, last.
    pub extra: Vec<OsString>,
}

/// What the machine runs first.
#[derive(Clone, Debug)]
pub enum Boot {
    /// QEMU loads an arm64 Image where it likes and passes the device tree that it made.
    Kernel {
        /// The Image.
        image: PathBuf,
        /// The ramdisk for it.
        initrd: Option<PathBuf>,
        /// Its command line.
        arguments: Option<String>,
    },
    /// An arm64 Image at an address of our choice, with a device tree of ours (see [`Machine::device_tree`]).
    Placed {
        /// The Image.
        image: PathBuf,
        /// Physical address of its first byte, at least 2 MiB into RAM.
        address: u64,
        /// The flattened device tree, which is put at [`layout::TREE`].
        tree: Vec<u8>,
    },
}

/// A host kernel, put into memory beside Freehold and named in the device tree.
#[derive(Clone, Debug)]
pub struct Host {
    /// The arm64 Image.
    pub image: PathBuf,
    /// The ramdisk for it.
    pub initrd: Option<PathBuf>,
    /// Its command line.
    pub arguments: String,
}

impl Machine {
    /// A machine of one `cortex-a72` with 1 GiB that boots `image` at EL2 with interrupt controller 3.
    #[must_use]
    pub fn new(image: PathBuf) -> Self {
        Self {
            cpu: "cortex-a72".to_owned(),
            smp: 1,
            memory: Memory::gib(1),
            memory_file: None,
            nodes: 0,
            virtualization: true,
            gic_version: 3,
            boot: Boot::Kernel {
                image,
                initrd: None,
                arguments: None,
            },
            host: None,
            icount: false,
            semihosting: false,
            plugins: Vec::new(),
            reboots: false,
            extra: Vec::new(),
        }
    }
}

/// An amount of memory.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Memory(u64);

impl Memory {
    /// So many MiB.
    #[must_use]
    pub const fn mib(number: u64) -> Self {
        Self(number << 20)
    }

    /// So many GiB.
    #[must_use]
    pub const fn gib(number: u64) -> Self {
        Self(number << 30)
    }

    /// In bytes.
    #[must_use]
    pub const fn bytes(self) -> u64 {
        self.0
    }
}

impl fmt::Display for Memory {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.0.is_multiple_of(1 << 30) {
            write!(f, "{}G", self.0 >> 30)
        } else {
            write!(f, "{}M", self.0 >> 20)
        }
    }
}

impl FromStr for Memory {
    type Err = anyhow::Error;

    fn from_str(text: &str) -> Result<Self> {
        let (digits, shift) = match text.strip_suffix(['G', 'g']) {
            Some(digits) => (digits, 30),
            None => (text.strip_suffix(['M', 'm']).unwrap_or(text), 20),
        };
        let number: u64 = digits
            .parse()
            .with_context(|| format!("`{text}` is not a size such as 512M or 8G"))?;
        match number.checked_mul(1 << shift) {
            Some(bytes) if bytes > 0 && bytes.is_multiple_of(2 << 20) => Ok(Self(bytes)),
            _ => bail!("`{text}` is not a whole number of 2 MiB that a machine can have"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_size_is_read_as_it_is_written() {
        for (text, memory) in [
            ("512M", Memory::mib(512)),
            ("8G", Memory::gib(8)),
            ("3072M", Memory::gib(3)),
        ] {
            assert_eq!(text.parse::<Memory>().unwrap(), memory);
            assert_eq!(memory.to_string().parse::<Memory>().unwrap(), memory);
        }
        assert_eq!("1024".parse::<Memory>().unwrap(), Memory::gib(1));
        for text in ["", "G", "-1G", "0", "3M", "1T", "99999999999999G"] {
            assert!(text.parse::<Memory>().is_err(), "{text}");
        }
    }
}
