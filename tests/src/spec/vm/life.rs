//! The life of a VM: created, filled, launched, ended.

use super::super::{Demand, Holding, Memory, bad_range, refusal};
use super::answer::{Means, lacking};
use super::call::Case;
use super::guest::Waits;
use super::registers::Registers;
use super::{Life, Vcpu, Vm};
use hyp_abi::vm::{MAX_MEMORY_RANGES, MAX_VCPUS, TOP_UP_STEP, VmFlags, VmHandle};
use hyp_abi::vm_call::GuestRange;
use hyp_abi::{FRAME_SIZE, FrameRange, Status};
use std::collections::BTreeMap;

/// Pages that the root of a guest's table takes at most, and one for the VM.
const MOST_FOR_A_VM: u64 = 17;

/// How many pages of EL2's go back before an interrupt can end the taking apart of a VM.
const STEP: u64 = 64;

impl Memory {
    pub(super) fn create(
        &mut self,
        case: &mut Case<'_>,
        flags: u64,
        vcpus: u64,
        ipa_bits: u64,
    ) -> Result<(), String> {
        let known = VmFlags::from_bits(flags);
        let (fewest, most) = case.layout.ipa_bits;
        let mut reasons = Vec::new();
        if known.is_none() || !(1..=MAX_VCPUS as u64).contains(&vcpus) || !(fewest..=most).contains(&ipa_bits)
        {
            reasons.push(Status::InvalidParameter);
        }
        if self.vms.live.len() >= case.layout.places {
            reasons.push(Status::NoVmSlot);
        }
        if case.refused(&reasons)? {
            return Ok(());
        }
        let available = self.budget(case.layout, case.world).available();
        if case.answer.status == Status::NoMemory {
            // A root of several pages wants them side by side.
            let [asked, rest @ ..] = case.answer.values;
            if asked == 0 || asked > MOST_FOR_A_VM || available >= 2 * MOST_FOR_A_VM || rest != [0, 0] {
                return Err(format!("{:x?}, where {available} pages are free", case.answer));
            }
            return Ok(());
        }
        let register = case.answer.values[0];
        case.success([register, 0, 0])?;
        let handle = VmHandle::from_register(register).ok_or("the handle is none")?;
        let slot = handle.slot;
        let last = self.vms.generations.get(&slot).copied().unwrap_or(0);
        if usize::from(slot) > case.layout.places
            || self.vms.live.contains_key(&slot)
            || handle.generation <= last
        {
            return Err(format!("{handle:?} is not new"));
        }
        let (root, tables, reserve) = case.facts.pages(slot).ok_or("the VM is not there")?;
        if tables != 0 || reserve != 0 {
            return Err(format!(
                "a new VM has {tables} tables and {reserve} pages in reserve"
            ));
        }
        let flags = known.ok_or("flags that are none")?;
        let guard_required = flags.contains(VmFlags::GUARD_REQUIRED);
        self.vms.generations.insert(slot, handle.generation);
        self.vms.live.insert(
            slot,
            Vm {
                generation: handle.generation,
                protected: flags.contains(VmFlags::PROTECTED),
                guard_required,
                guard: case.facts.guard(slot),
                max_vcpus: vcpus,
                gfns: 1 << (ipa_bits - 12),
                life: Life::Created,
                ranges: Vec::new(),
                counter_offset: 0,
                vcpus: BTreeMap::new(),
                places: BTreeMap::new(),
                relinquished: 0,
                lost: 0,
                reserve: 0,
                tables: 0,
                root,
            },
        );
        Ok(())
    }

    /// What is wrong with a range of guest frame numbers, whatever they stand for.
    pub(super) fn bad_gfns(&self, slot: u8, range: GuestRange) -> Vec<Status> {
        let mut reasons = Vec::new();
        if range.frames == 0 {
            reasons.push(Status::EmptyRange);
        }
        let gfns = self.vms.live[&slot].gfns;
        if range.gfn >= gfns || range.frames > gfns - range.gfn {
            reasons.push(Status::GfnOutOfRange);
        }
        reasons
    }

