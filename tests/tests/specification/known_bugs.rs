//! Bugs of pKVM and of what runs with it that were published, each as a case here where it has a counterpart. Those about
//! guests are in [`super::known_guest_bugs`].
//!
//! Those that have none:
//! - FF-A (an offset of a constituent that nobody checked, the host reclaiming a guest's FF-A memory, a wrong handle in
//!   a transfer): no memory is shared with the secure world; `FF-A memory sharing: not supported` is a case of
//!   [`super::rows`].
//! - A module loaded into EL2 without instruction cache maintenance: EL2 loads no code. What a guest may execute is a
//!   case.
//! - An SMMU's command queue written without a barrier: there is no SMMU.
//! - The race in the buddy allocator: several CPUs at the pool are the cases of `concurrency`.

use super::Case;
use super::cases::{HOST, RAM, expect, expect_in, machine, range};
use freehold_tests::spec::rig::Rig;
use freehold_tests::spec::{Holding, World};
use hyp_abi::{FRAME_SIZE, FrameRange, HostCall, Status};
use hyp_core::double::Step;
use hyp_core::geometry::Arm4K;
use hyp_core::hardware::Regime;
use hyp_core::machine::tree::{Edits, edit, output_bound};
use hyp_core::machine::{PhysRange, describe};
use hyp_core::ownership::{AbortVerdict, HostAccess};
use hyp_core::pgtable::{Descriptor, HypAccess};
use hyp_core::{Frame, Ipa};

pub(super) const KNOWN_BUGS: &[Case] = &[
    (
        "known bug: an access check in the wrong place opens EL2's memory (CVE-2023-21264)",
        check_in_the_wrong_place,
    ),
    (
        "known bug: the seeds of the boot chain give the kernel's layout away (CVE-2023-40082)",
        seeds_given_away,
    ),
    ("known bug: a range that wraps passes the check", range_that_wraps),
    (
        "known bug: a page is overwritten while it is still mapped",
        scrubbed_while_mapped,
    ),
    (
        "known bug: a block that is broken up takes its other pages with it",
        block_broken_up,
    ),
    (
        "known bug: a pin on a page of a block needs memory to come off",
        pin_that_needs_memory,
    ),
    (
        "known bug: pages that leave the pool stay mapped at EL2",
        mapping_that_leaks,
    ),
    (
        "known bug: what is given to EL2 is mapped with other rights than meant",
        rights_ignored,
    ),
];

fn call(rig: &mut Rig<Arm4K>, call: HostCall) -> u64 {
    expect(rig, call, Status::Success)
}

fn ipa(address: u64) -> Ipa {
    Ipa::new(address).expect("below 2^48")
}

/// Every frame of a range is judged, the first and the last, and where one is not the caller's nothing changes; and no
/// access of the host gets through whose page is EL2's, whatever kind it is.
fn check_in_the_wrong_place() {
    let mut rig = machine();
    call(&mut rig, HostCall::DonateHyp(range(HOST + 9, 1)));
    call(&mut rig, HostCall::PoolTopUp(range(HOST + 20, 4)));
    for (first, frames) in [
        (HOST + 8, 2),
        (HOST + 9, 2),
        (HOST, 512),
        (HOST + 19, 2),
        (RAM, 1),
    ] {
        let named = range(first, frames);
        for taking in [HostCall::ShareHyp, HostCall::DonateHyp, HostCall::PoolTopUp] {
            expect(&mut rig, taking(named), Status::NotOwner);
        }
        let answer = rig.call(&World::default(), HostCall::ReclaimHyp(named).encode(), &[]);
        let status = answer.expect("as specified").status;
        assert!(
            matches!(status, Status::NotDonated | Status::Success),
            "{status:?} for {named:x?}"
        );
        if status == Status::Success {
            call(&mut rig, HostCall::DonateHyp(range(HOST + 9, 1)));
        }
    }
    for frame in [RAM, RAM + 511, HOST + 9, HOST + 20, HOST + 23] {
        for access in [HostAccess::Read, HostAccess::Write, HostAccess::Fetch] {
            for offset in [0, 8, FRAME_SIZE - 1] {
                let verdict = rig
                    .system()
                    .judge_host_abort(ipa(frame * FRAME_SIZE + offset), access);
                assert_eq!(verdict, AbortVerdict::Inject, "{access:?} at {frame:#x}");
            }
        }
    }
}

/// The seeds that the machine's firmware gives are EL2's: the host's tree has others, or none.
fn seeds_given_away() {
    let tree = include_bytes!("../../../hyp/core/tests-data/sixty-four-cpus.dtb");
    let machine = describe(tree).expect("a machine of QEMU's");
    let theirs: Vec<&[u8]> = machine.rng_seed.into_iter().chain(machine.kaslr_seed).collect();
    assert!(!theirs.is_empty(), "a tree without seeds shows nothing");
    let ours = [0xa5; 32];
    for seed in [None, Some(ours.as_slice())] {
        let edits = Edits {
            reserved: &[PhysRange::new(0x4000_0000, 0x20_0000).expect("a range")],
            rng_seed: seed,
            kaslr_seed: seed.map(|seed| &seed[..8]),
            ..Edits::default()
        };
        let mut output = vec![0; output_bound(tree.len(), &edits)];
        let bytes = edit(tree, &mut output, &edits).expect("it fits");
        let holds = |wanted: &[u8]| output[..bytes].windows(wanted.len()).any(|bytes| bytes == wanted);
        for theirs in &theirs {
            assert!(!holds(theirs), "the host is told a seed of the firmware's");
        }
        assert_eq!(holds(&ours), seed.is_some());
    }
}

