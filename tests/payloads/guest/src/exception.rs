//! What a vCPU does with an exception: a probe's is recorded, an interrupt is taken, anything else is told to the host.
#![expect(unsafe_code, reason = "assembly calls these with a frame on the stack")]

use crate::{interrupts, probe, service};
use core::mem::offset_of;
use payload_protocol::Report;

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
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Fault {
    /// ESR_EL1.
    pub(crate) esr: u64,
    /// FAR_EL1.
    pub(crate) far: u64,
    /// ELR_EL1.
    pub(crate) elr: u64,
    /// SPSR_EL1.
    pub(crate) spsr: u64,
}

impl Fault {
    fn of(frame: &Frame) -> Self {
        Self {
            esr: frame.esr,
            far: frame.far,
            elr: frame.elr,
            spsr: frame.spsr,
        }
    }

    /// The exception class.
    pub(crate) fn class(&self) -> u64 {
        self.esr >> 26 & 0x3f
    }

    fn report(self) -> Report {
        let Self { esr, far, elr, .. } = self;
        Report::Broken { esr, far, elr }
    }
}

/// Exception classes (Arm ARM DDI 0487, D24.2.40, ESR_EL1.EC).
pub(crate) mod class {
    /// SVC from AArch64.
    pub(crate) const SVC: u64 = 0x15;
}

extern "C" fn sync_el1(frame: &mut Frame) {
    let fault = Fault::of(frame);
    if !probe::caught_at_el1(frame, fault) {
        service::broken(fault.report());
    }
}

extern "C" fn sync_el0(frame: &mut Frame) {
    probe::caught_at_el0(frame, Fault::of(frame));
}

extern "C" fn irq(_frame: &mut Frame) {
    interrupts::take();
}

extern "C" fn unexpected(frame: &mut Frame, _vector: u64) -> ! {
    service::broken(Fault::of(frame).report())
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
