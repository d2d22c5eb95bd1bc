//! The tiny machines that the searches begin with, and what is tried on them.

use freehold_tests::spec::explore::{Deed, Report, Run};
use freehold_tests::spec::rig::{Rig, span};
use freehold_tests::spec::vm::guest::{Instruction, Reach};
use freehold_tests::spec::vm::run::Entry;
use freehold_tests::spec::{Holding, Memory, World};
use hyp_abi::guest_call::GuestCallId;
use hyp_abi::vm::VmFlags;
use hyp_abi::vm_call::GuestRange;
use hyp_abi::{FRAME_SIZE, FrameRange, HostCall, Status, VmCall};
use hyp_core::geometry::Tiny;

/// The first frame of RAM. The address space has 64 frames.
pub(super) const RAM: u64 = 0;
/// Bits of an IPA.
pub(super) const IPA_BITS: u64 = 20;
/// Where guests have memory: from the middle of a region on, over the border of the next.
pub(super) const GFN: u64 = 34;

pub(super) fn range(first: u64, frames: u64) -> FrameRange {
    FrameRange::new(first * FRAME_SIZE, frames)
}

pub(super) fn limited(pages: u64) -> World {
    World {
        pool_limit: Some(pages),
        ..World::default()
    }
}

pub(super) fn interrupted(polls: u64) -> World {
    World {
        interrupt_after: Some(polls),
        ..World::default()
    }
}

/// A machine with `boot` regions of EL2's, one that holds run pages, and `regions` of which the first frame is
/// answered.
pub(super) fn machine(boot: u64, regions: u64, places: usize) -> (Rig<Tiny>, u64) {
    let rig = Rig::with_places(
        &[span(RAM, (boot + 1 + regions) * 4)],
        span(RAM, boot * 4),
        places,
    );
    (rig, RAM + (boot + 1) * 4)
}

/// A call that leads to the state in which a search begins.
pub(super) fn make(rig: &mut Rig<Tiny>, call: HostCall) {
    let answer = rig
        .call(&World::default(), call.encode(), &[])
        .expect("a right answer");
    assert_eq!(answer.status, Status::Success, "{call:x?}");
    rig.compare_all().expect("a right state");
}

pub(super) fn create(flags: VmFlags) -> VmCall {
    VmCall::Create {
        flags: flags.bits(),
        vcpus: 1,
        ipa_bits: IPA_BITS,
    }
}

/// A VM with memory at `GFN..GFN + 6` and a vCPU, launched, with pages in reserve. Its run page is in the region before
/// `first`.
pub(super) fn launched(rig: &mut Rig<Tiny>, slot: u64, first: u64, flags: VmFlags, reserve: u64) {
    let vm = slot;
    let page = first - 4 + slot - 1;
    make(rig, HostCall::Vm(create(flags)));
    let memory = GuestRange::new(GFN, 6);
    make(rig, HostCall::Vm(VmCall::AddMemory { vm, range: memory }));
    make(rig, HostCall::ShareHyp(range(page, 1)));
    let run_page = page * FRAME_SIZE;
    make(
        rig,
        HostCall::Vm(VmCall::CreateVcpu {
            vm,
            index: 0,
            run_page,
        }),
    );
    if reserve > 0 {
        make(rig, HostCall::Vm(VmCall::TopUp { vm, pages: reserve }));
    }
    let launch = VmCall::Launch {
        vm,
        entry: GFN * FRAME_SIZE,
        argument: 0,
    };
    make(rig, HostCall::Vm(launch));
}

/// One run in which the guest does one thing, after which it is interrupted.
pub(super) fn run(slot: u8, answer: u64, world: World, script: &[Instruction]) -> Deed {
    Deed::Run(Run {
        slot,
        index: 0,
        entry: Entry::answer(answer, [7, 8, 9, 10]),
        script: script.to_vec(),
        world,
    })
}

pub(super) fn guest_call(id: GuestCallId, gfn: u64, pages: u64) -> Instruction {
    Instruction::Call(0, [u64::from(u32::from(id)), gfn * FRAME_SIZE, pages, 0])
}

pub(super) fn access(gfn: u64, reach: Reach) -> Instruction {
    Instruction::Access {
        ipa: gfn * FRAME_SIZE + 16,
        reach,
        bytes: 4,
        described: true,
    }
}

/// The calls in a few worlds.
pub(super) fn in_worlds(calls: &[VmCall], worlds: &[World]) -> Vec<Deed> {
    let mut deeds = Vec::new();
    for call in calls {
        for world in worlds {
            deeds.push(Deed::Call(HostCall::Vm(*call), world.clone()));
        }
    }
    deeds
}

pub(super) fn must_have_seen(report: &Report, states: u64, transitions: u64, statuses: &[Status]) {
    println!("{:?}\n{:?}\n{:?}", report.calls, report.statuses, report.exits);
    assert!(report.states >= states, "only {} states", report.states);
    assert!(
        report.transitions >= transitions,
        "only {} transitions",
        report.transitions
    );
    for status in statuses {
        assert!(
            report.statuses.contains_key(status),
            "{status:?} was never answered"
        );
    }
}

/// What the host may do was done at least once: it was not refused always.
pub(super) fn all_were_accepted(report: &Report) {
    for (call, tally) in &report.calls {
        assert!(tally.accepted > 0, "{call:?} was never accepted");
    }
}

pub(super) const PROTECTED: VmFlags = VmFlags::PROTECTED;

/// No frame has more pins or borrowers than this, and no VM more pages in reserve.
pub(super) fn small(counts: u16, reserve: u64) -> impl Fn(&Memory) -> bool {
    move |memory| {
        let few = |holding: &Holding| match holding {
            Holding::GuestShared { pins, .. } => *pins <= counts,
            Holding::SharedGuest { borrowers } => *borrowers <= counts,
            _ => true,
        };
        memory.frames().iter().all(few) && memory.vms().iter().all(|(_, vm)| vm.reserve <= reserve)
    }
}

/// The calls of a guest about its own memory, on each of these ranges.
pub(super) fn own_memory(slot: u8, ranges: &[(u64, u64)], worlds: &[World]) -> Vec<Deed> {
    let mut deeds = Vec::new();
    for id in [
        GuestCallId::MemShare,
        GuestCallId::MemUnshare,
        GuestCallId::MemRelinquish,
    ] {
        for (gfn, pages) in ranges {
            for world in worlds {
                deeds.push(run(slot, 0, world.clone(), &[guest_call(id, *gfn, *pages)]));
            }
        }
    }
    deeds.push(run(slot, 1, World::default(), &[]));
    deeds
}

/// What the host does to lent and given up frames.
pub(super) fn hosts_part(ranges: &[FrameRange]) -> Vec<VmCall> {
    let calls = [VmCall::PinShared, VmCall::UnpinShared, VmCall::TakeBack];
    ranges
        .iter()
        .flat_map(|range| calls.map(|call| call(*range)))
        .collect()
}

pub(super) fn force(frame: u64) -> VmCall {
    VmCall::ForceReclaim {
        frame: frame * FRAME_SIZE,
    }
}

pub(super) fn reclaim(vm: u64, gfn: u64, frames: u64) -> VmCall {
    VmCall::Reclaim {
        vm,
        range: GuestRange::new(gfn, frames),
    }
}

pub(super) fn donate(vm: u64, first: u64, frames: u64, gfn: u64) -> VmCall {
    VmCall::Donate {
        vm,
        range: range(first, frames),
        gfn,
    }
}
