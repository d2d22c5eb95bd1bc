//! What the fake answers to each call.

use super::{AT_ONCE, FakeVcpu, FakeVm, Life, Owner, State};
use alloc::collections::{BTreeMap, BTreeSet};
use alloc::vec::Vec;
use hyp_abi::host_call::{Features, Statistic};
use hyp_abi::vm::{IPA_BITS, MAX_VCPUS, MAX_VMS, Permissions, TOP_UP_STEP, VmFlags, VmStatistic};
use hyp_abi::{
    FRAME_SIZE, FrameRange, FrameState, GuestRange, GuestSupport, HostCall, REGION_SIZE, Status,
    VcpuRegister, VmCall, VmHandle,
};

/// The virtual CPU interfaces: 32 priorities, 16-bit numbers, 4 list registers.
const INTERFACE: u64 = 0x9000_0003;
/// The most bits of an IPA.
const MAX_IPA_BITS: u8 = 44;

pub(super) type Answer = Result<[u64; 3], (Status, u64)>;

fn refuse<T>(status: Status) -> Result<T, (Status, u64)> {
    Err((status, 0))
}

impl State {
    pub(super) fn judge(&mut self, call: HostCall) -> Answer {
        match call {
            HostCall::PoolTopUp(range) => self.ranged(range, |state, frame, index| {
                state.expect(frame, Owner::Host)?;
                if state.broken.contains(&frame) {
                    // The caller meets it alone.
                    if index == 0 {
                        state.set(frame, Owner::Poisoned);
                    }
                    return refuse(Status::Poisoned);
                }
                state.set(frame, Owner::Pool);
                state.scrub(frame);
                state.pool.push(frame);
                Ok(())
            }),
            HostCall::PoolDrain { .. } => match self.pool.pop() {
                None => Ok([0; 3]),
                Some(frame) => {
                    self.set(frame, Owner::Host);
                    Ok([frame * FRAME_SIZE, 1, 0])
                }
            },
            HostCall::ShareHyp(range) => self.ranged(range, |state, frame, _| {
                state.expect(frame, Owner::Host)?;
                state.split(frame)?;
                state.set(frame, Owner::SharedHyp { pins: 0 });
                Ok(())
            }),
            HostCall::UnshareHyp(range) => {
                self.ranged(range, |state, frame, _| match state.owner(frame)? {
                    Owner::SharedHyp { pins: 0 } => {
                        state.set(frame, Owner::Host);
                        Ok(())
                    }
                    Owner::SharedHyp { .. } => refuse(Status::Pinned),
                    _ => refuse(Status::NotShared),
                })
            }
            HostCall::FrameState { frame } => {
                let (kind, count) = match self.owner(frame / FRAME_SIZE)? {
                    Owner::Host => (FrameState::Host, 0),
                    Owner::SharedHyp { pins } => (FrameState::HostSharedHyp, pins),
                    Owner::Borrowed { by } => (FrameState::HostSharedGuest, by),
                    Owner::GuestShared { pins, .. } => (FrameState::GuestSharedHost, pins),
                    Owner::Relinquished => (FrameState::Relinquished, 0),
                    Owner::Pool | Owner::Guest { .. } | Owner::Poisoned => (FrameState::NotYours, 0),
                };
                let extent = if kind == FrameState::Host && !self.split.contains(&(frame / REGION_SIZE)) {
                    REGION_SIZE
                } else {
                    FRAME_SIZE
                };
                Ok([kind.into(), count.into(), extent])
            }
            HostCall::Vm(call) => self.judge_vm(call),
            HostCall::GuestSupport => Ok(GuestSupport {
                interface: INTERFACE,
                min_ipa_bits: *IPA_BITS.start() as u8,
                max_ipa_bits: MAX_IPA_BITS,
                vms: MAX_VMS as u32,
                vcpus: MAX_VCPUS as u32,
            }
            .to_registers()),
            HostCall::GuestRegister { register, ipa_bits } => {
                let is_feature = (0xc008..=0xc03f).contains(&register);
                if !is_feature || !(*IPA_BITS.start()..=MAX_IPA_BITS.into()).contains(&ipa_bits) {
                    return refuse(Status::InvalidParameter);
                }
                // Not of any CPU: each register tells itself from the others.
                Ok([register << 16 | ipa_bits, 0, 0])
            }
            HostCall::Version => Ok([self.version.to_register(), Features::VMS.bits(), 2]),
            HostCall::Collapse(range) => self.ranged(range, |state, frame, _| {
                state.owner(frame)?;
                let region = frame >> 9;
                let mut frames = state.frames.range(region << 9..(region + 1) << 9);
                if frames.all(|(_, frame)| frame.owner == Owner::Host) {
                    state.split.remove(&region);
                }
                Ok(())
            }),
            HostCall::Statistics { statistic } => {
                let statistic = Statistic::try_from(statistic).map_err(|_| (Status::InvalidParameter, 0))?;
                let count = |wanted: fn(&Owner) -> bool| {
                    let frames = self.frames.values();
                    frames.filter(|frame| wanted(&frame.owner)).count() as u64
                };
                let value = match statistic {
                    Statistic::Frames => count(|_| true),
                    Statistic::FramesHost => count(|owner| *owner == Owner::Host),
                    Statistic::FramesSharedHyp => count(|owner| matches!(owner, Owner::SharedHyp { .. })),
                    Statistic::FramesHyp | Statistic::PoolTotal => count(|owner| *owner == Owner::Pool),
                    Statistic::PoolFree => self.pool.len() as u64,
                    Statistic::FramesOther | Statistic::ReservedBytes => 0,
                };
                Ok([value, 0, 0])
            }
            other => panic!("the shim does not make {other:?}"),
        }
    }

