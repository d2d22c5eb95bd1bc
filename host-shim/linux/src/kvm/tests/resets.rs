//! vCPUs that begin anew, and VMs whose guest has ended itself.

use super::registers::REPORT;
use super::run::{GFN, Guest, OFF, exit};
use crate::kvm::abi::{ARM_VCPU_INIT, GET_MP_STATE, RUN, SET_MP_STATE, VM_TYPE_PROTECTED, VcpuInit};
use crate::kvm::fake::USER;
use crate::{Descriptor, Errno};
use host_shim::fake::Act;
use hyp_abi::run_page::ExitReason;
use hyp_abi::{CallId, Status, VmCallId};
use std::sync::Arc;

const X1: u64 = 0x6030_0000_0010_0002;
const PSTATE: u64 = 0x6030_0000_0010_0042;
const COUNT: u64 = 0x6030_0000_0013_df1a;

const RESET: Act = exit(ExitReason::SystemReset, [0; 3]);

impl Guest {
    fn ask(&self, vcpu: usize, command: u32, argument: u64) -> Result<u64, Errno> {
        let vcpu: Arc<dyn Descriptor> = Arc::clone(&self.vcpus[vcpu]) as _;
        vcpu.ioctl(command, argument)
    }

    fn init(&self, vcpu: usize, features: u32) -> Result<u64, Errno> {
        let init = VcpuInit {
            target: 5,
            features: [features, 0, 0, 0, 0, 0, 0],
        };
        let argument = self.machine.set_user(0, &init);
        self.ask(vcpu, ARM_VCPU_INIT, argument)
    }

    fn state(&self, vcpu: usize) -> u32 {
        self.ask(vcpu, GET_MP_STATE, USER).unwrap();
        self.machine.user(0)
    }

    fn set_state(&self, vcpu: usize, state: u32) -> Result<u64, Errno> {
        let argument = self.machine.set_user(0, &state);
        self.ask(vcpu, SET_MP_STATE, argument)
    }
}

#[test]
fn a_vcpu_begins_anew_where_its_vm_is_not_protected() {
    let guest = Guest::new(0, 2);
    guest.program(0, [REPORT, REPORT]);
    guest.run().unwrap();
    guest.set(1, X1, 7).unwrap();
    guest.set(1, COUNT, 9).unwrap();
    assert_eq!(guest.init(1, 0), Err(Errno::INVAL));
    assert_eq!(guest.init(1, 4), Ok(0));
    assert_eq!((guest.get(1, X1), guest.get(1, PSTATE)), (Ok(0), Ok(0x3c5)));
    // The time is the VM's.
    assert_eq!(guest.get(1, COUNT), Ok(9));
    assert_eq!(guest.state(1), 0);
    assert_eq!(guest.init(1, 5), Ok(0));
    assert_eq!(guest.state(1), 5);
    guest.end();

    let guest = Guest::new(VM_TYPE_PROTECTED, 1);
    guest.program(0, [REPORT, REPORT]);
    assert_eq!(guest.init(0, 4), Ok(0));
    guest.run().unwrap();
    assert_eq!(guest.init(0, 4), Err(Errno::PERM));
    guest.run().unwrap();
    guest.end();
}

#[test]
fn keys_are_asked_for_together_or_not_at_all() {
    let guest = Guest::new(0, 2);
    for half in [1 << 5, 1 << 6] {
        assert_eq!(guest.init(1, 4 | half), Err(Errno::INVAL));
    }
    assert_eq!(guest.init(1, 4 | 3 << 5), Err(Errno::INVAL), "it had none");
    guest.end();
}

#[test]
fn vcpus_are_turned_on_and_off_at_any_time() {
    let guest = Guest::new(0, 2);
    guest.program(0, [REPORT, REPORT]);
    guest.program(1, [REPORT]);
    for _ in 0..2 {
        for state in [0, 5] {
            assert_eq!(guest.set_state(1, state), Ok(0));
            assert_eq!(guest.state(1), state);
        }
        assert_eq!(guest.set_state(1, 1), Err(Errno::INVAL));
        guest.run().unwrap();
    }
    guest.end();
}

