//! VMs.

mod launch;

use super::interrupts::{Places, Wires};
use super::memory::Ledger;
use super::slots::Process;
use super::{
    Controller, Doorbells, Gate, Place, System, Vcpu, abi, capability, read_user, statistics, write_user,
};
use crate::linux::Signals;
use crate::{Descriptor, Errno, Linux};
use alloc::string::String;
use alloc::sync::{Arc, Weak};
use alloc::vec::Vec;
use core::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use host_shim::sync::Mutex;
use host_shim::vgic::VcpuSet;
use host_shim::vm::Figures;
use host_shim::{Error, VmConfig};
use hyp_abi::vm::{MAX_VCPUS, VmFlags};
use hyp_abi::{GuestRange, VcpuRegister};
use launch::Life;
use spin::Once;

/// What can be looked at of a VM by those who do not keep it: it ends with its last descriptor, whoever looks.
#[derive(Debug)]
pub struct Seen<L: Linux> {
    pub(super) figures: Figures<L>,
    pub(super) ledger: Arc<Ledger<L>>,
    pub(super) wires: Wires<L>,
}

/// A VM: what `KVM_CREATE_VM` makes. It ends with its last descriptor, and those of its vCPUs.
#[derive(Debug)]
pub struct Vm<L: Linux> {
    system: Arc<System<L>>,
    /// There as long as this is.
    shim: Option<host_shim::Vm<L>>,
    /// That the process is watched whose memory the guest may borrow.
    watch: Option<L::Watch>,
    /// Held by whoever changes the slots.
    pub(super) regions: Mutex<L, ()>,
    /// Whose it is: nobody else commands it.
    space: Arc<L::Space>,
    seen: Arc<Seen<L>>,
    ipa_bits: u64,
    protected: bool,
    /// Whoever launches it has this, or does what must be done before.
    pub(super) beginning: Gate<L, ()>,
    /// What EL2 knows to be memory.
    declared: Mutex<L, Vec<GuestRange>>,
    life: Life,
    /// How much less the guest's virtual counter is than the machine's.
    offset: AtomicU64,
    /// User space has said so, of the VM as a whole.
    offset_is_fixed: AtomicBool,
    pub(super) places: Arc<Places<L>>,
    pub(super) vcpus: [Once<Weak<Vcpu<L>>>; MAX_VCPUS],
    doorbells: Doorbells<L>,
    controller: Once<Arc<dyn Controller>>,
}

impl<L: Linux> Vm<L> {
    /// Creates a VM of that type.
    ///
    /// # Errors
    /// [`Errno::INVAL`] for a type that there is not; [`Errno::NOMEM`].
    pub fn create(system: Arc<System<L>>, kind: u64) -> Result<Self, Errno> {
        if kind & !(abi::VM_TYPE_IPA_SIZE | abi::VM_TYPE_PROTECTED) != 0 {
            return Err(Errno::INVAL);
        }
        let support = system.support();
        let ipa_bits = match kind & abi::VM_TYPE_IPA_SIZE {
            0 => abi::DEFAULT_IPA_BITS,
            bits => bits,
        };
        if ipa_bits < support.min_ipa_bits.into() || ipa_bits > support.max_ipa_bits.into() {
            return Err(Errno::INVAL);
        }
        let protected = kind & abi::VM_TYPE_PROTECTED != 0;
        let config = VmConfig {
            flags: if protected {
                VmFlags::PROTECTED
            } else {
                VmFlags::empty()
            },
            vcpus: MAX_VCPUS as u64,
            ipa_bits,
            // Declared at the launch.
            memory: Vec::new(),
        };
        let shim = host_shim::Vm::create(system.host(), &config)?;
        let watch = if protected {
            None
        } else {
            Some(
                system
                    .linux()
                    .watch(Arc::new(Process::new(system.linux(), shim.loans())))?,
            )
        };
        let space = Arc::new(system.linux().space());
        let payer = protected.then(|| Arc::clone(&space));
        let ledger = Ledger::new(Arc::clone(system.pages()), payer, Arc::clone(system.total()));
        let places = Arc::new([const { Once::new() }; MAX_VCPUS]);
        let seen = Seen {
            figures: shim.figures(),
            ledger: Arc::new(ledger),
            wires: Wires::new(system.linux(), Arc::clone(&places)),
        };
        Ok(Self {
            shim: Some(shim),
            watch,
            regions: Mutex::<L, _>::new(()),
            space,
            seen: Arc::new(seen),
            ipa_bits,
            protected,
            beginning: Gate::new(system.linux(), ()),
            declared: Mutex::<L, _>::new(Vec::new()),
            life: Life::new(),
            offset: AtomicU64::new(0),
            offset_is_fixed: AtomicBool::new(false),
            doorbells: Doorbells::new(system.linux()),
            places,
            vcpus: [const { Once::new() }; MAX_VCPUS],
            controller: Once::new(),
            system,
        })
    }

    /// The VM as EL2 has it.
    ///
    /// # Errors
    /// [`Errno::SRCH`] if it is gone, which it is to nobody who has it.
    pub fn shim(&self) -> Result<&host_shim::Vm<L>, Errno> {
        self.shim.as_ref().ok_or(Errno::SRCH)
    }

    /// The module.
    pub const fn system(&self) -> &Arc<System<L>> {
        &self.system
    }

    /// What others may look at.
    pub const fn seen(&self) -> &Arc<Seen<L>> {
        &self.seen
    }

    /// Who pays for its memory.
    pub fn ledger(&self) -> &Arc<Ledger<L>> {
        &self.seen.ledger
    }

    /// The kernel.
    pub fn linux(&self) -> &L {
        self.system.linux()
    }

