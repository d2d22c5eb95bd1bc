//! The power of a VM's vCPUs: PSCI 1.1, answered by EL2 (Arm DEN0022).
//!
//! Whether a vCPU is on is known under the VM's lock, so that two vCPUs which want a third agree on who was first, and
//! the host has no say in where one begins.

use super::exit::Exit;
use super::run::{Flow, Running};
use super::state::{Life, Vm};
use super::vcpu::{Power, Start, VcpuSlot};
use crate::hardware::Hardware;
use crate::psci::relay::PowerStateFormat;
use crate::psci::{ErrorCode, FunctionId};
use crate::trap::guest_id::{mpidr, vcpu_of};
use arm_psci::{AffinityInfo, MigrateInfoType, Mpidr};
use core::ops::ControlFlow;
use hyp_abi::guest_call::GuestCallId;
use hyp_abi::run_page::{ExitReason, WaitKind};

/// PSCI_VERSION: 1.1.
const VERSION: u64 = 0x1_0001;
/// The highest affinity level that AFFINITY_INFO is asked about.
const MAX_LEVEL: u64 = 3;

/// Whether a function is answered.
const fn is_answered(function: FunctionId) -> bool {
    use FunctionId as F;
    matches!(
        function,
        F::PsciVersion
            | F::PsciFeatures
            | F::CpuOn32
            | F::CpuOn64
            | F::CpuOff
            | F::CpuSuspend32
            | F::CpuSuspend64
            | F::AffinityInfo32
            | F::AffinityInfo64
            | F::MigrateInfoType
            | F::SystemOff
            | F::SystemReset
    )
}

/// The affinity of a vCPU, as PSCI names it: MPIDR_EL1 without bit 31.
const fn affinity(index: u8) -> u64 {
    mpidr(index) & !(1 << 31)
}

/// Whether a function has the 64-bit form: bit 30 of its identifier (DEN0028, 2.5).
const fn is_wide(function: u32) -> bool {
    function & 1 << 30 != 0
}

impl<H: Hardware> Vm<H> {
    /// The indices of the vCPUs that were created.
    fn vcpu_indices(&self) -> impl Iterator<Item = u8> + '_ {
        self.vcpus
            .iter()
            .zip(0..)
            .filter(|(slot, _)| !matches!(slot, VcpuSlot::Absent))
            .map(|(_, index)| index)
    }

    /// What PSCI says of a vCPU, if it was created.
    fn affinity_info(&self, index: u8) -> Option<AffinityInfo> {
        Some(match self.vcpus.get(usize::from(index))? {
            VcpuSlot::Absent => return None,
            VcpuSlot::Running | VcpuSlot::Resting { power: Power::On, .. } => AffinityInfo::On,
            VcpuSlot::Resting {
                power: Power::Pending,
                ..
            } => AffinityInfo::OnPending,
            VcpuSlot::Resting {
                power: Power::Off, ..
            } => AffinityInfo::Off,
        })
    }

    /// Turns a vCPU on.
    fn turn_on(&mut self, index: u8, start: Start) -> Result<(), ErrorCode> {
        match self.vcpus.get_mut(usize::from(index)) {
            None | Some(VcpuSlot::Absent) => Err(ErrorCode::InvalidParameters),
            Some(VcpuSlot::Running) => Err(ErrorCode::AlreadyOn),
            Some(VcpuSlot::Resting { home, power }) => match power {
                Power::On => Err(ErrorCode::AlreadyOn),
                Power::Pending => Err(ErrorCode::OnPending),
                Power::Off => {
                    home.start = Some(start);
                    *power = Power::Pending;
                    Ok(())
                }
            },
        }
    }
}

impl<H: Hardware> Running<'_, '_, H> {
    /// Answers a PSCI call with x1 to x3.
    pub(super) fn psci(&mut self, function: u32, arguments: [u64; 3]) -> Flow {
        let arguments = if is_wide(function) {
            arguments
        } else {
            arguments.map(|argument| argument & 0xffff_ffff)
        };
        match FunctionId::try_from(function) {
            Ok(function) if is_answered(function) => self.power_call(function, arguments),
            _ => self.unsupported(),
        }
    }

