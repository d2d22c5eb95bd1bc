//! Published bugs of pKVM that are about guests, as [`super::known_bugs`] has those that are not.
//!
//! What a guest's call answers is judged by the specification as it is made; the cases add what must be true afterwards.

use super::Case;
use super::cases::{HOST, range};
use super::guests::{FRAME, GFN, REFUSE, RETRY, Tried, access, call, done};
use freehold_tests::spec::vm::guest::{Instruction, Reach};
use freehold_tests::spec::vm::run::Entry;
use freehold_tests::spec::{Holding, World};
use hyp_abi::guest_call::GuestCallId;
use hyp_abi::run_page::ExitReason;
use hyp_abi::vm::VmFlags;
use hyp_abi::vm_call::GuestRange;
use hyp_abi::{FRAME_SIZE, HostCall, Status, VmCall};
use hyp_core::Ipa;
use hyp_core::double::{Contents, Step};
use hyp_core::hardware::{Event, Regime};
use hyp_core::ownership::{AbortVerdict, HostAccess};
use hyp_core::pgtable::Descriptor;

pub(super) const KNOWN_GUEST_BUGS: &[Case] = &[
    (
        "known bug: a guest gives up what is not its own, past every table (CVE-2026-59046)",
        relinquish_out_of_bounds,
    ),
    (
        "known bug: a guest's range that wraps passes the check",
        guest_range_that_wraps,
    ),
    ("known bug: a guest gives up a device", relinquish_of_a_device),
    (
        "known bug: a guest gives up a page of a block, and the block goes",
        relinquish_out_of_a_block,
    ),
    (
        "known bug: a guest shares a range that begins and ends with a block",
        share_of_a_whole_block,
    ),
    (
        "known bug: a guest's block is split, and nobody says so",
        silent_split,
    ),
    (
        "known bug: pins of single pages of what was shared as a block",
        pins_of_a_block,
    ),
    (
        "known bug: a guest's page is overwritten while it is still mapped",
        scrubbed_while_mapped,
    ),
    (
        "known bug: pages of a VM's reserve stay behind when it goes",
        reserve_left_behind,
    ),
    (
        "known bug: what the host answers to a guest's request is taken as it comes",
        answer_taken_as_it_comes,
    ),
    (
        "known bug: a guest executes what the instruction cache held before",
        stale_instructions,
    ),
    (
        "known bug: the host reads a private page through one that it holds a reference to",
        reference_to_a_private_page,
    ),
    (
        "known bug: a handle of a VM that is gone reaches the next one",
        handle_of_another_vm,
    ),
];

const SHARE: GuestCallId = GuestCallId::MemShare;
const UNSHARE: GuestCallId = GuestCallId::MemUnshare;
const GIVE_UP: GuestCallId = GuestCallId::MemRelinquish;

/// First frame of a region that is the host's, and the first guest frame number of a region of the guest's memory.
const BLOCK: u64 = HOST + 512;
const BLOCK_GFN: u64 = GFN + 512;

/// A guest with a block of private pages.
fn with_block() -> (Tried, u64) {
    let mut tried = Tried::new();
    let vm = tried.protected();
    assert_eq!(tried.donate(vm, BLOCK, 512, BLOCK_GFN, Status::Success), 512);
    (tried, vm)
}

/// A guest with a private page.
fn with_page() -> (Tried, u64) {
    let mut tried = Tried::new();
    let vm = tried.protected();
    tried.donate(vm, FRAME, 1, GFN, Status::Success);
    (tried, vm)
}

/// How many pages the guest's leaf at a guest frame number has; `None` if there is none.
fn leaf(tried: &Tried, slot: u8, gfn: u64) -> Option<u64> {
    let system = tried.rig.system();
    let vm = system.vms().lock_slot(system.hardware(), slot)?.into_vm()?;
    let found = vm.table.walk(system.hardware(), Ipa::new(gfn * FRAME_SIZE)?)?;
    matches!(found.descriptor, Descriptor::Leaf { .. }).then_some(found.pages)
}

/// A call by its registers, all of which the guest chooses.
const fn raw(id: GuestCallId, x1: u64, x2: u64, x3: u64) -> Instruction {
    Instruction::Call(0, [id as u64, x1, x2, x3])
}

/// Calls that must leave everything as it was.
fn change_nothing(tried: &mut Tried, vm: u64, calls: &[Instruction]) {
    let before = tried.rig.memory().clone();
    tried.run(vm, RETRY, calls, ExitReason::Interrupt);
    assert_eq!(tried.rig.memory().frames(), before.frames());
}