    /// What others see of a vCPU, if there is one of that index. Called in any context.
    pub fn place(&self, vcpu: usize) -> Option<&Arc<Place<L>>> {
        self.places.get(vcpu)?.get()
    }

    /// Has vCPUs look at what concerns them, after it was changed: they leave the guest, or stop waiting. Called in any
    /// context.
    pub fn tell(&self, vcpus: VcpuSet) {
        for place in vcpus.iter().filter_map(|vcpu| self.place(vcpu)) {
            place.tell();
        }
    }

    /// The VM's interrupt controller, if it has one. Called in any context.
    pub fn controller(&self) -> Option<&dyn Controller> {
        self.controller.get().map(|controller| &**controller)
    }

    /// Gives the VM its interrupt controller. It never gets another. One task does this at a time.
    ///
    /// # Errors
    /// [`Errno::EXIST`].
    pub fn set_controller(&self, controller: Arc<dyn Controller>) -> Result<(), Errno> {
        if self.controller.is_completed() {
            return Err(Errno::EXIST);
        }
        self.controller.call_once(|| controller);
        Ok(())
    }

    /// Bits of its addresses.
    pub const fn ipa_bits(&self) -> u64 {
        self.ipa_bits
    }

    /// The eventfds that are lines, and what they interrupt.
    pub fn wires(&self) -> &Wires<L> {
        &self.seen.wires
    }

    /// The places where a guest's store is a signal.
    pub const fn doorbells(&self) -> &Doorbells<L> {
        &self.doorbells
    }

    /// Whether it is protected.
    pub const fn is_protected(&self) -> bool {
        self.protected
    }

    /// How much less the guest's virtual counter is than the machine's. Called in any context.
    pub fn offset(&self) -> u64 {
        self.offset.load(Ordering::SeqCst)
    }

    /// The guest's virtual counter.
    pub(super) fn guest_time(&self) -> u64 {
        self.linux().counter().wrapping_sub(self.offset())
    }

    /// Sets the guest's virtual counter, unless user space has set the offset of the VM as a whole: then that counts.
    pub(super) fn set_guest_time(&self, time: u64) -> Result<(), Errno> {
        if self.offset_is_fixed.load(Ordering::SeqCst) {
            return Ok(());
        }
        self.set_offset(self.linux().counter().wrapping_sub(time))
    }

    fn set_offset(&self, offset: u64) -> Result<(), Errno> {
        let _alone = self.beginning.enter(Signals::Fatal)?;
        if self.is_launched() {
            self.shim()?
                .write_register(0, VcpuRegister::CounterOffset, offset)
                .map_err(|error| match error {
                    Error::WrongState => Errno::BUSY,
                    error => error.into(),
                })?;
        }
        self.offset.store(offset, Ordering::SeqCst);
        Ok(())
    }

    /// `KVM_ARM_SET_COUNTER_OFFSET`. It is the virtual counter's; the physical one is the machine's, for all guests.
    fn set_counter_offset(&self, argument: u64) -> Result<u64, Errno> {
        let asked: abi::CounterOffset = read_user(self.linux(), argument)?;
        if asked.reserved != 0 {
            return Err(Errno::INVAL);
        }
        if self.protected {
            // Nobody turns back its clock.
            return Err(Errno::PERM);
        }
        self.at_rest(|vcpus| {
            if vcpus.is_none() {
                return Err(Errno::BUSY);
            }
            self.set_offset(asked.offset)?;
            self.offset_is_fixed.store(true, Ordering::SeqCst);
            Ok(0)
        })
    }

    /// A feature ID register, as its vCPUs read it.
    pub(super) fn feature(&self, number: u64) -> Result<u64, Errno> {
        let hypervisor = self.system.host().hypervisor();
        let value = hypervisor.guest_register(number, self.ipa_bits);
        value.map_err(|error| Error::from(error).into())
    }

    /// Refuses those whose VM it is not, as KVM does.
    ///
    /// # Errors
    /// [`Errno::IO`].
    pub fn check_caller(&self) -> Result<(), Errno> {
        if self.system.linux().is_caller(&self.space) {
            Ok(())
        } else {
            Err(Errno::IO)
        }
    }
}

impl<L: Linux> Descriptor for Vm<L> {
    fn ioctl(self: Arc<Self>, command: u32, argument: u64) -> Result<u64, Errno> {
        self.check_caller()?;
        match command {
            abi::CHECK_EXTENSION => Ok(capability::check(&self.system, self.protected, argument)),
            abi::ARM_SET_COUNTER_OFFSET => self.set_counter_offset(argument),
            abi::CREATE_VCPU => self.create_vcpu(argument),
            abi::CREATE_GUEST_MEMFD => self.create_memfd(argument),
            abi::SET_USER_MEMORY_REGION => self.set_region(argument),
            abi::SET_USER_MEMORY_REGION2 => self.set_region2(argument),
            abi::GET_DIRTY_LOG => self.get_dirty_log(argument),
            abi::ARM_PREFERRED_TARGET => {
                let target = abi::VcpuInit {
                    target: abi::TARGET_GENERIC_V8,
                    features: [0; 7],
                };
                write_user(self.linux(), argument, &target).map(|()| 0)
            }
            _ => self.device_command(command, argument),
        }
    }

    fn describe(&self) -> String {
        statistics::of_vm(self)
    }
}

impl<L: Linux> Drop for Vm<L> {
    fn drop(&mut self) {
        // Then the guest has nothing of the process's any more.
        self.watch = None;
        match self.shim.take() {
            Some(shim) if shim.destroy().is_err() => {
                // For want of memory, most likely. The next VM that comes or goes tries again.
                self.system.leave(shim);
                self.system.tidy();
            }
            // With what it leaves others may end, too.
            _ => self.system.bury(),
        }
        // Somebody may look through them still.
        self.wires().end();
    }
}
