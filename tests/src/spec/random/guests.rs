//! What a host and its guests might do next: what fits, what almost fits, and what does not fit at all.

use super::Act;
use super::generate::Source;
use crate::spec::explore::Run;
use crate::spec::rig::Rig;
use crate::spec::vm::guest::{Instruction, Meanwhile, Reach, Waits};
use crate::spec::vm::run::Entry;
use crate::spec::vm::{Life, Place, Vm};
use crate::spec::{Holding, World};
use hyp_abi::guest_call::GuestCallId;
use hyp_abi::run_page::ExitReason;
use hyp_abi::vm_call::{GuestRange, VM_CALL_BASE};
use hyp_abi::{FRAME_SIZE, FrameRange, HostCall, VcpuRegister, VmCall, VmCallId};
use hyp_core::geometry::Arm4K;

/// Where guests have their memory: a border of regions, and of GiBs, is inside.
const MEMORY: (u64, u64) = (0x3_fc00, 2048);
/// More pages than this in one call are so many that the call is refused.
const MANY: u64 = 4096;
/// VMs that there are at most, as long as nobody asks for one blindly.
const MOST_VMS: usize = 3;

impl Source {
    /// The next act of a host with guests.
    pub(super) fn act_with_guests(&mut self, rig: &Rig<Arm4K>) -> Act {
        match self.below(64) {
            0..=9 => self.act(rig),
            10..=31 => self.run_of_guest(rig).unwrap_or_else(|| self.act(rig)),
            32..=33 => self.senseless_about_vms(rig),
            34..=39 => {
                let call = self.blind_about_vms(rig);
                self.about_vms(call)
            }
            _ => {
                let call = self.fitting_about_vms(rig);
                self.about_vms(call)
            }
        }
    }

    fn about_vms(&mut self, call: VmCall) -> Act {
        Act::Call {
            registers: HostCall::Vm(call).encode(),
            world: self.world(),
        }
    }

