//! The memory of a guest, from its side: faults that are met, calls about pages, restarts.

use super::*;
use crate::addr::Ipa;
use crate::pgtable::{Change, IpaSpan, LargestLeaf};
use crate::vm::GuestAnnotation;
use hyp_abi::FrameState;
use hyp_abi::run_page::AccessFlags;
use hyp_abi::vm::VmStatistic;

const SHARE: u64 = 0xc600_0003;
const UNSHARE: u64 = 0xc600_0004;
const ENROLL: u64 = 0xc600_0006;
const GUARD_MAP: u64 = 0xc600_0007;
const GUARD_UNMAP: u64 = 0xc600_0008;
const RELINQUISH: u64 = 0xc600_0009;
const GUARD_RANGE_MAP: u64 = 0xc600_000a;
const INVALID_PARAMETER: u64 = (-3_i64).cast_unsigned();

const GFN: u64 = ENTRY >> 12;

fn donate(bench: Bench, vm: u64, frame: u64, gfn: u64, frames: u64) {
    let mut left = Some((frame, gfn, frames));
    while let Some((frame, gfn, frames)) = left {
        let done = bench.done(VmCall::Donate {
            vm,
            range: FrameRange::new(frame << 12, frames),
            gfn,
        });
        assert!(done > 0);
        left = (done < frames).then(|| (frame + done, gfn + done, frames - done));
    }
}

/// A protected VM with a reserve.
fn guest(bench: Bench) -> u64 {
    let vm = bench.guest();
    bench.done(VmCall::TopUp { vm, pages: 16 });
    vm
}

fn state(bench: Bench, frame: u64) -> FrameState {
    let call = HostCall::FrameState { frame: frame << 12 };
    FrameState::try_from(host_call(bench.own, call.encode()).values[0]).unwrap()
}

fn statistic(bench: Bench, vm: u64, statistic: VmStatistic) -> u64 {
    bench.done(VmCall::Statistics {
        vm,
        statistic: statistic.into(),
    })
}

/// The call must have been answered so.
fn answered(x0: u64, x1: u64) -> Act {
    look(move |context| assert_eq!(context.x[..4], [x0, x1, 0, 0], "{:x?}", &context.x[..4]))
}

/// Ends the VM, and looks whether everything is back.
fn end(bench: Bench, vm: u64) {
    let answer = bench.ask(VmCall::Destroy { vm });
    if answer.status == Status::Success {
        return;
    }
    assert_eq!(answer.status, Status::FramesLeft);
    let mut left = Some(MEMORY);
    while let Some(range) = left {
        let answer = bench.ask(VmCall::Reclaim { vm, range });
        let [value, ..] = answer.values;
        match answer.status {
            Status::Success => left = range.after(value),
            Status::VmNeedsMemory => {
                bench.done(VmCall::TopUp { vm, pages: value });
            }
            other => panic!("a dying VM's frames stay: {other:?}"),
        }
    }
    bench.destroy(vm);
}

#[test]
fn a_guest_meets_its_memory_by_faults() {
    let bench = Bench::new();
    let vm = guest(bench);
    let load = || act(|_| aborts(0x24 << 26 | IL | 0b111, ENTRY, ENTRY));
    bench.plays([load(), load()]);
    bench.runs_to(vm, ExitReason::MemoryFault, [GFN]);
    donate(bench, vm, FREE, GFN, 1);
    // It faults once more, as it did before the page was there, and is sent back.
    bench.runs_to(vm, ExitReason::Interrupt, []);
    end(bench, vm);
}

#[test]
fn a_page_is_lent_and_taken_back() {
    let bench = Bench::new();
    let vm = guest(bench);
    donate(bench, vm, FREE, GFN, 4);
    assert_eq!(state(bench, FREE), FrameState::NotYours);
    // Without a count, as KVM's own calls have none; then two of three.
    bench.plays([hvc([SHARE, ENTRY, 0, 0]), answered(0, 1)]);
    bench.runs_to(vm, ExitReason::Interrupt, []);
    assert_eq!(state(bench, FREE), FrameState::GuestSharedHost);
    bench.plays([hvc([SHARE, ENTRY + 0x1000, 2, 0]), answered(0, 2)]);
    bench.runs_to(vm, ExitReason::Interrupt, []);
    assert_eq!(statistic(bench, vm, VmStatistic::FramesShared), 3);
    bench.plays([hvc([SHARE, ENTRY, 1, 0]), answered(INVALID_PARAMETER, 0)]);
    bench.runs_to(vm, ExitReason::Interrupt, []);
    bench.plays([hvc([UNSHARE, ENTRY, 3, 0]), answered(0, 3)]);
    bench.runs_to(vm, ExitReason::Interrupt, []);
    bench.plays([hvc([UNSHARE, ENTRY, 1, 0]), answered(INVALID_PARAMETER, 0)]);
    bench.runs_to(vm, ExitReason::Interrupt, []);
    assert_eq!(statistic(bench, vm, VmStatistic::FramesPrivate), 4);
    end(bench, vm);
}

