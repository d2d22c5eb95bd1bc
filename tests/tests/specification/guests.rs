//! A machine with VMs, and the steps that bring its frames where only guests bring them.

use super::cases::{HOST, machine, range};
use freehold_tests::spec::rig::Rig;
use freehold_tests::spec::vm::guest::{Instruction, Reach};
use freehold_tests::spec::vm::run::Entry;
use freehold_tests::spec::{Holding, World};
use hyp_abi::guest_call::GuestCallId;
use hyp_abi::run_page::{Answer, ExitReason};
use hyp_abi::vm::{Permissions, VmFlags};
use hyp_abi::vm_call::GuestRange;
use hyp_abi::{FRAME_SIZE, HostCall, Status, VmCall};
use hyp_core::geometry::Arm4K;

/// The frame of the run page; those after it are given away.
pub(super) const RUN_PAGE: u64 = HOST + 3;
pub(super) const FRAME: u64 = HOST + 40;
/// Where the guests have their memory.
pub(super) const GFN: u64 = 0x8_0000;

pub(super) struct Tried {
    pub(super) rig: Rig<Arm4K>,
}

/// Two launched VMs: a protected one in slot 1, and one that is not in slot 2.
pub(super) fn two_vms(rig: &mut Rig<Arm4K>) {
    with(rig, |tried| {
        tried.protected();
        tried.plain();
    });
}

/// Brings a frame into a state that only guests bring it to. The VMs are there, or are made.
pub(super) fn bring(rig: &mut Rig<Arm4K>, frame: u64, holding: Holding) {
    if rig.memory().vms().get(1).is_none() {
        two_vms(rig);
    }
    with(rig, |tried| tried.bring(frame, holding));
}

/// Works on a rig that somebody else has.
pub(super) fn with(rig: &mut Rig<Arm4K>, work: impl FnOnce(&mut Tried)) {
    let mut tried = Tried {
        rig: std::mem::replace(rig, machine()),
    };
    work(&mut tried);
    *rig = tried.rig;
}

pub(super) fn call(frames: u64, id: GuestCallId, gfn: u64) -> Instruction {
    Instruction::Call(0, [u64::from(u32::from(id)), gfn * FRAME_SIZE, frames, 0])
}

pub(super) fn access(gfn: u64, reach: Reach) -> Instruction {
    Instruction::Access {
        ipa: gfn * FRAME_SIZE + 8,
        reach,
        bytes: 8,
        described: true,
    }
}

impl Tried {
    pub(super) fn new() -> Self {
        Self { rig: machine() }
    }

    pub(super) fn host(&mut self, call: HostCall, status: Status) -> u64 {
        super::cases::expect(&mut self.rig, call, status)
    }

    pub(super) fn vm(&mut self, call: VmCall, status: Status) -> u64 {
        self.host(HostCall::Vm(call), status)
    }

    /// A VM with one vCPU and sixteen MiB of memory, in the slot that is free; its reserve has `reserve` pages.
    pub(super) fn create(&mut self, flags: VmFlags, reserve: u64) -> u64 {
        let create = VmCall::Create {
            flags: flags.bits(),
            vcpus: 2,
            ipa_bits: 36,
        };
        let vm = self.vm(create, Status::Success) & 0xff;
        let memory = GuestRange::new(GFN, 4096);
        self.vm(VmCall::AddMemory { vm, range: memory }, Status::Success);
        for index in 0..2 {
            let page = RUN_PAGE + 2 * vm + index;
            self.host(HostCall::ShareHyp(range(page, 1)), Status::Success);
            let run_page = page * FRAME_SIZE;
            self.vm(VmCall::CreateVcpu { vm, index, run_page }, Status::Success);
        }
        if reserve > 0 {
            self.vm(VmCall::TopUp { vm, pages: reserve }, Status::Success);
        }
        vm
    }

    pub(super) fn launch(&mut self, vm: u64) {
        let call = VmCall::Launch {
            vm,
            entry: GFN * FRAME_SIZE,
            argument: 77,
        };
        self.vm(call, Status::Success);
    }

    pub(super) fn protected(&mut self) -> u64 {
        let vm = self.create(VmFlags::PROTECTED, 12);
        self.launch(vm);
        vm
    }

    pub(super) fn plain(&mut self) -> u64 {
        let vm = self.create(VmFlags::empty(), 12);
        self.launch(vm);
        vm
    }

    pub(super) fn donate(&mut self, vm: u64, first: u64, frames: u64, gfn: u64, status: Status) -> u64 {
        let range = range(first, frames);
        self.vm(VmCall::Donate { vm, range, gfn }, status)
    }

    pub(super) fn run(&mut self, vm: u64, entry: Entry, script: &[Instruction], reason: ExitReason) -> u64 {
        self.run_vcpu(vm, 0, entry, script, reason)
    }

    pub(super) fn run_vcpu(
        &mut self,
        vm: u64,
        index: u64,
        entry: Entry,
        script: &[Instruction],
        reason: ExitReason,
    ) -> u64 {
        let slot = vm as u8;
        let answer = self
            .rig
            .run(
                &World::default(),
                slot,
                index,
                &entry,
                script,
                &[FRAME, FRAME + 1],
            )
            .unwrap_or_else(|wrong| panic!("{script:x?}: {wrong}"));
        assert_eq!(
            (answer.status, answer.values[0]),
            (Status::Success, reason.into()),
            "{script:x?}: {answer:x?}"
        );
        self.rig
            .compare_all()
            .unwrap_or_else(|wrong| panic!("after {script:x?}: {wrong}"));
        answer.values[1]
    }

    pub(super) fn bring(&mut self, frame: u64, holding: Holding) {
        if let Holding::SharedGuest { borrowers } = holding {
            let borrower = |gfn| VmCall::Share {
                vm: 2,
                range: range(frame, 1),
                gfn,
                permissions: Permissions::all().bits(),
            };
            for number in 0..u64::from(borrowers) {
                self.vm(borrower(GFN + number), Status::Success);
            }
            return;
        }
        self.donate(1, frame, 1, GFN, Status::Success);
        match holding {
            Holding::GuestShared { pins, .. } => {
                let share = call(1, GuestCallId::MemShare, GFN);
                self.run(1, RETRY, &[share], ExitReason::Interrupt);
                for _ in 0..pins {
                    self.vm(VmCall::PinShared(range(frame, 1)), Status::Success);
                }
            }
            Holding::Relinquished => {
                let up = call(1, GuestCallId::MemRelinquish, GFN);
                self.run(1, RETRY, &[up], ExitReason::Relinquished);
            }
            _ => {}
        }
        self.is(frame, holding);
    }

    pub(super) fn is(&self, frame: u64, holding: Holding) {
        assert_eq!(self.rig.memory().holding(self.rig.layout(), frame), Some(holding));
    }

    pub(super) fn destroy(&mut self, vm: u64) {
        let left = self.vm(VmCall::Destroy { vm }, Status::FramesLeft);
        let all = GuestRange::new(0, 1 << 24);
        assert!(left > 0);
        self.vm(VmCall::Reclaim { vm, range: all }, Status::Success);
        self.vm(VmCall::Destroy { vm }, Status::Success);
        self.vm(VmCall::Destroy { vm }, Status::NoSuchVm);
    }
}

pub(super) const RETRY: Entry = Entry::answer(Answer::Retry as u64, [0; 4]);
pub(super) const REFUSE: Entry = Entry::answer(Answer::Refuse as u64, [0; 4]);

pub(super) fn done(value: u64) -> Entry {
    Entry::answer(Answer::Done as u64, [value, 2, 3, 4])
}
