//! The client against a scripted EL2.

use super::*;
use core::cell::{Cell, RefCell};

extern crate std;
use std::{collections::VecDeque, vec::Vec};

/// An EL2 that answers what it was told to, in order, and remembers what it was asked.
#[derive(Default)]
struct Script {
    answers: RefCell<VecDeque<[u64; 4]>>,
    asked: RefCell<Vec<[u64; 7]>>,
    pauses: Cell<u64>,
}

impl Script {
    fn new(answers: impl IntoIterator<Item = [u64; 4]>) -> Self {
        Self {
            answers: RefCell::new(answers.into_iter().collect()),
            asked: RefCell::default(),
            pauses: Cell::new(0),
        }
    }

    fn asked(&self) -> Vec<HostCall> {
        self.asked
            .borrow()
            .iter()
            .map(|registers| HostCall::decode(*registers).unwrap())
            .collect()
    }
}

impl Hypercall for Script {
    fn call(&self, registers: [u64; 7]) -> [u64; 4] {
        self.asked.borrow_mut().push(registers);
        self.answers.borrow_mut().pop_front().unwrap()
    }

    fn pause(&self) {
        self.pauses.set(self.pauses.get() + 1);
    }
}

fn refusal(status: Status, detail: u64) -> [u64; 4] {
    [status.to_register(), detail, 0, 0]
}

#[test]
fn a_ranged_call_is_resumed_where_it_stopped() {
    let script = Script::new([[0, 2, 0, 0], [0, 0, 0, 0], [0, 3, 0, 0]]);
    Hypervisor::new(&script)
        .share(FrameRange::new(0x4000_0000, 5))
        .unwrap();
    assert_eq!(
        script.asked(),
        [
            HostCall::ShareHyp(FrameRange::new(0x4000_0000, 5)),
            HostCall::ShareHyp(FrameRange::new(0x4000_2000, 3)),
            HostCall::ShareHyp(FrameRange::new(0x4000_2000, 3)),
        ]
    );
}

#[test]
fn between_the_parts_of_a_ranged_call_others_get_the_cpu() {
    let script = Script::new([[0, 2, 0, 0], [0, 2, 0, 0], [0, 1, 0, 0]]);
    Hypervisor::new(&script).share(FrameRange::new(0, 5)).unwrap();
    assert_eq!(script.pauses.get(), 2);
}

#[test]
fn a_refusal_in_the_middle_reports_what_was_done() {
    let script = Script::new([[0, 2, 0, 0], refusal(Status::NoMemory, 3)]);
    let error = Hypervisor::new(&script)
        .donate(FrameRange::new(0x4000_0000, 5))
        .unwrap_err();
    assert_eq!(error.done, 2);
    assert_eq!(error.error.status(), Some(Status::NoMemory));
    assert_eq!(error.error.pages_needed(), Some(3));
}

#[test]
fn an_empty_range_is_refused_by_el2_and_not_here() {
    let script = Script::new([refusal(Status::EmptyRange, 0)]);
    let error = Hypervisor::new(&script)
        .unshare(FrameRange::new(0x4000_0000, 0))
        .unwrap_err();
    assert_eq!((error.done, error.error.status()), (0, Some(Status::EmptyRange)));
    assert_eq!(script.asked().len(), 1);
}

#[test]
fn an_el2_that_never_progresses_is_not_waited_for_forever() {
    let script = Script::new(core::iter::repeat_n([0; 4], 1000));
    let error = Hypervisor::new(&script)
        .reclaim(FrameRange::new(0, 1))
        .unwrap_err();
    assert_eq!(
        error,
        RangeError {
            done: 0,
            error: CallError::NoProgress
        }
    );
}

#[test]
fn results_that_cannot_be_are_errors() {
    let script = Script::new([[0, 6, 0, 0], [7, 0, 0, 0], [0, 99, 0, 0], [0, 0x1000, 3, 0]]);
    let client = Hypervisor::new(&script);
    let error = client.share(FrameRange::new(0, 5)).unwrap_err();
    assert_eq!(error.error, CallError::BadResult(6));
    assert_eq!(client.version(), Err(CallError::UnknownStatus(7)));
    assert_eq!(client.frame_state(0), Err(CallError::BadResult(99)));
    assert_eq!(client.pool_drain(2), Err(CallError::BadResult(3)));
}

#[test]
fn an_audit_adds_up_its_parts() {
    let script = Script::new([[0, 4, 0, 0], [0, 6, 1, 0]]);
    let audit = Hypervisor::new(&script).audit(FrameRange::new(0, 10)).unwrap();
    assert_eq!(
        audit,
        Audit {
            frames: 10,
            disagreements: 1
        }
    );
}

