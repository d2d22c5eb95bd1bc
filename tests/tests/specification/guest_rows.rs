//! The transitions between the host and its guests, in the terms of pKVM's self-test at boot, and what it leaves out:
//! who may share, donate, lend, pin, take by force and take back, and what each refuses.

use super::Case;
use super::cases::{HOST, range};
use super::guests::{FRAME, GFN, REFUSE, RETRY, Tried, access, call, done, two_vms};
use freehold_tests::spec::vm::Place;
use freehold_tests::spec::vm::guest::{Instruction, Meanwhile, Reach};
use freehold_tests::spec::vm::run::Entry;
use freehold_tests::spec::{Holding, World};
use hyp_abi::guest_call::GuestCallId;
use hyp_abi::run_page::ExitReason;
use hyp_abi::vcpu_register::VcpuRegister;
use hyp_abi::vm::{Permissions, VmFlags};
use hyp_abi::vm_call::GuestRange;
use hyp_abi::{FRAME_SIZE, HostCall, Status, VmCall};

pub(super) const GUESTS: &[Case] = &[
    ("a VM: created, launched, run, destroyed", a_life),
    (
        "a donated page: the guest's alone, and zero when it comes back",
        donated,
    ),
    ("a page that a guest lends: both reach it, pinned it stays", lent),
    ("a page that a guest gives up: zero, and taken back", given_up),
    (
        "a page taken by force: lost to the guest for good",
        taken_by_force,
    ),
    (
        "a page with two borrowers: the host's again when both let go",
        two_borrowers,
    ),
    (
        "a dead guest: private pages come back zero, lent ones as they are",
        dead,
    ),
    (
        "a block of 2 MiB: given, lent in part, given up in part, reclaimed",
        block,
    ),
    (
        "a guest's call without pages: restarted when the reserve has some",
        needy,
    ),
    (
        "devices: emulated without a guard, only allowed ones with it",
        devices,
    ),
    (
        "a vCPU that runs: its VM is neither destroyed nor renamed nor run twice",
        busy,
    ),
    ("a second vCPU: on, off, and on again", second_vcpu),
    ("4095 borrowers, 4095 pins: not one more", counts),
    (
        "registers: the host's to see of an open vCPU that rests, at every point of its life",
        registers,
    ),
    (
        "registers: a vCPU goes on with what was written, whatever it waits for",
        registers_written,
    ),
];

fn a_life() {
    let mut tried = Tried::new();
    let vm = tried.create(VmFlags::PROTECTED, 4);
    tried.vm(VmCall::Run { vm, index: 0 }, Status::WrongVmState);
    tried.vm(VmCall::Digest { vm, half: 0 }, Status::WrongVmState);
    tried.donate(vm, FRAME, 1, GFN, Status::Success);
    tried.launch(vm);
    tried.vm(VmCall::Digest { vm, half: 0 }, Status::Success);
    tried.vm(VmCall::Digest { vm, half: 2 }, Status::InvalidParameter);
    tried.vm(VmCall::Run { vm, index: 1 }, Status::VcpuOff);
    tried.vm(VmCall::Run { vm, index: 2 }, Status::NoSuchVcpu);
    tried.run(vm, Entry::default(), &[], ExitReason::Interrupt);
    tried.run(vm, RETRY, &[Instruction::Wait { event: true }], ExitReason::Wait);
    let old = tried.rig.memory().vms().register(vm as u8);
    tried.vm(VmCall::Rename { vm }, Status::Success);
    tried.vm(VmCall::Destroy { vm: old }, Status::NoSuchVm);
    tried.run(
        vm,
        Entry::default(),
        &[access(GFN, Reach::Load)],
        ExitReason::Interrupt,
    );
    tried.destroy(vm);
}

