//! The host's kernel, and the device tree that it gets.

#![expect(
    unsafe_code,
    reason = "reads the kernel's header, and writes the tree into the host's memory"
)]

use super::seeds::HostSeeds;
use crate::cache;
use crate::mmu::{EarlyMemory, EarlyTables};
use core::ptr;
use core::slice;
use hyp_core::machine::tree::{EditError, Edits, edit, output_bound};
use hyp_core::machine::{BootPlan, MachineDescription, PhysRange, RefusalReason, find_hole};

/// The arm64 Image header: `image_size` at byte 16, the magic number at byte 56.
const IMAGE_SIZE_OFFSET: usize = 16;
const MAGIC_OFFSET: usize = 56;
const MAGIC: u32 = u32::from_le_bytes(*b"ARM\x64");
const HEADER_SIZE: u64 = 64;

/// The tree begins on a page: the boot protocol asks for 8 bytes, and a page is its own to clean.
const TREE_ALIGNMENT: u64 = 4096;

/// Where the host starts.
pub(super) struct Host {
    /// The kernel's first instruction.
    pub(super) entry: u64,
    /// Its device tree.
    pub(super) tree: u64,
}

/// Writes the host's tree into the host's memory.
///
/// # Errors
/// If there is no room for it.
pub(super) fn prepare(
    machine: &MachineDescription<'_>,
    plan: &BootPlan,
    input: &[u8],
    input_at: PhysRange,
    tables: &mut EarlyTables,
) -> Result<Host, RefusalReason> {
    let reserved = [plan.reservation];
    let seeds = HostSeeds::of(machine);
    let edits = Edits {
        reserved: &reserved,
        bootargs: machine.kernel.bootargs,
        ramdisk: machine.ramdisk.map(|ramdisk| ramdisk.range),
        rng_seed: seeds.rng(),
        kaslr_seed: seeds.kaslr(),
    };
    let size = output_bound(input.len(), &edits) as u64;
    let kernel = kernel_memory(machine, tables);
    let avoid = [plan.reservation, input_at, kernel];
    let hole = find_hole(machine, size, TREE_ALIGNMENT, &avoid).ok_or(RefusalReason::NoRoomForTree(size))?;
    tables.map(hole.address(), hole.size(), EarlyMemory::Normal);
    let output: *mut u8 = ptr::with_exposed_provenance_mut(hole.start() as usize);
    // SAFETY: the hole is RAM that nothing else lies in, and was mapped just now. The host, whose memory it is, does
    // not run yet; the slice is gone before it does.
    let output = unsafe { slice::from_raw_parts_mut(output, size as usize) };
    let written = edit(input, output, &edits).map_err(|error| match error {
        EditError::Unreadable(reason) => reason,
        other => {
            log::error!("{other}");
            RefusalReason::NoRoomForTree(size)
        }
    })?;
    // SAFETY: it is mapped. The kernel reads it before its caches are on.
    unsafe { cache::clean(hole.address(), written as u64) };
    log::info!("host: device tree of {written} bytes at {:#x}", hole.start());
    Ok(Host {
        entry: machine.kernel.range.start(),
        tree: hole.start(),
    })
}

/// All the memory that the kernel asks for: its header's `image_size`, or its file if that is more or it has none.
fn kernel_memory(machine: &MachineDescription<'_>, tables: &mut EarlyTables) -> PhysRange {
    let file = machine.kernel.range;
    if file.size() < HEADER_SIZE {
        return file;
    }
    tables.map(file.address(), HEADER_SIZE, EarlyMemory::Normal);
    let header: *const u8 = ptr::with_exposed_provenance(file.start() as usize);
    // SAFETY: the module lies in RAM and was mapped just now; nobody writes it before the host runs.
    let header = unsafe { slice::from_raw_parts(header, HEADER_SIZE as usize) };
    let word = |at: usize| {
        header
            .get(at..at + 8)
            .and_then(|bytes| bytes.try_into().ok())
            .map(u64::from_le_bytes)
    };
    let has_header = word(MAGIC_OFFSET).is_some_and(|word| word as u32 == MAGIC);
    let size = word(IMAGE_SIZE_OFFSET).filter(|_| has_header).unwrap_or(0);
    PhysRange::new(file.start(), size.max(file.size())).unwrap_or(file)
}