/// Addresses with nothing behind them: outside the declared memory, past the last IPA, past 48 bits and 52; in the middle
/// of a page; with arguments that must be zero.
fn relinquish_out_of_bounds() {
    let (mut tried, vm) = with_page();
    for address in [
        0,
        (GFN - 1) * FRAME_SIZE,
        (GFN + 4096) * FRAME_SIZE,
        (1 << 36) - FRAME_SIZE,
        1 << 36,
        1 << 48,
        1 << 52,
        !(FRAME_SIZE - 1),
        GFN * FRAME_SIZE + 8,
        (GFN * FRAME_SIZE) | (1 << 63),
    ] {
        let calls = [1, 2, 513, u64::MAX].map(|pages| raw(GIVE_UP, address, pages, 0));
        change_nothing(&mut tried, vm, &calls);
    }
    let page = GFN * FRAME_SIZE;
    change_nothing(&mut tried, vm, &[raw(GIVE_UP, page, 1, 1)]);
    tried.is(FRAME, Holding::Guest { slot: 1, gfn: GFN });
    // And one with nothing else wrong is what it says.
    tried.run(vm, RETRY, &[raw(GIVE_UP, page, 0, 0)], ExitReason::Relinquished);
    tried.is(FRAME, Holding::Relinquished);
    tried.vm(VmCall::TakeBack(range(FRAME, 1)), Status::Success);
}

/// Counts of pages that leave the guest's addresses, or 64 bits: the call stops where its own pages end.
fn guest_range_that_wraps() {
    let (mut tried, vm) = with_page();
    let page = GFN * FRAME_SIZE;
    let calls = |id| {
        [u64::MAX, 1 << 52, (1 << 52) + 1, (1 << 24) - GFN + 1, 1 << 24].map(|pages| raw(id, page, pages, 0))
    };
    change_nothing(&mut tried, vm, &calls(SHARE));
    change_nothing(&mut tried, vm, &calls(UNSHARE));
    change_nothing(&mut tried, vm, &calls(GIVE_UP));
    change_nothing(&mut tried, vm, &calls(GuestCallId::MmioGuardRangeMap));
    for (gfn, pages) in [
        (0, u64::MAX),
        (u64::MAX, 2),
        ((1 << 24) - 1, 2),
        (1 << 24, 1),
        (1 << 52, 1),
    ] {
        let range = GuestRange::new(gfn, pages);
        tried.vm(VmCall::Audit { vm, range }, Status::GfnOutOfRange);
        let frames = super::cases::range(HOST + 60, pages.min(2));
        let donate = VmCall::Donate {
            vm,
            range: frames,
            gfn,
        };
        if gfn != 0 {
            tried.vm(donate, Status::GfnOutOfRange);
        }
    }
}

/// Neither a device of the guard's nor one of the host's is memory that could be given up, shared or unshared.
fn relinquish_of_a_device() {
    let (mut tried, vm) = with_page();
    let map = call(0, GuestCallId::MmioGuardMap, 7);
    let on = |gfn| [SHARE, UNSHARE, GIVE_UP].map(|id| call(1, id, gfn));
    change_nothing(&mut tried, vm, &on(7));
    tried.run(vm, RETRY, &[map], ExitReason::Interrupt);
    change_nothing(&mut tried, vm, &on(7));
    change_nothing(&mut tried, vm, &on(8));
    // It is a device still.
    tried.run(vm, RETRY, &[access(7, Reach::Load)], ExitReason::MmioRead);
}

/// One page goes, and the others of its block stay where they are, with what they hold.
fn relinquish_out_of_a_block() {
    for taken in [0, 100, 511] {
        let (mut tried, vm) = with_block();
        assert_eq!(leaf(&tried, 1, BLOCK_GFN), Some(512));
        let beside = BLOCK_GFN + if taken == 0 { 1 } else { taken - 1 };
        let store = access(beside, Reach::Store(0xabc));
        let script = [store, call(1, GIVE_UP, BLOCK_GFN + taken)];
        tried.run(vm, RETRY, &script, ExitReason::Relinquished);
        tried.run(vm, RETRY, &[access(beside, Reach::Load)], ExitReason::Interrupt);
        for other in (0..512).filter(|other| *other != taken) {
            assert_eq!(leaf(&tried, 1, BLOCK_GFN + other), Some(1));
        }
        assert_eq!(leaf(&tried, 1, BLOCK_GFN + taken), None);
        let frame = BLOCK + taken;
        tried.is(frame, Holding::Relinquished);
        tried.vm(VmCall::TakeBack(range(frame, 1)), Status::Success);
        tried.destroy(vm);
    }
}

