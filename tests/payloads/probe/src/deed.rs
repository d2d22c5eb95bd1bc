//! A deed to be done to an address, and doing it in a sacrificial child.

use crate::device::Device;
use crate::el0;
use crate::el1::{self, Fixup};
use crate::kernel_log;
use crate::machine::Size;
use crate::outcome::Outcome;
use crate::sacrifice::{self, Ended};
use std::io::{Error, Result};

/// How an address is reached.
#[derive(Clone, Copy, Debug, PartialEq, Eq, clap::ValueEnum)]
pub(crate) enum Map {
    /// At EL1 the kernel's linear map where it has the address, else normal memory; at EL0 normal memory.
    Auto,
    /// The kernel's linear map, and no other (EL1 only).
    Linear,
    /// A mapping as normal, cacheable memory.
    Normal,
    /// A mapping as Device memory.
    Device,
    /// No mapping: the address is a virtual one.
    Virtual,
}

/// Where.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Place {
    /// Physical address in bytes, or a virtual one with [`Map::Virtual`].
    pub(crate) address: u64,
    /// How it is reached.
    pub(crate) map: Map,
}

/// What.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Deed {
    /// A load.
    Read(Size),
    /// A store.
    Write(Size, u64),
    /// A jump to the address; with `plant`, to a function that is written there first.
    Fetch {
        /// Write a function that returns 42.
        plant: bool,
    },
}

impl Deed {
    /// What has come of the deed if it gave a value.
    pub(crate) fn outcome(self, value: u64) -> Outcome {
        match self {
            Self::Read(_) | Self::Fetch { .. } => Outcome::Value(value),
            Self::Write(..) => Outcome::Written,
        }
    }
}

/// By whom.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Way {
    /// This program.
    El0,
    /// The module, with an entry in the exception table. (A jump has none.)
    El1,
    /// The module, as the kernel reads a word of a string that may end before it: what it cannot read is zero.
    El1Padded,
    /// The module, without an entry.
    El1Bare,
}

impl Way {
    /// Its name on a line of output.
    pub(crate) const fn name(self) -> &'static str {
        match self {
            Self::El0 => "el0",
            Self::El1 => "el1",
            Self::El1Padded => "el1-padded",
            Self::El1Bare => "el1-bare",
        }
    }
}

/// Does the deed, and says what came of it.
///
/// # Errors
/// If the deed could not be tried: the module or the system refused, not the machine.
pub(crate) fn perform(device: &Device, way: Way, place: Place, deed: Deed) -> Result<Outcome> {
    attempt(|| match way {
        Way::El0 => el0::perform(device, place, deed),
        Way::El1 => el1::perform(device, place, deed, Fixup::Error),
        Way::El1Padded => el1::perform(device, place, deed, Fixup::Zeros),
        Way::El1Bare => el1::perform(device, place, deed, Fixup::None),
    })
    .map(|outcome| match outcome {
        Outcome::Value(value) => deed.outcome(value),
        other => other,
    })
}

/// What a child answers: a kind and a detail.
const VALUE: u64 = 0;
const REFUSED: u64 = 1;
const ERROR: u64 = 2;

/// Does the work in a child. The work answers a value, or `None` if it was refused.
///
/// # Errors
/// What the work says, or the system.
pub(crate) fn attempt(work: impl FnOnce() -> Result<Option<u64>>) -> Result<Outcome> {
    let oops_before = kernel_log::last_oops();
    let ended = sacrifice::in_child(|| match work() {
        Ok(Some(value)) => [VALUE, value],
        Ok(None) => [REFUSED, 0],
        Err(error) => [ERROR, error.raw_os_error().unwrap_or(libc::EIO) as u64],
    })?;
    match ended {
        Ended::Answered([VALUE, value]) => Ok(Outcome::Value(value)),
        Ended::Answered([REFUSED, _]) => Ok(Outcome::Refused),
        Ended::Answered([_, error]) => Err(Error::from_raw_os_error(error as i32)),
        Ended::Caught(fault) => Ok(Outcome::Signal(fault)),
        Ended::Killed(signal) => Ok(died(signal, oops_before.as_deref())),
    }
}

/// The outcome of a child that was killed. An oops is its own only if the log did not have it before.
pub(crate) fn died(signal: i32, oops_before: Option<&str>) -> Outcome {
    let oops = kernel_log::last_oops().filter(|oops| Some(oops.as_str()) != oops_before);
    Outcome::Died { signal, oops }
}

/// The words that tell a deed on a line of output.
pub(crate) fn describe(way: Way, address: u64, deed: Deed) -> String {
    let way = way.name();
    match deed {
        Deed::Read(size) => format!("way={way} deed=read size={} address={address:#x}", size.bytes()),
        Deed::Write(size, _) => format!("way={way} deed=write size={} address={address:#x}", size.bytes()),
        Deed::Fetch { .. } => format!("way={way} deed=fetch address={address:#x}"),
    }
}
