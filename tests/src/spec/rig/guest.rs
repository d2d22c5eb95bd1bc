//! Calls about VMs, and runs of their vCPUs, judged.

use super::super::vm::call::{Case, Facts};
use super::super::vm::guest::{Instruction, Waits};
use super::super::vm::run::{Entry, Seen};
use super::super::vm::{Effect, Place};
use super::super::{Holding, World};
use super::{Contents, Frame, Rig, cpu, look, look_guest};
use hyp_abi::run_page::{
    ENTRY_ANSWER, ENTRY_FLAGS, ENTRY_LIST_COUNT, ENTRY_VALUES, EXIT_REASON, EXIT_VALUES,
};
use hyp_abi::vm_call::GuestRange;
use hyp_abi::{FRAME_SIZE, HostCall, HostReturn, Status, VmCall};
use hyp_core::addr::Ipa;
use hyp_core::geometry::Geometry;
use hyp_core::hardware::{Hardware, Regime};
use hyp_core::hypercall::host_call;
use hyp_core::pgtable::{Descriptor, IpaSpan};
use hyp_core::vm::GuestAnnotation;
use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Arc, Mutex, PoisonError};

/// A word that no exit record holds.
const UNWRITTEN: u64 = 0x5555_0000_5555_0000;

/// What the system says after a call.
struct Told<'a, G: Geometry> {
    rig: &'a Rig<G>,
    used: u64,
}

impl<G: Geometry> Facts for Told<'_, G> {
    fn poisoned(&self, frame: u64) -> bool {
        look::holding(self.rig, frame) == Ok(Holding::Poisoned)
    }

    fn lost(&self, slot: u8, gfn: u64) -> bool {
        let (Some(vm), Some(ipa)) = (look_guest::vm(self.rig, slot), Ipa::new(gfn * FRAME_SIZE)) else {
            return false;
        };
        let entry = vm.table.walk(self.rig.system.hardware(), ipa);
        entry.is_some_and(|entry| match entry.descriptor {
            Descriptor::Invalid(annotation) => GuestAnnotation::decode(annotation) == GuestAnnotation::Lost,
            _ => false,
        })
    }

    fn lost_count(&self, slot: u8) -> u64 {
        look_guest::vm(self.rig, slot).map_or(0, |vm| vm.counts.lost)
    }

    fn pages(&self, slot: u8) -> Option<(u64, u64, u64)> {
        let vm = look_guest::vm(self.rig, slot)?;
        let tables = look_guest::tables(self.rig, &vm.table).len() as u64;
        Some((vm.root_pages(), tables, vm.reserve.pages()))
    }

    fn guard(&self, slot: u8) -> bool {
        look_guest::vm(self.rig, slot).is_some_and(|vm| vm.guard)
    }

    fn used(&self) -> u64 {
        self.used
    }
}

/// The VM that a call names by its slot alone, with the handle that it has now.
#[must_use]
pub(super) fn with_handle(call: VmCall, register: impl Fn(u8) -> u64) -> VmCall {
    let mut registers = call.encode();
    let names_vm = !matches!(
        call,
        VmCall::Create { .. }
            | VmCall::ForceReclaim { .. }
            | VmCall::PinShared(_)
            | VmCall::UnpinShared(_)
            | VmCall::TakeBack(_)
    );
    if names_vm && let Ok(slot @ 1..) = u8::try_from(registers[1]) {
        registers[1] = register(slot);
    }
    let [_, arguments @ ..] = registers;
    VmCall::decode(call.id(), arguments)
}

impl<G: Geometry> Rig<G> {
    /// Makes a call about a VM, and judges all that it touched. A handle that is a slot alone stands for the VM there.
    pub(super) fn vm_call(
        &mut self,
        world: &World,
        call: VmCall,
        watched: &[u64],
    ) -> Result<HostReturn, String> {
        let call = with_handle(call, |slot| self.memory.vms.register(slot));
        if let VmCall::Run { vm, index } = call
            && let Some(slot) = self.memory.vms.named(vm)
            && self
                .memory
                .vms
                .get(slot)
                .is_some_and(|vm| vm.vcpus.contains_key(&index))
        {
            return self.run(world, slot, index, &Entry::default(), &[], watched);
        }
        let watched = self.watch(&self.frames_near(call, watched));
        let before = self.contents_of(&watched);
        let hw = self.system.hardware();
        let used = self.used_before(call);
        hw.limit_pool(world.pool_limit);
        hw.interrupt_after(world.interrupt_after);
        let answer = host_call(&self.system, HostCall::Vm(call).encode());
        hw.limit_pool(None);
        hw.interrupt_after(None);

        let mut memory = self.memory.clone();
        let told = Told { rig: self, used };
        let effect = memory.vm_call(&self.layout, world, call, &answer, &told);
        self.settle(memory, effect, &before, &watched, &answer)?;
        Ok(answer)
    }

