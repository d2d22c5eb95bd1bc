//! EL2's translation: the values of its registers, and the boot's own tables.
//!
//! With E2H=0 EL2 has one range of addresses and one table. The final table is made by `crate::boot`; here
//! is what both share, and [`EarlyTables`], with which the boot maps what it looks at before that. The memory types
//! of MAIR_EL2 are hyp-core's ([`hyp_core::pgtable::MAIR`]): index 0 is Normal write-back, index 1 Device-nGnRE.
//! Arm ARM DDI 0487, D8.2 (translation), D19.2 (registers).

#![expect(unsafe_code, reason = "writes tables that the MMU walks")]

use crate::layout;
use core::arch::asm;
use core::ptr;
use hyp_core::addr::{FRAME_SIZE, PhysAddr};

/// Where TCR_EL2 holds the physical address size.
pub(crate) const TCR_PS_SHIFT: u64 = 16;

/// TCR_EL2 without PS: 48-bit addresses (T0SZ = 16), walks through write-back inner-shareable memory (IRGN0,
/// ORGN0 = 1, SH0 = 3), 4 KiB granule (TG0 = 0); bits 31 and 23 are RES1.
pub(crate) const TCR: u64 = 1 << 31 | 1 << 23 | 3 << 12 | 1 << 10 | 1 << 8 | 16;

/// SCTLR_EL2 with the MMU and the caches off: its RES1 bits 4, 5, 11, 16, 18, 22, 23, 28 and 29 and no other.
/// DSSBS (bit 44) is 0, so speculative store bypass is off whenever EL2 is entered.
pub(crate) const SCTLR_OFF: u64 = 0x30c5_0830;

/// SCTLR_EL2 of the boot: MMU (bit 0), data cache (2), stack alignment check (3), instruction cache (12).
pub(crate) const SCTLR_BOOT: u64 = SCTLR_OFF | 1 | 1 << 2 | 1 << 3 | 1 << 12;

/// SCTLR_EL2 from the final table on: what is writable is not executable, whatever the table says (WXN, bit 19).
pub(crate) const SCTLR: u64 = SCTLR_BOOT | 1 << 19;

/// Descriptors of 2 MiB blocks without their address (Arm ARM DDI 0487, D8.3): block (1), AP\[1\] RES1 at EL2
/// (bit 6), inner shareable (3 << 8), accessed (bit 10), attribute index (bits 4:2), execute never (bit 54).
pub(crate) mod boot_block {
    /// The image: Normal, writable and executable until the final table is there.
    pub(crate) const IMAGE: u64 = 1 | 1 << 6 | 3 << 8 | 1 << 10;
    /// Other memory: Normal, writable, never executed.
    pub(crate) const DATA: u64 = IMAGE | 1 << 54;
    /// Device registers.
    pub(crate) const DEVICE: u64 = 1 | 1 << 2 | 1 << 6 | 1 << 10 | 1 << 54;
}

/// Address bits of a table descriptor.
const TABLE_ADDRESS: u64 = 0x0000_ffff_ffff_f000;

/// What a block of the early tables holds.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum EarlyMemory {
    /// RAM.
    Normal,
    /// Device registers.
    Device,
}

/// The tables that the assembly made, to which the boot adds what it must look at.
#[derive(Debug)]
pub(crate) struct EarlyTables {
    root: u64,
    next: u64,
}

impl EarlyTables {
    /// The tables that the entry code left behind: `next` is the first that it did not use.
    ///
    /// # Safety
    /// TTBR0_EL2 holds the entry code's tables, `next` is what it counted, and no other value of this type lives.
    pub(crate) unsafe fn take(next: u64) -> Self {
        let root: u64;
        // SAFETY: reads a register; nothing else.
        unsafe { asm!("mrs {}, ttbr0_el2", out(reg) root, options(nomem, nostack, preserves_flags)) };
        Self {
            root: root & TABLE_ADDRESS,
            next,
        }
    }

    /// Maps the 2 MiB blocks that `[start, start + size)` touches, to themselves. What is mapped stays as it is.
    ///
    /// # Panics
    /// If the early tables run out: the linker script gives the boot enough for all it maps.
    pub(crate) fn map(&mut self, start: PhysAddr, size: u64, memory: EarlyMemory) {
        let template = match memory {
            EarlyMemory::Normal => boot_block::DATA,
            EarlyMemory::Device => boot_block::DEVICE,
        };
        let mut block = start.align_down(21).value();
        let end = start.value().saturating_add(size.max(1));
        while block < end {
            let mut table = self.root;
            for shift in [39, 30] {
                table = self.next_table(table, (block >> shift) & 511);
            }
            let slot = entry(table, (block >> 21) & 511);
            // SAFETY: `entry` points into a table of ours, which only this CPU writes.
            if unsafe { slot.read_volatile() } & 1 == 0 {
                // SAFETY: as above. The entry was invalid, so no break-before-make is due.
                unsafe { slot.write_volatile(block | template) };
            }
            block += 1 << 21;
        }
        // SAFETY: barriers change nothing but the order: the walks that follow see the new entries.
        unsafe { asm!("dsb nshst", "isb", options(nostack, preserves_flags)) };
    }

    fn next_table(&mut self, table: u64, index: u64) -> u64 {
        let slot = entry(table, index);
        // SAFETY: `entry` points into a table of ours, which only this CPU writes.
        let old = unsafe { slot.read_volatile() };
        if old & 1 == 1 {
            return old & TABLE_ADDRESS;
        }
        assert!(
            self.next < layout::early_tables_end(),
            "the early tables are full"
        );
        let new = self.next;
        self.next += FRAME_SIZE;
        // SAFETY: as above; the entry code has zeroed the new table.
        unsafe { slot.write_volatile(new | 3) };
        new
    }
}

/// Entry `index` (0 to 511) of the table at `table`.
fn entry(table: u64, index: u64) -> *mut u64 {
    ptr::with_exposed_provenance_mut((table + index * 8) as usize)
}
