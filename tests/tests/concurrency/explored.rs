//! The cases, under explored schedules.

mod program;

use freehold_tests::spec::order::Course;
use freehold_tests::spec::rig::{Rig, span};
use hyp_abi::vm::VmFlags;
use hyp_abi::{FRAME_SIZE, FrameState, GuestRange, HostCall, Status, VmCall};
use hyp_core::addr::Ipa;
use hyp_core::geometry::Tiny;
use hyp_core::hypercall::host_call;
use hyp_core::ownership::{AbortVerdict, HostAccess};
use program::{Alphabet, Program, range};
use shuttle::scheduler::{PctScheduler, RandomScheduler, Scheduler};
use shuttle::{Config, Runner};
use std::sync::Arc;

/// First frame of RAM: two regions of EL2's, then the two that the calls are about.
const RAM: u64 = 16;
/// First frame that is the host's.
const HOST: u64 = RAM + 8;

fn explore(scheduler: impl Scheduler + 'static, case: impl Fn() + Send + Sync + 'static) {
    let mut config = Config::new();
    config.stack_size = 0x4_0000;
    config.silence_warnings = true;
    Runner::new(scheduler, config).run(case);
}

/// Explores a program by random schedules, and by such as switch seldom.
fn explore_program(seed: u64, schedules: usize, case: impl Fn() + Send + Sync + Clone + 'static) {
    explore(RandomScheduler::new_from_seed(seed, schedules), case.clone());
    explore(PctScheduler::new_from_seed(seed, 3, schedules), case);
}

/// The machine after the program's first calls.
fn machine(program: &Program) -> Rig<Tiny> {
    let mut rig = Rig::new(&[span(RAM, 16)], span(RAM, 8));
    for call in &program.before {
        rig.call(&Default::default(), call.encode(), &[])
            .unwrap_or_else(|wrong| panic!("{call:x?}: {wrong}"));
    }
    rig
}

/// Makes the program's calls, each course on a CPU of its own.
fn at_once(rig: Rig<Tiny>, program: &Program) -> (Rig<Tiny>, Vec<Course>) {
    let rig = Arc::new(rig);
    let cpus: Vec<_> = program
        .courses
        .iter()
        .cloned()
        .map(|calls| {
            let rig = Arc::clone(&rig);
            shuttle::thread::spawn(move || -> Course {
                let answer = |call: HostCall| (call, host_call(rig.system(), call.encode()));
                calls.into_iter().map(answer).collect()
            })
        })
        .collect();
    let courses = cpus
        .into_iter()
        .map(|cpu| cpu.join().expect("no CPU panics"))
        .collect();
    let rig = Arc::into_inner(rig).expect("all CPUs are done");
    (rig, courses)
}

/// What came back in these courses is zero: nobody writes in these programs.
fn assert_zero(rig: &Rig<Tiny>, courses: &[Course]) {
    use hyp_core::double::Contents;
    for (call, answer) in courses.iter().flatten() {
        let back = match call {
            HostCall::ReclaimHyp(range) if answer.status == Status::Success => {
                range.base..range.base + answer.values[0] * FRAME_SIZE
            }
            HostCall::PoolDrain { .. } if answer.status == Status::Success => {
                answer.values[0]..answer.values[0] + answer.values[1] * FRAME_SIZE
            }
            _ => continue,
        };
        for address in back.step_by(FRAME_SIZE as usize) {
            let frame = span(address / FRAME_SIZE, 1).start();
            let contents = rig.system().hardware().contents(frame);
            // It may have gone to the pool again since.
            assert!(
                matches!(contents, Contents::Zero | Contents::Hyp),
                "{frame:?} came back with {contents:?}"
            );
        }
    }
}

/// Every call has a place in some order.
fn in_some_order(program: &Program) {
    let (mut rig, courses) = at_once(machine(program), program);
    if let Err(wrong) = rig.explain(&courses) {
        panic!("{wrong}\nbefore: {:x?}\nat once: {courses:#x?}", program.before);
    }
    assert_zero(&rig, &courses);
}

/// Calls on several regions, or without enough pages, need not look like one step; but nothing is left in disagreement.
fn in_agreement(rig: Rig<Tiny>, program: &Program) {
    let (mut rig, courses) = at_once(rig, program);
    rig.system().hardware().limit_pool(None);
    if let Err(wrong) = rig.compare_with_itself() {
        panic!("{wrong}\nbefore: {:x?}\nat once: {courses:#x?}", program.before);
    }
    assert_zero(&rig, &courses);
}

#[test]
fn calls_on_one_region_happen_in_some_order() {
    for seed in 0..60 {
        let program = Program::new(seed, Alphabet::OneRegion);
        explore_program(seed, 40, move || in_some_order(&program));
    }
}

#[test]
fn calls_across_regions_leave_everything_in_agreement() {
    for seed in 0..40 {
        let program = Program::new(seed, Alphabet::TwoRegions);
        explore_program(seed, 40, move || in_agreement(machine(&program), &program));
    }
}

#[test]
fn the_pool_comes_and_goes_while_it_is_used() {
    for seed in 0..40 {
        let program = Program::new(seed, Alphabet::Pool);
        explore_program(seed, 40, move || in_agreement(machine(&program), &program));
    }
}

#[test]
fn too_few_pages_for_all_leave_everything_in_agreement() {
    for seed in 0..40 {
        let program = Program::new(seed, Alphabet::TwoRegions);
        explore_program(seed, 40, move || {
            let rig = machine(&program);
            rig.system().hardware().limit_pool(Some(seed % 4));
            in_agreement(rig, &program);
        });
    }
}

