//! Why a vCPU stopped, with the values of its record given names.

use hyp_abi::run_page::{AccessFlags, EXIT_VALUE_COUNT, ExitReason, WaitKind};

/// Why a vCPU stopped.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Exit {
    /// An interrupt waits for the host.
    Interrupt,
    /// The guest waits.
    Wait(WaitKind),
    /// The guest has no page there.
    MemoryFault {
        /// Where.
        gfn: u64,
        /// How it came there.
        access: AccessFlags,
    },
    /// A load from a device.
    MmioRead {
        /// Where.
        ipa: u64,
        /// How much.
        bytes: u64,
    },
    /// A store to one.
    MmioWrite {
        /// Where.
        ipa: u64,
        /// How much.
        bytes: u64,
        /// What.
        value: u64,
    },
    /// EL2 needs so many pages for the VM.
    MemoryNeeded(u64),
    /// The guest wants a page back that is pinned.
    Pinned(u64),
    /// The guest calls a service.
    Service {
        /// Which.
        function: u64,
        /// x1 to x6.
        arguments: [u64; 6],
    },
    /// The guest sends an interrupt.
    SendInterrupt {
        /// What it wrote.
        value: u64,
        /// Where to: 0 for ICC_SGI1R_EL1.
        register: u64,
    },
    /// The guest turned a vCPU on.
    CpuOn(u64),
    /// The vCPU turned itself off.
    CpuOff,
    /// The guest turned itself off.
    SystemOff,
    /// The guest wants a reset.
    SystemReset,
    /// The guest met a page that was taken from it.
    Lost(u64),
    /// The guest gave pages up.
    Relinquished {
        /// The first.
        gfn: u64,
        /// How many.
        frames: u64,
    },
    /// EL2 does not carry out what the guest did.
    Unhandled(u64),
}

impl Exit {
    /// The exit that a record says; `None` if it says none, or more than it may: values without a name are zero.
    pub(crate) fn decode(reason: u64, values: [u64; EXIT_VALUE_COUNT]) -> Option<Self> {
        let [a, b, c, d, e, f, g] = values;
        let (exit, used) = match ExitReason::try_from(reason).ok()? {
            ExitReason::Interrupt => (Self::Interrupt, 0),
            ExitReason::Wait => (Self::Wait(WaitKind::try_from(a).ok()?), 1),
            ExitReason::MemoryFault => (
                Self::MemoryFault {
                    gfn: a,
                    access: AccessFlags::from_bits(b)?,
                },
                2,
            ),
            ExitReason::MmioRead => (Self::MmioRead { ipa: a, bytes: b }, 2),
            ExitReason::MmioWrite => (
                Self::MmioWrite {
                    ipa: a,
                    bytes: b,
                    value: c,
                },
                3,
            ),
            ExitReason::MemoryNeeded => (Self::MemoryNeeded(a), 1),
            ExitReason::Pinned => (Self::Pinned(a), 1),
            ExitReason::HostService => (
                Self::Service {
                    function: a,
                    arguments: [b, c, d, e, f, g],
                },
                7,
            ),
            ExitReason::SendInterrupt => (
                Self::SendInterrupt {
                    value: a,
                    register: b,
                },
                2,
            ),
            ExitReason::CpuOn => (Self::CpuOn(a), 1),
            ExitReason::CpuOff => (Self::CpuOff, 0),
            ExitReason::SystemOff => (Self::SystemOff, 0),
            ExitReason::SystemReset => (Self::SystemReset, 0),
            ExitReason::Lost => (Self::Lost(a), 1),
            ExitReason::Relinquished => (Self::Relinquished { gfn: a, frames: b }, 2),
            ExitReason::Unhandled => (Self::Unhandled(a), 1),
        };
        values[used..].iter().all(|value| *value == 0).then_some(exit)
    }
}
