//! The life of a VM, call by call.

use super::*;
use crate::hardware::TablePage;
use crate::vm::VcpuSlot;
use hyp_abi::vm::{MAX_MEMORY_RANGES, MAX_VMS, VmStatistic};

fn create(flags: u64, vcpus: u64, ipa_bits: u64) -> VmCall {
    VmCall::Create {
        flags,
        vcpus,
        ipa_bits,
    }
}

fn add(vm: u64, gfn: u64, frames: u64) -> VmCall {
    VmCall::AddMemory {
        vm,
        range: GuestRange::new(gfn, frames),
    }
}

fn vcpu(vm: u64, index: u64, frame: u64) -> VmCall {
    VmCall::CreateVcpu {
        vm,
        index,
        run_page: frame << 12,
    }
}

fn launch(vm: u64, entry: u64) -> VmCall {
    VmCall::Launch {
        vm,
        entry,
        argument: 0,
    }
}

#[test]
fn the_registers_of_a_dead_vcpu_are_zeroed_before_its_page_is_free() {
    use crate::double::Step;
    let bench = Bench::new();
    let vm = bench.launched(VmFlags::PROTECTED, 2);
    let homes: Vec<Frame> = {
        let vm = bench.own.vms().lock(bench.hw(), vm).unwrap();
        let homes = vm.vcpus.iter().filter_map(|slot| match slot {
            VcpuSlot::Resting { home, .. } => Some(home.page().frame()),
            _ => None,
        });
        homes.collect()
    };
    assert_eq!(homes.len(), 2);
    bench.hw().record(true);
    let _ = bench.hw().take_log();
    bench.destroy(vm);
    let log = bench.hw().take_log();
    for home in homes {
        let place = |wanted: Step| log.iter().position(|step| *step == wanted);
        let zeroed = place(Step::Scrub(FrameSpan::single(home)));
        let free = place(Step::Free(TablePage::new(home)));
        assert!(zeroed.is_some() && zeroed < free, "{zeroed:?} {free:?}");
    }
}

#[test]
fn a_vm_with_many_pages_ends_in_steps_while_interrupts_wait() {
    let bench = Bench::new();
    let used = bench.hw().pages_in_use();
    let vm = bench.launched(VmFlags::PROTECTED, 1);
    bench.done(VmCall::TopUp { vm, pages: 200 });
    // Tables from end to end of what the guest has: holes of a page each in as many tables.
    bench.plays((0..100).map(|number| {
        let device = 0x10_0000_0000 + (number << 21) + 0x1000;
        hvc([hyp_abi::GuestCallId::MmioGuardMap as u64, device, 0, 0])
    }));
    bench.run(vm, 0);
    bench.hw().interrupt_after(Some(0));
    let mut left = Vec::new();
    loop {
        let answer = bench.ask(VmCall::Destroy { vm });
        if answer.status != Status::Busy {
            assert_eq!(answer, HostReturn::success([0; 3]));
            break;
        }
        left.push(answer.values[0]);
        assert_eq!(
            left.last(),
            Some(&bench.done(VmCall::Statistics {
                vm,
                statistic: VmStatistic::PagesTotal.into(),
            }))
        );
    }
    assert_eq!(left.len(), 3, "{left:?}");
    assert!(left.is_sorted_by(|more, less| *more >= less + 64), "{left:?}");
    bench.refused(VmCall::Destroy { vm }, Status::NoSuchVm);
    let call = HostCall::UnshareHyp(FrameRange::new(RUN_PAGES << 12, 1));
    assert_eq!(host_call(bench.own, call.encode()).status, Status::Success);
    bench.hw().interrupt_after(None);
    let call = HostCall::Collapse(FrameRange::new(RUN_PAGES << 12, 512));
    assert_eq!(host_call(bench.own, call.encode()).status, Status::Success);
    assert!(bench.hw().pages_in_use() <= used + 4, "EL2's own tables stay");
}

