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
use hyp_core::vm::VcpuContext;
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

/// The stack frame of [`enter_guest`]: where the guest's x0 and x1 go at first, where its context is, and how large it is.
mod guest_frame {
    pub(super) const SCRATCH: usize = 96;
    pub(super) const CONTEXT: usize = 112;
    pub(super) const SIZE: usize = 128;
}

// The assembly goes by these: x0 first, and PC and PSTATE side by side.
const _: () = {
    assert!(offset_of!(VcpuContext, x) == 0);
    assert!(offset_of!(VcpuContext, pstate) == offset_of!(VcpuContext, pc) + 8);
};

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
    GUEST_SCRATCH = const guest_frame::SCRATCH,
    GUEST_CONTEXT = const guest_frame::CONTEXT,
    GUEST_FRAME = const guest_frame::SIZE,
    CONTEXT_PC = const offset_of!(VcpuContext, pc),
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
    static vectors_none: u8;
    static vectors_loop: u8;
    static vectors_clear: u8;
    static vectors_firmware_1: u8;
    static vectors_firmware_3: u8;
    static vectors_guest_none: u8;
    static vectors_guest_loop: u8;
    static vectors_guest_clear: u8;
    static vectors_guest_firmware_1: u8;
    static vectors_guest_firmware_3: u8;
    static vectors_boot: u8;
    /// Runs the guest that is loaded, with the general-purpose registers, PC and PSTATE of `context`, until it exits.
    /// Returns through which vector.
    fn vectors_enter_guest(context: *mut VcpuContext) -> u64;
    /// Goes to EL1 with x0, and with SP_EL2 at `stack`.
    fn vectors_enter_host(x0: u64, stack: u64) -> !;
}

/// Uses the vectors of the boot: all that happens is a panic.
pub(crate) fn install_boot() {
    VBAR_EL2.set((&raw const vectors_boot).addr() as u64);
    crate::barrier::isb();
}

/// The vectors of a CPU: while the host runs, and while a guest is loaded.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Vectors {
    host: u64,
    guest: u64,
}

impl Vectors {
    /// The vectors that begin as `slot` says.
    pub(crate) fn of(this: &PerCpu, slot: VectorSlot) -> Self {
        let (host, guest) = match slot {
            VectorSlot::None => (&raw const vectors_none, &raw const vectors_guest_none),
            VectorSlot::Loop { iterations } => {
                this.branch_loops.store(u64::from(iterations), Ordering::Relaxed);
                (&raw const vectors_loop, &raw const vectors_guest_loop)
            }
            VectorSlot::ClearBhb => (&raw const vectors_clear, &raw const vectors_guest_clear),
            VectorSlot::FirmwareWorkaround1 => {
                (&raw const vectors_firmware_1, &raw const vectors_guest_firmware_1)
            }
            VectorSlot::FirmwareWorkaround3 => {
                (&raw const vectors_firmware_3, &raw const vectors_guest_firmware_3)
            }
        };
        Self {
            host: host.addr() as u64,
            guest: guest.addr() as u64,
        }
    }

    /// Uses those of the host from the next exception to EL2 of another level on; at EL2 both do the same.
    #[inline]
    pub(crate) fn use_for_host(self) {
        VBAR_EL2.set(self.host);
    }

    /// Uses those of a guest.
    #[inline]
    pub(crate) fn use_for_guest(self) {
        VBAR_EL2.set(self.guest);
    }
}

/// Runs the guest that is loaded until it exits, and answers through which vector ([`kind`]). Its general-purpose
/// registers, PC and PSTATE are in `context` before and after.
#[inline(always)]
pub(crate) fn enter_guest(context: &mut VcpuContext) -> u64 {
    // SAFETY: the guest runs at EL1 and EL0, behind its own stage 2, so it reaches nothing of EL2's; its exit comes back
    // here with all that a call keeps. The assembly writes the fields of `context` that it names, and no others.
    unsafe { vectors_enter_guest(context) }
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
