//! vCPUs: run, and what comes of it.

mod entry;
mod exit;

pub use entry::{Entry, Interrupts, ListRegisters};
pub use exit::Exit;

use crate::vm::Identity;
use crate::{Error, Kernel, Pfn};
use alloc::sync::Arc;
use hyp_abi::VcpuRegister;
use hyp_abi::run_page::{EXIT_VALUE_COUNT, EXIT_VALUES, ExitReason};
use thiserror::Error as ThisError;

/// A vCPU. It can be moved between CPUs and runs on one at a time.
#[derive(Debug)]
pub struct Vcpu<K: Kernel> {
    core: Arc<Identity<K>>,
    index: u64,
    run_page: Pfn,
}

/// What [`Vcpu::run_on`] does when the guest wants a page back that the host has pinned.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub enum PinnedPolicy {
    /// The guest is refused, and learns that.
    #[default]
    Refuse,
    /// The caller gets the exit, unpins what it can, and answers.
    Return,
}

/// Why [`Vcpu::run_on`] stopped, other than by an exit for its caller.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ThisError)]
#[error("{error}, at {exit:?}")]
pub struct RunError {
    /// The exit that could not be dealt with; `None` if the run itself was refused. Run again, the guest meets the same
    /// exit again; with [`Entry::refuse`] it learns that it does not get what it wants.
    pub exit: Option<Exit>,
    /// Why.
    pub error: Error,
}

impl<K: Kernel> Vcpu<K> {
    pub(crate) fn new(core: Arc<Identity<K>>, index: u64, run_page: Pfn) -> Self {
        Self {
            core,
            index,
            run_page,
        }
    }

    /// Its index.
    #[must_use]
    pub const fn index(&self) -> u64 {
        self.index
    }

    /// Runs it on this CPU until it exits.
    ///
    /// # Errors
    /// [`Error::Gone`] if the VM is to end, or has; EL2's refusal: `VcpuOff`, `StreamingMode`, `InvalidParameter` for
    /// an entry that has no meaning.
    pub fn run(&mut self, entry: &Entry) -> Result<Exit, Error> {
        // The gate always enters, so there is an exit.
        self.run_through(|enter| enter(entry))?.ok_or(Error::WrongState)
    }

    /// Runs it if `gate` lets it. The gate is the last to decide: it does what must be done without an interrupt
    /// between that and the run, such as looking for signals and filling the list registers, and calls its argument with
    /// what the run begins with; or it does not, and there is no exit. Its argument neither allocates nor waits. The gate
    /// may be asked again, if EL2 wants something before it runs the guest; what it wants is done without it.
    ///
    /// # Errors
    /// Those of [`Vcpu::run`].
    pub fn run_through(&mut self, gate: impl Fn(&mut dyn FnMut(&Entry))) -> Result<Option<Exit>, Error> {
        if self.core.is_doomed() {
            return Err(Error::Gone);
        }
        let host = Arc::clone(self.core.host());
        let result = self.core.call(|vm| {
            let mut result = None;
            gate(&mut |entry| {
                entry.write(host.kernel(), self.run_page);
                result = Some(host.hypervisor().run_vcpu(vm, self.index));
            });
            result.transpose()
        });
        let exit = match result {
            Ok(Some((reason, first))) => self.exit(reason, first).map(Some),
            Ok(None) => Ok(None),
            Err(error) => Err(error),
        };
        // Whoever doomed it meanwhile could not end it, since we were running.
        self.core.end_if_doomed();
        exit
    }

    /// Runs it, and deals with every exit that is about memory: gives the guest the page that it lacks, EL2 the pages
    /// that it needs, takes what the guest gave up. Returns the first exit of another kind.
    ///
    /// # Errors
    /// [`RunError`]: the run was refused, or there is no memory to be had for the guest.
    pub fn run_on(&mut self, entry: &Entry, pinned: PinnedPolicy) -> Result<Exit, RunError> {
        let mut exit = self.run(entry).map_err(|error| RunError { exit: None, error })?;
        loop {
            let stopped = |error| RunError {
                exit: Some(exit),
                error,
            };
            let answer = match exit {
                Exit::MemoryFault { gfn, .. } => {
                    self.core.fault_in(gfn).map_err(stopped)?;
                    Entry::new().retry()
                }
                Exit::MemoryNeeded { pages } => {
                    self.core.top_up(pages.max(1)).map_err(stopped)?;
                    Entry::new().retry()
                }
                Exit::Relinquished(range) => {
                    self.core.take_relinquished(range).map_err(stopped)?;
                    Entry::new()
                }
                Exit::Pinned { .. } if pinned == PinnedPolicy::Refuse => Entry::new().refuse(),
                other => return Ok(other),
            };
            exit = self
                .run(&answer)
                .map_err(|error| RunError { exit: None, error })?;
        }
    }

    /// Interrupts and timer, as the last exit left them.
    ///
    /// # Errors
    /// [`Error::Call`] if the run page says what cannot be.
    pub fn interrupts(&self) -> Result<Interrupts, Error> {
        Interrupts::read(self.core.host().kernel(), self.run_page)
    }

    /// Reads a register of it, once its VM is launched, if that is not protected.
    ///
    /// # Errors
    /// [`Error::Gone`] if the VM is to end, or has; [`Error::WrongState`] before its launch, or once it has turned itself
    /// off; EL2's refusal: `WrongVmKind`, `InvalidParameter` for a register that the machine does not have.
    pub fn read_register(&self, register: VcpuRegister) -> Result<u64, Error> {
        if self.core.is_doomed() {
            return Err(Error::Gone);
        }
        let hypervisor = self.core.host().hypervisor();
        self.core
            .call(|vm| hypervisor.read_register(vm, self.index, register))
    }

    /// Sets a register of it, once its VM is launched, if that is not protected. The guest finds it when it runs next.
    ///
    /// # Errors
    /// As [`Vcpu::read_register`]; `InvalidParameter` also for a value that the register does not take;
    /// [`Error::Running`] for a register of the VM's while another of its vCPUs runs.
    pub fn write_register(&mut self, register: VcpuRegister, value: u64) -> Result<(), Error> {
        if self.core.is_doomed() {
            return Err(Error::Gone);
        }
        let hypervisor = self.core.host().hypervisor();
        self.core
            .call(|vm| hypervisor.write_register(vm, self.index, register, value))
    }

    /// The reason and the first two values come in registers; the page is only read for the others, and only where an
    /// exit has them.
    fn exit(&self, reason: ExitReason, [v0, v1]: [u64; 2]) -> Result<Exit, Error> {
        let mut values = [0; EXIT_VALUE_COUNT];
        let in_page = match reason {
            ExitReason::MmioWrite => 3,
            ExitReason::HostService => EXIT_VALUE_COUNT,
            _ => 2,
        };
        for (index, value) in values.iter_mut().enumerate().take(in_page).skip(2) {
            *value = self
                .core
                .host()
                .kernel()
                .load_word(self.run_page, EXIT_VALUES + index);
        }
        values[0] = v0;
        values[1] = v1;
        Exit::decode(reason, values)
    }
}
