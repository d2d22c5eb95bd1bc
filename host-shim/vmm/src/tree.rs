//! The guest's device tree (Devicetree Specification 0.4, and the bindings of Linux).

use crate::layout::{self, Placement, Range};
use anyhow::{Context as _, Result};
use vm_fdt::FdtWriter;

/// Phandles.
const INTERRUPTS: u32 = 1;
const BOUNCE: u32 = 2;

/// Interrupt specifiers of the GICv3 binding: the kind of the interrupt, then its number, then its trigger.
const SHARED: u32 = 0;
const PRIVATE: u32 = 1;
const EDGE: u32 = 1;
const LEVEL: u32 = 4;

/// The interrupts of the architectural timers: secure, non-secure, virtual, hypervisor.
const TIMERS: [u32; 4] = [13, 14, 11, 10];

/// The clock that a 16550A divides: what its binding must name, though nothing here depends on it.
const SERIAL_CLOCK: u32 = 1_843_200;

/// What a tree describes beside the [`Placement`].
#[derive(Clone, Debug)]
pub struct Description<'a> {
    /// The kernel's command line.
    pub command_line: &'a str,
    /// The number of CPUs.
    pub cpus: u32,
    /// The number of virtio devices, which take the first places.
    pub virtio: usize,
    /// What the guest's random numbers may be seeded with, if anything. A guest that does not trust its host wants
    /// none.
    pub seed: Option<&'a [u8]>,
}

/// The flattened tree of a guest.
///
/// # Errors
/// If a string cannot be in a tree, such as one with a zero byte.
pub fn build(placement: &Placement, description: &Description<'_>) -> Result<Vec<u8>> {
    let mut tree = FdtWriter::new().context("cannot begin the device tree")?;
    write(&mut tree, placement, description).context("cannot write the device tree")?;
    tree.finish().context("cannot end the device tree")
}

fn write(
    tree: &mut FdtWriter,
    placement: &Placement,
    description: &Description<'_>,
) -> Result<(), vm_fdt::Error> {
    let root = tree.begin_node("")?;
    tree.property_string("compatible", "linux,dummy-virt")?;
    tree.property_u32("#address-cells", 2)?;
    tree.property_u32("#size-cells", 2)?;
    tree.property_u32("interrupt-parent", INTERRUPTS)?;
    chosen(tree, placement, description)?;
    memory(tree, placement)?;
    cpus(tree, description.cpus)?;
    interrupts(tree, description.cpus)?;
    serial(tree)?;
    for index in 0..description.virtio {
        virtio(tree, index, placement.bounce.is_some())?;
    }
    tree.end_node(root)
}

fn chosen(
    tree: &mut FdtWriter,
    placement: &Placement,
    description: &Description<'_>,
) -> Result<(), vm_fdt::Error> {
    let node = tree.begin_node("chosen")?;
    tree.property_string("bootargs", description.command_line)?;
    tree.property_string("stdout-path", &serial_name(true))?;
    if placement.initrd.size > 0 {
        tree.property_u64("linux,initrd-start", placement.initrd.start)?;
        tree.property_u64("linux,initrd-end", placement.initrd.end())?;
    }
    if let Some(seed) = description.seed {
        tree.property("rng-seed", seed)?;
    }
    tree.end_node(node)
}

fn memory(tree: &mut FdtWriter, placement: &Placement) -> Result<(), vm_fdt::Error> {
    let node = tree.begin_node(&format!("memory@{:x}", placement.ram.start))?;
    tree.property_string("device_type", "memory")?;
    registers(tree, &[placement.ram])?;
    tree.end_node(node)?;
    let Some(bounce) = placement.bounce else {
        return Ok(());
    };
    let node = tree.begin_node("reserved-memory")?;
    tree.property_u32("#address-cells", 2)?;
    tree.property_u32("#size-cells", 2)?;
    tree.property_null("ranges")?;
    let pool = tree.begin_node(&format!("bounce@{:x}", bounce.start))?;
    tree.property_string("compatible", "restricted-dma-pool")?;
    registers(tree, &[bounce])?;
    tree.property_phandle(BOUNCE)?;
    tree.end_node(pool)?;
    tree.end_node(node)
}

fn cpus(tree: &mut FdtWriter, number: u32) -> Result<(), vm_fdt::Error> {
    let node = tree.begin_node("cpus")?;
    tree.property_u32("#address-cells", 1)?;
    tree.property_u32("#size-cells", 0)?;
    for index in 0..number {
        let affinity = layout::affinity(index);
        let cpu = tree.begin_node(&format!("cpu@{affinity:x}"))?;
        tree.property_string("device_type", "cpu")?;
        tree.property_string("compatible", "arm,armv8")?;
        tree.property_u32("reg", affinity as u32)?;
        tree.property_string("enable-method", "psci")?;
        tree.end_node(cpu)?;
    }
    tree.end_node(node)?;
    let node = tree.begin_node("psci")?;
    tree.property_string_list("compatible", vec!["arm,psci-1.0".into(), "arm,psci-0.2".into()])?;
    tree.property_string("method", "hvc")?;
    tree.end_node(node)
}

