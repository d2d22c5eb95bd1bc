//! A vCPU's registers: `KVM_GET_ONE_REG`, `KVM_SET_ONE_REG`, `KVM_GET_REG_LIST`.
//!
//! Before the VM begins they are kept here, and EL2 gets what was set when it does. From then on EL2 has them, and lets them
//! be seen if the VM is not protected.

use super::super::register::{self, Choice, Own, Register, Value};
use super::super::{abi, read_user, write_user};
use super::{Inside, State, Vcpu};
use crate::{Errno, Linux};
use host_shim::Error;
use hyp_abi::VcpuRegister;

/// CNTV_CTL_EL0.ENABLE and IMASK.
const TIMER_SETTINGS: u64 = 0b11;
/// CNTV_CTL_EL0.ISTATUS.
const TIMER_DUE: u64 = 1 << 2;
/// PSTATE.M, with the bit of AArch32.
const MODE: u64 = 0x1F;
/// EL0t, EL1t, EL1h.
const MODES: [u64; 3] = [0, 4, 5];

/// The error of a register that EL2 does not give.
fn refusal(error: Error) -> Errno {
    match error {
        // The guest is ending itself just now.
        Error::WrongState => Errno::BUSY,
        error => error.into(),
    }
}

/// The first eight bytes of a value.
fn word(value: &Value) -> u64 {
    value.first_chunk().map_or(0, |bytes| u64::from_le_bytes(*bytes))
}

fn value_of(low: u64, high: u64) -> Value {
    (u128::from(high) << 64 | u128::from(low)).to_le_bytes()
}

impl<L: Linux> Vcpu<L> {
    fn choice(&self) -> Choice {
        Choice {
            protected: self.vm.is_protected(),
            ..self.vm.system().registers()
        }
    }

