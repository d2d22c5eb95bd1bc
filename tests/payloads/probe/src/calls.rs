//! The host's calls by name.

use crate::number::{parse, parse_named};
use crate::outcome::{Answer, Outcome};
use anyhow::bail;
use clap::Subcommand;
use host_shim::{CallError, Hypercall, Hypervisor, RangeError};
use hyp_abi::host_call::Statistic;
use hyp_abi::{Counter, FrameRange, HostCall, Status};

/// A run of frames on the command line.
#[derive(Clone, Copy, Debug, clap::Args)]
pub(crate) struct Range {
    /// Physical address of the first frame
    #[arg(value_parser = parse)]
    base: u64,
    /// How many 4 KiB frames
    #[arg(value_parser = parse)]
    frames: u64,
}

impl From<Range> for FrameRange {
    fn from(range: Range) -> Self {
        Self::new(range.base, range.frames)
    }
}

/// The host's calls.
#[derive(Clone, Copy, Debug, Subcommand)]
pub(crate) enum CallCommand {
    /// Version, features, number of CPUs
    Version,
    /// Donate frames to EL2's pool
    PoolTopUp(Range),
    /// Take back frames that EL2's pool does not use, in one call
    PoolDrain {
        /// The most to take back
        #[arg(value_parser = parse)]
        frames: u64,
    },
    /// Share frames with EL2
    Share(Range),
    /// End the sharing
    Unshare(Range),
    /// Give frames to EL2
    Donate(Range),
    /// Take donated frames back
    Reclaim(Range),
    /// Rebuild the largest blocks that ownership allows
    Collapse(Range),
    /// State of the frame at a physical address
    FrameState {
        /// The address
        #[arg(value_parser = parse)]
        frame: u64,
    },
    /// One statistic
    Statistics {
        /// Its name or number
        #[arg(value_parser = statistic)]
        statistic: u64,
    },
    /// One counter of one CPU
    Counter {
        /// Which CPU
        #[arg(id = "of", value_name = "CPU", value_parser = parse)]
        cpu: u64,
        /// Its name or number
        #[arg(value_parser = counter)]
        counter: u64,
    },
    /// Compare the ownership map of frames with the tables
    Audit(Range),
    /// Have EL2 write the trace records of a CPU to a shared frame
    TraceAttach {
        /// Which CPU
        #[arg(id = "of", value_name = "CPU", value_parser = parse)]
        cpu: u64,
        /// Physical address of the frame
        #[arg(value_parser = parse)]
        frame: u64,
    },
    /// End that
    TraceDetach {
        /// Which CPU
        #[arg(id = "of", value_name = "CPU", value_parser = parse)]
        cpu: u64,
    },
    /// What guests can be on this machine
    GuestSupport,
    /// What a guest reads from a feature ID register
    GuestRegister {
        /// Its number: op0 in bits 15:14, op1 13:11, CRn 10:7, CRm 6:3, op2 2:0
        #[arg(value_parser = parse)]
        register: u64,
        /// How many bits the guest's addresses have
        #[arg(value_parser = parse)]
        ipa_bits: u64,
    },
}

impl CallCommand {
    /// The word that names the call on the command line.
    pub(crate) const fn name(self) -> &'static str {
        match self {
            Self::Version => "version",
            Self::PoolTopUp(_) => "pool-top-up",
            Self::PoolDrain { .. } => "pool-drain",
            Self::Share(_) => "share",
            Self::Unshare(_) => "unshare",
            Self::Donate(_) => "donate",
            Self::Reclaim(_) => "reclaim",
            Self::Collapse(_) => "collapse",
            Self::FrameState { .. } => "frame-state",
            Self::Statistics { .. } => "statistics",
            Self::Counter { .. } => "counter",
            Self::Audit(_) => "audit",
            Self::TraceAttach { .. } => "trace-attach",
            Self::TraceDetach { .. } => "trace-detach",
            Self::GuestSupport => "guest-support",
            Self::GuestRegister { .. } => "guest-register",
        }
    }
}

/// All statistics, in the order of their numbers.
pub(crate) fn all_statistics() -> impl Iterator<Item = Statistic> {
    (0..).map_while(|number| Statistic::try_from(number).ok())
}

fn statistic(text: &str) -> Result<u64, String> {
    parse_named(all_statistics(), text)
}

fn counter(text: &str) -> Result<u64, String> {
    parse_named(Counter::all(), text)
}

