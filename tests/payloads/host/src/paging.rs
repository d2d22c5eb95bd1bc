//! Stage 1 of the payload: memory one to one, twice, and a window for whatever a case wants to map.
//!
//! 39-bit addresses, 4 KiB granule. RAM and devices are mapped at their own addresses for EL1, everything
//! executable; the same again [`USER_ALIAS`] higher for EL0. RAM that the device tree forbids to map is mapped
//! too: reaching for it is what the cases are for.
#![expect(unsafe_code, reason = "goes over to another translation table")]

use crate::machine::Machine;
use core::ops::Range;
use core::sync::atomic::{AtomicU64, AtomicUsize, Ordering};

pub(crate) mod window;

/// How far above its physical address EL0 sees a byte.
pub(crate) const USER_ALIAS: u64 = 256 << 30;

const GIB: u64 = 1 << 30;
const BLOCK: u64 = 2 << 20;

// Descriptors of the VMSAv8-64 4 KiB granule (Arm ARM DDI 0487, D8.3).
const VALID: u64 = 1;
const TABLE_OR_PAGE: u64 = 1 << 1;
const ATTRIBUTE_DEVICE: u64 = 0 << 2;
const ATTRIBUTE_NORMAL: u64 = 1 << 2;
const ATTRIBUTE_NON_CACHEABLE: u64 = 2 << 2;
const USER: u64 = 1 << 6;
const READ_ONLY: u64 = 1 << 7;
const INNER_SHAREABLE: u64 = 0b11 << 8;
const ACCESSED: u64 = 1 << 10;
const PRIVILEGED_NEVER: u64 = 1 << 53;
const USER_NEVER: u64 = 1 << 54;

const DEVICE: u64 = VALID | ATTRIBUTE_DEVICE | ACCESSED;
const NORMAL: u64 = VALID | ATTRIBUTE_NORMAL | INNER_SHAREABLE | ACCESSED;

/// A block of device registers for EL1.
pub(crate) const DEVICE_BLOCK: u64 = DEVICE | PRIVILEGED_NEVER | USER_NEVER;
/// A block of memory for EL1.
pub(crate) const NORMAL_BLOCK: u64 = NORMAL | USER_NEVER;
const USER_DEVICE_BLOCK: u64 = DEVICE | USER | PRIVILEGED_NEVER | USER_NEVER;
const USER_NORMAL_BLOCK: u64 = NORMAL | USER | PRIVILEGED_NEVER;

/// Device-nGnRnE; normal write-back; normal non-cacheable.
pub(crate) const MAIR: u64 = 0x0044_ff00;
/// T0SZ 25, write-back inner-shareable walks, 4 KiB granule, no TTBR1 walks. The entry code adds IPS.
pub(crate) const TCR: u64 = 25 | 0b01 << 8 | 0b01 << 10 | 0b11 << 12 | 1 << 23 | 0b10 << 30;
/// M, C, SA, SA0, I, and for EL0: DZE, UCT, UCI; nTWI, nTWE; ITD, SED; the RES1 bits of an implementation without the
/// features that use them (EOS, EIS, TSCXT, SPAN, LSMAOE, nTLSMD).
pub(crate) const SCTLR: u64 = 1 << 0
    | 1 << 2
    | 1 << 3
    | 1 << 4
    | 1 << 7
    | 1 << 8
    | 1 << 11
    | 1 << 12
    | 1 << 14
    | 1 << 15
    | 1 << 16
    | 1 << 18
    | 1 << 20
    | 1 << 22
    | 1 << 23
    | 1 << 26
    | 1 << 28
    | 1 << 29;

/// A translation table.
#[derive(Debug)]
#[repr(C, align(4096))]
pub(crate) struct Table([AtomicU64; 512]);

impl Table {
    const fn new() -> Self {
        Self([const { AtomicU64::new(0) }; 512])
    }

    fn set(&self, index: usize, descriptor: u64) {
        self.0[index].store(descriptor, Ordering::Relaxed);
    }

    fn get(&self, index: usize) -> u64 {
        self.0[index].load(Ordering::Relaxed)
    }

