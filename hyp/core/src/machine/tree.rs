//! Writes the device tree that the host gets: the machine's own, without what EL2 keeps, with what EL2 asks for.
//!
//! [`edit`] streams the nodes of the input through a writer into the output, token by token: one pass, no
//! memory but the output. (`dtoolkit`'s own writer allocates; its in-place editor moves the rest of the tree at
//! each insertion and looks nodes up by names that need not be unique.)
//!
//! What changes, beside what [`Edits`] asks for:
//! - fw_cfg and ITS nodes go, and with an ITS every `msi-map` and `msi-parent` that points to one;
//! - the timer's interrupts shrink to those of the EL1 physical timer, so that Linux takes that one;
//! - the loader's modules go from `/chosen`.

mod writer;

use super::describe::{FW_CFG, ITS, KERNEL_MODULE, RAMDISK_MODULE, TIMER};
use super::range::PhysRange;
use super::refusal::RefusalReason;
use super::walk::{Facts, Step, Walk, parse, strings};
use arrayvec::{ArrayString, ArrayVec};
use core::fmt::Write as _;
use dtoolkit::fdt::{Fdt, FdtProperty};
use dtoolkit::{Node, Property};
use thiserror::Error;
use writer::{Added, Writer};

/// What the host's tree says that the machine's does not.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Edits<'a> {
    /// EL2's memory, each range a `no-map` node of `/reserved-memory`.
    pub reserved: &'a [PhysRange],
    /// The kernel's command line; `None` leaves the kernel without.
    pub bootargs: Option<&'a str>,
    /// Where the ramdisk is.
    pub ramdisk: Option<PhysRange>,
    /// The bytes of `rng-seed`; `None` leaves the kernel without.
    pub rng_seed: Option<&'a [u8]>,
    /// The bytes of `kaslr-seed`, at most 8 of use to Linux; `None` leaves the kernel without.
    pub kaslr_seed: Option<&'a [u8]>,
}

/// Why the host's tree could not be written.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
pub enum EditError {
    /// The input cannot be read.
    #[error(transparent)]
    Unreadable(#[from] RefusalReason),
    /// The output buffer is too small.
    #[error("the host's device tree needs more than {0} bytes")]
    OutputTooSmall(usize),
    /// The tree's cells cannot hold the range.
    #[error("the device tree's #address-cells and #size-cells cannot hold {0}")]
    CellsTooFew(PhysRange),
}

/// How many bytes [`edit`] may need for the tree of an input of `input` bytes.
#[must_use]
pub fn output_bound(input: usize, edits: &Edits<'_>) -> usize {
    const FIXED: usize = 1024;
    const EACH_RANGE: usize = 128;
    let seeds = edits
        .rng_seed
        .map_or(0, <[u8]>::len)
        .saturating_add(edits.kaslr_seed.map_or(0, <[u8]>::len));
    let given = edits.bootargs.map_or(0, str::len).saturating_add(seeds);
    let ranges = edits.reserved.len().saturating_mul(EACH_RANGE);
    input
        .saturating_add(FIXED)
        .saturating_add(given)
        .saturating_add(ranges)
}

/// Writes the host's tree, made of the one at the start of `input`, to the start of `output`, and says how many
/// bytes it has. The output must be aligned to 8 bytes where the kernel sees it (arm64 boot protocol).
///
/// # Errors
/// If the input is no device tree, or the output has no room for the result.
pub fn edit(input: &[u8], output: &mut [u8], edits: &Edits<'_>) -> Result<usize, EditError> {
    let tree = parse(input)?;
    let context = Context::of(tree)?;
    let mut writer = Writer::new(tree, output)?;
    let mut walk = Walk::new(tree);
    // Where the walk is in the output: so deep are the nodes begun and not ended.
    let mut depth = 0_usize;
    while let Some(step) = walk.step()? {
        match step {
            Step::Enter if is_dropped(&walk) => {
                // Its end comes right after: it must not end a node of the output.
                walk.skip_children();
                walk.step()?;
            }
            Step::Enter => {
                depth += 1;
                begin(&walk, &context, edits, &mut writer)?;
            }
            Step::Leave => {
                depth -= 1;
                if depth == 0 {
                    finish_root(&context, edits, &mut writer)?;
                }
                writer.end_node()?;
            }
        }
    }
    writer.finish()
}

/// What must be known of the whole tree before its first node is written.
struct Context {
    its_phandles: ArrayVec<u32, { super::MAX_GIC_FRAMES }>,
    interrupt_cells: usize,
    has_chosen: bool,
    has_reserved_memory: bool,
    address_cells: usize,
    size_cells: usize,
}

impl Context {
    fn of(tree: Fdt<'_>) -> Result<Self, EditError> {
        let mut context = Self {
            its_phandles: ArrayVec::new(),
            interrupt_cells: 3,
            has_chosen: false,
            has_reserved_memory: false,
            address_cells: 0,
            size_cells: 0,
        };
        let mut walk = Walk::new(tree);
        while walk.next_node()? {
            let facts = walk.facts();
            match (walk.depth(), walk.name()) {
                (0, _) => {
                    (context.address_cells, context.size_cells) = (facts.address_cells(), facts.size_cells())
                }
                (1, CHOSEN) => context.has_chosen = true,
                (1, RESERVED_MEMORY) => context.has_reserved_memory = true,
                _ => {}
            }
            if facts.is_compatible(&["arm,gic-v3"]) && facts.interrupt_cells == Some(4) {
                context.interrupt_cells = 4;
            }
            if let Some(phandle) = facts.phandle.filter(|_| facts.is_compatible(&[ITS])) {
                context
                    .its_phandles
                    .try_push(phandle)
                    .map_err(|_| RefusalReason::TooMany {
                        what: "ITSs",
                        capacity: super::MAX_GIC_FRAMES,
                    })?;
            }
        }
        Ok(context)
    }

