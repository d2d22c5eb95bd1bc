//! Guests on a tiny machine: every call about VMs, and everything that a guest can do with its memory, in every state
//! that these lead to. Tables have four entries, regions four frames, a guest's IPAs 20 bits.
//!
//! Each search has its own choice of calls, so that all of it stays within reach, and says how much it must have seen.

#[path = "guests/machine.rs"]
mod machine;

use freehold_tests::spec::World;
use freehold_tests::spec::explore::{Deed, explore_within};
use freehold_tests::spec::vm::guest::{Instruction, Reach};
use hyp_abi::guest_call::GuestCallId;
use hyp_abi::run_page::ExitReason;
use hyp_abi::vm::{Permissions, VmFlags};
use hyp_abi::vm_call::GuestRange;
use hyp_abi::{FRAME_SIZE, HostCall, Status, VcpuRegister, VmCall};
use machine::{
    GFN, IPA_BITS, PROTECTED, access, all_were_accepted, create, donate, force, guest_call, hosts_part,
    in_worlds, interrupted, launched, limited, machine, make, must_have_seen, own_memory, range, reclaim,
    run, small,
};

/// All that can become of the pages of a protected VM, before and after its end: given, lent, pinned, given up, taken
/// by force, taken back.
#[test]
fn pages_of_a_protected_vm() {
    let (mut rig, first) = machine(10, 1, 1);
    launched(&mut rig, 1, first, PROTECTED, 5);
    let vm = 1;
    let mut calls = vec![
        donate(vm, first, 1, GFN),
        donate(vm, first, 2, GFN + 1),
        donate(vm, first + 1, 1, GFN + 2),
        force(first),
        force(first + 1),
        VmCall::Destroy { vm },
        reclaim(vm, 0, 256),
        reclaim(vm, GFN + 1, 1),
    ];
    calls.extend(hosts_part(&[range(first, 1), range(first, 2)]));
    let mut todo = in_worlds(&calls, &[World::default()]);
    let worlds = [limited(0), limited(1), interrupted(0), interrupted(1)];
    todo.extend(in_worlds(&[calls[1], calls[3], reclaim(vm, 0, 256)], &worlds));
    let ranges = [(GFN, 0), (GFN + 1, 2), (GFN + 2, 1)];
    todo.extend(own_memory(1, &ranges, &[World::default()]));
    todo.push(run(1, 0, World::default(), &[access(GFN, Reach::Store(1))]));
    let report = explore_within("pages", &mut rig, &todo, 60_000, small(1, 5));
    all_were_accepted(&report);
    must_have_seen(&report, 1_500, 55_000, &[Status::GfnLost, Status::FramesLeft]);
}

/// A block: a whole region at once, of which pages are lent, given up and lost; and the block that is rebuilt.
#[test]
fn blocks_of_a_protected_vm() {
    let (mut rig, first) = machine(10, 1, 1);
    launched(&mut rig, 1, first, PROTECTED, 4);
    let vm = 1;
    let mut calls = vec![
        donate(vm, first, 4, GFN + 2),
        donate(vm, first + 1, 3, GFN + 3),
        donate(vm, first, 1, GFN + 2),
        force(first + 3),
        VmCall::Destroy { vm },
        reclaim(vm, 0, 256),
    ];
    calls.extend(hosts_part(&[range(first, 4), range(first, 1)]));
    let mut todo = in_worlds(&calls, &[World::default()]);
    let worlds = [
        limited(0),
        limited(1),
        interrupted(0),
        interrupted(1),
        interrupted(2),
    ];
    todo.extend(in_worlds(&[calls[0], calls[1], reclaim(vm, 0, 256)], &worlds));
    todo.extend(own_memory(
        1,
        &[(GFN + 2, 1), (GFN + 2, 4), (GFN + 1, 5)],
        &[World::default()],
    ));
    let collapse = HostCall::Collapse(range(first, 4));
    todo.push(Deed::Call(collapse, World::default()));
    let report = explore_within("blocks", &mut rig, &todo, 60_000, small(1, 5));
    all_were_accepted(&report);
    must_have_seen(&report, 3_700, 140_000, &[Status::GfnMapped, Status::FramesLeft]);
}