    pub(super) fn add_memory(&mut self, case: &Case<'_>, slot: u8, range: GuestRange) -> Result<(), String> {
        let mut reasons = self.bad_gfns(slot, range);
        let vm = self.vm(slot);
        let overlaps = |(first, frames): &(u64, u64)| {
            range.gfn < first + frames && *first < range.gfn.saturating_add(range.frames)
        };
        if vm.ranges.iter().any(overlaps) || vm.ranges.len() >= MAX_MEMORY_RANGES {
            reasons.push(Status::InvalidParameter);
        }
        if vm.life != Life::Created {
            reasons.push(Status::WrongVmState);
        }
        if case.refused(&reasons)? {
            return Ok(());
        }
        vm.ranges.push((range.gfn, range.frames));
        vm.ranges.sort_unstable();
        case.success([0; 3])
    }

    pub(super) fn create_vcpu(
        &mut self,
        case: &mut Case<'_>,
        slot: u8,
        index: u64,
        run_page: u64,
    ) -> Result<(), String> {
        let mut reasons = Vec::new();
        let vm = &self.vms.live[&slot];
        if index >= vm.max_vcpus {
            reasons.push(Status::NoSuchVcpu);
        }
        if vm.vcpus.contains_key(&index) {
            reasons.push(Status::VcpuExists);
        }
        if vm.life != Life::Created {
            reasons.push(Status::WrongVmState);
        }
        let found = match bad_range(FrameRange::new(run_page, 1)) {
            Some(status) => Err(status),
            None => match self.holding(case.layout, run_page / FRAME_SIZE) {
                None => Err(Status::NotMemory),
                Some(holding) => refusal(Demand::Shared, holding).map_or(Ok(holding), Err),
            },
        };
        let pins = match found {
            Ok(Holding::SharedHyp { pins }) => pins,
            Ok(_) => 0,
            Err(status) => {
                reasons.push(status);
                0
            }
        };
        if case.answer.status == Status::NoMemory && reasons.is_empty() {
            let available = self.budget(case.layout, case.world).available();
            return lacking("pages of the pool", case.answer.values[0], available);
        }
        if case.refused(&reasons)? {
            return Ok(());
        }
        case.success([0; 3])?;
        let frame = run_page / FRAME_SIZE;
        self.turn(case, frame, Holding::SharedHyp { pins: pins + 1 }, false);
        let vcpu = Vcpu {
            run_page: frame,
            on: false,
            start: None,
            waits: Waits::Nothing,
            registers: Registers::beginning(0, 0),
        };
        self.vm(slot).vcpus.insert(index, vcpu);
        Ok(())
    }

    pub(super) fn launch(
        &mut self,
        case: &Case<'_>,
        slot: u8,
        entry: u64,
        argument: u64,
    ) -> Result<(), String> {
        let vm = self.vm(slot);
        let mut reasons = Vec::new();
        if vm.life != Life::Created {
            reasons.push(Status::WrongVmState);
        }
        if !vm.vcpus.contains_key(&0) {
            reasons.push(Status::NoSuchVcpu);
        }
        if !entry.is_multiple_of(4) {
            reasons.push(Status::InvalidParameter);
        }
        if entry / FRAME_SIZE >= vm.gfns {
            reasons.push(Status::GfnOutOfRange);
        }
        if case.refused(&reasons)? {
            return Ok(());
        }
        vm.life = Life::Launched;
        vm.guard = vm.guard_required;
        if let Some(vcpu) = vm.vcpus.get_mut(&0) {
            vcpu.on = true;
            vcpu.start = Some((entry, argument));
            vcpu.registers = Registers::beginning(entry, argument);
        }
        case.success([0; 3])
    }

    pub(super) fn digest(&self, case: &Case<'_>, slot: u8, half: u64) -> Result<(), String> {
        let mut reasons = Vec::new();
        let life = self.vms.live[&slot].life;
        if half > 1 {
            reasons.push(Status::InvalidParameter);
        }
        if matches!(life, Life::Created | Life::Dying) {
            reasons.push(Status::WrongVmState);
        }
        if case.refused(&reasons)? {
            return Ok(());
        }
        let [low, high, rest] = case.answer.values;
        case.success([low, high, 0])?;
        if rest != 0 || (low, high) == (0, 0) {
            return Err("the digest is nothing".to_owned());
        }
        Ok(())
    }

