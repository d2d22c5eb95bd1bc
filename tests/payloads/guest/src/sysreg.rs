//! System registers and maintenance, as safe functions.
#![expect(unsafe_code, reason = "one instruction each")]

use core::arch::asm;

macro_rules! read {
    ($(#[$doc:meta])* $name:ident, $register:literal) => {
        $(#[$doc])*
        pub(crate) fn $name() -> u64 {
            let value: u64;
            // SAFETY: reading this register has no effect. It is not `nomem`, so it keeps its place among accesses.
            unsafe { asm!(concat!("mrs {}, ", $register), out(reg) value, options(nostack, preserves_flags)) };
            value
        }
    };
}

macro_rules! write {
    ($(#[$doc:meta])* $name:ident, $register:literal) => {
        $(#[$doc])*
        pub(crate) fn $name(value: u64) {
            // SAFETY: the register concerns this vCPU's timer, not memory that Rust relies on.
            unsafe {
                asm!(concat!("msr ", $register, ", {}"), "isb", in(reg) value, options(nostack, preserves_flags))
            };
        }
    };
}

macro_rules! instruction {
    ($(#[$doc:meta])* $name:ident, $text:literal) => {
        $(#[$doc])*
        pub(crate) fn $name() {
            // SAFETY: orders or waits; changes no value that a Rust program can observe.
            unsafe { asm!($text, options(nostack, preserves_flags)) };
        }
    };
}

read!(/// The index of this vCPU, which the entry code put there.
    tpidr, "tpidr_el1");
read!(/// ELR_EL1.
    elr, "elr_el1");
write!(/// Sets the virtual timer's downcounter.
    set_timer_value, "cntv_tval_el0");
write!(/// Sets the control of the virtual timer: bit 0 enable, bit 1 mask.
    set_timer_control, "cntv_ctl_el0");
instruction!(/// Leaves nothing in FAR_EL1 and ELR_EL1.
    clear_fault_registers, "msr far_el1, xzr
    msr elr_el1, xzr
    isb");
instruction!(/// Lets others run.
    relax, "yield");
instruction!(/// Waits for an interrupt, masked or not.
    wait_for_interrupt, "wfi");
instruction!(/// Takes IRQs.
    unmask_irqs, "msr daifclr, #2
    isb");
instruction!(/// Takes no IRQs.
    mask_irqs, "msr daifset, #2
    isb");

/// The index of this vCPU.
pub(crate) fn vcpu() -> usize {
    // Whatever an order has done to the register, no other vCPU's memory is reached through it.
    tpidr() as usize % crate::MAX_VCPUS
}

/// The virtual counter.
pub(crate) fn counter() -> u64 {
    let value: u64;
    // SAFETY: reads a counter.
    unsafe { asm!("isb", "mrs {}, cntvct_el0", out(reg) value, options(nostack, preserves_flags)) };
    value
}

/// Makes code that was written to the 64 bytes at `address` visible to instruction fetches of this CPU.
pub(crate) fn synchronize_code(address: u64) {
    // SAFETY: maintenance by address of memory that the caller has just written; no value changes.
    unsafe {
        asm!("dc cvau, {0}", "dsb ish", "ic ivau, {0}", "dsb ish", "isb", in(reg) address,
            options(nostack, preserves_flags))
    };
}