    fn power_call(&mut self, function: FunctionId, [a1, a2, a3]: [u64; 3]) -> Flow {
        let answer = match function {
            FunctionId::PsciVersion => Ok(VERSION),
            FunctionId::PsciFeatures => features(a1),
            FunctionId::CpuOn32 | FunctionId::CpuOn64 => match self.cpu_on(a1, a2, a3) {
                Ok(index) => {
                    self.set_results([0; 4]);
                    return ControlFlow::Break(Exit::new(ExitReason::CpuOn, index.into(), 0, 0));
                }
                Err(error) => Err(error),
            },
            FunctionId::CpuSuspend32 | FunctionId::CpuSuspend64 => match self.may_suspend(a1, a2) {
                Ok(()) => {
                    // A power down is entered as the standby that it may always be (DEN0022, 5.4): when the vCPU goes
                    // on, nothing was lost.
                    self.set_results([0; 4]);
                    let kind = WaitKind::Suspend.into();
                    return ControlFlow::Break(Exit::new(ExitReason::Wait, kind, 0, 0));
                }
                Err(error) => Err(error),
            },
            FunctionId::AffinityInfo32 | FunctionId::AffinityInfo64 => self.affinity_info(a1, a2),
            FunctionId::MigrateInfoType => Ok(u32::from(MigrateInfoType::MigrationNotRequired).into()),
            // It is off from its exit on; until then it has not left.
            FunctionId::CpuOff => return ControlFlow::Break(Exit::plain(ExitReason::CpuOff)),
            FunctionId::SystemOff => return self.end(ExitReason::SystemOff),
            FunctionId::SystemReset => return self.end(ExitReason::SystemReset),
            _ => Err(ErrorCode::NotSupported),
        };
        match answer {
            Ok(value) => self.succeed([value, 0, 0, 0]),
            Err(error) => self.fail(i32::from(error).into()),
        }
    }

    /// No vCPU of the VM begins a run any more.
    fn end(&self, reason: ExitReason) -> Flow {
        if let Life::Launched { off, .. } = &mut self.lock_vm().life {
            *off = true;
        }
        ControlFlow::Break(Exit::plain(reason))
    }

    fn cpu_on(&self, target: u64, entry: u64, argument: u64) -> Result<u8, ErrorCode> {
        let target = named_affinity(target)?;
        let index = vcpu_of(target).ok_or(ErrorCode::InvalidParameters)?;
        let mut vm = self.lock_vm();
        if vm.affinity_info(index).is_none() {
            return Err(ErrorCode::InvalidParameters);
        }
        self.check_entry(entry)?;
        vm.turn_on(index, Start { entry, argument })?;
        Ok(index)
    }

    fn may_suspend(&self, state: u64, entry: u64) -> Result<(), ErrorCode> {
        let powers_down = u32::try_from(state)
            .ok()
            .and_then(|state| PowerStateFormat::Original.powers_down(state))
            .ok_or(ErrorCode::InvalidParameters)?;
        // Only a state that may lose the context has an entry.
        if powers_down {
            self.check_entry(entry)?;
        }
        Ok(())
    }

    /// Whether a vCPU can begin there: an A64 instruction at an IPA of the VM.
    const fn check_entry(&self, entry: u64) -> Result<(), ErrorCode> {
        if entry & 3 == 0 && entry >> self.regime.ipa_bits == 0 {
            Ok(())
        } else {
            Err(ErrorCode::InvalidAddress)
        }
    }

    fn affinity_info(&self, target: u64, level: u64) -> Result<u64, ErrorCode> {
        let target = named_affinity(target)?;
        if level > MAX_LEVEL {
            return Err(ErrorCode::InvalidParameters);
        }
        // Aff0 to Aff2 are below bit 24, Aff3 is at bit 32; there is nothing between them that could differ.
        let shift = [0, 8, 16, 32].get(level as usize).copied().unwrap_or(0);
        let vm = self.lock_vm();
        let mut group: Option<AffinityInfo> = None;
        for index in vm.vcpu_indices() {
            if affinity(index) >> shift != target >> shift {
                continue;
            }
            // A group is on as soon as one of it is (DEN0022, 5.1.5).
            group = match (group, vm.affinity_info(index)) {
                (Some(AffinityInfo::On), _) | (_, Some(AffinityInfo::On)) => Some(AffinityInfo::On),
                (Some(AffinityInfo::OnPending), _) => Some(AffinityInfo::OnPending),
                (old, new) => new.or(old),
            };
        }
        group
            .map(|info| u32::from(info).into())
            .ok_or(ErrorCode::InvalidParameters)
    }
}

/// PSCI_FEATURES: zero, no flags, for what there is. CPU_SUSPEND takes states of the original format.
fn features(function: u64) -> Result<u64, ErrorCode> {
    let function = u32::try_from(function).map_err(|_| ErrorCode::NotSupported)?;
    let is_there = function == u32::from(GuestCallId::SmcccVersion)
        || FunctionId::try_from(function).is_ok_and(is_answered);
    if is_there {
        Ok(0)
    } else {
        Err(ErrorCode::NotSupported)
    }
}

/// The affinity in an argument. The bits that are not part of it must be zero (DEN0022, 5.1.4).
fn named_affinity(argument: u64) -> Result<u64, ErrorCode> {
    Mpidr::try_from(argument)
        .map(u64::from)
        .map_err(|_| ErrorCode::InvalidParameters)
}