fn donated() {
    let mut tried = Tried::new();
    let vm = tried.protected();
    tried.donate(vm, FRAME, 1, GFN, Status::Success);
    tried.is(FRAME, Holding::Guest { slot: 1, gfn: GFN });
    tried.donate(vm, FRAME, 1, GFN + 1, Status::NotOwner);
    tried.donate(vm, FRAME + 1, 1, GFN, Status::GfnMapped);
    tried.host(HostCall::ShareHyp(range(FRAME, 1)), Status::NotOwner);
    tried.vm(VmCall::PinShared(range(FRAME, 1)), Status::NotShared);
    tried.vm(VmCall::TakeBack(range(FRAME, 1)), Status::NotRelinquished);
    let reclaim = VmCall::Reclaim {
        vm,
        range: GuestRange::new(GFN, 1),
    };
    tried.vm(reclaim, Status::WrongVmState);
    let script = [
        access(GFN, Reach::Load),
        access(GFN, Reach::Store(9)),
        access(GFN, Reach::Fetch),
        access(GFN + 1, Reach::Store(9)),
    ];
    let gfn = tried.run(vm, Entry::default(), &script, ExitReason::MemoryFault);
    assert_eq!(gfn, GFN + 1);
    tried.donate(vm, FRAME + 1, 1, GFN + 1, Status::Success);
    tried.run(vm, RETRY, &[], ExitReason::Interrupt);
    tried.run(
        vm,
        RETRY,
        &[access(GFN + 2, Reach::Walk)],
        ExitReason::MemoryFault,
    );
    tried.run(vm, REFUSE, &[access(GFN, Reach::Load)], ExitReason::Interrupt);
    tried.destroy(vm);
    tried.is(FRAME, Holding::Host);
}

fn lent() {
    let mut tried = Tried::new();
    let vm = tried.protected();
    tried.donate(vm, FRAME, 1, GFN, Status::Success);
    let share = call(1, GuestCallId::MemShare, GFN);
    let unshare = call(1, GuestCallId::MemUnshare, GFN);
    let store = access(GFN, Reach::Store(5));
    tried.run(
        vm,
        Entry::default(),
        &[store, share, share, store],
        ExitReason::Interrupt,
    );
    tried.vm(VmCall::PinShared(range(FRAME, 1)), Status::Success);
    tried.vm(VmCall::PinShared(range(FRAME, 1)), Status::Success);
    tried.host(HostCall::ShareHyp(range(FRAME, 1)), Status::NotOwner);
    tried.vm(
        VmCall::ForceReclaim {
            frame: FRAME * FRAME_SIZE,
        },
        Status::NotOwner,
    );
    tried.run(vm, RETRY, &[unshare], ExitReason::Pinned);
    tried.run(vm, REFUSE, &[unshare], ExitReason::Pinned);
    tried.vm(VmCall::UnpinShared(range(FRAME, 1)), Status::Success);
    tried.run(vm, RETRY, &[unshare], ExitReason::Pinned);
    tried.vm(VmCall::UnpinShared(range(FRAME, 1)), Status::Success);
    tried.vm(VmCall::UnpinShared(range(FRAME, 1)), Status::NotPinned);
    tried.run(vm, RETRY, &[unshare, unshare, store], ExitReason::Interrupt);
    tried.is(FRAME, Holding::Guest { slot: 1, gfn: GFN });
    let missing = call(1, GuestCallId::MemShare, GFN + 7);
    tried.run(vm, RETRY, &[missing], ExitReason::MemoryFault);
    tried.run(vm, REFUSE, &[missing], ExitReason::MemoryFault);
    tried.donate(vm, FRAME + 7, 1, GFN + 7, Status::Success);
    tried.run(vm, RETRY, &[], ExitReason::Interrupt);
    tried.destroy(vm);
}

