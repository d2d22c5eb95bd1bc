//! `KVM_RUN`: a guest runs until something is for user space.

mod exit;

use self::exit::Next;
use super::run_page::UserExit;
use super::vcpu::{State, Vcpu};
use crate::linux::Signals;
use crate::{Errno, Linux};
use core::cell::Cell;
use host_shim::vcpu::Entry;
use host_shim::vgic::VcpuSet;
use host_shim::{Error, Exit};
use hyp_abi::{Status, VcpuRegister};

/// What a guest is told about its last exit when it runs next. It is kept until it does.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Answer {
    /// Nothing.
    None,
    /// Do that again.
    Retry,
    /// You do not get that.
    Refuse,
    /// User space has yet to say what is read: so many bytes.
    WaitsForLoad(u64),
    /// This is read.
    Loaded(u64),
    /// It is stored.
    Stored,
    /// The host has no such service.
    NoService,
}

impl Answer {
    /// Something was done for the guest, of which its registers do not tell yet.
    const fn is_done(self) -> bool {
        matches!(self, Self::Loaded(_) | Self::Stored | Self::NoService)
    }

    fn entry(self) -> Entry {
        let entry = Entry::new();
        match self {
            Self::None | Self::WaitsForLoad(_) => entry,
            Self::Retry => entry.retry(),
            Self::Refuse => entry.refuse(),
            Self::Loaded(value) => entry.loaded(value),
            Self::Stored => entry.stored(),
            Self::NoService => entry.served([hyp_abi::guest_call::NOT_SUPPORTED.cast_unsigned(), 0, 0, 0]),
        }
    }
}

/// For how long a guest is entered.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Until {
    /// Until it exits.
    Exit,
    /// Until what was done for it has taken effect.
    Settled,
}

impl<L: Linux> Vcpu<L> {
    /// `KVM_RUN`.
    ///
    /// # Errors
    /// [`Errno::INTR`] for a signal; [`Errno::FAULT`] or [`Errno::HWPOISON`] if there is no memory behind the guest's, of
    /// which the run page says more; [`Errno::NOMEM`]; why the VM could not be launched.
    pub(super) fn run(&self, state: &mut State<L>) -> Result<(), Errno> {
        if let Answer::WaitsForLoad(bytes) = state.answer {
            // What is read is taken now, also if nothing more is done: user space may have the page for other things next.
            let mask = u64::MAX
                .checked_shr(64_u32.saturating_sub(8 * bytes as u32))
                .unwrap_or(0);
            state.answer = Answer::Loaded(self.page.loaded() & mask);
        }
        let linux = self.vm.linux();
        linux.occupy(self.place.seat(), true);
        let mut result = if self.page.is_exit_wanted() {
            self.interrupted()
        } else {
            self.begin().and_then(|()| self.cycle(state))
        };
        if result == Err(Errno::INTR) {
            result = self.settle(state);
        }
        linux.occupy(self.place.seat(), false);
        result
    }

    /// Before a run ends for a signal, or because user space wants it: what was done for the guest takes effect in its
    /// registers, so that user space can save them. It does not go on meanwhile, as an interrupt waits when it is entered.
    /// Where an interrupt takes its time the guest may, and what it wants then is told as ever.
    fn settle(&self, state: &mut State<L>) -> Result<(), Errno> {
        while state.answer.is_done() && self.vm.is_launched() && state.launch == self.vm.launches() {
            let Ok(exit) = self.enter_guest(state, Until::Settled) else {
                // It is off, or its guest has ended itself.
                break;
            };
            state.answer = Answer::None;
            match exit.map(|exit| self.deal(exit)) {
                Some(Next::Run(answer)) => state.answer = answer,
                Some(Next::Wait) | None => {}
                Some(next @ (Next::Tell(..) | Next::Fail(..))) => return self.conclude(state, next),
            }
        }
        self.interrupted()
    }

    fn interrupted(&self) -> Result<(), Errno> {
        self.page.exit(UserExit::Signal);
        Err(Errno::INTR)
    }

    /// Waits until the VM is launched. A protected one is by its vCPU 0, where it begins; others by whichever is on.
    fn begin(&self) -> Result<(), Errno> {
        let vm = &self.vm;
        if vm.is_launched() {
            return Ok(());
        }
        let can_begin = !vm.is_protected() || self.index == 0 && !vm.has_begun();
        let (off, entry, argument) = {
            let own = self.own.lock();
            let (pc, x0) = (VcpuRegister::Pc, VcpuRegister::General(0));
            (own.off, own.get(pc), own.get(x0))
        };
        if can_begin && !off {
            return vm.launch(entry, argument).or_else(|errno| match errno {
                Errno::INTR => self.interrupted(),
                errno => Err(errno),
            });
        }
        self.wait(None, &mut || vm.is_launched())
    }

