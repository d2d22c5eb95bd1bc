//! A vCPU at rest: its registers in a page of their own, and whether it is powered.

use super::context::VcpuContext;
use super::exit::Exit;
use crate::addr::Frame;
use crate::hardware::Hardware;
use crate::trap::syndrome::FaultRegisters;
use hyp_abi::run_page::ExitReason;

/// A vCPU. It lives in a page of EL2's, and whoever has it has it alone.
#[derive(Clone, Debug)]
pub struct Vcpu {
    /// Its registers.
    pub context: VcpuContext,
    /// Its run page, which is pinned.
    pub run_page: Frame,
    /// Where it begins, if it was turned on and has not run since.
    pub start: Option<Start>,
    /// What its last exit waits for: the answer in the next entry record is judged by it.
    pub pending: Pending,
    /// The last exit, if its record could not be written: the next run brings it, and enters nothing.
    pub undelivered: Option<Exit>,
}

/// Where a vCPU begins that was turned on.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Start {
    /// Its first instruction, an IPA: a vCPU begins with its MMU off.
    pub entry: u64,
    /// Its x0.
    pub argument: u64,
}

/// What a vCPU's last exit waits for. The vCPU's PC is that of the instruction which is to be done again, completed or
/// refused.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Pending {
    /// Nothing.
    #[default]
    Nothing,
    /// The exit of this reason, with the registers that it is completed by.
    Exit {
        /// Why it stopped.
        reason: ExitReason,
        /// What brought EL2 back then.
        trap: FaultRegisters,
        /// The first value of the exit.
        value: u64,
    },
}

/// Whether a vCPU that no CPU has is powered (PSCI).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Power {
    /// Off.
    Off,
    /// Turned on, and not run since: it has a [`Vcpu::start`].
    Pending,
    /// On.
    On,
}

/// The place of a vCPU in its VM.
#[derive(Debug)]
pub enum VcpuSlot<H: Hardware> {
    /// It was not created.
    Absent,
    /// It is here.
    Resting {
        /// The vCPU.
        home: H::Home<Vcpu>,
        /// Whether it is powered.
        power: Power,
    },
    /// A CPU has it. It is on, until its exit says otherwise.
    Running,
}