    fn judge_vm(&mut self, call: VmCall) -> Answer {
        match call {
            VmCall::Create { flags, .. } => {
                let flags = VmFlags::from_bits(flags).ok_or((Status::InvalidParameter, 0))?;
                let slot = (1..=255).find(|slot| !self.vms.contains_key(slot));
                let slot = slot.ok_or((Status::NoVmSlot, 0))?;
                let pages = self.pool_pages(2)?;
                self.next_generation += 1;
                let generation = self.next_generation;
                let vm = FakeVm {
                    generation,
                    flags,
                    life: Life::Created,
                    reserve: 0,
                    pages,
                    tables: BTreeSet::new(),
                    map: BTreeMap::new(),
                    lost: BTreeSet::new(),
                    used: BTreeSet::new(),
                    vcpus: BTreeMap::new(),
                    relinquished: 0,
                    results: Vec::new(),
                };
                self.vms.insert(slot, vm);
                Ok([VmHandle { slot, generation }.to_register(), 0, 0])
            }
            VmCall::AddMemory { vm, range } => {
                let slot = self.vm(vm)?;
                if range.frames == 0 {
                    return refuse(Status::EmptyRange);
                }
                if self.vms[&slot].life != Life::Created {
                    return refuse(Status::WrongVmState);
                }
                Ok([0; 3])
            }
            VmCall::CreateVcpu { vm, index, run_page } => {
                let slot = self.vm(vm)?;
                if self.vms[&slot].vcpus.contains_key(&index) {
                    return refuse(Status::VcpuExists);
                }
                let run_page = run_page / FRAME_SIZE;
                self.expect(run_page, Owner::SharedHyp { pins: 0 })?;
                let pages = self.pool_pages(1)?;
                self.set(run_page, Owner::SharedHyp { pins: 1 });
                let vcpu = FakeVcpu {
                    run_page,
                    ..FakeVcpu::default()
                };
                let vm = self.vms.get_mut(&slot).unwrap();
                vm.pages.extend(pages);
                vm.vcpus.insert(index, vcpu);
                Ok([0; 3])
            }
            VmCall::Launch { vm, .. } => {
                let slot = self.vm(vm)?;
                let vm = self.vms.get_mut(&slot).unwrap();
                if vm.life != Life::Created {
                    return refuse(Status::WrongVmState);
                }
                vm.life = Life::Launched;
                Ok([0; 3])
            }
            VmCall::Digest { vm, half } => {
                let slot = self.vm(vm)?;
                if self.vms[&slot].life == Life::Created {
                    return refuse(Status::WrongVmState);
                }
                Ok([half + 1, half + 2, 0])
            }
            VmCall::Destroy { vm } => {
                let slot = self.vm(vm)?;
                self.destroy(slot)
            }
            VmCall::TopUp { vm, pages } => {
                let slot = self.vm(vm)?;
                self.expect_pool(pages)?;
                // An interrupt waits each time.
                let new = self.pool_pages(pages.min(TOP_UP_STEP))?;
                let vm = self.vms.get_mut(&slot).unwrap();
                vm.reserve += new.len() as u64;
                vm.pages.extend(new);
                Ok([vm.reserve, 0, 0])
            }
            VmCall::Rename { vm } => {
                let slot = self.vm(vm)?;
                self.next_generation += 1;
                let generation = self.next_generation;
                self.vms.get_mut(&slot).unwrap().generation = generation;
                Ok([VmHandle { slot, generation }.to_register(), 0, 0])
            }
            VmCall::Donate { vm, range, gfn } => {
                let slot = self.kind(vm, true)?;
                self.give(slot, range, gfn, None)
            }
            VmCall::Share {
                vm,
                range,
                gfn,
                permissions,
            } => {
                let slot = self.kind(vm, false)?;
                self.give(slot, range, gfn, Permissions::from_bits(permissions))
            }
            VmCall::Unshare { vm, range } => {
                let slot = self.kind(vm, false)?;
                self.by_gfn(range, |state, gfn| {
                    let (frame, _) = state.vms[&slot]
                        .map
                        .get(&gfn)
                        .copied()
                        .ok_or((Status::GfnNotMapped, 0))?;
                    let Owner::Borrowed { by } = state.owner(frame)? else {
                        panic!("a borrowed frame is {:?}", state.owner(frame));
                    };
                    let owner = if by == 1 {
                        Owner::Host
                    } else {
                        Owner::Borrowed { by: by - 1 }
                    };
                    state.set(frame, owner);
                    let vm = state.vms.get_mut(&slot).unwrap();
                    vm.map.remove(&gfn);
                    vm.used.remove(&gfn);
                    Ok(())
                })
            }
            VmCall::Reclaim { vm, range } => {
                let slot = self.kind(vm, true)?;
                if self.vms[&slot].life != Life::Dying {
                    return refuse(Status::WrongVmState);
                }
                self.by_gfn(range, |state, gfn| {
                    let Some((frame, _)) = state.vms[&slot].map.get(&gfn).copied() else {
                        return Ok(());
                    };
                    match state.owner(frame)? {
                        Owner::Guest { .. } => {
                            state.split(frame)?;
                            if state.broken.contains(&frame) {
                                state.vms.get_mut(&slot).unwrap().map.remove(&gfn);
                                state.set(frame, Owner::Poisoned);
                                return refuse(Status::Poisoned);
                            }
                            state.scrub(frame);
                        }
                        Owner::GuestShared { pins: 0, .. } => {}
                        Owner::GuestShared { .. } => return refuse(Status::Pinned),
                        other => panic!("a guest's frame is {other:?}"),
                    }
                    state.set(frame, Owner::Host);
                    state.vms.get_mut(&slot).unwrap().map.remove(&gfn);
                    Ok(())
                })
            }
            VmCall::ForceReclaim { frame } => {
                let frame = frame / FRAME_SIZE;
                let Owner::Guest { slot } = self.owner(frame)? else {
                    return refuse(Status::NotOwner);
                };
                self.split(frame)?;
                let vm = self.vms.get_mut(&slot).unwrap();
                let gfn = *vm.map.iter().find(|(_, (there, _))| *there == frame).unwrap().0;
                vm.map.remove(&gfn);
                vm.lost.insert(gfn);
                self.scrub(frame);
                self.set(frame, Owner::Host);
                Ok([0; 3])
            }
            VmCall::SetPermissions {
                vm,
                range,
                permissions,
            } => {
                let slot = self.kind(vm, false)?;
                let permissions = Permissions::from_bits(permissions).unwrap();
                self.by_gfn(range, |state, gfn| {
                    if let Some(there) = state.vms.get_mut(&slot).unwrap().map.get_mut(&gfn) {
                        there.1 = permissions;
                    }
                    Ok(())
                })
            }
            VmCall::PinShared(range) => self.ranged(range, |state, frame, _| match state.owner(frame)? {
                Owner::GuestShared { slot, pins } => {
                    state.set(frame, Owner::GuestShared { slot, pins: pins + 1 });
                    Ok(())
                }
                _ => refuse(Status::NotShared),
            }),
            VmCall::UnpinShared(range) => self.ranged(range, |state, frame, _| match state.owner(frame)? {
                Owner::GuestShared { pins: 0, .. } => refuse(Status::NotPinned),
                Owner::GuestShared { slot, pins } => {
                    state.set(frame, Owner::GuestShared { slot, pins: pins - 1 });
                    Ok(())
                }
                _ => refuse(Status::NotPinned),
            }),
            VmCall::TakeBack(range) => self.ranged(range, |state, frame, _| {
                match state.owner(frame)? {
                    Owner::Relinquished => {}
                    Owner::Poisoned => return refuse(Status::Poisoned),
                    _ => return refuse(Status::NotRelinquished),
                }
                state.split(frame)?;
                state.set(frame, Owner::Host);
                Ok(())
            }),
            VmCall::Statistics { vm, statistic } => {
                let slot = self.vm(vm)?;
                let vm = &self.vms[&slot];
                Ok([
                    match VmStatistic::try_from(statistic).unwrap() {
                        VmStatistic::Relinquished => vm.relinquished,
                        VmStatistic::ReservePages => vm.reserve,
                        VmStatistic::PagesTotal => vm.pages.len() as u64,
                        VmStatistic::Vcpus => vm.vcpus.len() as u64,
                        VmStatistic::Lost => vm.lost.len() as u64,
                        _ => vm.map.len() as u64,
                    },
                    0,
                    0,
                ])
            }
            VmCall::ReadRegister { vm, index, register } => {
                let (vcpu, register) = self.register(vm, index, register)?;
                Ok([vcpu.registers.get(&register).copied().unwrap_or(0), 0, 0])
            }
            VmCall::WriteRegister {
                vm,
                index,
                register,
                value,
            } => {
                let (vcpu, register) = self.register(vm, index, register)?;
                vcpu.registers.insert(register, value);
                Ok([0; 3])
            }
            VmCall::TestAge { vm, range } => {
                let slot = self.kind(vm, false)?;
                let [done, ..] = self.by_gfn(range, |_, _| Ok(()))?;
                let vm = self.vms.get_mut(&slot).unwrap();
                let looked = range.gfn..range.gfn + done;
                let before = vm.used.len();
                vm.used.retain(|gfn| !looked.contains(gfn));
                Ok([done, (before - vm.used.len()) as u64, 0])
            }
            VmCall::Run { .. } | VmCall::Audit { .. } => {
                panic!("the tests do not make {call:?}")
            }
        }
    }