/// A VM whose reserve has next to nothing: every call of host and guest that lacks a page, and goes on when there is
/// one.
#[test]
fn a_reserve_that_runs_dry() {
    let (mut rig, first) = machine(10, 1, 1);
    launched(&mut rig, 1, first, PROTECTED, 0);
    let vm = 1;
    let mut calls = vec![
        donate(vm, first, 4, GFN + 2),
        donate(vm, first, 1, GFN),
        donate(vm, first + 1, 1, GFN + 2),
        force(first),
        force(first + 1),
        VmCall::TopUp { vm, pages: 1 },
        VmCall::Destroy { vm },
        reclaim(vm, 0, 256),
    ];
    calls.extend(hosts_part(&[range(first, 2)]));
    let mut todo = in_worlds(&calls, &[World::default(), limited(0)]);
    todo.extend(own_memory(
        1,
        &[(GFN, 1), (GFN + 2, 2)],
        &[World::default(), limited(0)],
    ));
    let devices = [GuestCallId::MmioGuardMap, GuestCallId::MmioGuardUnmap];
    for id in devices {
        todo.push(run(1, 0, World::default(), &[guest_call(id, 200, 0)]));
    }
    let report = explore_within("a dry reserve", &mut rig, &todo, 60_000, small(1, 3));
    all_were_accepted(&report);
    must_have_seen(
        &report,
        14_000,
        520_000,
        &[Status::VmNeedsMemory, Status::NoMemory],
    );
    let needed = u64::from(ExitReason::MemoryNeeded);
    assert!(report.exits.contains_key(&needed), "no guest ever lacked pages");
}

/// The life of VMs: two places, handles that come and go, what each point of a life refuses.
#[test]
fn lives() {
    let (mut rig, first) = machine(11, 1, 2);
    make(&mut rig, HostCall::ShareHyp(range(first, 2)));
    let mut calls = vec![create(PROTECTED), create(VmFlags::GUARD_REQUIRED)];
    for (flags, vcpus, ipa_bits) in [
        (4, 1, IPA_BITS),
        (1, 0, IPA_BITS),
        (1, 65, IPA_BITS),
        (1, 1, IPA_BITS + 1),
    ] {
        calls.push(VmCall::Create {
            flags,
            vcpus,
            ipa_bits,
        });
    }
    for vm in [1, 2] {
        for (gfn, frames) in [(0, 0), (GFN, 2), (GFN + 1, 2), (255, 2)] {
            let range = GuestRange::new(gfn, frames);
            calls.push(VmCall::AddMemory { vm, range });
        }
        for (index, frame) in [(0, first), (1, first), (0, first + 2)] {
            let run_page = frame * FRAME_SIZE;
            calls.push(VmCall::CreateVcpu { vm, index, run_page });
        }
        for entry in [0, 2, 1 << IPA_BITS] {
            let argument = 3;
            calls.push(VmCall::Launch { vm, entry, argument });
        }
        calls.extend([0, 1, 1000].map(|pages| VmCall::TopUp { vm, pages }));
        calls.extend([0, 2].map(|half| VmCall::Digest { vm, half }));
        calls.extend([0, 4, 8].map(|statistic| VmCall::Statistics { vm, statistic }));
        calls.extend([
            VmCall::Rename { vm },
            VmCall::Destroy { vm },
            VmCall::Run { vm, index: 1 },
        ]);
        let (register, index) = (VcpuRegister::Power.to_register(), 0);
        calls.push(VmCall::ReadRegister { vm, index, register });
        calls.extend(
            [(0, 0), (0, 1), (0, 2), (1, 1)].map(|(index, value)| VmCall::WriteRegister {
                vm,
                index,
                register,
                value,
            }),
        );
        calls.push(donate(vm, first + 3, 1, GFN));
        calls.push(reclaim(vm, GFN, 1));
    }
    let mut todo = in_worlds(&calls, &[World::default()]);
    let poor = [limited(0), limited(1), limited(4)];
    let taking: Vec<VmCall> = calls
        .iter()
        .copied()
        .filter(|call| {
            matches!(
                call,
                VmCall::Create { .. } | VmCall::CreateVcpu { .. } | VmCall::TopUp { .. }
            )
        })
        .collect();
    todo.extend(in_worlds(&taking, &poor));
    let off = Instruction::Call(0, [0x8400_0008, 0, 0, 0]);
    for slot in [1, 2] {
        todo.push(run(slot, 0, World::default(), &[]));
        todo.push(run(slot, 0, World::default(), &[off]));
    }
    todo.push(Deed::Call(
        HostCall::UnshareHyp(range(first, 1)),
        World::default(),
    ));
    let report = explore_within("lives", &mut rig, &todo, 100_000, small(1, 1));
    must_have_seen(
        &report,
        3_500,
        400_000,
        &[
            Status::NoVmSlot,
            Status::NoSuchVm,
            Status::VcpuExists,
            Status::WrongVmState,
        ],
    );
}

