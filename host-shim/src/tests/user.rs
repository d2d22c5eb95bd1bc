//! Guests that borrow from a process's own memory, and a kernel that takes pages from the process.

mod dirty;

use super::support::*;
use crate::fake::{Act, Fake, Owner};
use crate::provider::{Contents, Provider as _};
use crate::vcpu::Entry;
use crate::vm::{Loans, UserPage, UserSlotConfig};
use crate::{Block, Error, Exit, HostMemory as _, Pfn, Vcpu, Vm};
use alloc::collections::BTreeMap;
use alloc::sync::Arc;
use alloc::vec::Vec;
use core::cell::Cell;
use core::ops::Range;
use core::sync::atomic::{AtomicBool, Ordering};
use hyp_abi::run_page::AccessFlags;
use hyp_abi::vm::VmFlags;
use hyp_abi::{CallId, Status, VmCallId};

extern crate std;
use std::sync::Mutex;
use std::thread;

/// Where the process has what the guest borrows.
const ADDRESS: u64 = 0x7000_0000;
const PAGE: u64 = ADDRESS / P;

#[derive(Clone, Copy, Debug)]
struct Mapped {
    frame: Pfn,
    writable: bool,
}

impl UserPage for Mapped {
    fn frame(&self) -> Pfn {
        self.frame
    }

    fn is_writable(&self) -> bool {
        self.writable
    }

    fn set_dirty(&self) {
        assert!(self.writable);
    }
}

/// A process with memory, and a VM that borrows from it.
#[derive(Debug)]
struct Process {
    machine: Machine,
    pages: Mutex<BTreeMap<u64, Mapped>>,
    loans: Loans<Fake>,
    vm: Vm<Fake>,
}

impl Process {
    fn new() -> Self {
        let machine = Machine::new();
        let vm = machine.plain();
        Self {
            loans: vm.loans(),
            vm,
            machine,
            pages: Mutex::default(),
        }
    }

    /// One with a slot of so many pages, which it has.
    fn with_pages(pages: u64) -> Self {
        let process = Self::new();
        process.map(PAGE, pages);
        process.vm.add_user_slot(slot(0, GFN, PAGE, pages)).unwrap();
        process
    }

    fn launched(pages: u64) -> (Self, Vcpu<Fake>) {
        let process = Self::with_pages(pages);
        let vcpu = process.vm.create_vcpu(0).unwrap();
        process.vm.launch(IPA, 0).unwrap();
        (process, vcpu)
    }

    fn map(&self, first: u64, pages: u64) {
        for page in first..first + pages {
            let allocated = self.machine.provider.allocate(0, Contents::Any).unwrap();
            self.machine.fake.zero(allocated.pfn, 1).unwrap();
            let mapped = Mapped {
                frame: allocated.pfn,
                writable: true,
            };
            self.pages.lock().unwrap().insert(page, mapped);
        }
    }

    /// Takes pages from it, and frees them: then nobody borrows them.
    fn unmap(&self, range: Range<u64>) {
        self.loans.begin(&range, &mut || ());
        for page in range {
            let mapped = self.pages.lock().unwrap().remove(&page);
            if let Some(mapped) = mapped {
                assert_eq!(self.machine.fake.owner(mapped.frame), Owner::Host);
                self.machine.provider.free(Block::frame(mapped.frame));
            }
        }
        self.loans.end();
    }

    fn find(&self, address: u64, write: bool) -> Result<Mapped, Error> {
        let pages = self.pages.lock().unwrap();
        let mapped = pages.get(&(address / P)).ok_or(Error::NoBacking)?;
        if write && !mapped.writable {
            return Err(Error::NoBacking);
        }
        Ok(*mapped)
    }

    fn fault(&self, gfn: u64, write: bool) -> Result<(), Error> {
        self.vm
            .fault_user(gfn, write, |address, write| self.find(address, write))
    }

    /// Whether the guest has a page there.
    fn is_lent(&self, gfn: u64) -> bool {
        self.machine.fake.mapped(self.vm.handle(), gfn).is_some()
    }

    fn frame(&self, page: u64) -> Pfn {
        self.pages.lock().unwrap()[&page].frame
    }

    /// Runs a program to its end, and answers its faults.
    fn run(&self, vcpu: &mut Vcpu<Fake>, acts: impl IntoIterator<Item = Act>) -> Result<(), Error> {
        self.machine.fake.program(self.vm.handle(), 0, acts);
        loop {
            match vcpu.run(&Entry::new().retry()).unwrap() {
                Exit::MemoryFault { gfn, access } => {
                    self.fault(gfn, access.contains(AccessFlags::WRITE))?;
                }
                Exit::Interrupt => return Ok(()),
                other => panic!("{other:?}"),
            }
        }
    }