#[test]
fn to_lend_what_is_not_there_faults_it_in_and_does_it_again() {
    let bench = Bench::new();
    let vm = guest(bench);
    let call = AccessFlags::CALL.bits();
    bench.plays([
        hvc([SHARE, ENTRY, 0, 0]),
        act(|context| {
            assert_eq!(context.pc, ENTRY);
            assert_eq!(context.x[..4], [SHARE, ENTRY, 0, 0]);
            context.pc += 4;
            synchronous(ESR_HVC)
        }),
        answered(0, 1),
    ]);
    bench.runs_to(vm, ExitReason::MemoryFault, [GFN, call]);
    donate(bench, vm, FREE, GFN, 1);
    bench.runs_to(vm, ExitReason::Interrupt, []);
    assert_eq!(state(bench, FREE), FrameState::GuestSharedHost);
    // Of several the first ones are done, and the guest asks for the rest.
    bench.plays([hvc([SHARE, ENTRY + 0x1000, 2, 0]), answered(0, 1)]);
    donate(bench, vm, FREE + 1, GFN + 1, 1);
    bench.runs_to(vm, ExitReason::Interrupt, []);
    // The host refuses.
    bench.plays([
        hvc([SHARE, ENTRY + 0x2000, 0, 0]),
        look(|context| {
            assert_eq!((context.x[0], context.pc), (INVALID_PARAMETER, ENTRY + 12));
        }),
    ]);
    bench.runs_to(vm, ExitReason::MemoryFault, [GFN + 2, call]);
    bench.answers(Answer::Refuse, [0; 4]);
    bench.runs_to(vm, ExitReason::Interrupt, []);
    bench.says_nothing();
    // Nothing is there to be taken back or given up.
    for function in [UNSHARE, RELINQUISH] {
        bench.plays([
            hvc([function, ENTRY + 0x2000, 0, 0]),
            answered(INVALID_PARAMETER, 0),
        ]);
        bench.runs_to(vm, ExitReason::Interrupt, []);
    }
    end(bench, vm);
}

#[test]
fn a_pinned_page_is_asked_for_once_and_then_refused() {
    for function in [UNSHARE, RELINQUISH] {
        let bench = Bench::new();
        let vm = guest(bench);
        donate(bench, vm, FREE, GFN, 1);
        bench.plays([hvc([SHARE, ENTRY, 0, 0]), answered(0, 1)]);
        bench.runs_to(vm, ExitReason::Interrupt, []);
        let range = FrameRange::new(FREE << 12, 1);
        bench.done(VmCall::PinShared(range));

        // Still pinned when the host says to try again: refused, without another exit.
        bench.plays([hvc([function, ENTRY, 0, 0]), answered(INVALID_PARAMETER, 0)]);
        bench.runs_to(vm, ExitReason::Pinned, [GFN]);
        bench.answers(Answer::Retry, [0; 4]);
        bench.runs_to(vm, ExitReason::Interrupt, []);
        assert_eq!(state(bench, FREE), FrameState::GuestSharedHost);

        // The host refuses.
        bench.plays([hvc([function, ENTRY, 0, 0]), answered(INVALID_PARAMETER, 0)]);
        bench.says_nothing();
        bench.runs_to(vm, ExitReason::Pinned, [GFN]);
        bench.answers(Answer::Refuse, [0; 4]);
        bench.runs_to(vm, ExitReason::Interrupt, []);
        bench.says_nothing();

        // The host lets go; no answer is to try again.
        bench.plays([
            hvc([function, ENTRY, 0, 0]),
            look(|context| {
                assert_eq!(context.x[..2], [0, 1]);
                assert_eq!(context.pc, ENTRY + 16);
            }),
        ]);
        bench.runs_to(vm, ExitReason::Pinned, [GFN]);
        bench.done(VmCall::UnpinShared(range));
        if function == RELINQUISH {
            bench.runs_to(vm, ExitReason::Relinquished, [GFN, 1]);
        }
        bench.runs_to(vm, ExitReason::Interrupt, []);
        if function == RELINQUISH {
            bench.done(VmCall::TakeBack(range));
        }
        end(bench, vm);
    }
}

