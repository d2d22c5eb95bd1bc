//! Runs of a vCPU until the guest says something, with every exit in between answered as a host must.

use super::calls;
use super::exit::Exit;
use super::vcpu::Answer;
use super::vgic;
use super::vm::Vm;
use crate::registry::{Outcome, TestResult, ensure_eq, fail};
use crate::sysreg;
use hyp_abi::FRAME_SIZE;
use payload_protocol::{Access, Conduit, Level, Order, Report, SERVICE, layout};

/// Seconds after which a guest that says nothing is taken to be lost.
const PATIENCE: u64 = 60;

impl Vm {
    /// Runs a vCPU once.
    pub(crate) fn run(&self, index: usize, answer: Answer) -> Result<Exit, Outcome> {
        self.vcpus[index].run(self.handle(), index as u64, answer)
    }

    /// Runs a vCPU until it exits for a reason that the case is about: neither because the host was interrupted, nor
    /// because the guest's own code met its memory for the first time.
    pub(crate) fn exit(&self, index: usize, answer: Answer) -> Result<Exit, Outcome> {
        let deadline = deadline();
        let mut exit = self.run(index, answer)?;
        while is_its_own(exit) {
            self.handle_exit(index, exit)?;
            ensure_patience(deadline)?;
            exit = self.run(index, Answer::None)?;
        }
        Ok(exit)
    }

    /// Runs a vCPU until it exits for a reason that only the case can answer.
    pub(crate) fn serve(&self, index: usize, answer: Answer) -> Result<Exit, Outcome> {
        let deadline = deadline();
        let mut answer = answer;
        loop {
            let exit = self.run(index, answer)?;
            answer = Answer::None;
            if !self.handle_exit(index, exit)? {
                return Ok(exit);
            }
            ensure_patience(deadline)?;
        }
    }

    /// Answers an exit as a host must, if it can be answered without asking the case.
    pub(crate) fn handle_exit(&self, index: usize, exit: Exit) -> Result<bool, Outcome> {
        match exit {
            Exit::Interrupt => take_interrupts(),
            Exit::MemoryFault { gfn, .. } => self.provide(gfn)?,
            Exit::MemoryNeeded(pages) => calls::top_up(self.handle(), pages)?,
            Exit::SendInterrupt { value, register: 0 } => self.send(index, value),
            Exit::CpuOn(_) => {}
            Exit::Relinquished { gfn, frames } => self.take_relinquished(gfn, frames)?,
            Exit::Wait(_) => return Ok(self.wait(index)),
            _ => return Ok(false),
        }
        Ok(true)
    }

    /// Puts a page where the guest lacks one. Another of its vCPUs may have met the same gap before.
    fn provide(&self, gfn: u64) -> TestResult {
        let declared = self.plan.declared();
        if !(declared.gfn..declared.gfn + declared.frames).contains(&gfn) {
            fail!("a fault at {gfn:#x}, outside the guest's memory");
        }
        let _alone = self.providing.lock();
        if !self.has(gfn) {
            self.give(gfn)?;
        }
        Ok(())
    }

    /// Hands an interrupt on to the vCPUs that it is for.
    fn send(&self, from: usize, value: u64) {
        let (targets, number) = vgic::targets(value, from, self.vcpus.len());
        targets.for_each(|target| self.vcpus[target].interrupt(number));
    }

    /// Waits for what a vCPU waits for; `false` if nothing is known that would wake it.
    fn wait(&self, index: usize) -> bool {
        let vcpu = &self.vcpus[index];
        while !vcpu.is_wanted() {
            if vcpu.alarm().is_none() {
                return false;
            }
            take_interrupts();
            sysreg::relax();
        }
        true
    }

    /// Has a vCPU that has not run yet come up, and returns its first report.
    pub(crate) fn begin(&self, index: usize) -> Result<Report, Outcome> {
        let exit = self.serve(index, Answer::None)?;
        report(exit)
    }

    /// Has vCPU 0 come up, which must have found what the plan says.
    pub(crate) fn ready(&self) -> TestResult {
        match self.begin(0)? {
            Report::Ready { start, .. } if start == self.plan.start.to_register() => Ok(()),
            other => fail!("the guest began with {other:x?}"),
        }
    }

    /// Has a vCPU carry out an order, and returns its report.
    pub(crate) fn order(&self, index: usize, order: Order) -> Result<Report, Outcome> {
        let exit = self.serve(index, Answer::Done(order.encode()))?;
        report(exit)
    }

    /// Gives a vCPU an order and returns the first exit that follows and is the order's: see [`Vm::exit`].
    pub(crate) fn begin_order(&self, index: usize, order: Order) -> Result<Exit, Outcome> {
        self.exit(index, Answer::Done(order.encode()))
    }