    pub(super) fn destroy(&mut self, case: &mut Case<'_>, slot: u8) -> Result<(), String> {
        let vm = self.vm(slot);
        vm.life = Life::Dying;
        let (private, shared, borrowed) = vm.counts();
        let left = private + shared + borrowed;
        if left > 0 {
            let right = case.answer.status == Status::FramesLeft && case.answer.values == [left, 0, 0];
            return right
                .then_some(())
                .ok_or_else(|| format!("answered {:x?}, where {left} frames are left", case.answer));
        }
        // One with many pages of EL2's goes in steps, if an interrupt waits.
        let pages = vm.reserve + vm.tables;
        let in_steps = case.answer.status == Status::Busy && pages > STEP && Means::interrupted(case.world);
        let run_pages = if in_steps {
            let (root, tables, reserve) = case.facts.pages(slot).ok_or("the VM is not there")?;
            if tables + reserve + STEP > pages || case.answer.values != [1 + root + tables + reserve, 0, 0] {
                return Err(format!("answered {:x?} after {pages} pages", case.answer));
            }
            (vm.tables, vm.reserve) = (tables, reserve);
            core::mem::take(&mut vm.vcpus)
        } else {
            case.success([0; 3])?;
            self.vms.live.remove(&slot).ok_or("it was there")?.vcpus
        };
        for vcpu in run_pages.values() {
            let Some(Holding::SharedHyp { pins: pins @ 1.. }) = self.holding(case.layout, vcpu.run_page)
            else {
                return Err("a run page is not pinned".to_owned());
            };
            let unpinned = Holding::SharedHyp { pins: pins - 1 };
            self.turn(case, vcpu.run_page, unpinned, false);
        }
        Ok(())
    }

    pub(super) fn top_up(&mut self, case: &Case<'_>, slot: u8, pages: u64) -> Result<(), String> {
        if pages == 0 {
            return case.refused(&[Status::EmptyRange]).map(|_| ());
        }
        let available = self.budget(case.layout, case.world).available();
        if available < pages {
            let [asked, rest @ ..] = case.answer.values;
            let right =
                case.answer.status == Status::NoMemory && asked > 0 && asked <= pages && rest == [0, 0];
            return right
                .then_some(())
                .ok_or_else(|| format!("answered {:x?}, where {available} pages are free", case.answer));
        }
        let vm = self.vm(slot);
        // An interrupt ends it early, but not before so many.
        let moved = case.answer.values[0].saturating_sub(vm.reserve);
        let early = Means::interrupted(case.world) && moved < pages && moved >= TOP_UP_STEP;
        vm.reserve += if early { moved } else { pages };
        case.success([vm.reserve, 0, 0])
    }

    pub(super) fn rename(&mut self, case: &Case<'_>, slot: u8) -> Result<(), String> {
        if self.vms.live[&slot].life == Life::Dying {
            return case.refused(&[Status::WrongVmState]).map(|_| ());
        }
        let register = case.answer.values[0];
        case.success([register, 0, 0])?;
        let handle = VmHandle::from_register(register).ok_or("the handle is none")?;
        let last = self.vms.generations.get(&slot).copied().unwrap_or(0);
        if handle.slot != slot || handle.generation <= last {
            return Err(format!("{handle:?} is not a new name of slot {slot}"));
        }
        self.vms.generations.insert(slot, handle.generation);
        self.vm(slot).generation = handle.generation;
        Ok(())
    }

    /// Why a vCPU cannot be run, if it cannot.
    pub(in crate::spec) fn cannot_run(&self, slot: u8, index: u64) -> Vec<Status> {
        let vm = &self.vms.live[&slot];
        let mut reasons = Vec::new();
        match vm.life {
            Life::Launched => {}
            Life::Created | Life::Dying => reasons.push(Status::WrongVmState),
            Life::Off => reasons.extend([Status::WrongVmState, Status::VcpuOff]),
        }
        match vm.vcpus.get(&index) {
            None => reasons.push(Status::NoSuchVcpu),
            Some(vcpu) if !vcpu.on => reasons.push(Status::VcpuOff),
            Some(_) => {}
        }
        reasons
    }

    pub(super) fn run_refused(&self, case: &Case<'_>, slot: u8, index: u64) -> Result<(), String> {
        let mut reasons = self.cannot_run(slot, index);
        if reasons.is_empty() {
            reasons.push(Status::InvalidParameter);
        }
        case.refused(&reasons).map(|_| ())
    }
}