/// All of a block in one call, from its first page on, and back.
fn share_of_a_whole_block() {
    let (mut tried, vm) = with_block();
    let script = [
        call(512, SHARE, BLOCK_GFN),
        access(BLOCK_GFN + 511, Reach::Store(3)),
    ];
    tried.run(vm, RETRY, &script, ExitReason::Interrupt);
    for offset in [0, 1, 511] {
        tried.is(
            BLOCK + offset,
            Holding::GuestShared {
                slot: 1,
                gfn: BLOCK_GFN + offset,
                pins: 0,
            },
        );
    }
    assert_eq!(
        leaf(&tried, 1, BLOCK_GFN),
        Some(512),
        "the guest's block is whole"
    );
    tried.run(vm, RETRY, &[call(512, UNSHARE, BLOCK_GFN)], ExitReason::Interrupt);
    tried.is(
        BLOCK + 511,
        Holding::Guest {
            slot: 1,
            gfn: BLOCK_GFN + 511,
        },
    );
    assert_eq!(leaf(&tried, 1, BLOCK_GFN), Some(512));
    tried.destroy(vm);
}

/// Sharing single pages of a block does not split the guest's own mapping of it; what does split it, a page that goes,
/// is by break-before-make, and the guest's other vCPUs that meet the break go back.
fn silent_split() {
    use hyp_core::ownership::guest::{GuestAccess, GuestVerdict};
    let (mut tried, vm) = with_block();
    let script = [call(1, SHARE, BLOCK_GFN + 9), call(2, SHARE, BLOCK_GFN + 100)];
    tried.run(vm, RETRY, &script, ExitReason::Interrupt);
    assert_eq!(leaf(&tried, 1, BLOCK_GFN), Some(512));
    tried.rig.system().hardware().record(true);
    tried.run(
        vm,
        RETRY,
        &[call(1, GIVE_UP, BLOCK_GFN + 300)],
        ExitReason::Relinquished,
    );
    let log = tried.rig.system().hardware().take_log();
    tried.rig.system().hardware().record(false);
    let of_block = |step: &Step, table: bool| {
        matches!(step, Step::Core(Event::Descriptor { regime: Regime::Guest(1), level: 2, new, .. })
            if (new & 1 != 0) == table)
    };
    let broken = log.iter().position(|step| of_block(step, false));
    let told = log
        .iter()
        .position(|step| matches!(step, Step::Invalidate(Regime::Guest(1), _)));
    let made = log.iter().position(|step| of_block(step, true));
    assert!(
        broken.is_some() && broken < told && told < made,
        "{broken:?} {told:?} {made:?}"
    );
    for gfn in [BLOCK_GFN, BLOCK_GFN + 9, BLOCK_GFN + 299, BLOCK_GFN + 301] {
        let address = Ipa::new(gfn * FRAME_SIZE).expect("an address of the guest's");
        let verdict = tried
            .rig
            .system()
            .judge_guest_abort(1, address, GuestAccess::Write);
        assert_eq!(verdict, GuestVerdict::Retry);
    }
}

/// Each page of what was shared as a block is pinned for itself, without a page to spare for taking the pins off; and only
/// those that are pinned stay.
fn pins_of_a_block() {
    let (mut tried, vm) = with_block();
    tried.run(vm, RETRY, &[call(512, SHARE, BLOCK_GFN)], ExitReason::Interrupt);
    tried.vm(VmCall::PinShared(range(BLOCK + 7, 2)), Status::Success);
    tried.vm(VmCall::PinShared(range(BLOCK + 8, 1)), Status::Success);
    let unshare = call(1, UNSHARE, BLOCK_GFN + 8);
    assert_eq!(
        tried.run(vm, RETRY, &[unshare], ExitReason::Pinned),
        BLOCK_GFN + 8
    );
    tried.run(vm, REFUSE, &[], ExitReason::Interrupt);
    let unshare = call(1, UNSHARE, BLOCK_GFN + 6);
    tried.run(vm, RETRY, &[unshare], ExitReason::Interrupt);
    let dry = World {
        pool_limit: Some(0),
        ..World::default()
    };
    for (frame, status) in [
        (BLOCK + 8, Status::Success),
        (BLOCK + 8, Status::Success),
        (BLOCK + 8, Status::NotPinned),
        (BLOCK + 7, Status::Success),
        (BLOCK + 6, Status::NotPinned),
    ] {
        let unpin = HostCall::Vm(VmCall::UnpinShared(range(frame, 1)));
        super::cases::expect_in(&mut tried.rig, &dry, unpin, status);
    }
    tried.destroy(vm);
}