fn given_up() {
    let mut tried = Tried::new();
    let vm = tried.protected();
    tried.donate(vm, FRAME, 2, GFN, Status::Success);
    let up = call(1, GuestCallId::MemRelinquish, GFN);
    let store = access(GFN, Reach::Store(5));
    tried.run(vm, RETRY, &[store, up], ExitReason::Relinquished);
    tried.is(FRAME, Holding::Relinquished);
    tried.run(
        vm,
        RETRY,
        &[up, access(GFN, Reach::Load)],
        ExitReason::MemoryFault,
    );
    tried.vm(
        VmCall::ForceReclaim {
            frame: FRAME * FRAME_SIZE,
        },
        Status::NotOwner,
    );
    tried.vm(VmCall::TakeBack(range(FRAME, 1)), Status::Success);
    tried.vm(VmCall::TakeBack(range(FRAME, 1)), Status::NotRelinquished);
    tried.donate(vm, FRAME, 1, GFN, Status::Success);
    let share = call(1, GuestCallId::MemShare, GFN + 1);
    let up = call(1, GuestCallId::MemRelinquish, GFN + 1);
    tried.run(vm, RETRY, &[share], ExitReason::Interrupt);
    tried.vm(VmCall::PinShared(range(FRAME + 1, 1)), Status::Success);
    tried.run(vm, RETRY, &[up], ExitReason::Pinned);
    tried.vm(VmCall::UnpinShared(range(FRAME + 1, 1)), Status::Success);
    tried.run(vm, RETRY, &[], ExitReason::Relinquished);
    tried.run(vm, RETRY, &[], ExitReason::Interrupt);
    tried.vm(VmCall::TakeBack(range(FRAME + 1, 1)), Status::Success);
    tried.destroy(vm);
}

fn taken_by_force() {
    let mut tried = Tried::new();
    let vm = tried.protected();
    tried.donate(vm, FRAME, 3, GFN, Status::Success);
    let force = VmCall::ForceReclaim {
        frame: (FRAME + 1) * FRAME_SIZE,
    };
    tried.vm(force, Status::Success);
    tried.vm(force, Status::NotOwner);
    tried.is(FRAME + 1, Holding::Host);
    assert_eq!(tried.rig.place(1, GFN + 1), Some(Place::Lost));
    tried.donate(vm, FRAME + 1, 1, GFN + 1, Status::GfnLost);
    tried.run(vm, RETRY, &[access(GFN + 1, Reach::Load)], ExitReason::Lost);
    tried.run(vm, RETRY, &[], ExitReason::Lost);
    let calls = [
        call(1, GuestCallId::MemShare, GFN + 1),
        call(1, GuestCallId::MemRelinquish, GFN + 1),
    ];
    let mut other = Tried::new();
    let vm_too = other.protected();
    other.donate(vm_too, FRAME, 3, GFN, Status::Success);
    other.vm(force, Status::Success);
    other.run(vm_too, RETRY, &calls, ExitReason::Interrupt);
    tried.destroy(vm);
    other.destroy(vm_too);
}