/// Base and size that add up to less than the base, or to more than there are addresses.
fn range_that_wraps() {
    let mut rig = machine();
    let host = HOST * FRAME_SIZE;
    for named in [
        FrameRange::new(host, u64::MAX),
        FrameRange::new(host, u64::MAX / FRAME_SIZE + 1),
        FrameRange::new(host, (1 << 52) - HOST + RAM + 1),
        FrameRange::new(host, 1 << 36),
        FrameRange::new(!(FRAME_SIZE - 1), 2),
        FrameRange::new(1 << 63, 1),
    ] {
        for calling in [
            HostCall::ShareHyp,
            HostCall::UnshareHyp,
            HostCall::DonateHyp,
            HostCall::ReclaimHyp,
            HostCall::PoolTopUp,
            HostCall::Collapse,
            HostCall::Audit,
        ] {
            expect(&mut rig, calling(named), Status::RangeOverflow);
        }
    }
}

/// Nothing is scrubbed before the last mapping of it is gone from tables and TLBs.
fn scrubbed_while_mapped() {
    let mut rig = machine();
    call(&mut rig, HostCall::PoolTopUp(range(HOST + 16, 16)));
    rig.system().hardware().record(true);
    call(&mut rig, HostCall::PoolDrain { frames: 16 });
    let log = rig.system().hardware().take_log();
    let unmapped = log
        .iter()
        .position(|step| matches!(step, Step::Invalidate(Regime::Hyp, _)));
    let scrubbed = log.iter().position(|step| matches!(step, Step::Scrub(_)));
    assert!(unmapped.is_some() && unmapped < scrubbed, "{log:?}");
}

/// While a page is taken out of a block, and after it, the host keeps the others: a CPU that meets the block in the
/// middle of the change goes back to its instruction, and what the pages hold stays.
fn block_broken_up() {
    for taken in [HOST, HOST + 77, HOST + 511] {
        let mut rig = machine();
        call(&mut rig, HostCall::DonateHyp(range(taken, 1)));
        for frame in (HOST..HOST + 512).filter(|frame| *frame != taken) {
            let verdict = rig
                .system()
                .judge_host_abort(ipa(frame * FRAME_SIZE), HostAccess::Write);
            assert_eq!(verdict, AbortVerdict::Retry, "{frame:#x}");
        }
        call(&mut rig, HostCall::ReclaimHyp(range(taken, 1)));
        call(&mut rig, HostCall::Collapse(range(HOST, 512)));
        assert_eq!(
            rig.memory().pool_used(rig.layout()),
            machine().memory().pool_used(rig.layout())
        );
    }
}

/// What a pin takes it keeps until it comes off, so that it always can.
fn pin_that_needs_memory() {
    let mut rig = machine();
    let frame = (HOST + 5) * FRAME_SIZE;
    call(&mut rig, HostCall::ShareHyp(range(HOST, 512)));
    call(&mut rig, HostCall::TraceAttach { cpu: 1, frame });
    call(&mut rig, HostCall::Collapse(range(HOST, 512)));
    let dry = World {
        pool_limit: Some(0),
        ..World::default()
    };
    expect_in(&mut rig, &dry, HostCall::TraceDetach { cpu: 1 }, Status::Success);
    call(&mut rig, HostCall::UnshareHyp(range(HOST, 512)));
}

/// What the pool gives back EL2 does not map any more, nor does any TLB.
fn mapping_that_leaks() {
    let mut rig = machine();
    let before = rig.memory().pool_used(rig.layout());
    for _ in 0..3 {
        call(&mut rig, HostCall::PoolTopUp(range(HOST + 32, 64)));
        while call(&mut rig, HostCall::PoolDrain { frames: 16 }) != 0 {}
        for number in HOST + 32..HOST + 96 {
            assert_eq!(rig.memory().holding(rig.layout(), number), Some(Holding::Host));
            let system = rig.system();
            let found = system
                .hyp_table()
                .walk(system.hardware(), ipa(number * FRAME_SIZE))
                .expect("an address of the table");
            assert!(!found.descriptor.is_valid(), "EL2 maps {number:#x}");
        }
        call(&mut rig, HostCall::Collapse(range(HOST, 512)));
        assert_eq!(
            rig.memory().pool_used(rig.layout()),
            before,
            "tables are left over"
        );
    }
}

/// EL2 maps what the host gives it for data, and never to be executed.
fn rights_ignored() {
    let mut rig = machine();
    call(&mut rig, HostCall::PoolTopUp(range(HOST + 32, 8)));
    call(&mut rig, HostCall::ShareHyp(range(HOST + 64, 1)));
    let frame = (HOST + 64) * FRAME_SIZE;
    call(&mut rig, HostCall::TraceAttach { cpu: 0, frame });
    call(&mut rig, HostCall::DonateHyp(range(HOST + 80, 1)));
    let system = rig.system();
    for (number, wanted) in [
        (HOST + 32, Some(HypAccess::ReadWrite)),
        (HOST + 39, Some(HypAccess::ReadWrite)),
        (HOST + 64, Some(HypAccess::ReadWrite)),
        // Not for EL2's use: it does not map it at all.
        (HOST + 80, None),
    ] {
        let address = Frame::new(number).expect("a frame").address();
        let found = system
            .hyp_table()
            .walk(system.hardware(), address.host_ipa())
            .expect("an address of the table");
        let rights = match found.descriptor {
            Descriptor::Leaf { pa, attributes } => {
                assert_eq!(pa, address);
                attributes.access()
            }
            Descriptor::Invalid(_) | Descriptor::Table(_) => None,
        };
        assert_eq!(rights, wanted, "{number:#x}");
    }
}
