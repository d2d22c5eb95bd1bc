//! What EL2 takes of the machine's memory, as the host sees it.

use super::{
    Twice, linux,
    payload::{self, Images, Setting, Visits},
};
use crate::machine;
use anyhow::Result;
use serde::Serialize;

/// Sizes of the machine, in GiB.
const SIZES: [u64; 4] = [1, 4, 8, 64];

/// EL2's memory on one machine, before the first guest. In bytes.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Memory {
    /// The machine's size, as QEMU is told it.
    pub machine: String,
    /// RAM.
    pub ram: u64,
    /// What the device tree keeps from the host.
    pub reserved: u64,
    /// The frames that are EL2's by its own books, donated ones included.
    pub owned: u64,
    /// The pages of it that are free.
    pub free: u64,
    /// The promise: 2 MiB and 0.001 % of RAM.
    pub limit: u64,
    /// What Linux reserves on such a machine, if it was measured.
    pub linux: Option<u64>,
}

impl Memory {
    /// What the host cannot have: its reservation, or more if EL2 was given more.
    #[must_use]
    pub fn taken(&self) -> u64 {
        self.reserved.max(self.owned)
    }

    /// Whether it is within the promise, and below Linux's.
    #[must_use]
    pub fn is_good(&self) -> bool {
        self.taken() <= self.limit && self.linux.is_none_or(|linux| self.taken() < linux)
    }
}

/// The promise for a machine with so much RAM.
const fn limit(ram: u64) -> u64 {
    (2 << 20) + ram / 100_000
}

/// Asks on machines of each size.
///
/// # Errors
/// If a run proves nothing.
pub fn measure(images: &Images, twice: &mut Twice) -> Result<Vec<Memory>> {
    let measure = |gib| {
        let size = machine::Memory::gib(gib);
        let setting = Setting {
            cpu: super::CPUS[0],
            memory: size,
            filter: "=empty_call",
        };
        let results = twice.run(&format!("EL2's memory of {size}"), || {
            payload::run(images, setting, Visits::Ignored)
        })?;
        let ram = results.fact("ram")?;
        Ok(Memory {
            machine: size.to_string(),
            ram,
            reserved: results.fact("reserved")?,
            owned: results.fact("el2_bytes")?,
            free: results.fact("pool_free_bytes")?,
            limit: limit(ram),
            linux: linux::reserved(gib),
        })
    };
    SIZES.into_iter().map(measure).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_promise_is_two_mebibytes_and_a_thousandth_of_a_percent() {
        assert_eq!(limit(1 << 30), 2_097_152 + 10_737);
        let memory = |reserved, owned| Memory {
            machine: "1G".to_owned(),
            ram: 1 << 30,
            reserved,
            owned,
            free: 0,
            limit: limit(1 << 30),
            linux: Some(12 << 20),
        };
        assert!(memory(2 << 20, 2 << 20).is_good());
        assert!(!memory(2 << 20, 3 << 20).is_good(), "what was donated counts");
        assert!(!memory(3 << 20, 2 << 20).is_good());
    }
}
