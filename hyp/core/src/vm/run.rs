//! A run of a vCPU: it is taken out of its VM, runs on this CPU until it exits, and is put back.
//!
//! No lock is held while it runs. That it is out keeps its VM from being destroyed or renamed, so what is known of the
//! VM from the lock at the beginning stays true until the end.

use super::context::{GuestRegime, TrapKind, VcpuContext};
use super::entry::{self, EntryRecord, Interrupts, Reply};
use super::exit::Exit;
use super::state::{Life, Vm};
use super::table::LockedVm;
use super::vcpu::{Pending, Power, Vcpu, VcpuSlot};
use crate::hardware::Hardware;
use crate::ownership::Ownership;
use crate::trap::access::Resume;
use crate::trap::inject::{Exception, PstateFeatures, enter_el1};
use crate::trap::syndrome::FaultRegisters;
use core::mem;
use core::ops::ControlFlow;
use hyp_abi::run_page::{Answer, ExitReason};
use hyp_abi::{Counter, Status};

/// The exception class of an SError.
const CLASS_SERROR: u64 = 0x2f;
/// Bytes of an `HVC`.
const HVC_BYTES: u64 = 4;

/// What is done about a trap: the guest goes on, or the vCPU exits.
pub(super) type Flow = ControlFlow<Exit>;

/// A vCPU that this CPU has.
#[derive(Debug)]
pub(super) struct Running<'a, 'm, H: Hardware> {
    pub(super) own: &'a Ownership<'m, H>,
    pub(super) regime: GuestRegime,
    pub(super) vcpu: H::Home<Vcpu>,
}

impl<H: Hardware> Vm<H> {
    /// What its vCPU of this index runs in.
    #[inline]
    fn regime(&self, vcpu: u8) -> GuestRegime {
        GuestRegime {
            slot: self.handle.slot,
            generation: self.handle.generation,
            vcpu,
            root: self.table.root(),
            ipa_bits: self.config.ipa_bits,
            start_level: self.table.start_level(),
            protected: self.config.protected,
        }
    }
}

impl<H: Hardware> Ownership<'_, H> {
    /// Runs a vCPU on this CPU until it exits; see [`hyp_abi::VmCall::Run`].
    ///
    /// # Errors
    /// [`Status::NoSuchVm`], [`Status::WrongVmState`], [`Status::NoSuchVcpu`], [`Status::VcpuRunning`],
    /// [`Status::VcpuOff`], [`Status::InvalidParameter`], [`Status::StreamingMode`], [`Status::Poisoned`].
    #[inline(never)]
    pub fn run_vcpu(&self, vm: u64, index: u64) -> Result<Exit, Status> {
        let (mut running, before) = self.take_vcpu(vm, index)?;
        let run = running.run();
        let power = match &run {
            Ok(exit) if exit.reason == ExitReason::CpuOff => Power::Off,
            Ok(_) => Power::On,
            Err(_) if running.vcpu.start.is_some() => before,
            // An exit that could not be told is still to come.
            Err(_) => Power::On,
        };
        running.rest(power);
        run
    }

    /// Takes a vCPU out of its VM, and says whether it has run before.
    #[inline]
    fn take_vcpu(&self, vm: u64, index: u64) -> Result<(Running<'_, '_, H>, Power), Status> {
        let mut vm = self.vms().lock(self.hardware(), vm)?;
        if !matches!(vm.life, Life::Launched { off: false, .. }) {
            return Err(Status::WrongVmState);
        }
        let index = vm.checked_index(self.hardware(), index)?;
        let regime = vm.regime(index);
        let place = vm.vcpus.get_mut(usize::from(index)).ok_or(Status::NoSuchVcpu)?;
        match mem::replace(place, VcpuSlot::Running) {
            VcpuSlot::Resting {
                home,
                power: power @ (Power::On | Power::Pending),
            } => {
                let running = Running {
                    own: self,
                    regime,
                    vcpu: home,
                };
                Ok((running, power))
            }
            other => {
                let status = match other {
                    VcpuSlot::Absent => Status::NoSuchVcpu,
                    VcpuSlot::Running => Status::VcpuRunning,
                    VcpuSlot::Resting { .. } => Status::VcpuOff,
                };
                *place = other;
                Err(status)
            }
        }
    }
}

impl<H: Hardware> Running<'_, '_, H> {
    /// The machine below.
    #[inline]
    pub(super) const fn hw(&self) -> &H {
        self.own.hardware()
    }

    /// The vCPU's registers: while it is loaded, x0 to x30, PC and PSTATE.
    #[inline]
    pub(super) fn context(&mut self) -> &mut VcpuContext {
        &mut self.vcpu.context
    }

