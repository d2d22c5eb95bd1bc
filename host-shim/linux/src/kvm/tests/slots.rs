//! Slots of a process's own memory, and guests in them.

use crate::kvm::abi::{
    ARM_VCPU_INIT, CREATE_VCPU, CREATE_VM, GET_DIRTY_LOG, MEM_LOG_DIRTY_PAGES, MEM_READONLY, RUN,
    SET_USER_MEMORY_REGION, VM_TYPE_PROTECTED,
};
use crate::kvm::fake::{Machine, USER};
use crate::kvm::{System, Vcpu, Vm};
use crate::linux::downcast;
use crate::{Descriptor, Errno, Linux as _};
use host_shim::fake::{Act, Owner};
use host_shim::{HostMemory as _, Pfn};
use hyp_abi::FRAME_SIZE as P;
use hyp_abi::run_page::{AccessFlags, ExitReason};
use std::sync::Arc;

const BASE: u64 = 0x8000_0000;
const GFN: u64 = BASE / P;
/// Where the process has its memory.
const ADDRESS: u64 = 0x7000_0000;

/// A VM with a vCPU, whose process has four pages.
struct Guest {
    machine: Machine,
    system: Arc<System<Machine>>,
    vm: Arc<Vm<Machine>>,
    vcpu: Arc<Vcpu<Machine>>,
    descriptors: Vec<u64>,
}

impl Guest {
    fn new() -> Self {
        let machine = Machine::new();
        machine.map(ADDRESS, 4, 1);
        let system = System::start(machine.clone()).unwrap();
        let vm = system.ioctl(CREATE_VM, 0).unwrap();
        let vcpu = machine.object(vm).ioctl(CREATE_VCPU, 0).unwrap();
        let guest = Self {
            vm: downcast(machine.object(vm)).unwrap(),
            vcpu: downcast(machine.object(vcpu)).unwrap(),
            system,
            machine,
            descriptors: vec![vcpu, vm],
        };
        let init = [5_u32, 4, 0, 0, 0, 0, 0, 0];
        let argument = guest.machine.set_user(0, &init);
        Arc::clone(&guest.vcpu).ioctl(ARM_VCPU_INIT, argument).unwrap();
        guest
    }

    fn set(&self, number: u32, flags: u32, gpa: u64, pages: u64, address: u64) -> Result<u64, Errno> {
        let region = [
            u64::from(number) | u64::from(flags) << 32,
            gpa,
            pages * P,
            address,
        ];
        let argument = self.machine.set_user(0, &region);
        Arc::clone(&self.vm).ioctl(SET_USER_MEMORY_REGION, argument)
    }

    fn run(&self, acts: &[Act]) -> Result<u64, Errno> {
        let handle = self.vm.shim().unwrap().handle();
        self.machine
            .el2
            .program(handle, 0, acts.iter().cloned().chain([OFF]));
        Arc::clone(&self.vcpu).ioctl(RUN, 0)
    }

    fn again(&self) -> Result<u64, Errno> {
        Arc::clone(&self.vcpu).ioctl(RUN, 0)
    }

    fn word(&self, index: usize) -> u64 {
        let mut frame = None;
        self.vcpu
            .fault(0, &mut |pfn: Pfn| {
                frame = Some(pfn);
                Ok(())
            })
            .unwrap();
        self.machine.load_word(frame.unwrap(), index)
    }

    fn owner(&self, page: u64) -> Owner {
        self.machine.el2.owner(self.machine.frame_at(ADDRESS + page * P))
    }

    /// The process ends, and its memory goes.
    fn end(self, pages: u64) {
        let Self {
            machine,
            system,
            vm,
            vcpu,
            descriptors,
        } = self;
        drop((vm, vcpu));
        for descriptor in descriptors {
            machine.close(descriptor);
        }
        machine.unmap(ADDRESS, pages);
        system.stop();
        machine.assert_nothing_left();
    }
}

const OFF: Act = Act::Exit(ExitReason::SystemOff, [0; 7]);

