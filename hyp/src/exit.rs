//! What is done about an exit of the host: decoded, judged by hyp-core, and answered in its registers.
//!
//! A hypercall goes straight to [`hyp_core::hypercall`]; an SMC to [`crate::smc`]; an abort to the map
//! ([`hyp_core::ownership`]) and, where the host uses a device through EL2, to [`crate::device`]. What EL2 does not
//! expect is an undefined instruction to the host.

use crate::barrier::isb;
use crate::machine;
use crate::panic;
use crate::percpu::PerCpu;
use crate::vectors::HostFrame;
use crate::{cpu, device, smc};
use aarch64_cpu::registers::{
    ELR_EL1, ELR_EL2, ESR_EL1, FAR_EL1, FAR_EL2, HPFAR_EL2, SCTLR_EL1, SPSR_EL1, SPSR_EL2, VBAR_EL1,
};
use hyp_abi::trace::TraceEvent;
use hyp_abi::{Counter, Status};
use hyp_core::addr::Ipa;
use hyp_core::hypercall::{answer_in_full, answer_shortly};
use hyp_core::ownership::{AbortVerdict, HostAccess};
use hyp_core::trap::access::Resume;
use hyp_core::trap::host_traps::HostTraps;
use hyp_core::trap::inject::{Entry, Exception, Source, enter_el1};
use hyp_core::trap::syndrome::{FaultRegisters, SystemAccess};
use hyp_core::trap::sysreg::{Answer, answer};
use hyp_core::trap::{Abort, FaultAddress, FaultKind, Syndrome};
use tock_registers::interfaces::{Readable, Writeable};

/// What x0 to x3 of the host become. Returned in memory (AAPCS64, 6.9), so right where they are restored from.
#[repr(C)]
pub(crate) struct HypercallAnswer([u64; 4]);

/// A hypercall: `HVC #0` from AArch64. x0 to x6 in, x0 to x3 out.
///
/// What is quickly answered is answered here, without a stack; all else, and everything that is to be traced, goes on
/// to [`hypercall_in_full`].
pub(crate) extern "C" fn host_hypercall(
    x0: u64,
    x1: u64,
    x2: u64,
    x3: u64,
    x4: u64,
    x5: u64,
    x6: u64,
    esr: u64,
) -> HypercallAnswer {
    let this = PerCpu::this();
    #[cfg(feature = "panic-test")]
    crate::panic_test::hear([x0, x1, x2]);
    if !this.ring.is_attached()
        && let Some(ownership) = machine::try_ownership()
        && let Some(answer) = answer_shortly(ownership, [x0, x1, x2, x3, x4, x5, x6])
    {
        this.count(Counter::HostExits, 1);
        return HypercallAnswer(answer);
    }
    hypercall_in_full(x0, x1, x2, x3, x4, x5, x6, esr)
}

#[inline(never)]
extern "C" fn hypercall_in_full(
    x0: u64,
    x1: u64,
    x2: u64,
    x3: u64,
    x4: u64,
    x5: u64,
    x6: u64,
    esr: u64,
) -> HypercallAnswer {
    let this = entered(esr);
    let answer = answer_in_full(machine::ownership(), [x0, x1, x2, x3, x4, x5, x6]);
    this.ring.record(TraceEvent::Exit, answer[0], 0);
    HypercallAnswer(answer)
}

/// An SMC from AArch64, trapped. x0 to x3 in and out.
pub(crate) extern "C" fn host_smc(frame: &mut HostFrame, esr: u64) {
    let this = entered(esr);
    this.count(Counter::Smcs, 1);
    // The trapped instruction has not been executed: the host goes on after it.
    step_past(esr);
    smc::host_smc(this, &mut frame.x, esr as u16);
    this.ring.record(TraceEvent::Exit, frame.x[0], 0);
}

/// Any other exit. All registers are in the frame.
pub(crate) extern "C" fn host_exit(frame: &mut HostFrame, esr: u64) {
    panic::park_if_panicking();
    let this = entered(esr);
    let registers = FaultRegisters {
        esr,
        far: FAR_EL2.get(),
        hpfar: HPFAR_EL2.get(),
    };
    match Syndrome::decode(registers) {
        Syndrome::InstructionAbort(abort) | Syndrome::DataAbort(abort) => {
            host_abort(this, frame, &abort, esr)
        }
        Syndrome::SystemRegister(access) => system_register(this, frame, access, esr),
        Syndrome::Hvc64 { .. } => {
            // DEN0028 2.4: calls are made with number 0, and come the short way; all others are nobody's.
            this.count(Counter::Hypercalls, 1);
            this.count(Counter::HypercallsRefused, 1);
            frame.x[0] = Status::NotSupported.to_register();
        }
        _ => undefined(this),
    }
    this.ring.record(TraceEvent::Exit, frame.x[0], 0);
}

/// An interrupt or SError, which are routed to EL1 while the host runs.
pub(crate) extern "C" fn host_unexpected(frame: &mut HostFrame) -> ! {
    panic::park_if_panicking();
    panic::on_frame(
        frame,
        format_args!("an interrupt or SError of the host came to EL2"),
    )
}