#[test]
fn a_top_up_stops_for_an_interrupt_after_a_step() {
    use hyp_abi::vm::TOP_UP_STEP;
    let bench = Bench::new();
    let vm = bench.create(VmFlags::PROTECTED, 1);
    bench.hw().interrupt_after(Some(0));
    assert_eq!(bench.done(VmCall::TopUp { vm, pages: 200 }), TOP_UP_STEP);
    assert_eq!(
        bench.done(VmCall::TopUp {
            vm,
            pages: TOP_UP_STEP
        }),
        2 * TOP_UP_STEP
    );
    bench.hw().interrupt_after(Some(1));
    assert_eq!(bench.done(VmCall::TopUp { vm, pages: 200 }), 4 * TOP_UP_STEP);
    bench.hw().interrupt_after(None);
    bench.refused(VmCall::TopUp { vm, pages: 1 << 40 }, Status::NoMemory);
    let held = VmCall::Statistics {
        vm,
        statistic: VmStatistic::ReservePages.into(),
    };
    assert_eq!(bench.done(held), 4 * TOP_UP_STEP);
}

#[test]
fn a_vcpus_arguments_are_judged_before_the_pool_is() {
    let bench = Bench::new();
    let vm = bench.create(VmFlags::PROTECTED, 2);
    bench.share(RUN_PAGES);
    let drained = |pages| bench.done(VmCall::TopUp { vm, pages });
    let (free, _) = bench.hw().pool_pages();
    drained(free);
    bench.refused(vcpu(vm, 0, RUN_PAGES + 1), Status::NotShared);
    bench.refused(vcpu(vm, 0, RAM), Status::NotOwner);
    bench.refused(vcpu(vm, 0, 1), Status::NotMemory);
    bench.refused(vcpu(vm, 2, RUN_PAGES), Status::NoSuchVcpu);
    bench.refused(vcpu(vm, 0, RUN_PAGES), Status::NoMemory);
}

#[test]
fn a_vm_that_is_dying_has_no_digest() {
    let bench = Bench::new();
    let vm = bench.launched(VmFlags::PROTECTED, 1);
    let donate = VmCall::Donate {
        vm,
        range: FrameRange::new(FREE << 12, 1),
        gfn: MEMORY.gfn,
    };
    bench.done(VmCall::TopUp { vm, pages: 8 });
    bench.done(donate);
    bench.plays([hvc([0x8400_0008, 0, 0, 0])]);
    bench.runs_to(vm, ExitReason::SystemOff, []);
    for half in [0, 1] {
        assert_ne!(
            bench.done(VmCall::Digest { vm, half }),
            0,
            "one that is off has it"
        );
    }
    bench.refused(VmCall::Destroy { vm }, Status::FramesLeft);
    for half in [0, 1] {
        bench.refused(VmCall::Digest { vm, half }, Status::WrongVmState);
    }
}

/// Every call that names a VM.
fn calls_about(vm: u64) -> Vec<VmCall> {
    let range = GuestRange::new(0x80000, 1);
    let frames = FrameRange::new(FREE << 12, 1);
    std::vec![
        add(vm, 1, 1),
        vcpu(vm, 0, RUN_PAGES),
        launch(vm, 0),
        VmCall::Digest { vm, half: 0 },
        VmCall::Run { vm, index: 0 },
        VmCall::Destroy { vm },
        VmCall::TopUp { vm, pages: 1 },
        VmCall::Rename { vm },
        VmCall::Donate {
            vm,
            range: frames,
            gfn: 0x80000
        },
        VmCall::Share {
            vm,
            range: frames,
            gfn: 0x80000,
            permissions: 1
        },
        VmCall::Unshare { vm, range },
        VmCall::Reclaim { vm, range },
        VmCall::SetPermissions {
            vm,
            range,
            permissions: 1
        },
        VmCall::TestAge { vm, range },
        VmCall::Statistics { vm, statistic: 0 },
        VmCall::Audit { vm, range },
    ]
}

