//! A firmware for tests: it keeps the power state of every CPU, records each call, and can be told to refuse.
//!
//! A call that powers the CPU down does not return. Here it unwinds with [`PoweredDown`], which [`powered_down`]
//! catches: what would be executed next on that CPU is nothing, until the firmware starts it at the address that
//! the call named.

use super::{ErrorCode, Firmware, FunctionId};
use crate::sync::Lock;
use std::any::Any;
use std::boxed::Box;
use std::panic::{AssertUnwindSafe, catch_unwind, resume_unwind};
use std::vec::Vec;

/// A call that the firmware got.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Recorded {
    /// The number of the CPU that called.
    pub cpu: usize,
    /// The function identifier.
    pub function: u32,
    /// x1 to x3.
    pub arguments: [u64; 3],
}

/// A CPU went down in a call that does not return.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct PoweredDown {
    /// Where the firmware will let it begin: address and x0. `None` after CPU_OFF or with the whole system.
    pub resume: Option<(u64, u64)>,
}

/// What the firmware knows of a CPU.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Cpu {
    affinity: u64,
    on: bool,
    /// Where it began last, and with which x0.
    began: Option<(u64, u64)>,
}

#[derive(Debug)]
struct State {
    cpus: Vec<Cpu>,
    calls: Vec<Recorded>,
    scripted: Vec<(u32, u64)>,
    extended: bool,
    system_suspend: bool,
}

/// The firmware.
#[derive(Debug)]
pub struct FirmwareDouble {
    state: Lock<State>,
}

impl FirmwareDouble {
    /// A firmware for CPUs with these affinities, of which the first is on. It is PSCI 1.1 with the extended
    /// power_state and SYSTEM_SUSPEND.
    #[must_use]
    pub fn new(affinities: &[u64]) -> Self {
        let cpus = affinities
            .iter()
            .enumerate()
            .map(|(number, affinity)| Cpu {
                affinity: *affinity,
                on: number == 0,
                began: None,
            })
            .collect();
        Self {
            state: Lock::new(State {
                cpus,
                calls: Vec::new(),
                scripted: Vec::new(),
                extended: true,
                system_suspend: true,
            }),
        }
    }

    /// The next call of `function` answers `answer` and does nothing else.
    pub fn script(&self, function: FunctionId, answer: u64) {
        self.state.lock().scripted.push((function.into(), answer));
    }

    /// Gives the firmware the original format of power_state, and takes SYSTEM_SUSPEND away.
    pub fn make_old(&self) {
        let mut state = self.state.lock();
        state.extended = false;
        state.system_suspend = false;
    }

    /// The firmware as the CPU with this number sees it.
    #[must_use]
    pub const fn on_cpu(&self, cpu: usize) -> OnCpu<'_> {
        OnCpu { firmware: self, cpu }
    }

    /// All calls since the last time this was asked.
    #[must_use]
    pub fn take_calls(&self) -> Vec<Recorded> {
        core::mem::take(&mut self.state.lock().calls)
    }

    /// Where the CPU began last: address and x0.
    #[must_use]
    pub fn began(&self, cpu: usize) -> Option<(u64, u64)> {
        self.state.lock().cpus.get(cpu).and_then(|cpu| cpu.began)
    }

    /// Whether the firmware thinks that the CPU is on.
    #[must_use]
    pub fn is_on(&self, cpu: usize) -> bool {
        self.state.lock().cpus.get(cpu).is_some_and(|cpu| cpu.on)
    }

    /// Carries out a call. The second value says that it does not return, and where the CPU would begin.
    fn carry_out(&self, call: Recorded) -> Result<u64, PoweredDown> {
        let mut state = self.state.lock();
        state.calls.push(call);
        if let Some(at) = state
            .scripted
            .iter()
            .position(|(function, _)| *function == call.function)
        {
            return Ok(state.scripted.remove(at).1);
        }
        let Ok(function) = FunctionId::try_from(call.function) else {
            return Ok(ErrorCode::NotSupported.into());
        };
        match function {
            FunctionId::PsciVersion => Ok(0x0001_0001),
            FunctionId::PsciFeatures => Ok(state.features(call.arguments[0])),
            FunctionId::CpuOn64 => Ok(state.cpu_on(call.arguments)),
            FunctionId::AffinityInfo64 => Ok(state.affinity_info(call.arguments[0])),
            FunctionId::MigrateInfoType => Ok(2),
            FunctionId::CpuOff => {
                state.turn_off(call.cpu);
                Err(PoweredDown { resume: None })
            }
            FunctionId::CpuSuspend64 => {
                let [power_state, entry, context] = call.arguments;
                let bit = if state.extended { 30 } else { 16 };
                if power_state >> bit & 1 == 0 {
                    return Ok(0);
                }
                Err(PoweredDown {
                    resume: Some((entry, context)),
                })
            }
            FunctionId::SystemSuspend64 if state.system_suspend => {
                if state.cpus.iter().filter(|cpu| cpu.on).count() > 1 {
                    return Ok(ErrorCode::Denied.into());
                }
                Err(PoweredDown {
                    resume: Some((call.arguments[0], call.arguments[1])),
                })
            }
            FunctionId::SystemOff
            | FunctionId::SystemReset
            | FunctionId::SystemReset264
            | FunctionId::SystemOff264 => Err(PoweredDown { resume: None }),
            FunctionId::PsciSetSuspendMode => Ok(0),
            FunctionId::Migrate64 => Ok(ErrorCode::NotPresent.into()),
            FunctionId::MigrateInfoUpCpu64 => Ok(0x1_0000_0002),
            _ => Ok(ErrorCode::NotSupported.into()),
        }
    }
}

