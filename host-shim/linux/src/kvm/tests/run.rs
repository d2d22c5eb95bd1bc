//! vCPUs, slots and runs.

use crate::kvm::abi::{
    ARM_VCPU_INIT, CREATE_GUEST_MEMFD, CREATE_VCPU, CREATE_VM, GET_MP_STATE, MEM_GUEST_MEMFD, RUN,
    SET_USER_MEMORY_REGION2, VM_TYPE_PROTECTED,
};
use crate::kvm::fake::{Machine, USER};
use crate::kvm::run_page::UserExit;
use crate::kvm::{System, Vcpu};
use crate::linux::downcast;
use crate::{Descriptor, Errno, Linux as _};
use host_shim::account::Purpose;
use host_shim::fake::Act;
use host_shim::{Error, HostMemory as _, Pfn};
use hyp_abi::run_page::ExitReason;
use hyp_abi::vm::VmStatistic;
use hyp_abi::{FRAME_SIZE, VmHandle};
use std::sync::Arc;

const BASE: u64 = 0x8000_0000;
pub(super) const GFN: u64 = BASE / FRAME_SIZE;
const PAGES: u64 = 4;

/// A VM with a file of four pages and vCPUs.
#[derive(Debug)]
pub(super) struct Guest {
    pub(super) machine: Machine,
    pub(super) system: Arc<System<Machine>>,
    pub(super) descriptors: Vec<u64>,
    pub(super) vcpus: Vec<Arc<Vcpu<Machine>>>,
}

fn put(machine: &Machine, words: &[u64]) -> u64 {
    let bytes: Vec<u8> = words.iter().flat_map(|word| word.to_le_bytes()).collect();
    machine.copy_to_user(USER, &bytes).unwrap();
    USER
}

impl Guest {
    pub(super) fn new(kind: u64, vcpus: u64) -> Self {
        let machine = Machine::new();
        let system = System::start(machine.clone()).unwrap();
        let guest = Self {
            machine,
            system,
            descriptors: Vec::new(),
            vcpus: Vec::new(),
        };
        guest.build(kind, vcpus).unwrap()
    }

    fn build(mut self, kind: u64, vcpus: u64) -> Result<Self, (Errno, Self)> {
        match self.try_build(kind, vcpus) {
            Ok(()) => Ok(self),
            Err(error) => Err((error, self)),
        }
    }

    fn try_build(&mut self, kind: u64, vcpus: u64) -> Result<(), Errno> {
        let machine = self.machine.clone();
        let vm = self.system.ioctl(CREATE_VM, kind)?;
        self.descriptors.push(vm);
        let vm = machine.object(vm);
        let argument = put(&machine, &[PAGES * FRAME_SIZE, 3, 0, 0, 0, 0, 0, 0]);
        let file = Arc::clone(&vm).ioctl(CREATE_GUEST_MEMFD, argument)?;
        self.descriptors.push(file);
        let mut slot = [0; 20];
        slot[0] = u64::from(MEM_GUEST_MEMFD) << 32;
        slot[1] = BASE;
        slot[2] = PAGES * FRAME_SIZE;
        slot[5] = file;
        Arc::clone(&vm).ioctl(SET_USER_MEMORY_REGION2, put(&machine, &slot))?;
        for index in 0..vcpus {
            let vcpu = Arc::clone(&vm).ioctl(CREATE_VCPU, index)?;
            self.descriptors.push(vcpu);
            let vcpu = downcast::<Vcpu<Machine>>(machine.object(vcpu))?;
            let features = if index == 0 { 4 } else { 5 };
            Arc::clone(&vcpu).ioctl(ARM_VCPU_INIT, put(&machine, &[5 | features << 32, 0, 0, 0]))?;
            self.vcpus.push(vcpu);
        }
        Ok(())
    }

    pub(super) fn handle(&self) -> VmHandle {
        self.system.vms()[0].shim().unwrap().handle()
    }

    pub(super) fn program(&self, vcpu: u64, acts: impl IntoIterator<Item = Act>) {
        self.machine.el2.program(self.handle(), vcpu, acts);
    }

    pub(super) fn run(&self) -> Result<u64, Errno> {
        Arc::clone(&self.vcpus[0]).ioctl(RUN, 0)
    }

    /// A word of the page that the first vCPU shares with user space.
    pub(super) fn word(&self, index: usize) -> u64 {
        let mut frame = None;
        self.vcpus[0]
            .fault(0, &mut |pfn: Pfn| {
                frame = Some(pfn);
                Ok(())
            })
            .unwrap();
        self.machine.load_word(frame.unwrap(), index)
    }