    /// Waits at the vCPU's place; a signal ends the command.
    fn wait(&self, deadline: Option<u64>, ready: &mut dyn FnMut() -> bool) -> Result<(), Errno> {
        self.vm
            .linux()
            .wait(self.place.seat(), Signals::All, deadline, ready)
            .or_else(|_| self.interrupted())
    }

    /// The guest runs until something is for user space.
    fn cycle(&self, state: &mut State<L>) -> Result<(), Errno> {
        let linux = self.vm.linux();
        loop {
            linux.do_due_work().or_else(|_| self.interrupted())?;
            if state.launch != self.vm.launches() {
                // What the guest of before was to get.
                state.launch = self.vm.launches();
                state.answer = Answer::None;
            }
            let times_on = self.place.times_on();
            let exit = match self.enter_guest(state, Until::Exit) {
                Ok(Some(exit)) => exit,
                Ok(None) => continue,
                Err(error) if error.status() == Some(Status::VcpuOff) => {
                    state.off = Some(times_on);
                    self.wait(None, &mut || {
                        self.place.times_on() != times_on || !self.vm.is_launched()
                    })?;
                    continue;
                }
                // The guest has ended itself: whoever was told of it says so. No vCPU runs before the next launch.
                Err(Error::WrongState) => {
                    self.wait(None, &mut || !self.vm.is_launched())?;
                    self.begin()?;
                    continue;
                }
                Err(error) => return Err(error.into()),
            };
            state.off = None;
            state.answer = Answer::None;
            match self.deal(exit) {
                Next::Run(answer) => state.answer = answer,
                Next::Wait => self.wait_for_interrupt(state)?,
                next @ (Next::Tell(..) | Next::Fail(..)) => return self.conclude(state, next),
            }
        }
    }

    /// Ends the command as an exit wants it.
    fn conclude(&self, state: &mut State<L>, next: Next) -> Result<(), Errno> {
        match next {
            Next::Tell(exit, answer) => {
                state.answer = answer;
                self.page.exit(exit);
                Ok(())
            }
            Next::Fail(exit, errno) => {
                if let Some(exit) = exit {
                    self.page.exit(exit);
                }
                Err(errno)
            }
            Next::Run(_) | Next::Wait => Ok(()),
        }
    }

    /// Runs the guest once, if nothing speaks against it.
    fn enter_guest(&self, state: &mut State<L>, until: Until) -> Result<Option<Exit>, Error> {
        let (vm, linux, place) = (&self.vm, self.vm.linux(), &self.place);
        let (answer, index) = (state.answer, self.index as usize);
        let controller = vm.controller();
        let kicks = Cell::new(VcpuSet::EMPTY);
        let exit = state.shim.run_through(|enter| {
            linux.uninterrupted(&mut || {
                place.look();
                let mut entry = answer.entry();
                if let Some(controller) = controller {
                    entry = controller.enter(index, entry);
                }
                match until {
                    Until::Exit if place.is_asked() || linux.has_due_work() => {}
                    Until::Exit => enter(&entry),
                    Until::Settled => {
                        linux.interrupt_here();
                        enter(&entry);
                    }
                }
                place.come_out();
            });
        });
        if let Some(controller) = controller {
            let interrupts = match &exit {
                Ok(Some(_)) => Some(state.shim.interrupts()?),
                _ => None,
            };
            linux.uninterrupted(&mut || {
                kicks.set(match &interrupts {
                    Some(interrupts) => controller.leave(index, interrupts),
                    None => controller.cancel(index),
                });
            });
            vm.tell(kicks.get());
        }
        exit
    }

    /// The guest has nothing to do until an interrupt comes.
    fn wait_for_interrupt(&self, state: &State<L>) -> Result<(), Errno> {
        let (vm, linux, vcpu) = (&self.vm, self.vm.linux(), self.index as usize);
        let interrupts = state.shim.interrupts()?;
        let controller = vm.controller();
        if controller.is_none() && interrupts.timer_is_due() {
            return Ok(());
        }
        let deadline = interrupts.timer_deadline().map(|deadline| {
            // In the machine's time.
            let left = deadline.saturating_sub(vm.guest_time());
            linux.counter().saturating_add(left)
        });
        self.wait(deadline, &mut || {
            let mut pending = false;
            if let Some(controller) = controller {
                linux.uninterrupted(&mut || pending = controller.is_pending(vcpu));
            }
            pending || self.place.is_asked()
        })?;
        if deadline.is_some_and(|deadline| linux.counter() >= deadline) {
            self.told(|controller, vcpu| controller.timer_is_due(vcpu));
        }
        Ok(())
    }
}
