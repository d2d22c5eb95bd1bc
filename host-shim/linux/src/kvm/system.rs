//! `/dev/kvm`, and what the module has as a whole.

use super::memory::{Ledger, Pages, Usage};
use super::register::Choice;
use super::{Seen, Vm, abi, capability};
use crate::linux::Level;
use crate::{Errno, Linux};
use alloc::sync::{Arc, Weak};
use alloc::vec::Vec;
use host_shim::sync::Mutex;
use host_shim::{CallError, Host, Hypervisor, REGION_ORDER};
use hyp_abi::{FRAME_SIZE, Features, FrameState, GuestSupport, VERSION, Version};
use thiserror::Error;

/// Why the module does not load.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Error)]
pub enum Refusal {
    /// There is no Freehold.
    #[error("there is no Freehold beneath this kernel: boot Freehold first, and this kernel as its host")]
    NoFreehold,
    /// Freehold's description is there, and it does not answer.
    #[error("Freehold does not answer: {0}")]
    NoAnswer(CallError),
    /// Freehold speaks another version of the calls.
    #[error(
        "Freehold speaks version {}.{} of the host's calls, and this module {}.{}: both must come from one release",
        .0.major, .0.minor, VERSION.major, VERSION.minor
    )]
    OtherVersion(Version),
    /// Freehold cannot have VMs on this machine.
    #[error("Freehold can have no guests on this machine")]
    NoVms,
}

/// A VM that somebody has, or had.
#[derive(Debug)]
struct Known<L: Linux> {
    vm: Weak<Vm<L>>,
    seen: Weak<Seen<L>>,
}

impl<L: Linux> Known<L> {
    fn is_there(&self) -> bool {
        self.vm.strong_count() > 0
    }
}

/// The module: EL2, the frames that it was given, and all VMs.
#[derive(Debug)]
pub struct System<L: Linux> {
    linux: L,
    host: Arc<Host<L>>,
    pages: Arc<Pages<L>>,
    total: Arc<Usage>,
    support: GuestSupport,
    registers: Choice,
    vms: Mutex<L, Vec<Known<L>>>,
    /// VMs that nobody has any more, and that could not be ended: they are tried again.
    remains: Mutex<L, Vec<host_shim::Vm<L>>>,
}

impl<L: Linux> System<L> {
    /// Looks for Freehold, and begins.
    ///
    /// # Errors
    /// [`Refusal`].
    pub fn start(linux: L) -> Result<Arc<Self>, Refusal> {
        if !linux.has_freehold() {
            return Err(Refusal::NoFreehold);
        }
        let hypervisor = Hypervisor::new(linux.clone());
        let info = hypervisor.version().map_err(Refusal::NoAnswer)?;
        // Calls that were added since then do no harm; calls that are not there yet do.
        if info.version.major != VERSION.major || info.version.minor < VERSION.minor {
            return Err(Refusal::OtherVersion(info.version));
        }
        if !info.features.contains(Features::VMS) {
            return Err(Refusal::NoVms);
        }
        let support = hypervisor.guest_support().map_err(Refusal::NoAnswer)?;
        let registers = Choice::of_machine(&hypervisor, &support).map_err(Refusal::NoAnswer)?;
        let total = Arc::new(Usage::default());
        let pages = Arc::new(Pages::new(linux.clone()));
        let ledger = Arc::new(Ledger::new(Arc::clone(&pages), None, Arc::clone(&total)));
        linux.log(
            Level::Info,
            format_args!("Freehold {}.{} is there", info.version.major, info.version.minor),
        );
        Ok(Arc::new(Self {
            host: Host::with_batches(linux.clone(), ledger.source(), REGION_ORDER),
            support,
            registers,
            linux,
            pages,
            total,
            vms: Mutex::<L, _>::new(Vec::new()),
            remains: Mutex::<L, _>::new(Vec::new()),
        }))
    }

    /// Ends what it began: nobody has a VM any more, and EL2 gives back what it was given.
    pub fn stop(&self) {
        self.bury();
        let left = self.remains.lock().len();
        if left > 0 {
            self.linux.log(
                Level::Error,
                format_args!("{left} VMs could not be ended: their memory stays out of use"),
            );
        }
        // What EL2 no longer needs for tables it can give back in its turn.
        let mut drained = self.host.drain();
        while self.pages.collapse(self.host.hypervisor()) && self.host.given_frames() > 0 {
            drained = self.host.drain();
        }
        let given = self.host.given_frames();
        if let Err(error) = drained {
            self.linux
                .log(Level::Error, format_args!("EL2 gives no memory back: {error}"));
        }
        if given > 0 {
            self.linux.log(
                Level::Warning,
                format_args!("EL2 keeps {given} pages: they stay out of use"),
            );
        }
    }