impl From<CallCommand> for HostCall {
    fn from(command: CallCommand) -> Self {
        match command {
            CallCommand::Version => Self::Version,
            CallCommand::PoolTopUp(range) => Self::PoolTopUp(range.into()),
            CallCommand::PoolDrain { frames } => Self::PoolDrain { frames },
            CallCommand::Share(range) => Self::ShareHyp(range.into()),
            CallCommand::Unshare(range) => Self::UnshareHyp(range.into()),
            CallCommand::Donate(range) => Self::DonateHyp(range.into()),
            CallCommand::Reclaim(range) => Self::ReclaimHyp(range.into()),
            CallCommand::Collapse(range) => Self::Collapse(range.into()),
            CallCommand::FrameState { frame } => Self::FrameState { frame },
            CallCommand::Statistics { statistic } => Self::Statistics { statistic },
            CallCommand::Counter { cpu, counter } => Self::Counter { cpu, counter },
            CallCommand::Audit(range) => Self::Audit(range.into()),
            CallCommand::TraceAttach { cpu, frame } => Self::TraceAttach { cpu, frame },
            CallCommand::TraceDetach { cpu } => Self::TraceDetach { cpu },
            CallCommand::GuestSupport => Self::GuestSupport,
            CallCommand::GuestRegister { register, ipa_bits } => Self::GuestRegister { register, ipa_bits },
        }
    }
}

/// Issues a call, a ranged one until it is done or refused. Answers the results as ` key=value` pairs, and what
/// came of it.
///
/// # Errors
/// If the answer makes no sense: results that the call cannot have, no progress, or an audit that found a
/// disagreement.
pub(crate) fn carry_out<H: Hypercall>(
    hypervisor: &Hypervisor<H>,
    call: HostCall,
) -> anyhow::Result<(String, Outcome)> {
    let result = match call {
        HostCall::Version => hypervisor.version().map(|info| {
            let features: Vec<_> = info.features.iter_names().map(|(name, _)| name).collect();
            let features = if features.is_empty() {
                "none".to_owned()
            } else {
                features.join("|")
            };
            format!(
                " version={}.{} features={features} cpus={}",
                info.version.major, info.version.minor, info.cpus
            )
        }),
        HostCall::PoolTopUp(range) => return ranged(range, hypervisor.pool_top_up(range)),
        HostCall::ShareHyp(range) => return ranged(range, hypervisor.share(range)),
        HostCall::UnshareHyp(range) => return ranged(range, hypervisor.unshare(range)),
        HostCall::DonateHyp(range) => return ranged(range, hypervisor.donate(range)),
        HostCall::ReclaimHyp(range) => return ranged(range, hypervisor.reclaim(range)),
        HostCall::Collapse(range) => return ranged(range, hypervisor.collapse(range)),
        HostCall::Audit(range) => {
            let result = hypervisor.audit(range);
            if let Ok(audit) = result
                && audit.disagreements != 0
            {
                bail!(
                    "{} of {} frames: ownership and tables disagree",
                    audit.disagreements,
                    audit.frames
                );
            }
            return ranged(range, result.map(drop));
        }
        HostCall::PoolDrain { frames } => hypervisor.pool_drain(frames).map(|drained| {
            let range = drained.unwrap_or(FrameRange::new(0, 0));
            format!(" base={:#x} frames={}", range.base, range.frames)
        }),
        HostCall::FrameState { frame } => hypervisor.frame_state(frame).map(|info| {
            format!(
                " state={:?} count={} extent={:#x}",
                info.state, info.count, info.extent
            )
        }),
        // By number, so that a number without a meaning reaches EL2 too.
        HostCall::Statistics { .. } | HostCall::Counter { .. } | HostCall::Vm(_) => {
            hypervisor.call(call).map(|[value, ..]| format!(" value={value}"))
        }
        HostCall::TraceAttach { cpu, frame } => hypervisor.trace_attach(cpu, frame).map(|()| String::new()),
        HostCall::TraceDetach { cpu } => hypervisor.trace_detach(cpu).map(|()| String::new()),
        HostCall::GuestSupport => hypervisor.guest_support().map(|support| {
            format!(
                " interface={:#x} ipa-bits={}..={} vms={} vcpus={}",
                support.interface, support.min_ipa_bits, support.max_ipa_bits, support.vms, support.vcpus
            )
        }),
        HostCall::GuestRegister { register, ipa_bits } => hypervisor
            .guest_register(register, ipa_bits)
            .map(|value| format!(" value={value:#x}")),
    };
    match result {
        Ok(details) => Ok((details, Outcome::Returned(Answer::Known(Status::Success)))),
        Err(error) => refused(String::new(), error),
    }
}

