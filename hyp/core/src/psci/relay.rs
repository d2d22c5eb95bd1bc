//! The host's PSCI calls, one by one.
//!
//! Calls that start or wake a CPU go to the firmware with EL2's own entry; calls about a CPU are checked against the
//! list of CPUs; what has neither is passed on. What is left is NOT_SUPPORTED, and PSCI_FEATURES says so too.
//!
//! The firmware is always called by the 64-bit form: EL2 is AArch64, and its entry may lie above 4 GiB.

use super::slot::{Arrival, Attempt, Occupied, Power, Slot, Start};
use super::{ErrorCode, Firmware, FunctionId};
use arm_psci::{AffinityInfo, Mpidr};

/// How a power_state is laid out. The firmware has one of the two (DEN0022, 5.1.2).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum PowerStateFormat {
    /// StateType in bit 16, PowerLevel in 25:24, StateID in 15:0.
    Original,
    /// StateType in bit 30, StateID in 27:0.
    Extended,
}

impl PowerStateFormat {
    /// Whether the state loses the CPU's context, or `None` if reserved bits are set.
    #[must_use]
    pub const fn powers_down(self, state: u32) -> Option<bool> {
        let (reserved, kind) = match self {
            Self::Original => (0xfcfe_0000, 1 << 16),
            Self::Extended => (0xb000_0000, 1 << 30),
        };
        if state & reserved != 0 {
            None
        } else {
            Some(state & kind != 0)
        }
    }
}

/// PSCI_FEATURES of CPU_SUSPEND, bit 1: the extended format.
const FEATURE_EXTENDED: i32 = 1 << 1;
/// The newest version whose calls are known here: 1.3.
const VERSION_MAX: u32 = 0x0001_0003;
/// SMCCC_VERSION, of which PSCI_FEATURES may be asked.
const SMCCC_VERSION: u32 = 0x8000_0000;
/// SYSTEM_RESET2: the architectural warm reset.
const RESET_WARM: u64 = 0;
/// SYSTEM_OFF2: hibernate.
const OFF_HIBERNATE: u64 = 1;

/// What a call answers: a value, or an error code.
type Answer = Result<u64, ErrorCode>;

/// The relay.
#[derive(Clone, Copy, Debug)]
pub struct Relay<'a> {
    slots: &'a [Slot],
    entry: u64,
    format: PowerStateFormat,
}

impl<'a> Relay<'a> {
    /// A relay for the CPUs in `slots`, whose numbers are their places there. `entry` is the physical address at
    /// which EL2 begins on a CPU that was started or lost its context; x0 there is [`Slot::argument`].
    #[must_use]
    pub fn new(slots: &'a [Slot], entry: u64, firmware: &impl Firmware) -> Self {
        // A firmware before 1.0 has no PSCI_FEATURES, and the original format.
        let features = query(firmware, FunctionId::CpuSuspend64);
        let format = if features >= 0 && features & FEATURE_EXTENDED != 0 {
            PowerStateFormat::Extended
        } else {
            PowerStateFormat::Original
        };
        Self { slots, entry, format }
    }

    /// The CPUs.
    #[must_use]
    pub const fn slots(&self) -> &'a [Slot] {
        self.slots
    }

    /// Carries out a PSCI call of the host on CPU number `cpu`. `registers` are x0 to x3 as
    /// [`crate::trap::smc::Verdict::Psci`] holds them, `may_execute` judges a physical address that the host wants
    /// a CPU to begin at. Returns x0; a call that powers the CPU down does not return.
    pub fn call(
        &self,
        cpu: usize,
        registers: [u64; 4],
        firmware: &impl Firmware,
        may_execute: impl Fn(u64) -> bool,
    ) -> u64 {
        let call = Call {
            relay: self,
            firmware,
            may_execute: &may_execute,
        };
        call.dispatch(cpu, registers).unwrap_or_else(u64::from)
    }

    /// CPU number `cpu` has come to EL2's entry, and its own EL2 is ready. `None` if nobody asked for it: it must
    /// not enter the host.
    #[must_use]
    pub fn arrive(&self, cpu: usize) -> Option<Arrival> {
        self.slots.get(cpu)?.arrive()
    }
}

