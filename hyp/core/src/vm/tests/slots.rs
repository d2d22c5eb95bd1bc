//! What belongs to a slot: the VMID of its VM, and what keeps the VM in it.

use super::*;
use crate::double::Step;
use crate::hardware::Regime;
use hyp_abi::vm::Permissions;

/// Lets a VM that is not protected borrow a frame, at the start of its memory.
fn borrow(bench: Bench, vm: u64, frame: u64) {
    bench.done(VmCall::TopUp { vm, pages: 4 });
    bench.done(VmCall::Share {
        vm,
        range: FrameRange::new(frame << 12, 1),
        gfn: MEMORY.gfn,
        permissions: Permissions::all().bits(),
    });
}

fn unborrow(bench: Bench, vm: u64) {
    let range = GuestRange::new(MEMORY.gfn, 1);
    bench.done(VmCall::Unshare { vm, range });
}

#[test]
fn the_translations_of_a_vm_are_those_of_its_slot() {
    let bench = Bench::new();
    let vms = [0; 3].map(|_| bench.create(VmFlags::empty(), 1));
    for (vm, slot) in vms.into_iter().zip(1..) {
        let regime = Regime::Guest(slot);
        assert_eq!(
            bench.own.vms().lock(bench.hw(), vm).unwrap().table.regime(),
            regime
        );
        borrow(bench, vm, FREE + u64::from(slot));
        bench.hw().record(true);
        unborrow(bench, vm);
        let log = bench.hw().take_log();
        bench.hw().record(false);
        let forgotten: Vec<_> = log
            .iter()
            .filter_map(|step| match step {
                Step::Invalidate(regime, _) => Some(*regime),
                _ => None,
            })
            .collect();
        assert_eq!(forgotten, [regime]);
    }
}

#[test]
fn a_vm_that_borrows_does_not_go() {
    let bench = Bench::new();
    let vm = bench.create(VmFlags::empty(), 1);
    borrow(bench, vm, FREE + 1);
    let answer = bench.ask(VmCall::Destroy { vm });
    assert_eq!((answer.status, answer.values[0]), (Status::FramesLeft, 1));
    unborrow(bench, vm);
    bench.destroy(vm);
    bench.refused(VmCall::Destroy { vm }, Status::NoSuchVm);
}
