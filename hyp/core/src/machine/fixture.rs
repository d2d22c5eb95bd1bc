//! Device trees for tests: QEMU's own, as they are or with a change made to them.

use dtoolkit::fdt::Fdt;
use dtoolkit::model::{DeviceTree, DeviceTreeNode, DeviceTreeProperty};
use proptest::prelude::*;
use std::vec::Vec;

/// QEMU `virt`, one Cortex-A72, 1 GiB.
pub(super) const ONE_CPU: &[u8] = include_bytes!("../../tests-data/one-cpu.dtb");
/// QEMU `virt`, eight Cortex-A53, 8 GiB.
pub(super) const EIGHT_CPUS: &[u8] = include_bytes!("../../tests-data/eight-cpus.dtb");
/// QEMU `virt`, 64 CPUs, 64 GiB, an SMMU, seeds.
pub(super) const SIXTY_FOUR_CPUS: &[u8] = include_bytes!("../../tests-data/sixty-four-cpus.dtb");
/// QEMU `virt`, eight CPUs, 2 GiB in two NUMA nodes.
pub(super) const NUMA: &[u8] = include_bytes!("../../tests-data/numa.dtb");
/// QEMU `virt` with a GICv2.
pub(super) const GIC_V2: &[u8] = include_bytes!("../../tests-data/gicv2.dtb");
/// QEMU `virt` without EL2.
pub(super) const NO_EL2: &[u8] = include_bytes!("../../tests-data/no-el2.dtb");

/// The trees that Freehold runs on.
pub(super) const GOOD: [&[u8]; 4] = [ONE_CPU, EIGHT_CPUS, SIXTY_FOUR_CPUS, NUMA];

/// A tree that can be changed.
pub(super) struct Tree(DeviceTree);

impl Tree {
    pub(super) fn from(dtb: &[u8]) -> Self {
        Self(DeviceTree::from_fdt(&Fdt::new(dtb).unwrap()))
    }

    /// Sets a property of the node at `path`, to cells.
    pub(super) fn cells(self, path: &str, name: &str, cells: &[u32]) -> Self {
        let bytes: Vec<u8> = cells.iter().flat_map(|cell| cell.to_be_bytes()).collect();
        self.bytes(path, name, &bytes)
    }

    /// Sets a property of the node at `path`, to bytes (a string ends with its zero).
    pub(super) fn bytes(mut self, path: &str, name: &str, value: &[u8]) -> Self {
        let property = DeviceTreeProperty::new(name, value).unwrap();
        self.0.find_node_mut(path).unwrap().add_property(property);
        self
    }

    /// Takes a property away, which must be there.
    pub(super) fn without(mut self, path: &str, name: &str) -> Self {
        self.0.find_node_mut(path).unwrap().remove_property(name).unwrap();
        self
    }

    /// Adds an empty node.
    pub(super) fn node(mut self, parent: &str, name: &str) -> Self {
        self.0
            .find_node_mut(parent)
            .unwrap()
            .add_child(DeviceTreeNode::new(name).unwrap());
        self
    }

    /// Takes a node away, which must be there.
    pub(super) fn without_node(mut self, parent: &str, name: &str) -> Self {
        self.0.find_node_mut(parent).unwrap().remove_child(name).unwrap();
        self
    }

    /// Adds a memory node of the root.
    pub(super) fn memory(self, start: u64, size: u64) -> Self {
        let name = std::format!("memory@{start:x}");
        let path = std::format!("/{name}");
        self.node("/", &name)
            .bytes(&path, "device_type", b"memory\0")
            .cells(&path, "reg", &wide(start, size))
    }

    /// Adds a reservation to the header's block.
    pub(super) fn memreserve(mut self, start: u64, size: u64) -> Self {
        self.0
            .memory_reservations
            .push(dtoolkit::memreserve::MemoryReservation::new(start, size));
        self
    }

    pub(super) fn dtb(&self) -> Vec<u8> {
        self.0.to_dtb()
    }
}

/// A range in two cells each.
pub(super) fn wide(start: u64, size: u64) -> [u32; 4] {
    [
        (start >> 32) as u32,
        start as u32,
        (size >> 32) as u32,
        size as u32,
    ]
}

/// Overwrites words of `dtb` at positions taken modulo its size.
pub(super) fn damage(dtb: &[u8], changes: &[(usize, u32)]) -> Vec<u8> {
    let mut damaged = dtb.to_vec();
    for (position, word) in changes {
        let start = position % (damaged.len() - 4);
        damaged[start..start + 4].copy_from_slice(&word.to_be_bytes());
    }
    damaged
}

/// Words that break things: small numbers (tokens among them), large ones, any.
pub(super) fn nasty_word() -> impl Strategy<Value = u32> {
    prop_oneof![
        0..16_u32,
        Just(u32::MAX),
        Just(0x7fff_ffff),
        Just(0x8000_0000),
        any::<u32>()
    ]
}