fn ranged(range: FrameRange, result: Result<(), RangeError>) -> anyhow::Result<(String, Outcome)> {
    match result {
        Ok(()) => Ok((
            format!(" done={}", range.frames),
            Outcome::Returned(Answer::Known(Status::Success)),
        )),
        Err(RangeError { done, error }) => refused(format!(" done={done}"), error),
    }
}

fn refused(mut details: String, error: CallError) -> anyhow::Result<(String, Outcome)> {
    if let Some(pages) = error.pages_needed() {
        details.push_str(&format!(" needed={pages}"));
    }
    match error {
        CallError::Refused { status, .. } => Ok((details, Outcome::Returned(Answer::Known(status)))),
        CallError::UnknownStatus(x0) => Ok((details, Outcome::Returned(Answer::Unknown(x0)))),
        CallError::BadResult(_) | CallError::NoProgress => Err(error.into()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// An EL2 that does at most 5 frames a call, and refuses from frame 0x10000 on.
    struct Slow;

    impl Hypercall for Slow {
        fn call(&self, registers: [u64; 7]) -> [u64; 4] {
            match HostCall::decode(registers) {
                Ok(HostCall::ShareHyp(range)) if range.base < 0x1_0000 => [0, range.frames.min(5), 0, 0],
                Ok(HostCall::ShareHyp(_)) => [Status::NotOwner.to_register(), 0, 0, 0],
                Ok(HostCall::DonateHyp(_)) => [Status::NoMemory.to_register(), 3, 0, 0],
                Ok(HostCall::FrameState { .. }) => [0, 2, 4, 4096],
                Ok(HostCall::Version) => [0, 0x1_0002, 1, 8],
                Ok(HostCall::Audit(range)) => [0, range.frames, 1, 0],
                Ok(HostCall::Counter { .. }) => [0, 77, 0, 0],
                Ok(HostCall::GuestSupport) => [0, 0x9000_0003, 0x2c20, 0x40_0000_00ff],
                Ok(HostCall::GuestRegister { .. }) => [0, 0x11, 0, 0],
                _ => [0x1234, 0, 0, 0],
            }
        }
    }

    fn told(call: HostCall) -> (String, String) {
        let (details, outcome) = carry_out(&Hypervisor::new(Slow), call).unwrap();
        (details, outcome.to_string())
    }

    fn success(details: &str) -> (String, String) {
        (details.to_owned(), "outcome=returned status=Success".to_owned())
    }

    #[test]
    fn results_are_told() {
        assert_eq!(
            told(HostCall::ShareHyp(FrameRange::new(0x1000, 12))),
            success(" done=12")
        );
        assert_eq!(
            told(HostCall::Version),
            success(" version=1.2 features=TRACE cpus=8")
        );
        let state = HostCall::FrameState { frame: 0 };
        assert_eq!(
            told(state),
            success(" state=HostSharedGuest count=4 extent=0x1000")
        );
        assert_eq!(
            told(HostCall::Counter { cpu: 0, counter: 99 }),
            success(" value=77")
        );
        assert_eq!(
            told(HostCall::GuestSupport),
            success(" interface=0x90000003 ipa-bits=32..=44 vms=255 vcpus=64")
        );
        let (register, ipa_bits) = (0xc020, 40);
        assert_eq!(
            told(HostCall::GuestRegister { register, ipa_bits }),
            success(" value=0x11")
        );
    }

    #[test]
    fn refusals_are_told_with_the_progress() {
        let (details, outcome) = told(HostCall::ShareHyp(FrameRange::new(0xb000, 12)));
        assert_eq!(
            (&*details, &*outcome),
            (" done=5", "outcome=returned status=NotOwner")
        );
        let (details, outcome) = told(HostCall::DonateHyp(FrameRange::new(0, 1)));
        assert_eq!(
            (&*details, &*outcome),
            (" done=0 needed=3", "outcome=returned status=NoMemory")
        );
        let (_, outcome) = told(HostCall::TraceDetach { cpu: 0 });
        assert_eq!(outcome, "outcome=returned status=0x1234");
    }

    #[test]
    fn a_disagreement_is_an_error() {
        assert!(carry_out(&Hypervisor::new(Slow), HostCall::Audit(FrameRange::new(0, 1))).is_err());
    }
}
