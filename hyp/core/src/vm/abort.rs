//! A guest's abort: an access that its stage 2 did not let through.
//!
//! The ownership map and the guest's table judge it ([`Ownership::judge_guest_abort`](crate::ownership::Ownership::judge_guest_abort)). What is to be a
//! device is described to the host by the syndrome, one register and no more, and completed by the host's answer.

use super::exit::Exit;
use super::run::{Flow, Running};
use crate::addr::{FRAME_SHIFT, FRAME_SIZE, Ipa};
use crate::hardware::{Extent, Hardware, Regime};
use crate::ownership::guest::{GuestAccess, GuestVerdict};
use crate::trap::abort::{Abort, FaultAddress, FaultKind};
use crate::trap::access::{DataAccess, big_endian};
use crate::trap::inject::Exception;
use crate::trap::syndrome::{FaultRegisters, Syndrome};
use core::ops::ControlFlow;
use hyp_abi::Counter;
use hyp_abi::run_page::{AccessFlags, ExitReason};

/// What a refused access is to the guest: nothing is there.
const fn refusal(abort: &Abort) -> Exception {
    Exception::external(abort)
}

impl<H: Hardware> Running<'_, '_, H> {
    /// Judges an abort.
    pub(super) fn abort(&mut self, abort: &Abort, trap: FaultRegisters) -> Flow {
        let hw = self.own.hardware();
        hw.count(Counter::GuestAborts, 1);
        match abort.status.kind {
            FaultKind::Translation | FaultKind::AccessFlag | FaultKind::Permission => {}
            // Break-before-make was not kept, by the guest's stage 1 or by us: all of it goes, and it is tried again.
            FaultKind::TlbConflict => {
                hw.invalidate(Regime::Guest(u16::from(self.regime.slot)), Extent::All);
                return self.once_more();
            }
            _ => {
                self.inject(refusal(abort));
                return ControlFlow::Continue(());
            }
        }
        let reported = if hw.reports_wrong_stage() {
            abort.address_without_hpfar()
        } else {
            abort.address()
        };
        let address = match reported {
            FaultAddress::Known(address) => address,
            FaultAddress::Translate(far) => match hw.translate_guest(far) {
                Some(address) => address,
                // Another vCPU has changed stage 1 since.
                None => return self.once_more(),
            },
            FaultAddress::BeyondReach | FaultAddress::Unknown => {
                self.inject(refusal(abort));
                return ControlFlow::Continue(());
            }
        };
        let access = if abort.fetch && !abort.stage1_walk {
            GuestAccess::Fetch
        } else if abort.wants_write() {
            GuestAccess::Write
        } else {
            GuestAccess::Read
        };
        match self.own.judge_guest_abort(self.regime.slot, address, access) {
            GuestVerdict::Retry => ControlFlow::Continue(()),
            GuestVerdict::Busy => self.once_more(),
            GuestVerdict::Missing { gfn } => {
                let flags = access_flags(abort, access).bits();
                self.wait_for(trap, Exit::new(ExitReason::MemoryFault, gfn, flags, 0))
            }
            GuestVerdict::Lost { gfn } => self.wait_for(trap, Exit::new(ExitReason::Lost, gfn, 0, 0)),
            GuestVerdict::Mmio => self.device_access(abort, trap, address, access),
            GuestVerdict::Inject => {
                self.inject(refusal(abort));
                ControlFlow::Continue(())
            }
        }
    }

    /// The guest tries again, but not while an interrupt waits for the host: it may be what the guest waits for.
    pub(super) fn once_more(&self) -> Flow {
        if self.hw().interrupt_pending() {
            self.hw().count(Counter::CallsInterrupted, 1);
            return ControlFlow::Break(Exit::plain(ExitReason::Interrupt));
        }
        ControlFlow::Continue(())
    }

    /// An access to a device that the host emulates. One that the syndrome does not describe (a pair, with a writeback, of
    /// a vector register, cache maintenance, a table walk, a fetch) is refused, and so is one that runs into the next page:
    /// that page was not judged. Of a VM that is not protected the host refuses it: it may have memory to put there.
    fn device_access(
        &mut self,
        abort: &Abort,
        trap: FaultRegisters,
        address: Ipa,
        access: GuestAccess,
    ) -> Flow {
        let described = abort.access.filter(|access| {
            let end = (address.value() & (FRAME_SIZE - 1)) + access.width.bytes();
            !abort.stage1_walk && !abort.cache_maintenance && end <= FRAME_SIZE
        });
        let Some(described) = described else {
            if !self.regime.protected {
                let flags = access_flags(abort, access).bits();
                let gfn = address.value() >> FRAME_SHIFT;
                return self.wait_for(trap, Exit::new(ExitReason::MemoryFault, gfn, flags, 0));
            }
            self.inject(refusal(abort));
            return ControlFlow::Continue(());
        };
        let bytes = described.width.bytes();
        let exit = if described.write {
            let big_endian = self.big_endian();
            let value = described.stored(&self.context().x, big_endian);
            Exit::new(ExitReason::MmioWrite, address.value(), bytes, value)
        } else {
            Exit::new(ExitReason::MmioRead, address.value(), bytes, 0)
        };
        self.wait_for(trap, exit)
    }

    /// The host has emulated the access that it was told of; `memory` is what a load found.
    pub(super) fn finish_access(&mut self, trap: FaultRegisters, memory: u64) {
        if let Some(access) = described_access(trap) {
            if !access.write {
                let big_endian = self.big_endian();
                access.load(&mut self.context().x, memory, big_endian);
            }
            self.step_past(trap.esr);
        }
    }

    /// The host refuses what its last exit told of: an access gets an exception, a call its error.
    pub(super) fn refuse_pending(&mut self, trap: FaultRegisters) -> Flow {
        match Syndrome::decode(trap) {
            Syndrome::DataAbort(abort) | Syndrome::InstructionAbort(abort) => self.inject(refusal(&abort)),
            _ => {
                self.finish_call();
                self.refuse_call();
            }
        }
        ControlFlow::Continue(())
    }

    /// Whether the guest's data accesses are big-endian where it is.
    fn big_endian(&self) -> bool {
        let source = self.hw().guest_exception_source(&self.vcpu.context);
        big_endian(source.spsr, source.sctlr_el1)
    }
}

/// The access that a data abort describes.
fn described_access(trap: FaultRegisters) -> Option<DataAccess> {
    match Syndrome::decode(trap) {
        Syndrome::DataAbort(abort) => abort.access,
        _ => None,
    }
}

/// How the host is told that the guest reached for a page.
fn access_flags(abort: &Abort, access: GuestAccess) -> AccessFlags {
    let mut flags = AccessFlags::empty();
    flags.set(AccessFlags::WRITE, access == GuestAccess::Write);
    flags.set(AccessFlags::FETCH, access == GuestAccess::Fetch);
    flags.set(AccessFlags::WALK, abort.stage1_walk);
    flags
}