    /// Runs a vCPU: the host writes `entry` to its run page, and the guest does what `script` says.
    ///
    /// # Errors
    /// What is wrong.
    pub fn run(
        &mut self,
        world: &World,
        slot: u8,
        index: u64,
        entry: &Entry,
        script: &[Instruction],
        watched: &[u64],
    ) -> Result<HostReturn, String> {
        let register = self.memory.vms.register(slot);
        let call = VmCall::Run { vm: register, index };
        let vcpu = self.memory.vms.get(slot).and_then(|vm| vm.vcpus.get(&index));
        let Some(vcpu) = vcpu.cloned() else {
            return self.vm_call(world, call, watched);
        };
        let watched = self.watch(&self.frames_of_script(slot, script, watched));
        let before = self.contents_of(&watched);
        let page = super::frame(vcpu.run_page);
        let hw = self.system.hardware();
        hw.set_word(page, ENTRY_FLAGS, entry.flags);
        hw.set_word(page, ENTRY_ANSWER, entry.answer);
        for (number, value) in entry.values.iter().enumerate() {
            hw.set_word(page, ENTRY_VALUES + number, *value);
        }
        hw.set_word(page, ENTRY_LIST_COUNT, entry.list);
        for word in EXIT_REASON..EXIT_VALUES + 7 {
            hw.set_word(page, word, UNWRITTEN);
        }
        let starts = vcpu.start.is_some();
        let waits = if starts { Waits::Nothing } else { vcpu.waits };
        let log = Arc::new(Mutex::new(Vec::new()));
        let program = cpu::program(&self.system, starts, waits, script, &log, register);
        hw.play_guest(Some(program));
        hw.limit_pool(world.pool_limit);
        hw.interrupt_after(world.interrupt_after);
        let answer = host_call(&self.system, HostCall::Vm(call).encode());
        hw.limit_pool(None);
        hw.interrupt_after(None);
        hw.play_guest(None);
        let events = std::mem::take(&mut *log.lock().unwrap_or_else(PoisonError::into_inner));
        let word = |number: usize| hw.word(page, EXIT_REASON + number);
        let exit = (word(0) != UNWRITTEN).then(|| (word(0), std::array::from_fn(|number| word(1 + number))));
        let seen = Seen { events, exit };
        self.meanwhile += seen
            .events
            .iter()
            .filter(|event| matches!(event, super::super::vm::guest::Event::Answered(..)))
            .count() as u64;

        let mut memory = self.memory.clone();
        let told = Told { rig: self, used: 0 };
        let lists = u64::from(hw.guest_support().list_registers);
        let mut case = Case {
            layout: &self.layout,
            world,
            answer: &answer,
            facts: &told,
            effect: Effect::default(),
        };
        let judged = memory.run(&mut case, slot, index, entry, lists, &seen);
        let effect = judged
            .map(|()| case.effect)
            .map_err(|wrong| format!("{wrong}\n{seen:x?}"));
        self.settle(memory, effect, &before, &watched, &answer)?;
        Ok(answer)
    }

    /// Calls of the host that were made while guests ran. All of them were refused.
    #[must_use]
    pub const fn meanwhile(&self) -> u64 {
        self.meanwhile
    }

    /// Takes what followed to be true, and compares what was touched with it.
    fn settle(
        &mut self,
        memory: super::Memory,
        effect: Result<Effect, String>,
        before: &BTreeMap<Frame, Contents>,
        watched: &[Frame],
        answer: &HostReturn,
    ) -> Result<(), String> {
        let effect = effect.map_err(|wrong| format!("{wrong} (answer {answer:x?})"))?;
        let old = std::mem::replace(&mut self.memory, memory);
        let changed = &effect.changed;
        let mut regions: BTreeSet<usize> = changed
            .iter()
            .chain(&watched.iter().map(|frame| frame.number()).collect::<Vec<u64>>())
            .filter_map(|frame| self.layout.piece(*frame, *frame + 1))
            .map(|piece| piece.region)
            .collect();
        if answer.status != Status::Success {
            regions = changed
                .iter()
                .filter_map(|frame| self.layout.piece(*frame, *frame + 1))
                .map(|piece| piece.region)
                .collect();
        }
        for region in &regions {
            let split = look::splits(self, *region)?;
            self.memory.take_split(*region, split);
        }
        for region in &regions {
            look::region(self, *region)?;
        }
        self.adopt_pages(&old)?;
        look::pool(self)?;
        for slot in self.slots() {
            look_guest::one(self, slot)?;
        }
        self.judge_effect(&effect, before)?;
        self.judge_watched(watched)?;
        self.judge_watched_guests(watched)
    }