    pub(super) fn end(self) {
        let Self {
            machine,
            system,
            descriptors,
            vcpus,
        } = self;
        drop(vcpus);
        for descriptor in descriptors {
            machine.close(descriptor);
        }
        system.stop();
        machine.assert_nothing_left();
    }
}

/// An exit of the guest with up to three values.
pub(super) const fn exit(reason: ExitReason, [v0, v1, v2]: [u64; 3]) -> Act {
    Act::Exit(reason, [v0, v1, v2, 0, 0, 0, 0])
}

pub(super) const OFF: Act = exit(ExitReason::SystemOff, [0; 3]);

#[test]
fn a_guest_of_either_kind_touches_its_memory_and_turns_itself_off() {
    for kind in [0, VM_TYPE_PROTECTED] {
        let guest = Guest::new(kind, 1);
        guest.program(0, [Act::Write(GFN, 7), Act::Expect(GFN, 7), OFF]);
        assert_eq!(guest.run(), Ok(0));
        // KVM_EXIT_SYSTEM_EVENT, KVM_SYSTEM_EVENT_SHUTDOWN.
        assert_eq!((guest.word(1), guest.word(4)), (24, 1));
        guest.end();
    }
}

/// Known bug: whoever read the figures kept the VM, so that it could end after its VMM had.
#[test]
fn a_vm_ends_while_its_figures_are_read() {
    let guest = Guest::new(VM_TYPE_PROTECTED, 1);
    guest.program(0, [Act::Write(GFN, 7), OFF]);
    guest.run().unwrap();
    let (system, seen) = (Arc::clone(&guest.system), guest.system.seen());
    let private = seen[0].figures.statistic(VmStatistic::FramesPrivate);
    assert_eq!(private, Ok(1));
    assert!(seen[0].ledger.usage().of(Purpose::Guest) > 0);
    guest.end();
    let private = seen[0].figures.statistic(VmStatistic::FramesPrivate);
    assert_eq!(private, Err(Error::Gone));
    assert_eq!(seen[0].ledger.usage().of(Purpose::Guest), 0);
    assert_eq!((system.vm_count(), system.seen().len()), (0, 0));
}

#[test]
fn a_store_is_told_and_a_load_is_answered_with_as_many_bytes_as_it_has() {
    let guest = Guest::new(VM_TYPE_PROTECTED, 1);
    let store = exit(ExitReason::MmioWrite, [0x900_0000, 4, 0x1234]);
    let load = exit(ExitReason::MmioRead, [0x900_0008, 2, 0]);
    guest.program(0, [store, load, OFF]);
    guest.run().unwrap();
    let exit: Vec<u64> = [1, 4, 5, 6].map(|word| guest.word(word)).into();
    assert_eq!(exit, [6, 0x900_0000, 0x1234, 4 | 1 << 32]);
    guest.run().unwrap();
    let exit: Vec<u64> = [1, 4, 6].map(|word| guest.word(word)).into();
    assert_eq!(exit, [6, 0x900_0008, 2]);
    // User space puts more there than was loaded.
    let page = guest.vcpus[0].page.frame();
    guest.machine.store_word(page, 5, 0xAABB_CCDD);
    guest.run().unwrap();
    assert_eq!(guest.machine.el2.results(guest.handle()), [0, 0xCCDD]);
    guest.end();
}

#[test]
fn memory_that_is_not_there_is_a_fault_of_which_the_page_says_more() {
    for (kind, flags) in [(0, 0), (VM_TYPE_PROTECTED, 8)] {
        let mut guest = Guest::new(kind, 1);
        // The VM has a slot, and what was behind it is closed.
        let file = guest.descriptors.remove(1);
        guest.machine.close(file);
        guest.program(0, [Act::Write(GFN + 1, 1), OFF]);
        assert_eq!(guest.run(), Err(Errno::FAULT));
        let exit = [1, 4, 5, 6].map(|word| guest.word(word));
        assert_eq!(exit, [39, flags, BASE + FRAME_SIZE, FRAME_SIZE]);
        guest.end();
    }
}

#[test]
fn wherever_memory_is_short_a_run_fails_and_can_be_repeated_and_nothing_is_left() {
    for kind in [0, VM_TYPE_PROTECTED] {
        for allocations in 0.. {
            let machine = Machine::new();
            let system = System::start(machine.clone()).unwrap();
            let guest = Guest {
                machine: machine.clone(),
                system,
                descriptors: Vec::new(),
                vcpus: Vec::new(),
            };
            machine.fail_after(Some(allocations));
            let guest = match guest.build(kind, 2) {
                Ok(guest) => guest,
                Err((error, guest)) => {
                    assert_eq!(error, Errno::NOMEM);
                    machine.fail_after(None);
                    guest.end();
                    continue;
                }
            };
            let acts = (0..PAGES).map(|page| Act::Write(GFN + page, 3)).chain([OFF]);
            guest.program(0, acts);
            let first = guest.run();
            machine.fail_after(None);
            if let Err(error) = first {
                assert_eq!(error, Errno::NOMEM);
                assert_eq!(guest.run(), Ok(0));
            }
            guest.end();
            if first.is_ok() {
                break;
            }
        }
    }
}