/// How a function is called at the firmware, if it is relayed at all.
const fn relayed(function: FunctionId) -> Option<FunctionId> {
    use FunctionId as F;
    Some(match function {
        F::PsciVersion
        | F::CpuOff
        | F::MigrateInfoType
        | F::SystemOff
        | F::SystemReset
        | F::PsciFeatures
        | F::PsciSetSuspendMode => function,
        F::CpuSuspend32 | F::CpuSuspend64 => F::CpuSuspend64,
        F::CpuOn32 | F::CpuOn64 => F::CpuOn64,
        F::AffinityInfo32 | F::AffinityInfo64 => F::AffinityInfo64,
        F::Migrate32 | F::Migrate64 => F::Migrate64,
        F::MigrateInfoUpCpu32 | F::MigrateInfoUpCpu64 => F::MigrateInfoUpCpu64,
        F::SystemOff232 | F::SystemOff264 => F::SystemOff264,
        F::SystemReset232 | F::SystemReset264 => F::SystemReset264,
        F::SystemSuspend32 | F::SystemSuspend64 => F::SystemSuspend64,
        // MEM_PROTECT and its like name memory; CPU_FREEZE would keep a CPU from EL2 for good; statistics and
        // NODE_HW_STATE nobody has missed; CPU_DEFAULT_SUSPEND does nothing that CPU_SUSPEND does not.
        F::MemProtect
        | F::MemProtectCheckRange32
        | F::MemProtectCheckRange64
        | F::CpuFreeze
        | F::CpuDefaultSuspend32
        | F::CpuDefaultSuspend64
        | F::NodeHwState32
        | F::NodeHwState64
        | F::PsciStatResidency32
        | F::PsciStatResidency64
        | F::PsciStatCount32
        | F::PsciStatCount64 => return None,
    })
}

/// A call that is being carried out.
struct Call<'a, F, E> {
    relay: &'a Relay<'a>,
    firmware: &'a F,
    may_execute: &'a E,
}