    /// Takes the lock of the VM.
    #[inline]
    pub(super) fn lock_vm(&self) -> LockedVm<'_, H> {
        self.own
            .vms()
            .lock_slot(self.hw(), self.regime.slot)
            .and_then(super::LockedSlot::into_vm)
            .expect("a VM of which a vCPU runs does not go away")
    }

    /// Puts the vCPU back.
    #[inline]
    fn rest(self, power: Power) {
        let Self { own, regime, vcpu } = self;
        let vm = own
            .vms()
            .lock_slot(own.hardware(), regime.slot)
            .and_then(super::LockedSlot::into_vm);
        let mut vm = vm.expect("a VM of which a vCPU runs does not go away");
        if let Some(place) = vm.vcpus.get_mut(usize::from(regime.vcpu)) {
            *place = VcpuSlot::Resting { home: vcpu, power };
        }
    }

    /// From the entry record to the exit record.
    #[inline]
    fn run(&mut self) -> Result<Exit, Status> {
        let hw = self.own.hardware();
        let vcpu = &mut *self.vcpu;
        if let Some(exit) = vcpu.undelivered.take() {
            return self.tell(exit);
        }
        let mut interrupts = Interrupts::new();
        let EntryRecord {
            reply,
            has_interrupts,
        } = entry::read(hw, vcpu.run_page, &vcpu.pending, &mut interrupts)?;
        if let Some(start) = vcpu.start {
            vcpu.begin(self.regime.vcpu, start);
        }
        if has_interrupts {
            interrupts.swap(&mut vcpu.context.gic);
        }
        if hw.load_guest(&self.regime, &mut vcpu.context).is_err() {
            if has_interrupts {
                interrupts.swap(&mut vcpu.context.gic);
            }
            return Err(Status::StreamingMode);
        }
        vcpu.start = None;
        hw.count(Counter::GuestEntries, 1);
        let exit = match self.resume(&reply) {
            ControlFlow::Continue(()) => self.cycle(),
            ControlFlow::Break(exit) => exit,
        };
        let vcpu = &mut *self.vcpu;
        hw.put_guest(&self.regime, &mut vcpu.context);
        hw.count(Counter::GuestExits, 1);
        self.tell(exit)
    }

    /// Writes the exit record. If the page answers with an abort the exit is kept for the next run.
    #[inline(always)]
    fn tell(&mut self, exit: Exit) -> Result<Exit, Status> {
        let vcpu = &mut *self.vcpu;
        match exit.write(self.own.hardware(), vcpu.run_page, &vcpu.context) {
            Ok(()) => Ok(exit),
            Err(_) => {
                vcpu.undelivered = Some(exit);
                Err(Status::Poisoned)
            }
        }
    }

    /// The guest runs, and EL2 answers what it can, until something is for the host.
    #[inline]
    fn cycle(&mut self) -> Exit {
        loop {
            let trap = self.own.hardware().run_guest(&mut self.vcpu.context);
            let flow = match trap.kind {
                TrapKind::Synchronous if self.short_call(trap.registers.esr) => continue,
                TrapKind::Synchronous => self.synchronous(trap.registers),
                TrapKind::Interrupt => return Exit::plain(ExitReason::Interrupt),
                TrapKind::SError => return unhandled(CLASS_SERROR),
            };
            if let ControlFlow::Break(exit) = flow {
                return exit;
            }
        }
    }

    /// Brings the last exit to its end, as the host's answer says.
    #[inline]
    fn resume(&mut self, reply: &Reply) -> Flow {
        match mem::take(&mut self.vcpu.pending) {
            // Whatever the guest wanted, it does it again.
            Pending::Nothing => ControlFlow::Continue(()),
            Pending::Exit { reason, trap, value } => self.answer(reason, trap, value, reply),
        }
    }

    fn answer(&mut self, reason: ExitReason, trap: FaultRegisters, value: u64, reply: &Reply) -> Flow {
        match (reply.answer, reason) {
            // Not left to the guest, which might be interrupted before it comes to its call again: the host has this
            // one try to let go of the page.
            (Answer::Retry, ExitReason::Pinned) => {
                self.finish_call();
                self.repeat_call(trap, value)
            }
            (Answer::Retry, _) => ControlFlow::Continue(()),
            (Answer::Refuse, _) => self.refuse_pending(trap),
            (Answer::Done, ExitReason::HostService) => {
                self.finish_call();
                self.set_results(reply.values);
                ControlFlow::Continue(())
            }
            (Answer::Done, _) => {
                let [value, ..] = reply.values;
                self.finish_access(trap, value);
                ControlFlow::Continue(())
            }
        }
    }

    /// An exit that waits for an answer. PC must be that of the instruction that it is about.
    #[inline]
    pub(super) fn wait_for(&mut self, trap: FaultRegisters, exit: Exit) -> Flow {
        let [value, ..] = exit.values;
        self.vcpu.pending = Pending::Exit {
            reason: exit.reason,
            trap,
            value,
        };
        ControlFlow::Break(exit)
    }

    /// Back to the `HVC` of a call, of which nothing has been done.
    #[inline]
    pub(super) fn restart_call(&mut self) {
        let context = self.context();
        context.pc = context.pc.wrapping_sub(HVC_BYTES);
    }

    /// Past the `HVC` of a call that was to be restarted.
    #[inline]
    pub(super) fn finish_call(&mut self) {
        let context = self.context();
        context.pc = context.pc.wrapping_add(HVC_BYTES);
    }

    /// Past the trapped instruction, as if it had been carried out.
    #[inline]
    pub(super) fn step_past(&mut self, esr: u64) {
        let context = self.context();
        let next = Resume {
            elr: context.pc,
            spsr: context.pstate,
        }
        .past(esr);
        context.pc = next.elr;
        context.pstate = next.spsr;
    }

    /// Has the guest take an exception at EL1.
    #[cold]
    pub(super) fn inject(&mut self, exception: Exception) {
        let hw = self.own.hardware();
        let context = &mut self.vcpu.context;
        let source = hw.guest_exception_source(context);
        let entry = enter_el1(&source, PstateFeatures::of(hw.id_registers()), exception);
        hw.enter_guest_exception(&entry);
        context.pc = entry.pc;
        context.pstate = entry.pstate;
    }
}

impl Vcpu {
    /// The state in which a vCPU begins that was turned on.
    #[cold]
    #[inline(never)]
    pub(super) fn begin(&mut self, index: u8, start: super::Start) {
        let offset = self.context.timer.offset;
        self.context = VcpuContext::reset(index, start);
        // The VM's time goes on.
        self.context.timer.offset = offset;
        self.pending = Pending::Nothing;
    }
}

/// An exit about an exception of a class that EL2 does not carry out.
pub(super) const fn unhandled(class: u64) -> Exit {
    Exit::new(ExitReason::Unhandled, class, 0, 0)
}
