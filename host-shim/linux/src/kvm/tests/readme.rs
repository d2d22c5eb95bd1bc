//! The tables of the README say what there is.

use super::devices::Ground;
use super::run::Guest;
use crate::kvm::capability;
use crate::kvm::fake::Machine;
use crate::{Descriptor, Errno};
use std::collections::BTreeSet;
use std::sync::Arc;

const README: &str = include_str!("../../../README.md");

/// Where the numbers of commands are.
const SOURCES: [&str; 2] = [include_str!("../abi.rs"), include_str!("../abi/devices.rs")];

/// An argument that means nothing to any command.
const NONSENSE: u64 = 1 << 60;

/// The cells of the table below a heading, row by row, without its head.
fn rows(heading: &str) -> Vec<Vec<&'static str>> {
    let (_, rest) = README.split_once(heading).expect("there is that heading");
    let part = rest.split("\n## ").next().expect("it has a text");
    let cells = |line: &'static str| {
        let line = line.strip_prefix('|')?.strip_suffix('|')?;
        Some(line.split('|').map(str::trim).collect::<Vec<_>>())
    };
    let rows = part.lines().skip_while(|line| !line.starts_with('|'));
    rows.map_while(cells).skip(2).collect()
}

#[test]
fn capabilities_are_told_with_their_answers() {
    let guest = Guest::new(0, 1);
    let system = &guest.system;
    let rows = rows("## Capabilities");
    let mut all: Vec<_> = capability::ALL.into_iter().collect();
    all.sort_by_key(|capability| *capability as u64);
    assert_eq!(rows.len(), all.len());
    for (row, capability) in rows.into_iter().zip(all) {
        let number = capability as u64;
        assert_eq!(row[0], number.to_string());
        let name = row[1].replace('_', "").to_lowercase();
        assert_eq!(name, format!("{capability:?}").to_lowercase());
        for (cell, protected) in [(row[2], false), (row[3], true)] {
            let answer = capability::check(system, protected, number);
            if let Ok(told) = cell.parse::<u64>() {
                assert_eq!(told, answer, "{capability:?}, protected: {protected}");
            } else {
                // What depends on the machine is told in words.
                assert!(!cell.is_empty(), "{capability:?}");
            }
        }
    }
}

/// The commands by name, and the last eight bits of their numbers.
fn commands() -> BTreeSet<(&'static str, u32)> {
    let command = |line: &'static str| {
        let (name, value) = line.strip_prefix("pub const ")?.split_once(": u32 = ")?;
        if !value.starts_with("command(") && !value.starts_with("with::<") {
            return None;
        }
        let (_, number) = value.rsplit_once("0x")?;
        let number = u32::from_str_radix(number.strip_suffix(");")?, 16).ok()?;
        Some((name, number))
    };
    SOURCES
        .into_iter()
        .flat_map(str::lines)
        .filter_map(command)
        .collect()
}

#[test]
fn commands_are_told_by_name() {
    let number = |text: &str| u32::from_str_radix(text.strip_prefix("0x")?, 16).ok();
    let told: Vec<_> = rows("## Commands")
        .into_iter()
        .map(|row| (row[1], number(row[0]).expect("a number") & 0xFF))
        .collect();
    let names: BTreeSet<_> = told.iter().copied().collect();
    assert_eq!(names.len(), told.len());
    assert_eq!(names, commands());
}

/// The commands that are known where `ioctl` carries them out: those for which an argument has another answer than what
/// there is not.
fn known(unknown: Errno, ioctl: impl Fn(u32, u64) -> Result<u64, Errno>) -> BTreeSet<String> {
    let mut known = BTreeSet::new();
    for direction in 0..4 {
        for size in (0..=256).step_by(4) {
            for number in 0..=0xFF {
                let command = direction << 30 | size << 16 | 0xAE << 8 | number;
                if [NONSENSE, 0].map(|argument| ioctl(command, argument)) != [Err(unknown); 2] {
                    known.insert(format!("{command:#010x}"));
                }
            }
        }
    }
    known
}

#[test]
fn commands_are_those_that_each_descriptor_has() {
    let of = |unknown, object: Arc<dyn Descriptor>| {
        known(unknown, move |command, argument| {
            Arc::clone(&object).ioctl(command, argument)
        })
    };
    let guest = Guest::new(0, 1);
    let (ground, device) = Ground::with_controller();
    let machine: &Machine = &guest.machine;
    // A run ends at once.
    machine.set_signal(true);
    for (name, found) in [
        (
            "system",
            known(Errno::INVAL, |command, argument| {
                guest.system.ioctl(command, argument)
            }),
        ),
        ("VM", of(Errno::INVAL, machine.object(guest.descriptors[0]))),
        ("vCPU", of(Errno::INVAL, machine.object(guest.descriptors[2]))),
        ("device", of(Errno::NOTTY, ground.machine.object(device))),
    ] {
        let told: BTreeSet<_> = rows("## Commands")
            .into_iter()
            .filter(|row| row[2].split(", ").any(|of| of == name))
            .map(|row| row[0].to_owned())
            .collect();
        assert_eq!(found, told, "{name}");
    }
    // A file has none.
    let file = of(Errno::NOTTY, machine.object(guest.descriptors[1]));
    assert_eq!(file, BTreeSet::new());
}