    fn some_vm<'r>(&mut self, rig: &'r Rig<Arm4K>) -> Option<(u8, &'r Vm)> {
        let live: Vec<(u8, &Vm)> = rig.memory().vms().iter().collect();
        if live.is_empty() {
            return None;
        }
        Some(live[self.below(live.len() as u64) as usize])
    }

    /// A frame that is held so, if one is found soon.
    fn frame_that(&mut self, rig: &Rig<Arm4K>, which: impl Fn(Holding) -> bool) -> Option<u64> {
        let frames = rig.memory().frames();
        let start = self.below(frames.len() as u64) as usize;
        (0..frames.len())
            .map(|step| (start + step) % frames.len())
            .find(|index| which(frames[*index]))
            .map(|index| rig.layout().number(index))
    }

    fn create(&mut self) -> VmCall {
        VmCall::Create {
            flags: self.pick(&[0, 1, 1, 1, 3]),
            vcpus: self.pick(&[1, 2, 18]),
            ipa_bits: self.pick(&[32, 36, 40, 43, 44, 48]),
        }
    }

    fn gfn(&mut self, vm: Option<&Vm>) -> u64 {
        let places = vm.map(|vm| &vm.places).filter(|places| !places.is_empty());
        if let Some(places) = places
            && !self.once_in(4)
        {
            let number = self.below(places.len() as u64) as usize;
            return places.keys().nth(number).copied().unwrap_or(0);
        }
        let (first, frames) = MEMORY;
        match self.below(16) {
            0 => first - 1,
            1 => first + frames,
            2 => self.below(32),
            3..=6 => first + 512 * self.below(4),
            7 => first + 512 * self.below(4) + 511,
            _ => first + self.below(frames),
        }
    }

    fn guest_range(&mut self, vm: Option<&Vm>) -> GuestRange {
        let gfn = self.gfn(vm);
        let frames = match self.below(4) {
            0 => self.length(),
            1 => 1 + self.below(8),
            _ => 1,
        };
        GuestRange::new(gfn, frames)
    }

    /// Frames of the host's, and where they may go: often whole regions that can be blocks.
    fn gift(&mut self, rig: &Rig<Arm4K>, slot: u8, vm: &Vm) -> VmCall {
        let plain = |holding| holding == Holding::Host;
        let shared = |holding| matches!(holding, Holding::Host | Holding::SharedGuest { .. });
        let protected = vm.protected;
        let fits = move |holding| {
            if protected {
                plain(holding)
            } else {
                shared(holding)
            }
        };
        let mut first = self.frame_that(rig, fits).unwrap_or(0);
        let mut frames = match self.below(4) {
            0 => self.length(),
            _ => 1 + self.below(3),
        };
        let mut gfn = self.gfn(Some(vm));
        if vm.places.contains_key(&gfn) && !self.once_in(4) {
            gfn = MEMORY.0 + self.below(MEMORY.1);
        }
        if self.once_in(3) {
            // Such that a block can be made of it.
            first &= !511;
            gfn = gfn & !511 | first & 511;
            frames = 512 * (1 + self.below(2));
        }
        let alike = (first..first + frames)
            .take_while(|number| rig.memory().holding(rig.layout(), *number).is_some_and(fits))
            .count() as u64;
        let range = FrameRange::new(first * FRAME_SIZE, alike.max(1));
        let vm = u64::from(slot);
        if protected {
            VmCall::Donate { vm, range, gfn }
        } else {
            VmCall::Share {
                vm,
                range,
                gfn,
                permissions: self.pick(&[1, 3, 5, 7, 7]),
            }
        }
    }

    fn lent(&mut self, rig: &Rig<Arm4K>) -> Option<VmCall> {
        let frame = self.frame_that(rig, |holding| {
            matches!(holding, Holding::GuestShared { .. } | Holding::Relinquished)
        })?;
        let holding = rig.memory().holding(rig.layout(), frame)?;
        let frames = if self.once_in(2) { 1 } else { 1 + self.below(6) };
        let range = FrameRange::new(frame * FRAME_SIZE, frames);
        Some(match holding {
            Holding::Relinquished => VmCall::TakeBack(range),
            Holding::GuestShared { pins: 0, .. } => VmCall::PinShared(range),
            _ if self.once_in(4) => VmCall::PinShared(range),
            _ => VmCall::UnpinShared(range),
        })
    }

    /// A call that suits where a VM is in its life.
    fn fitting_about_vms(&mut self, rig: &Rig<Arm4K>) -> VmCall {
        let count = rig.memory().vms().iter().count();
        if count == 0 || (count < MOST_VMS && self.once_in(12)) {
            return self.create();
        }
        let Some((slot, state)) = self.some_vm(rig) else {
            return self.create();
        };
        let vm = u64::from(slot);
        if self.once_in(5)
            && let Some(call) = self.lent(rig)
        {
            return call;
        }
        match state.life {
            Life::Created => self.filling(rig, slot, state),
            Life::Off if self.once_in(3) => VmCall::Destroy { vm },
            Life::Launched if state.vcpus.values().all(|vcpu| !vcpu.on) => VmCall::Destroy { vm },
            Life::Launched | Life::Off => match self.below(40) {
                0 => VmCall::Destroy { vm },
                1 => VmCall::Rename { vm },
                2..=5 => VmCall::TopUp {
                    vm,
                    pages: 1 + self.below(6),
                },
                6..=9 => {
                    let frame = self.frame_that(rig, |holding| matches!(holding, Holding::Guest { .. }));
                    VmCall::ForceReclaim {
                        frame: frame.unwrap_or(0) * FRAME_SIZE,
                    }
                }
                10..=17 if !state.protected => self.borrowing(vm, state),
                18..=27 if !state.protected => self.registers(vm, state),
                _ => self.gift(rig, slot, state),
            },
            Life::Dying if state.protected => match self.below(4) {
                0 => VmCall::Destroy { vm },
                1 => VmCall::Reclaim {
                    vm,
                    range: GuestRange::new(0, 1 << 19),
                },
                _ => VmCall::Reclaim {
                    vm,
                    range: self.guest_range(Some(state)),
                },
            },
            Life::Dying => match self.below(6) {
                0 => VmCall::Destroy { vm },
                _ => {
                    let gfn = self.gfn(Some(state));
                    let run = (gfn..).take_while(|gfn| state.places.contains_key(gfn)).count() as u64;
                    let range = GuestRange::new(gfn, run.max(1));
                    VmCall::Unshare { vm, range }
                }
            },
        }
    }

    fn borrowing(&mut self, vm: u64, state: &Vm) -> VmCall {
        let range = self.guest_range(Some(state));
        match self.below(4) {
            0 => VmCall::SetPermissions {
                vm,
                range,
                permissions: self.pick(&[1, 3, 5, 7]),
            },
            1 => VmCall::TestAge { vm, range },
            _ => VmCall::Unshare { vm, range },
        }
    }

    /// A register of one of its vCPUs, read or set to a value that it is likely to take.
    fn registers(&mut self, vm: u64, state: &Vm) -> VmCall {
        let indices: Vec<u64> = state.vcpus.keys().copied().collect();
        let index = if indices.is_empty() {
            0
        } else {
            self.pick(&indices)
        };
        let register = self.register();
        if self.once_in(2) {
            return VmCall::ReadRegister { vm, index, register };
        }
        let value = self.value();
        VmCall::WriteRegister {
            vm,
            index,
            register,
            value,
        }
    }

    /// The name of a register: often one that shows when the vCPU runs, seldom none.
    fn register(&mut self) -> u64 {
        match self.below(16) {
            0 => self.below(0xc00),
            1..=3 => VcpuRegister::Power.to_register(),
            4..=5 => VcpuRegister::Pc.to_register(),
            6..=8 => VcpuRegister::General(self.below(4) as u8).to_register(),
            9 => VcpuRegister::Pstate.to_register(),
            _ => {
                let all: Vec<VcpuRegister> = VcpuRegister::all().collect();
                self.pick(&all).to_register()
            }
        }
    }

    /// What a register may be set to: any bits, few bits, modes of PSTATE.
    fn value(&mut self) -> u64 {
        match self.below(8) {
            0..=2 => self.next(),
            3 => self.next() >> 32,
            4 => 0x3c0 | self.below(16),
            5 => 1 << self.below(64),
            _ => self.below(2),
        }
    }

    fn meanwhile(&mut self) -> Meanwhile {
        self.pick(&[
            Meanwhile::Destroy,
            Meanwhile::Rename,
            Meanwhile::Run,
            Meanwhile::ReadRegister,
            Meanwhile::WriteRegister,
        ])
    }

    /// What brings a VM to its launch.
    fn filling(&mut self, rig: &Rig<Arm4K>, slot: u8, state: &Vm) -> VmCall {
        let vm = u64::from(slot);
        match self.below(12) {
            0..=1 => {
                let (first, frames) = MEMORY;
                let range = GuestRange::new(first, frames);
                VmCall::AddMemory { vm, range }
            }
            2..=5 => {
                let index = (0..state.max_vcpus).find(|index| !state.vcpus.contains_key(index));
                let page = self.frame_that(rig, |holding| matches!(holding, Holding::SharedHyp { .. }));
                VmCall::CreateVcpu {
                    vm,
                    index: index.unwrap_or(0),
                    run_page: page.unwrap_or(0) * FRAME_SIZE,
                }
            }
            6 => VmCall::TopUp {
                vm,
                pages: 1 + self.below(8),
            },
            7 => VmCall::Launch {
                vm,
                entry: MEMORY.0 * FRAME_SIZE + 4 * self.below(9),
                argument: self.next(),
            },
            _ => self.gift(rig, slot, state),
        }
    }

    /// Any call about a VM, on anything.
    fn blind_about_vms(&mut self, rig: &Rig<Arm4K>) -> VmCall {
        let some = self.some_vm(rig);
        let state = some.map(|(_, state)| state);
        let vm = match self.below(8) {
            0 => self.below(6),
            _ => some.map_or(1, |(slot, _)| u64::from(slot)),
        };
        let range = self.guest_range(state);
        let frames = FrameRange::new(self.frame(rig) * FRAME_SIZE, self.length());
        let small = self.below(9);
        match self.pick(&VmCallId::all().collect::<Vec<VmCallId>>()) {
            VmCallId::Create => VmCall::Create {
                flags: self.below(6),
                vcpus: self.pick(&[0, 1, 64, 65]),
                ipa_bits: self.pick(&[31, 32, 48, 49]),
            },
            VmCallId::AddMemory => VmCall::AddMemory { vm, range },
            VmCallId::CreateVcpu => VmCall::CreateVcpu {
                vm,
                index: small,
                run_page: frames.base,
            },
            VmCallId::Launch => VmCall::Launch {
                vm,
                entry: self.next() >> self.below(64),
                argument: 1,
            },
            VmCallId::Digest => VmCall::Digest { vm, half: small / 4 },
            VmCallId::Run => VmCall::Run { vm, index: small },
            VmCallId::Destroy => VmCall::Rename { vm },
            VmCallId::TopUp => VmCall::TopUp { vm, pages: small },
            VmCallId::Rename => VmCall::Rename { vm },
            VmCallId::Donate => VmCall::Donate {
                vm,
                range: frames,
                gfn: range.gfn,
            },
            VmCallId::Share => VmCall::Share {
                vm,
                range: frames,
                gfn: range.gfn,
                permissions: small,
            },
            VmCallId::Unshare => VmCall::Unshare { vm, range },
            VmCallId::Reclaim => VmCall::Reclaim { vm, range },
            VmCallId::ForceReclaim => VmCall::ForceReclaim { frame: frames.base },
            VmCallId::SetPermissions => VmCall::SetPermissions {
                vm,
                range,
                permissions: small,
            },
            VmCallId::TestAge => VmCall::TestAge { vm, range },
            VmCallId::PinShared => VmCall::PinShared(frames),
            VmCallId::UnpinShared => VmCall::UnpinShared(frames),
            VmCallId::TakeBack => VmCall::TakeBack(frames),
            VmCallId::Statistics => VmCall::Statistics { vm, statistic: small },
            VmCallId::Audit => VmCall::Audit { vm, range },
            VmCallId::ReadRegister => VmCall::ReadRegister {
                vm,
                index: small / 3,
                register: self.register(),
            },
            VmCallId::WriteRegister => VmCall::WriteRegister {
                vm,
                index: small / 3,
                register: self.register(),
                value: self.value(),
            },
        }
    }

    /// Registers that no honest host would have.
    fn senseless_about_vms(&mut self, rig: &Rig<Arm4K>) -> Act {
        let mut registers = [0; 7];
        registers[0] = u64::from(VM_CALL_BASE) + self.below(25);
        for register in &mut registers[1..] {
            *register = self.edge(rig);
        }
        if self.once_in(2)
            && let Some((slot, _)) = self.some_vm(rig)
        {
            registers[1] = u64::from(slot);
        }
        Act::Call {
            registers,
            world: self.world(),
        }
    }

    /// A vCPU runs, and does a few things.
    fn run_of_guest(&mut self, rig: &Rig<Arm4K>) -> Option<Act> {
        let able: Vec<(u8, &Vm, u64)> = rig
            .memory()
            .vms()
            .iter()
            .filter(|(_, vm)| vm.life == Life::Launched)
            .flat_map(|(slot, vm)| {
                let on = vm.vcpus.iter().filter(|(_, vcpu)| vcpu.on);
                on.map(move |(index, _)| (slot, vm, *index))
            })
            .collect();
        let (slot, vm, index) = if able.is_empty() || self.once_in(16) {
            let (slot, vm) = self.some_vm(rig)?;
            let indices: Vec<u64> = vm.vcpus.keys().copied().collect();
            let index = if indices.is_empty() {
                0
            } else {
                self.pick(&indices)
            };
            (slot, vm, index)
        } else {
            able[self.below(able.len() as u64) as usize]
        };
        let waits = vm.vcpus.get(&index).map_or(Waits::Nothing, |vcpu| vcpu.waits);
        let count = self.below(5);
        let script = (0..count).map(|_| self.instruction(vm)).collect();
        Some(Act::Run(Run {
            slot,
            index,
            entry: self.entry(&waits),
            script,
            world: if self.once_in(4) {
                self.world()
            } else {
                World::default()
            },
        }))
    }

    fn entry(&mut self, waits: &Waits) -> Entry {
        let values = [self.next(), self.next(), 3, 4];
        let mut entry = match waits {
            Waits::For(ExitReason::MmioRead | ExitReason::MmioWrite, _) => {
                Entry::answer(self.pick(&[0, 1, 2, 2, 2]), values)
            }
            Waits::For(ExitReason::HostService, _) => Entry::answer(self.pick(&[0, 2, 2]), values),
            Waits::For(ExitReason::Pinned | ExitReason::MemoryFault, _) => {
                Entry::answer(self.pick(&[0, 0, 1]), values)
            }
            _ => Entry::default(),
        };
        if self.once_in(32) {
            entry.flags = self.below(5);
            entry.answer = self.below(4);
            entry.list = self.pick(&[0, 1, 4, 5, 16, 17, u64::MAX]);
        }
        entry
    }

    fn instruction(&mut self, vm: &Vm) -> Instruction {
        match self.below(16) {
            0..=4 => self.access(vm),
            5..=10 => self.memory_call(vm),
            11 => Instruction::Wait {
                event: self.once_in(2),
            },
            12 => self.psci(),
            13 => Instruction::Meanwhile(self.meanwhile()),
            14 if self.once_in(3) => Instruction::Smc(self.next()),
            _ => {
                let known = [
                    GuestCallId::SmcccVersion,
                    GuestCallId::VendorUid,
                    GuestCallId::VendorFeatures,
                    GuestCallId::MemInfo,
                    GuestCallId::MmioGuardInfo,
                    GuestCallId::MmioGuardEnroll,
                    GuestCallId::LaunchDigest,
                    GuestCallId::TrngRnd64,
                ];
                let function = match self.below(8) {
                    0 => self.next(),
                    1 => 0xc600_4680 + self.below(130),
                    2 => 0x8400_0000 + self.below(24),
                    _ => u64::from(u32::from(self.pick(&known))),
                };
                let argument = if self.once_in(6) { self.below(3) } else { 0 };
                let immediate = u16::from(self.once_in(32));
                Instruction::Call(immediate, [function, argument, 0, 0])
            }
        }
    }

    fn access(&mut self, vm: &Vm) -> Instruction {
        let gfn = self.gfn(Some(vm)).min(vm.gfns - 1);
        let bytes = self.pick(&[1, 2, 4, 8]);
        let offset = match self.below(8) {
            0 => FRAME_SIZE - 1,
            _ => 8 * self.below(500),
        };
        let value = self.next();
        Instruction::Access {
            ipa: gfn * FRAME_SIZE + offset,
            reach: self.pick(&[
                Reach::Load,
                Reach::Load,
                Reach::Store(value),
                Reach::Store(value),
                Reach::Fetch,
                Reach::Walk,
            ]),
            bytes,
            described: !self.once_in(6),
        }
    }

    fn memory_call(&mut self, vm: &Vm) -> Instruction {
        let mut id = self.pick(&[
            GuestCallId::MemShare,
            GuestCallId::MemUnshare,
            GuestCallId::MemRelinquish,
            GuestCallId::MmioGuardMap,
            GuestCallId::MmioGuardUnmap,
            GuestCallId::MmioGuardRangeMap,
            GuestCallId::MmioGuardRangeUnmap,
        ]);
        let range = self.guest_range(Some(vm));
        let mut gfn = range.gfn;
        match vm.places.get(&gfn) {
            Some(Place::Mine { shared: true, .. }) if self.once_in(2) => id = GuestCallId::MemUnshare,
            Some(Place::Mine { shared: false, .. }) if self.once_in(2) => id = GuestCallId::MemShare,
            None if self.once_in(2) => gfn = self.below(64),
            _ => {}
        }
        let single = matches!(id, GuestCallId::MmioGuardMap | GuestCallId::MmioGuardUnmap);
        let mut x = [u64::from(u32::from(id)), gfn * FRAME_SIZE, range.frames, 0];
        if single {
            x[2] = 0;
        }
        if self.once_in(24) {
            let register = 1 + self.below(3) as usize;
            x[register] = self.next() >> self.below(64);
        }
        // Half a million devices show no more than a few thousand, and all are looked at after every act that follows.
        if (MANY..1 << 36).contains(&x[2]) {
            x[2] %= MANY;
        }
        Instruction::Call(0, x)
    }

    fn psci(&mut self) -> Instruction {
        let [function, a1] = match self.below(40) {
            0 | 39 => [0x8400_0002, 0],
            1 => [0x8400_0008, 0],
            2 => [0x8400_0009, 0],
            3..=9 => [0xc400_0004, self.below(3)],
            10..=12 => [0xc400_0001, 0],
            _ => [0xc400_0003, self.below(3)],
        };
        let entry = match function {
            0xc400_0003 => MEMORY.0 * FRAME_SIZE + 4 * self.below(40) + self.below(2) * self.below(2),
            _ => 0,
        };
        Instruction::Call(0, [function, a1, entry, 9])
    }
}
