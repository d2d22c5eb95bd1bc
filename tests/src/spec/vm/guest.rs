//! What a guest does, and what may come of it.
//!
//! - `access`: its loads, stores, fetches and walks; `memory_call`: its calls about pages; `psci`: its vCPUs.

mod access;
mod memory_call;
mod psci;

pub(super) use access::{is_external_abort, narrow};

use super::super::Memory;
use super::call::Case;
use hyp_abi::guest_call::{
    GuestCallId, HOST_SERVICE_FIRST, HOST_SERVICE_LAST, INVALID_PARAMETER, KVM_UID, NOT_SUPPORTED,
    SMCCC_VERSION,
};
use hyp_abi::run_page::{ExitReason, WaitKind};
use hyp_abi::{FRAME_SIZE, HostReturn, Status, VmCall};

/// How a guest reaches for memory.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Reach {
    /// A load.
    Load,
    /// A store of this value.
    Store(u64),
    /// An instruction fetch.
    Fetch,
    /// A walk of its own tables.
    Walk,
}

/// Something that a guest does.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Instruction {
    /// It reaches for memory.
    Access {
        /// Where.
        ipa: u64,
        /// How.
        reach: Reach,
        /// How many bytes: 1, 2, 4 or 8.
        bytes: u8,
        /// Whether the CPU describes the access to EL2, should it fault.
        described: bool,
    },
    /// `HVC` with this immediate, and x0 to x3.
    Call(u16, [u64; 4]),
    /// `SMC #0`, with x0.
    Smc(u64),
    /// `WFI`, or `WFE`.
    Wait {
        /// Whether it is `WFE`.
        event: bool,
    },
    /// Meanwhile the host makes a call, on another CPU, that is refused because of the run.
    Meanwhile(Meanwhile),
}

/// What the host tries while a vCPU runs.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Meanwhile {
    /// To destroy its VM.
    Destroy,
    /// To rename its VM.
    Rename,
    /// To run it once more.
    Run,
    /// To read a register of it.
    ReadRegister,
    /// To set a register of it.
    WriteRegister,
}

impl Meanwhile {
    /// The call, about the vCPU with this index of this VM.
    #[must_use]
    pub const fn call(self, vm: u64, index: u64) -> VmCall {
        // The program counter.
        let register = 0x100;
        match self {
            Self::Destroy => VmCall::Destroy { vm },
            Self::Rename => VmCall::Rename { vm },
            Self::Run => VmCall::Run { vm, index },
            Self::ReadRegister => VmCall::ReadRegister { vm, index, register },
            Self::WriteRegister => VmCall::WriteRegister {
                vm,
                index,
                register,
                value: 0,
            },
        }
    }
}

/// What a vCPU waits for since its last exit.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Waits {
    /// Nothing.
    Nothing,
    /// It goes on after its call, whose results are these.
    Results([u64; 4]),
    /// It goes on after what it did; its registers are its own.
    Next,
    /// It stands at what it wanted to do.
    For(ExitReason, Instruction),
}

/// What a CPU saw of a guest.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Event {
    /// The guest was entered.
    Entered(Registers),
    /// An access reached this frame.
    Reached(Instruction, u64),
    /// This trapped to EL2.
    Trapped(Instruction),
    /// The host got this answer meanwhile.
    Answered(Meanwhile, HostReturn),
    /// Nothing was left to do: the CPU was interrupted.
    Interrupted,
}

/// A guest's registers as it is entered.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Registers {
    /// Where it goes on, of the instruction at hand.
    pub at: At,
    /// x0 to x3.
    pub x: [u64; 4],
    /// The register that loads go to.
    pub loaded: u64,
}

/// Where a guest is entered.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum At {
    /// At the instruction that trapped, or somewhere else that the guest chose.
    Same,
    /// Past it.
    Next,
    /// At its exception vector, with this syndrome.
    Exception(u64),
    /// Elsewhere.
    Address(u64),
}

/// What followed a trap.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Then {
    /// The guest was entered again.
    Entered(Registers),
    /// The vCPU exited.
    Exit(ExitReason, [u64; 7]),
}

/// A guest call's refusals as x0 holds them.
const REFUSED: u64 = INVALID_PARAMETER.cast_unsigned();
const NO_SUCH_CALL: u64 = NOT_SUPPORTED.cast_unsigned();

fn wrong(then: &Then, of: &Instruction) -> String {
    format!("after {of:x?} came {then:x?}")
}

