//! vCPUs: what `KVM_CREATE_VCPU` makes.

use super::register::{self, Registers};
use super::run::Answer;
use super::run_page::RunPage;
use super::{Place, Vm, abi, read_user, write_user};
use crate::linux::Signals;
use crate::{Descriptor, Errno, Linux};
use abi::Features;
use alloc::sync::Arc;
use alloc::vec::Vec;
use core::ops::{Deref, DerefMut};
use host_shim::sync::Mutex;
use host_shim::{Error, Pfn};

/// A vCPU.
#[derive(Debug)]
pub struct Vcpu<L: Linux> {
    pub(super) index: u64,
    pub(super) page: RunPage<L>,
    pub(super) place: Arc<Place<L>>,
    state: Mutex<L, State<L>>,
    /// Where those wait who want the state.
    door: L::Seat,
    // Last: the VM ends after the vCPU.
    pub(super) vm: Arc<Vm<L>>,
}

/// What one task at a time has.
#[derive(Debug)]
pub(super) struct State<L: Linux> {
    pub(super) shim: host_shim::Vcpu<L>,
    pub(super) features: Option<Features>,
    pub(super) registers: Registers,
    /// What the guest gets when it runs next.
    pub(super) answer: Answer,
    /// It is off, unless it was turned on more often than that.
    pub(super) off: Option<u64>,
}

/// The state, and the door for the next.
pub(super) struct Inside<'a, L: Linux> {
    vcpu: &'a Vcpu<L>,
    state: Option<lock_api::MutexGuard<'a, L::Lock, State<L>>>,
}

impl<L: Linux> Deref for Inside<'_, L> {
    type Target = State<L>;

    fn deref(&self) -> &State<L> {
        self.state.as_deref().expect("it is there until it is dropped")
    }
}

impl<L: Linux> DerefMut for Inside<'_, L> {
    fn deref_mut(&mut self) -> &mut State<L> {
        self.state
            .as_deref_mut()
            .expect("it is there until it is dropped")
    }
}

impl<L: Linux> Drop for Inside<'_, L> {
    fn drop(&mut self) {
        self.state = None;
        self.vcpu.vm.linux().wake(&self.vcpu.door);
    }
}

impl<L: Linux> Vm<L> {
    /// `KVM_CREATE_VCPU`.
    pub(super) fn create_vcpu(self: &Arc<Self>, index: u64) -> Result<u64, Errno> {
        let linux = self.linux();
        let place = usize::try_from(index)
            .ok()
            .and_then(|index| self.places.get(index))
            .ok_or(Errno::INVAL)?;
        // One at a time, so that what exists is found.
        let _alone = self.declared.lock();
        if place.is_completed() {
            return Err(Errno::EXIST);
        }
        let page = RunPage::new(linux, self.ledger().source())?;
        self.wires().interrupts().add_vcpu(index as usize)?;
        let mut spare = self.spare_vcpus.lock();
        let known = spare.iter().position(|vcpu| vcpu.index() == index);
        let shim = match known.map(|at| spare.swap_remove(at)) {
            Some(vcpu) => vcpu,
            None => self.shim()?.create_vcpu(index).map_err(|error| match error {
                // Too late: EL2 takes none after the launch.
                Error::WrongState => Errno::BUSY,
                error => error.into(),
            })?,
        };
        drop(spare);
        let vcpu = Arc::new(Vcpu {
            index,
            page,
            place: Arc::new(Place::new(linux)),
            state: Mutex::<L, _>::new(State {
                shim,
                features: None,
                registers: Registers::new(),
                answer: Answer::None,
                off: None,
            }),
            door: linux.seat(),
            vm: Arc::clone(self),
        });
        let made = linux.open(c"kvm-vcpu", Arc::clone(&vcpu) as Arc<dyn Descriptor>);
        match made {
            Ok(_) => {
                place.call_once(|| Arc::clone(&vcpu.place));
                if let Some(known) = self.vcpus.get(index as usize) {
                    known.call_once(|| Arc::downgrade(&vcpu));
                }
            }
            Err(_) => {
                // EL2 has it, and keeps it: it is there for whoever tries again.
                if let Some(vcpu) = Arc::into_inner(vcpu) {
                    self.spare_vcpus.lock().push(vcpu.state.into_inner().shim);
                }
            }
        }
        made
    }