impl State {
    fn features(&self, function: u64) -> u64 {
        const EXTENDED: u64 = 1 << 1;
        const SMCCC_VERSION: u64 = 0x8000_0000;
        let known = u32::try_from(function)
            .ok()
            .and_then(|function| FunctionId::try_from(function).ok());
        match known {
            Some(FunctionId::CpuSuspend64) if self.extended => EXTENDED,
            Some(FunctionId::SystemSuspend64) if !self.system_suspend => ErrorCode::NotSupported.into(),
            Some(_) => 0,
            None if function == SMCCC_VERSION => 0,
            None => ErrorCode::NotSupported.into(),
        }
    }

    fn cpu_on(&mut self, [affinity, entry, context]: [u64; 3]) -> u64 {
        let Some(cpu) = self.cpus.iter_mut().find(|cpu| cpu.affinity == affinity) else {
            return ErrorCode::InvalidParameters.into();
        };
        if cpu.on {
            return ErrorCode::AlreadyOn.into();
        }
        cpu.on = true;
        cpu.began = Some((entry, context));
        0
    }

    fn affinity_info(&self, affinity: u64) -> u64 {
        match self.cpus.iter().find(|cpu| cpu.affinity == affinity) {
            Some(cpu) => u64::from(!cpu.on),
            None => ErrorCode::InvalidParameters.into(),
        }
    }

    fn turn_off(&mut self, cpu: usize) {
        if let Some(cpu) = self.cpus.get_mut(cpu) {
            cpu.on = false;
            cpu.began = None;
        }
    }
}

/// The firmware, called from one CPU.
#[derive(Clone, Copy, Debug)]
pub struct OnCpu<'a> {
    firmware: &'a FirmwareDouble,
    cpu: usize,
}

impl Firmware for OnCpu<'_> {
    fn call(&self, function: u32, arguments: [u64; 3]) -> u64 {
        let call = Recorded {
            cpu: self.cpu,
            function,
            arguments,
        };
        match self.firmware.carry_out(call) {
            Ok(answer) => answer,
            // Not a panic: nothing is printed, and nothing has gone wrong.
            Err(down) => resume_unwind(Box::new(down)),
        }
    }
}

/// Runs `code` and tells whether it ended in a call that does not return.
///
/// # Errors
/// What `code` returned, if it returned.
///
/// # Panics
/// If `code` panicked for any other reason.
pub fn powered_down<R>(code: impl FnOnce() -> R) -> Result<PoweredDown, R> {
    match catch_unwind(AssertUnwindSafe(code)) {
        Ok(value) => Err(value),
        Err(payload) => Ok(*downcast(payload)),
    }
}

fn downcast(payload: Box<dyn Any + Send>) -> Box<PoweredDown> {
    payload
        .downcast()
        .unwrap_or_else(|payload| resume_unwind(payload))
}
