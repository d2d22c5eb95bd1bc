//! vCPUs: what `KVM_CREATE_VCPU` makes.

mod interface;
mod power;
mod registers;
mod timer;

pub(super) use interface::Unseen;

use super::register::Own;
use super::run::Answer;
use super::run_page::RunPage;
use super::{Gate, Place, Vm, abi, gate, read_user};
use crate::linux::Signals;
use crate::{Descriptor, Errno, Linux};
use abi::Features;
use abi::devices::{GET_DEVICE_ATTR, HAS_DEVICE_ATTR, SET_DEVICE_ATTR};
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
    /// Its registers while EL2 has none of them. Whoever has the state takes it, and whoever launches the VM.
    pub(super) own: Mutex<L, Own>,
    state: Gate<L, State<L>>,
    // Last: the VM ends after the vCPU.
    pub(super) vm: Arc<Vm<L>>,
}

/// What one task at a time has.
#[derive(Debug)]
pub(super) struct State<L: Linux> {
    pub(super) shim: host_shim::Vcpu<L>,
    pub(super) features: Option<Features>,
    /// What the guest gets when it runs next.
    pub(super) answer: Answer,
    /// Which launch of the VM the answer belongs to.
    pub(super) launch: u64,
    /// It is off, unless it was turned on more often than that.
    pub(super) off: Option<u64>,
    /// The signals that wait while it runs, if not those that the task has blocked.
    pub(super) signals: Option<u64>,
}

/// The state, and whose it is.
pub(super) struct Inside<'a, L: Linux> {
    vcpu: &'a Vcpu<L>,
    state: gate::Inside<'a, L, State<L>>,
}

impl<L: Linux> Inside<'_, L> {
    /// The index of the vCPU.
    pub(super) fn index(&self) -> usize {
        self.vcpu.index as usize
    }
}

impl<L: Linux> Deref for Inside<'_, L> {
    type Target = State<L>;

    fn deref(&self) -> &State<L> {
        &self.state
    }
}

impl<L: Linux> DerefMut for Inside<'_, L> {
    fn deref_mut(&mut self) -> &mut State<L> {
        &mut self.state
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
        let _alone = self.beginning.enter(Signals::Fatal)?;
        if place.is_completed() {
            return Err(Errno::EXIST);
        }
        linux.open(c"kvm-vcpu", &mut || {
            let page = RunPage::new(linux, self.ledger().source())?;
            let shim = self.wires().interrupts().add_vcpu(index as usize, || {
                self.shim()?.create_vcpu(index).map_err(|error| match error {
                    // Too late: EL2 takes none after the launch.
                    Error::WrongState => Errno::BUSY,
                    error => error.into(),
                })
            })?;
            let vcpu = Arc::new(Vcpu {
                index,
                page,
                place: Arc::new(Place::new(linux)),
                own: Mutex::<L, _>::new(Own::new(index, false)),
                state: Gate::new(
                    linux,
                    State {
                        shim,
                        features: None,
                        answer: Answer::None,
                        launch: 0,
                        off: None,
                        signals: None,
                    },
                ),
                vm: Arc::clone(self),
            });
            place.call_once(|| Arc::clone(&vcpu.place));
            if let Some(known) = self.vcpus.get(index as usize) {
                known.call_once(|| Arc::downgrade(&vcpu));
            }
            Ok(vcpu)
        })
    }

    /// The vCPUs that there are.
    pub(super) fn all_vcpus(&self) -> Vec<Arc<Vcpu<L>>> {
        self.vcpus
            .iter()
            .filter_map(|vcpu| vcpu.get()?.upgrade())
            .collect()
    }

    /// Does something with all vCPUs while none runs or is commanded; without them if one is.
    pub(super) fn at_rest<R>(&self, work: impl FnOnce(Option<&mut [Inside<'_, L>]>) -> R) -> R {
        let vcpus = self.all_vcpus();
        let mut inside: Option<Vec<_>> = vcpus.iter().map(|vcpu| vcpu.try_enter()).collect();
        work(inside.as_deref_mut())
    }
}

impl<L: Linux> Vcpu<L> {
    /// The state, if nobody has it.
    fn try_enter(&self) -> Option<Inside<'_, L>> {
        let state = self.state.try_enter()?;
        Some(Inside { vcpu: self, state })
    }

    /// The state, after whoever has it.
    fn enter(&self) -> Result<Inside<'_, L>, Errno> {
        let state = self.state.enter(Signals::Fatal)?;
        Ok(Inside { vcpu: self, state })
    }

    fn initialized(&self) -> Result<Inside<'_, L>, Errno> {
        let state = self.enter()?;
        if state.features.is_none() {
            return Err(Errno::NOEXEC);
        }
        Ok(state)
    }

    /// `KVM_SET_SIGNAL_MASK`: which signals wait while the vCPU runs.
    fn set_signals(&self, argument: u64) -> Result<u64, Errno> {
        let linux = self.vm.linux();
        let signals = match argument {
            0 => None,
            _ => {
                let bytes: u32 = read_user(linux, argument)?;
                if bytes as usize != size_of::<u64>() {
                    return Err(Errno::INVAL);
                }
                Some(read_user(linux, argument.checked_add(4).ok_or(Errno::FAULT)?)?)
            }
        };
        self.enter()?.signals = signals;
        Ok(0)
    }

    /// `KVM_RUN`, with the signals blocked that are to wait.
    fn run_signalled(&self, state: &mut State<L>) -> Result<(), Errno> {
        let Some(signals) = state.signals else {
            return self.run(state);
        };
        let linux = self.vm.linux();
        linux.block_signals(signals);
        let result = self.run(state);
        linux.unblock_signals();
        result
    }

    /// `KVM_ARM_VCPU_FINALIZE`: none of the features that there are wants it.
    fn finalize(&self, argument: u64) -> Result<u64, Errno> {
        let _: u32 = read_user(self.vm.linux(), argument)?;
        self.initialized()?;
        Err(Errno::INVAL)
    }
}

impl<L: Linux> Descriptor for Vcpu<L> {
    fn ioctl(self: Arc<Self>, command: u32, argument: u64) -> Result<u64, Errno> {
        self.vm.check_caller()?;
        match command {
            abi::RUN if argument != 0 => Err(Errno::INVAL),
            abi::RUN => {
                let mut state = self.initialized()?;
                self.run_signalled(&mut state).map(|()| 0)
            }
            abi::SET_SIGNAL_MASK => self.set_signals(argument),
            abi::ARM_VCPU_INIT => self.init(argument),
            abi::ARM_VCPU_FINALIZE => self.finalize(argument),
            abi::GET_REG_LIST => self.list_registers(argument),
            abi::GET_ONE_REG => self.get_register(argument),
            abi::SET_ONE_REG => self.set_register(argument),
            abi::GET_MP_STATE => self.get_mp_state(argument),
            abi::SET_MP_STATE => self.set_mp_state(argument),
            SET_DEVICE_ATTR | GET_DEVICE_ATTR | HAS_DEVICE_ATTR => self.device_attribute(command, argument),
            _ => Err(Errno::INVAL),
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
