//! What pKVM's self-test says it does not cover, as far as it concerns host and EL2: block sizes, counts that overflow,
//! pages that run out, addresses that are no RAM, broken pages. CPUs at once have a test of their own.

use super::Case;
use super::cases::{HOST, RAM, expect, expect_in, machine, range};
use super::guests::{FRAME, GFN, RUN_PAGE, Tried};
use freehold_tests::spec::rig::{Rig, span};
use freehold_tests::spec::vm::run::Entry as RunEntry;
use freehold_tests::spec::{Holding, World};
use hyp_abi::{FRAME_SIZE, HostCall, Status};
use hyp_core::geometry::Arm4K;
use hyp_core::map::Entry;
use hyp_core::state::State;

pub(super) const LIMITS: &[Case] = &[
    ("sizes: a page, a region and what crosses their borders", sizes),
    ("sizes: a gibibyte in one call, and back", gibibyte),
    ("counts: one pin too many", one_pin_too_many),
    (
        "pages: every call that lacks one says so and changes nothing",
        too_few_pages,
    ),
    ("pages: an empty pool can be filled", empty_pool),
    ("addresses: devices, holes, the firmware's, past the end", no_ram),
    (
        "broken memory: found when it is taken back, and nobody's from then on",
        broken,
    ),
    (
        "broken memory: a run page whose vCPU then does not run, and the VM ends as ever",
        broken_run_page,
    ),
    (
        "broken memory: found before it is the pool's, and nobody's from then on",
        broken_top_up,
    ),
    (
        "interrupts: a region is parked, and only the whole of it goes on",
        parked,
    ),
];

fn sizes() {
    for (first, frames) in [
        (0, 1),
        (0, 512),
        (511, 2),
        (1, 511),
        (100, 512),
        (0, 1024),
        (3, 1000),
    ] {
        let mut rig = machine();
        let named = range(HOST + first, frames);
        for (there, back) in [
            (HostCall::ShareHyp(named), HostCall::UnshareHyp(named)),
            (HostCall::DonateHyp(named), HostCall::ReclaimHyp(named)),
        ] {
            assert_eq!(expect(&mut rig, there, Status::Success), frames);
            assert_eq!(expect(&mut rig, back, Status::Success), frames);
        }
        expect(&mut rig, HostCall::Collapse(range(HOST, 1024)), Status::Success);
        assert_eq!(
            rig.memory().pool_used(rig.layout()),
            machine().memory().pool_used(rig.layout())
        );
    }
}

fn gibibyte() {
    const GIBIBYTE: u64 = 1 << 18;
    // RAM from 1 GiB on; EL2's region is the first one, the next whole GiB the host's.
    let mut rig: Rig<Arm4K> = Rig::with_spare(&[span(RAM, 2 * GIBIBYTE)], span(RAM, 512));
    let named = range(2 * GIBIBYTE, GIBIBYTE);
    assert_eq!(
        expect(&mut rig, HostCall::DonateHyp(named), Status::Success),
        GIBIBYTE
    );
    assert_eq!(
        expect(&mut rig, HostCall::ReclaimHyp(named), Status::Success),
        GIBIBYTE
    );
    assert_eq!(
        expect(&mut rig, HostCall::ShareHyp(named), Status::Success),
        GIBIBYTE
    );
    assert_eq!(
        expect(&mut rig, HostCall::UnshareHyp(named), Status::Success),
        GIBIBYTE
    );
}

fn one_pin_too_many() {
    let mut rig = machine();
    let full = Entry::plain(State::HostSharedHyp)
        .with_count(4095)
        .expect("the highest count");
    rig.force(span(HOST + 9, 1), full, Holding::SharedHyp { pins: 4095 });
    let attach = HostCall::TraceAttach {
        cpu: 0,
        frame: (HOST + 9) * FRAME_SIZE,
    };
    expect(&mut rig, attach, Status::CountOverflow);
    expect(&mut rig, HostCall::UnshareHyp(range(HOST + 9, 1)), Status::Pinned);
}

fn too_few_pages() {
    let part = range(HOST + 5, 2);
    let attach = HostCall::TraceAttach {
        cpu: 0,
        frame: HOST * FRAME_SIZE,
    };
    // What is done before, the call, and how many pages it takes.
    let cases = [
        (None, HostCall::ShareHyp(part), 1),
        (
            Some(HostCall::ShareHyp(range(HOST, 512))),
            HostCall::UnshareHyp(part),
            1,
        ),
        (None, HostCall::DonateHyp(part), 2),
        (
            Some(HostCall::DonateHyp(range(HOST, 512))),
            HostCall::ReclaimHyp(part),
            2,
        ),
        (Some(HostCall::ShareHyp(range(HOST, 512))), attach, 3),
        (
            Some(HostCall::PoolTopUp(part)),
            HostCall::PoolDrain { frames: 1 },
            2,
        ),
    ];
    for (before, call, pages) in cases {
        for limit in 0..=pages {
            let mut rig = machine();
            if let Some(before) = before {
                expect(&mut rig, before, Status::Success);
            }
            let world = World {
                pool_limit: Some(limit),
                ..World::default()
            };
            let wanted = if limit < pages {
                Status::NoMemory
            } else {
                Status::Success
            };
            expect_in(&mut rig, &world, call, wanted);
        }
    }
}

