//! Every call on everything that a frame may be.

use super::guests;
use freehold_tests::spec::rig::{Rig, span};
use freehold_tests::spec::vectors::{Vector, VmVector, on_frame, vectors, vm_call_on_frame, vm_vectors};
use freehold_tests::spec::{Holding, World};
use hyp_abi::{FRAME_SIZE, FrameRange, HostCall, Status};
use hyp_core::geometry::Arm4K;
use hyp_core::map::Entry;
use hyp_core::state::{State, Transit, TransitReason};
use libtest_mimic::Trial;

/// First frame of RAM; its first region is EL2's.
pub(super) const RAM: u64 = 0x4_0000;
/// First frame that is the host's.
pub(super) const HOST: u64 = RAM + 512;

/// A machine with three regions.
pub(super) fn machine() -> Rig<Arm4K> {
    Rig::with_spare(&[span(RAM, 3 * 512)], span(RAM, 512))
}

pub(super) fn range(first: u64, frames: u64) -> FrameRange {
    FrameRange::new(first * FRAME_SIZE, frames)
}

/// Makes a call that must be answered by `status`; everything is judged. Answers the first result.
pub(super) fn expect(rig: &mut Rig<Arm4K>, call: HostCall, status: Status) -> u64 {
    expect_in(rig, &World::default(), call, status)
}

/// The same in a world of its own.
pub(super) fn expect_in(rig: &mut Rig<Arm4K>, world: &World, call: HostCall, status: Status) -> u64 {
    let [_, address, frames, ..] = call.encode();
    let first = address / FRAME_SIZE;
    let watched = [first, first.saturating_add(frames).saturating_sub(1)];
    let answer = rig
        .call(world, call.encode(), &watched)
        .unwrap_or_else(|wrong| panic!("{call:x?}: {wrong}"));
    assert_eq!(answer.status, status, "{call:x?}");
    rig.compare_all()
        .unwrap_or_else(|wrong| panic!("after {call:x?}: {wrong}"));
    answer.values[0]
}

pub(super) fn trials() -> Vec<Trial> {
    let hosts = vectors().into_iter().map(|vector| {
        let name = format!("{:?} on {:?}", vector.call, vector.holding);
        Trial::test(name, move || {
            check(vector);
            Ok(())
        })
    });
    let of_vms = vm_vectors().into_iter().map(|vector| {
        let name = format!("Vm {:?} on {:?}", vector.call, vector.holding);
        Trial::test(name, move || {
            check_vm(vector);
            Ok(())
        })
    });
    hosts.chain(of_vms).collect()
}

fn check_vm(vector: VmVector) {
    let mut rig = machine();
    guests::two_vms(&mut rig);
    let frame = prepare(&mut rig, vector.holding);
    let call = vm_call_on_frame(vector.call, frame * FRAME_SIZE).expect("a call that names a frame");
    expect(&mut rig, HostCall::Vm(call), vector.status);
}

fn check(vector: Vector) {
    let mut rig = machine();
    let frame = prepare(&mut rig, vector.holding);
    let call = on_frame(vector.call, frame * FRAME_SIZE).expect("a call that names a frame");
    expect(&mut rig, call, vector.status);
}

/// Brings a frame into a state: by calls, where calls of the host can. Answers which frame.
fn prepare(rig: &mut Rig<Arm4K>, holding: Holding) -> u64 {
    let frame = HOST + 77;
    let one = range(frame, 1);
    let entry = match holding {
        Holding::Boot => return RAM + 77,
        Holding::Host => return frame,
        Holding::SharedHyp { pins: pins @ (0 | 1) } => {
            expect(rig, HostCall::ShareHyp(one), Status::Success);
            if pins == 1 {
                let call = HostCall::TraceAttach {
                    cpu: 3,
                    frame: one.base,
                };
                expect(rig, call, Status::Success);
            }
            return frame;
        }
        Holding::Pool => {
            expect(rig, HostCall::PoolTopUp(one), Status::Success);
            return frame;
        }
        Holding::Donated => {
            expect(rig, HostCall::DonateHyp(one), Status::Success);
            return frame;
        }
        Holding::Guest { .. }
        | Holding::GuestShared { .. }
        | Holding::SharedGuest { .. }
        | Holding::Relinquished => {
            guests::bring(rig, frame, holding);
            return frame;
        }
        Holding::SharedHyp { pins } => counted(State::HostSharedHyp, pins),
        Holding::SharedSecure => Entry::plain(State::HostSharedSecure),
        Holding::LentSecure => Entry::plain(State::HostLentSecure),
        Holding::InWork => in_transit(true, 0),
        Holding::Parked { zeroed } => in_transit(false, zeroed),
        Holding::Poisoned => Entry::plain(State::Poisoned),
        Holding::Device => Entry::plain(State::Device),
        Holding::Reserved => Entry::plain(State::Reserved),
    };
    rig.force(span(frame, 1), entry, holding);
    rig.compare_all().expect("what was put in place is consistent");
    frame
}

fn counted(state: State, count: u16) -> Entry {
    Entry::plain(state).with_count(count).expect("a count that fits")
}

fn in_transit(active: bool, zeroed: u64) -> Entry {
    Entry::in_transit(Transit {
        reason: TransitReason::Reclaim,
        active,
        progress: u16::try_from(zeroed).expect("below a region"),
    })
}