    /// The kernel.
    pub const fn linux(&self) -> &L {
        &self.linux
    }

    /// EL2, and what it was given.
    pub const fn host(&self) -> &Arc<Host<L>> {
        &self.host
    }

    /// Frames of the kernel's.
    pub const fn pages(&self) -> &Arc<Pages<L>> {
        &self.pages
    }

    /// What guests can be.
    pub const fn support(&self) -> &GuestSupport {
        &self.support
    }

    /// The registers that the vCPUs of VMs have here that are not protected.
    pub(super) const fn registers(&self) -> Choice {
        self.registers
    }

    /// What is in use, of all VMs together.
    pub const fn total(&self) -> &Arc<Usage> {
        &self.total
    }

    /// The VMs that there are.
    #[cfg(test)]
    pub(super) fn vms(&self) -> Vec<Arc<Vm<L>>> {
        self.vms
            .lock()
            .iter()
            .filter_map(|known| known.vm.upgrade())
            .collect()
    }

    /// How many VMs there are.
    pub fn vm_count(&self) -> usize {
        self.vms.lock().iter().filter(|known| known.is_there()).count()
    }

    /// What can be looked at of the VMs that there are. They may end meanwhile.
    pub fn seen(&self) -> Vec<Arc<Seen<L>>> {
        let vms = self.vms.lock();
        let there = vms.iter().filter(|known| known.is_there());
        there.filter_map(|known| known.seen.upgrade()).collect()
    }

    /// Forgets the eventfds that VMs listen at and nobody has any more. Called after each that was closed.
    pub fn sweep(&self) {
        for vm in self.seen() {
            vm.wires.sweep();
        }
    }

    /// Takes a VM that nobody has any more, and could not be ended.
    pub(super) fn leave(&self, vm: host_shim::Vm<L>) {
        self.remains.lock().push(vm);
    }

    /// Tries again to end the VMs that could not be, and has EL2 tidy up after those that are gone.
    pub(super) fn bury(&self) {
        let mut remains = core::mem::take(&mut *self.remains.lock());
        remains.retain(|vm| vm.destroy().is_err());
        self.remains.lock().append(&mut remains);
        self.tidy();
    }

    /// Has EL2 map in one piece again what was freed since it last did.
    pub(super) fn tidy(&self) {
        self.pages.collapse(self.host.hypervisor());
    }

    fn create_vm(self: &Arc<Self>, kind: u64) -> Result<u64, Errno> {
        self.bury();
        self.linux.open(c"kvm-vm", &mut || {
            let vm = Arc::new(Vm::create(Arc::clone(self), kind)?);
            let mut vms = self.vms.lock();
            vms.retain(Known::is_there);
            vms.push(Known {
                vm: Arc::downgrade(&vm),
                seen: Arc::downgrade(vm.seen()),
            });
            drop(vms);
            Ok(vm)
        })
    }

    /// Whether EL2 refuses the kernel accesses to what is at a physical address. Does not sleep.
    pub fn is_refused(&self, address: u64) -> bool {
        let frame = address / FRAME_SIZE * FRAME_SIZE;
        self.host.hypervisor().frame_state(frame).is_ok_and(|info| {
            matches!(
                info.state,
                FrameState::HostLentSecure | FrameState::Relinquished | FrameState::NotYours
            )
        })
    }

    /// Carries out a command of `/dev/kvm`.
    ///
    /// # Errors
    /// As KVM documents them.
    pub fn ioctl(self: &Arc<Self>, command: u32, argument: u64) -> Result<u64, Errno> {
        match command {
            abi::GET_API_VERSION | abi::GET_VCPU_MMAP_SIZE if argument != 0 => Err(Errno::INVAL),
            abi::GET_API_VERSION => Ok(abi::API_VERSION),
            abi::GET_VCPU_MMAP_SIZE => Ok(FRAME_SIZE),
            abi::CHECK_EXTENSION => Ok(capability::check(self, false, argument)),
            abi::CREATE_VM => self.create_vm(argument),
            _ => Err(Errno::INVAL),
        }
    }
}