#[test]
fn a_vm_takes_pages_and_gives_all_of_them_back() {
    let bench = Bench::new();
    let before = bench.hw().pages_in_use();
    for (bits, root) in [(32, 1), (40, 2), (43, 16), (44, 1), (48, 1)] {
        let vm = bench.done(create(1, 64, bits));
        assert_eq!(bench.hw().pages_in_use(), before + 1 + root, "{bits}");
        let statistic = |which: VmStatistic| {
            bench.done(VmCall::Statistics {
                vm,
                statistic: which.into(),
            })
        };
        assert_eq!(statistic(VmStatistic::PagesTotal), 1 + root);
        assert_eq!(bench.done(VmCall::TopUp { vm, pages: 5 }), 5);
        assert_eq!(bench.done(VmCall::TopUp { vm, pages: 2 }), 7);
        assert_eq!(statistic(VmStatistic::ReservePages), 7);
        assert_eq!(statistic(VmStatistic::PagesTotal), 8 + root);
        bench.destroy(vm);
        assert_eq!(bench.hw().pages_in_use(), before);
    }
}

#[test]
fn what_cannot_be_is_not_created() {
    let bench = Bench::new();
    for call in [
        create(4, 1, 40),
        create(u64::MAX, 1, 40),
        create(1, 0, 40),
        create(1, 65, 40),
        create(1, 1 << 32 | 1, 40),
        create(1, 1, 31),
        create(1, 1, 49),
        create(1, 1, u64::MAX),
    ] {
        bench.refused(call, Status::InvalidParameter);
    }
    let before = bench.hw().pages_in_use();
    for pages in 0..3 {
        bench.hw().limit_pool(Some(pages));
        let answer = bench.ask(create(1, 1, 40));
        assert_eq!((answer.status, answer.values[0]), (Status::NoMemory, 3));
        assert_eq!(bench.hw().pages_in_use(), before);
    }
    bench.hw().limit_pool(Some(3));
    bench.done(create(1, 1, 40));
}

#[test]
fn there_are_255_vms_and_no_more() {
    let bench = Bench::new();
    let vms: Vec<u64> = (0..MAX_VMS).map(|_| bench.done(create(1, 1, 32))).collect();
    let slots: Vec<u64> = vms.iter().map(|vm| vm & 0xff).collect();
    assert_eq!(slots, (1..=255).collect::<Vec<u64>>());
    bench.refused(create(1, 1, 32), Status::NoVmSlot);
    bench.destroy(vms[100]);
    let next = bench.done(create(1, 1, 32));
    assert_eq!(next & 0xff, 101);
    assert_ne!(next, vms[100], "a slot that is used again has another handle");
    bench.refused(VmCall::Destroy { vm: vms[100] }, Status::NoSuchVm);
    for vm in vms
        .iter()
        .enumerate()
        .filter(|(n, _)| *n != 100)
        .map(|(_, vm)| *vm)
    {
        bench.destroy(vm);
    }
    bench.destroy(next);
}

#[test]
fn a_handle_that_names_nothing_is_refused_everywhere() {
    let bench = Bench::new();
    let vm = bench.guest();
    bench.share(FREE + 1);
    let gone = bench.create(VmFlags::PROTECTED, 1);
    bench.destroy(gone);
    let renamed = bench.create(VmFlags::PROTECTED, 1);
    let old = renamed;
    bench.done(VmCall::Rename { vm: renamed });
    let other_slot = VmHandle {
        slot: 200,
        generation: 1,
    };
    for handle in [
        0,
        u64::MAX,
        vm & 0xff,
        vm & !0xff,
        vm + 0x100,
        vm | 1 << 40,
        gone,
        old,
        other_slot.to_register(),
    ] {
        for call in calls_about(handle) {
            bench.refused(call, Status::NoSuchVm);
        }
    }
    // The real one is untouched.
    bench.runs_to(vm, ExitReason::Interrupt, []);
}