#[test]
fn halves_of_a_region_come_back_while_it_is_collapsed() {
    let program = Program {
        before: vec![
            HostCall::DonateHyp(range(HOST, 2)),
            HostCall::DonateHyp(range(HOST + 2, 1)),
            HostCall::DonateHyp(range(HOST + 3, 1)),
        ],
        courses: vec![
            vec![HostCall::ReclaimHyp(range(HOST, 2))],
            vec![HostCall::ReclaimHyp(range(HOST + 2, 2))],
            vec![HostCall::Collapse(range(HOST, 4))],
        ],
    };
    explore_program(1, 1000, move || in_some_order(&program));
}

/// While one CPU breaks and makes the mapping of a region, another one faults on a frame of it that it owns all along.
#[test]
fn a_cpu_that_faults_on_its_own_memory_goes_back() {
    let donated = HOST + 7;
    let own = HOST + 2;
    let program = Program {
        before: vec![HostCall::DonateHyp(range(donated, 1))],
        courses: vec![
            vec![
                HostCall::DonateHyp(range(HOST, 1)),
                HostCall::ReclaimHyp(range(HOST, 1)),
                HostCall::Collapse(range(HOST, 4)),
            ],
            vec![
                HostCall::ShareHyp(range(own, 1)),
                HostCall::UnshareHyp(range(own, 1)),
            ],
        ],
    };
    explore_program(2, 1000, move || {
        let rig = Arc::new(machine(&program));
        let judged = {
            let rig = Arc::clone(&rig);
            shuttle::thread::spawn(move || {
                for _ in 0..3 {
                    for access in [HostAccess::Read, HostAccess::Write, HostAccess::Fetch] {
                        let judge = |frame: u64| {
                            let address = Ipa::new(frame * FRAME_SIZE + 8).unwrap();
                            rig.system().judge_host_abort(address, access)
                        };
                        assert_eq!(judge(own), AbortVerdict::Retry, "its own memory");
                        assert_eq!(judge(donated), AbortVerdict::Inject, "EL2's memory");
                    }
                }
            })
        };
        let cpus: Vec<_> = program
            .courses
            .iter()
            .cloned()
            .map(|calls| {
                let rig = Arc::clone(&rig);
                shuttle::thread::spawn(move || -> Course {
                    let answer = |call: HostCall| (call, host_call(rig.system(), call.encode()));
                    calls.into_iter().map(answer).collect()
                })
            })
            .collect();
        let courses: Vec<Course> = cpus
            .into_iter()
            .map(|cpu| cpu.join().expect("no CPU panics"))
            .collect();
        judged.join().expect("no CPU panics");
        let mut rig = Arc::into_inner(rig).expect("all CPUs are done");
        rig.explain(&courses).unwrap();
    });
}

/// One CPU takes a frame from a guest by force; another one takes it first, and gives it to the guest at another place.
#[test]
fn a_frame_is_taken_by_force_while_it_changes_hands() {
    let given = RAM + 32;
    let range = range(given, 1);
    let force = VmCall::ForceReclaim { frame: range.base };
    let case = move || {
        let mut rig = Rig::<Tiny>::with_places(&[span(RAM, 40)], span(RAM, 32), 1);
        let mut make = |call: VmCall| {
            let answer = rig.call(&Default::default(), HostCall::Vm(call).encode(), &[]);
            let answer = answer.expect("a right answer");
            assert_eq!(answer.status, Status::Success, "{call:x?}");
            answer.values[0]
        };
        let vm = make(VmCall::Create {
            flags: VmFlags::PROTECTED.bits(),
            vcpus: 1,
            ipa_bits: 20,
        });
        make(VmCall::TopUp { vm, pages: 4 });
        make(VmCall::Donate { vm, range, gfn: 34 });
        let rig = Arc::new(rig);
        let cpu = |calls: Vec<VmCall>| {
            let rig = Arc::clone(&rig);
            shuttle::thread::spawn(move || {
                let ask = |call| host_call(rig.system(), HostCall::Vm(call).encode()).status;
                calls.into_iter().map(ask).collect::<Vec<_>>()
            })
        };
        let cpus = [
            cpu(vec![force]),
            cpu(vec![force, VmCall::Donate { vm, range, gfn: 35 }]),
        ];
        let told = cpus.map(|cpu| cpu.join().expect("no CPU panics"));
        let ask = |call| host_call(rig.system(), HostCall::Vm(call).encode());
        let all = GuestRange::new(0, 256);
        assert_eq!(
            ask(VmCall::Audit { vm, range: all }).values,
            [256, 0, 0],
            "{told:?}"
        );
        let whole = HostCall::Audit(program::range(RAM, 40));
        assert_eq!(
            host_call(rig.system(), whole.encode()).values,
            [40, 0, 0],
            "{told:?}"
        );
        // Every frame that the VM has is counted, and comes back.
        let _ = ask(VmCall::Destroy { vm });
        let _ = ask(VmCall::Reclaim { vm, range: all });
        let gone = ask(VmCall::Destroy { vm }).status;
        assert!(
            matches!(gone, Status::Success | Status::NoSuchVm),
            "{told:?}: {gone:?}"
        );
        let state = HostCall::FrameState { frame: range.base };
        let state = host_call(rig.system(), state.encode());
        assert_eq!(state.values[0], FrameState::Host.into(), "{told:?}");
    };
    explore_program(3, 1000, case);
}
