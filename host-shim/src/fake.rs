//! A small EL2 for tests: who owns which frame, by plain sets, and guests that follow a program.
//!
//! It judges as the calls are documented, stops ranged calls early, wants pages at the least convenient moments, and
//! notes every access of the host to a frame that is not the host's.

#![expect(clippy::unwrap_used, reason = "it is for tests, whose mistakes end them here")]

mod calls;
mod guest;

pub use guest::Act;

extern crate std;

use crate::kernel::NotReachable;
use crate::{HostMemory, Hypercall, Kernel, Pfn};
use alloc::boxed::Box;
use alloc::collections::{BTreeMap, BTreeSet, VecDeque};
use alloc::sync::Arc;
use alloc::vec::Vec;
use core::fmt;
use hyp_abi::vm::{Permissions, VmFlags};
use hyp_abi::{CallId, HostCall, Status, VcpuRegister, Version, VmHandle};
use std::sync::{Mutex, MutexGuard};

/// The first frame of the machine.
pub const FIRST: u64 = 0x4_0000;

/// How many frames it has: 32 MiB.
pub const FRAMES: u64 = 16 * 512;

/// Frames that a ranged call finishes at once, unless they are a whole region.
const AT_ONCE: u64 = 100;

/// Who has a frame.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[expect(missing_docs, reason = "they are the states of a frame, as EL2 has them")]
pub enum Owner {
    Host,
    SharedHyp { pins: u32 },
    Pool,
    Guest { slot: u8 },
    GuestShared { slot: u8, pins: u32 },
    Borrowed { by: u32 },
    Relinquished,
    Poisoned,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Life {
    Created,
    Launched,
    /// The guest has ended itself.
    Off,
    Dying,
}

#[derive(Debug, Default)]
struct FakeVcpu {
    run_page: u64,
    program: VecDeque<Act>,
    registers: BTreeMap<VcpuRegister, u64>,
    running: bool,
    /// The exit that the guest's call waits for was answered with a retry already.
    retried: bool,
}

#[derive(Debug)]
struct FakeVm {
    generation: u32,
    flags: VmFlags,
    life: Life,
    reserve: u64,
    /// Pages of the pool that it takes, its reserve included.
    pages: Vec<u64>,
    tables: BTreeSet<u64>,
    map: BTreeMap<u64, (u64, Permissions)>,
    lost: BTreeSet<u64>,
    /// What the guest has used since the last look.
    used: BTreeSet<u64>,
    vcpus: BTreeMap<u64, FakeVcpu>,
    relinquished: u64,
    results: Vec<i64>,
}

#[derive(Debug)]
struct Frame {
    owner: Owner,
    /// `None`: whatever was there when the machine started, which is not zero.
    contents: Option<Box<[u64; 512]>>,
}

impl Frame {
    fn contents(&mut self) -> &mut [u64; 512] {
        self.contents
            .get_or_insert_with(|| Box::new([0xDEAD_BEEF_DEAD_BEEF; 512]))
    }
}

#[derive(Debug)]
pub(crate) struct State {
    version: Version,
    frames: BTreeMap<u64, Frame>,
    pool: Vec<u64>,
    vms: BTreeMap<u8, FakeVm>,
    next_generation: u32,
    split: BTreeSet<u64>,
    interrupt: bool,
    broken: BTreeSet<u64>,
    refusals: VecDeque<(CallId, Status)>,
    meanwhile: Vec<Meanwhile>,
    log: Vec<HostCall>,
    trespasses: u64,
    pauses: u64,
    killed: bool,
}

/// What somebody else does at a bad moment.
struct Meanwhile(CallId, Box<dyn FnOnce() + Send>);

impl fmt::Debug for Meanwhile {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("Meanwhile").field(&self.0).finish()
    }
}

/// The fake, with the host's memory.
#[derive(Clone, Debug)]
pub struct Fake(Arc<Mutex<State>>);