fn empty_pool() {
    let mut rig = machine();
    let world = World {
        pool_limit: Some(0),
        ..World::default()
    };
    expect_in(
        &mut rig,
        &world,
        HostCall::ShareHyp(range(HOST + 1, 1)),
        Status::NoMemory,
    );
    expect_in(
        &mut rig,
        &world,
        HostCall::PoolTopUp(range(HOST + 600, 8)),
        Status::Success,
    );
}

fn no_ram() {
    let mut rig: Rig<Arm4K> =
        Rig::with_spare(&[span(RAM, 3 * 512), span(RAM + 4 * 512, 512)], span(RAM, 512));
    rig.claim(
        span(HOST + 20, 1),
        Entry::plain(State::Reserved),
        Holding::Reserved,
    );
    rig.claim(
        span(HOST + 512 + 20, 1),
        Entry::plain(State::Device),
        Holding::Device,
    );
    let calls: [fn(hyp_abi::FrameRange) -> HostCall; 5] = [
        HostCall::ShareHyp,
        HostCall::UnshareHyp,
        HostCall::DonateHyp,
        HostCall::ReclaimHyp,
        HostCall::PoolTopUp,
    ];
    for call in calls {
        for (named, status) in [
            // The UART of QEMU's virt machine; the hole; behind the end; the last page there can be.
            (range(0x9000, 1), Status::NotMemory),
            (range(RAM + 3 * 512, 1), Status::NotMemory),
            (range(RAM + 5 * 512, 1), Status::NotMemory),
            (range((1 << 36) - 1, 1), Status::NotMemory),
            (range((1 << 36) - 1, 2), Status::RangeOverflow),
            (range(1 << 36, 1), Status::RangeOverflow),
            (range(HOST + 20, 1), Status::Reserved),
            (range(HOST + 512 + 20, 1), Status::NotMemory),
        ] {
            expect(&mut rig, call(named), status);
        }
    }
}

fn broken() {
    let mut rig = machine();
    expect(&mut rig, HostCall::DonateHyp(range(HOST, 512)), Status::Success);
    rig.break_frame(HOST + 40);
    // The whole region cannot come back: it is taken apart around the frame.
    assert_eq!(
        expect(&mut rig, HostCall::ReclaimHyp(range(HOST, 512)), Status::Success),
        0
    );
    expect(&mut rig, HostCall::ReclaimHyp(range(HOST, 512)), Status::Poisoned);
    assert_eq!(
        expect(&mut rig, HostCall::ReclaimHyp(range(HOST, 40)), Status::Success),
        40
    );
    assert_eq!(
        expect(
            &mut rig,
            HostCall::ReclaimHyp(range(HOST + 41, 471)),
            Status::Success
        ),
        471
    );
    for call in [
        HostCall::ShareHyp,
        HostCall::UnshareHyp,
        HostCall::DonateHyp,
        HostCall::ReclaimHyp,
    ] {
        expect(&mut rig, call(range(HOST + 40, 1)), Status::Poisoned);
    }
}

fn broken_run_page() {
    let mut tried = Tried::new();
    let vm = tried.protected();
    tried.donate(vm, FRAME, 1, GFN, Status::Success);
    tried.rig.break_frame(RUN_PAGE + 2 * vm);
    // A record that makes no sense is not looked at, either.
    for entry in [RunEntry::default(), RunEntry::answer(7, [0; 4])] {
        let answer = tried
            .rig
            .run(&World::default(), vm as u8, 0, &entry, &[], &[])
            .unwrap_or_else(|wrong| panic!("{wrong}"));
        assert_eq!(answer.status, Status::Poisoned);
    }
    tried.destroy(vm);
}

fn broken_top_up() {
    let mut rig = machine();
    rig.break_frame(HOST + 40);
    let whole = HostCall::PoolTopUp(range(HOST, 512));
    assert_eq!(expect(&mut rig, whole, Status::Success), 40);
    let rest = HostCall::PoolTopUp(range(HOST + 40, 472));
    expect(&mut rig, rest, Status::Poisoned);
    for call in [
        HostCall::PoolTopUp,
        HostCall::ShareHyp,
        HostCall::UnshareHyp,
        HostCall::DonateHyp,
        HostCall::ReclaimHyp,
    ] {
        expect(&mut rig, call(range(HOST + 40, 1)), Status::Poisoned);
    }
    // What lies behind it has stayed the host's.
    expect(&mut rig, HostCall::ShareHyp(range(HOST + 41, 1)), Status::Success);
    expect(
        &mut rig,
        HostCall::UnshareHyp(range(HOST + 41, 1)),
        Status::Success,
    );
    let behind = HostCall::PoolTopUp(range(HOST + 41, 471));
    assert_eq!(expect(&mut rig, behind, Status::Success), 471);
}

fn parked() {
    let mut rig = machine();
    let region = range(HOST, 512);
    expect(&mut rig, HostCall::DonateHyp(region), Status::Success);
    let hurried = World {
        interrupt_after: Some(3),
        ..World::default()
    };
    assert_eq!(
        expect_in(&mut rig, &hurried, HostCall::ReclaimHyp(region), Status::Success),
        0
    );
    assert_eq!(
        rig.memory().holding(rig.layout(), HOST),
        Some(Holding::Parked { zeroed: 64 })
    );
    expect(&mut rig, HostCall::ReclaimHyp(range(HOST + 3, 1)), Status::Busy);
    expect(&mut rig, HostCall::ShareHyp(region), Status::Busy);
    assert_eq!(
        expect(&mut rig, HostCall::ReclaimHyp(region), Status::Success),
        512
    );
}