/// What the guest gives up, and what the host takes from it, is scrubbed after the last mapping of it is gone from tables
/// and TLBs, of the guest and of the host; and before anybody else gets it.
fn scrubbed_while_mapped() {
    let scrub = |log: &[Step]| log.iter().position(|step| matches!(step, Step::Scrub(_)));
    let last = |log: &[Step], regime: Regime| {
        log.iter()
            .position(|step| matches!(step, Step::Invalidate(of, _) if *of == regime))
    };
    let (mut tried, vm) = with_page();
    tried.run(vm, RETRY, &[call(1, SHARE, GFN)], ExitReason::Interrupt);
    tried.rig.system().hardware().record(true);
    tried.run(vm, RETRY, &[call(1, GIVE_UP, GFN)], ExitReason::Relinquished);
    let log = tried.rig.system().hardware().take_log();
    for regime in [Regime::Guest(1), Regime::Host] {
        let gone = last(&log, regime);
        assert!(gone.is_some() && gone < scrub(&log), "{regime:?}: {log:?}");
    }
    tried.donate(vm, FRAME + 1, 1, GFN + 1, Status::Success);
    let _ = tried.rig.system().hardware().take_log();
    let force = VmCall::ForceReclaim {
        frame: (FRAME + 1) * FRAME_SIZE,
    };
    tried.vm(force, Status::Success);
    let log = tried.rig.system().hardware().take_log();
    let granted = log.iter().position(|step| {
        matches!(step, Step::Core(Event::Descriptor { regime: Regime::Host, old, new, .. })
            if old & 1 == 0 && new & 1 != 0)
    });
    let (gone, scrubbed) = (last(&log, Regime::Guest(1)), scrub(&log));
    assert!(
        gone.is_some() && gone < scrubbed && scrubbed < granted,
        "{gone:?} {scrubbed:?} {granted:?}"
    );
    assert_eq!(
        tried.rig.system().hardware().contents(page(FRAME + 1)),
        Contents::Zero
    );
}

fn page(number: u64) -> hyp_core::Frame {
    hyp_core::Frame::new(number).expect("a frame")
}

/// A VM that goes leaves no page out of the pool, and no page pinned or mapped at EL2.
fn reserve_left_behind() {
    let mut tried = Tried::new();
    let used = |tried: &Tried| tried.rig.system().hardware().pages_in_use();
    // The first VM leaves the nodes and tables behind that splitting the host's regions took.
    let mut all = Vec::new();
    for _ in 0..3 {
        let vm = tried.create(VmFlags::PROTECTED, 40);
        tried.launch(vm);
        tried.donate(vm, BLOCK, 512, BLOCK_GFN, Status::Success);
        tried.donate(vm, FRAME, 3, GFN, Status::Success);
        let script = [call(2, SHARE, GFN), call(3, SHARE, BLOCK_GFN + 3)];
        tried.run(vm, RETRY, &script, ExitReason::Interrupt);
        tried.destroy(vm);
        for page in 2..4 {
            let page = range(super::guests::RUN_PAGE + page, 1);
            tried.host(HostCall::UnshareHyp(page), Status::Success);
        }
        tried.host(HostCall::Collapse(range(HOST, 1024)), Status::Success);
        all.push(used(&tried));
    }
    assert_eq!(all[1], all[0]);
    assert_eq!(all[2], all[0]);
}

/// An answer that fits no exit, or more of one than was asked for.
fn answer_taken_as_it_comes() {
    let (mut tried, vm) = with_page();
    let refused = |tried: &mut Tried, entry: Entry| {
        let answer = tried
            .rig
            .run(&World::default(), 1, 0, &entry, &[], &[])
            .unwrap_or_else(|wrong| panic!("{entry:?}: {wrong}"));
        assert_eq!(answer.status, Status::InvalidParameter, "{entry:?}");
    };
    // Nothing was asked.
    for entry in [REFUSE, done(7), Entry::answer(3, [0; 4])] {
        refused(&mut tried, entry);
    }
    // A page is missing: there is nothing to be done for the guest.
    tried.run(
        vm,
        RETRY,
        &[access(GFN + 1, Reach::Load)],
        ExitReason::MemoryFault,
    );
    for entry in [done(7), Entry::answer(u64::MAX, [0; 4])] {
        refused(&mut tried, entry);
    }
    tried.run(vm, REFUSE, &[], ExitReason::Interrupt);
    // A byte is loaded: of what the host answers the guest gets a byte.
    let byte = Instruction::Access {
        ipa: 7 * FRAME_SIZE,
        reach: Reach::Load,
        bytes: 1,
        described: true,
    };
    tried.run(vm, RETRY, &[byte], ExitReason::MmioRead);
    tried.run(vm, done(0xffff_ffff_ffff_ff5a), &[], ExitReason::Interrupt);
}