#[test]
fn single_calls_have_typed_answers() {
    let version = hyp_abi::VERSION.to_register();
    let script = Script::new([
        [0, version, 1, 4],
        [0, 1, 2, 0x20_0000],
        [0, 0x4000_0000, 2, 0],
        [0, 0, 0, 0],
        [0, 17, 0, 0],
        [0, 18, 0, 0],
        [0; 4],
        [0; 4],
        [0, 0x9000_0003, 0x2c20, 0x40_0000_00ff],
        [0, 0x11, 0, 0],
    ]);
    let client = Hypervisor::new(&script);
    let info = client.version().unwrap();
    assert_eq!(
        (info.version, info.features, info.cpus),
        (hyp_abi::VERSION, Features::TRACE, 4)
    );
    let state = client.frame_state(0x4000_0000).unwrap();
    assert_eq!(
        state,
        FrameInfo {
            state: FrameState::HostSharedHyp,
            count: 2,
            extent: 0x20_0000
        }
    );
    assert_eq!(client.pool_drain(8), Ok(Some(FrameRange::new(0x4000_0000, 2))));
    assert_eq!(client.pool_drain(8), Ok(None));
    assert_eq!(client.statistic(Statistic::PoolFree), Ok(17));
    assert_eq!(client.counter(3, Counter::HostAborts), Ok(18));
    client.trace_attach(1, 0x5000).unwrap();
    client.trace_detach(1).unwrap();
    let support = client.guest_support().unwrap();
    assert_eq!(
        (support.interface, support.max_ipa_bits, support.vcpus),
        (0x9000_0003, 44, 64)
    );
    assert_eq!(client.guest_register(0xc020, 40), Ok(0x11));
    assert_eq!(
        script.asked()[4..],
        [
            HostCall::Statistics { statistic: 5 },
            HostCall::Counter { cpu: 3, counter: 5 },
            HostCall::TraceAttach {
                cpu: 1,
                frame: 0x5000
            },
            HostCall::TraceDetach { cpu: 1 },
            HostCall::GuestSupport,
            HostCall::GuestRegister {
                register: 0xc020,
                ipa_bits: 40
            },
        ]
    );
}

#[test]
fn a_call_about_frames_and_their_guest_frame_numbers_moves_both() {
    use hyp_abi::{VmCall, VmHandle};
    let handle = VmHandle {
        slot: 3,
        generation: 9,
    };
    let script = Script::new([[0, 2, 0, 0], [0, 3, 0, 0]]);
    Hypervisor::new(&script)
        .donate_guest(handle, FrameRange::new(0x4000_0000, 5), 0x8_0000)
        .unwrap();
    let donate = |base, frames, gfn| {
        HostCall::Vm(VmCall::Donate {
            vm: handle.to_register(),
            range: FrameRange::new(base, frames),
            gfn,
        })
    };
    assert_eq!(
        script.asked(),
        [donate(0x4000_0000, 5, 0x8_0000), donate(0x4000_2000, 3, 0x8_0002)]
    );
}

#[test]
fn answers_about_vms_have_types() {
    use hyp_abi::run_page::ExitReason;
    use hyp_abi::vm::{VmFlags, VmStatistic};
    use hyp_abi::{GuestRange, VmHandle};
    let handle = VmHandle {
        slot: 3,
        generation: 9,
    };
    let script = Script::new([
        [0, handle.to_register(), 0, 0],
        [0, 0, 0, 0],
        [0, 0x0706_0504_0302_0100, 0x0f0e_0d0c_0b0a_0908, 0],
        [0, 0x1716_1514_1312_1110, 0x1f1e_1d1c_1b1a_1918, 0],
        [0, 2, 0x80000, 1],
        [0, 99, 0, 0],
        [0, 12, 0, 0],
        [0, 3, 1, 0],
        [0, 2, 2, 0],
        refusal(Status::VmNeedsMemory, 4),
    ]);
    let client = Hypervisor::new(&script);
    assert_eq!(client.create_vm(VmFlags::PROTECTED, 1, 40), Ok(handle));
    assert_eq!(client.rename_vm(handle), Err(CallError::BadResult(0)));
    let digest: [u8; 32] = core::array::from_fn(|at| at as u8);
    assert_eq!(client.digest(handle), Ok(digest));
    assert_eq!(
        client.run_vcpu(handle, 0),
        Ok((ExitReason::MemoryFault, [0x80000, 1]))
    );
    assert_eq!(client.run_vcpu(handle, 0), Err(CallError::BadResult(99)));
    assert_eq!(client.vm_statistic(handle, VmStatistic::FramesPrivate), Ok(12));
    assert_eq!(client.test_age(handle, GuestRange::new(0, 5)), Ok(3));
    let error = client.unshare_guest(handle, GuestRange::new(0, 1)).unwrap_err();
    assert_eq!(
        (error.error.vm_pages_needed(), error.error.pages_needed()),
        (Some(4), None)
    );
}

#[test]
fn a_register_goes_by_its_name_and_its_value_comes_back() {
    use hyp_abi::{VcpuRegister, VmCall, VmHandle};
    let handle = VmHandle {
        slot: 3,
        generation: 9,
    };
    let vm = handle.to_register();
    let script = Script::new([[0, 0x1234, 0, 0], [0; 4], refusal(Status::VcpuRunning, 0)]);
    let client = Hypervisor::new(&script);
    assert_eq!(client.read_register(handle, 2, VcpuRegister::Pc), Ok(0x1234));
    assert_eq!(
        client.write_register(handle, 2, VcpuRegister::VectorHigh(7), 9),
        Ok(())
    );
    let refused = client.read_register(handle, 2, VcpuRegister::Power).unwrap_err();
    assert_eq!(refused.status(), Some(Status::VcpuRunning));
    let (index, name) = (2, 0x100);
    assert_eq!(
        script.asked()[..2],
        [
            HostCall::Vm(VmCall::ReadRegister {
                vm,
                index,
                register: name
            }),
            HostCall::Vm(VmCall::WriteRegister {
                vm,
                index,
                register: 0x307,
                value: 9
            }),
        ]
    );
}
