//! The exception vectors, and the frame of registers that an exit leaves on the stack.

#![expect(unsafe_code, reason = "assembly is included and called")]

use crate::exit::{host_exit, host_hypercall, host_smc, host_unexpected};
use crate::panic::{hyp_exception, hyp_overflow};
use crate::percpu::{EMERGENCY_STACK_SIZE, PerCpu, STACK_SIZE};
use aarch64_cpu::registers::{ELR_EL2, SPSR_EL2, VBAR_EL2};
use core::arch::global_asm;
use core::mem::offset_of;
use core::sync::atomic::Ordering;
use hyp_core::errata::vector::VectorSlot;
use tock_registers::interfaces::Writeable;

/// The registers of whoever was interrupted. After an SMC x19 to x28 are not in it; during a hypercall x0 to x3 are
/// not in it either.
#[derive(Debug)]
#[repr(C, align(16))]
pub(crate) struct HostFrame {
    /// x0 to x30.
    pub(crate) x: [u64; 31],
    padding: u64,
}

/// ESR_EL2 of the exits that take the short way (Arm ARM DDI 0487, D24.2.40).
pub(crate) mod syndrome {
    /// All of it, for `HVC #0` from AArch64: EC 0x16, and IL, which says that the instruction has 32 bits.
    pub(crate) const HVC_0: u64 = 0x16 << 26 | 1 << 25;
    /// EC of an SMC from AArch64.
    pub(crate) const SMC64_CLASS: u64 = 0x17;
}

/// Which vector an exception at EL2 came through.
pub(crate) mod kind {
    /// Synchronous.
    pub(crate) const SYNC: u64 = 0;
    /// IRQ.
    pub(crate) const IRQ: u64 = 1;
    /// FIQ.
    pub(crate) const FIQ: u64 = 2;
    /// SError.
    pub(crate) const SERROR: u64 = 3;
}

/// The bit that is 1 in every address of a stack and 0 in the guard below it.
pub(crate) const STACK_BIT: u32 = STACK_SIZE.trailing_zeros();

global_asm!(
    include_str!("vectors.S"),
    FRAME_SIZE = const size_of::<HostFrame>(),
    STACK_BIT = const STACK_BIT,
    BRANCH_LOOPS = const offset_of!(PerCpu, branch_loops),
    EMERGENCY_OFFSET = const PerCpu::EMERGENCY_OFFSET,
    EMERGENCY_SIZE = const EMERGENCY_STACK_SIZE,
    HVC_0_SYNDROME = const syndrome::HVC_0,
    EC_SMC64 = const syndrome::SMC64_CLASS,
    KIND_SYNC = const kind::SYNC,
    KIND_IRQ = const kind::IRQ,
    KIND_FIQ = const kind::FIQ,
    KIND_SERROR = const kind::SERROR,
    ARCH_WORKAROUND_1 = const smccc::arch::SMCCC_ARCH_WORKAROUND_1,
    ARCH_WORKAROUND_3 = const smccc::arch::SMCCC_ARCH_WORKAROUND_3,
    host_hypercall = sym host_hypercall,
    host_smc = sym host_smc,
    host_exit = sym host_exit,
    host_unexpected = sym host_unexpected,
    hyp_exception = sym hyp_exception,
    hyp_overflow = sym hyp_overflow,
);

unsafe extern "C" {
    static vectors_plain: u8;
    static vectors_loop: u8;
    static vectors_clear: u8;
    static vectors_firmware_1: u8;
    static vectors_firmware_3: u8;
    static vectors_boot: u8;
    /// Goes to EL1 with x0, and with SP_EL2 at `stack`.
    fn vectors_enter_host(x0: u64, stack: u64) -> !;
}

/// Uses the vectors of the boot: all that happens is a panic.
pub(crate) fn install_boot() {
    VBAR_EL2.set((&raw const vectors_boot).addr() as u64);
    crate::barrier::isb();
}

/// Uses the vectors that begin as `slot` says, on this CPU.
pub(crate) fn install(this: &PerCpu, slot: VectorSlot) {
    let vectors = match slot {
        VectorSlot::None => &raw const vectors_plain,
        VectorSlot::Loop { iterations } => {
            this.branch_loops.store(u64::from(iterations), Ordering::Relaxed);
            &raw const vectors_loop
        }
        VectorSlot::ClearBhb => &raw const vectors_clear,
        VectorSlot::FirmwareWorkaround1 => &raw const vectors_firmware_1,
        VectorSlot::FirmwareWorkaround3 => &raw const vectors_firmware_3,
    };
    VBAR_EL2.set(vectors.addr() as u64);
    crate::barrier::isb();
}

/// Starts the host at `entry`, at EL1 with its own stack pointer, interrupts masked, x0 = `context` and the other
/// registers zero. `stack` is the top of this CPU's stack.
pub(crate) fn enter_host(entry: u64, context: u64, stack: u64) -> ! {
    ELR_EL2.set(entry);
    SPSR_EL2.write(
        SPSR_EL2::M::EL1h
            + SPSR_EL2::D::Masked
            + SPSR_EL2::A::Masked
            + SPSR_EL2::I::Masked
            + SPSR_EL2::F::Masked,
    );
    // SAFETY: `stack` is this CPU's, and nothing on it is used after this.
    unsafe { vectors_enter_host(context, stack) }
}