    /// Answers the last exit of an order, and returns the order's report.
    pub(crate) fn finish(&self, index: usize, answer: Answer) -> Result<Report, Outcome> {
        let exit = self.serve(index, answer)?;
        report(exit)
    }

    /// An order that must be carried out without a fault. Returns its five values.
    pub(crate) fn done(&self, index: usize, order: Order) -> Result<[u64; 5], Outcome> {
        match self.order(index, order)? {
            Report::Done(values) => Ok(values),
            other => fail!("{order:x?}: {other:x?}"),
        }
    }

    /// A load of eight bytes by vCPU 0.
    pub(crate) fn load8(&self, address: u64) -> Result<u64, Outcome> {
        let [value, ..] = self.done(0, access(Access::Load8, address, 0))?;
        Ok(value)
    }

    /// A store of eight bytes by vCPU 0.
    pub(crate) fn store8(&self, address: u64, value: u64) -> TestResult {
        self.done(0, access(Access::Store8, address, value)).map(|_| ())
    }

    /// vCPU 0 fills the page at `gfn`.
    pub(crate) fn fill(&self, gfn: u64, value: u64) -> TestResult {
        let order = Order::Fill {
            address: gfn * FRAME_SIZE,
            frames: 1,
            value,
        };
        self.done(0, order).map(|_| ())
    }

    /// The page at `gfn` must be as `value` filled it, or zero, to vCPU 0.
    pub(crate) fn ensure_filled(&self, gfn: u64, value: Option<u64>) -> TestResult {
        let order = Order::Verify {
            address: gfn * FRAME_SIZE,
            frames: 1,
            value,
        };
        let [wrong, at, got, ..] = self.done(0, order)?;
        ensure_eq!(
            wrong,
            0,
            "words of page {gfn:#x} that differ; {at:#x} holds {got:#x}"
        );
        Ok(())
    }

    /// A call by vCPU 0. Returns x0 to x3; x4 to x17 must be preserved.
    pub(crate) fn hvc(&self, function: u32, arguments: [u64; 3]) -> Result<[u64; 4], Outcome> {
        let exit = self.serve(0, Answer::Done(hvc(function, arguments).encode()))?;
        called(function, report(exit)?)
    }

    /// The answer to the last exit of a call, and then what the call returns.
    pub(crate) fn hvc_returns(&self, function: u32, answer: Answer) -> Result<[u64; 4], Outcome> {
        let report = self.finish(0, answer)?;
        called(function, report)
    }
}

/// Whether an exit has nothing to do with what a guest was ordered.
pub(crate) fn is_its_own(exit: Exit) -> bool {
    let image = layout::IMAGE / FRAME_SIZE..layout::FREE / FRAME_SIZE;
    match exit {
        Exit::Interrupt => true,
        Exit::MemoryFault { gfn, .. } => image.contains(&gfn),
        _ => false,
    }
}

/// What a call returned, as its report has it.
fn called(function: u32, report: Report) -> Result<[u64; 4], Outcome> {
    match report {
        Report::Done([x0, x1, x2, x3, changed]) => {
            ensure_eq!(changed, 0, "registers x4 to x17 that call {function:#x} changed");
            Ok([x0, x1, x2, x3])
        }
        other => fail!("call {function:#x}: {other:x?}"),
    }
}

/// The order for a call.
pub(crate) fn hvc(function: u32, arguments: [u64; 3]) -> Order {
    Order::Call {
        conduit: Conduit::Hvc,
        function,
        arguments,
    }
}

/// The order for an access at EL1.
pub(crate) fn access(access: Access, address: u64, value: u64) -> Order {
    Order::Access {
        level: Level::El1,
        access,
        address,
        value,
    }
}

/// The report that an exit is.
pub(crate) fn report(exit: Exit) -> Result<Report, Outcome> {
    match exit {
        Exit::Service { function, arguments } if function == u64::from(SERVICE) => {
            match Report::decode(arguments) {
                Some(Report::Broken { esr, far, elr }) => {
                    fail!("the guest broke: esr {esr:#x} far {far:#x} elr {elr:#x}")
                }
                Some(report) => Ok(report),
                None => fail!("the guest reports {arguments:x?}"),
            }
        }
        other => fail!("the guest did not report, but left by {other:x?}"),
    }
}

/// Takes what interrupts this CPU.
pub(crate) fn take_interrupts() {
    sysreg::unmask_irqs();
    sysreg::mask_irqs();
}

fn deadline() -> u64 {
    sysreg::counter() + PATIENCE * sysreg::counter_frequency()
}

fn ensure_patience(deadline: u64) -> TestResult {
    if sysreg::counter() > deadline {
        fail!("the guest has said nothing for {PATIENCE} seconds");
    }
    Ok(())
}
