//! Whether an access that faulted may go on, and which device registers it maps.

use super::{HOST_REGION, RAM, RAM_FRAMES, System, span};
use crate::addr::{FRAME_SIZE, Ipa, PhysAddr};
use crate::double::system;
use crate::map::Entry;
use crate::ownership::{AbortVerdict, DeviceOwner, DeviceRange, Devices, HostAccess};
use crate::pgtable::{Descriptor, Stage2Attributes};
use crate::state::{HypUse, State, Transit, TransitReason};
use AbortVerdict::{Emulate, Inject, Retry};
use HostAccess::{Fetch, Read, Write};

const ACCESSES: [HostAccess; 3] = [Read, Write, Fetch];
const GIB: u64 = 1 << 30;
const BLOCK: u64 = 2 << 20;

/// QEMU's fw_cfg, which EL2 keeps, and a redistributor, which it emulates.
const KEPT: u64 = 0x0902_0000;
const EMULATED: u64 = 0x080a_0000;

fn range(start: u64, owner: DeviceOwner) -> DeviceRange {
    DeviceRange {
        start: PhysAddr::new(start).unwrap(),
        bytes: FRAME_SIZE,
        owner,
    }
}

fn machine() -> System {
    let mut devices = Devices::new();
    devices.add(range(KEPT, DeviceOwner::Hyp)).unwrap();
    devices.add(range(EMULATED, DeviceOwner::Emulated)).unwrap();
    system(&[span(RAM, RAM_FRAMES)], span(RAM, 512), devices)
}

fn ipa(address: u64) -> Ipa {
    Ipa::new(address).unwrap()
}

fn judge(system: &System, address: u64, access: HostAccess) -> AbortVerdict {
    system.judge_host_abort(ipa(address), access)
}

/// First byte and size of the leaf that translates `address` for the host, if one does.
fn leaf(system: &System, address: u64) -> Option<(u64, u64)> {
    let found = system.host_table().walk(system.hardware(), ipa(address)).unwrap();
    match found.descriptor {
        Descriptor::Leaf { pa, attributes } => {
            assert_eq!(attributes, Stage2Attributes::HOST_DEVICE);
            assert_eq!(pa.value(), found.start.value(), "devices are where they are");
            Some((found.start.value(), FRAME_SIZE << (9 * (3 - found.level))))
        }
        _ => None,
    }
}

#[test]
fn the_hosts_own_memory_is_tried_again_and_no_other() {
    for state in State::all().filter(|state| *state != State::Device) {
        let system = machine();
        let frame = span(HOST_REGION + 5, 1);
        let entry = match state {
            State::Hyp => Entry::hyp(HypUse::Donated),
            State::InTransit => Entry::in_transit(Transit {
                reason: TransitReason::Reclaim,
                active: true,
                progress: 0,
            }),
            State::Guest | State::GuestSharedHost => Entry::guest(state == State::GuestSharedHost, 3, 9),
            state => Entry::plain(state),
        };
        system.force(frame, entry);
        for access in ACCESSES {
            let verdict = judge(&system, frame.start().address().value() + 8, access);
            let wanted = if state.host_may_access() { Retry } else { Inject };
            assert_eq!(verdict, wanted, "{state:?}, {access:?}");
            let beside = frame.start().address().value() + FRAME_SIZE;
            assert_eq!(judge(&system, beside, access), Retry, "a frame beside {state:?}");
        }
    }
}

#[test]
fn a_device_page_inside_ram_is_mapped_on_first_touch_and_never_executed() {
    let system = machine();
    let frame = span(HOST_REGION + 5, 1);
    system.force(frame, Entry::plain(State::Device));
    let address = frame.start().address().value();
    assert_eq!(judge(&system, address, Fetch), Inject);
    assert_eq!(leaf(&system, address), None);
    assert_eq!(judge(&system, address, Read), Retry);
    assert_eq!(leaf(&system, address), Some((address, FRAME_SIZE)));
    assert_eq!(judge(&system, address, Fetch), Inject);
    assert_eq!(judge(&system, address, Write), Retry, "another CPU has mapped it");
}

#[test]
fn device_registers_are_mapped_by_the_largest_block_without_an_exception() {
    let system = machine();
    for (touched, wanted) in [
        // A GiB without RAM or exception; EL2's own in the same GiB; in the same 2 MiB; RAM in the same GiB.
        (5 * GIB + 0x1234, (5 * GIB, GIB)),
        (0x0a00_0000, (0x0a00_0000, BLOCK)),
        (KEPT - FRAME_SIZE, (KEPT - FRAME_SIZE, FRAME_SIZE)),
        (KEPT + FRAME_SIZE, (KEPT + FRAME_SIZE, FRAME_SIZE)),
        (EMULATED + FRAME_SIZE, (EMULATED + FRAME_SIZE, FRAME_SIZE)),
        (GIB + 64 * BLOCK, (GIB + 64 * BLOCK, BLOCK)),
    ] {
        assert_eq!(judge(&system, touched, Fetch), Inject, "a fetch at {touched:#x}");
        assert_eq!(leaf(&system, touched), None);
        assert_eq!(judge(&system, touched, Write), Retry);
        assert_eq!(leaf(&system, touched), Some(wanted), "{touched:#x}");
        assert_eq!(judge(&system, touched, Read), Retry);
        assert_eq!(
            judge(&system, touched, Fetch),
            Inject,
            "mapped, and still no code"
        );
    }
    for frame in [HOST_REGION, RAM] {
        assert_eq!(
            leaf_kind(&system, frame),
            frame == HOST_REGION,
            "RAM is as it was"
        );
    }
}

/// Whether RAM is mapped at a frame.
fn leaf_kind(system: &System, frame: u64) -> bool {
    let found = system
        .host_table()
        .walk(system.hardware(), ipa(frame * FRAME_SIZE));
    matches!(
        found.unwrap().descriptor,
        Descriptor::Leaf { attributes, .. } if attributes == Stage2Attributes::HOST_MEMORY
    )
}

#[test]
fn registers_that_el2_keeps_are_never_mapped() {
    let system = machine();
    for access in ACCESSES {
        assert_eq!(judge(&system, KEPT + 16, access), Inject);
    }
    for access in [Read, Write] {
        let verdict = judge(&system, EMULATED + 4, access);
        assert_eq!(verdict, Emulate(range(EMULATED, DeviceOwner::Emulated)));
    }
    assert_eq!(judge(&system, EMULATED + 4, Fetch), Inject);
    for address in [KEPT, EMULATED] {
        assert_eq!(leaf(&system, address), None);
    }
}

#[test]
fn an_address_past_the_table_and_a_want_of_pages_are_refused() {
    let system = machine();
    let past = 1 << system.host_table().ia_bits();
    for access in ACCESSES {
        assert_eq!(judge(&system, past, access), Inject);
    }
    system.hardware().limit_pool(Some(0));
    assert_eq!(judge(&system, 0x0a00_0000, Read), Inject);
    assert_eq!(leaf(&system, 0x0a00_0000), None);
    system.hardware().limit_pool(None);
    assert_eq!(judge(&system, 0x0a00_0000, Read), Retry);
}
