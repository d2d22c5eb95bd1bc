//! The boot matrix: Debian's kernels on CPU models, numbers of CPUs and amounts of memory.

use super::{Script, Session};
use anyhow::Result;
use freehold_runner::{debian::Suite, linux::Linux, machine::Memory};
use std::time::Duration;

/// The CPU models.
pub const MODELS: [&str; 5] = ["cortex-a53", "cortex-a72", "cortex-a76", "neoverse-n1", "max"];

/// The numbers of CPUs.
pub const CPUS: [u32; 3] = [1, 2, 8];

/// The amounts of memory.
pub const MEMORIES: [Memory; 2] = [Memory::mib(512), Memory::gib(8)];

/// How long a boot may take on a machine that is busy.
const LIMIT: Duration = Duration::from_secs(300);

/// Debian's kernels: a short name, and the suite that has it.
#[must_use]
pub fn kernels() -> [(&'static str, Suite); 2] {
    [
        ("debian-6.1", Suite::bookworm()),
        ("debian-6.12", Suite::bookworm_backports()),
    ]
}

/// A machine of the matrix, by the places of its values in [`kernels`], [`MODELS`], [`CPUS`] and [`MEMORIES`].
pub type Point = [usize; 4];

/// The whole matrix.
pub fn full() -> impl Iterator<Item = Point> {
    let pairs = |of: usize| (0..2).flat_map(move |kernel| (0..2).map(move |memory| [kernel, of, memory]));
    (0..MODELS.len()).flat_map(move |model| {
        (0..CPUS.len()).flat_map(move |cpus| {
            pairs(cpus).map(move |[kernel, cpus, memory]| [kernel, model, cpus, memory])
        })
    })
}

/// A part of it in which every pair of values of two kinds comes together somewhere. Every model meets every number
/// of CPUs once, which takes the 15 boots; kernels and memories alternate so that they meet everything too.
pub fn pairwise() -> impl Iterator<Item = Point> {
    (0..MODELS.len()).flat_map(|model| {
        (0..CPUS.len()).map(move |cpus| [(model + cpus) % 2, model, cpus, (model + cpus.div_ceil(2)) % 2])
    })
}

/// The session that boots a machine of the matrix.
///
/// # Errors
/// If its kernel cannot be fetched.
pub fn session(point: Point) -> Result<Session> {
    let [kernel, model, cpus, memory] = point;
    let (kernel, suite) = kernels()[kernel].clone();
    let (model, cpus, memory) = (MODELS[model], CPUS[cpus], MEMORIES[memory]);
    let linux = Linux {
        cpu: model.to_owned(),
        smp: cpus,
        memory,
        limit: LIMIT,
        ..Linux::new(suite, "")
    };
    let name = format!("matrix::{kernel}::{model}-x{cpus}-{memory}");
    Ok(Session::new(
        name,
        linux.clone(),
        &expectations(&linux)?,
        &[Script::BOOT],
    ))
}

/// What [`Script::BOOT`] expects of a machine.
///
/// # Errors
/// If its kernel cannot be fetched.
pub fn expectations(linux: &Linux) -> Result<Vec<String>> {
    Ok(vec![
        format!("EXPECT_RELEASE={}", linux.suite.fetch()?.release),
        format!("EXPECT_CPUS={}", linux.smp),
        format!("EXPECT_MIB={}", linux.memory.bytes() >> 20),
    ])
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::collections::BTreeSet;

    #[test]
    fn the_full_matrix_is_full() {
        let all: BTreeSet<_> = full().collect();
        assert_eq!(all.len(), 2 * MODELS.len() * CPUS.len() * MEMORIES.len());
        assert_eq!(full().count(), all.len());
    }

    #[test]
    fn every_two_values_meet() {
        let meetings = |points: &mut dyn Iterator<Item = Point>| {
            let mut met = BTreeSet::new();
            for point in points {
                for first in 0..4 {
                    for second in 0..first {
                        met.insert((first, point[first], second, point[second]));
                    }
                }
            }
            met
        };
        assert_eq!(meetings(&mut pairwise()), meetings(&mut full()));
    }
}