/// Two VMs that borrow, with permissions that change, and pages that were used.
#[test]
fn frames_that_are_borrowed() {
    let (mut rig, first) = machine(11, 1, 2);
    for slot in [1, 2] {
        launched(&mut rig, slot, first, VmFlags::empty(), 3);
    }
    let read = Permissions::READ.bits();
    let all = Permissions::all().bits();
    let mut calls = Vec::new();
    for vm in [1, 2] {
        for (frame, frames, gfn, permissions) in [
            (first, 1, GFN, all),
            (first, 2, GFN + 1, read),
            (first + 1, 1, GFN + 1, all),
            (first, 4, GFN + 2, read),
            (first, 1, GFN, 2),
        ] {
            if vm == 2 && frames > 1 {
                continue;
            }
            calls.push(VmCall::Share {
                vm,
                range: range(frame, frames),
                gfn,
                permissions,
            });
        }
        for (gfn, frames) in [(GFN, 1), (GFN + 1, 1), (GFN + 2, 4), (GFN + 3, 1)] {
            let range = GuestRange::new(gfn, frames);
            calls.push(VmCall::Unshare { vm, range });
        }
        let range = GuestRange::new(GFN, 4);
        let permissions = Permissions::READ.bits() | Permissions::WRITE.bits();
        calls.push(VmCall::SetPermissions {
            vm,
            range,
            permissions,
        });
        calls.push(VmCall::TestAge { vm, range });
        calls.push(VmCall::Destroy { vm });
    }
    let mut todo = in_worlds(&calls, &[World::default()]);
    todo.extend(in_worlds(&calls[..4], &[limited(0), interrupted(0)]));
    todo.push(run(1, 0, World::default(), &[access(GFN + 1, Reach::Load)]));
    todo.push(run(1, 0, World::default(), &[access(GFN + 1, Reach::Store(5))]));
    let report = explore_within("borrowed", &mut rig, &todo, 100_000, small(2, 4));
    all_were_accepted(&report);
    must_have_seen(
        &report,
        12_000,
        390_000,
        &[Status::GfnNotMapped, Status::InvalidParameter],
    );
}

