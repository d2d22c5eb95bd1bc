//! A vCPU at rest: its registers in a page of their own, and whether it is powered.

use super::context::VcpuContext;
use crate::addr::Frame;
use crate::hardware::Hardware;
use hyp_abi::run_page::ExitReason;

/// A vCPU. It lives in a page of EL2's, and whoever has it has it alone.
#[derive(Clone, Debug)]
pub struct Vcpu {
    /// Its registers.
    pub context: VcpuContext,
    /// Its run page, which is pinned.
    pub run_page: Frame,
    /// What its last exit waits for: the answer in the next entry record is judged by it.
    pub pending: Pending,
}

/// What a vCPU's last exit waits for.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Pending {
    /// Nothing.
    #[default]
    Nothing,
    /// The exit of this reason, with the syndrome that it is completed by.
    Exit {
        /// Why it stopped.
        reason: ExitReason,
        /// ESR_EL2 then.
        esr: u64,
        /// The first value of the exit.
        value: u64,
    },
}

/// Whether a vCPU is powered (PSCI).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Power {
    /// Off.
    Off,
    /// On, and where it has to begin if it has not run since it was turned on.
    On {
        /// First instruction and x0.
        start: Option<(u64, u64)>,
    },
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
    /// A CPU has it.
    Running {
        /// Whether it is powered. A vCPU that is turned off by a call of its own is off from its exit on.
        power: Power,
    },
}