    fn end(self) {
        let Self {
            machine, pages, vm, ..
        } = self;
        drop(vm);
        for mapped in pages.into_inner().unwrap().into_values() {
            machine.provider.free(Block::frame(mapped.frame));
        }
        machine.assert_nothing_left();
    }
}

const fn slot(number: u32, gfn: u64, page: u64, pages: u64) -> UserSlotConfig {
    UserSlotConfig {
        slot: number,
        ipa: gfn * P,
        size: pages * P,
        address: page * P,
        read_only: false,
        logs: false,
    }
}

#[test]
fn guest_and_process_see_the_same_until_the_page_is_taken() {
    let (process, mut vcpu) = Process::launched(4);
    let fake = &process.machine.fake;
    fake.write(process.frame(PAGE), 0, &[5; P as usize]).unwrap();
    let acts = [Act::Expect(GFN, 5), Act::Write(GFN + 1, 6)];
    process.run(&mut vcpu, acts).unwrap();
    let there = process.frame(PAGE + 1);
    assert_eq!(
        (fake.byte(there, 9), fake.owner(there)),
        (6, Owner::Borrowed { by: 1 })
    );
    process.unmap(PAGE..PAGE + 2);
    let run = process.run(&mut vcpu, [Act::Expect(GFN + 1, 0)]);
    assert_eq!(run, Err(Error::NoBacking));
    process.map(PAGE + 1, 1);
    process.run(&mut vcpu, []).unwrap();
    drop(vcpu);
    process.end();
}

#[test]
fn a_page_at_two_places_is_taken_from_both() {
    let process = Process::with_pages(4);
    process.vm.add_user_slot(slot(1, GFN + 100, PAGE + 1, 2)).unwrap();
    for gfn in [GFN + 1, GFN + 2, GFN + 100] {
        process.fault(gfn, true).unwrap();
    }
    let owner = process.machine.fake.owner(process.frame(PAGE + 1));
    assert_eq!(owner, Owner::Borrowed { by: 2 });
    process.unmap(PAGE + 1..PAGE + 2);
    assert_eq!(
        [GFN + 1, GFN + 2, GFN + 100].map(|gfn| process.is_lent(gfn)),
        [false, true, false]
    );
    process.end();
}

#[test]
fn nothing_is_lent_of_what_is_being_taken_and_nothing_that_was_found_before() {
    let process = Process::with_pages(4);
    process.loans.begin(&(PAGE + 1..PAGE + 2), &mut || ());
    process.fault(GFN + 1, false).unwrap();
    process.fault(GFN + 2, false).unwrap();
    // Two at once: what lies between counts too.
    process.loans.begin(&(PAGE + 3..PAGE + 4), &mut || ());
    process.loans.end();
    process.fault(GFN + 1, false).unwrap();
    process.loans.end();
    assert_eq!([1, 2].map(|page| process.is_lent(GFN + page)), [false, true]);
    let looked = Cell::new(0);
    let fault = || {
        process.vm.fault_user(GFN + 1, true, |address, write| {
            let found = process.find(address, write);
            if looked.replace(looked.get() + 1) == 0 {
                // The page is another's before it is lent.
                process.unmap(PAGE + 1..PAGE + 2);
                process.map(PAGE + 1, 1);
            }
            found
        })
    };
    fault().unwrap();
    assert!(!process.is_lent(GFN + 1));
    fault().unwrap();
    assert!(process.is_lent(GFN + 1));
    process.end();
}

#[test]
fn a_guest_may_do_what_the_process_may_and_the_slot_says() {
    let process = Process::with_pages(2);
    let config = UserSlotConfig {
        read_only: true,
        ..slot(1, GFN + 100, PAGE, 2)
    };
    process.vm.add_user_slot(config).unwrap();
    assert_eq!(
        process.vm.user_slot_at(GFN + 101).map(|slot| slot.read_only),
        Some(true)
    );
    assert_eq!(process.fault(GFN + 100, true), Err(Error::NoBacking));
    process.fault(GFN + 100, false).unwrap();
    let vcpu = process.vm.create_vcpu(0).unwrap();
    process.vm.launch(IPA, 0).unwrap();
    let (mut vcpu, fake) = (vcpu, process.machine.fake.clone());
    let mut faults = |acts: &[Act]| {
        fake.program(process.vm.handle(), 0, acts.to_vec());
        match vcpu.run(&Entry::new().retry()).unwrap() {
            Exit::Interrupt => None,
            Exit::MemoryFault { gfn, access } => Some((gfn, access.contains(AccessFlags::WRITE))),
            other => panic!("{other:?}"),
        }
    };
    assert_eq!(faults(&[Act::Expect(GFN + 100, 0)]), None);
    assert_eq!(faults(&[Act::Write(GFN + 100, 1)]), Some((GFN + 100, true)));
    drop(vcpu);
    // A page that the process may only read, as one of zeroes is, until it writes there.
    process.pages.lock().unwrap().get_mut(&PAGE).unwrap().writable = false;
    process.fault(GFN, false).unwrap();
    assert_eq!(process.fault(GFN, true), Err(Error::NoBacking));
    process.end();
}