#[test]
fn pages_that_are_given_up_are_told_to_the_host() {
    let bench = Bench::new();
    let vm = guest(bench);
    donate(bench, vm, FREE, GFN, 3);
    bench.plays([
        hvc([RELINQUISH, ENTRY + 0x1000, 2, 0]),
        look(|context| {
            assert_eq!(context.x[..4], [0, 2, 0, 0]);
            assert_eq!(context.pc, ENTRY + 4);
        }),
        // What was given up faults in afresh.
        act(|_| aborts(0x24 << 26 | IL | 0b111, ENTRY, ENTRY + 0x1000)),
    ]);
    bench.runs_to(vm, ExitReason::Relinquished, [GFN + 1, 2]);
    assert_eq!(state(bench, FREE + 1), FrameState::Relinquished);
    let range = FrameRange::new((FREE + 1) << 12, 2);
    assert_eq!(bench.done(VmCall::TakeBack(range)), 2);
    assert_eq!(state(bench, FREE + 1), FrameState::Host);
    assert_eq!(statistic(bench, vm, VmStatistic::Relinquished), 2);
    assert_eq!(statistic(bench, vm, VmStatistic::FramesPrivate), 1);
    bench.runs_to(vm, ExitReason::Interrupt, []);
    bench.runs_to(vm, ExitReason::MemoryFault, [GFN + 1]);
    end(bench, vm);
}

#[test]
fn a_call_without_pages_in_the_reserve_asks_for_them_and_is_made_again() {
    let bench = Bench::new();
    let vm = bench.guest();
    // A whole region in one block: the tables of the way are all that it takes.
    bench.done(VmCall::TopUp { vm, pages: 2 });
    donate(bench, vm, FREE, GFN, 512);
    let reserve = statistic(bench, vm, VmStatistic::ReservePages);
    assert!(reserve < 2);
    bench.plays([
        hvc([SHARE, ENTRY, 0, 0]),
        act(|context| {
            assert_eq!((context.pc, context.x[0]), (ENTRY, SHARE));
            context.pc += 4;
            synchronous(ESR_HVC)
        }),
        answered(0, 1),
    ]);
    let (reason, values) = bench.run(vm, 0);
    assert_eq!(reason, ExitReason::MemoryNeeded);
    assert!(values[0] > 0);
    bench.done(VmCall::TopUp { vm, pages: values[0] });
    bench.runs_to(vm, ExitReason::Interrupt, []);
    end(bench, vm);
}

#[test]
fn a_page_that_was_taken_by_force_is_lost() {
    let bench = Bench::new();
    let vm = guest(bench);
    donate(bench, vm, FREE, GFN, 1);
    bench.done(VmCall::ForceReclaim { frame: FREE << 12 });
    let load = || act(|_| aborts(0x24 << 26 | IL | 0b111, ENTRY, ENTRY));
    bench.plays([load(), load()]);
    bench.runs_to(vm, ExitReason::Lost, [GFN]);
    bench.runs_to(vm, ExitReason::Lost, [GFN]);
    bench.plays([hvc([SHARE, ENTRY, 0, 0])]);
    bench.run(vm, 0);
    assert_eq!(statistic(bench, vm, VmStatistic::Lost), 1);
    end(bench, vm);
}

