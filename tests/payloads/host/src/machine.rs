//! The machine, as its device tree describes it.
#![expect(unsafe_code, reason = "reads the device tree where the loader left it")]

use arrayvec::{ArrayString, ArrayVec};
use core::ops::Range;
use core::ptr::with_exposed_provenance;
use dtoolkit::fdt::{Fdt, FdtNode};
use dtoolkit::standard::NodeStandard;
use dtoolkit::{Node, Property, ToCellInt};
use spin::Once;

/// What the payload knows of the machine. Addresses are physical.
#[derive(Debug, Default)]
pub(crate) struct Machine {
    /// The PL011.
    pub(crate) uart: u64,
    /// The distributor.
    pub(crate) gic_distributor: u64,
    /// The redistributor regions.
    pub(crate) gic_redistributors: ArrayVec<Range<u64>, 8>,
    /// MPIDR affinities, in the order of the tree.
    pub(crate) cpus: ArrayVec<u64, { crate::cpu::MAX }>,
    /// RAM, in the order of the tree.
    pub(crate) memory: ArrayVec<Range<u64>, 16>,
    /// Memory that is not free: reservations, the tree itself, the ramdisk.
    pub(crate) reserved: ArrayVec<Range<u64>, 32>,
    /// The reservations that must not even be mapped: firmware and hypervisor.
    pub(crate) no_map: ArrayVec<Range<u64>, 16>,
    /// Whether PSCI is reached by SMC; by HVC otherwise.
    pub(crate) psci_by_smc: bool,
    /// The ramdisk, if the loader left one.
    pub(crate) ramdisk: Option<Range<u64>>,
    /// What the payload is told to do.
    pub(crate) command_line: ArrayString<512>,
    /// Devices that the cases look for.
    pub(crate) devices: Devices,
}

/// Devices that the cases look for, as far as the tree names them.
#[derive(Debug, Default)]
pub(crate) struct Devices {
    /// QEMU's firmware configuration device.
    pub(crate) fw_cfg: bool,
    /// A GIC interrupt translation service.
    pub(crate) its: bool,
    /// Physical address of the GPIO that the power button is on: a PL061.
    pub(crate) gpio: Option<u64>,
    /// Interrupts of the architected timer, as (type, number) pairs in the binding's order.
    pub(crate) timer_interrupts: ArrayVec<(u32, u32), 5>,
}

/// What the tree lacks.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Missing(pub(crate) &'static str);

static MACHINE: Once<Machine> = Once::new();

/// The machine. Call it only after [`Machine::read`] has succeeded.
pub(crate) fn machine() -> &'static Machine {
    MACHINE.get().expect("the boot CPU reads the tree first")
}

impl Machine {
    /// Reads the device tree at the physical address `tree`.
    ///
    /// # Errors
    /// What is missing from it.
    pub(crate) fn read(tree: u64) -> Result<&'static Self, Missing> {
        let pointer = with_exposed_provenance(usize::try_from(tree).map_err(|_| Missing("tree"))?);
        // SAFETY: the boot protocol puts a device tree there; the entry code has mapped it; the frame allocator
        // leaves it alone, so it does not change.
        let fdt = unsafe { Fdt::from_raw(pointer) }.map_err(|_| Missing("tree"))?;
        MACHINE.try_call_once(|| {
            let mut machine = Self::parse(&fdt).ok_or(Missing("node or property"))?;
            let size = fdt.data().len() as u64;
            machine
                .reserved
                .try_push(tree..tree + size)
                .map_err(|_| Missing("room for reservations"))?;
            Ok(machine)
        })
    }

    fn parse(fdt: &Fdt<'static>) -> Option<Self> {
        let mut machine = Self::default();
        let root = fdt.root();
        for node in root.children() {
            if node
                .property("device_type")
                .is_some_and(|p| p.value_as::<&str>() == Ok("memory"))
            {
                for range in ranges(node) {
                    machine.memory.try_push(range).ok()?;
                }
            } else if node.is_compatible("arm,pl011") {
                machine.uart = ranges(node).next()?.start;
            } else if node.is_compatible("arm,gic-v3") {
                let mut regions = ranges(node);
                machine.gic_distributor = regions.next()?.start;
                let count = node
                    .property("#redistributor-regions")
                    .map_or(Ok(1), |p| p.value_as::<u32>())
                    .ok()?;
                machine.gic_redistributors = regions.take(count as usize).collect();
                machine.devices.its = node.children().any(|child| child.is_compatible("arm,gic-v3-its"));
            } else if node.is_compatible("arm,pl061") {
                machine.devices.gpio = ranges(node).next().map(|range| range.start);
            } else if node.is_compatible("qemu,fw-cfg-mmio") {
                machine.devices.fw_cfg = true;
            } else if node.is_compatible("arm,armv8-timer") {
                let cells = node.property("interrupts")?;
                for [kind, number, _] in cells.as_prop_encoded_array([1, 1, 1]).ok()? {
                    let pair = (kind.to_int().ok()?, number.to_int().ok()?);
                    machine.devices.timer_interrupts.try_push(pair).ok()?;
                }
            }
        }
        for cpu in fdt.cpus().ok()?.cpus() {
            let affinity = cpu.property("reg")?;
            let value = affinity.value();
            let affinity = value
                .iter()
                .fold(0_u64, |value, byte| value << 8 | u64::from(*byte));
            machine.cpus.try_push(affinity).ok()?;
        }
        let psci = fdt.find_node("/psci")?;
        machine.psci_by_smc = psci.property("method")?.value_as::<&str>() == Ok("smc");
        machine.read_reservations(fdt)?;
        if let Some(chosen) = fdt.chosen() {
            machine.command_line = ArrayString::from(chosen.bootargs().ok()?.unwrap_or("")).ok()?;
            let address = |name| {
                chosen
                    .property(name)
                    .and_then(|property| integer(property.value()))
            };
            if let (Some(start), Some(end)) = (address("linux,initrd-start"), address("linux,initrd-end")) {
                machine.reserved.try_push(start..end).ok()?;
                machine.ramdisk = Some(start..end);
            }
        }
        Some(machine)
    }

    fn read_reservations(&mut self, fdt: &Fdt<'static>) -> Option<()> {
        for reservation in fdt.memory_reservations() {
            self.reserved
                .try_push(reservation.address()..reservation.address() + reservation.size())
                .ok()?;
        }
        if let Some(node) = fdt.find_node("/reserved-memory") {
            for child in node.children() {
                for range in ranges(child) {
                    self.reserved.try_push(range.clone()).ok()?;
                    if child.property("no-map").is_some() {
                        self.no_map.try_push(range).ok()?;
                    }
                }
            }
        }
        Some(())
    }

    /// Bytes of RAM.
    pub(crate) fn memory_size(&self) -> u64 {
        self.memory.iter().map(|range| range.end - range.start).sum()
    }
}

/// The address ranges of a node's `reg`.
fn ranges(node: FdtNode<'static>) -> impl Iterator<Item = Range<u64>> {
    node.reg().ok().flatten().into_iter().flatten().filter_map(|reg| {
        let start: u64 = reg.address().ok()?;
        let size: u64 = reg.size().ok()?;
        Some(start..start.checked_add(size)?)
    })
}

/// A property of one or two cells as a number: `/chosen` is written in either form.
fn integer(value: &[u8]) -> Option<u64> {
    matches!(value.len(), 4 | 8).then(|| value.iter().fold(0, |sum, byte| sum << 8 | u64::from(*byte)))
}