fn two_borrowers() {
    let mut tried = Tried::new();
    let (one, two) = (tried.plain(), tried.plain());
    let rw = (Permissions::READ | Permissions::WRITE).bits();
    let share = |vm: u64, gfn: u64, permissions: u64| VmCall::Share {
        vm,
        range: range(FRAME, 2),
        gfn,
        permissions,
    };
    let unshare = |vm: u64, gfn: u64, frames: u64| VmCall::Unshare {
        vm,
        range: GuestRange::new(gfn, frames),
    };
    tried.vm(share(one, GFN, 0), Status::InvalidParameter);
    tried.vm(
        share(one, GFN, Permissions::WRITE.bits()),
        Status::InvalidParameter,
    );
    tried.vm(share(one, GFN, rw), Status::Success);
    tried.vm(share(one, GFN, rw), Status::GfnMapped);
    tried.vm(share(one, GFN + 9, rw), Status::Success);
    tried.vm(share(two, GFN, Permissions::READ.bits()), Status::Success);
    tried.is(FRAME, Holding::SharedGuest { borrowers: 3 });
    tried.host(HostCall::DonateHyp(range(FRAME, 1)), Status::SharedWithGuest);
    tried.run(one, RETRY, &[access(GFN, Reach::Store(3))], ExitReason::Interrupt);
    tried.run(one, RETRY, &[access(GFN, Reach::Fetch)], ExitReason::MemoryFault);
    tried.run(two, RETRY, &[access(GFN, Reach::Load)], ExitReason::Interrupt);
    tried.run(
        two,
        RETRY,
        &[access(GFN, Reach::Store(3))],
        ExitReason::MemoryFault,
    );
    let allow = VmCall::SetPermissions {
        vm: two,
        range: GuestRange::new(GFN, 5),
        permissions: rw,
    };
    tried.vm(allow, Status::Success);
    tried.run(two, RETRY, &[], ExitReason::Interrupt);
    let age = |vm: u64| VmCall::TestAge {
        vm,
        range: GuestRange::new(GFN, 2),
    };
    tried.vm(age(two), Status::Success);
    tried.vm(age(two), Status::Success);
    tried.run(two, RETRY, &[access(GFN, Reach::Load)], ExitReason::Interrupt);
    tried.vm(age(two), Status::Success);
    tried.donate(one, FRAME + 5, 1, GFN + 5, Status::WrongVmKind);
    tried.vm(unshare(one, GFN, 2), Status::Success);
    tried.vm(unshare(one, GFN, 2), Status::GfnNotMapped);
    tried.vm(unshare(one, GFN + 9, 2), Status::Success);
    tried.is(FRAME, Holding::SharedGuest { borrowers: 1 });
    tried.vm(VmCall::Destroy { vm: two }, Status::FramesLeft);
    tried.vm(unshare(two, GFN, 2), Status::Success);
    tried.is(FRAME, Holding::Host);
    tried.vm(VmCall::Destroy { vm: two }, Status::Success);
    tried.vm(VmCall::Destroy { vm: one }, Status::Success);
}

fn dead() {
    let mut tried = Tried::new();
    let vm = tried.protected();
    tried.donate(vm, FRAME, 3, GFN, Status::Success);
    let share = call(1, GuestCallId::MemShare, GFN + 1);
    let stores = [
        access(GFN, Reach::Store(5)),
        access(GFN + 1, Reach::Store(6)),
        share,
    ];
    tried.run(vm, RETRY, &stores, ExitReason::Interrupt);
    tried.vm(VmCall::PinShared(range(FRAME + 1, 1)), Status::Success);
    assert_eq!(tried.vm(VmCall::Destroy { vm }, Status::FramesLeft), 3);
    tried.vm(VmCall::Run { vm, index: 0 }, Status::WrongVmState);
    tried.donate(vm, FRAME + 9, 1, GFN + 9, Status::WrongVmState);
    let from = |gfn: u64| VmCall::Reclaim {
        vm,
        range: GuestRange::new(gfn, 4),
    };
    tried.vm(from(GFN + 1), Status::Pinned);
    tried.vm(VmCall::UnpinShared(range(FRAME + 1, 1)), Status::Success);
    tried.vm(from(GFN), Status::Success);
    tried.vm(VmCall::Destroy { vm }, Status::Success);
}

fn block() {
    let mut tried = Tried::new();
    let vm = tried.protected();
    let first = HOST + 512;
    assert_eq!(tried.donate(vm, first, 512, GFN + 512, Status::Success), 512);
    let share = call(3, GuestCallId::MemShare, GFN + 512 + 100);
    let unshare = call(3, GuestCallId::MemUnshare, GFN + 512 + 100);
    let up = call(2, GuestCallId::MemRelinquish, GFN + 512 + 5);
    tried.run(vm, RETRY, &[share, unshare, share], ExitReason::Interrupt);
    tried.run(vm, RETRY, &[up], ExitReason::Relinquished);
    tried.vm(VmCall::TakeBack(range(first + 5, 2)), Status::Success);
    let force = VmCall::ForceReclaim {
        frame: (first + 9) * FRAME_SIZE,
    };
    tried.vm(force, Status::Success);
    tried.destroy(vm);
}

