//! Every transition between the host and guests: what it does, what it refuses, in which order, and what it costs in
//! pages.

mod aborts;
mod borrowing;
mod broken;
mod census;
mod exhaustion;
mod giving;
mod interrupted;
mod lending;
mod matrix;
mod order;
mod random;
mod taking;

use crate::addr::{FRAME_SHIFT, Frame, FrameSpan, Ipa};
use crate::double::Machine;
use crate::geometry::Arm4K;
use crate::hardware::{Hardware, Regime};
use crate::map::Entry;
use crate::ownership::tests::{HOST_REGION, System, assert_sound, machine, picture, span};
use crate::pgtable::{Descriptor, IpaSpan, Reserve, Stage2, Table};
use crate::vm::{GuestAnnotation, Life, MemoryCounts, VcpuSlot, Vm, VmConfig};
use arrayvec::ArrayVec;
use hyp_abi::VmHandle;
use hyp_abi::vm_call::GuestRange;
use sha2::Sha256;
use std::vec::Vec;

/// Bits of the IPAs of the VMs here: two concatenated tables of level 1.
const IPA_BITS: u32 = 40;

/// The first guest frame number of the memory that the VMs here declare: 2 GiB.
const MEMORY: u64 = 0x8_0000;
/// How many frames that memory has.
const MEMORY_FRAMES: u64 = 0x4_0000;

/// What a VM is made with.
#[derive(Clone, Copy)]
struct Kind {
    protected: bool,
    life: Life,
    reserve: u64,
}

const LAUNCHED: Life = Life::Launched {
    digest: [0; 32],
    off: false,
};

/// A protected VM that was launched.
const PROTECTED: Kind = Kind {
    protected: true,
    life: LAUNCHED,
    reserve: 16,
};

/// A VM that is not protected.
const OPEN: Kind = Kind {
    protected: false,
    life: LAUNCHED,
    reserve: 16,
};

fn config(protected: bool) -> VmConfig {
    VmConfig {
        protected,
        guard_required: false,
        max_vcpus: 1,
        ipa_bits: IPA_BITS,
    }
}

fn ipa(gfn: u64) -> Ipa {
    Ipa::new(gfn << FRAME_SHIFT).unwrap()
}

fn frame(number: u64) -> Frame {
    Frame::new(number).unwrap()
}

/// Lets a VM live in `slot`, and answers the register that names it.
fn create(system: &System, slot: u8, kind: Kind) -> u64 {
    let hw = system.hardware();
    let tables = Table::<Stage2, Arm4K>::root_tables(1, IPA_BITS).unwrap();
    let root = hw.take_root(tables).unwrap();
    let mut place = system.vms().lock_slot(hw, slot).unwrap();
    let handle: VmHandle = place.next_handle();
    let mut ranges = ArrayVec::new();
    ranges.push(IpaSpan::new(ipa(MEMORY), MEMORY_FRAMES).unwrap());
    let vm = Vm {
        handle,
        config: config(kind.protected),
        life: kind.life,
        table: Table::new(root, 1, IPA_BITS, Regime::Guest(slot.into())).unwrap(),
        reserve: Reserve::take(hw, kind.reserve).unwrap(),
        counts: MemoryCounts::default(),
        table_pages: 0,
        ranges,
        digest: Sha256::default(),
        guard: false,
        vcpus: core::array::from_fn(|_| VcpuSlot::Absent),
    };
    let page = hw.allocate_page().unwrap();
    place.occupy(hw.settle(page, vm));
    handle.to_register()
}

/// A machine with a VM of some kind in slot 1.
fn with_vm(kind: Kind) -> (System, u64) {
    let system = machine();
    let vm = create(&system, 1, kind);
    (system, vm)
}

/// Asks the VM in a slot, or changes it as no call would.
fn of_vm<T>(system: &System, slot: u8, ask: impl FnOnce(&mut Vm<Machine<Arm4K>>) -> T) -> T {
    ask(&mut system.lock_guest(slot).unwrap())
}

fn counts(system: &System) -> MemoryCounts {
    of_vm(system, 1, |vm| vm.counts)
}

/// How many pages the VM has in its reserve, and in its table.
fn pages(system: &System) -> (u64, u64) {
    of_vm(system, 1, |vm| (vm.reserve.pages(), vm.table_pages))
}

fn die(system: &System) {
    of_vm(system, 1, |vm| vm.life = Life::Dying);
}

/// The level of the guest's descriptor of a page, and what it says.
fn mapped(system: &System, gfn: u64) -> (u8, Descriptor<Stage2>) {
    let entry = of_vm(system, 1, |vm| {
        vm.table.walk(system.hardware(), ipa(gfn)).unwrap()
    });
    (entry.level, entry.descriptor)
}

/// The map's entry of a frame.
fn entry(system: &System, number: u64) -> Entry {
    let region = system.map().lock(system.hardware(), frame(number)).unwrap();
    region.entry((number & 511) as usize)
}

fn range(gfn: u64, frames: u64) -> GuestRange {
    GuestRange::new(gfn, frames)
}

/// Watches host and guest for a sample of frames and of the guest's pages.
fn watch(system: &System, frames: FrameSpan, gfn: u64) {
    let sample = |first: u64, count: u64| -> Vec<Ipa> {
        let step = (count / 4).max(1) as usize;
        let all: Vec<u64> = (first..first + count).collect();
        let ends = [first, first + count - 1];
        all.into_iter().step_by(step).chain(ends).map(ipa).collect()
    };
    let hw = system.hardware();
    hw.watch(
        system.host_table(),
        sample(frames.start().number(), frames.frames()),
    );
    let table = of_vm(system, 1, |vm| vm.table);
    hw.watch(&table, sample(gfn, frames.frames()));
}

/// Everything of a machine with one VM that a refusal must leave as it was.
fn everything(system: &System) -> impl PartialEq + core::fmt::Debug + use<> {
    let hw = system.hardware();
    let vm = of_vm(system, 1, |vm| {
        let table: Vec<_> = vm.table.entries(hw, vm.table.span()).collect();
        (vm.counts, vm.reserve.pages(), vm.table_pages, vm.guard, table)
    });
    (picture(system), hw.pages_in_use(), vm)
}

/// What the guest's table says where nothing is.
fn hole(annotation: GuestAnnotation) -> Descriptor<Stage2> {
    Descriptor::Invalid(annotation.encode())
}

/// What it says of a private page in this frame.
fn leaf(number: u64) -> Descriptor<Stage2> {
    Descriptor::Leaf {
        pa: frame(number).address(),
        attributes: super::table::OWN_MEMORY,
    }
}
