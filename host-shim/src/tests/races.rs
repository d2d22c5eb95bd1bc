//! Faults, punches, deletions and closes at the same time.

use super::support::*;
use crate::fake::{Act, Owner};
use crate::memfd::{LivePunch, MemfdFlags, PartialPunch};
use crate::vcpu::{Entry, PinnedPolicy};
use crate::{Error, Exit, MemfdConfig};
use alloc::sync::Arc;
use core::sync::atomic::{AtomicBool, Ordering};
use core::time::Duration;
use hyp_abi::vm::VmFlags;
use hyp_abi::{CallId, VmCallId};

extern crate std;
use std::thread;

/// Long enough for a thread that does not wait to come to its end.
const A_WHILE: Duration = Duration::from_millis(30);

#[test]
fn a_punch_waits_for_whoever_maps_the_page() {
    let machine = Machine::new();
    let guest = machine.guest(VmFlags::empty(), MemfdConfig::new(4 * P));
    let done = AtomicBool::new(false);
    thread::scope(|scope| {
        let guard = guest.file.get_pfn(P).unwrap();
        let frame = guard.pfn();
        let (file, done) = (&guest.file, &done);
        scope.spawn(move || {
            file.punch(0, 4 * P).unwrap();
            done.store(true, Ordering::SeqCst);
        });
        thread::sleep(A_WHILE);
        assert!(!done.load(Ordering::SeqCst));
        assert_eq!(guest.file.get_pfn(0).unwrap().order(), 0);
        assert_eq!(machine.fake.owner(frame), Owner::Host);
        assert!(machine.provider.buddy.free_frames() < crate::fake::FRAMES);
        drop(guard);
    });
    assert!(done.load(Ordering::SeqCst));
    drop(guest);
    machine.assert_nothing_left();
}

#[test]
fn a_fault_waits_for_whoever_holds_the_page_and_finds_what_he_left() {
    let machine = Machine::new();
    let guest = machine.guest(VmFlags::PROTECTED, MemfdConfig::new(4 * P));
    let done = AtomicBool::new(false);
    thread::scope(|scope| {
        let guard = guest.file.get_pfn(0).unwrap();
        let (vm, done) = (&guest.vm, &done);
        scope.spawn(move || {
            vm.fault(GFN).unwrap();
            done.store(true, Ordering::SeqCst);
        });
        thread::sleep(A_WHILE);
        assert!(!done.load(Ordering::SeqCst));
        assert_eq!(machine.fake.mapped(guest.vm.handle(), GFN), None);
        // Pages of other extents are nobody's business.
        guest.vm.fault(GFN + 1).unwrap();
        drop(guard);
    });
    assert!(machine.fake.mapped(guest.vm.handle(), GFN).is_some());
}

#[test]
fn pf05_a_deletion_waits_for_whoever_maps_from_the_slot() {
    // Of the fault and the deletion that both wait for the page, either may be first.
    for _ in 0..50 {
        let machine = Machine::new();
        let guest = machine.guest(VmFlags::empty(), MemfdConfig::new(4 * P));
        let done = AtomicBool::new(false);
        thread::scope(|scope| {
            let guard = guest.file.get_pfn(0).unwrap();
            let (vm, done) = (&guest.vm, &done);
            scope.spawn(move || {
                vm.delete_slot(0).unwrap();
                done.store(true, Ordering::SeqCst);
            });
            scope.spawn(move || {
                let result = vm.fault(GFN);
                assert!(matches!(result, Ok(()) | Err(Error::NoBacking)), "{result:?}");
            });
            thread::sleep(Duration::from_millis(1));
            assert!(!done.load(Ordering::SeqCst));
            drop(guard);
        });
        assert_eq!(machine.fake.mapped(guest.vm.handle(), GFN), None);
        assert_eq!(guest.vm.fault(GFN), Err(Error::NoBacking));
        drop(guest);
        machine.assert_nothing_left();
    }
}

#[test]
fn a_pin_that_comes_while_a_punch_is_at_work_stops_it() {
    let machine = Machine::new();
    let config = MemfdConfig {
        flags: MemfdFlags::all(),
        ..MemfdConfig::new(2 * P)
    };
    let guest = machine.guest(VmFlags::empty(), config);
    guest.vm.populate(hyp_abi::GuestRange::new(GFN, 2)).unwrap();
    let pin = Arc::new(std::sync::Mutex::new(None));
    let (file, pinned) = (guest.file.clone(), pin.clone());
    machine.fake.before_next(CallId::Vm(VmCallId::Unshare), move || {
        *pinned.lock().unwrap() = Some(file.pin(P, P).unwrap());
    });
    assert_eq!(guest.file.punch(0, 2 * P), Err(Error::Pinned { offset: P }));
    assert_eq!(guest.file.resident_pages(), 1);
    pin.lock().unwrap().take().unwrap().write(0, &[1]).unwrap();
    drop(guest);
    machine.assert_nothing_left();
}