fn needy() {
    let mut tried = Tried::new();
    let vm = tried.create(VmFlags::PROTECTED, 4);
    tried.launch(vm);
    tried.donate(vm, HOST + 512, 512, GFN + 512, Status::Success);
    // What is left of the reserve cannot be told; too little for a share, a relinquishment and a device far away.
    let far = call(0, GuestCallId::MmioGuardMap, 1 << 20);
    let share = call(1, GuestCallId::MemShare, GFN + 512 + 100);
    let up = call(1, GuestCallId::MemRelinquish, GFN + 512 + 5);
    let mut script = vec![share, far, up];
    let mut rounds = 0;
    loop {
        let answer = tried
            .rig
            .run(&World::default(), vm as u8, 0, &RETRY, &script, &[])
            .unwrap_or_else(|wrong| panic!("{wrong}"));
        script.clear();
        let [reason, pages, _] = answer.values;
        if reason != u64::from(ExitReason::MemoryNeeded) {
            break;
        }
        script = vec![far, up];
        tried.vm(VmCall::TopUp { vm, pages }, Status::Success);
        rounds += 1;
        assert!(rounds < 8, "it asks for pages again and again");
    }
    assert!(rounds > 0, "it never asked for pages");
    tried.destroy(vm);
}

fn devices() {
    let mut tried = Tried::new();
    let vm = tried.protected();
    let load = access(7, Reach::Load);
    let store = access(7, Reach::Store(0x1234));
    tried.run(vm, RETRY, &[load], ExitReason::MmioRead);
    tried.run(vm, done(99), &[store], ExitReason::MmioWrite);
    tried.run(vm, done(0), &[load], ExitReason::MmioRead);
    tried.run(vm, REFUSE, &[access(7, Reach::Fetch)], ExitReason::Interrupt);
    tried.run(vm, RETRY, &[access(7, Reach::Walk)], ExitReason::Interrupt);
    let map = call(0, GuestCallId::MmioGuardMap, 8);
    let unmap = call(0, GuestCallId::MmioGuardUnmap, 8);
    let inside = call(0, GuestCallId::MmioGuardMap, GFN);
    tried.run(vm, RETRY, &[map, inside, load], ExitReason::Interrupt);
    tried.run(vm, RETRY, &[access(8, Reach::Load)], ExitReason::MmioRead);
    tried.run(vm, RETRY, &[], ExitReason::MmioRead);
    tried.run(
        vm,
        done(7),
        &[unmap, access(8, Reach::Load)],
        ExitReason::Interrupt,
    );
    let service = Instruction::Call(0, [0xc600_4680, 1, 2, 3]);
    tried.run(vm, RETRY, &[service], ExitReason::HostService);
    tried.run(vm, done(1), &[access(GFN, Reach::Load)], ExitReason::MemoryFault);
    tried.run(vm, RETRY, &[], ExitReason::MemoryFault);
    tried.vm(VmCall::Destroy { vm }, Status::Success);
}

fn busy() {
    let mut tried = Tried::new();
    let vm = tried.protected();
    let script = [Meanwhile::Destroy, Meanwhile::Rename, Meanwhile::Run].map(Instruction::Meanwhile);
    tried.run(vm, RETRY, &script, ExitReason::Interrupt);
    tried.vm(VmCall::Destroy { vm }, Status::Success);
}

fn second_vcpu() {
    let mut tried = Tried::new();
    let vm = tried.protected();
    let on = Instruction::Call(0, [0xc400_0003, 1, GFN * FRAME_SIZE + 8, 5]);
    let off = Instruction::Call(0, [0x8400_0002, 0, 0, 0]);
    let info = Instruction::Call(0, [0xc400_0004, 1, 0, 0]);
    tried.run(vm, RETRY, &[info, on], ExitReason::CpuOn);
    tried.run(vm, RETRY, &[on, info], ExitReason::Interrupt);
    tried.run_vcpu(vm, 1, RETRY, &[off], ExitReason::CpuOff);
    tried.vm(VmCall::Run { vm, index: 1 }, Status::VcpuOff);
    tried.run(vm, RETRY, &[info, on], ExitReason::CpuOn);
    tried.run_vcpu(vm, 1, RETRY, &[on], ExitReason::Interrupt);
    let end = Instruction::Call(0, [0x8400_0008, 0, 0, 0]);
    tried.run_vcpu(vm, 1, RETRY, &[end], ExitReason::SystemOff);
    tried.vm(VmCall::Destroy { vm }, Status::Success);
}

