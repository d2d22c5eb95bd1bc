//! A guest that does what an input says, and its host: calls, accesses, traps, answers, each judged by the specification.
//!
//! There are two VMs, the first one protected. An input is a list of acts; the first byte of each says which:
//!
//! | byte | the act |
//! |---|---|
//! | 00 to 3f | a call of the host, as in the inputs of `host_calls` |
//! | 40 to ff | a run of vCPU 0: bit 0 the VM, bits 3:1 how many things the guest does, less one |
//!
//! A run goes on with a byte for what happens around it, one for the host's answer, and what the guest does.

use super::host_calls::{make_call, world};
use super::reader::{FIRST_FRAME, Reader};
use crate::spec::World;
use crate::spec::rig::{Rig, Saved, span};
use crate::spec::vm::guest::{Instruction, Meanwhile, Reach};
use crate::spec::vm::run::Entry;
use hyp_abi::guest_call::GuestCallId;
use hyp_abi::vm::{Permissions, VmFlags};
use hyp_abi::{FRAME_SIZE, FrameRange, GuestRange, HostCall, Status, VmCall};
use hyp_core::geometry::Tiny;
use std::cell::RefCell;

/// The most acts of one input.
const ACTS: usize = 64;

/// Frames of EL2's, and all of them.
const BOOT: u64 = 36;
const ALL: u64 = 48;

/// The guests' memory.
const MEMORY: GuestRange = GuestRange::new(34, 8);

/// The functions that one byte names: those of EL2's own, PSCI's, the host's services, and what is near them.
const FUNCTIONS: [u32; 44] = [
    GuestCallId::MemShare as u32,
    GuestCallId::MemUnshare as u32,
    GuestCallId::MemRelinquish as u32,
    GuestCallId::MmioGuardMap as u32,
    GuestCallId::MmioGuardUnmap as u32,
    GuestCallId::MmioGuardRangeMap as u32,
    GuestCallId::MmioGuardRangeUnmap as u32,
    GuestCallId::MmioGuardInfo as u32,
    GuestCallId::MmioGuardEnroll as u32,
    GuestCallId::MemInfo as u32,
    GuestCallId::VendorFeatures as u32,
    GuestCallId::VendorUid as u32,
    GuestCallId::LaunchDigest as u32,
    GuestCallId::SmcccVersion as u32,
    GuestCallId::SmcccArchFeatures as u32,
    GuestCallId::SmcccWorkaround1 as u32,
    GuestCallId::SmcccWorkaround2 as u32,
    GuestCallId::SmcccWorkaround3 as u32,
    GuestCallId::TrngVersion as u32,
    GuestCallId::TrngFeatures as u32,
    GuestCallId::TrngGetUuid as u32,
    GuestCallId::TrngRnd32 as u32,
    GuestCallId::TrngRnd64 as u32,
    0x8400_0000,
    0x8400_0001,
    0xc400_0001,
    0x8400_0002,
    0x8400_0003,
    0xc400_0003,
    0x8400_0004,
    0xc400_0004,
    0x8400_0005,
    0x8400_0006,
    0x8400_0008,
    0x8400_0009,
    0x8400_000a,
    0xc400_000e,
    0x8400_001f,
    0xc600_4680,
    0xc600_46ff,
    0xc600_467f,
    0xc600_4700,
    0xc600_000c,
    0x8000_0002,
];

thread_local! {
    /// A machine with two VMs, and how it was at first.
    static MACHINE: RefCell<(Rig<Tiny>, Saved<Tiny>)> = RefCell::new({
        let rig = machine();
        let saved = rig.save();
        (rig, saved)
    });
}

