//! The judge: a whole lower half on the double, and the specification beside it.
//!
//! [`Rig::call`] makes a call, compares the answer with the specification's, and then looks at what the call touched:
//! map, host table, EL2's table, contents, and what CPUs may hold. [`Rig::compare_all`] looks at everything.

mod cpu;
mod guest;
mod look;
mod look_guest;

use super::{Expected, Holding, Layout, Memory, World};
use hyp_abi::vm::MAX_VMS;
use hyp_abi::{FRAME_SIZE, FrameRange, HostCall, HostReturn, Status};
use hyp_core::addr::{Frame, FrameSpan};
use hyp_core::double::{Contents, Machine, Snapshot, system_with_places};
use hyp_core::geometry::Geometry;
use hyp_core::hardware::{Hardware, Regime};
use hyp_core::hypercall::host_call;
use hyp_core::map::Entry;
use hyp_core::ownership::{Devices, Ownership};
use hyp_core::pgtable::{HypStage1, Table};
use hyp_core::vm::SavedVms;
use std::sync::Arc;

/// CPUs of the double.
const CPUS: usize = 8;

/// A system, and what should be true of it.
#[derive(Debug)]
pub struct Rig<G: Geometry> {
    system: Arc<Ownership<'static, Machine<G>>>,
    hyp: Table<HypStage1, G>,
    ram: Vec<FrameSpan>,
    layout: Layout,
    memory: Memory,
    writes: u64,
    /// Calls of the host that were made while a guest ran.
    meanwhile: u64,
}

/// A state to come back to.
#[derive(Clone, Debug)]
pub struct Saved<G: Geometry> {
    machine: Snapshot,
    spare: Vec<Frame>,
    vms: SavedVms<G>,
    memory: Memory,
}

impl<G: Geometry> Saved<G> {
    /// What was true then.
    #[must_use]
    pub const fn memory(&self) -> &Memory {
        &self.memory
    }
}

/// A run of frames.
///
/// # Panics
/// If there are none, or they run past 48 bits.
#[must_use]
pub fn span(start: u64, frames: u64) -> FrameSpan {
    Frame::new(start)
        .and_then(|start| FrameSpan::new(start, frames))
        .expect("frames of a test machine")
}

fn frame(number: u64) -> Frame {
    span(number, 1).start()
}

impl<G: Geometry> Rig<G> {
    /// A machine with this RAM, in whole regions, of which `boot` is EL2's.
    #[must_use]
    pub fn new(ram: &[FrameSpan], boot: FrameSpan) -> Self {
        Self::with_places(ram, boot, MAX_VMS)
    }

    /// A machine that has room for so many VMs.
    #[must_use]
    pub fn with_places(ram: &[FrameSpan], boot: FrameSpan, places: usize) -> Self {
        Self::of(
            system_with_places::<G>(ram, boot, Devices::new(), places),
            ram,
            boot,
        )
    }

    /// A machine that keeps pages back for topping up the pool, as the hypervisor does.
    #[must_use]
    pub fn with_spare(ram: &[FrameSpan], boot: FrameSpan) -> Self {
        let system = system_with_places::<G>(ram, boot, Devices::new(), MAX_VMS);
        system.keep_spare();
        Self::of(system, ram, boot)
    }

    fn of(system: Ownership<'static, Machine<G>>, ram: &[FrameSpan], boot: FrameSpan) -> Self {
        let hyp = system.hyp_table();
        let regions = ram.iter().flat_map(|span| {
            let starts = span.start().number()..span.end_number();
            starts.step_by(G::REGION_FRAMES as usize)
        });
        let layout = Layout {
            region: G::REGION_FRAMES,
            upper: G::level_frames(1),
            step: G::STEP_FRAMES,
            regions: regions.collect(),
            boot_pages: boot.frames(),
            fixed_pages: system.hardware().pages_in_use() - system.spare_pages(),
            spare: system.spare_pages(),
            cpus: CPUS,
            places: system.vms().places(),
            ipa_bits: {
                let support = system.hardware().guest_support();
                (support.min_ipa_bits.into(), support.max_ipa_bits.into())
            },
        };
        let mut memory = Memory::new(&layout);
        for number in boot.iter().map(Frame::number) {
            memory.put(&layout, number, Holding::Boot);
        }
        let hw = system.hardware();
        hw.record(false);
        Self {
            system: Arc::new(system),
            hyp,
            ram: ram.to_vec(),
            layout,
            memory,
            writes: 0,
            meanwhile: 0,
        }
    }

    /// Takes frames of the host before it runs.
    ///
    /// # Panics
    /// If they are not plainly the host's, or not a part of one region.
    pub fn claim(&mut self, frames: FrameSpan, entry: Entry, holding: Holding) {
        assert_eq!(self.system.claim_at_boot(frames, entry), Ok(frames.frames()));
        for number in frames.iter().map(Frame::number) {
            self.memory.put(&self.layout, number, holding);
        }
        self.memory.split(&self.layout, frames.start().number());
    }

