//! What the plugin writes: a line of JSON for each thing told.
//!
//! The first line is [`Line::Start`] and the last [`Line::End`]; a file without the last one is that of a QEMU
//! that was killed, or of a trace cut short, and proves nothing.

use crate::decode::Operation;
use serde::{Deserialize, Deserializer, Serialize, Serializer, de::Error as _};
use std::collections::BTreeMap;
use std::fmt;
use std::num::ParseIntError;
use std::str::FromStr;

/// An address, written in hexadecimal with `0x`.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Address(pub u64);

impl fmt::Display for Address {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:#x}", self.0)
    }
}

impl fmt::Debug for Address {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

impl FromStr for Address {
    type Err = ParseIntError;

    fn from_str(text: &str) -> Result<Self, ParseIntError> {
        match text.strip_prefix("0x") {
            Some(digits) => u64::from_str_radix(digits, 16),
            None => text.parse(),
        }
        .map(Self)
    }
}

impl Serialize for Address {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

impl<'de> Deserialize<'de> for Address {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        String::deserialize(deserializer)?
            .parse()
            .map_err(D::Error::custom)
    }
}

/// One line of the file.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "event", rename_all = "lowercase")]
pub enum Line {
    /// The plugin was loaded.
    Start(Start),
    /// `mode=count`: a marked instruction is about to execute for the first time on a CPU.
    Mark(Mark),
    /// `mode=count`: what a CPU executed until QEMU ended. CPUs that executed nothing are left out.
    Total(Total),
    /// `mode=calls` with `visits=on`: a visit is over.
    Visit(Visit),
    /// `mode=calls`: all visits with the same entry and marker, at the end.
    Visits(Visits),
    /// `mode=trace`: an interesting instruction was executed.
    Step(Step),
    /// QEMU ended and all was written.
    End(End),
}

/// See [`Line::Start`].
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Start {
    /// The plugin API's version that this QEMU speaks.
    pub api: i32,
    /// How many CPUs the machine starts with.
    pub cpus: usize,
}

/// Instructions executed, by range of their virtual address. The names are those of the `range=` options, and
/// `high` and `low` for what lies in none of them, by bit 55 of the address: in Linux, kernel and user.
pub type Counts = BTreeMap<String, u64>;

/// See [`Line::Mark`].
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Mark {
    /// The mark's name; `user` for the first instruction in user space.
    pub name: String,
    /// The CPU.
    pub cpu: usize,
    /// Address of the marked instruction.
    pub pc: Address,
    /// What this CPU has executed so far, the marked instruction not included.
    pub counts: Counts,
}

/// See [`Line::Total`].
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Total {
    /// The CPU.
    pub cpu: usize,
    /// What it has executed.
    pub counts: Counts,
}

/// How the image was entered.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Entry {
    /// Not through a vector: from reset, or by a CPU_ON.
    Boot,
    /// Through the vector at this offset from VBAR_EL2: 0x400 synchronous, 0x480 IRQ, 0x500 FIQ, 0x580 SError,
    /// each from a lower level in AArch64 (Arm ARM DDI 0487, D1.3).
    Vector(u16),
}

/// What was executed in a visit.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Census {
    /// Instructions, from the first of the vector to the ERET, both included.
    pub instructions: u64,
    /// TLB invalidations among them.
    pub tlbi: u64,
    /// Data synchronization barriers.
    pub dsb: u64,
    /// Instruction synchronization barriers.
    pub isb: u64,
    /// Data cache maintenance instructions.
    pub dc: u64,
    /// Instruction cache maintenance instructions.
    pub ic: u64,
    /// Calls to EL3, or to EL2 itself.
    pub calls: u64,
    /// Exceptions taken within the image, from EL2 to EL2.
    pub nested: u64,
}

/// See [`Line::Visit`].
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Visit {
    /// The CPU.
    pub cpu: usize,
    /// How it came in.
    pub entry: Entry,
    /// The last marker executed on this CPU, 0 if none.
    pub marker: u16,
    /// Whether it left by ERET. If not, the CPU was switched off, or QEMU ended, or a panic did not return.
    pub returned: bool,
    /// What it executed.
    pub census: Census,
    /// How many of the instructions lie in each named part of the image.
    #[serde(default, skip_serializing_if = "Counts::is_empty")]
    pub parts: Counts,
}

/// The spread of a number over several visits.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Spread {
    /// The smallest.
    pub min: u64,
    /// The lower median.
    pub median: u64,
    /// The largest.
    pub max: u64,
}

/// See [`Line::Visits`]. Visits that did not return are not among them.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Visits {
    /// How they came in.
    pub entry: Entry,
    /// The last marker executed before them on their CPU.
    pub marker: u16,
    /// How many there were.
    pub visits: u64,
    /// Spread of each number of [`Census`], by its name, and of the instructions in each named part of the image.
    pub spread: BTreeMap<String, Spread>,
}

/// See [`Line::Step`].
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Step {
    /// The CPU.
    pub cpu: usize,
    /// Address of the instruction.
    pub pc: Address,
    /// What it was.
    pub what: What,
}

/// What a step of a trace was.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum What {
    /// The image was entered through the vector at this offset.
    Vector(u16),
    /// An instruction of those that [`Operation`] knows.
    Operation(Operation),
    /// A store of the watched kind.
    Store {
        /// The virtual address written. (QEMU 7.2 works out the physical one wrongly on a machine with several
        /// blocks of RAM, and knows no values; so neither is told.)
        to: Address,
        /// Bytes written.
        size: u32,
    },
    /// The instruction of a `mark=` option is about to execute.
    Mark(String),
    /// A marker instruction was executed, wherever it lies.
    Marker(u16),
}

/// See [`Line::End`].
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct End {
    /// Lines left out because the limit was reached.
    pub dropped: u64,
}