#[test]
fn a_frame_that_too_many_borrow_is_asked_for_as_one_of_its_own() {
    let process = Process::with_pages(1);
    let share = CallId::Vm(VmCallId::Share);
    process.machine.fake.refuse_next(share, Status::CountOverflow);
    let asked = Mutex::new(Vec::new());
    let fault = |write| {
        process.vm.fault_user(GFN, write, |address, write| {
            asked.lock().unwrap().push(write);
            process.find(address, write)
        })
    };
    fault(false).unwrap();
    assert_eq!(*asked.lock().unwrap(), [false, true]);
    process.unmap(PAGE..PAGE + 1);
    process.map(PAGE, 1);
    process.machine.fake.refuse_next(share, Status::CountOverflow);
    assert!(fault(true).is_err());
    process.end();
}

#[test]
fn memory_that_el2_wants_for_a_loan_is_given_and_if_there_is_none_nothing_is_lent() {
    for allocations in 0.. {
        let process = Process::with_pages(2);
        process.machine.fail_after(allocations);
        let lent = process.fault(GFN, true);
        process.machine.never_fail();
        assert_eq!(process.is_lent(GFN), lent.is_ok());
        process.end();
        match lent {
            Ok(()) => break,
            Err(error) => assert_eq!(error, Error::NoMemory),
        }
    }
}

#[test]
fn slots_move_and_go_and_take_what_is_lent_with_them() {
    let process = Process::with_pages(4);
    let vm = &process.vm;
    assert_eq!(
        vm.add_user_slot(slot(0, GFN + 50, PAGE, 1)),
        Err(Error::InvalidArgument)
    );
    assert_eq!(vm.add_user_slot(slot(1, GFN + 3, PAGE, 1)), Err(Error::Exists));
    vm.add_user_slot(slot(1, GFN + 4, PAGE, 1)).unwrap();
    process.fault(GFN + 1, true).unwrap();
    assert_eq!(vm.move_user_slot(0, IPA + P), Err(Error::Exists));
    assert_eq!(vm.move_user_slot(0, IPA + 1), Err(Error::InvalidArgument));
    assert_eq!(vm.move_user_slot(0, (1 << 40) - P), Err(Error::InvalidArgument));
    assert_eq!(vm.move_user_slot(7, IPA), Err(Error::NotFound));
    // Over itself.
    vm.move_user_slot(0, IPA - P).unwrap();
    assert!(!process.is_lent(GFN + 1));
    process.fault(GFN, true).unwrap();
    assert_eq!(
        process.machine.fake.mapped(vm.handle(), GFN),
        Some(process.frame(PAGE + 1))
    );
    assert_eq!(vm.user_slot(0), Some(slot(0, GFN - 1, PAGE, 4)));
    vm.delete_slot(0).unwrap();
    assert!(!process.is_lent(GFN));
    assert_eq!((vm.user_slot(0), vm.user_slot_at(GFN)), (None, None));
    assert_eq!(process.fault(GFN, true), Err(Error::NoBacking));
    process.end();
}

#[test]
fn what_a_slot_cannot_be_is_refused() {
    let process = Process::new();
    let good = slot(0, GFN, PAGE, 1);
    for config in [
        UserSlotConfig { slot: 32_767, ..good },
        UserSlotConfig { ipa: 1, ..good },
        UserSlotConfig { size: 0, ..good },
        UserSlotConfig { size: 100, ..good },
        UserSlotConfig {
            size: 1 << 43,
            ..good
        },
        UserSlotConfig { address: 8, ..good },
        UserSlotConfig {
            address: 0u64.wrapping_sub(P),
            size: 2 * P,
            ..good
        },
        UserSlotConfig { ipa: 1 << 40, ..good },
    ] {
        assert_eq!(process.vm.add_user_slot(config), Err(Error::InvalidArgument));
    }
    let protected = process.machine.vm(VmFlags::PROTECTED);
    assert_eq!(protected.add_user_slot(good), Err(Error::NotSupported));
    drop(protected);
    process.end();
}

#[test]
fn what_was_used_is_known_until_somebody_forgets_it() {
    let (process, mut vcpu) = Process::launched(4);
    let used = |page, forget| process.loans.is_used(&(PAGE + page..PAGE + page + 1), forget);
    assert!(!used(0, false));
    process
        .run(&mut vcpu, [Act::Expect(GFN, 0), Act::Expect(GFN + 1, 0)])
        .unwrap();
    assert!(used(0, false) && used(0, false) && used(0, true));
    assert!(!used(0, false) && !used(0, true));
    assert!(process.loans.is_used(&(PAGE..PAGE + 4), true));
    assert!(!used(1, false));
    drop(vcpu);
    process.end();
}