/// What every exit begins with.
#[inline(always)]
fn entered(esr: u64) -> &'static PerCpu {
    let this = PerCpu::this();
    this.count(Counter::HostExits, 1);
    this.ring.record(TraceEvent::Entry, esr, 0);
    this
}

/// An access that stage 2 did not let through.
fn host_abort(this: &PerCpu, frame: &mut HostFrame, abort: &Abort, esr: u64) {
    this.count(Counter::HostAborts, 1);
    let verdict = match fault_address(abort) {
        Found::Address(address) => match abort.status.kind {
            // The host's table sets every access flag, and no more than what the map says can be the reason.
            FaultKind::Translation | FaultKind::Permission | FaultKind::AccessFlag => {
                let access = match (abort.fetch, abort.wants_write()) {
                    (true, _) => HostAccess::Fetch,
                    (false, true) => HostAccess::Write,
                    (false, false) => HostAccess::Read,
                };
                match machine::ownership().judge_host_abort(address, access) {
                    AbortVerdict::Emulate(range) => device::access(this, &mut frame.x, abort, address, range),
                    other => other.into(),
                }
            }
            _ => Outcome::Inject,
        },
        // The translation changed since: the instruction will find the new one.
        Found::Gone => Outcome::Retry,
        Found::Nowhere => Outcome::Inject,
    };
    match verdict {
        Outcome::Retry => this.count(Counter::HostAbortsRetried, 1),
        Outcome::Done => step_past(esr),
        Outcome::Inject => {
            this.count(Counter::HostAbortsInjected, 1);
            inject(this, Exception::refusing(abort));
        }
    }
}

/// What becomes of an aborted access.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Outcome {
    /// The host tries again.
    Retry,
    /// EL2 has carried it out.
    Done,
    /// The host gets an exception.
    Inject,
}

impl From<AbortVerdict> for Outcome {
    fn from(verdict: AbortVerdict) -> Self {
        match verdict {
            AbortVerdict::Retry => Self::Retry,
            AbortVerdict::Inject | AbortVerdict::Emulate(_) => Self::Inject,
        }
    }
}

/// Where an access went.
enum Found {
    /// There.
    Address(Ipa),
    /// Stage 1 no longer translates it.
    Gone,
    /// Nowhere that the host's table reaches.
    Nowhere,
}

fn fault_address(abort: &Abort) -> Found {
    let address = if cpu::errata().wrong_stage {
        abort.address_without_hpfar()
    } else {
        abort.address()
    };
    match address {
        FaultAddress::Known(address) => Found::Address(address),
        FaultAddress::Translate(far) => match cpu::translate_as_el1(far) {
            Some(address) => Found::Address(address),
            None => Found::Gone,
        },
        FaultAddress::BeyondReach | FaultAddress::Unknown => Found::Nowhere,
    }
}

/// An access to a system register, trapped on purpose or not.
fn system_register(this: &PerCpu, frame: &mut HostFrame, access: SystemAccess, esr: u64) {
    let traps = HostTraps::new(&cpu::id_registers(), cpu::trap_settings());
    match answer(access, source().from_el1(), &traps) {
        Answer::Undefined => undefined(this),
        Answer::ReadId { register, hidden, rt } => {
            if let Some(target) = frame.x.get_mut(usize::from(rt)) {
                *target = cpu::read_id(register) & !hidden;
            }
            step_past(esr);
        }
    }
}

/// The instruction is undefined to the host.
fn undefined(this: &PerCpu) {
    this.count(Counter::UndefinedInjected, 1);
    inject(this, Exception::Undefined);
}

/// The host goes on after the instruction.
fn step_past(esr: u64) {
    let next = Resume {
        elr: ELR_EL2.get(),
        spsr: SPSR_EL2.get(),
    }
    .past(esr);
    ELR_EL2.set(next.elr);
    SPSR_EL2.set(next.spsr);
}

fn source() -> Source {
    Source {
        spsr: SPSR_EL2.get(),
        elr: ELR_EL2.get(),
        sctlr_el1: SCTLR_EL1.get(),
        vbar_el1: VBAR_EL1.get(),
        gcscr_el1: cpu::gcscr_el1(),
    }
}

/// Has the host take an exception at EL1.
fn inject(this: &PerCpu, exception: Exception) {
    let pstate = this.pstate.call_once(cpu::pstate_features);
    let entry = enter_el1(&source(), *pstate, exception);
    write_exception(&entry);
    ELR_EL2.set(entry.pc);
    SPSR_EL2.set(entry.pstate);
    isb();
}

/// Writes what an exception leaves in EL1's registers.
pub(crate) fn write_exception(entry: &Entry) {
    ELR_EL1.set(entry.elr_el1);
    SPSR_EL1.set(entry.spsr_el1);
    ESR_EL1.set(entry.esr_el1);
    if let Some(far) = entry.far_el1 {
        FAR_EL1.set(far);
    }
}