/// Two VMs that were launched, with a few pages each: the first owns its own, the second borrows the host's.
fn machine() -> Rig<Tiny> {
    let mut rig = Rig::with_places(&[span(FIRST_FRAME, ALL)], span(FIRST_FRAME, BOOT), 3);
    let host = FIRST_FRAME + BOOT;
    let range = |offset: u64, frames| FrameRange::new((host + offset) * FRAME_SIZE, frames);
    let mut make = |call: HostCall| {
        let answer = rig.call(&World::default(), call.encode(), &[]);
        let status = answer.expect("a right answer").status;
        assert_eq!(status, Status::Success, "{call:x?}");
    };
    for (vm, flags) in [(1, VmFlags::PROTECTED), (2, VmFlags::empty())] {
        let page = range(vm - 1, 1);
        make(HostCall::Vm(VmCall::Create {
            flags: flags.bits(),
            vcpus: 2,
            ipa_bits: 20,
        }));
        make(HostCall::Vm(VmCall::AddMemory { vm, range: MEMORY }));
        make(HostCall::ShareHyp(page));
        make(HostCall::Vm(VmCall::CreateVcpu {
            vm,
            index: 0,
            run_page: page.base,
        }));
        make(HostCall::Vm(VmCall::TopUp { vm, pages: 3 }));
        make(HostCall::Vm(VmCall::Launch {
            vm,
            entry: MEMORY.gfn * FRAME_SIZE,
            argument: 0,
        }));
    }
    make(HostCall::Vm(VmCall::Donate {
        vm: 1,
        range: range(4, 2),
        gfn: MEMORY.gfn,
    }));
    make(HostCall::Vm(VmCall::Share {
        vm: 2,
        range: range(8, 1),
        gfn: MEMORY.gfn,
        permissions: (Permissions::READ | Permissions::WRITE).bits(),
    }));
    rig
}

/// Does what an input says.
///
/// # Panics
/// If something is not answered as the specification says, or leaves anything in disagreement.
pub fn guest_calls(data: &[u8]) {
    MACHINE.with_borrow_mut(|(rig, saved)| {
        rig.restore(saved);
        let mut reader = Reader::new(data);
        for _ in 0..ACTS {
            if reader.is_empty() {
                break;
            }
            match reader.byte() {
                0x00..=0x3f => make_call(rig, &mut reader),
                act => run(rig, &mut reader, act),
            }
        }
        if let Err(wrong) = rig.compare_all() {
            panic!("at the end: {wrong}");
        }
    });
}

fn run(rig: &mut Rig<Tiny>, reader: &mut Reader<'_>, act: u8) {
    let slot = 1 + (act & 1);
    let world = world(reader.byte());
    let entry = entry(reader);
    let script: Vec<_> = (0..=act >> 1 & 7).map(|_| instruction(reader)).collect();
    if let Err(wrong) = rig.run(&world, slot, 0, &entry, &script, &[]) {
        panic!("{script:x?} with {entry:x?} in {world:?}: {wrong}");
    }
}

/// Bits 1:0 the flags, bits 3:2 the answer, bits 6:4 list registers, bit 7 flags that there are not.
fn entry(reader: &mut Reader<'_>) -> Entry {
    let byte = reader.byte();
    Entry {
        flags: u64::from(byte & 0b11) | u64::from(byte >> 7) << 2,
        answer: u64::from(byte >> 2 & 0b11),
        values: [7, 8, 9, 10],
        list: u64::from(byte >> 4 & 0b111),
    }
}

/// A kind of thing in the low half of a byte, something about it in the high half, and its numbers.
fn instruction(reader: &mut Reader<'_>) -> Instruction {
    let byte = reader.byte();
    let more = byte >> 4;
    let reach = match byte & 0xf {
        0 | 1 => Reach::Load,
        2 | 3 => Reach::Store(reader.register()),
        4 => Reach::Fetch,
        5 => Reach::Walk,
        6 => return Instruction::Smc(reader.register()),
        7 => return Instruction::Wait { event: more & 1 != 0 },
        8 => {
            return Instruction::Meanwhile(match more {
                0..=4 => Meanwhile::Destroy,
                5..=9 => Meanwhile::Rename,
                10..=13 => Meanwhile::Run,
                14 => Meanwhile::ReadRegister,
                _ => Meanwhile::WriteRegister,
            });
        }
        9 => {
            let x = std::array::from_fn(|_| reader.register());
            return Instruction::Call(u16::from(more), x);
        }
        _ => {
            let function = FUNCTIONS[usize::from(reader.byte()) % FUNCTIONS.len()];
            return Instruction::Call(
                0,
                [function.into(), gfn(reader), reader.register(), reader.register()],
            );
        }
    };
    Instruction::Access {
        ipa: gfn(reader) & !0xfff | u64::from(reader.byte()) << 4 & 0xfff | u64::from(more & 7),
        reach,
        bytes: 1 << (more & 3),
        described: more & 8 == 0,
    }
}

/// The address of a page of the guest's, most of the time, else a register.
fn gfn(reader: &mut Reader<'_>) -> u64 {
    match reader.byte() {
        0xff => reader.register() & ((1 << 20) - 1),
        byte => u64::from(byte) * FRAME_SIZE,
    }
}
