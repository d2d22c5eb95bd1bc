//! What a CPU does with an exception: a probe's is recorded, an interrupt is served, anything else ends the run.
#![expect(unsafe_code, reason = "assembly calls these with a frame on the stack")]

use crate::{attack, cpu, interrupts, probe, sysreg};
use core::fmt;
use core::mem::offset_of;

/// What the vectors save, in the order in which they save it.
#[derive(Clone, Debug)]
#[repr(C, align(16))]
pub(crate) struct Frame {
    /// x0 to x30.
    pub(crate) x: [u64; 31],
    /// ELR_EL1.
    pub(crate) elr: u64,
    /// SPSR_EL1.
    pub(crate) spsr: u64,
    /// ESR_EL1.
    pub(crate) esr: u64,
    /// FAR_EL1.
    pub(crate) far: u64,
}

/// An exception, as EL1 saw it arrive.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) struct Fault {
    /// ESR_EL1.
    pub(crate) esr: u64,
    /// FAR_EL1.
    pub(crate) far: u64,
    /// ELR_EL1.
    pub(crate) elr: u64,
    /// SPSR_EL1.
    pub(crate) spsr: u64,
    /// The exception mask that the handler began with.
    pub(crate) daif: u64,
    /// The stack pointer that the handler began with: 1 for SP_EL1.
    pub(crate) sp_sel: u64,
}

impl Fault {
    fn of(frame: &Frame) -> Self {
        Self {
            esr: frame.esr,
            far: frame.far,
            elr: frame.elr,
            spsr: frame.spsr,
            daif: sysreg::daif(),
            sp_sel: sysreg::sp_sel(),
        }
    }

    /// The exception class.
    pub(crate) fn class(&self) -> u64 {
        self.esr >> 26 & 0x3f
    }

    /// The fault status code of an abort.
    pub(crate) fn status(&self) -> u64 {
        self.esr & 0x3f
    }

    /// Whether an abort says that it was a write.
    pub(crate) fn is_write(&self) -> bool {
        self.esr & (1 << 6) != 0
    }
}

impl fmt::Debug for Fault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            f,
            "esr {:#x} (ec {:#x}, fsc {:#x}) far {:#x} elr {:#x} spsr {:#x} daif {:#x} spsel {}",
            self.esr,
            self.class(),
            self.status(),
            self.far,
            self.elr,
            self.spsr,
            self.daif,
            self.sp_sel
        )
    }
}

/// Exception classes that the cases name (Arm ARM DDI 0487, D24.2.40, ESR_EL1.EC).
pub(crate) mod class {
    /// Unknown reason: an instruction that is undefined here.
    pub(crate) const UNKNOWN: u64 = 0x00;
    /// SVC from AArch64.
    pub(crate) const SVC: u64 = 0x15;
    /// Instruction abort from a lower level.
    pub(crate) const INSTRUCTION_ABORT_LOWER: u64 = 0x20;
    /// Instruction abort without a change of level.
    pub(crate) const INSTRUCTION_ABORT_SAME: u64 = 0x21;
    /// Data abort from a lower level.
    pub(crate) const DATA_ABORT_LOWER: u64 = 0x24;
    /// Data abort without a change of level.
    pub(crate) const DATA_ABORT_SAME: u64 = 0x25;
}

extern "C" fn sync_el1(frame: &mut Frame) {
    let fault = Fault::of(frame);
    if !probe::caught_at_el1(frame, fault) && !attack::caught_at_el1(frame, fault) {
        panic!(
            "unexpected exception: {:?}, x30 {:#x}",
            Fault::of(frame),
            frame.x[30]
        );
    }
}

extern "C" fn sync_el0(frame: &mut Frame) {
    probe::caught_at_el0(frame, Fault::of(frame));
}

extern "C" fn irq(_frame: &mut Frame) {
    interrupts::serve();
}

extern "C" fn unexpected(frame: &mut Frame, vector: u64) -> ! {
    panic!(
        "unexpected exception by vector {vector} on CPU {}: {:?}",
        cpu::number(),
        Fault::of(frame)
    );
}

core::arch::global_asm!(
    include_str!("../../asm/vectors.S"),
    FRAME_SIZE = const size_of::<Frame>(),
    FRAME_ELR = const offset_of!(Frame, elr),
    FRAME_ESR = const offset_of!(Frame, esr),
    SYNC_EL1 = sym sync_el1,
    SYNC_EL0 = sym sync_el0,
    IRQ = sym irq,
    UNEXPECTED = sym unexpected,
);
