//! What pKVM's ownership self-test checks, for host and EL2: in each state every call that does not fit is refused, and
//! every one that does brings the next state.

use super::Case;
use super::cases::{HOST, RAM, expect, machine, range};
use freehold_tests::spec::Holding;
use freehold_tests::spec::rig::Rig;
use hyp_abi::{FRAME_SIZE, FrameRange, HostCall, Status};
use hyp_core::geometry::Arm4K;
use hyp_core::trap::smc::{self, Verdict};

const FRAME: u64 = HOST + 5;

pub(super) const ROWS: &[Case] = &[
    (
        "EL2's page: the host can share, give and pin nothing of it",
        el2s_own,
    ),
    (
        "a donated page: comes back once, and is the host's alone",
        given_back,
    ),
    (
        "a shared page: cannot be shared again, given, or taken back",
        shared,
    ),
    ("a pinned page: pinned twice, unpinned once, one pin left", pinned),
    (
        "an unshared page: is the host's, and cannot be unshared again",
        unshared,
    ),
    ("a donated page: the host has nothing of it", donated),
    ("a page of the pool: comes back by draining only", pool),
    ("FF-A memory sharing: not supported", ffa),
];

fn one() -> FrameRange {
    range(FRAME, 1)
}

fn pin(cpu: u64, frame: u64) -> HostCall {
    HostCall::TraceAttach {
        cpu,
        frame: frame * FRAME_SIZE,
    }
}

fn all_refused(rig: &mut Rig<Arm4K>, calls: &[(HostCall, Status)]) {
    for (call, status) in calls {
        expect(rig, *call, *status);
    }
}

fn is(rig: &Rig<Arm4K>, holding: Holding) {
    assert_eq!(rig.memory().holding(rig.layout(), FRAME), Some(holding));
}

fn el2s_own() {
    let mut rig = machine();
    let own = range(RAM + 9, 1);
    all_refused(
        &mut rig,
        &[
            (HostCall::DonateHyp(own), Status::NotOwner),
            (HostCall::PoolTopUp(own), Status::NotOwner),
            (HostCall::ShareHyp(own), Status::NotOwner),
            (HostCall::UnshareHyp(own), Status::NotOwner),
            (HostCall::ReclaimHyp(own), Status::NotDonated),
            (pin(0, RAM + 9), Status::NotOwner),
        ],
    );
}

fn given_back() {
    let mut rig = machine();
    expect(&mut rig, HostCall::DonateHyp(one()), Status::Success);
    expect(&mut rig, HostCall::ReclaimHyp(one()), Status::Success);
    is(&rig, Holding::Host);
    all_refused(
        &mut rig,
        &[
            (HostCall::ReclaimHyp(one()), Status::NotDonated),
            (HostCall::UnshareHyp(one()), Status::NotShared),
            (pin(0, FRAME), Status::NotShared),
        ],
    );
}

fn shared() {
    let mut rig = machine();
    expect(&mut rig, HostCall::ShareHyp(one()), Status::Success);
    is(&rig, Holding::SharedHyp { pins: 0 });
    refused_while_shared(&mut rig);
}

fn refused_while_shared(rig: &mut Rig<Arm4K>) {
    all_refused(
        rig,
        &[
            (HostCall::ShareHyp(one()), Status::SharedWithHyp),
            (HostCall::DonateHyp(one()), Status::SharedWithHyp),
            (HostCall::PoolTopUp(one()), Status::SharedWithHyp),
            (HostCall::ReclaimHyp(one()), Status::NotDonated),
        ],
    );
}

fn pinned() {
    let mut rig = machine();
    expect(&mut rig, HostCall::ShareHyp(one()), Status::Success);
    expect(&mut rig, pin(0, FRAME), Status::Success);
    expect(&mut rig, pin(1, FRAME), Status::Success);
    is(&rig, Holding::SharedHyp { pins: 2 });
    expect(&mut rig, HostCall::TraceDetach { cpu: 0 }, Status::Success);
    is(&rig, Holding::SharedHyp { pins: 1 });
    expect(&mut rig, HostCall::UnshareHyp(one()), Status::Pinned);
    refused_while_shared(&mut rig);
    expect(&mut rig, HostCall::TraceDetach { cpu: 1 }, Status::Success);
    is(&rig, Holding::SharedHyp { pins: 0 });
    expect(
        &mut rig,
        HostCall::TraceDetach { cpu: 1 },
        Status::WrongTraceState,
    );
}

fn unshared() {
    let mut rig = machine();
    expect(&mut rig, HostCall::ShareHyp(one()), Status::Success);
    expect(&mut rig, HostCall::UnshareHyp(one()), Status::Success);
    is(&rig, Holding::Host);
    expect(&mut rig, HostCall::UnshareHyp(one()), Status::NotShared);
}

fn donated() {
    let mut rig = machine();
    expect(&mut rig, HostCall::DonateHyp(one()), Status::Success);
    is(&rig, Holding::Donated);
    all_refused(
        &mut rig,
        &[
            (HostCall::DonateHyp(one()), Status::NotOwner),
            (HostCall::PoolTopUp(one()), Status::NotOwner),
            (HostCall::ShareHyp(one()), Status::NotOwner),
            (HostCall::UnshareHyp(one()), Status::NotOwner),
            (pin(0, FRAME), Status::NotOwner),
        ],
    );
}

fn pool() {
    let mut rig = machine();
    expect(&mut rig, HostCall::PoolTopUp(one()), Status::Success);
    is(&rig, Holding::Pool);
    all_refused(
        &mut rig,
        &[
            (HostCall::ReclaimHyp(one()), Status::NotDonated),
            (HostCall::DonateHyp(one()), Status::NotOwner),
            (HostCall::ShareHyp(one()), Status::NotOwner),
        ],
    );
    let address = expect(&mut rig, HostCall::PoolDrain { frames: 8 }, Status::Success);
    assert_eq!(address, one().base);
    is(&rig, Holding::Host);
}

fn ffa() {
    // FFA_MEM_SHARE, FFA_MEM_LEND and FFA_MEM_DONATE in both conventions, FFA_MEM_RECLAIM, FFA_RXTX_MAP, FFA_VERSION
    // (Arm DEN0077).
    for function in [
        0x8400_0073_u64,
        0xC400_0073,
        0x8400_0072,
        0xC400_0072,
        0x8400_0071,
        0xC400_0071,
        0x8400_0077,
        0x8400_0066,
        0xC400_0066,
        0x8400_0063,
    ] {
        assert_eq!(
            smc::judge(0, [function, 0, 0, 0]),
            Verdict::Answer(smc::NOT_SUPPORTED),
            "{function:#x}"
        );
    }
}
