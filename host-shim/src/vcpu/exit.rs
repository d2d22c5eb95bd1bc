//! Why a vCPU stopped.

use crate::{CallError, Error};
use hyp_abi::GuestRange;
use hyp_abi::run_page::{AccessFlags, EXIT_VALUE_COUNT, ExitReason, SgiRegister, WaitKind};

/// Why a vCPU stopped running, with everything that the host learns.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Exit {
    /// An interrupt waits for the host.
    Interrupt,
    /// The guest waits for an interrupt or an event.
    Wait(WaitKind),
    /// The guest has no page at a place in its memory.
    MemoryFault {
        /// The guest frame number.
        gfn: u64,
        /// How it reached for the page.
        access: AccessFlags,
    },
    /// A load from a device. Answered by [`super::Entry::loaded`].
    MmioRead {
        /// The address.
        ipa: u64,
        /// Bytes: 1, 2, 4 or 8.
        bytes: u64,
    },
    /// A store to a device. Answered by [`super::Entry::stored`].
    MmioWrite {
        /// The address.
        ipa: u64,
        /// Bytes: 1, 2, 4 or 8.
        bytes: u64,
        /// What is stored.
        value: u64,
    },
    /// EL2 needs pages for what the guest wants.
    MemoryNeeded {
        /// How many.
        pages: u64,
    },
    /// The guest wants a page for itself that the host has pinned. The host unpins and answers
    /// [`super::Entry::retry`], or [`super::Entry::refuse`].
    Pinned {
        /// The guest frame number.
        gfn: u64,
    },
    /// The guest calls a service of the host's. Answered by [`super::Entry::served`].
    HostService {
        /// The function identifier.
        function: u64,
        /// x1 to x6.
        arguments: [u64; 6],
    },
    /// The guest sends software-generated interrupts.
    SendInterrupt {
        /// What it wrote.
        value: u64,
        /// To which register.
        register: SgiRegister,
    },
    /// The guest turned another vCPU on.
    CpuOn {
        /// Its index.
        index: u64,
    },
    /// The vCPU turned itself off.
    CpuOff,
    /// The guest turned itself off.
    SystemOff,
    /// The guest wants a reset.
    SystemReset,
    /// The guest touched a page that was taken by force.
    Lost {
        /// The guest frame number.
        gfn: u64,
    },
    /// The guest gave pages up.
    Relinquished(GuestRange),
    /// The guest did something that EL2 does not carry out.
    Unhandled {
        /// The exception class.
        class: u64,
    },
}

impl Exit {
    pub(super) fn decode(reason: ExitReason, values: [u64; EXIT_VALUE_COUNT]) -> Result<Self, Error> {
        let [v0, v1, v2, arguments @ ..] = values;
        Ok(match reason {
            ExitReason::Interrupt => Self::Interrupt,
            ExitReason::Wait => {
                let kind = WaitKind::try_from(v0).map_err(|_| CallError::BadResult(v0))?;
                Self::Wait(kind)
            }
            ExitReason::MemoryFault => Self::MemoryFault {
                gfn: v0,
                access: AccessFlags::from_bits_retain(v1),
            },
            ExitReason::MmioRead => Self::MmioRead { ipa: v0, bytes: v1 },
            ExitReason::MmioWrite => Self::MmioWrite {
                ipa: v0,
                bytes: v1,
                value: v2,
            },
            ExitReason::MemoryNeeded => Self::MemoryNeeded { pages: v0 },
            ExitReason::Pinned => Self::Pinned { gfn: v0 },
            ExitReason::HostService => {
                let [a3, a4, a5, a6] = arguments;
                Self::HostService {
                    function: v0,
                    arguments: [v1, v2, a3, a4, a5, a6],
                }
            }
            ExitReason::SendInterrupt => Self::SendInterrupt {
                value: v0,
                register: SgiRegister::try_from(v1).map_err(|_| CallError::BadResult(v1))?,
            },
            ExitReason::CpuOn => Self::CpuOn { index: v0 },
            ExitReason::CpuOff => Self::CpuOff,
            ExitReason::SystemOff => Self::SystemOff,
            ExitReason::SystemReset => Self::SystemReset,
            ExitReason::Lost => Self::Lost { gfn: v0 },
            ExitReason::Relinquished => Self::Relinquished(GuestRange::new(v0, v1)),
            ExitReason::Unhandled => Self::Unhandled { class: v0 },
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_value_of_an_exit_is_where_it_belongs() {
        let values = [10, 11, 12, 13, 14, 15, 16];
        let decode = |reason| Exit::decode(reason, values).unwrap();
        assert_eq!(
            decode(ExitReason::HostService),
            Exit::HostService {
                function: 10,
                arguments: [11, 12, 13, 14, 15, 16]
            }
        );
        assert_eq!(
            decode(ExitReason::MmioWrite),
            Exit::MmioWrite {
                ipa: 10,
                bytes: 11,
                value: 12
            }
        );
        assert_eq!(
            decode(ExitReason::Relinquished),
            Exit::Relinquished(GuestRange::new(10, 11))
        );
        assert_eq!(
            Exit::decode(ExitReason::Wait, values),
            Err(Error::Call(CallError::BadResult(10)))
        );
        assert_eq!(
            Exit::decode(ExitReason::Wait, [2, 0, 0, 0, 0, 0, 0]),
            Ok(Exit::Wait(WaitKind::Suspend))
        );
    }
}