/// Devices: with and without a guard, allowed and not, and every answer of the host.
#[test]
fn devices_that_the_host_emulates() {
    for flags in [PROTECTED, PROTECTED | VmFlags::GUARD_REQUIRED, VmFlags::empty()] {
        let (mut rig, first) = machine(10, 1, 1);
        launched(&mut rig, 1, first, flags, 6);
        let mut todo = Vec::new();
        for id in [GuestCallId::MmioGuardMap, GuestCallId::MmioGuardUnmap] {
            for gfn in [5, GFN, 255, 256] {
                todo.push(run(1, 0, World::default(), &[guest_call(id, gfn, 0)]));
            }
        }
        for id in [GuestCallId::MmioGuardRangeMap, GuestCallId::MmioGuardRangeUnmap] {
            for (gfn, pages) in [(4, 2), (GFN - 1, 2), (4, 0)] {
                todo.push(run(1, 0, World::default(), &[guest_call(id, gfn, pages)]));
            }
        }
        for id in [
            GuestCallId::MmioGuardEnroll,
            GuestCallId::MmioGuardInfo,
            GuestCallId::MemInfo,
        ] {
            todo.push(run(1, 0, World::default(), &[guest_call(id, 0, 0)]));
        }
        for reach in [Reach::Load, Reach::Store(77), Reach::Fetch, Reach::Walk] {
            for gfn in [5, GFN] {
                todo.push(run(1, 0, World::default(), &[access(gfn, reach)]));
            }
        }
        let vague = Instruction::Access {
            ipa: 5 * FRAME_SIZE,
            reach: Reach::Load,
            bytes: 4,
            described: false,
        };
        todo.push(run(1, 0, World::default(), &[vague]));
        for answer in 0..4 {
            todo.push(run(1, answer, World::default(), &[]));
        }
        if flags.contains(PROTECTED) {
            todo.extend(in_worlds(
                &[donate(1, first, 1, 5), donate(1, first + 1, 1, GFN)],
                &[World::default()],
            ));
            todo.extend(in_worlds(
                &[force(first), VmCall::Destroy { vm: 1 }, reclaim(1, 0, 256)],
                &[World::default()],
            ));
        }
        let report = explore_within("devices", &mut rig, &todo, 100_000, small(1, 8));
        must_have_seen(&report, 250, 7_500, &[Status::InvalidParameter]);
    }
}

/// Broken memory: a frame answers with an error when it is read or zeroed.
#[test]
fn guests_of_broken_memory() {
    for launch in [false, true] {
        let (mut rig, first) = machine(10, 1, 1);
        let vm = 1;
        if launch {
            launched(&mut rig, 1, first, PROTECTED, 5);
        } else {
            make(&mut rig, HostCall::Vm(create(PROTECTED)));
            make(&mut rig, HostCall::Vm(VmCall::TopUp { vm, pages: 5 }));
        }
        let mut calls = vec![
            donate(vm, first, 4, GFN + 2),
            donate(vm, first, 2, GFN),
            donate(vm, first + 1, 1, GFN),
            donate(vm, first + 2, 2, GFN + 4),
            force(first + 1),
            VmCall::Destroy { vm },
            reclaim(vm, 0, 256),
        ];
        calls.extend(hosts_part(&[range(first, 4)]));
        let mut todo = in_worlds(&calls, &[World::default()]);
        if launch {
            todo.extend(own_memory(1, &[(GFN + 2, 4), (GFN + 1, 1)], &[World::default()]));
        }
        todo.extend([Deed::Break(first + 1), Deed::Break(first + 2)]);
        let report = explore_within("broken", &mut rig, &todo, 100_000, small(1, 5));
        must_have_seen(&report, 400, 4_700, &[Status::Poisoned, Status::FramesLeft]);
    }
}

/// Two protected VMs, of which each may get what the other gave up, lost or left behind, at the same place.
#[test]
fn frames_that_change_hands() {
    let (mut rig, first) = machine(11, 1, 2);
    let mut calls = Vec::new();
    for slot in [1, 2] {
        launched(&mut rig, slot, first, PROTECTED, 2);
        calls.extend([
            donate(slot, first, 1, GFN),
            donate(slot, first + 1, 2, GFN),
            VmCall::Destroy { vm: slot },
            reclaim(slot, 0, 256),
        ]);
    }
    calls.extend([force(first), force(first + 1)]);
    calls.extend(hosts_part(&[range(first, 2)]));
    let mut todo = in_worlds(&calls, &[World::default()]);
    for slot in [1, 2] {
        todo.extend(own_memory(slot, &[(GFN, 1), (GFN, 2)], &[World::default()]));
        todo.push(run(slot, 0, World::default(), &[access(GFN, Reach::Load)]));
    }
    let report = explore_within("hands", &mut rig, &todo, 200_000, small(1, 3));
    must_have_seen(&report, 38_000, 1_100_000, &[Status::GfnLost, Status::NotOwner]);
    all_were_accepted(&report);
}
