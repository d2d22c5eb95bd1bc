//! What the host kernel may ask, and how it sits in registers.
//!
//! A call is an `HVC #0` with a function identifier in x0 and arguments in x1 to x6, after the SMC Calling
//! Convention (Arm DEN0028) for fast 64-bit calls of a vendor-specific hypervisor. The answer is a [`Status`] in
//! x0 and up to three results in x1 to x3; x4 to x17 are preserved.

use crate::{FrameRange, Status, VmCall, VmCallId};
use num_enum::{IntoPrimitive, TryFromPrimitive};

/// Function identifier of Freehold's first host call: fast, 64-bit, owner 6, function 0x4600.
pub const HOST_CALL_BASE: u32 = 0xC600_4600;

/// Function identifier that asks a hypervisor for its UID (DEN0028, "general service queries").
pub const CALL_UID: u32 = 0x8600_FF01;

/// Freehold's UID, as x0 to x3 answer [`CALL_UID`] to the host.
pub const FREEHOLD_UID: [u32; 4] = [0x6565_7246, 0x646c_6f68, 0x3eac_8a4b, 0x9a1f_27d5];

/// The number of a call, relative to [`HOST_CALL_BASE`].
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, IntoPrimitive, TryFromPrimitive)]
#[repr(u32)]
pub enum HostCallId {
    /// See [`HostCall::Version`].
    Version = 0,
    /// See [`HostCall::PoolTopUp`].
    PoolTopUp = 1,
    /// See [`HostCall::PoolDrain`].
    PoolDrain = 2,
    /// See [`HostCall::ShareHyp`].
    ShareHyp = 3,
    /// See [`HostCall::UnshareHyp`].
    UnshareHyp = 4,
    /// See [`HostCall::DonateHyp`].
    DonateHyp = 5,
    /// See [`HostCall::ReclaimHyp`].
    ReclaimHyp = 6,
    /// See [`HostCall::Collapse`].
    Collapse = 7,
    /// See [`HostCall::FrameState`].
    FrameState = 8,
    /// See [`HostCall::Statistics`].
    Statistics = 9,
    /// See [`HostCall::Counter`].
    Counter = 10,
    /// See [`HostCall::Audit`].
    Audit = 11,
    /// See [`HostCall::TraceAttach`].
    TraceAttach = 12,
    /// See [`HostCall::TraceDetach`].
    TraceDetach = 13,
    /// See [`HostCall::GuestSupport`].
    GuestSupport = 14,
    /// See [`HostCall::GuestRegister`].
    GuestRegister = 15,
}

impl HostCallId {
    /// How many calls there are.
    pub const COUNT: usize = 16;

    /// All calls, in the order of their numbers.
    pub fn all() -> impl Iterator<Item = Self> {
        (0..Self::COUNT as u32).filter_map(|number| Self::try_from(number).ok())
    }

    /// The call that x0 names, if it names one.
    #[must_use]
    #[inline]
    pub fn from_register(function: u64) -> Option<Self> {
        // DEN0028 5.2: the function identifier is W0; a caller that sets the upper half is not calling us.
        let number = function.wrapping_sub(u64::from(HOST_CALL_BASE));
        u32::try_from(number)
            .ok()
            .and_then(|number| Self::try_from(number).ok())
    }

    /// The function identifier that x0 holds.
    #[must_use]
    pub const fn function_id(self) -> u32 {
        HOST_CALL_BASE + self as u32
    }
}

/// The number of any call of the host.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum CallId {
    /// One about frames, EL2's pool, or EL2 itself.
    Host(HostCallId),
    /// One about VMs.
    Vm(VmCallId),
}

impl CallId {
    /// All calls, in the order of their numbers.
    pub fn all() -> impl Iterator<Item = Self> {
        HostCallId::all()
            .map(Self::Host)
            .chain(VmCallId::all().map(Self::Vm))
    }

    /// The call that x0 names, if it names one.
    #[must_use]
    #[inline]
    pub fn from_register(function: u64) -> Option<Self> {
        match HostCallId::from_register(function) {
            Some(id) => Some(Self::Host(id)),
            None => VmCallId::from_register(function).map(Self::Vm),
        }
    }

    /// The function identifier that x0 holds.
    #[must_use]
    pub const fn function_id(self) -> u32 {
        match self {
            Self::Host(id) => id.function_id(),
            Self::Vm(id) => id.function_id(),
        }
    }
}