    /// A vCPU whose registers can be seen, and the register of this name.
    fn register(
        &mut self,
        vm: u64,
        index: u64,
        name: u64,
    ) -> Result<(&mut FakeVcpu, VcpuRegister), (Status, u64)> {
        let slot = self.kind(vm, false)?;
        let vm = self.vms.get_mut(&slot).unwrap();
        if vm.life != Life::Launched {
            return refuse(Status::WrongVmState);
        }
        let vcpu = vm.vcpus.get_mut(&index).ok_or((Status::NoSuchVcpu, 0))?;
        if vcpu.running {
            return refuse(Status::VcpuRunning);
        }
        let register = VcpuRegister::from_register(name).ok_or((Status::InvalidParameter, 0))?;
        Ok((vcpu, register))
    }

    /// Donates frames, or shares them with permissions.
    fn give(&mut self, slot: u8, range: FrameRange, gfn: u64, shared: Option<Permissions>) -> Answer {
        let vm = &self.vms[&slot];
        if vm.life == Life::Dying {
            return refuse(Status::WrongVmState);
        }
        let launched = vm.life == Life::Launched;
        let first = range.base / FRAME_SIZE;
        let block = range.frames >= 512 && first.is_multiple_of(512) && gfn.is_multiple_of(512);
        let whole = block
            && (first..first + 512).all(|frame| self.owner(frame) == Ok(Owner::Host))
            && (gfn..gfn + 512).all(|gfn| !self.vms[&slot].map.contains_key(&gfn));
        let frames = if whole { 512 } else { range.frames };
        self.ranged(FrameRange::new(range.base, frames), |state, frame, index| {
            let gfn = gfn + index;
            let owner = state.owner(frame)?;
            let by = match (owner, shared) {
                (Owner::Host, _) => 1,
                (Owner::Borrowed { by }, Some(_)) => by + 1,
                (Owner::Borrowed { .. }, None) => return refuse(Status::SharedWithGuest),
                _ => return refuse(Status::NotOwner),
            };
            let vm = &state.vms[&slot];
            if vm.lost.contains(&gfn) {
                return refuse(Status::GfnLost);
            }
            if vm.map.contains_key(&gfn) {
                return refuse(Status::GfnMapped);
            }
            if !whole {
                state.split(frame)?;
                state.table(slot, gfn >> 9)?;
            }
            if shared.is_none() && launched {
                if state.broken.contains(&frame) {
                    state.set(frame, Owner::Poisoned);
                    return refuse(Status::Poisoned);
                }
                state.scrub(frame);
            }
            let permissions = shared.unwrap_or(Permissions::all());
            state
                .vms
                .get_mut(&slot)
                .unwrap()
                .map
                .insert(gfn, (frame, permissions));
            state.set(
                frame,
                match shared {
                    Some(_) => Owner::Borrowed { by },
                    None => Owner::Guest { slot },
                },
            );
            Ok(())
        })
    }