#[test]
fn a_guest_works_in_its_processs_memory_until_that_is_unmapped() {
    let guest = Guest::new();
    guest.set(0, 0, BASE, 4, ADDRESS).unwrap();
    let acts = [
        Act::Expect(GFN, 1),
        Act::Write(GFN + 1, 7),
        Act::Expect(GFN + 1, 7),
    ];
    assert_eq!(guest.run(&acts), Ok(0));
    assert_eq!(guest.owner(1), Owner::Borrowed { by: 1 });
    assert_eq!(guest.machine.el2.byte(guest.machine.frame_at(ADDRESS + P), 0), 7);
    assert!(guest.machine.is_used(ADDRESS, false) && guest.machine.is_used(ADDRESS, true));
    assert!(!guest.machine.is_used(ADDRESS, false));
    // Both may be written to, so both count as written to.
    assert_eq!(guest.machine.unmap(ADDRESS, 3), [true, true, false]);
    guest.end(4);
}

#[test]
fn what_the_process_has_not_is_a_fault_and_goes_on_once_it_has() {
    let guest = Guest::new();
    guest.set(0, 0, BASE, 8, ADDRESS).unwrap();
    assert_eq!(guest.run(&[Act::Write(GFN + 5, 1)]), Err(Errno::FAULT));
    let exit = [1, 4, 5, 6].map(|word| guest.word(word));
    assert_eq!(exit, [39, 0, BASE + 5 * P, P]);
    guest.machine.map(ADDRESS + 5 * P, 1, 0);
    assert_eq!(guest.again(), Ok(0));
    guest.end(8);
}

#[test]
fn a_page_that_the_process_may_only_read_is_not_written_to() {
    let guest = Guest::new();
    guest.set(0, 0, BASE, 4, ADDRESS).unwrap();
    guest.machine.protect(ADDRESS, 1, false);
    let acts = [Act::Expect(GFN, 1), Act::Write(GFN, 2)];
    assert_eq!(guest.run(&acts), Err(Errno::FAULT));
    guest.machine.protect(ADDRESS, 1, true);
    assert_eq!(guest.again(), Ok(0));
    guest.machine.protect(ADDRESS, 1, false);
    assert_eq!(guest.owner(0), Owner::Host);
    guest.end(4);
}

#[test]
fn what_is_written_to_a_slot_that_may_only_be_read_is_written_to_a_device() {
    let guest = Guest::new();
    guest.set(0, MEM_READONLY, BASE, 4, ADDRESS).unwrap();
    let store = Act::Exit(ExitReason::MmioWrite, [BASE + 8, 4, 0x1234, 0, 0, 0, 0]);
    let load = Act::Exit(ExitReason::MmioRead, [BASE + P, 4, 0, 0, 0, 0, 0]);
    assert_eq!(guest.run(&[Act::Expect(GFN, 1), load, store]), Ok(0));
    let exit = [1, 4, 5, 6].map(|word| guest.word(word));
    assert_eq!(exit, [6, BASE + 8, 0x1234, 4 | 1 << 32]);
    // What no syndrome describes is refused.
    let pair = [GFN, AccessFlags::WRITE.bits(), 0, 0, 0, 0, 0];
    assert_eq!(guest.run(&[Act::Exit(ExitReason::MemoryFault, pair)]), Ok(0));
    // It is still what it was.
    assert_eq!(guest.machine.el2.byte(guest.machine.frame_at(ADDRESS), 8), 1);
    guest.end(4);
}

#[test]
fn a_fetch_where_there_is_nothing_is_refused_and_no_fault_of_user_space() {
    let guest = Guest::new();
    guest.set(0, 0, BASE, 4, ADDRESS).unwrap();
    let fetch = [5, AccessFlags::FETCH.bits(), 0, 0, 0, 0, 0];
    assert_eq!(
        guest.run(&[Act::Exit(ExitReason::MemoryFault, fetch), OFF]),
        Ok(0)
    );
    guest.end(4);
}