/// A call of the host, with its arguments. Ranged calls take the physical address of the first frame in x1 and
/// the number of 4 KiB frames in x2, work from the front, and answer in x1 how many frames they finished. They
/// may stop early (an interrupt waits, the work is long): the caller then calls again with what is left.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum HostCall {
    /// Asks for the version and features. Results: [`crate::Version`], [`Features`], number of CPUs.
    Version,
    /// Donates frames to EL2's own pool of table and node pages. Ranged.
    ///
    /// Each frame is zeroed and read back before it is the pool's. The caller meets one that answers with an external abort
    /// alone: what lies before it is done, and what lies behind it is the host's still, contents and all.
    ///
    /// Errors: those of a range; [`Status::NotOwner`] and the other ownership refusals if a frame is not plainly
    /// the host's; [`Status::NoMemory`] if mapping the frames needs pages that the pool no longer has;
    /// [`Status::Poisoned`] if the first frame turns out to be broken: it is nobody's then.
    PoolTopUp(FrameRange),
    /// Takes back up to x1 frames of the pool that EL2 does not use. The frames are zero. Results: the physical
    /// address and the number of the frames that came back, which lie in one piece; 0 frames if none is free.
    ///
    /// Errors: [`Status::EmptyRange`] if x1 is 0; [`Status::NoMemory`] if giving one back would need more pages.
    PoolDrain {
        /// The most frames to give back in this call.
        frames: u64,
    },
    /// Shares frames with EL2: both may use them from then on. Ranged. Nothing is mapped at EL2 until it pins.
    ///
    /// Errors: those of a range; the ownership refusals if a frame is not plainly the host's;
    /// [`Status::NoMemory`].
    ShareHyp(FrameRange),
    /// Ends the sharing with EL2. Ranged.
    ///
    /// Errors: those of a range; [`Status::NotShared`]; [`Status::Pinned`] while EL2 uses a frame;
    /// [`Status::NoMemory`].
    UnshareHyp(FrameRange),
    /// Gives frames to EL2: the host can no longer touch them. Ranged.
    ///
    /// Errors: those of a range; the ownership refusals; [`Status::NoMemory`].
    DonateHyp(FrameRange),
    /// Takes back frames that `DonateHyp` gave. They come back zero. Ranged.
    ///
    /// Errors: those of a range; [`Status::NotDonated`] if a frame was not donated by `DonateHyp`;
    /// [`Status::Busy`] while another CPU scrubs it; [`Status::NoMemory`].
    ReclaimHyp(FrameRange),
    /// Rebuilds the largest blocks that the ownership of the frames allows. Ranged; regions that only partly lie
    /// in the range are left alone.
    ///
    /// Errors: those of a range.
    Collapse(FrameRange),
    /// Asks for the state of the frame at physical address x1. Results: [`crate::FrameState`], its count of pins
    /// or borrowers, and how many bytes around it are known to agree (4 KiB or 2 MiB).
    ///
    /// Errors: [`Status::Misaligned`], [`Status::RangeOverflow`], [`Status::NotMemory`].
    FrameState {
        /// Physical address of the frame.
        frame: u64,
    },
    /// Asks for a statistic. Argument: the number of the [`Statistic`]. Result: its value.
    ///
    /// Errors: [`Status::InvalidParameter`].
    Statistics {
        /// Which.
        statistic: u64,
    },
    /// Asks for a counter. Arguments: the number of the CPU (in the order of the device tree), the number of the
    /// [`crate::Counter`]. Result: its value.
    ///
    /// Errors: [`Status::InvalidParameter`].
    Counter {
        /// Which CPU.
        cpu: u64,
        /// Which counter.
        counter: u64,
    },
    /// Compares the ownership map of the frames with the tables that were derived from it. Ranged. Result 1: how
    /// many frames were looked at; result 2: how many of these disagree, which is never anything but 0.
    ///
    /// Errors: those of a range.
    Audit(FrameRange),
    /// Pins a shared frame and writes the trace records of one CPU to it from now on. Arguments: the number of
    /// the CPU, the physical address of the frame. See [`crate::trace`].
    ///
    /// Errors: [`Status::InvalidParameter`] for the CPU; those of a range; [`Status::NotShared`];
    /// [`Status::WrongTraceState`] if that CPU has a ring; [`Status::CountOverflow`]; [`Status::NoMemory`].
    TraceAttach {
        /// Which CPU.
        cpu: u64,
        /// Physical address of the frame.
        frame: u64,
    },
    /// Ends what `TraceAttach` began, and unpins the frame. Argument: the number of the CPU.
    ///
    /// Errors: [`Status::InvalidParameter`]; [`Status::WrongTraceState`] if that CPU has no ring.
    TraceDetach {
        /// Which CPU.
        cpu: u64,
    },
    /// Asks what guests can be on this machine. Results: those of [`crate::GuestSupport`].
    GuestSupport,
    /// Asks what a guest reads from a feature ID register of its CPUs. Arguments: the register, as
    /// [`crate::guest_support::system_register`] names it; how many bits the VM's IPAs have. Result: its value, which is
    /// the same for every vCPU of every such VM. One that the architecture does not define yet reads zero.
    ///
    /// Errors: [`Status::InvalidParameter`] if it is none of them (op0 3, op1 0, CRn 0, CRm 1 to 7), or no VM can have so
    /// many bits.
    GuestRegister {
        /// Which register.
        register: u64,
        /// Bits of an IPA.
        ipa_bits: u64,
    },
    /// A call about VMs.
    Vm(VmCall),
}

