//! The virtual CPU interface of the GIC.
//!
//! Its registers are EL2's, so the host has nothing in them to save. While it runs, all of them are off: list registers
//! and active priorities are zero. The physical interface stays the host's throughout: with HCR_EL2.IMO and FMO set, a
//! guest's accesses go to the virtual one.
//!
//! Source: GIC architecture, IHI 0069, 12.4.

#![expect(unsafe_code, reason = "reads and writes system registers by number")]

use super::system::{read_register, write_register};
use core::sync::atomic::{AtomicU64, Ordering};
use hyp_abi::run_page::MAX_LIST_REGISTERS;
use hyp_core::vm::context::GicInterface;
use hyp_core::vm::interface::common;

/// What the interfaces of all CPUs that have come in have in common.
static COMMON: AtomicU64 = AtomicU64::new(u64::MAX);

/// How many registers this CPU's interface has.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Gic {
    /// List registers.
    lists: usize,
    /// Registers of active priorities, for each group: 1, 2 or 4.
    priorities: usize,
}

/// Defines access to registers that are a row: the first has number 0.
macro_rules! rows {
    ($($read:ident $write:ident: $($index:literal $register:literal)*;)*) => {
        $(
            #[inline]
            fn $read(index: usize) -> u64 {
                match index {
                    $($index => read_register!($register),)*
                    _ => 0,
                }
            }

            #[inline]
            fn $write(index: usize, value: u64) {
                match index {
                    $($index => write_register!($register, value),)*
                    _ => {}
                }
            }
        )*
    };
}

// ICH_LR<n>_EL2, ICH_AP0R<n>_EL2, ICH_AP1R<n>_EL2.
rows! {
    read_list write_list:
        0 "S3_4_C12_C12_0" 1 "S3_4_C12_C12_1" 2 "S3_4_C12_C12_2" 3 "S3_4_C12_C12_3"
        4 "S3_4_C12_C12_4" 5 "S3_4_C12_C12_5" 6 "S3_4_C12_C12_6" 7 "S3_4_C12_C12_7"
        8 "S3_4_C12_C13_0" 9 "S3_4_C12_C13_1" 10 "S3_4_C12_C13_2" 11 "S3_4_C12_C13_3"
        12 "S3_4_C12_C13_4" 13 "S3_4_C12_C13_5" 14 "S3_4_C12_C13_6" 15 "S3_4_C12_C13_7";
    read_active_0 write_active_0:
        0 "S3_4_C12_C8_0" 1 "S3_4_C12_C8_1" 2 "S3_4_C12_C8_2" 3 "S3_4_C12_C8_3";
    read_active_1 write_active_1:
        0 "S3_4_C12_C9_0" 1 "S3_4_C12_C9_1" 2 "S3_4_C12_C9_2" 3 "S3_4_C12_C9_3";
}

/// What the interfaces of the CPUs have in common, as far as they have come in.
pub(crate) fn common_interface() -> u64 {
    COMMON.load(Ordering::SeqCst)
}

impl Gic {
    /// What this CPU has, by ICH_VTR_EL2: ListRegs (4:0) and PREbits (28:26) are one less than the number. Each register
    /// of active priorities has 32 of 2^PREbits.
    pub(super) fn of_this_cpu() -> Self {
        let shape = read_register!("S3_4_C12_C11_1");
        // What one CPU adds another does not take back, so the order does not count.
        let _ = COMMON.fetch_update(Ordering::SeqCst, Ordering::SeqCst, |so_far| {
            Some(common(so_far, shape))
        });
        let lists = (shape & 0x1f) as usize + 1;
        let priorities = match shape >> 26 & 7 {
            6 => 4,
            5 => 2,
            _ => 1,
        };
        Self {
            lists: lists.min(MAX_LIST_REGISTERS),
            priorities,
        }
    }

    /// How many list registers there are.
    #[inline]
    pub(super) const fn list_registers(self) -> u8 {
        self.lists as u8
    }

    /// How many registers of active priorities there are for each group.
    #[inline]
    pub(super) const fn active_priorities(self) -> u8 {
        self.priorities as u8
    }

    /// Empties the interface, and sees to it that EL1 uses system registers at all: ICC_SRE_EL1 is host's and guests'
    /// alike, a guest cannot set it, and a host with a GICv3 sets it as here (SRE, DFB, DIB).
    pub(super) fn clear(self) {
        write_register!("S3_0_C12_C12_5", 0b111);
        write_register!("S3_4_C12_C11_0", 0);
        (0..self.lists).for_each(|index| write_list(index, 0));
        (0..self.priorities).for_each(|index| {
            write_active_0(index, 0);
            write_active_1(index, 0);
        });
    }

    /// Loads a guest's interface. Of its list registers no more are in use than there are.
    #[inline]
    pub(super) fn load(self, gic: &mut GicInterface) {
        let count = usize::try_from(gic.count).map_or(self.lists, |count| count.min(self.lists));
        gic.count = count as u64;
        write_register!("S3_4_C12_C11_7", gic.vmcr);
        for (index, (&active_0, &active_1)) in gic
            .active_priorities_0
            .iter()
            .zip(&gic.active_priorities_1)
            .enumerate()
            .take(self.priorities)
        {
            write_active_0(index, active_0);
            write_active_1(index, active_1);
        }
        for (index, &list) in gic.list.iter().enumerate().take(count) {
            write_list(index, list);
        }
        write_register!("S3_4_C12_C11_0", gic.control);
    }

    /// Saves a guest's interface and turns it off. What it holds of interrupts ends here, lest another guest find it.
    #[inline]
    pub(super) fn put(self, gic: &mut GicInterface) {
        // ICH_MISR_EL2 and ICH_EISR_EL2 say something only as long as it is on.
        gic.maintenance = read_register!("S3_4_C12_C11_2");
        gic.ended = read_register!("S3_4_C12_C11_3");
        gic.vmcr = read_register!("S3_4_C12_C11_7");
        // EOIcount (31:27) is the hardware's to change.
        gic.control = read_register!("S3_4_C12_C11_0");
        write_register!("S3_4_C12_C11_0", 0);
        let count = usize::try_from(gic.count).unwrap_or(self.lists);
        for (index, list) in gic.list.iter_mut().enumerate().take(count) {
            *list = read_list(index);
            write_list(index, 0);
        }
        for (index, (active_0, active_1)) in gic
            .active_priorities_0
            .iter_mut()
            .zip(&mut gic.active_priorities_1)
            .enumerate()
            .take(self.priorities)
        {
            *active_0 = read_active_0(index);
            *active_1 = read_active_1(index);
            write_active_0(index, 0);
            write_active_1(index, 0);
        }
    }
}