#[test]
fn a_process_that_is_gone_lends_nothing() {
    let process = Process::with_pages(3);
    process.fault(GFN, true).unwrap();
    process.fault(GFN + 2, true).unwrap();
    let mut pauses = 0;
    process.loans.over(&mut || pauses += 1);
    assert!(!process.is_lent(GFN) && !process.is_lent(GFN + 2));
    process.fault(GFN, true).unwrap();
    assert!(!process.is_lent(GFN));
    process.end();
}

#[test]
fn a_page_that_el2_does_not_take_back_is_the_end_of_the_vm() {
    let process = Process::with_pages(3);
    for page in 0..3 {
        process.fault(GFN + page, true).unwrap();
    }
    let unshare = CallId::Vm(VmCallId::Unshare);
    // That is no reason: it is asked again.
    process.machine.fake.refuse_next(unshare, Status::Busy);
    process.unmap(PAGE..PAGE + 1);
    assert_eq!(process.loans.stuck(), 0);
    process.machine.fake.refuse_next(unshare, Status::NoMemory);
    process.loans.begin(&(PAGE + 1..PAGE + 3), &mut || ());
    process.loans.end();
    assert_eq!(process.loans.stuck(), 1);
    assert_eq!([1, 2].map(|page| process.is_lent(GFN + page)), [true, false]);
    assert!(process.vm.core().is_doomed());
    process.end();
}

#[test]
fn of_many_slots_those_are_found_that_have_the_page() {
    let process = Process::new();
    let vm = &process.vm;
    process.map(PAGE, 400);
    // One that lies below all the others, and above some.
    vm.add_user_slot(slot(999, GFN + 1000, PAGE, 400)).unwrap();
    for number in 0..200 {
        let at = (number * 77) % 200;
        vm.add_user_slot(slot(number as u32, GFN + 2 * at, PAGE + 2 * at, 1))
            .unwrap();
    }
    for page in [0, 398, 250] {
        process.fault(GFN + page, true).unwrap();
        process.fault(GFN + 1000 + page, true).unwrap();
    }
    process.unmap(PAGE + 398..PAGE + 399);
    process.unmap(PAGE + 250..PAGE + 251);
    let lent = |page| [process.is_lent(GFN + page), process.is_lent(GFN + 1000 + page)];
    assert_eq!([0, 398, 250].map(lent), [[true; 2], [false; 2], [false; 2]]);
    for number in 0..200 {
        vm.delete_slot(number).unwrap();
    }
    assert_eq!(lent(0), [false, true]);
    process.unmap(PAGE..PAGE + 400);
    assert_eq!(lent(0), [false, false]);
    process.end();
}

#[test]
fn whatever_happens_at_once_nothing_is_lent_that_the_process_has_not() {
    let process = Arc::new(Process::with_pages(16));
    let done = AtomicBool::new(false);
    thread::scope(|scope| {
        for step in [3, 5] {
            let (process, done) = (&process, &done);
            scope.spawn(move || {
                let mut page = 0;
                while !done.load(Ordering::SeqCst) {
                    page = (page + step) % 16;
                    let result = process.fault(GFN + page, step == 3);
                    assert!(matches!(result, Ok(()) | Err(Error::NoBacking)), "{result:?}");
                }
            });
        }
        let process = &process;
        scope.spawn(|| {
            for round in 0..2000 {
                let first = PAGE + round * 7 % 14;
                process.unmap(first..first + 3);
                process.map(first, 3);
                if round % 50 == 0 {
                    process.vm.delete_slot(0).unwrap();
                    process.vm.add_user_slot(slot(0, GFN, PAGE, 16)).unwrap();
                }
            }
            done.store(true, Ordering::SeqCst);
        });
    });
    Arc::into_inner(process).unwrap().end();
}

#[test]
fn a_vm_that_begins_again_has_borrowed_nothing() {
    let (process, vcpu) = Process::launched(4);
    process.fault(GFN, true).unwrap();
    process.fault(GFN + 2, true).unwrap();
    process.vm.renew().unwrap();
    for page in [PAGE, PAGE + 2] {
        assert_eq!(process.machine.fake.owner(process.frame(page)), Owner::Host);
    }
    // The kernel finds nothing to take back from the new VM, and what it lends is lent to that.
    process.loans.begin(&(PAGE..PAGE + 1), &mut || ());
    process.loans.end();
    process.vm.launch(IPA, 0).unwrap();
    process.fault(GFN, true).unwrap();
    assert_eq!(process.loans.stuck(), 0);
    process.unmap(PAGE..PAGE + 4);
    drop(vcpu);
}