#[test]
fn the_guard_is_in_force_from_the_first_call_on() {
    const DEVICE: u64 = 0x900_0000;
    const LOAD: u64 = 0x24 << 26 | IL | 1 << 24 | 0b111;
    let load = |ipa: u64| act(move |_| aborts(LOAD, ipa, ipa));
    let is_refused = || look(|context| assert_eq!(context.pc, 0x200));
    for guard in [None, Some([ENROLL, 0, 0, 0]), Some([GUARD_MAP, DEVICE, 0, 0])] {
        let bench = Bench::new();
        let vm = guest(bench);
        if let Some(call) = guard {
            bench.plays([hvc(call), answered(0, 0)]);
            bench.runs_to(vm, ExitReason::Interrupt, []);
        }
        // Another page than the one that was mapped.
        bench.plays([load(DEVICE + 0x1000), is_refused()]);
        if guard.is_none() {
            bench.runs_to(vm, ExitReason::MmioRead, [DEVICE + 0x1000, 1]);
        } else {
            bench.runs_to(vm, ExitReason::Interrupt, []);
        }
        end(bench, vm);
    }
    let bench = Bench::new();
    let vm = bench.launched(VmFlags::PROTECTED | VmFlags::GUARD_REQUIRED, 1);
    bench.done(VmCall::TopUp { vm, pages: 8 });
    bench.plays([load(DEVICE), is_refused()]);
    bench.runs_to(vm, ExitReason::Interrupt, []);
    bench.plays([
        hvc([GUARD_RANGE_MAP, DEVICE, 2, 0]),
        answered(0, 2),
        load(DEVICE + 0x1004),
    ]);
    bench.runs_to(vm, ExitReason::Interrupt, []);
    bench.runs_to(vm, ExitReason::MmioRead, [DEVICE + 0x1004, 1]);
    bench.plays([
        hvc([GUARD_UNMAP, DEVICE + 0x1000, 0, 0]),
        load(DEVICE + 0x1004),
        is_refused(),
    ]);
    bench.runs_to(vm, ExitReason::Interrupt, []);
    // Its memory is no device, whatever it says.
    bench.plays([hvc([GUARD_MAP, ENTRY, 0, 0]), answered(INVALID_PARAMETER, 0)]);
    bench.runs_to(vm, ExitReason::Interrupt, []);
    end(bench, vm);
}

#[test]
fn everything_is_back_in_the_pool_when_a_vm_is_gone() {
    let bench = Bench::new();
    // What the run page's region takes stays as long as it is shared.
    bench.share(RUN_PAGES);
    let before = bench.hw().pages_in_use();
    for round in 0..2 {
        let vm = bench.guest();
        bench.done(VmCall::TopUp { vm, pages: 20 });
        donate(bench, vm, FREE, GFN, 600);
        bench.plays([
            hvc([SHARE, ENTRY + 0x5000, 3, 0]),
            hvc([GUARD_MAP, 0x900_0000, 0, 0]),
            hvc([RELINQUISH, ENTRY, 1, 0]),
        ]);
        bench.runs_to(vm, ExitReason::Relinquished, [GFN, 1]);
        bench.done(VmCall::ForceReclaim {
            frame: (FREE + 100) << 12,
        });
        bench.refused(
            VmCall::Reclaim {
                vm,
                range: GuestRange::new(GFN, 1),
            },
            Status::WrongVmState,
        );
        end(bench, vm);
        bench.done(VmCall::TakeBack(FrameRange::new(FREE << 12, 1)));
        let all = FrameRange::new(FREE << 12, 0x800);
        host_call(bench.own, HostCall::Collapse(all).encode());
        assert_eq!(bench.hw().pages_in_use(), before, "round {round}");
    }
}

#[test]
fn a_busy_page_is_tried_again_until_an_interrupt_waits() {
    let bench = Bench::new();
    let vm = guest(bench);
    let page = IpaSpan::page_of(Ipa::new(ENTRY).unwrap());
    let annotate = move |annotation: GuestAnnotation| {
        let change = Change::Unmap {
            annotation: annotation.encode(),
            largest: LargestLeaf::Page,
        };
        let table = bench.own.vms().lock(bench.hw(), vm).unwrap().table;
        table
            .apply(bench.hw(), page, change)
            .unwrap()
            .complete(bench.hw());
    };
    let load = || act(|_| aborts(0x24 << 26 | IL | 0b111, ENTRY, ENTRY));
    annotate(GuestAnnotation::Busy);
    bench.plays([load(), load(), hvc([SHARE, ENTRY, 0, 0]), hvc_again(), load()]);
    bench.runs_to(vm, ExitReason::Interrupt, []);
    bench.plays([look(|context| {
        assert_eq!((context.pc, context.x[0]), (ENTRY, SHARE));
    })]);
    bench.runs_to(vm, ExitReason::Interrupt, []);
    bench.hw().interrupt_after(Some(0));
    for step in [load(), hvc([SHARE, ENTRY, 0, 0])] {
        bench.plays([step, act(|_| panic!("the vCPU has exited"))]);
        bench.runs_to(vm, ExitReason::Interrupt, []);
    }
}