impl Fake {
    /// A machine whose memory is all the host's, full of what is not zero.
    #[expect(clippy::new_without_default, reason = "a machine is nothing by default")]
    #[must_use]
    pub fn new() -> Self {
        let frame = |number| {
            let frame = Frame {
                owner: Owner::Host,
                contents: None,
            };
            (number, frame)
        };
        let state = State {
            frames: (FIRST..FIRST + FRAMES).map(frame).collect(),
            version: hyp_abi::VERSION,
            pool: Vec::new(),
            vms: BTreeMap::new(),
            next_generation: 0,
            split: BTreeSet::new(),
            interrupt: false,
            broken: BTreeSet::new(),
            refusals: VecDeque::new(),
            meanwhile: Vec::new(),
            log: Vec::new(),
            trespasses: 0,
            pauses: 0,
            killed: false,
        };
        Self(Arc::new(Mutex::new(state)))
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.0.lock().unwrap()
    }

    /// Makes it one of another version.
    pub fn set_version(&self, version: Version) {
        self.state().version = version;
    }

    /// Who has a frame.
    #[must_use]
    pub fn owner(&self, frame: Pfn) -> Owner {
        self.state().frames[&frame.number()].owner
    }

    /// How many frames are not plainly the host's.
    #[must_use]
    pub fn taken(&self) -> usize {
        let state = self.state();
        state
            .frames
            .values()
            .filter(|frame| frame.owner != Owner::Host)
            .count()
    }

    /// A byte of a frame, whoever owns it.
    #[must_use]
    pub fn byte(&self, frame: Pfn, offset: usize) -> u8 {
        let mut state = self.state();
        let frame = state.frames.get_mut(&frame.number()).unwrap();
        frame.contents()[offset / 8].to_le_bytes()[offset % 8]
    }

    /// Whether a frame is all zero, whoever owns it.
    #[must_use]
    pub fn is_zero(&self, frame: Pfn) -> bool {
        let mut state = self.state();
        let frame = state.frames.get_mut(&frame.number()).unwrap();
        frame.contents().iter().all(|word| *word == 0)
    }

    /// How often the host touched what is not the host's.
    #[must_use]
    pub fn trespasses(&self) -> u64 {
        self.state().trespasses
    }

    /// The frame that a guest has at a guest frame number.
    #[must_use]
    pub fn mapped(&self, vm: VmHandle, gfn: u64) -> Option<Pfn> {
        let state = self.state();
        let (frame, _) = state.vms.get(&vm.slot)?.map.get(&gfn)?;
        Pfn::new(*frame)
    }

    /// How many VMs there are.
    #[must_use]
    pub fn vms(&self) -> usize {
        self.state().vms.len()
    }

    /// What a vCPU is to do when it runs next.
    pub fn program(&self, vm: VmHandle, vcpu: u64, acts: impl IntoIterator<Item = Act>) {
        let mut state = self.state();
        let vm = state.vms.get_mut(&vm.slot).unwrap();
        vm.vcpus.get_mut(&vcpu).unwrap().program.extend(acts);
    }

    /// What the guest's calls answered since the last look.
    pub fn results(&self, vm: VmHandle) -> Vec<i64> {
        core::mem::take(&mut self.state().vms.get_mut(&vm.slot).unwrap().results)
    }

    /// Refuses the next call of that kind.
    pub fn refuse_next(&self, call: CallId, status: Status) {
        self.state().refusals.push_back((call, status));
    }

    /// Does something just before the next call of that kind.
    pub fn before_next(&self, call: CallId, act: impl FnOnce() + Send + 'static) {
        self.state().meanwhile.push(Meanwhile(call, Box::new(act)));
    }

    /// An interrupt waits: the next run ends before its guest does anything.
    pub fn interrupt(&self) {
        self.state().interrupt = true;
    }

    /// Gives a frame a memory error that shows when it is scrubbed.
    pub fn break_frame(&self, frame: Pfn) {
        self.state().broken.insert(frame.number());
    }