    /// Puts frames of one region that are the host's in a state by hand, as calls of the host alone cannot.
    ///
    /// # Panics
    /// If they are not the host's.
    pub fn force(&mut self, frames: FrameSpan, entry: Entry, holding: Holding) {
        self.system.force(frames, entry);
        for number in frames.iter().map(Frame::number) {
            self.memory.put(&self.layout, number, holding);
        }
        // How far that has split map and table, the machine says; what the frames are, it is held to.
        let found = look::memory(self).expect("every entry has a meaning");
        self.memory.take_splits(&found);
    }

    /// The system.
    pub fn system(&self) -> &Ownership<'static, Machine<G>> {
        &self.system
    }

    /// What should be true.
    pub const fn memory(&self) -> &Memory {
        &self.memory
    }

    /// What the machine is like.
    pub const fn layout(&self) -> &Layout {
        &self.layout
    }

    /// A frame breaks.
    pub fn break_frame(&mut self, number: u64) {
        self.system.hardware().poison(frame(number));
        self.memory.break_frame(number);
    }

    /// Takes something else to be true from now on.
    pub fn assume(&mut self, memory: Memory) {
        self.memory = memory;
    }

    /// The state of system and specification.
    #[must_use]
    pub fn save(&self) -> Saved<G> {
        Saved {
            machine: self.system.hardware().snapshot(self.system.map(), &self.ram),
            spare: self.system.spare_frames(),
            vms: self.system.vms().save(),
            memory: self.memory.clone(),
        }
    }

    /// Goes back.
    pub fn restore(&mut self, saved: &Saved<G>) {
        self.system.hardware().restore(self.system.map(), &saved.machine);
        self.system.restore_spare(&saved.spare);
        self.system.vms().restore(&saved.vms);
        self.memory.clone_from(&saved.memory);
    }

    /// Frames that `PoolTopUp` brought and that are not in use: which they are tells states apart that else look
    /// alike.
    #[must_use]
    pub fn free_frames(&self) -> Vec<u64> {
        let used = look::tables(self).unwrap_or_default();
        let frames = self.memory.frames().iter().enumerate();
        frames
            .filter(|(_, holding)| **holding == Holding::Pool)
            .map(|(index, _)| self.layout.number(index))
            .filter(|number| !used.contains(number))
            .collect()
    }

    /// Makes a call from registers, and judges everything that it touched. `watched` are frames whose translations the
    /// TLB holds on to.
    ///
    /// # Errors
    /// What is wrong.
    pub fn call(
        &mut self,
        world: &World,
        registers: [u64; 7],
        watched: &[u64],
    ) -> Result<HostReturn, String> {
        if let Ok(HostCall::Vm(call)) = HostCall::decode(registers) {
            return self.vm_call(world, call, watched);
        }
        let watched = self.watch(watched);
        let before = self.write_where_the_host_may(&watched);
        let hw = self.system.hardware();
        hw.limit_pool(world.pool_limit);
        hw.interrupt_after(world.interrupt_after);
        let answer = host_call(&self.system, registers);
        hw.limit_pool(None);
        hw.interrupt_after(None);

        let call = HostCall::decode(registers);
        let expected = match call {
            Err(status) => HostReturn::refused(status).into(),
            Ok(call) => {
                let (drained, free) = self.pool_changes(call)?;
                self.memory.call(&self.layout, world, call, &drained, free)?
            }
        };
        self.judge_answer(call.ok(), &expected, &answer)?;
        self.judge_contents(&expected, &before)?;
        self.judge_watched(&watched)?;
        for region in self.touched(call.ok(), &answer) {
            look::region(self, region)?;
        }
        look::pool(self)?;
        Ok(answer)
    }

    /// Compares the whole machine with the specification.
    ///
    /// # Errors
    /// What is wrong.
    pub fn compare_all(&self) -> Result<(), String> {
        for region in 0..self.layout.regions.len() {
            look::region(self, region)?;
        }
        look::pool(self)?;
        look_guest::all(self)?;
        look::everything(self)
    }

    /// Compares the machine with itself alone: map with tables, tables with the pool, the pool with the map. For calls
    /// made at once that no single order explains.
    ///
    /// # Errors
    /// What is wrong.
    pub fn compare_with_itself(&mut self) -> Result<(), String> {
        self.memory = look::memory(self)?;
        look::at_rest(&self.memory)?;
        self.compare_all()
    }

    fn judge_answer(
        &self,
        call: Option<HostCall>,
        expected: &Expected,
        answer: &HostReturn,
    ) -> Result<(), String> {
        let counted = matches!(call, Some(HostCall::Counter { .. })) && answer.status == Status::Success;
        if expected.admits(answer) || (counted && expected.answer.status == Status::Success) {
            return Ok(());
        }
        Err(format!("answered {answer:x?}, should be {expected:x?}"))
    }

    /// Which frames left the pool in this call, and how many that were brought are free now.
    fn pool_changes(&self, call: HostCall) -> Result<(Vec<u64>, u64), String> {
        if !matches!(call, HostCall::PoolDrain { .. }) {
            return Ok((Vec::new(), 0));
        }
        let mut drained = Vec::new();
        for (index, holding) in self.memory.frames().iter().enumerate() {
            let number = self.layout.number(index);
            if *holding == Holding::Pool && look::holding(self, number)? != Holding::Pool {
                drained.push(number);
            }
        }
        let free = self.free_frames().len() as u64;
        Ok((drained, free))
    }

    /// Lets the TLB hold what CPUs may hold of these frames, as the tables are now.
    fn watch(&self, watched: &[u64]) -> Vec<Frame> {
        let hw = self.system.hardware();
        hw.unwatch();
        let mut known: Vec<Frame> = watched
            .iter()
            .filter(|number| self.memory.holding(&self.layout, **number).is_some())
            .map(|number| frame(*number))
            .collect();
        known.sort_unstable();
        known.dedup();
        let addresses = || known.iter().map(|frame| frame.address().host_ipa());
        hw.watch(self.system.host_table(), addresses());
        hw.watch(&self.hyp, addresses());
        self.watch_guests(&known);
        known
    }

    /// The host writes to those of the frames that it may write to. Answers what these hold.
    fn write_where_the_host_may(&mut self, frames: &[Frame]) -> Vec<(Frame, Contents)> {
        let mut before = Vec::new();
        for frame in frames {
            let holding = self.memory.holding(&self.layout, frame.number());
            if holding.is_some_and(Holding::host_reaches) {
                self.writes += 1;
                self.system.hardware().write(*frame, self.writes);
                before.push((*frame, Contents::Written(self.writes)));
            }
        }
        before
    }

    /// What came back is zero, and clean; what stayed the host's is as it was.
    fn judge_contents(&self, expected: &Expected, before: &[(Frame, Contents)]) -> Result<(), String> {
        let hw = self.system.hardware();
        for (start, count) in &expected.returned {
            for frame in span(*start, *count).iter() {
                if hw.contents(frame) != Contents::Zero || hw.is_dirty(frame) {
                    return Err(format!("{frame:?} came back with {:?}", hw.contents(frame)));
                }
            }
        }
        for (frame, contents) in before {
            let holding = self.memory.holding(&self.layout, frame.number());
            if holding.is_some_and(Holding::host_reaches) && hw.contents(*frame) != *contents {
                return Err(format!("{frame:?} is the host's, and lost what it held"));
            }
        }
        Ok(())
    }

    /// No CPU holds a translation that is no longer true, and a CPU gets where it may go.
    fn judge_watched(&self, watched: &[Frame]) -> Result<(), String> {
        let hw = self.system.hardware();
        hw.assert_coherent();
        for frame in watched {
            let Some(holding) = self.memory.holding(&self.layout, frame.number()) else {
                continue;
            };
            let address = frame.address().host_ipa();
            let host = !hw.reach(Regime::Host, address).is_empty();
            if holding != Holding::Device && host != holding.host_reaches() {
                return Err(format!("{frame:?} is {holding:?}, and a CPU reaches it: {host}"));
            }
            let el2 = !hw.reach(Regime::Hyp, address).is_empty();
            if holding.el2_reaches().is_some_and(|wanted| wanted != el2) {
                return Err(format!("{frame:?} is {holding:?}, and EL2 reaches it: {el2}"));
            }
        }
        Ok(())
    }

    /// The regions that a call may have changed, as far as they are RAM.
    fn touched(&self, call: Option<HostCall>, answer: &HostReturn) -> Vec<usize> {
        let range = match call {
            Some(
                HostCall::PoolTopUp(range)
                | HostCall::ShareHyp(range)
                | HostCall::UnshareHyp(range)
                | HostCall::DonateHyp(range)
                | HostCall::ReclaimHyp(range)
                | HostCall::Collapse(range)
                | HostCall::Audit(range),
            ) => range,
            Some(HostCall::PoolDrain { .. }) if answer.status == Status::Success => {
                FrameRange::new(answer.values[0], answer.values[1].max(1))
            }
            Some(HostCall::TraceAttach { frame, .. }) => FrameRange::new(frame, 1),
            _ => return Vec::new(),
        };
        let first = range.base / FRAME_SIZE;
        let last = first.saturating_add(range.frames.saturating_sub(1));
        let regions = self.layout.regions.iter().enumerate();
        regions
            .filter(|(_, start)| **start <= last && first < **start + self.layout.region)
            .map(|(region, _)| region)
            .collect()
    }
}
