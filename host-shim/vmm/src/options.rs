//! The command line.

use clap::Parser;
use std::{ffi::OsString, path::PathBuf, str::FromStr};

/// Runs a Linux guest in a virtual machine, on KVM's interface.
///
/// Exit status: 0 if the guest powered off, 1 if there was an error, 2 for a wrong command line, 3 if the guest asked
/// for a reset, 4 if the hypervisor could not go on with the guest.
#[derive(Clone, Debug, Parser)]
#[command(name = "freehold-vmm", version)]
pub struct Options {
    /// Kernel: an arm64 Image
    #[arg(long, value_name = "IMAGE")]
    pub kernel: PathBuf,
    /// Initramfs, uncompressed or as the kernel can unpack it
    #[arg(long, value_name = "FILE")]
    pub initrd: Option<PathBuf>,
    /// The kernel's command line
    #[arg(long, value_name = "WORDS", default_value = "console=ttyS0 panic=-1")]
    pub cmdline: String,
    /// Number of CPUs
    #[arg(long, value_name = "N", default_value_t = 1, value_parser = clap::value_parser!(u32).range(1..=64))]
    pub cpus: u32,
    /// Memory, such as 256M or 1G
    #[arg(long, value_name = "SIZE", default_value = "256M")]
    pub memory: Size,
    /// Make it a protected guest: what it does not lend is out of reach of the host
    #[arg(long)]
    pub protected: bool,
    /// Memory of a guest_memfd even if it is not protected
    #[arg(long)]
    pub guest_memfd: bool,
    /// Bounce memory: all that virtio devices reach. A protected guest has 16M if nothing is said
    #[arg(long, value_name = "SIZE")]
    pub bounce: Option<Size>,
    /// Disk: a file or block device, `FILE,ro` to leave it as it is; may be given several times
    #[arg(long, value_name = "FILE[,ro]")]
    pub disk: Vec<Disk>,
    /// Network card: on a small host that answers ARP, ping and UDP echo at 10.0.0.1, or on a tap interface
    #[arg(long, value_name = "responder|tap=NAME")]
    pub net: Option<Net>,
    /// Virtio console whose output goes to this file; `-` is standard output
    #[arg(long, value_name = "FILE")]
    pub console: Option<PathBuf>,
    /// What standard input is typed into
    #[arg(long, value_name = "DEVICE", default_value = "serial")]
    pub stdin: Stdin,
    /// Balloon that asks the guest for so much memory at first
    #[arg(long, value_name = "SIZE")]
    pub balloon: Option<Size>,
    /// At the end, tell what the devices did
    #[arg(long)]
    pub report: bool,
    /// KVM's device
    #[arg(long, value_name = "FILE", default_value = "/dev/kvm")]
    pub kvm: PathBuf,
}

impl Options {
    /// How much bounce memory the guest gets, in bytes.
    #[must_use]
    pub fn bounce_bytes(&self) -> u64 {
        match self.bounce {
            Some(Size(bytes)) => bytes,
            None if self.protected => 16 << 20,
            None => 0,
        }
    }
}

/// What standard input is typed into.
#[derive(Clone, Copy, Debug, PartialEq, Eq, clap::ValueEnum)]
pub enum Stdin {
    /// The serial port.
    Serial,
    /// The virtio console.
    Console,
    /// Nothing.
    None,
}

/// A disk.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Disk {
    /// The file that holds it.
    pub file: PathBuf,
    /// Whether it must stay as it is.
    pub read_only: bool,
}

impl From<OsString> for Disk {
    fn from(text: OsString) -> Self {
        match text.to_str().and_then(|text| text.strip_suffix(",ro")) {
            Some(file) => Self {
                file: file.into(),
                read_only: true,
            },
            None => Self {
                file: text.into(),
                read_only: false,
            },
        }
    }
}

/// What a network card is connected to.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Net {
    /// A small host in the VMM.
    Responder,
    /// A tap interface of this name.
    Tap(String),
}

impl FromStr for Net {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        match (text, text.strip_prefix("tap=")) {
            ("responder", _) => Ok(Self::Responder),
            (_, Some(name)) if !name.is_empty() => Ok(Self::Tap(name.to_owned())),
            _ => Err("it is neither `responder` nor `tap=NAME`".to_owned()),
        }
    }
}

/// An amount of memory, in bytes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Size(pub u64);

impl FromStr for Size {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let (digits, shift) = match text.as_bytes().last() {
            Some(b'k' | b'K') => (&text[..text.len() - 1], 10),
            Some(b'm' | b'M') => (&text[..text.len() - 1], 20),
            Some(b'g' | b'G') => (&text[..text.len() - 1], 30),
            _ => (text, 0),
        };
        let number: Option<u64> = digits.parse().ok();
        number
            .and_then(|number| number.checked_mul(1 << shift))
            .map(Self)
            .ok_or_else(|| "it is no size such as 256M or 1G".to_owned())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_command_line_is_understood() {
        let words = "freehold-vmm --kernel Image --protected --disk a,ro --disk b --net tap=t0 --memory 64M";
        let options = Options::try_parse_from(words.split(' ')).unwrap();
        assert_eq!(options.memory, Size(64 << 20));
        assert_eq!(options.bounce_bytes(), 16 << 20);
        let disks: Vec<_> = options.disk.iter().map(|disk| disk.read_only).collect();
        assert_eq!(disks, [true, false]);
        assert_eq!(options.net, Some(Net::Tap("t0".to_owned())));
    }

    #[test]
    fn nonsense_is_refused() {
        for words in [
            "x",
            "x --kernel a --cpus 0",
            "x --kernel a --cpus 65",
            "x --kernel a --memory 1T",
            "x --kernel a --memory 99999999999G",
            "x --kernel a --net tap=",
            "x --kernel a --net bridge",
        ] {
            assert!(Options::try_parse_from(words.split(' ')).is_err(), "{words}");
        }
    }
}
