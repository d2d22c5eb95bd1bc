//! System registers of which a guest's use is trapped.

use super::exit::Exit;
use super::run::{Flow, Running};
use crate::hardware::Hardware;
use crate::trap::guest_id::GuestCpu;
use crate::trap::guest_sysreg::{GuestSysreg, answer};
use crate::trap::inject::Exception;
use crate::trap::syndrome::{FaultRegisters, SystemAccess};
use core::ops::ControlFlow;
use hyp_abi::run_page::ExitReason;

impl<H: Hardware> Running<'_, '_, H> {
    /// Carries out a trapped access.
    pub(super) fn system_register(&mut self, access: SystemAccess, trap: FaultRegisters) -> Flow {
        let hw = self.own.hardware();
        let cpu = GuestCpu {
            id: hw.id_registers(),
            ipa_bits: self.regime.ipa_bits,
        };
        let from_el1 = hw.guest_exception_source(&self.vcpu.context).from_el1();
        match answer(access, from_el1, &cpu) {
            GuestSysreg::Read(value) => {
                // 31 is XZR, which stays zero.
                if let Some(register) = self.context().x.get_mut(usize::from(access.rt)) {
                    *register = value;
                }
            }
            GuestSysreg::Ignore => {}
            GuestSysreg::SendInterrupt(sender) => {
                let registers = &self.vcpu.context.x;
                let value = registers.get(usize::from(access.rt)).copied().unwrap_or(0);
                self.step_past(trap.esr);
                let exit = Exit::new(ExitReason::SendInterrupt, value, sender.into(), 0);
                return ControlFlow::Break(exit);
            }
            GuestSysreg::Undefined => {
                self.inject(Exception::Undefined);
                return ControlFlow::Continue(());
            }
        }
        self.step_past(trap.esr);
        ControlFlow::Continue(())
    }
}