#[test]
fn slots_are_refused_as_kvm_refuses_them() {
    let guest = Guest::new();
    for flags in (2..32).map(|bit| 1 << bit) {
        assert_eq!(guest.set(0, flags, BASE, 1, ADDRESS), Err(Errno::INVAL));
    }
    assert_eq!(guest.set(0, 0, BASE, 0, ADDRESS), Err(Errno::INVAL));
    assert_eq!(guest.set(0, 0, BASE + 1, 1, ADDRESS), Err(Errno::INVAL));
    assert_eq!(guest.set(0, 0, BASE, 1, ADDRESS + 1), Err(Errno::INVAL));
    assert_eq!(guest.set(32_767, 0, BASE, 1, ADDRESS), Err(Errno::INVAL));
    assert_eq!(guest.set(0, 0, 1 << 40, 1, ADDRESS), Err(Errno::FAULT));
    guest.set(0, 0, BASE, 2, ADDRESS).unwrap();
    assert_eq!(guest.set(1, 0, BASE + P, 1, ADDRESS), Err(Errno::EXIST));
    // As it is: nothing changes.
    guest.set(0, 0, BASE, 2, ADDRESS).unwrap();
    for (flags, pages, address) in [(0, 3, ADDRESS), (0, 2, ADDRESS + P), (MEM_READONLY, 2, ADDRESS)] {
        let changed = guest.set(0, flags, BASE, pages, address);
        assert_eq!(changed, Err(Errno::INVAL), "{flags} {pages} {address:#x}");
    }
    guest.set(1, 0, BASE + 8 * P, 1, ADDRESS).unwrap();
    assert_eq!(guest.set(0, 0, BASE + 7 * P, 2, ADDRESS), Err(Errno::EXIST));
    assert_eq!(guest.set(0, 0, (1 << 40) - P, 2, ADDRESS), Err(Errno::FAULT));
    guest.set(0, 0, BASE + 6 * P, 2, ADDRESS).unwrap();
    assert_eq!(guest.run(&[Act::Expect(GFN + 6, 1)]), Ok(0));
    guest.machine.become_process(2);
    assert_eq!(guest.set(0, 0, BASE, 2, ADDRESS), Err(Errno::IO));
    guest.machine.become_process(1);
    guest.end(4);
}

#[test]
fn a_protected_guest_has_none_of_its_processs_memory() {
    let machine = Machine::new();
    let system = System::start(machine.clone()).unwrap();
    let vm = system.ioctl(CREATE_VM, VM_TYPE_PROTECTED).unwrap();
    let argument = machine.set_user(0, &[0, BASE, P, ADDRESS]);
    let set = machine.object(vm).ioctl(SET_USER_MEMORY_REGION, argument);
    assert_eq!(set, Err(Errno::INVAL));
    machine.close(vm);
    system.stop();
    machine.assert_nothing_left();
}

#[test]
fn what_a_guest_writes_to_is_told_as_bits() {
    let guest = Guest::new();
    let log = |slot: u64| {
        let argument = guest.machine.set_user(0, &[slot, USER + 64]);
        let told = Arc::clone(&guest.vm).ioctl(GET_DIRTY_LOG, argument);
        told.map(|_| guest.machine.user::<u64>(64))
    };
    guest.set(0, 0, BASE, 4, ADDRESS).unwrap();
    assert_eq!(log(0), Err(Errno::NOENT));
    assert_eq!(log(1), Err(Errno::NOENT));
    assert_eq!(log(1 << 16), Err(Errno::INVAL));
    guest.set(0, MEM_LOG_DIRTY_PAGES, BASE, 4, ADDRESS).unwrap();
    let acts = [
        Act::Write(GFN + 2, 1),
        Act::Expect(GFN, 1),
        Act::Write(GFN + 3, 1),
    ];
    assert_eq!(guest.run(&acts), Ok(0));
    assert_eq!(log(0), Ok(0b1100));
    assert_eq!(log(0), Ok(0));
    let argument = guest.machine.set_user(0, &[0, 8_u64]);
    let told = Arc::clone(&guest.vm).ioctl(GET_DIRTY_LOG, argument);
    assert_eq!(told, Err(Errno::FAULT));
    guest.end(4);
}

#[test]
fn a_process_that_ends_first_gets_its_memory_back_first() {
    let guest = Guest::new();
    guest.set(0, 0, BASE, 4, ADDRESS).unwrap();
    assert_eq!(guest.run(&[Act::Write(GFN, 1), Act::Write(GFN + 3, 1)]), Ok(0));
    guest.machine.unmap(ADDRESS, 4);
    assert_eq!(guest.machine.copy_to_user(0, &[0]), Err(Errno::FAULT));
    let taken = guest
        .system
        .host()
        .hypervisor()
        .statistic(hyp_abi::host_call::Statistic::FramesOther);
    assert_eq!(taken, Ok(0));
    guest.end(0);
}