impl<F: Firmware, E: Fn(u64) -> bool> Call<'_, F, E> {
    fn dispatch(&self, cpu: usize, registers: [u64; 4]) -> Answer {
        use FunctionId as Id;
        let [x0, a1, a2, a3] = registers;
        // The call that kernels time, and the only one that is asked often; it concerns no CPU.
        if x0 == u64::from(u32::from(Id::PsciVersion)) {
            return self.version();
        }
        let own = self.relay.slots.get(cpu).ok_or(ErrorCode::InternalFailure)?;
        let function = u32::try_from(x0)
            .ok()
            .and_then(|function| Id::try_from(function).ok())
            .and_then(relayed)
            .ok_or(ErrorCode::NotSupported)?;
        match function {
            Id::PsciVersion => self.version(),
            Id::PsciFeatures => self.features(a1),
            Id::CpuOn64 => self.cpu_on(a1, a2, a3),
            Id::CpuOff => self.cpu_off(own),
            Id::CpuSuspend64 => self.cpu_suspend(own, a1, a2, a3),
            Id::SystemSuspend64 => self.system_suspend(own, a1, a2),
            Id::AffinityInfo64 => self.affinity_info(a1, a2),
            Id::Migrate64 => {
                let target = self.target(a1)?;
                self.forward(function, [target.affinity(), 0, 0])
            }
            // The affinity of a CPU, and so not a number of 32 bits.
            Id::MigrateInfoUpCpu64 => Ok(self.firmware.call(function.into(), [0; 3])),
            Id::SystemReset264 => {
                // What a vendor's own reset does to memory and to EL2 is not known here.
                only(a1 == RESET_WARM)?;
                self.forward(function, [a1, a2, 0])
            }
            Id::SystemOff264 => {
                only(a1 == OFF_HIBERNATE && a2 == 0)?;
                self.forward(function, [a1, a2, 0])
            }
            Id::PsciSetSuspendMode => {
                only(a1 <= 1)?;
                self.forward(function, [a1, 0, 0])
            }
            Id::MigrateInfoType | Id::SystemOff | Id::SystemReset => self.forward(function, [0; 3]),
            _ => Err(ErrorCode::NotSupported),
        }
    }

    /// Calls the firmware. Its answer is a number of 32 bits, whatever it left above them.
    fn forward(&self, function: FunctionId, arguments: [u64; 3]) -> Answer {
        let answer = signed(self.firmware.call(function.into(), arguments));
        Ok(i64::from(answer).cast_unsigned())
    }

    fn version(&self) -> Answer {
        let version = self.firmware.call(FunctionId::PsciVersion.into(), [0; 3]) as u32;
        // A negative number is an error: PSCI 0.1 has no PSCI_VERSION.
        if version.cast_signed() < 0 {
            return Err(ErrorCode::NotSupported);
        }
        Ok(u64::from(version.min(VERSION_MAX)))
    }

    fn features(&self, function: u64) -> Answer {
        let function = u32::try_from(function).map_err(|_| ErrorCode::NotSupported)?;
        let asked = if function == SMCCC_VERSION {
            function
        } else {
            FunctionId::try_from(function)
                .ok()
                .and_then(relayed)
                .ok_or(ErrorCode::NotSupported)?
                .into()
        };
        self.forward(FunctionId::PsciFeatures, [u64::from(asked), 0, 0])
    }

    fn cpu_on(&self, target: u64, entry: u64, context: u64) -> Answer {
        let slot = self.target(target)?;
        let start = self.start(entry, context)?;
        let attempt: Attempt = slot.request(start).map_err(|occupied| match occupied {
            Occupied::AlreadyOn => ErrorCode::AlreadyOn,
            Occupied::OnPending => ErrorCode::OnPending,
        })?;
        let arguments = [slot.affinity(), self.relay.entry, slot.argument()];
        let answer = self.forward(FunctionId::CpuOn64, arguments)?;
        if answer != 0 {
            slot.withdraw(&attempt);
        }
        Ok(answer)
    }

    fn cpu_off(&self, own: &Slot) -> Answer {
        own.leave();
        let answer = self.forward(FunctionId::CpuOff, [0; 3]);
        // It came back: the firmware denied it.
        own.stay();
        answer
    }

    fn cpu_suspend(&self, own: &Slot, state: u64, entry: u64, context: u64) -> Answer {
        let powers_down = u32::try_from(state)
            .ok()
            .and_then(|state| self.relay.format.powers_down(state))
            .ok_or(ErrorCode::InvalidParameters)?;
        // Only a state that loses the context has an entry; a kernel passes zero otherwise.
        let start = if powers_down {
            Some(self.start(entry, context)?)
        } else {
            None
        };
        own.suspend(start);
        // EL2's own entry in any case: a firmware that loses what it promised to keep must not start elsewhere.
        let arguments = [state, self.relay.entry, own.argument()];
        let answer = self.forward(FunctionId::CpuSuspend64, arguments);
        // It came back, from a standby, or because an interrupt was already waiting, or with an error.
        own.stay();
        answer
    }

    fn system_suspend(&self, own: &Slot, entry: u64, context: u64) -> Answer {
        own.suspend(Some(self.start(entry, context)?));
        let arguments = [self.relay.entry, own.argument(), 0];
        let answer = self.forward(FunctionId::SystemSuspend64, arguments);
        own.stay();
        answer
    }

    fn affinity_info(&self, target: u64, level: u64) -> Answer {
        let affinity = affinity(target)?;
        let level = u32::try_from(level)
            .ok()
            .filter(|level| *level <= 3)
            .ok_or(ErrorCode::InvalidParameters)?;
        let above = affinity_above(level);
        let mut named = self
            .relay
            .slots
            .iter()
            .filter(|slot| slot.affinity() & above == affinity & above);
        let first = named.next().ok_or(ErrorCode::InvalidParameters)?;
        let answer = self.forward(FunctionId::AffinityInfo64, [affinity, u64::from(level), 0])?;
        // To the firmware a CPU is on as soon as it runs at EL2; to the host, when it enters the host.
        let on = u64::from(u32::from(AffinityInfo::On));
        if level == 0 && answer == on && first.power() == Power::Pending {
            return Ok(u64::from(u32::from(AffinityInfo::OnPending)));
        }
        Ok(answer)
    }

    /// The CPU with an affinity that the host names.
    fn target(&self, affinity_named: u64) -> Result<&Slot, ErrorCode> {
        let affinity = affinity(affinity_named)?;
        self.relay
            .slots
            .iter()
            .find(|slot| slot.affinity() == affinity)
            .ok_or(ErrorCode::InvalidParameters)
    }

    /// Where the host wants a CPU to begin, if it may: an A64 instruction at an address that it may execute.
    fn start(&self, entry: u64, context: u64) -> Result<Start, ErrorCode> {
        if entry.is_multiple_of(4) && (self.may_execute)(entry) {
            Ok(Start { entry, context })
        } else {
            Err(ErrorCode::InvalidAddress)
        }
    }
}

/// Refuses an argument that is none of those known here.
fn only(known: bool) -> Result<(), ErrorCode> {
    if known {
        Ok(())
    } else {
        Err(ErrorCode::InvalidParameters)
    }
}

/// The affinity in an argument. The bits that are not part of it must be zero (DEN0022, 5.1.4).
fn affinity(argument: u64) -> Result<u64, ErrorCode> {
    Mpidr::try_from(argument)
        .map(u64::from)
        .map_err(|_| ErrorCode::InvalidParameters)
}

/// The fields of an affinity at `level` (0 to 3) and above.
const fn affinity_above(level: u32) -> u64 {
    match level {
        0 => super::slot::AFFINITY,
        1 => 0xff_00ff_ff00,
        2 => 0xff_00ff_0000,
        _ => 0xff_0000_0000,
    }
}

/// What PSCI_FEATURES says of `function`: negative if the firmware does not have it.
fn query(firmware: &impl Firmware, function: FunctionId) -> i32 {
    let arguments = [u64::from(u32::from(function)), 0, 0];
    signed(firmware.call(FunctionId::PsciFeatures.into(), arguments))
}

const fn signed(answer: u64) -> i32 {
    (answer as u32).cast_signed()
}

#[cfg(test)]
mod races;
#[cfg(test)]
mod tests;
