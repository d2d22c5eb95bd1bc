//! What is done about an exit of a guest.

use super::Answer;
use crate::kvm::Controller;
use crate::kvm::run_page::UserExit;
use crate::kvm::vcpu::Vcpu;
use crate::{Errno, Linux};
use host_shim::vgic::VcpuSet;
use host_shim::{Error, Exit};
use hyp_abi::FRAME_SIZE;
use hyp_abi::run_page::{AccessFlags, WaitKind};

/// What is done about an exit.
pub(super) enum Next {
    /// The guest goes on, with the answer.
    Run(Answer),
    /// It waits for an interrupt.
    Wait,
    /// User space is told, and the guest goes on with the answer.
    Tell(UserExit, Answer),
    /// The command fails, and user space is told why if there is more to say.
    Fail(Option<UserExit>, Errno),
}

/// What the slots say of a guest frame number.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Memory {
    /// There is no slot.
    None,
    /// What is written there is written to a device.
    ReadOnly,
    Writable,
}

impl<L: Linux> Vcpu<L> {
    /// What is done about an exit.
    pub(super) fn deal(&self, exit: Exit) -> Next {
        match exit {
            Exit::Interrupt => Next::Run(Answer::None),
            Exit::Wait(WaitKind::Event) => {
                self.vm.linux().pause();
                Next::Run(Answer::None)
            }
            Exit::Wait(WaitKind::Interrupt | WaitKind::Suspend) => Next::Wait,
            Exit::MemoryFault { gfn, access } => self.reach(gfn, access),
            Exit::MmioRead { ipa, bytes } => self.load(ipa, bytes),
            Exit::MmioWrite { ipa, bytes, value } => self.store(ipa, bytes, value),
            Exit::MemoryNeeded { pages } => {
                self.with_shim(|shim| shim.top_up(pages.max(1)).map(|_| Answer::Retry))
            }
            Exit::Pinned { .. } => Next::Run(Answer::Refuse),
            Exit::HostService { .. } => Next::Run(Answer::NoService),
            Exit::SendInterrupt { value, register } => {
                self.told(|controller, vcpu| controller.send(vcpu, register, value));
                Next::Run(Answer::None)
            }
            Exit::CpuOn { index } => {
                let index = usize::try_from(index).unwrap_or(usize::MAX);
                if let Some(place) = self.vm.place(index) {
                    place.turn_on();
                }
                Next::Run(Answer::None)
            }
            // The next attempt to run it says that it is off, unless it is on again by then.
            Exit::CpuOff => Next::Run(Answer::None),
            Exit::SystemOff => self.over(UserExit::Shutdown),
            Exit::SystemReset => self.over(UserExit::Reset),
            Exit::Lost { gfn } => Next::Fail(Some(self.memory_fault(gfn)), Errno::HWPOISON),
            Exit::Relinquished(range) => {
                self.with_shim(|shim| shim.take_relinquished(range).map(|_| Answer::None))
            }
            Exit::Unhandled { class } => Next::Tell(UserExit::Unexpected { class }, Answer::None),
        }
    }

    fn with_shim(&self, work: impl FnOnce(&host_shim::Vm<L>) -> Result<Answer, Error>) -> Next {
        let done = self.vm.shim().and_then(|shim| work(shim).map_err(Errno::from));
        done.map_or_else(|errno| Next::Fail(None, errno), Next::Run)
    }

    /// Has the interrupt controller do something, if there is one, and tells those whom it concerns.
    pub(super) fn told(&self, mut work: impl FnMut(&dyn Controller, usize) -> VcpuSet) {
        if let Some(controller) = self.vm.controller() {
            let mut concerned = VcpuSet::EMPTY;
            self.vm
                .linux()
                .uninterrupted(&mut || concerned = work(controller, self.index as usize));
            self.vm.tell(concerned);
        }
    }

    fn memory_fault(&self, gfn: u64) -> UserExit {
        UserExit::MemoryFault {
            address: gfn * FRAME_SIZE,
            private: self.vm.is_protected(),
        }
    }

