//! EL2's final table: its memory at its physical address, the least that each part needs, and the private area.

#![expect(unsafe_code, reason = "switches tables")]

use super::devices::Redistributors;
use crate::hardware::Machine;
use crate::percpu::{PerCpu, STACK_SIZE};
use crate::{layout, mmu, private_area};
use core::arch::global_asm;
use core::ptr;
use core::sync::atomic::Ordering;
use hyp_core::Hardware;
use hyp_core::addr::{FRAME_SHIFT, FRAME_SIZE, FrameSpan, Ipa, MAX_ADDRESS_BITS, PhysAddr};
use hyp_core::geometry::Arm4K;
use hyp_core::hardware::{Regime, TablePage};
use hyp_core::machine::{BootPlan, MachineDescription, PhysRange};
use hyp_core::pgtable::{Change, HypAccess, HypAttributes, HypStage1, IpaSpan, LargestLeaf, Table};

/// CPUs whose slots of the private area share a level-3 table.
const SLOTS_PER_TABLE: usize = 16;

/// EL2's own table.
pub(super) type HypTable = Table<HypStage1, Arm4K>;

global_asm!(include_str!("switch.S"));

unsafe extern "C" {
    /// Turns the MMU off, takes the table at `ttbr` and `sctlr`, and goes on at `next` on the stack `stack`.
    fn switch_tables(
        entry: u64,
        tree: u64,
        ttbr: u64,
        sctlr: u64,
        stack: u64,
        next: extern "C" fn(u64, u64) -> !,
    ) -> !;
}

/// How many table pages [`build`] may take: each level-3 table maps 2 MiB. The reservation and the UART each take
/// three levels below the root, and so do the private area and the redistributors, with more tables as they grow.
pub(super) fn pages_needed(cpus: usize, redistributors: usize) -> u64 {
    let private = 2 + cpus.div_ceil(SLOTS_PER_TABLE);
    (1 + 4 + 3 + 2 + private + redistributors) as u64
}

/// Builds the table whose root is `root`.
///
/// # Panics
/// If the pool runs out, or the plan's parts overlap: the plan was made with what [`pages_needed`] says.
pub(super) fn build(
    root: TablePage,
    plan: &BootPlan,
    machine: &MachineDescription<'_>,
    redistributors: &Redistributors,
) -> HypTable {
    let table =
        HypTable::new(root, 0, MAX_ADDRESS_BITS, Regime::Hyp).expect("a 48-bit table starts at level 0");
    let code = HypAttributes::memory(HypAccess::ReadExecute);
    let constants = HypAttributes::memory(HypAccess::ReadOnly);
    let data = HypAttributes::memory(HypAccess::ReadWrite);
    map_identity(
        &table,
        layout::frames(layout::image_start(), layout::text_end()),
        code,
    );
    map_identity(
        &table,
        layout::frames(layout::text_end(), layout::rodata_end()),
        constants,
    );
    map_identity(
        &table,
        layout::frames(layout::rodata_end(), plan.per_cpu.start()),
        data,
    );
    map_identity(
        &table,
        layout::frames(plan.per_cpu.end(), plan.reservation.end()),
        data,
    );
    for frames in machine
        .uart
        .iter()
        .chain(redistributors)
        .copied()
        .map(PhysRange::frames_touched)
    {
        map_identity(&table, frames, HypAttributes::device());
    }
    for index in 0..machine.cpus.len() {
        map_cpu(&table, plan, index, data);
    }
    table
}

/// Maps the stack of a CPU, its data and all that lies behind. Its stack is mapped nowhere but between its guards.
fn map_cpu(table: &HypTable, plan: &BootPlan, index: usize, data: HypAttributes) {
    let area = plan.per_cpu.start() + index as u64 * plan.per_cpu_stride;
    map(
        table,
        private_area::stack(index),
        area,
        STACK_SIZE / FRAME_SIZE,
        data,
    );
    let data_page = area + STACK_SIZE;
    let pages = (plan.per_cpu_stride - STACK_SIZE) / FRAME_SIZE;
    map(table, data_page, data_page, pages, data);
    let entries = last_level_entry(table, private_area::window(index));
    let this: *const PerCpu = ptr::with_exposed_provenance(data_page as usize);
    // SAFETY: the boot has initialized the data of every CPU, and the field is an atomic.
    unsafe { (*this).window.store(entries, Ordering::Relaxed) };
}

fn map_identity(table: &HypTable, frames: FrameSpan, attributes: HypAttributes) {
    let start = frames.start().address().value();
    map(table, start, start, frames.frames(), attributes);
}

fn map(table: &HypTable, at: u64, physical: u64, pages: u64, attributes: HypAttributes) {
    let span = Ipa::new(at)
        .and_then(|start| IpaSpan::new(start, pages))
        .expect("EL2's addresses lie below 2^48");
    let pa = PhysAddr::new(physical).expect("EL2's memory lies below 2^48");
    let change = Change::Map {
        pa,
        attributes,
        largest: LargestLeaf::Page,
    };
    table
        .apply(&Machine, span, change)
        .expect("the plan keeps pages enough for EL2's table")
        .complete(&Machine);
}

/// The address of the level-3 entry that translates `address`, in a table that is there already.
fn last_level_entry(table: &HypTable, address: u64) -> u64 {
    let index = |shift: u32| ((address >> shift) & 511) as usize;
    let mut page = table.root();
    for shift in [39, 30, 21] {
        let descriptor = Machine.table(page)[index(shift)].load(Ordering::Relaxed);
        let next =
            PhysAddr::new(descriptor & 0x0000_ffff_ffff_f000).expect("a descriptor holds 48 bits of address");
        page = TablePage::new(next.frame());
    }
    ptr::from_ref(&Machine.table(page)[index(FRAME_SHIFT)]).addr() as u64
}

/// Leaves the boot's tables and stack for the final ones of this CPU, and goes on in [`super::finish`].
pub(super) fn switch(entry: u64, tree: u64) -> ! {
    let start = &PerCpu::this().start;
    // SAFETY: the final table maps the code and the stack that go on, at the same addresses or from now on; nothing
    // on the old stack is used again.
    unsafe { switch_tables(entry, tree, start.ttbr, mmu::SCTLR, start.stack, super::finish) }
}