#[test]
fn memory_is_declared_in_ranges_that_are_apart() {
    let bench = Bench::new();
    let vm = bench.create(VmFlags::PROTECTED, 1);
    bench.refused(add(vm, 0x1000, 0), Status::EmptyRange);
    let end = 1 << 28;
    for call in [
        add(vm, end, 1),
        add(vm, end - 1, 2),
        add(vm, u64::MAX, 1),
        add(vm, 1, u64::MAX),
        add(vm, 1 << 52, 1),
    ] {
        bench.refused(call, Status::GfnOutOfRange);
    }
    bench.done(add(vm, 0x1000, 0x10));
    for call in [
        add(vm, 0x1000, 1),
        add(vm, 0x100f, 1),
        add(vm, 0xfff, 2),
        add(vm, 0, 0x2000),
    ] {
        bench.refused(call, Status::InvalidParameter);
    }
    bench.done(add(vm, 0x1010, 1));
    bench.done(add(vm, 0xfff, 1));
    bench.done(add(vm, end - 1, 1));
    for number in 0..(MAX_MEMORY_RANGES as u64 - 4) {
        bench.done(add(vm, 0x10_0000 + 2 * number, 1));
    }
    bench.refused(add(vm, 0x20_0000, 1), Status::InvalidParameter);
}

#[test]
fn a_vcpu_pins_its_run_page_until_the_vm_is_gone() {
    let bench = Bench::new();
    let vm = bench.create(VmFlags::PROTECTED, 2);
    let (page, before) = (FREE + 7, bench.hw().pages_in_use());
    bench.refused(vcpu(vm, 2, page), Status::NoSuchVcpu);
    bench.refused(vcpu(vm, 1 << 32, page), Status::NoSuchVcpu);
    bench.refused(vcpu(vm, 0, page), Status::NotShared);
    bench.refused(
        VmCall::CreateVcpu {
            vm,
            index: 0,
            run_page: (page << 12) + 8,
        },
        Status::Misaligned,
    );
    bench.refused(vcpu(vm, 0, RAM), Status::NotOwner);
    bench.refused(vcpu(vm, 0, 1), Status::NotMemory);
    bench.refused(vcpu(vm, 0, 1 << 40), Status::RangeOverflow);
    assert_eq!(bench.hw().pages_in_use(), before);
    bench.share(page);
    bench.done(vcpu(vm, 0, page));
    bench.refused(vcpu(vm, 0, page), Status::VcpuExists);
    // One page may serve two; the host has itself to blame.
    bench.done(vcpu(vm, 1, page));
    let unshare = HostCall::UnshareHyp(FrameRange::new(page << 12, 1));
    assert_eq!(host_call(bench.own, unshare.encode()).status, Status::Pinned);
    bench.destroy(vm);
    assert_eq!(host_call(bench.own, unshare.encode()).status, Status::Success);
}

#[test]
fn a_vcpu_without_a_page_leaves_nothing_behind() {
    let bench = Bench::new();
    let vm = bench.create(VmFlags::PROTECTED, 1);
    bench.share(FREE);
    let before = bench.hw().pages_in_use();
    let mut needed = 0;
    loop {
        bench.hw().limit_pool(Some(needed));
        let answer = bench.ask(vcpu(vm, 0, FREE));
        if answer.status == Status::Success {
            break;
        }
        assert_eq!(answer.status, Status::NoMemory);
        assert!(answer.values[0] > 0);
        assert_eq!(bench.hw().pages_in_use(), before);
        needed += 1;
        assert!(needed < 10);
    }
    assert!(needed > 0);
}

#[test]
fn a_top_up_is_all_or_nothing() {
    let bench = Bench::new();
    let vm = bench.create(VmFlags::PROTECTED, 1);
    bench.refused(VmCall::TopUp { vm, pages: 0 }, Status::EmptyRange);
    bench.hw().limit_pool(Some(3));
    let before = bench.hw().pages_in_use();
    for pages in [4, 1000, 1 << 40, u64::MAX] {
        let answer = bench.ask(VmCall::TopUp { vm, pages });
        assert_eq!(answer.status, Status::NoMemory);
        assert!(answer.values[0] > 0);
        assert_eq!(bench.hw().pages_in_use(), before);
    }
    assert_eq!(bench.done(VmCall::TopUp { vm, pages: 3 }), 3);
}

