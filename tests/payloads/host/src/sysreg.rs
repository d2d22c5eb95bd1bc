//! System registers, barriers and maintenance, as safe functions that cannot be misordered by the compiler.
#![expect(unsafe_code, reason = "one instruction each")]

use core::arch::asm;

/// The affinity fields of MPIDR_EL1.
pub(crate) const AFFINITY: u64 = 0xff_00ff_ffff;

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
            // SAFETY: the register concerns the timer or the number of this CPU, not memory that Rust relies on.
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
            // SAFETY: orders, waits or invalidates; changes no value that a Rust program can observe.
            unsafe { asm!($text, options(nostack, preserves_flags)) };
        }
    };
}

read!(/// The exception mask: D, A, I and F in bits 9 to 6.
    daif, "daif");
read!(/// 1 if the handler's own stack pointer is in use.
    sp_sel, "spsel");
read!(/// The exception level in bits 3:2.
    current_el, "currentel");
read!(/// MPIDR_EL1.
    mpidr, "mpidr_el1");
read!(/// MIDR_EL1.
    midr, "midr_el1");
read!(/// The number of this CPU, which the entry code put there.
    cpu_number, "tpidr_el1");
read!(/// ISR_EL1: what waits for this CPU, masked or not.
    pending_interrupts, "isr_el1");
read!(/// CTR_EL0: the cache line sizes.
    cache_type, "ctr_el0");
read!(/// DCZID_EL0: the block that DC ZVA zeroes.
    zero_block_id, "dczid_el0");
read!(/// Frequency of the counters, in Hz.
    counter_frequency, "cntfrq_el0");
write!(/// Sets the physical timer's downcounter.
    set_timer_value, "cntp_tval_el0");
write!(/// Sets the control of the physical timer: bit 0 enable, bit 1 mask.
    set_timer_control, "cntp_ctl_el0");
instruction!(/// Lets other CPUs run while this one waits for one of them.
    relax, "yield");
instruction!(/// Waits for an interrupt, masked or not.
    wait_for_interrupt, "wfi");
instruction!(/// Takes IRQs.
    unmask_irqs, "msr daifclr, #2
    isb");
instruction!(/// Takes no IRQs.
    mask_irqs, "msr daifset, #2
    isb");
instruction!(/// Completes stores before table walks and other CPUs' accesses that follow.
    barrier, "dsb ish
    isb");

/// The virtual counter, read where it stands: between two context synchronizations (Arm ARM DDI 0487, D12.2.1).
#[inline(always)]
pub(crate) fn counter() -> u64 {
    let value: u64;
    // SAFETY: reads a counter.
    unsafe { asm!("isb", "mrs {}, cntvct_el0", "isb", out(reg) value, options(nostack, preserves_flags)) };
    value
}

/// Drops what every CPU's TLB knows of the page at the virtual address `address`, for all address spaces.
pub(crate) fn invalidate_tlb(address: u64) {
    // TLBI VAAE1IS takes VA[55:12] in bits 43:0.
    let operand = address >> 12;
    // SAFETY: forgetting a translation changes nothing that is mapped.
    unsafe {
        asm!("dsb ishst", "tlbi vaae1is, {}", "dsb ish", "isb", in(reg) operand,
            options(nostack, preserves_flags))
    };
}

/// Makes code that was written to the 64 bytes at `address` visible to instruction fetches of this CPU.
pub(crate) fn synchronize_code(address: u64) {
    // SAFETY: maintenance by address of memory that the caller has just written; no value changes.
    unsafe {
        asm!("dc cvau, {0}", "dsb ish", "ic ivau, {0}", "dsb ish", "isb", in(reg) address,
            options(nostack, preserves_flags))
    };
}

/// Runs `body` with IRQs masked.
pub(crate) fn without_irqs<T>(body: impl FnOnce() -> T) -> T {
    let masked = daif() & (1 << 7) != 0;
    mask_irqs();
    let result = body();
    if !masked {
        unmask_irqs();
    }
    result
}
