//! VMs.

use super::interrupts::{Places, Wires};
use super::memory::Ledger;
use super::{Controller, Doorbells, Place, System, Vcpu, abi, capability, write_user};
use crate::{Descriptor, Errno, Linux};
use alloc::sync::{Arc, Weak};
use alloc::vec::Vec;
use core::sync::atomic::{AtomicBool, Ordering};
use host_shim::VmConfig;
use host_shim::sync::Mutex;
use host_shim::vgic::VcpuSet;
use hyp_abi::GuestRange;
use hyp_abi::vm::{IPA_BITS, MAX_MEMORY_RANGES, MAX_VCPUS, VmFlags};
use spin::Once;

/// A VM: what `KVM_CREATE_VM` makes. It ends with its last descriptor, and those of its vCPUs.
#[derive(Debug)]
pub struct Vm<L: Linux> {
    system: Arc<System<L>>,
    /// There as long as this is.
    shim: Option<host_shim::Vm<L>>,
    /// Whose it is: nobody else commands it.
    space: Arc<L::Space>,
    ledger: Arc<Ledger<L>>,
    ipa_bits: u64,
    protected: bool,
    /// What EL2 knows to be memory. Held by whoever launches, or makes a vCPU.
    pub(super) declared: Mutex<L, Vec<GuestRange>>,
    launched: AtomicBool,
    /// The guest has turned itself off.
    over: AtomicBool,
    /// vCPUs that EL2 has, and nobody else.
    pub(super) spare_vcpus: Mutex<L, Vec<host_shim::Vcpu<L>>>,
    pub(super) places: Arc<Places<L>>,
    pub(super) vcpus: [Once<Weak<Vcpu<L>>>; MAX_VCPUS],
    wires: Wires<L>,
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
        let limit = capability::ipa_limit(system.linux());
        let ipa_bits = match kind & abi::VM_TYPE_IPA_SIZE {
            0 => abi::DEFAULT_IPA_BITS,
            bits => bits,
        };
        if ipa_bits < *IPA_BITS.start() || ipa_bits > limit {
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
        let space = Arc::new(system.linux().space());
        let payer = protected.then(|| Arc::clone(&space));
        let ledger = Ledger::new(Arc::clone(system.pages()), payer, Arc::clone(system.total()));
        let places = Arc::new([const { Once::new() }; MAX_VCPUS]);
        Ok(Self {
            shim: Some(shim),
            space,
            ledger: Arc::new(ledger),
            ipa_bits,
            protected,
            declared: Mutex::<L, _>::new(Vec::new()),
            launched: AtomicBool::new(false),
            over: AtomicBool::new(false),
            spare_vcpus: Mutex::<L, _>::new(Vec::new()),
            wires: Wires::new(system.linux(), Arc::clone(&places)),
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

    /// Who pays for its memory.
    pub const fn ledger(&self) -> &Arc<Ledger<L>> {
        &self.ledger
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
    pub const fn wires(&self) -> &Wires<L> {
        &self.wires
    }

    /// The places where a guest's store is a signal.
    pub const fn doorbells(&self) -> &Doorbells<L> {
        &self.doorbells
    }

    /// Does something that must be done before the VM is launched.
    ///
    /// # Errors
    /// Those of `work`; [`Errno::BUSY`] if it is launched.
    pub(super) fn before_launch<R>(&self, work: impl FnOnce() -> Result<R, Errno>) -> Result<R, Errno> {
        let _alone = self.declared.lock();
        if self.is_launched() {
            return Err(Errno::BUSY);
        }
        work()
    }

    /// Whether it is protected.
    pub const fn is_protected(&self) -> bool {
        self.protected
    }

    /// Whether it has begun.
    pub fn is_launched(&self) -> bool {
        self.launched.load(Ordering::SeqCst)
    }

    /// Whether the guest has turned itself off: no vCPU runs again.
    pub fn is_over(&self) -> bool {
        self.over.load(Ordering::SeqCst)
    }

    pub(super) fn set_over(&self) {
        self.over.store(true, Ordering::SeqCst);
        self.tell(VcpuSet::first(MAX_VCPUS));
    }

    /// Launches it: EL2 is told what is memory, gets what is in it if the guest is protected, and where vCPU 0 begins.
    /// Where it fails it can be tried again.
    pub(super) fn launch(&self, entry: u64, argument: u64) -> Result<(), Errno> {
        let mut declared = self.declared.lock();
        if self.is_launched() {
            return Ok(());
        }
        if let Some(controller) = self.controller() {
            controller.start()?;
        }
        let shim = self.shim()?;
        let ranges = shim.slot_ranges();
        if ranges.len() > MAX_MEMORY_RANGES {
            return Err(Errno::TOOBIG);
        }
        for range in ranges {
            // An attempt that failed may have declared it.
            if !declared.contains(&range) {
                shim.add_memory(range)?;
                declared.push(range);
            }
        }
        if self.protected {
            shim.give_resident()?;
        }
        shim.launch(entry, argument)?;
        self.launched.store(true, Ordering::SeqCst);
        self.tell(VcpuSet::first(MAX_VCPUS));
        Ok(())
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
            abi::CHECK_EXTENSION => Ok(capability::check(self.system.linux(), argument)),
            abi::CREATE_VCPU => self.create_vcpu(argument),
            abi::CREATE_GUEST_MEMFD => self.create_memfd(argument),
            abi::SET_USER_MEMORY_REGION => self.set_region(argument),
            abi::SET_USER_MEMORY_REGION2 => self.set_region2(argument),
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
}

impl<L: Linux> Drop for Vm<L> {
    fn drop(&mut self) {
        match self.shim.take() {
            Some(shim) if shim.destroy().is_err() => {
                // For want of memory, most likely. The next VM that comes or goes tries again.
                self.system.leave(shim);
                self.system.tidy();
            }
            // With what it leaves others may end, too.
            _ => self.system.bury(),
        }
    }
}
