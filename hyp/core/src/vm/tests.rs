//! Tests of VMs and vCPUs on the double of the machine: the host's calls as they arrive in registers, and guests that do
//! what a test says.

mod calls;
mod exits;
mod life;
mod memory;
mod mmio;
mod power;
mod races;
mod random;
mod record;
mod registers;
mod slots;

use super::{GuestRegime, Trap, TrapKind, VcpuContext};
use crate::addr::{Frame, FrameSpan};
use crate::double::{Machine, system};
use crate::geometry::Arm4K;
use crate::hardware::Hardware;
use crate::hypercall::host_call;
use crate::ownership::{Devices, Ownership};
use crate::trap::syndrome::FaultRegisters;
use hyp_abi::run_page::{
    Answer, ENTRY_ANSWER, ENTRY_FLAGS, ENTRY_VALUES, EXIT_REASON, EXIT_VALUE_COUNT, EXIT_VALUES, EntryFlags,
    ExitReason,
};
use hyp_abi::vm::VmFlags;
use hyp_abi::{FrameRange, GuestRange, HostCall, HostReturn, Status, VmCall, VmHandle};
use std::boxed::Box;
use std::collections::VecDeque;
use std::vec::Vec;

type Own = Ownership<'static, Machine<Arm4K>>;

/// The first frame of RAM, the first that is the host's, and the end.
const RAM: u64 = 0x4_0000;
const FREE: u64 = RAM + 0x400;
const RAM_FRAMES: u64 = 0x2000;
/// The frame of the run page of vCPU 0; those of the others follow.
const RUN_PAGES: u64 = RAM + 0x1000;

/// Where guests begin, and their memory, by guest frame number.
const ENTRY: u64 = 0x8000_0000;
const MEMORY: GuestRange = GuestRange::new(ENTRY >> 12, 0x1000);

/// ESR_EL2 of an `HVC #0`.
const ESR_HVC: u64 = 0x16 << 26 | IL;
const IL: u64 = 1 << 25;

/// A step of a guest: what it does, and what then traps.
type Act = Box<dyn FnMut(&mut VcpuContext) -> Trap + Send>;

/// A machine with VMs.
#[derive(Clone, Copy)]
struct Bench {
    own: &'static Own,
}

impl Bench {
    fn new() -> Self {
        let span = |start, frames| FrameSpan::new(Frame::new(start).unwrap(), frames).unwrap();
        let own = system::<Arm4K>(&[span(RAM, RAM_FRAMES)], span(RAM, 0x400), Devices::new());
        own.hardware().record(false);
        Self {
            own: Box::leak(Box::new(own)),
        }
    }