#[test]
fn a_vm_that_is_renamed_in_the_middle_of_a_call_is_called_again() {
    let machine = Machine::new();
    let guest = machine.guest(VmFlags::PROTECTED, MemfdConfig::new(200 * P));
    let vm = Arc::new(guest.vm);
    let other = vm.clone();
    machine.fake.before_next(CallId::Vm(VmCallId::Donate), move || {
        other.rename().unwrap();
    });
    vm.fault(GFN).unwrap();
    let other = vm.clone();
    machine
        .fake
        .before_next(CallId::Vm(VmCallId::Statistics), move || {
            other.rename().unwrap();
        });
    assert!(vm.statistic(hyp_abi::vm::VmStatistic::Vcpus).is_ok());
    drop((vm, guest.vcpu, guest.file));
    machine.assert_nothing_left();
}

#[test]
fn faults_against_punches_leave_no_page_with_two_owners() {
    for kind in [VmFlags::PROTECTED, VmFlags::empty()] {
        for order in [0, 3] {
            let machine = Machine::new();
            let config = MemfdConfig {
                order,
                partial_punch: PartialPunch::Split,
                live_punch: LivePunch::Force,
                ..MemfdConfig::new(32 * P)
            };
            let guest = machine.guest(kind, config);
            let (vm, file) = (&guest.vm, &guest.file);
            thread::scope(|scope| {
                for thread in 0..2_u64 {
                    scope.spawn(move || {
                        for step in 0..300_u64 {
                            match vm.fault(GFN + (step * 7 + thread * 3) % 32) {
                                Ok(()) | Err(Error::Lost) => {}
                                Err(error) => panic!("{error}"),
                            }
                        }
                    });
                    scope.spawn(move || {
                        for step in 0..100_u64 {
                            file.punch((step * 5 + thread) % 31 * P, 2 * P).unwrap();
                        }
                    });
                }
            });
            drop(guest);
            machine.assert_nothing_left();
        }
    }
}

#[test]
fn vcpus_on_several_cpus_share_one_memory() {
    let machine = Machine::new();
    let vm = machine.protected();
    let file = machine.file(&vm, 64);
    vm.add_slot(slot(0, IPA, 64 * P, &file, 0)).unwrap();
    let vcpus: [_; 4] = core::array::from_fn(|index| vm.create_vcpu(index as u64).unwrap());
    vm.launch(IPA, 0).unwrap();
    for index in 0..4 {
        let acts = (0..64).map(|page| match (page + index) % 16 {
            3 => Act::Share(GFN + page),
            // Every vCPU gives up pages of its own.
            7 if page % 4 == index => Act::Relinquish(GFN + page, 1),
            _ => Act::Expect(GFN + page / 4 * 4, 0),
        });
        machine.fake.program(vm.handle(), index, acts);
    }
    thread::scope(|scope| {
        for mut vcpu in vcpus {
            scope.spawn(move || {
                let exit = vcpu.run_on(&Entry::new(), PinnedPolicy::Refuse);
                assert_eq!(exit, Ok(Exit::Interrupt));
            });
        }
        let file = &file;
        scope.spawn(move || {
            for page in (0..64).cycle().take(500) {
                drop(file.pin(page * P, P));
            }
        });
    });
    drop((vm, file));
    machine.assert_nothing_left();
}

#[test]
fn pc08_disjoint_parts_are_worked_on_at_once() {
    let machine = Machine::new();
    let guest = machine.guest(VmFlags::empty(), MemfdConfig::new(64 * P));
    let (vm, file) = (&guest.vm, &guest.file);
    thread::scope(|scope| {
        for part in 0..4_u64 {
            scope.spawn(move || {
                for _ in 0..50 {
                    vm.populate(hyp_abi::GuestRange::new(GFN + part * 16, 16))
                        .unwrap();
                    file.punch(part * 16 * P, 16 * P).unwrap();
                }
            });
        }
    });
    assert_eq!(guest.file.resident_pages(), 0);
    drop(guest);
    machine.assert_nothing_left();
}

#[test]
fn a_vm_may_end_while_others_fault_pin_punch_and_close() {
    for kind in [VmFlags::PROTECTED, VmFlags::empty()] {
        for round in 0..30 {
            let machine = Machine::new();
            let Guest { vm, file, vcpu } = machine.guest(kind, MemfdConfig::new(16 * P));
            let vm = &vm;
            thread::scope(|scope| {
                scope.spawn(move || {
                    for page in 0..16 {
                        // Refused once the VM is dying.
                        let _ = vm.fault(GFN + page);
                    }
                });
                let clone = file.clone();
                scope.spawn(move || {
                    for page in 0..16 {
                        let _ = clone.punch(page * P, P);
                        let _ = clone.pin(page * P, P);
                    }
                });
                scope.spawn(move || {
                    for _ in 0..round {
                        thread::yield_now();
                    }
                    let _ = vm.destroy();
                });
                drop(file);
            });
            vm.destroy().unwrap();
            drop(vcpu);
            machine.assert_nothing_left();
        }
    }
}