    fn destroy(&mut self, slot: u8) -> Answer {
        let vm = self.vms.get_mut(&slot).unwrap();
        if vm.vcpus.values().any(|vcpu| vcpu.running) {
            return refuse(Status::VcpuRunning);
        }
        vm.life = Life::Dying;
        if !vm.map.is_empty() {
            return Err((Status::FramesLeft, vm.map.len() as u64));
        }
        let vm = self.vms.remove(&slot).unwrap();
        for vcpu in vm.vcpus.values() {
            self.set(vcpu.run_page, Owner::SharedHyp { pins: 0 });
        }
        self.pool.extend(vm.pages);
        Ok([0; 3])
    }

    fn ranged(
        &mut self,
        range: FrameRange,
        mut each: impl FnMut(&mut Self, u64, u64) -> Result<(), (Status, u64)>,
    ) -> Answer {
        if range.frames == 0 {
            return refuse(Status::EmptyRange);
        }
        let first = range.base / FRAME_SIZE;
        let at_once = if range.frames == 512 { 512 } else { AT_ONCE };
        for index in 0..range.frames.min(at_once) {
            match each(self, first + index, index) {
                Ok(()) => {}
                Err(refusal) if index == 0 => return Err(refusal),
                Err(_) => return Ok([index, 0, 0]),
            }
        }
        Ok([range.frames.min(at_once), 0, 0])
    }