    fn hw(self) -> &'static Machine<Arm4K> {
        self.own.hardware()
    }

    fn ask(self, call: VmCall) -> HostReturn {
        host_call(self.own, HostCall::Vm(call).encode())
    }

    /// The first result of a call that must succeed.
    #[track_caller]
    fn done(self, call: VmCall) -> u64 {
        let answer = self.ask(call);
        assert_eq!(answer.status, Status::Success, "{call:x?}");
        answer.values[0]
    }

    /// A call that must be refused.
    #[track_caller]
    fn refused(self, call: VmCall, status: Status) {
        assert_eq!(self.ask(call).status, status, "{call:x?}");
    }

    fn create(self, flags: VmFlags, vcpus: u64) -> u64 {
        self.done(VmCall::Create {
            flags: flags.bits(),
            vcpus,
            ipa_bits: 40,
        })
    }

    /// Shares the frame that is to be the run page of a vCPU.
    fn share(self, frame: u64) {
        let call = HostCall::ShareHyp(FrameRange::new(frame << 12, 1));
        let status = host_call(self.own, call.encode()).status;
        assert!(matches!(status, Status::Success | Status::SharedWithHyp));
    }

    #[track_caller]
    fn create_vcpu(self, vm: u64, index: u64) {
        let frame = RUN_PAGES + index;
        self.share(frame);
        self.done(VmCall::CreateVcpu {
            vm,
            index,
            run_page: frame << 12,
        });
    }

    /// A launched VM of this many vCPUs.
    fn launched(self, flags: VmFlags, vcpus: u64) -> u64 {
        let vm = self.create(flags, vcpus);
        self.done(VmCall::AddMemory { vm, range: MEMORY });
        for index in 0..vcpus {
            self.create_vcpu(vm, index);
        }
        self.done(VmCall::Launch {
            vm,
            entry: ENTRY,
            argument: 77,
        });
        vm
    }

    /// A protected VM of one vCPU that runs.
    fn guest(self) -> u64 {
        self.launched(VmFlags::PROTECTED, 1)
    }

    /// What vCPU 0 does from now on, trap by trap; after the last one it is interrupted.
    fn plays(self, acts: impl IntoIterator<Item = Act>) {
        self.vcpu_plays(0, acts);
    }

    fn vcpu_plays(self, index: u8, acts: impl IntoIterator<Item = Act>) {
        let mut acts: VecDeque<Act> = acts.into_iter().collect();
        let program = move |_: &GuestRegime, context: &mut VcpuContext| {
            acts.pop_front().map_or_else(interrupt, |mut act| act(context))
        };
        self.hw().play_vcpu(index, Box::new(program));
    }

    /// Runs a vCPU, which must exit, and answers its exit record, which must agree with the call's results.
    #[track_caller]
    fn run(self, vm: u64, index: u64) -> (ExitReason, [u64; EXIT_VALUE_COUNT]) {
        let answer = self.ask(VmCall::Run { vm, index });
        assert_eq!(answer.status, Status::Success);
        let page = Frame::new(RUN_PAGES + index).unwrap();
        let word = |word| self.hw().word(page, word);
        let mut values = [0; EXIT_VALUE_COUNT];
        for (number, value) in values.iter_mut().enumerate() {
            *value = word(EXIT_VALUES + number);
        }
        assert_eq!(answer.values, [word(EXIT_REASON), values[0], values[1]]);
        (ExitReason::try_from(word(EXIT_REASON)).unwrap(), values)
    }

    /// Runs vCPU 0, which must exit for `reason` with these first values, and zeros behind them.
    #[track_caller]
    fn runs_to<const N: usize>(self, vm: u64, reason: ExitReason, values: [u64; N]) {
        let mut all = [0; EXIT_VALUE_COUNT];
        all[..N].copy_from_slice(&values);
        let (got, exit) = self.run(vm, 0);
        assert_eq!((got, exit), (reason, all), "{exit:x?}");
    }

    fn write(self, index: u64, word: usize, value: u64) {
        self.hw()
            .set_word(Frame::new(RUN_PAGES + index).unwrap(), word, value);
    }

    /// What the host says to the next entry of vCPU 0.
    fn answers(self, answer: Answer, values: [u64; 4]) {
        self.write(0, ENTRY_FLAGS, EntryFlags::ANSWER.bits());
        self.write(0, ENTRY_ANSWER, answer.into());
        for (number, value) in values.into_iter().enumerate() {
            self.write(0, ENTRY_VALUES + number, value);
        }
    }

    /// The host says nothing to the next entry.
    fn says_nothing(self) {
        self.write(0, ENTRY_FLAGS, 0);
    }

    fn destroy(self, vm: u64) {
        self.done(VmCall::Destroy { vm });
    }
}

fn interrupt() -> Trap {
    Trap {
        kind: TrapKind::Interrupt,
        registers: FaultRegisters::default(),
    }
}

fn synchronous(esr: u64) -> Trap {
    aborts(esr, 0, 0)
}

fn aborts(esr: u64, far: u64, ipa: u64) -> Trap {
    Trap {
        kind: TrapKind::Synchronous,
        registers: FaultRegisters {
            esr,
            far,
            hpfar: ipa >> 12 << 4,
        },
    }
}

/// `act` as a step of a guest.
fn act(act: impl FnMut(&mut VcpuContext) -> Trap + Send + 'static) -> Act {
    Box::new(act)
}

/// An `HVC #0` with these x0 to x3, at the PC at which the guest is.
fn hvc(x: [u64; 4]) -> Act {
    act(move |context| {
        context.x[..4].copy_from_slice(&x);
        context.pc += 4;
        synchronous(ESR_HVC)
    })
}

/// The `HVC` at which the guest is, once more with the same registers.
fn hvc_again() -> Act {
    act(|context| {
        context.pc += 4;
        synchronous(ESR_HVC)
    })
}

/// Looks at the registers, and is interrupted.
fn look(mut look: impl FnMut(&VcpuContext) + Send + 'static) -> Act {
    act(move |context| {
        look(context);
        interrupt()
    })
}
