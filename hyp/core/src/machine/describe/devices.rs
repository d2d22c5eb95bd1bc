//! The devices: what EL2 keeps, what it uses, and what must be trusted.

use super::interrupts::read_gic;
use super::{FW_CFG, ITS, push};
use crate::machine::walk::{Walk, strings};
use crate::machine::{DmaMasters, Gic, MAX_FW_CFGS, MAX_GIC_FRAMES, PhysRange, RefusalReason};
use arrayvec::ArrayVec;
use dtoolkit::Node;
use dtoolkit::fdt::Fdt;

/// Devices with registers that are known to master no memory. All others may.
const QUIET_DEVICES: [&str; 13] = [
    "arm,gic-v2m-frame",
    "arm,gic-v3",
    "arm,pl011",
    "arm,pl031",
    "arm,pl061",
    "arm,sbsa-gwdt",
    "arm,sbsa-uart",
    "arm,sp804",
    "arm,sp805",
    "cfi-flash",
    "mmio-sram",
    "ns16550a",
    "syscon",
];

/// SMMUs, as device trees name them.
const SMMUS: [&str; 5] = [
    "arm,smmu-v3",
    "arm,smmu-v2",
    "arm,smmu-v1",
    "arm,mmu-500",
    "arm,mmu-401",
];

/// Interrupt controllers of the generation before, for a better answer than "none".
const OLD_GICS: [&str; 3] = ["arm,cortex-a15-gic", "arm,cortex-a7-gic", "arm,gic-400"];

/// The devices found so far.
#[derive(Default)]
pub(super) struct Devices<'a> {
    gic: Option<Gic>,
    its: ArrayVec<PhysRange, MAX_GIC_FRAMES>,
    has_old_gic: bool,
    /// The cells of an interrupt, once the GIC is known.
    pub(super) interrupt_cells: usize,
    console_path: Option<&'a str>,
    console: Option<PhysRange>,
    first_uart: Option<PhysRange>,
    pub(super) fw_cfgs: ArrayVec<PhysRange, MAX_FW_CFGS>,
    pub(super) dma_masters: DmaMasters<'a>,
    pub(super) has_smmu: bool,
    pub(super) device_end: u64,
}

impl<'a> Devices<'a> {
    pub(super) fn new(tree: Fdt<'a>) -> Self {
        Self {
            console_path: console_path(tree),
            ..Self::default()
        }
    }

    /// Takes in the node that the walk is at.
    pub(super) fn take(&mut self, walk: &Walk<'a>) -> Result<(), RefusalReason> {
        let facts = walk.facts();
        let mut registers = walk.physical_reg().peekable();
        let first = registers.peek().copied();
        for range in registers.chain(walk.physical_windows()) {
            self.device_end = self.device_end.max(range.end());
        }
        if facts.is_compatible(&["arm,gic-v3"]) {
            if self.gic.is_some() {
                return Err(RefusalReason::TooMany {
                    what: "GICs",
                    capacity: 1,
                });
            }
            let (gic, cells) = read_gic(walk)?;
            (self.gic, self.interrupt_cells) = (Some(gic), cells);
        }
        self.has_old_gic |= facts.is_compatible(&OLD_GICS);
        // What EL2 keeps for itself it must know every register of, used or not.
        if facts.is_compatible(&[FW_CFG]) {
            return push_all(&mut self.fw_cfgs, walk, "the fw_cfg node", "fw_cfg devices");
        }
        if facts.is_compatible(&[ITS]) {
            return push_all(&mut self.its, walk, "an ITS node", "ITSs");
        }
        let Some(first) = first else { return Ok(()) };
        if facts.is_compatible(&["arm,pl011"]) {
            if self.console_path.is_some_and(|path| walk.is_at(path)) {
                self.console.get_or_insert(first);
            }
            if facts.is_enabled() {
                self.first_uart.get_or_insert(first);
            }
        }
        self.has_smmu |= facts.is_compatible(&SMMUS);
        if !facts.is_compatible(&QUIET_DEVICES) {
            self.dma_masters
                .add(facts.compatibles().next().unwrap_or(""), walk.name());
        }
        Ok(())
    }

    /// The registers of the console's PL011: the one that `/chosen` names, or else the first.
    pub(super) fn uart(&self) -> Option<PhysRange> {
        self.console.or(self.first_uart)
    }

    /// The interrupt controller, with its ITSs.
    pub(super) fn take_gic(&mut self) -> Result<Gic, RefusalReason> {
        let found = if self.has_old_gic {
            "a GICv2"
        } else {
            "no GIC known here"
        };
        let mut gic = self.gic.take().ok_or(RefusalReason::NoGicV3(found))?;
        gic.its = core::mem::take(&mut self.its);
        Ok(gic)
    }
}

/// Adds all registers of the node that the walk is at.
fn push_all<const N: usize>(
    list: &mut ArrayVec<PhysRange, N>,
    walk: &Walk<'_>,
    node: &'static str,
    what: &'static str,
) -> Result<(), RefusalReason> {
    let before = list.len();
    for range in walk.physical_reg() {
        push(list, range, what)?;
    }
    if list.len() == before {
        Err(RefusalReason::bad(node, "reg"))
    } else {
        Ok(())
    }
}

/// The path of the console: `/chosen`'s `stdout-path` without its options, looked up in `/aliases` if it is one
/// (Devicetree Specification 3.6).
fn console_path(tree: Fdt<'_>) -> Option<&str> {
    let string = |node: &str, name: &str| strings(tree.find_node(node)?.property(name)).next();
    let path = string("/chosen", "stdout-path")?.split(':').next()?;
    if path.starts_with('/') {
        Some(path)
    } else {
        string("/aliases", path)
    }
}