#[test]
fn a_launch_needs_a_first_vcpu_and_a_place_to_begin() {
    let bench = Bench::new();
    let vm = bench.create(VmFlags::PROTECTED, 2);
    bench.refused(launch(vm, ENTRY), Status::NoSuchVcpu);
    bench.create_vcpu(vm, 1);
    bench.refused(launch(vm, ENTRY), Status::NoSuchVcpu);
    bench.create_vcpu(vm, 0);
    for entry in [1, 2, 3, ENTRY + 2, u64::MAX] {
        bench.refused(launch(vm, entry), Status::InvalidParameter);
    }
    for entry in [1 << 40, 0xffff_0000_0000_0000] {
        bench.refused(launch(vm, entry), Status::GfnOutOfRange);
    }
    bench.refused(VmCall::Run { vm, index: 0 }, Status::WrongVmState);
    bench.refused(VmCall::Digest { vm, half: 0 }, Status::WrongVmState);
    bench.done(launch(vm, ENTRY));
    for call in [launch(vm, ENTRY), add(vm, 0x9_0000, 1), vcpu(vm, 1, FREE)] {
        bench.refused(call, Status::WrongVmState);
    }
    bench.refused(VmCall::Run { vm, index: 1 }, Status::VcpuOff);
    bench.refused(VmCall::Run { vm, index: 2 }, Status::NoSuchVcpu);
    bench.refused(VmCall::Run { vm, index: 1 << 40 }, Status::NoSuchVcpu);
    bench.runs_to(vm, ExitReason::Interrupt, []);
}

#[test]
fn the_digest_tells_launches_apart() {
    let bench = Bench::new();
    let digest = |flags: VmFlags, ranges: &[(u64, u64)], entry: u64, argument: u64| {
        let vm = bench.create(flags, 1);
        for (gfn, frames) in ranges {
            bench.done(add(vm, *gfn, *frames));
        }
        bench.create_vcpu(vm, 0);
        bench.done(VmCall::Launch { vm, entry, argument });
        let half = |half| {
            let answer = bench.ask(VmCall::Digest { vm, half });
            assert_eq!(answer.status, Status::Success);
            [answer.values[0], answer.values[1]]
        };
        let both = (half(0), half(1));
        bench.refused(VmCall::Digest { vm, half: 2 }, Status::InvalidParameter);
        bench.refused(VmCall::Digest { vm, half: u64::MAX }, Status::InvalidParameter);
        bench.destroy(vm);
        both
    };
    let guarded = VmFlags::PROTECTED | VmFlags::GUARD_REQUIRED;
    let base = digest(VmFlags::PROTECTED, &[(1, 2)], 0, 0);
    assert_eq!(base, digest(VmFlags::PROTECTED, &[(1, 2)], 0, 0));
    let others = [
        digest(guarded, &[(1, 2)], 0, 0),
        digest(VmFlags::PROTECTED, &[(1, 3)], 0, 0),
        digest(VmFlags::PROTECTED, &[(1, 1), (2, 1)], 0, 0),
        digest(VmFlags::PROTECTED, &[], 0, 0),
        digest(VmFlags::PROTECTED, &[(1, 2)], 4, 0),
        digest(VmFlags::PROTECTED, &[(1, 2)], 0, 4),
    ];
    assert!(others.iter().all(|other| *other != base));
    // The order of the calls does not matter, that of the ranges is theirs.
    assert_eq!(
        digest(VmFlags::PROTECTED, &[(9, 1), (1, 2)], 0, 0),
        digest(VmFlags::PROTECTED, &[(1, 2), (9, 1)], 0, 0)
    );
}

#[test]
fn the_digest_is_made_as_it_is_documented() {
    use sha2::{Digest, Sha256};
    let bench = Bench::new();
    let vm = bench.guest();
    let mut sha = Sha256::new();
    sha.update(b"Freehold launch\0");
    for number in [1, 1, 40, ENTRY, 77, 1, MEMORY.gfn, MEMORY.frames] {
        sha.update(number.to_le_bytes());
    }
    sha.update(Sha256::digest([]));
    let expected: [u8; 32] = sha.finalize().into();
    let first = bench.ask(VmCall::Digest { vm, half: 0 }).values;
    let second = bench.ask(VmCall::Digest { vm, half: 1 }).values;
    let words = [first[0], first[1], second[0], second[1]];
    let bytes: Vec<u8> = words.iter().flat_map(|word| word.to_le_bytes()).collect();
    assert_eq!(bytes, expected);
}

