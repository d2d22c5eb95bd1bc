//! How a vCPU begins, and whether it is on: `KVM_ARM_VCPU_INIT`, `KVM_GET_MP_STATE`, `KVM_SET_MP_STATE`.

use super::super::register::{Own, at_reset};
use super::super::run::Answer;
use super::super::{abi, read_user, write_user};
use super::{State, Vcpu};
use crate::{Errno, Linux};
use abi::Features;
use host_shim::Error;
use hyp_abi::vcpu_register::SystemRegister;
use hyp_abi::{Status, VcpuRegister};

impl<L: Linux> Vcpu<L> {
    /// The features that there are.
    fn possible_features(&self) -> Features {
        let mut possible = Features::POWER_OFF | Features::PSCI_0_2;
        if self.vm.system().registers().keys {
            possible |= Features::PTRAUTH;
        }
        possible
    }

    /// `KVM_ARM_VCPU_INIT`. Of a VM that runs and is not protected, the vCPU begins anew.
    ///
    /// # Errors
    /// [`Errno::INVAL`] for another target, and features that there are not, or were not there the last time;
    /// [`Errno::NOENT`] for features that are unknown; [`Errno::PERM`] if the VM is protected, and has begun.
    pub(super) fn init(&self, argument: u64) -> Result<u64, Errno> {
        let wanted: abi::VcpuInit = read_user(self.vm.linux(), argument)?;
        let mut state = self.enter()?;
        let [features, rest @ ..] = wanted.features;
        let features = Features::from_bits(features)
            .filter(|_| rest == [0; 6])
            .ok_or(Errno::NOENT)?;
        let keys = features & Features::PTRAUTH;
        if wanted.target != abi::TARGET_GENERIC_V8
            || !self.possible_features().contains(features)
            // The keys come together.
            || !keys.is_empty() && keys != Features::PTRAUTH
        {
            return Err(Errno::INVAL);
        }
        let unlike = |before: Features| before ^ features != (before ^ features) & Features::POWER_OFF;
        if state.features.is_some_and(unlike) {
            return Err(Errno::INVAL);
        }
        if self.vm.is_closed() {
            // Its registers are its own.
            return Err(Errno::PERM);
        }
        let off = features.contains(Features::POWER_OFF);
        let mut own = self.own.lock();
        if self.vm.is_launched() {
            self.reset(&mut state, off)?;
        }
        *own = Own::new(self.index, off);
        drop(own);
        state.features = Some(features);
        state.answer = Answer::None;
        state.off = off.then(|| self.place.times_on());
        Ok(0)
    }

    /// Has EL2 begin it anew.
    fn reset(&self, state: &mut State<L>, off: bool) -> Result<(), Errno> {
        let is_reset = |register: &VcpuRegister| {
            !matches!(
                register,
                VcpuRegister::CounterOffset
                    | VcpuRegister::Power
                    | VcpuRegister::System(SystemRegister::MpidrEl1)
            )
        };
        for register in VcpuRegister::all().filter(is_reset) {
            let value = at_reset(self.index, register);
            match state.shim.write_register(register, value) {
                // The machine does not have it.
                Err(error) if error.status() == Some(Status::InvalidParameter) => {}
                // The guest has just ended itself: it begins with what is kept here.
                Err(Error::WrongState) => return Ok(()),
                result => result?,
            }
        }
        let power = u64::from(!off);
        match state.shim.write_register(VcpuRegister::Power, power) {
            Err(Error::WrongState) => Ok(()),
            result => Ok(result?),
        }
    }

    /// `KVM_GET_MP_STATE`.
    pub(super) fn get_mp_state(&self, argument: u64) -> Result<u64, Errno> {
        let state = self.enter()?;
        let mp_state = if self.is_off(&state)? {
            abi::MP_STATE_STOPPED
        } else {
            abi::MP_STATE_RUNNABLE
        };
        write_user(self.vm.linux(), argument, &mp_state)?;
        Ok(0)
    }

    /// `KVM_SET_MP_STATE`.
    pub(super) fn set_mp_state(&self, argument: u64) -> Result<u64, Errno> {
        let wanted: u32 = read_user(self.vm.linux(), argument)?;
        let mut state = self.enter()?;
        let off = match wanted {
            abi::MP_STATE_RUNNABLE => false,
            abi::MP_STATE_STOPPED => true,
            _ => return Err(Errno::INVAL),
        };
        if self.vm.is_closed() {
            // From then on the guest turns them on and off.
            return if off == self.is_off(&state)? {
                Ok(0)
            } else {
                Err(Errno::PERM)
            };
        }
        self.own.lock().off = off;
        if self.vm.is_launched() {
            self.write(&mut state, VcpuRegister::Power, u64::from(!off))?;
        }
        state.off = off.then(|| self.place.times_on());
        Ok(0)
    }

    /// Whether it is off, as far as is known.
    fn is_off(&self, state: &State<L>) -> Result<bool, Errno> {
        if self.vm.is_closed() {
            return Ok(state.off == Some(self.place.times_on()));
        }
        if self.vm.is_launched() {
            return Ok(self.read(state, VcpuRegister::Power)? == 0);
        }
        Ok(self.own.lock().off)
    }
}