/// What was put there before the launch may be executed: the instruction caches know nothing of what was there before.
fn stale_instructions() {
    let mut tried = Tried::new();
    let vm = tried.create(VmFlags::PROTECTED, 12);
    tried.rig.system().hardware().record(true);
    tried.donate(vm, FRAME, 2, GFN, Status::Success);
    let log = tried.rig.system().hardware().take_log();
    let emptied = log.iter().rposition(|step| matches!(step, Step::InvalidateCode));
    let cleaned = log.iter().rposition(|step| matches!(step, Step::Clean(_)));
    let granted = log.iter().position(|step| {
        matches!(step, Step::Core(Event::Descriptor { regime: Regime::Guest(1), level: 3, new, .. })
            if new & 0b11 == 0b11)
    });
    assert!(
        cleaned.is_some() && cleaned < emptied && emptied < granted,
        "{cleaned:?} {emptied:?} {granted:?}"
    );
}

/// Whatever the host has mapped or pinned before, an access of its own to a private page is refused; a page that is taken
/// by force comes back zero, and the guest is told.
fn reference_to_a_private_page() {
    let mut tried = Tried::new();
    let vm = tried.protected();
    tried.host(HostCall::ShareHyp(range(FRAME, 1)), Status::Success);
    tried.donate(vm, FRAME, 1, GFN, Status::SharedWithHyp);
    tried.host(HostCall::UnshareHyp(range(FRAME, 1)), Status::Success);
    tried.donate(vm, FRAME, 1, GFN, Status::Success);
    tried.run(
        vm,
        RETRY,
        &[access(GFN, Reach::Store(0xabcd))],
        ExitReason::Interrupt,
    );
    for access in [HostAccess::Read, HostAccess::Write, HostAccess::Fetch] {
        let address = Ipa::new(FRAME * FRAME_SIZE + 8).expect("an address of RAM");
        let verdict = tried.rig.system().judge_host_abort(address, access);
        assert_eq!(verdict, AbortVerdict::Inject);
    }
    tried.vm(VmCall::PinShared(range(FRAME, 1)), Status::NotShared);
    let force = VmCall::ForceReclaim {
        frame: FRAME * FRAME_SIZE,
    };
    tried.vm(force, Status::Success);
    assert_eq!(
        tried.rig.system().hardware().contents(page(FRAME)),
        Contents::Zero
    );
    tried.run(vm, RETRY, &[access(GFN, Reach::Load)], ExitReason::Lost);
    tried.donate(vm, FRAME, 1, GFN, Status::GfnLost);
}

/// Slots are used again, handles are not.
fn handle_of_another_vm() {
    let mut tried = Tried::new();
    let vm = tried.protected();
    let old = tried.rig.memory().vms().register(1);
    tried.donate(vm, FRAME, 1, GFN, Status::Success);
    tried.destroy(vm);
    for page in 2..4 {
        let page = range(super::guests::RUN_PAGE + page, 1);
        tried.host(HostCall::UnshareHyp(page), Status::Success);
    }
    let vm = tried.protected();
    assert_eq!(vm, 1, "the slot is used again");
    let none = GuestRange::new(GFN, 1);
    for call in [
        VmCall::Run { vm: old, index: 0 },
        VmCall::Destroy { vm: old },
        VmCall::TopUp { vm: old, pages: 1 },
        VmCall::Reclaim { vm: old, range: none },
        VmCall::Donate {
            vm: old,
            range: range(FRAME, 1),
            gfn: GFN,
        },
        VmCall::Digest { vm: old, half: 0 },
        VmCall::Run {
            vm: old ^ 3,
            index: 0,
        },
        VmCall::Run {
            vm: old | 1 << 63,
            index: 0,
        },
    ] {
        tried.vm(call, Status::NoSuchVm);
    }
}
