//! Tests of the engine on the double of the machine.

mod access;
mod encoding;
mod exhaustion;
mod guest;
mod model;
mod oracle;
mod order;
mod page;
mod races;
mod random;
mod shape;

use super::*;
use crate::addr::{Frame, PhysAddr};
use crate::double::{Machine, Step};
use crate::geometry::Arm4K;
use crate::hardware::{Event, Extent};
use std::vec::Vec;

/// RAM of the host.
const RAM: Stage2Attributes = Stage2Attributes::HOST_MEMORY;

/// The host's table with the machine's geometry.
type HostTable = Table<Stage2, Arm4K>;

fn ipa(value: u64) -> Ipa {
    Ipa::new(value).unwrap()
}

fn pa(value: u64) -> PhysAddr {
    PhysAddr::new(value).unwrap()
}

fn span(start: u64, pages: u64) -> IpaSpan {
    IpaSpan::new(ipa(start), pages).unwrap()
}

/// A table of the host that translates 40 bits from level 0.
fn host_table(hw: &Machine<Arm4K>) -> HostTable {
    Table::new(hw.allocate_root(1), 0, 40, Regime::Host).unwrap()
}

fn map(to: u64, largest: LargestLeaf) -> Change<Stage2> {
    Change::Map {
        pa: pa(to),
        attributes: RAM,
        largest,
    }
}

fn unmap(annotation: u64, largest: LargestLeaf) -> Change<Stage2> {
    Change::Unmap {
        annotation: Annotation::new(annotation).unwrap(),
        largest,
    }
}

/// All entries of a table, raw enough to compare.
fn snapshot<F: Format, G: Geometry>(hw: &Machine<G>, table: &Table<F, G>) -> Vec<Entry<F>> {
    table.entries(hw, table.span()).collect()
}

/// How many tables hang from the root.
fn tables_below_root<F: Format, G: Geometry>(hw: &Machine<G>, table: &Table<F, G>) -> u64 {
    table
        .entries(hw, table.span())
        .filter(|entry| matches!(entry.descriptor, Descriptor::Table(_)))
        .count() as u64
}

/// The log without the pool's part and the filling of tables that are in no table yet: runs of stores to entries of one
/// level that were zero, at ascending addresses, are told as one [`Told::Fill`].
#[derive(Debug, PartialEq, Eq)]
enum Told {
    /// A descriptor: first address, level, and whether it was and is a leaf, a table or invalid.
    Set(u64, u8, Kind, Kind),
    /// A whole table of this level was filled, from this address on.
    Fill(u64, u8),
    Publish,
    Invalidate(u64, u64, Option<u8>),
    Free,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Kind {
    Zero,
    Annotated,
    Leaf,
    Table,
}

fn kind(raw: u64, level: u8) -> Kind {
    match Descriptor::<Stage2>::decode(raw, level) {
        Descriptor::Invalid(_) if raw == 0 => Kind::Zero,
        Descriptor::Invalid(_) => Kind::Annotated,
        Descriptor::Leaf { .. } => Kind::Leaf,
        Descriptor::Table(_) => Kind::Table,
    }
}

/// Retells the log, short enough to be written down in a test.
fn told<G: Geometry>(hw: &Machine<G>) -> Vec<Told> {
    let entries = G::ENTRIES;
    let log = hw.take_log();
    let mut told = Vec::new();
    let mut at = 0;
    while let Some(step) = log.get(at) {
        at += 1;
        match *step {
            Step::Core(Event::Descriptor {
                address,
                level,
                old,
                new,
                ..
            }) => {
                let is_fill = |first: usize| {
                    log.get(first..first + entries).is_some_and(|run| {
                        run.iter().zip(0_u64..).all(|(step, number)| {
                            matches!(step, Step::Core(Event::Descriptor { address: a, level: l, old: 0, .. })
                                if *l == level && a.value() == address.value() + (number << G::level_shift(level)))
                        })
                    })
                };
                if old == 0 && is_fill(at - 1) {
                    told.push(Told::Fill(address.value(), level));
                    at += entries - 1;
                } else {
                    told.push(Told::Set(
                        address.value(),
                        level,
                        kind(old, level),
                        kind(new, level),
                    ));
                }
            }
            Step::Publish => told.push(Told::Publish),
            Step::Invalidate(_, Extent::Range { start, pages, level }) => {
                told.push(Told::Invalidate(start.value(), pages, level));
            }
            Step::Free(_) => told.push(Told::Free),
            Step::Core(_) | Step::Allocate(_) => {}
            other => panic!("the engine does not do this: {other:?}"),
        }
    }
    told
}

/// The frame with this address.
fn frame(address: u64) -> Frame {
    pa(address).frame()
}