fn interrupts(tree: &mut FdtWriter, cpus: u32) -> Result<(), vm_fdt::Error> {
    let node = tree.begin_node(&format!("interrupt-controller@{:x}", layout::DISTRIBUTOR))?;
    tree.property_string("compatible", "arm,gic-v3")?;
    tree.property_null("interrupt-controller")?;
    tree.property_u32("#interrupt-cells", 3)?;
    let distributor = Range {
        start: layout::DISTRIBUTOR,
        size: layout::DISTRIBUTOR_SIZE,
    };
    let redistributors = Range {
        start: layout::REDISTRIBUTORS,
        size: u64::from(cpus) * layout::REDISTRIBUTOR_SIZE,
    };
    registers(tree, &[distributor, redistributors])?;
    tree.property_phandle(INTERRUPTS)?;
    tree.end_node(node)?;
    let node = tree.begin_node("timer")?;
    tree.property_string("compatible", "arm,armv8-timer")?;
    let specifiers: Vec<_> = TIMERS
        .into_iter()
        .flat_map(|number| [PRIVATE, number, LEVEL])
        .collect();
    tree.property_array_u32("interrupts", &specifiers)?;
    tree.property_null("always-on")?;
    tree.end_node(node)
}

/// The node's name, or its path.
fn serial_name(path: bool) -> String {
    format!("{}serial@{:x}", if path { "/" } else { "" }, layout::SERIAL)
}

fn serial(tree: &mut FdtWriter) -> Result<(), vm_fdt::Error> {
    let node = tree.begin_node(&serial_name(false))?;
    tree.property_string("compatible", "ns16550a")?;
    registers(
        tree,
        &[Range {
            start: layout::SERIAL,
            size: layout::PAGE,
        }],
    )?;
    tree.property_u32("clock-frequency", SERIAL_CLOCK)?;
    tree.property_array_u32("interrupts", &[SHARED, layout::SERIAL_INTERRUPT, EDGE])?;
    tree.end_node(node)
}

fn virtio(tree: &mut FdtWriter, index: usize, bounces: bool) -> Result<(), vm_fdt::Error> {
    let address = layout::virtio(index);
    let node = tree.begin_node(&format!("virtio@{address:x}"))?;
    tree.property_string("compatible", "virtio,mmio")?;
    registers(
        tree,
        &[Range {
            start: address,
            size: layout::PAGE,
        }],
    )?;
    tree.property_array_u32("interrupts", &[SHARED, layout::virtio_interrupt(index), EDGE])?;
    tree.property_null("dma-coherent")?;
    if bounces {
        tree.property_u32("memory-region", BOUNCE)?;
    }
    tree.end_node(node)
}

fn registers(tree: &mut FdtWriter, ranges: &[Range]) -> Result<(), vm_fdt::Error> {
    let cells: Vec<_> = ranges
        .iter()
        .flat_map(|range| [range.start, range.size])
        .collect();
    tree.property_array_u64("reg", &cells)
}

#[cfg(test)]
mod tests {
    use super::*;
    use dtoolkit::{Node as _, Property as _, fdt::Fdt};

    fn description() -> Description<'static> {
        Description {
            command_line: "console=ttyS0",
            cpus: 18,
            virtio: 2,
            seed: None,
        }
    }

    fn built(bounce: u64, description: &Description<'_>) -> Vec<u8> {
        let placement = Placement::new(64 << 20, 1 << 20, 100, bounce).unwrap();
        build(&placement, description).unwrap()
    }

    #[test]
    fn a_tree_says_what_the_machine_is() {
        let bytes = built(8 << 20, &description());
        let tree = Fdt::new(&bytes).unwrap();
        let find = |path: &str| tree.find_node(path).unwrap_or_else(|| panic!("no {path}"));
        let word = |path: &str, name: &str| find(path).property(name).unwrap().value_as::<u32>().unwrap();
        assert_eq!(
            find("/chosen")
                .property("bootargs")
                .unwrap()
                .value_as::<&str>()
                .unwrap(),
            "console=ttyS0"
        );
        assert_eq!(word("/cpus/cpu@101", "reg"), 0x101);
        assert!(tree.find_node("/cpus/cpu@102").is_none());
        assert_eq!(
            find("/reserved-memory/bounce@43800000")
                .property("compatible")
                .unwrap()
                .value_as::<&str>()
                .unwrap(),
            "restricted-dma-pool"
        );
        assert_eq!(word("/virtio@a001000", "memory-region"), BOUNCE);
        assert!(tree.find_node("/virtio@a002000").is_none());
        assert!(tree.find_node("/serial@9000000").is_some());
        assert!(find("/chosen").property("rng-seed").is_none());
    }

    #[test]
    fn without_bounce_memory_devices_reach_all() {
        let bytes = built(
            0,
            &Description {
                seed: Some(&[1; 32]),
                ..description()
            },
        );
        let tree = Fdt::new(&bytes).unwrap();
        assert!(tree.find_node("/reserved-memory").is_none());
        let device = tree.find_node("/virtio@a000000").unwrap();
        assert!(device.property("memory-region").is_none());
        assert_eq!(
            tree.find_node("/chosen")
                .unwrap()
                .property("rng-seed")
                .unwrap()
                .value(),
            [1; 32]
        );
    }

    #[test]
    fn a_command_line_that_ends_early_is_refused() {
        let placement = Placement::new(64 << 20, 1 << 20, 0, 0).unwrap();
        let bad = Description {
            command_line: "a\0b",
            ..description()
        };
        assert!(build(&placement, &bad).is_err());
    }
}