impl HostCall {
    /// The call that registers x0 to x6 hold.
    ///
    /// # Errors
    /// [`Status::NotSupported`] if x0 names no call of ours. Arguments are not judged here.
    #[inline]
    pub fn decode(registers: [u64; 7]) -> Result<Self, Status> {
        let [function, arguments @ ..] = registers;
        let id = match CallId::from_register(function) {
            Some(CallId::Host(id)) => id,
            Some(CallId::Vm(id)) => return Ok(Self::Vm(VmCall::decode(id, arguments))),
            None => return Err(Status::NotSupported),
        };
        let [a1, a2, ..] = arguments;
        let range = FrameRange::new(a1, a2);
        Ok(match id {
            HostCallId::Version => Self::Version,
            HostCallId::PoolTopUp => Self::PoolTopUp(range),
            HostCallId::PoolDrain => Self::PoolDrain { frames: a1 },
            HostCallId::ShareHyp => Self::ShareHyp(range),
            HostCallId::UnshareHyp => Self::UnshareHyp(range),
            HostCallId::DonateHyp => Self::DonateHyp(range),
            HostCallId::ReclaimHyp => Self::ReclaimHyp(range),
            HostCallId::Collapse => Self::Collapse(range),
            HostCallId::FrameState => Self::FrameState { frame: a1 },
            HostCallId::Statistics => Self::Statistics { statistic: a1 },
            HostCallId::Counter => Self::Counter { cpu: a1, counter: a2 },
            HostCallId::Audit => Self::Audit(range),
            HostCallId::TraceAttach => Self::TraceAttach { cpu: a1, frame: a2 },
            HostCallId::TraceDetach => Self::TraceDetach { cpu: a1 },
            HostCallId::GuestSupport => Self::GuestSupport,
            HostCallId::GuestRegister => Self::GuestRegister {
                register: a1,
                ipa_bits: a2,
            },
        })
    }

    /// The registers x0 to x6 that hold the call.
    #[must_use]
    pub fn encode(self) -> [u64; 7] {
        let (a1, a2) = match self {
            Self::Version | Self::GuestSupport => (0, 0),
            Self::PoolTopUp(range)
            | Self::ShareHyp(range)
            | Self::UnshareHyp(range)
            | Self::DonateHyp(range)
            | Self::ReclaimHyp(range)
            | Self::Collapse(range)
            | Self::Audit(range) => (range.base, range.frames),
            Self::PoolDrain { frames } => (frames, 0),
            Self::FrameState { frame } => (frame, 0),
            Self::Statistics { statistic } => (statistic, 0),
            Self::Counter { cpu, counter } => (cpu, counter),
            Self::TraceAttach { cpu, frame } => (cpu, frame),
            Self::TraceDetach { cpu } => (cpu, 0),
            Self::GuestRegister { register, ipa_bits } => (register, ipa_bits),
            Self::Vm(call) => return call.encode(),
        };
        [u64::from(self.id().function_id()), a1, a2, 0, 0, 0, 0]
    }