#[test]
fn a_vm_that_is_dying_only_dies() {
    let bench = Bench::new();
    let vm = bench.guest();
    // A frame on its way keeps it.
    bench.own.vms().lock(bench.hw(), vm).unwrap().counts.in_transit = 2;
    let answer = bench.ask(VmCall::Destroy { vm });
    assert_eq!((answer.status, answer.values[0]), (Status::FramesLeft, 2));
    for call in [
        add(vm, 1, 1),
        vcpu(vm, 0, FREE),
        launch(vm, 0),
        VmCall::Digest { vm, half: 0 },
        VmCall::Run { vm, index: 0 },
        VmCall::Rename { vm },
    ] {
        bench.refused(call, Status::WrongVmState);
    }
    bench.done(VmCall::TopUp { vm, pages: 1 });
    bench.done(VmCall::Statistics { vm, statistic: 0 });
    bench.own.vms().lock(bench.hw(), vm).unwrap().counts.in_transit = 0;
    bench.destroy(vm);
    bench.refused(VmCall::Destroy { vm }, Status::NoSuchVm);
}

#[test]
fn a_launch_waits_for_memory_that_is_on_its_way() {
    let bench = Bench::new();
    let vm = bench.create(VmFlags::PROTECTED, 1);
    bench.create_vcpu(vm, 0);
    bench.own.vms().lock(bench.hw(), vm).unwrap().counts.in_transit = 1;
    bench.refused(launch(vm, ENTRY), Status::Busy);
    bench.own.vms().lock(bench.hw(), vm).unwrap().counts.in_transit = 0;
    bench.done(launch(vm, ENTRY));
}

#[test]
fn a_renamed_vm_goes_on_as_it_is() {
    let bench = Bench::new();
    let vm = bench.guest();
    let digest = bench.ask(VmCall::Digest { vm, half: 1 });
    bench.plays([
        act(|context| {
            context.x[19] = 4711;
            interrupt()
        }),
        look(|context| assert_eq!(context.x[19], 4711)),
    ]);
    bench.runs_to(vm, ExitReason::Interrupt, []);
    let new = bench.done(VmCall::Rename { vm });
    assert_eq!(new & 0xff, vm & 0xff);
    bench.refused(VmCall::Run { vm, index: 0 }, Status::NoSuchVm);
    assert_eq!(bench.ask(VmCall::Digest { vm: new, half: 1 }), digest);
    bench.runs_to(new, ExitReason::Interrupt, []);
    bench.destroy(new);
}

#[test]
fn every_figure_has_a_number() {
    let bench = Bench::new();
    let vm = bench.launched(VmFlags::PROTECTED, 3);
    {
        let mut vm = bench.own.vms().lock(bench.hw(), vm).unwrap();
        vm.counts.private = 10;
        vm.counts.shared = 11;
        vm.counts.borrowed = 12;
        vm.counts.relinquished = 13;
        vm.counts.lost = 14;
    }
    let figures: Vec<u64> = (0..8)
        .map(|statistic| bench.done(VmCall::Statistics { vm, statistic }))
        .collect();
    assert_eq!(figures, [10, 11, 12, 0, 1 + 2 + 3, 3, 13, 14]);
    bench.refused(VmCall::Statistics { vm, statistic: 8 }, Status::InvalidParameter);
    bench.refused(
        VmCall::Statistics {
            vm,
            statistic: u64::MAX,
        },
        Status::InvalidParameter,
    );
}

#[test]
fn nothing_is_done_to_a_vm_that_runs() {
    let bench = Bench::new();
    let vm = bench.launched(VmFlags::PROTECTED, 2);
    bench.plays([act(move |_| {
        // What another CPU meets meanwhile.
        bench.refused(VmCall::Run { vm, index: 0 }, Status::VcpuRunning);
        bench.refused(VmCall::Destroy { vm }, Status::VcpuRunning);
        bench.refused(VmCall::Rename { vm }, Status::VcpuRunning);
        bench.done(VmCall::TopUp { vm, pages: 1 });
        interrupt()
    })]);
    bench.runs_to(vm, ExitReason::Interrupt, []);
    bench.destroy(vm);
}