fn counts() {
    let mut tried = Tried::new();
    two_vms(&mut tried.rig);
    let borrow = |gfn: u64| VmCall::Share {
        vm: 2,
        range: range(FRAME + 1, 1),
        gfn,
        permissions: Permissions::READ.bits(),
    };
    tried.bring(
        FRAME,
        Holding::GuestShared {
            slot: 1,
            gfn: GFN,
            pins: 0,
        },
    );
    // Each is judged, but the whole machine is compared in the end only.
    let pin = VmCall::PinShared(range(FRAME, 1));
    for number in 0..4095 {
        for call in [borrow(number), pin] {
            let registers = HostCall::Vm(call).encode();
            let answer = tried.rig.call(&World::default(), registers, &[]);
            let answer = answer.unwrap_or_else(|wrong| panic!("{call:x?}: {wrong}"));
            assert_ne!(answer.status, Status::CountOverflow, "{number}");
            if answer.status == Status::VmNeedsMemory {
                let [pages, ..] = answer.values;
                tried.vm(VmCall::TopUp { vm: 2, pages }, Status::Success);
                tried.vm(call, Status::Success);
            }
        }
    }
    tried.is(FRAME + 1, Holding::SharedGuest { borrowers: 4095 });
    tried.vm(borrow(4095), Status::CountOverflow);
    tried.vm(pin, Status::CountOverflow);
}

const PC: VcpuRegister = VcpuRegister::Pc;
const POWER: VcpuRegister = VcpuRegister::Power;

fn x(number: u8) -> VcpuRegister {
    VcpuRegister::General(number)
}

impl Tried {
    fn read(&mut self, vm: u64, index: u64, register: VcpuRegister, status: Status) -> u64 {
        let register = register.to_register();
        self.vm(VmCall::ReadRegister { vm, index, register }, status)
    }

    fn write(&mut self, vm: u64, index: u64, register: VcpuRegister, value: u64, status: Status) {
        let call = VmCall::WriteRegister {
            vm,
            index,
            register: register.to_register(),
            value,
        };
        self.vm(call, status);
    }

    /// Neither all registers can be read nor can one be written.
    fn are_hidden(&mut self, vm: u64, index: u64, status: Status) {
        for register in VcpuRegister::all().filter(|register| !matches!(register, VcpuRegister::Key(_))) {
            if !matches!(
                register,
                VcpuRegister::ActivePriorities0(2..) | VcpuRegister::ActivePriorities1(2..)
            ) {
                self.read(vm, index, register, status);
            }
        }
        self.write(vm, index, x(1), 1, status);
        self.write(vm, index, POWER, 1, status);
        self.write(vm, index, VcpuRegister::CounterOffset, 1, status);
    }
}