impl Memory {
    /// What came of an instruction that trapped. Answers what the vCPU waits for, if it exited.
    pub(super) fn trapped(
        &mut self,
        case: &mut Case<'_>,
        slot: u8,
        index: u64,
        instruction: Instruction,
        second: bool,
        then: &Then,
    ) -> Result<Waits, String> {
        match instruction {
            Instruction::Access { .. } => self.faulted(slot, index, instruction, then),
            Instruction::Call(0, x) => self.called(case, slot, index, x, second, then),
            Instruction::Call(..) | Instruction::Smc(_) => expect_x0(then, NO_SUCH_CALL, &instruction),
            Instruction::Wait { event } => {
                let kind = if event {
                    WaitKind::Event
                } else {
                    WaitKind::Interrupt
                };
                let values = [kind.into(), 0, 0, 0, 0, 0, 0];
                exits(then, ExitReason::Wait, values, &instruction).map(|()| Waits::Next)
            }
            Instruction::Meanwhile(_) => Err("the host does not trap".to_owned()),
        }
    }

    fn called(
        &mut self,
        case: &mut Case<'_>,
        slot: u8,
        index: u64,
        x: [u64; 4],
        second: bool,
        then: &Then,
    ) -> Result<Waits, String> {
        let instruction = Instruction::Call(0, x);
        let Ok(function) = u32::try_from(x[0]) else {
            return expect_x0(then, NO_SUCH_CALL, &instruction);
        };
        if (HOST_SERVICE_FIRST..=HOST_SERVICE_LAST).contains(&function) {
            let values = [x[0], x[1], x[2], x[3], 0, 0, 0];
            exits(then, ExitReason::HostService, values, &instruction)?;
            return Ok(Waits::For(ExitReason::HostService, instruction));
        }
        let results = |values: [u64; 4]| expect_results(then, values, &instruction);
        let no_arguments = x[1..] == [0; 3];
        match GuestCallId::try_from(function) {
            Ok(GuestCallId::SmcccVersion) => results([SMCCC_VERSION, 0, 0, 0]),
            Ok(GuestCallId::VendorUid) => results(KVM_UID.map(u64::from)),
            Ok(GuestCallId::MemInfo) if !self.vms.live[&slot].protected => {
                expect_x0(then, NO_SUCH_CALL, &instruction)
            }
            Ok(GuestCallId::MemInfo | GuestCallId::MmioGuardInfo | GuestCallId::MmioGuardEnroll)
                if !no_arguments =>
            {
                refused_call(then, &instruction).map(|()| Waits::Next)
            }
            Ok(GuestCallId::MemInfo) => results([FRAME_SIZE, 1, 0, 0]),
            Ok(GuestCallId::MmioGuardInfo) => results([FRAME_SIZE, 0, 0, 0]),
            Ok(GuestCallId::MmioGuardEnroll) => {
                self.vm(slot).guard = true;
                results([0; 4])
            }
            Ok(
                call @ (GuestCallId::MemShare
                | GuestCallId::MemUnshare
                | GuestCallId::MemRelinquish
                | GuestCallId::MmioGuardMap
                | GuestCallId::MmioGuardUnmap
                | GuestCallId::MmioGuardRangeMap
                | GuestCallId::MmioGuardRangeUnmap),
            ) => self.memory_call(case, slot, call, x, second, then),
            Ok(_) => match then {
                // What it answers is not a matter of memory.
                Then::Entered(registers) if registers.at == At::Next => Ok(Waits::Next),
                _ => Err(wrong(then, &instruction)),
            },
            Err(_) => self.psci(slot, index, x, then),
        }
    }
}

/// What the host was told that called while the vCPU ran, of a VM that is protected or not.
pub(super) fn answered(call: Meanwhile, protected: bool, answer: &HostReturn) -> Result<(), String> {
    let registers = matches!(call, Meanwhile::ReadRegister | Meanwhile::WriteRegister);
    let status = if registers && protected {
        Status::WrongVmKind
    } else {
        Status::VcpuRunning
    };
    if *answer == HostReturn::refused(status) {
        return Ok(());
    }
    Err(format!("{call:?} meanwhile was answered {answer:x?}"))
}

fn exits(then: &Then, reason: ExitReason, values: [u64; 7], of: &Instruction) -> Result<(), String> {
    if *then == Then::Exit(reason, values) {
        return Ok(());
    }
    Err(format!("{}, should be {reason:?} {values:x?}", wrong(then, of)))
}

fn expect_results(then: &Then, values: [u64; 4], of: &Instruction) -> Result<Waits, String> {
    match then {
        Then::Entered(registers) if registers.at == At::Next && registers.x == values => Ok(Waits::Next),
        _ => Err(format!("{}, should be {values:x?}", wrong(then, of))),
    }
}

fn expect_x0(then: &Then, x0: u64, of: &Instruction) -> Result<Waits, String> {
    match then {
        Then::Entered(registers) if registers.at == At::Next && registers.x[0] == x0 => Ok(Waits::Next),
        _ => Err(format!("{}, x0 should be {x0:#x}", wrong(then, of))),
    }
}

fn refused_call(then: &Then, of: &Instruction) -> Result<(), String> {
    expect_x0(then, REFUSED, of).map(|_| ())
}