    /// The vCPU, while user space may see its registers.
    fn open(&self) -> Result<Inside<'_, L>, Errno> {
        let state = self.initialized()?;
        if self.vm.is_closed() {
            return Err(Errno::PERM);
        }
        Ok(state)
    }

    /// `KVM_GET_REG_LIST`.
    pub(super) fn list_registers(&self, argument: u64) -> Result<u64, Errno> {
        let linux = self.vm.linux();
        let _state = self.initialized()?;
        let places: u64 = read_user(linux, argument)?;
        let names = || Register::names(self.choice());
        let count = names().count() as u64;
        write_user(linux, argument, &count)?;
        if places < count {
            return Err(Errno::TOOBIG);
        }
        for (index, name) in (1..).zip(names()) {
            let address = argument.checked_add(index * 8).ok_or(Errno::FAULT)?;
            write_user(linux, address, &name)?;
        }
        Ok(0)
    }

    /// `KVM_GET_ONE_REG`.
    pub(super) fn get_register(&self, argument: u64) -> Result<u64, Errno> {
        let linux = self.vm.linux();
        let asked: abi::OneReg = read_user(linux, argument)?;
        let state = self.open()?;
        let register = Register::from_name(asked.id, self.choice())?;
        let value = self.get(&state, register)?;
        let bytes = value.get(..register::size_of(asked.id)).ok_or(Errno::INVAL)?;
        linux.copy_to_user(asked.address, bytes)?;
        Ok(0)
    }

    /// `KVM_SET_ONE_REG`.
    pub(super) fn set_register(&self, argument: u64) -> Result<u64, Errno> {
        let linux = self.vm.linux();
        let asked: abi::OneReg = read_user(linux, argument)?;
        let mut state = self.open()?;
        // What there is not is told before where its value is.
        let register = Register::from_name(asked.id, self.choice())?;
        let mut value = Value::default();
        let bytes = value.get_mut(..register::size_of(asked.id)).ok_or(Errno::INVAL)?;
        linux.copy_from_user(asked.address, bytes)?;
        self.set(&mut state, register, &value)?;
        Ok(0)
    }

    fn get(&self, state: &State<L>, register: Register) -> Result<Value, Errno> {
        let low = match register {
            Register::Vector(vector) => {
                let [low, high] = Register::halves(vector);
                return Ok(value_of(self.read(state, low)?, self.read(state, high)?));
            }
            Register::Vcpu(VcpuRegister::TimerControl) => {
                let settings = self.read(state, VcpuRegister::TimerControl)?;
                let compare = self.read(state, VcpuRegister::TimerCompare)?;
                let is_due = self.vm.guest_time() >= compare;
                settings | if is_due { TIMER_DUE } else { 0 }
            }
            Register::Vcpu(register) => self.read(state, register)?,
            Register::Banked(mode) => {
                let banked = self.own.lock().banked;
                banked.get(usize::from(mode)).copied().unwrap_or(0)
            }
            Register::Firmware(number) => Register::firmware(number),
            Register::Feature(number) => self.vm.feature(number)?,
            Register::Count => self.vm.guest_time(),
        };
        Ok(value_of(low, 0))
    }

    fn set(&self, state: &mut State<L>, register: Register, value: &Value) -> Result<(), Errno> {
        let low = word(value);
        match register {
            Register::Vector(vector) => {
                let halves = u128::from_le_bytes(*value);
                let [low, high] = Register::halves(vector);
                self.write(state, low, halves as u64)?;
                self.write(state, high, (halves >> 64) as u64)
            }
            Register::Vcpu(VcpuRegister::TimerControl) => {
                self.write(state, VcpuRegister::TimerControl, low & TIMER_SETTINGS)
            }
            Register::Vcpu(VcpuRegister::Pstate) if !MODES.contains(&(low & MODE)) => Err(Errno::INVAL),
            Register::Vcpu(register) if !is_read_only(register) => self.write(state, register, low),
            Register::Banked(mode) => {
                if let Some(place) = self.own.lock().banked.get_mut(usize::from(mode)) {
                    *place = low;
                }
                Ok(())
            }
            Register::Count => self.vm.set_guest_time(low),
            // What follows from the VM and the machine is what it is.
            Register::Vcpu(_) | Register::Firmware(_) | Register::Feature(_) => {
                if self.get(state, register)? == *value {
                    Ok(())
                } else if matches!(register, Register::Feature(_)) && self.vm.has_begun() {
                    Err(Errno::BUSY)
                } else {
                    Err(Errno::INVAL)
                }
            }
        }
    }

    /// A register, wherever it is at the moment.
    pub(super) fn read(&self, state: &State<L>, register: VcpuRegister) -> Result<u64, Errno> {
        let own = self.own.lock();
        if self.vm.is_launched() {
            state.shim.read_register(register).map_err(refusal)
        } else {
            Ok(own.get(register))
        }
    }

    /// Sets a register, wherever it is at the moment.
    pub(super) fn write(
        &self,
        state: &mut State<L>,
        register: VcpuRegister,
        value: u64,
    ) -> Result<(), Errno> {
        let mut own = self.own.lock();
        if self.vm.is_launched() {
            state.shim.write_register(register, value).map_err(refusal)
        } else {
            own.set(register, value);
            Ok(())
        }
    }

    /// Gives EL2 what was set, and whether the vCPU is on.
    ///
    /// # Errors
    /// [`Errno::INVAL`] for a value that a register of this machine does not take.
    pub(in crate::kvm) fn hand_over(&self, own: &Own) -> Result<(), Errno> {
        let shim = self.vm.shim()?;
        for (register, value) in own.all_set() {
            shim.write_register(self.index, register, value)?;
        }
        shim.write_register(self.index, VcpuRegister::Power, u64::from(!own.off))?;
        Ok(())
    }
}

const fn is_read_only(register: VcpuRegister) -> bool {
    matches!(
        register,
        VcpuRegister::System(hyp_abi::vcpu_register::SystemRegister::MpidrEl1)
    )
}