    /// Does something while no vCPU runs or is commanded, or is told that one is.
    pub(super) fn at_rest<R>(&self, work: impl FnOnce(bool) -> R) -> R {
        let vcpus: Vec<_> = (self.vcpus.iter())
            .filter_map(|vcpu| vcpu.get()?.upgrade())
            .collect();
        let inside: Option<Vec<_>> = vcpus.iter().map(|vcpu| vcpu.try_enter()).collect();
        work(inside.is_some())
    }
}

impl<L: Linux> Vcpu<L> {
    /// The state, if nobody has it.
    fn try_enter(&self) -> Option<Inside<'_, L>> {
        let state = Some(self.state.try_lock()?);
        Some(Inside { vcpu: self, state })
    }

    /// The state, after whoever has it.
    fn enter(&self) -> Result<Inside<'_, L>, Errno> {
        let mut state = None;
        self.vm.linux().wait(&self.door, Signals::Fatal, None, &mut || {
            state = self.state.try_lock();
            state.is_some()
        })?;
        if state.is_none() {
            return Err(Errno::INTR);
        }
        Ok(Inside { vcpu: self, state })
    }

    /// `KVM_ARM_VCPU_INIT`.
    fn init(&self, argument: u64) -> Result<u64, Errno> {
        let wanted: abi::VcpuInit = read_user(self.vm.linux(), argument)?;
        let mut state = self.enter()?;
        let [features, rest @ ..] = wanted.features;
        let features = Features::from_bits(features)
            .filter(|_| rest == [0; 6])
            .ok_or(Errno::NOENT)?;
        if wanted.target != abi::TARGET_GENERIC_V8
            || !(Features::POWER_OFF | Features::PSCI_0_2).contains(features)
        {
            return Err(Errno::INVAL);
        }
        let unlike = |before: Features| (before ^ features).contains(Features::PSCI_0_2);
        if state.features.is_some_and(unlike) {
            return Err(Errno::INVAL);
        }
        if self.vm.is_launched() {
            // EL2 begins a vCPU once, and again only for the guest itself.
            return Err(Errno::BUSY);
        }
        state.features = Some(features);
        state.registers = Registers::new();
        state.off = features
            .contains(Features::POWER_OFF)
            .then(|| self.place.times_on());
        Ok(0)
    }

    fn initialized(&self) -> Result<Inside<'_, L>, Errno> {
        let state = self.enter()?;
        if state.features.is_none() {
            return Err(Errno::NOEXEC);
        }
        Ok(state)
    }

    /// `KVM_ARM_VCPU_FINALIZE`: none of the features that there are wants it.
    fn finalize(&self, argument: u64) -> Result<u64, Errno> {
        let _: u32 = read_user(self.vm.linux(), argument)?;
        self.initialized()?;
        Err(Errno::INVAL)
    }

    /// `KVM_GET_REG_LIST`.
    fn list_registers(&self, argument: u64) -> Result<u64, Errno> {
        let linux = self.vm.linux();
        let _state = self.initialized()?;
        let places: u64 = read_user(linux, argument)?;
        let count = register::names().count() as u64;
        write_user(linux, argument, &count)?;
        if places < count {
            return Err(Errno::TOOBIG);
        }
        for (index, name) in (1..).zip(register::names()) {
            let address = argument.checked_add(index * 8).ok_or(Errno::FAULT)?;
            write_user(linux, address, &name)?;
        }
        Ok(0)
    }

    /// The registers, while they are user space's.
    fn registers(&self) -> Result<Inside<'_, L>, Errno> {
        let state = self.initialized()?;
        if self.vm.is_launched() {
            // A protected guest's are its own. Those of others are EL2's.
            return Err(Errno::PERM);
        }
        Ok(state)
    }

    /// `KVM_GET_ONE_REG`.
    fn get_register(&self, argument: u64) -> Result<u64, Errno> {
        let linux = self.vm.linux();
        let register: abi::OneReg = read_user(linux, argument)?;
        let value = self.registers()?.registers.get(register.id, self.index)?;
        let bytes = value.get(..register::size_of(register.id)).ok_or(Errno::INVAL)?;
        linux.copy_to_user(register.address, bytes)?;
        Ok(0)
    }

    /// `KVM_SET_ONE_REG`.
    fn set_register(&self, argument: u64) -> Result<u64, Errno> {
        let linux = self.vm.linux();
        let register: abi::OneReg = read_user(linux, argument)?;
        let mut state = self.registers()?;
        // What there is not is told before where its value is.
        state.registers.get(register.id, self.index)?;
        let mut value = register::Value::default();
        let bytes = value
            .get_mut(..register::size_of(register.id))
            .ok_or(Errno::INVAL)?;
        linux.copy_from_user(register.address, bytes)?;
        state.registers.set(register.id, self.index, &value)?;
        Ok(0)
    }

    /// `KVM_GET_MP_STATE`.
    fn get_mp_state(&self, argument: u64) -> Result<u64, Errno> {
        let state = self.enter()?;
        let mp_state = if self.is_off(&state) {
            abi::MP_STATE_STOPPED
        } else {
            abi::MP_STATE_RUNNABLE
        };
        write_user(self.vm.linux(), argument, &mp_state)?;
        Ok(0)
    }

    /// `KVM_SET_MP_STATE`.
    fn set_mp_state(&self, argument: u64) -> Result<u64, Errno> {
        let wanted: u32 = read_user(self.vm.linux(), argument)?;
        let mut state = self.enter()?;
        let off = match wanted {
            abi::MP_STATE_RUNNABLE => None,
            abi::MP_STATE_STOPPED => Some(self.place.times_on()),
            _ => return Err(Errno::INVAL),
        };
        if self.vm.is_launched() {
            // From then on the guest turns them on and off.
            return if off.is_some() == self.is_off(&state) {
                Ok(0)
            } else {
                Err(Errno::PERM)
            };
        }
        state.off = off;
        Ok(0)
    }

    /// Whether it is off, as far as is known.
    pub(super) fn is_off(&self, state: &State<L>) -> bool {
        state.off == Some(self.place.times_on())
    }
}