    /// Which call this is.
    #[must_use]
    pub const fn id(self) -> CallId {
        CallId::Host(match self {
            Self::Vm(call) => return CallId::Vm(call.id()),
            Self::Version => HostCallId::Version,
            Self::PoolTopUp(_) => HostCallId::PoolTopUp,
            Self::PoolDrain { .. } => HostCallId::PoolDrain,
            Self::ShareHyp(_) => HostCallId::ShareHyp,
            Self::UnshareHyp(_) => HostCallId::UnshareHyp,
            Self::DonateHyp(_) => HostCallId::DonateHyp,
            Self::ReclaimHyp(_) => HostCallId::ReclaimHyp,
            Self::Collapse(_) => HostCallId::Collapse,
            Self::FrameState { .. } => HostCallId::FrameState,
            Self::Statistics { .. } => HostCallId::Statistics,
            Self::Counter { .. } => HostCallId::Counter,
            Self::Audit(_) => HostCallId::Audit,
            Self::TraceAttach { .. } => HostCallId::TraceAttach,
            Self::TraceDetach { .. } => HostCallId::TraceDetach,
            Self::GuestSupport => HostCallId::GuestSupport,
            Self::GuestRegister { .. } => HostCallId::GuestRegister,
        })
    }
}

/// A figure that [`HostCall::Statistics`] answers.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, IntoPrimitive, TryFromPrimitive)]
#[repr(u64)]
pub enum Statistic {
    /// Frames of RAM in the ownership map.
    Frames = 0,
    /// Frames in state `Host`.
    FramesHost = 1,
    /// Frames in state `HostSharedHyp`.
    FramesSharedHyp = 2,
    /// Frames that are EL2's: its image, tables, pools and what was donated.
    FramesHyp = 3,
    /// Frames that are neither of these.
    FramesOther = 4,
    /// Pages that are free in EL2's pool.
    PoolFree = 5,
    /// Pages that EL2's pool was ever given and has not given back, free and used. One that broke in the pool counts as
    /// used ([`Counter::PoolPagesBroken`](crate::Counter::PoolPagesBroken)).
    PoolTotal = 6,
    /// Bytes that Freehold reserved at boot.
    ReservedBytes = 7,
}

/// The answer of a call.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct HostReturn {
    /// Success, or the reason for the refusal.
    pub status: Status,
    /// What x1 to x3 hold.
    pub values: [u64; 3],
}

impl HostReturn {
    /// Success with up to three results.
    #[must_use]
    pub const fn success(values: [u64; 3]) -> Self {
        Self {
            status: Status::Success,
            values,
        }
    }

    /// A refusal.
    #[must_use]
    pub const fn refused(status: Status) -> Self {
        Self {
            status,
            values: [0; 3],
        }
    }
}

impl From<Status> for HostReturn {
    fn from(status: Status) -> Self {
        Self::refused(status)
    }
}

bitflags::bitflags! {
    /// What this Freehold can do on this machine.
    #[derive(Clone, Copy, Debug, PartialEq, Eq)]
    pub struct Features: u64 {
        /// Trace rings.
        const TRACE = 1 << 0;
        /// The CPU invalidates ranges of the TLB in one instruction.
        const RANGE_TLBI = 1 << 1;
        /// VMs: the calls of [`crate::vm_call`].
        const VMS = 1 << 2;
        /// There is entropy for guests.
        const ENTROPY = 1 << 3;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_call_survives_its_registers() {
        let range = FrameRange::new(0x4000_0000, 7);
        let calls = [
            HostCall::Version,
            HostCall::PoolTopUp(range),
            HostCall::PoolDrain { frames: 9 },
            HostCall::ShareHyp(range),
            HostCall::UnshareHyp(range),
            HostCall::DonateHyp(range),
            HostCall::ReclaimHyp(range),
            HostCall::Collapse(range),
            HostCall::FrameState { frame: 0x1000 },
            HostCall::Statistics { statistic: 3 },
            HostCall::Counter { cpu: 1, counter: 2 },
            HostCall::Audit(range),
            HostCall::TraceAttach {
                cpu: 1,
                frame: 0x2000,
            },
            HostCall::TraceDetach { cpu: 1 },
            HostCall::GuestSupport,
            HostCall::GuestRegister {
                register: 0xc020,
                ipa_bits: 40,
            },
        ];
        assert_eq!(calls.len(), HostCallId::COUNT);
        for (number, call) in calls.into_iter().enumerate() {
            assert_eq!(call.id().function_id(), HOST_CALL_BASE + number as u32);
            assert_eq!(HostCall::decode(call.encode()), Ok(call));
        }
    }

    #[test]
    fn a_number_that_is_no_call_is_not_supported() {
        for function in [
            0,
            u64::from(HOST_CALL_BASE) - 1,
            u64::from(HOST_CALL_BASE) + HostCallId::COUNT as u64,
            u64::from(HOST_CALL_BASE) | 1 << 32,
            u64::MAX,
        ] {
            assert_eq!(
                HostCall::decode([function, 0, 0, 0, 0, 0, 0]),
                Err(Status::NotSupported)
            );
        }
    }
}