    /// Whether a property of the name `name` leads to an ITS. `msi-parent` lists controllers, each with its own
    /// number of cells, mostly none or one; `msi-map` holds a controller in the second of each four cells.
    fn leads_to_its(&self, property: &FdtProperty<'_>) -> bool {
        let mut cells = property
            .value()
            .chunks_exact(4)
            .filter_map(|cell| cell.try_into().ok().map(u32::from_be_bytes));
        let is_its = |cell: u32| self.its_phandles.contains(&cell);
        match property.name() {
            "msi-parent" => cells.any(is_its),
            "msi-map" => cells.skip(1).step_by(4).any(is_its),
            _ => false,
        }
    }
}

const CHOSEN: &str = "chosen";
const RESERVED_MEMORY: &str = "reserved-memory";

/// What `/chosen` says that comes from [`Edits`], never from the input.
const REPLACED_IN_CHOSEN: [&str; 5] = [
    "bootargs",
    "linux,initrd-start",
    "linux,initrd-end",
    "rng-seed",
    "kaslr-seed",
];

/// Whether the host's tree goes without the node that the walk is at, and all below it.
fn is_dropped(walk: &Walk<'_>) -> bool {
    let facts = walk.facts();
    let is_module =
        walk.is_child_of(CHOSEN) && facts.is_compatible(&[KERNEL_MODULE, RAMDISK_MODULE, "multiboot,module"]);
    walk.depth() > 0 && (is_module || facts.is_compatible(&[FW_CFG, ITS]))
}

/// Begins the node that the walk is at, with its properties as the host shall see them.
fn begin<'a>(
    walk: &Walk<'a>,
    context: &Context,
    edits: &Edits<'_>,
    writer: &mut Writer<'a, '_>,
) -> Result<(), EditError> {
    let facts = walk.facts();
    let is_chosen = walk.depth() == 1 && walk.name() == CHOSEN;
    let is_timer = facts.is_compatible(&TIMER);
    writer.begin_node(walk.name())?;
    for property in walk.node().into_iter().flat_map(|node| node.properties()) {
        if is_chosen && REPLACED_IN_CHOSEN.contains(&property.name()) || context.leads_to_its(&property) {
            continue;
        }
        if is_timer && matches!(property.name(), "interrupts" | "interrupt-names") {
            write_timer_interrupts(&property, facts, context, writer)?;
        } else {
            writer.copy_property(&property)?;
        }
    }
    if is_chosen {
        write_chosen(edits, writer)?;
    }
    if walk.depth() == 1 && walk.name() == RESERVED_MEMORY {
        write_reservations(edits, facts.address_cells(), facts.size_cells(), writer)?;
    }
    Ok(())
}