impl<L: Linux> Descriptor for Vcpu<L> {
    fn ioctl(self: Arc<Self>, command: u32, argument: u64) -> Result<u64, Errno> {
        self.vm.check_caller()?;
        match command {
            abi::RUN if argument != 0 => Err(Errno::INVAL),
            abi::RUN => {
                let mut state = self.initialized()?;
                self.run(&mut state).map(|()| 0)
            }
            abi::ARM_VCPU_INIT => self.init(argument),
            abi::ARM_VCPU_FINALIZE => self.finalize(argument),
            abi::GET_REG_LIST => self.list_registers(argument),
            abi::GET_ONE_REG => self.get_register(argument),
            abi::SET_ONE_REG => self.set_register(argument),
            abi::GET_MP_STATE => self.get_mp_state(argument),
            abi::SET_MP_STATE => self.set_mp_state(argument),
            _ => Err(Errno::NOTTY),
        }
    }

    fn pages(&self) -> Option<u64> {
        Some(1)
    }

    fn fault(&self, page: u64, insert: &mut dyn FnMut(Pfn) -> Result<(), Errno>) -> Result<(), Errno> {
        if page != 0 {
            return Err(Errno::FAULT);
        }
        // It stays as long as the vCPU, which the mapping keeps.
        insert(self.page.frame())
    }
}