    /// The guest reaches for memory in a way that is not one to reach for a device, or for what is memory in any case.
    fn reach(&self, gfn: u64, access: AccessFlags) -> Next {
        let write = access.contains(AccessFlags::WRITE);
        let is_refused = match self.memory(gfn) {
            Memory::None => !self.vm.is_protected() && !self.vm.is_declared(gfn),
            Memory::ReadOnly => write,
            Memory::Writable => false,
        };
        if is_refused {
            Next::Run(Answer::Refuse)
        } else {
            self.fault(gfn, write)
        }
    }

    /// The guest has no page there, or may not do with it what it wants.
    fn fault(&self, gfn: u64, write: bool) -> Next {
        let linux = self.vm.linux();
        let given = self.vm.shim().map(|shim| {
            if shim.user_slot_at(gfn).is_none() {
                return shim.fault(gfn);
            }
            shim.fault_user(gfn, write, |address, write| {
                let page = linux.user_page(address, write);
                page.map_err(|error| match error {
                    Errno::HWPOISON => Error::Poisoned,
                    Errno::NOMEM => Error::NoMemory,
                    _ => Error::NoBacking,
                })
            })
        });
        match given {
            Ok(Ok(())) => Next::Run(Answer::Retry),
            Ok(Err(Error::NoMemory | Error::OverLimit)) => Next::Fail(None, Errno::NOMEM),
            Ok(Err(Error::Poisoned | Error::Lost)) => {
                Next::Fail(Some(self.memory_fault(gfn)), Errno::HWPOISON)
            }
            Ok(Err(_)) => Next::Fail(Some(self.memory_fault(gfn)), Errno::FAULT),
            Err(errno) => Next::Fail(None, errno),
        }
    }

    /// What the slots say of a guest frame number. EL2 does not know of memory that came after the launch, nor of what is the
    /// process's own.
    fn memory(&self, gfn: u64) -> Memory {
        let Ok(shim) = self.vm.shim() else {
            return Memory::None;
        };
        match shim.user_slot_at(gfn) {
            Some(slot) if slot.read_only => Memory::ReadOnly,
            None if !shim.has_slot_at(gfn) => Memory::None,
            _ => Memory::Writable,
        }
    }

    fn load(&self, ipa: u64, bytes: u64) -> Next {
        if self.memory(ipa / FRAME_SIZE) != Memory::None {
            return self.fault(ipa / FRAME_SIZE, false);
        }
        let mut value = None;
        self.told(|controller, vcpu| {
            let loaded = controller.load(vcpu, ipa, bytes);
            value = loaded.map(|(value, _)| value);
            loaded.map_or(VcpuSet::EMPTY, |(_, concerned)| concerned)
        });
        if let Some(value) = value {
            return Next::Run(Answer::Loaded(value));
        }
        let exit = UserExit::Mmio {
            address: ipa,
            bytes,
            stored: None,
        };
        Next::Tell(exit, Answer::WaitsForLoad(bytes))
    }

    fn store(&self, ipa: u64, bytes: u64, value: u64) -> Next {
        if self.memory(ipa / FRAME_SIZE) == Memory::Writable {
            return self.fault(ipa / FRAME_SIZE, true);
        }
        let mut is_done = false;
        self.told(|controller, vcpu| {
            let stored = controller.store(vcpu, ipa, bytes, value);
            is_done = stored.is_some();
            stored.unwrap_or(VcpuSet::EMPTY)
        });
        if is_done || self.vm.doorbells().ring(ipa, bytes, value) {
            return Next::Run(Answer::Stored);
        }
        let exit = UserExit::Mmio {
            address: ipa,
            bytes,
            stored: Some(value),
        };
        Next::Tell(exit, Answer::Stored)
    }

    /// The guest has ended itself.
    fn over(&self, exit: UserExit) -> Next {
        self.vm.set_over();
        Next::Tell(exit, Answer::None)
    }
}