fn registers() {
    let mut tried = Tried::new();
    tried.are_hidden(1, 0, Status::NoSuchVm);
    let closed = tried.create(VmFlags::PROTECTED, 4);
    tried.read(closed, 0, PC, Status::WrongVmKind);
    tried.launch(closed);
    tried.are_hidden(closed, 0, Status::WrongVmKind);
    tried.write(closed, 0, POWER, 0, Status::WrongVmKind);
    let vm = tried.create(VmFlags::empty(), 4);
    tried.are_hidden(vm, 0, Status::WrongVmState);
    tried.launch(vm);
    tried.are_hidden(vm, 2, Status::NoSuchVcpu);
    for index in [0, 1] {
        // The values are the specification's to judge.
        for register in VcpuRegister::all() {
            let has = !matches!(
                register,
                VcpuRegister::Key(_)
                    | VcpuRegister::ActivePriorities0(2..)
                    | VcpuRegister::ActivePriorities1(2..)
            );
            let status = if has {
                Status::Success
            } else {
                Status::InvalidParameter
            };
            tried.read(vm, index, register, status);
        }
    }
    for (register, value) in [
        (VcpuRegister::Pstate, 0x3c9),
        (VcpuRegister::Pstate, 0x3d0),
        (VcpuRegister::Pstate, 1 << 20 | 5),
        (VcpuRegister::Pstate, 1 << 21 | 5),
        (VcpuRegister::TimerControl, 4),
        (VcpuRegister::GicControl, 4),
        (VcpuRegister::ActivePriorities0(0), 1 << 32),
        (POWER, 2),
    ] {
        tried.write(vm, 0, register, value, Status::InvalidParameter);
    }
    tried.vm(
        VmCall::ReadRegister {
            vm,
            index: 0,
            register: 0xb00,
        },
        Status::InvalidParameter,
    );
    let meanwhile = [Meanwhile::ReadRegister, Meanwhile::WriteRegister].map(Instruction::Meanwhile);
    tried.run(vm, Entry::default(), &meanwhile, ExitReason::Interrupt);
    tried.run(closed, Entry::default(), &meanwhile, ExitReason::Interrupt);
    let off = Instruction::Call(0, [0x8400_0008, 0, 0, 0]);
    tried.run(vm, RETRY, &[off], ExitReason::SystemOff);
    tried.are_hidden(vm, 0, Status::WrongVmState);
    tried.vm(VmCall::Destroy { vm }, Status::Success);
    tried.are_hidden(vm, 0, Status::NoSuchVm);
}

fn registers_written() {
    let mut tried = Tried::new();
    let vm = tried.plain();
    tried.write(vm, 0, x(2), 22, Status::Success);
    assert_eq!(tried.read(vm, 0, x(0), Status::Success), 77);
    tried.write(vm, 0, VcpuRegister::CounterOffset, 0x1234, Status::Success);
    assert_eq!(
        tried.read(vm, 1, VcpuRegister::CounterOffset, Status::Success),
        0x1234
    );
    let device = Instruction::Access {
        ipa: 0x1000_0000,
        reach: Reach::Load,
        bytes: 8,
        described: true,
    };
    tried.run(vm, Entry::default(), &[device], ExitReason::MmioRead);
    tried.write(vm, 0, x(1), 11, Status::Success);
    tried.run(vm, done(5), &[device], ExitReason::MmioRead);
    tried.write(vm, 0, PC, 0x8_0000, Status::Success);
    tried.run(vm, done(5), &[device], ExitReason::MmioRead);
    tried.write(vm, 0, PC, 0x8_0000, Status::Success);
    tried.run(vm, RETRY, &[device], ExitReason::MmioRead);
    tried.run(vm, REFUSE, &[device], ExitReason::MmioRead);
    // A vCPU that was never on goes on where the host has put it, and one that is off does not run.
    tried.vm(VmCall::Run { vm, index: 1 }, Status::VcpuOff);
    tried.write(vm, 1, PC, 0x8_0004, Status::Success);
    tried.write(vm, 1, x(0), 5, Status::Success);
    tried.write(vm, 1, POWER, 1, Status::Success);
    tried.run_vcpu(vm, 1, Entry::default(), &[], ExitReason::Interrupt);
    tried.write(vm, 1, POWER, 0, Status::Success);
    tried.vm(VmCall::Run { vm, index: 1 }, Status::VcpuOff);
    let on = Instruction::Call(0, [0xc400_0003, 1, GFN * FRAME_SIZE, 9]);
    tried.run(vm, REFUSE, &[on], ExitReason::CpuOn);
    tried.write(vm, 1, x(3), 3, Status::Success);
    assert_eq!(tried.read(vm, 1, x(0), Status::Success), 9);
    tried.run_vcpu(vm, 1, Entry::default(), &[], ExitReason::Interrupt);
}