#[test]
fn a_vcpu_waits_until_another_turns_it_on_and_says_so() {
    let guest = Guest::new(VM_TYPE_PROTECTED, 2);
    let state = |vcpu: usize| {
        let vcpu = Arc::clone(&guest.vcpus[vcpu]);
        vcpu.ioctl(GET_MP_STATE, USER).unwrap();
        let mut state = [0; 4];
        guest.machine.copy_from_user(USER, &mut state).unwrap();
        u32::from_le_bytes(state)
    };
    assert_eq!((state(0), state(1)), (0, 5));
    let second = exit(ExitReason::MmioWrite, [0x900_0000, 8, 1]);
    guest.program(1, [second.clone()]);
    guest.program(0, [exit(ExitReason::CpuOn, [1, 0, 0]), second, OFF]);
    std::thread::scope(|scope| {
        let vcpu = Arc::clone(&guest.vcpus[1]);
        let other = scope.spawn(move || vcpu.ioctl(RUN, 0));
        assert_eq!(guest.run(), Ok(0));
        // It runs as soon as there is a VM, since this EL2 has no power: it must have been let in by the launch.
        assert_eq!(other.join().unwrap(), Ok(0));
        assert_eq!(guest.run(), Ok(0));
    });
    assert_eq!((state(0), state(1)), (0, 0));
    guest.end();
}

#[test]
fn a_signal_and_a_wish_end_a_run() {
    let guest = Guest::new(0, 1);
    guest.program(0, [OFF]);
    guest.machine.set_signal(true);
    assert_eq!(guest.run(), Err(Errno::INTR));
    assert_eq!(guest.word(1), 10);
    guest.machine.set_signal(false);
    let page = guest.vcpus[0].page.frame();
    guest.machine.store_word(page, 0, 1 << 8);
    assert_eq!(guest.run(), Err(Errno::INTR));
    guest.machine.store_word(page, 0, 0);
    assert_eq!(guest.run(), Ok(0));
    // It is over, and a signal is all that can come.
    guest.machine.set_signal(true);
    assert_eq!(guest.run(), Err(Errno::INTR));
    guest.end();
}

#[test]
fn what_was_done_for_a_guest_takes_effect_before_a_run_ends_for_nothing() {
    for by_signal in [false, true] {
        let guest = Guest::new(0, 1);
        let load = exit(ExitReason::MmioRead, [0x900_0008, 2, 0]);
        let store = exit(ExitReason::MmioWrite, [0x900_0000, 4, 1]);
        guest.program(0, [load, store, OFF]);
        let page = guest.vcpus[0].page.frame();
        let stop = |stop: bool| {
            guest.machine.set_signal(stop && by_signal);
            guest
                .machine
                .store_word(page, 0, u64::from(stop && !by_signal) << 8);
        };
        guest.run().unwrap();
        guest.machine.store_word(page, 5, 0xAABB_CCDD);
        stop(true);
        assert_eq!(guest.run(), Err(Errno::INTR));
        assert_eq!(guest.machine.el2.results(guest.handle()), [0xCCDD]);
        assert_eq!(guest.run(), Err(Errno::INTR));
        stop(false);
        guest.run().unwrap();
        assert_eq!(guest.word(1), 6);
        stop(true);
        assert_eq!(guest.run(), Err(Errno::INTR));
        assert_eq!(guest.machine.el2.results(guest.handle()), [0]);
        stop(false);
        guest.run().unwrap();
        assert_eq!(guest.word(1), 24);
        assert_eq!(guest.machine.el2.results(guest.handle()), []);
        guest.end();
    }
}

#[test]
fn exits_lie_where_user_space_looks_for_them() {
    let guest = Guest::new(0, 1);
    let page = &guest.vcpus[0].page;
    page.exit(UserExit::Unexpected { class: 0x2f });
    assert_eq!([1, 4, 5].map(|word| guest.word(word)), [17, 4 | 1 << 32, 0x2f]);
    page.exit(UserExit::Reset);
    assert_eq!([1, 4].map(|word| guest.word(word)), [24, 2]);
    guest.end();
}