#[test]
fn a_guest_that_has_ended_itself_is_begun_anew_with_what_memory_it_had() {
    for end in [OFF, RESET] {
        let guest = Guest::new(0, 2);
        let handle = guest.handle();
        guest.program(0, [Act::Write(GFN, 7), end]);
        guest.set(1, X1, 7).unwrap();
        assert_eq!(guest.run(), Ok(0));
        // All are off, and know nothing.
        for vcpu in 0..2 {
            assert_eq!(guest.state(vcpu), 5);
            assert_eq!(guest.get(vcpu, X1), Ok(0));
            assert_eq!(guest.get(vcpu, PSTATE), Ok(0x3c5));
        }
        guest.set(1, X1, 8).unwrap();
        assert_eq!(guest.init(0, 4), Ok(0));
        assert_eq!(guest.state(0), 0);
        // EL2 has a new VM once it runs. This one has no program, and is interrupted for ever.
        std::thread::scope(|scope| {
            let runs = scope.spawn(|| guest.run());
            while guest.handle() == handle || !guest.system.vms()[0].is_launched() {
                std::thread::yield_now();
            }
            guest.program(0, [Act::Expect(GFN, 7), REPORT]);
            assert_eq!(runs.join().unwrap(), Ok(0));
        });
        assert_eq!(guest.word(1), 6);
        assert_eq!(guest.get(1, X1), Ok(8));
        assert_eq!(guest.machine.el2.vms(), 1);
        guest.end();
    }
}

#[test]
fn a_vcpu_that_waits_through_the_end_of_its_guest_does_not_run_before_it_is_turned_on() {
    let guest = Guest::new(0, 2);
    guest.program(0, [REPORT, RESET]);
    guest.run().unwrap();
    std::thread::scope(|scope| {
        // In this EL2 it has no power: it is interrupted for ever.
        let other = scope.spawn(|| guest.ask(1, RUN, 0));
        guest.run().unwrap();
        while guest.system.vms()[0].is_launched() {
            std::thread::yield_now();
        }
        guest.machine.set_signal(true);
        guest.vcpus[1].place.tell();
        assert_eq!(other.join().unwrap(), Err(Errno::INTR));
        guest.machine.set_signal(false);
    });
    guest.end();
}

#[test]
fn a_vm_of_which_a_vcpu_still_runs_is_launched_when_that_has_left() {
    let guest = Guest::new(0, 1);
    guest.program(0, [RESET]);
    guest.run().unwrap();
    guest.init(0, 4).unwrap();
    for _ in 0..3 {
        let destroy = CallId::Vm(VmCallId::Destroy);
        guest.machine.el2.refuse_next(destroy, Status::VcpuRunning);
    }
    let handle = guest.handle();
    std::thread::scope(|scope| {
        let runs = scope.spawn(|| guest.run());
        while guest.handle() == handle || !guest.system.vms()[0].is_launched() {
            std::thread::yield_now();
        }
        guest.program(0, [REPORT]);
        assert_eq!(runs.join().unwrap(), Ok(0));
    });
    guest.end();
}

#[test]
fn wherever_memory_is_short_a_guest_can_be_begun_anew_later() {
    for allocations in 0.. {
        let guest = Guest::new(0, 2);
        guest.program(0, [Act::Write(GFN, 7), RESET]);
        guest.run().unwrap();
        guest.system.host().drain().unwrap();
        guest.init(0, 4).unwrap();
        guest.machine.fail_after(Some(allocations));
        // Nothing but a signal ends a run without a program.
        guest.machine.el2.before_next(CallId::Vm(VmCallId::Run), {
            let machine = guest.machine.clone();
            move || machine.set_signal(true)
        });
        let first = guest.run();
        guest.machine.fail_after(None);
        if first != Err(Errno::INTR) {
            assert_eq!(first, Err(Errno::NOMEM));
            assert_eq!(guest.run(), Err(Errno::INTR));
        }
        guest.end();
        if first == Err(Errno::INTR) {
            break;
        }
    }
}

#[test]
fn a_protected_guest_that_has_ended_itself_does_not_begin_anew() {
    for end in [OFF, RESET] {
        let guest = Guest::new(VM_TYPE_PROTECTED, 1);
        guest.program(0, [Act::Write(GFN, 7), end]);
        guest.run().unwrap();
        assert_eq!(guest.init(0, 4), Err(Errno::PERM));
        assert_eq!(guest.set_state(0, 5), Err(Errno::PERM));
        assert_eq!(guest.get(0, X1), Err(Errno::PERM));
        guest.machine.set_signal(true);
        assert_eq!(guest.run(), Err(Errno::INTR));
        guest.end();
    }
}