    fn by_gfn(
        &mut self,
        range: GuestRange,
        mut each: impl FnMut(&mut Self, u64) -> Result<(), (Status, u64)>,
    ) -> Answer {
        self.ranged(
            FrameRange::new(range.gfn * FRAME_SIZE, range.frames),
            |state, gfn, _| each(state, gfn),
        )
    }

    pub(super) fn vm(&self, register: u64) -> Result<u8, (Status, u64)> {
        let handle = VmHandle::from_register(register).ok_or((Status::NoSuchVm, 0))?;
        match self.vms.get(&handle.slot) {
            Some(vm) if vm.generation == handle.generation => Ok(handle.slot),
            _ => refuse(Status::NoSuchVm),
        }
    }

    fn kind(&self, register: u64, protected: bool) -> Result<u8, (Status, u64)> {
        let slot = self.vm(register)?;
        if self.vms[&slot].flags.contains(VmFlags::PROTECTED) != protected {
            return refuse(Status::WrongVmKind);
        }
        Ok(slot)
    }

    pub(super) fn owner(&self, frame: u64) -> Result<Owner, (Status, u64)> {
        self.frames
            .get(&frame)
            .map(|frame| frame.owner)
            .ok_or((Status::NotMemory, 0))
    }

    fn expect(&self, frame: u64, owner: Owner) -> Result<(), (Status, u64)> {
        if self.owner(frame)? == owner {
            Ok(())
        } else {
            refuse(Status::NotOwner)
        }
    }

    pub(super) fn set(&mut self, frame: u64, owner: Owner) {
        self.frames.get_mut(&frame).unwrap().owner = owner;
    }

    pub(super) fn scrub(&mut self, frame: u64) {
        self.frames.get_mut(&frame).unwrap().contents().fill(0);
    }

    fn expect_pool(&self, pages: u64) -> Result<(), (Status, u64)> {
        match pages.saturating_sub(self.pool.len() as u64) {
            0 => Ok(()),
            missing => Err((Status::NoMemory, missing)),
        }
    }

    fn pool_pages(&mut self, pages: u64) -> Result<Vec<u64>, (Status, u64)> {
        self.expect_pool(pages)?;
        let at = self.pool.len() - pages as usize;
        Ok(self.pool.split_off(at))
    }

    /// What makes the pages of a region differ takes a node and a table of the pool, for good.
    fn split(&mut self, frame: u64) -> Result<(), (Status, u64)> {
        if !self.split.contains(&(frame >> 9)) {
            // They are in use from now on, and stay the pool's: nobody counts them.
            if self.pool.len() < 2 {
                return Err((Status::NoMemory, 2 - self.pool.len() as u64));
            }
            self.split.insert(frame >> 9);
        }
        Ok(())
    }

    fn table(&mut self, slot: u8, table: u64) -> Result<(), (Status, u64)> {
        let vm = self.vms.get_mut(&slot).unwrap();
        if vm.tables.contains(&table) {
            return Ok(());
        }
        if vm.reserve == 0 {
            return Err((Status::VmNeedsMemory, 1));
        }
        vm.reserve -= 1;
        vm.tables.insert(table);
        Ok(())
    }
}