    /// How often the host offered the CPU to others.
    #[must_use]
    pub fn pauses(&self) -> u64 {
        self.state().pauses
    }

    /// Has whoever calls be killed, or no longer.
    pub fn set_killed(&self, killed: bool) {
        self.state().killed = killed;
    }

    /// The calls so far, and forgets them.
    pub fn log(&self) -> Vec<HostCall> {
        core::mem::take(&mut self.state().log)
    }
}

impl Hypercall for Fake {
    fn call(&self, registers: [u64; 7]) -> [u64; 4] {
        let call = HostCall::decode(registers).unwrap();
        let meanwhile = {
            let mut state = self.state();
            let due = state.meanwhile.iter().position(|there| there.0 == call.id());
            due.map(|at| state.meanwhile.remove(at))
        };
        if let Some(Meanwhile(_, act)) = meanwhile {
            act();
        }
        let refused = {
            let mut state = self.state();
            state.log.push(call);
            let due = state.refusals.iter().position(|(id, _)| *id == call.id());
            due.and_then(|at| state.refusals.remove(at))
        };
        let result = match (refused, call) {
            (Some((_, status)), _) => Err((status, 1)),
            (None, HostCall::Vm(hyp_abi::VmCall::Run { vm, index })) => self.run(vm, index),
            (None, call) => self.state().judge(call),
        };
        match result {
            Ok([x1, x2, x3]) => [0, x1, x2, x3],
            Err((status, detail)) => [status.to_register(), detail, 0, 0],
        }
    }

    fn pause(&self) {
        self.state().pauses += 1;
    }
}

impl State {
    fn reach(&mut self, frame: Pfn) -> Result<&mut [u64; 512], NotReachable> {
        match self.frames.get_mut(&frame.number()) {
            Some(frame)
                if matches!(
                    frame.owner,
                    Owner::Host
                        | Owner::SharedHyp { .. }
                        | Owner::GuestShared { .. }
                        | Owner::Borrowed { .. }
                ) =>
            {
                Ok(frame.contents())
            }
            _ => {
                self.trespasses += 1;
                Err(NotReachable)
            }
        }
    }

    fn word(&mut self, frame: u64, index: usize) -> &mut u64 {
        &mut self.frames.get_mut(&frame).unwrap().contents()[index]
    }
}

impl HostMemory for Fake {
    fn read(&self, frame: Pfn, offset: usize, into: &mut [u8]) -> Result<(), NotReachable> {
        let mut state = self.state();
        let contents = state.reach(frame)?;
        for (at, byte) in (offset..).zip(into) {
            *byte = contents[at / 8].to_le_bytes()[at % 8];
        }
        Ok(())
    }

    fn write(&self, frame: Pfn, offset: usize, from: &[u8]) -> Result<(), NotReachable> {
        let mut state = self.state();
        let contents = state.reach(frame)?;
        for (at, byte) in (offset..).zip(from) {
            let mut bytes = contents[at / 8].to_le_bytes();
            bytes[at % 8] = *byte;
            contents[at / 8] = u64::from_le_bytes(bytes);
        }
        Ok(())
    }

    fn zero(&self, frame: Pfn, frames: u64) -> Result<(), NotReachable> {
        let mut state = self.state();
        for index in 0..frames {
            state.reach(frame.after(index))?.fill(0);
        }
        Ok(())
    }

    fn load_word(&self, frame: Pfn, index: usize) -> u64 {
        self.state().reach(frame).unwrap()[index]
    }

    fn store_word(&self, frame: Pfn, index: usize, value: u64) {
        self.state().reach(frame).unwrap()[index] = value;
    }
}

impl Kernel for Fake {
    type Lock = parking_lot::RawMutex;

    fn relax(&self) {
        std::thread::yield_now();
    }

    fn is_killed(&self) -> bool {
        self.state().killed
    }
}