    fn slots(&self) -> Vec<u8> {
        let mut slots: Vec<u8> = self.memory.vms.iter().map(|(slot, _)| slot).collect();
        slots.extend(
            (1..=self.layout.places.min(4) as u8).filter(|slot| self.memory.vms.get(*slot).is_none()),
        );
        slots
    }

    /// How many pages each VM takes is not laid down, but what its reserve loses its table gains, or a region that was
    /// split.
    fn adopt_pages(&mut self, old: &super::Memory) -> Result<(), String> {
        let slots: Vec<u8> = self.memory.vms.iter().map(|(slot, _)| slot).collect();
        for slot in slots {
            let pages = Told { rig: self, used: 0 }.pages(slot);
            let (_, tables, reserve) = pages.ok_or_else(|| format!("VM {slot} is gone"))?;
            let vm = self.memory.vm(slot);
            let grown = old.vms.get(slot).map_or(0, |old| old.tables + old.reserve);
            let topped_up = vm
                .reserve
                .saturating_sub(old.vms.get(slot).map_or(0, |old| old.reserve));
            if tables + reserve > grown + topped_up {
                return Err(format!(
                    "VM {slot} has {tables} tables and {reserve} pages in reserve, of {grown} + {topped_up}"
                ));
            }
            vm.tables = tables;
            vm.reserve = reserve;
        }
        Ok(())
    }

    fn contents_of(&self, frames: &[Frame]) -> BTreeMap<Frame, Contents> {
        let hw = self.system.hardware();
        frames.iter().map(|frame| (*frame, hw.contents(*frame))).collect()
    }

    /// Frames hold what they should.
    fn judge_effect(&self, effect: &Effect, before: &BTreeMap<Frame, Contents>) -> Result<(), String> {
        let hw = self.system.hardware();
        let mut last: BTreeMap<u64, Option<u64>> = BTreeMap::new();
        for (number, value) in &effect.contents {
            last.insert(*number, *value);
        }
        for (number, value) in &last {
            let frame = super::frame(*number);
            let wanted = value.map_or(Contents::Zero, Contents::Written);
            let dirty = value.is_none() && hw.is_dirty(frame);
            if hw.contents(frame) != wanted || dirty {
                return Err(format!(
                    "{frame:?} holds {:?}, should be {wanted:?}, dirty {dirty}",
                    hw.contents(frame)
                ));
            }
        }
        for (frame, old) in before {
            let poisoned = self.memory.holding(&self.layout, frame.number()) == Some(Holding::Poisoned);
            if !last.contains_key(&frame.number()) && !poisoned && hw.contents(*frame) != *old {
                return Err(format!(
                    "{frame:?} held {old:?}, and holds {:?} now",
                    hw.contents(*frame)
                ));
            }
        }
        Ok(())
    }

    /// Frames whose translations are held during a call: those asked for, and some behind its guest frame numbers.
    fn frames_near(&self, call: VmCall, watched: &[u64]) -> Vec<u64> {
        let mut frames = watched.to_vec();
        let (vm, range) = match call {
            VmCall::Unshare { vm, range }
            | VmCall::Reclaim { vm, range }
            | VmCall::TestAge { vm, range }
            | VmCall::SetPermissions { vm, range, .. } => (vm, range),
            VmCall::Donate { vm, range, gfn } | VmCall::Share { vm, range, gfn, .. } => {
                (vm, GuestRange::new(gfn, range.frames))
            }
            _ => return frames,
        };
        let Some(vm) = self
            .memory
            .vms
            .named(vm)
            .and_then(|slot| self.memory.vms.get(slot))
        else {
            return frames;
        };
        let from = range.gfn.saturating_sub(1);
        let to = range.gfn.saturating_add(range.frames);
        let behind = |gfns: std::ops::RangeInclusive<u64>| -> Vec<u64> {
            vm.places
                .range(gfns)
                .filter_map(|(_, place)| place.frame())
                .take(3)
                .collect()
        };
        frames.extend(behind(from..=to));
        frames.extend(behind(to.saturating_sub(1)..=to));
        frames
    }

