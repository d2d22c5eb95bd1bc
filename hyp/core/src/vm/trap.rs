//! What a guest's synchronous exception means.

use super::exit::Exit;
use super::guest_call::CLASS_HVC64;
use super::run::{Flow, Running, unhandled};
use crate::hardware::Hardware;
use crate::trap::Syndrome;
use crate::trap::inject::Exception;
use crate::trap::syndrome::{FaultRegisters, exception_class};
use core::ops::ControlFlow;
use hyp_abi::guest_call::NOT_SUPPORTED;
use hyp_abi::run_page::{ExitReason, WaitKind};

impl<H: Hardware> Running<'_, '_, H> {
    /// Carries out what trapped, or finds that it is for the host.
    #[inline(never)]
    pub(super) fn synchronous(&mut self, trap: FaultRegisters) -> Flow {
        // Calls come most often.
        if exception_class(trap.esr) == CLASS_HVC64 {
            return self.guest_call(trap);
        }
        self.other_trap(trap)
    }

    fn other_trap(&mut self, trap: FaultRegisters) -> Flow {
        match Syndrome::decode(trap) {
            Syndrome::DataAbort(abort) | Syndrome::InstructionAbort(abort) => self.abort(&abort, trap),
            Syndrome::SystemRegister(access) => self.system_register(access, trap),
            Syndrome::Wfx { instruction } => {
                self.step_past(trap.esr);
                // WFET and WFIT wait no longer than they say; the host may wake the vCPU whenever it likes.
                let kind = if instruction & 1 == 0 {
                    WaitKind::Interrupt
                } else {
                    WaitKind::Event
                };
                ControlFlow::Break(Exit::new(ExitReason::Wait, kind.into(), 0, 0))
            }
            // There is no firmware below a guest.
            Syndrome::Smc64 { .. } | Syndrome::Smc32 => {
                self.step_past(trap.esr);
                self.context().x[0] = NOT_SUPPORTED.cast_unsigned();
                ControlFlow::Continue(())
            }
            // What a guest is not given is not there.
            Syndrome::Unknown
            | Syndrome::Sve
            | Syndrome::Sme
            | Syndrome::PointerAuthentication
            | Syndrome::Coprocessor { .. }
            | Syndrome::OtherInstruction { .. }
            | Syndrome::SystemRegister128(_) => {
                self.inject(Exception::Undefined);
                ControlFlow::Continue(())
            }
            Syndrome::FloatingPoint
            | Syndrome::IllegalExecution
            | Syndrome::Hvc32 { .. }
            | Syndrome::Hvc64 { .. }
            | Syndrome::Eret
            | Syndrome::OwnAbort(_)
            | Syndrome::PcAlignment
            | Syndrome::SpAlignment
            | Syndrome::SystemError { .. }
            | Syndrome::Debug { .. }
            | Syndrome::Other { .. }
            | Syndrome::Reserved { .. } => ControlFlow::Break(unhandled(exception_class(trap.esr).into())),
        }
    }
}