/// Ends the root with the nodes that the input had not.
fn finish_root(context: &Context, edits: &Edits<'_>, writer: &mut Writer<'_, '_>) -> Result<(), EditError> {
    if !context.has_chosen {
        writer.begin_node(CHOSEN)?;
        write_chosen(edits, writer)?;
        writer.end_node()?;
    }
    if !context.has_reserved_memory && !edits.reserved.is_empty() {
        // Linux takes the node only if its cells are the root's and its `ranges` is empty.
        writer.begin_node(RESERVED_MEMORY)?;
        writer.add_cells(Added::AddressCells, context.address_cells)?;
        writer.add_cells(Added::SizeCells, context.size_cells)?;
        writer.add_property(Added::Ranges, &[])?;
        write_reservations(edits, context.address_cells, context.size_cells, writer)?;
        writer.end_node()?;
    }
    Ok(())
}

fn write_chosen(edits: &Edits<'_>, writer: &mut Writer<'_, '_>) -> Result<(), EditError> {
    if let Some(bootargs) = edits.bootargs {
        writer.add_parts(Added::Bootargs, &[bootargs.as_bytes(), &[0]])?;
    }
    if let Some(ramdisk) = edits.ramdisk {
        writer.add_property(Added::InitrdStart, &ramdisk.start().to_be_bytes())?;
        writer.add_property(Added::InitrdEnd, &ramdisk.end().to_be_bytes())?;
    }
    if let Some(seed) = edits.rng_seed {
        writer.add_property(Added::RngSeed, seed)?;
    }
    if let Some(seed) = edits.kaslr_seed {
        writer.add_property(Added::KaslrSeed, seed)?;
    }
    Ok(())
}

/// Writes a `no-map` node for each of EL2's ranges: memory that the kernel neither maps nor lists as its own.
fn write_reservations(
    edits: &Edits<'_>,
    address_cells: usize,
    size_cells: usize,
    writer: &mut Writer<'_, '_>,
) -> Result<(), EditError> {
    for range in edits.reserved {
        let too_few = EditError::CellsTooFew(*range);
        let mut name: ArrayString<32> = ArrayString::new();
        write!(name, "freehold@{:x}", range.start()).map_err(|_| too_few.clone())?;
        writer.begin_node(&name)?;
        let (start, size) = (range.start().to_be_bytes(), range.size().to_be_bytes());
        let start = last_cells(&start, address_cells).ok_or(too_few.clone())?;
        let size = last_cells(&size, size_cells).ok_or(too_few)?;
        writer.add_parts(Added::Reg, &[start, size])?;
        writer.add_property(Added::NoMap, &[])?;
        writer.end_node()?;
    }
    Ok(())
}

/// The last one or two cells of a number, if they hold all of it.
fn last_cells(number: &[u8; 8], cells: usize) -> Option<&[u8]> {
    match (cells, number) {
        (2, _) => Some(number),
        (1, [0, 0, 0, 0, low @ ..]) => Some(low),
        _ => None,
    }
}

/// Writes a property of the timer node without what speaks of the virtual timer and of EL2's. Without names the
/// first two entries are the physical timer's: the secure one and ours.
fn write_timer_interrupts<'a>(
    property: &FdtProperty<'a>,
    facts: &Facts<'a>,
    context: &Context,
    writer: &mut Writer<'a, '_>,
) -> Result<(), EditError> {
    let is_kept = |place: usize| match facts.interrupt_names {
        None => place < 2,
        Some(_) => strings(facts.interrupt_names)
            .nth(place)
            .is_some_and(|name| matches!(name, "sec-phys" | "phys")),
    };
    let parts: ArrayVec<&[u8], 8> = if property.name() == "interrupts" {
        let entries = property
            .value()
            .chunks_exact(4 * context.interrupt_cells)
            .enumerate();
        entries
            .filter(|(place, _)| is_kept(*place))
            .map(|(_, entry)| entry)
            .take(8)
            .collect()
    } else {
        let names = property.value().split_inclusive(|byte| *byte == 0).enumerate();
        names
            .filter(|(place, _)| is_kept(*place))
            .map(|(_, name)| name)
            .take(8)
            .collect()
    };
    writer.copy_property_as(property, &parts)
}

#[cfg(test)]
mod tests;