    fn frames_of_script(&self, slot: u8, script: &[Instruction], watched: &[u64]) -> Vec<u64> {
        let mut frames = watched.to_vec();
        let Some(vm) = self.memory.vms.get(slot) else {
            return frames;
        };
        for instruction in script {
            let (ipa, count) = match instruction {
                Instruction::Access { ipa, .. } => (*ipa, 1),
                Instruction::Call(_, [_, ipa, count, _]) => (*ipa, (*count).clamp(1, 1 << 20)),
                _ => continue,
            };
            let gfn = ipa / FRAME_SIZE;
            let gfns = [gfn.saturating_sub(1), gfn, gfn + count - 1, gfn + count];
            frames.extend(gfns.iter().filter_map(|gfn| vm.places.get(gfn)?.frame()));
        }
        frames
    }

    /// Lets the TLB hold what CPUs may hold of these frames in guests, and of guest frame numbers where they may come.
    pub(super) fn watch_guests(&self, frames: &[Frame]) {
        let hw = self.system.hardware();
        for (slot, gfns) in self.gfns_of(frames) {
            let Some(vm) = look_guest::vm(self, slot) else {
                continue;
            };
            hw.watch(
                &vm.table,
                gfns.iter().filter_map(|gfn| Ipa::new(gfn * FRAME_SIZE)),
            );
        }
    }

    /// Where guests have these frames, and the first of all places.
    fn gfns_of(&self, frames: &[Frame]) -> BTreeMap<u8, BTreeSet<u64>> {
        let wanted: BTreeSet<u64> = frames.iter().map(|frame| frame.number()).collect();
        let mut found: BTreeMap<u8, BTreeSet<u64>> = BTreeMap::new();
        let mut add = |slot: u8, gfn: u64| {
            found.entry(slot).or_default().insert(gfn);
        };
        for frame in &wanted {
            match self.memory.holding(&self.layout, *frame) {
                Some(Holding::Guest { slot, gfn } | Holding::GuestShared { slot, gfn, .. }) => add(slot, gfn),
                Some(Holding::SharedGuest { .. }) => {
                    for (slot, vm) in self.memory.vms.iter() {
                        let borrowed = vm
                            .places
                            .iter()
                            .filter(|(_, place)| place.frame() == Some(*frame));
                        borrowed.take(4).for_each(|(gfn, _)| add(slot, *gfn));
                    }
                }
                _ => {}
            }
        }
        found
    }

    /// No CPU gets where a guest may not go, and a guest gets where it may.
    fn judge_watched_guests(&self, watched: &[Frame]) -> Result<(), String> {
        let hw = self.system.hardware();
        for (slot, gfns) in self.gfns_of(watched) {
            let Some(vm) = self.memory.vms.get(slot) else {
                continue;
            };
            for gfn in gfns {
                let Some(ipa) = Ipa::new(gfn * FRAME_SIZE) else {
                    continue;
                };
                let place = vm.places.get(&gfn);
                for held in hw.reach(Regime::Guest(slot.into()), ipa) {
                    let frame = held.frame().number() + (ipa.value() - held.start) / FRAME_SIZE;
                    if place.and_then(|place| place.frame()) != Some(frame) {
                        return Err(format!(
                            "a CPU takes {gfn:#x} of VM {slot} to {frame:#x}: {place:x?}"
                        ));
                    }
                }
            }
        }
        // What was taken away must not be held either.
        hw.assert_coherent();
        Ok(())
    }

    /// How many frames of a range are mapped by descriptors that were used.
    fn used_before(&self, call: VmCall) -> u64 {
        let VmCall::TestAge { vm, range } = call else {
            return 0;
        };
        let Some(vm) = self
            .memory
            .vms
            .named(vm)
            .and_then(|slot| look_guest::vm(self, slot))
        else {
            return 0;
        };
        let Some(span) = range
            .gfn
            .checked_mul(FRAME_SIZE)
            .and_then(Ipa::new)
            .and_then(|start| IpaSpan::new(start, range.frames))
        else {
            return 0;
        };
        vm.table
            .entries(self.system.hardware(), span)
            .filter(|entry| matches!(entry.descriptor, Descriptor::Leaf { attributes, .. } if attributes.accessed()))
            .map(|entry| {
                let first = entry.start.value() / FRAME_SIZE;
                (first + entry.pages).min(range.gfn + range.frames) - first.max(range.gfn)
            })
            .sum()
    }

    /// What a place of a VM is.
    #[must_use]
    pub fn place(&self, slot: u8, gfn: u64) -> Option<Place> {
        self.memory.vms.get(slot)?.places.get(&gfn).copied()
    }
}