    fn descriptor(&self) -> u64 {
        self.0.as_ptr().addr() as u64 | TABLE_OR_PAGE | VALID
    }
}

/// The level-1 table that the entry code fills, for as long as the device tree has not been read.
pub(crate) static BOOT_TABLE: Table = Table::new();
/// The level-1 table from then on, for all CPUs.
pub(crate) static FINAL_TABLE: Table = Table::new();

/// Level-2 tables for the GiBs that are not RAM throughout: two for each, EL1's and EL0's.
static PARTIAL: [Table; 64] = [const { Table::new() }; 64];
static PARTIAL_USED: AtomicUsize = AtomicUsize::new(0);

/// Builds the final map from the machine's memory and goes over to it.
pub(crate) fn map(machine: &Machine) {
    let user = (USER_ALIAS / GIB) as usize;
    FINAL_TABLE.set(0, DEVICE_BLOCK);
    FINAL_TABLE.set(user, USER_DEVICE_BLOCK);
    for region in &machine.memory {
        map_region(region);
    }
    FINAL_TABLE.set(window::FIRST_GIB, window::init());
    unsafe extern "C" {
        fn mmu_switch(table: u64);
    }
    // SAFETY: the final table maps the image and all RAM one to one, so code and stack stay where they are.
    unsafe { mmu_switch(FINAL_TABLE.0.as_ptr().addr() as u64) };
}

fn map_region(region: &Range<u64>) {
    let start = region.start.next_multiple_of(BLOCK);
    let end = region.end / BLOCK * BLOCK;
    let mut at = start;
    while at < end {
        let gib = (at / GIB) as usize;
        assert!(gib < window::FIRST_GIB, "RAM beyond the payload's map");
        if at.is_multiple_of(GIB) && end - at >= GIB {
            FINAL_TABLE.set(gib, NORMAL_BLOCK | at);
            FINAL_TABLE.set(gib + (USER_ALIAS / GIB) as usize, USER_NORMAL_BLOCK | at);
            at += GIB;
        } else {
            let index = (at % GIB / BLOCK) as usize;
            partial(gib).set(index, NORMAL_BLOCK | at);
            partial(gib + (USER_ALIAS / GIB) as usize).set(index, USER_NORMAL_BLOCK | at);
            at += BLOCK;
        }
    }
}

/// The level-2 table of a GiB, a new one if it has none yet.
fn partial(gib: usize) -> &'static Table {
    let present = FINAL_TABLE.get(gib);
    if let Some(table) = PARTIAL
        .iter()
        .find(|table| present != 0 && table.descriptor() == present)
    {
        return table;
    }
    let table = &PARTIAL[PARTIAL_USED.fetch_add(1, Ordering::Relaxed)];
    FINAL_TABLE.set(gib, table.descriptor());
    table
}

/// A level-2 table of a case's own, at a place in the map that is otherwise empty.
#[derive(Debug)]
pub(crate) struct SpareTable(u64);

impl SpareTable {
    /// The GiB below the window, which nothing else is mapped in.
    const GIB: usize = window::FIRST_GIB - 1;

    /// A table in the frame at physical address `frame`.
    pub(crate) const fn new(frame: u64) -> Self {
        Self(frame)
    }

    /// A virtual address that is translated by the table.
    pub(crate) const fn address(&self) -> u64 {
        Self::GIB as u64 * GIB
    }

    /// The entry for the block of device registers at `physical`, from which EL1 may even fetch as far as stage 1 goes.
    pub(crate) const fn executable_device(physical: u64) -> u64 {
        physical & !(BLOCK - 1) | DEVICE
    }

    /// Makes it the level-2 table of its GiB.
    pub(crate) fn hang(&self) {
        FINAL_TABLE.set(Self::GIB, self.0 | TABLE_OR_PAGE | VALID);
        crate::sysreg::barrier();
    }

    /// Takes it out again.
    pub(crate) fn unhang(&self) {
        FINAL_TABLE.set(Self::GIB, 0);
        crate::sysreg::invalidate_tlb(self.address());
    }
}
