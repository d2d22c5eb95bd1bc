//! A VM: its life, the frames that stand behind its memory, and its end.

use super::calls::{self, call, call_supplied};
use super::run_page::RunPage;
use super::vcpu::Vcpu;
use super::{Plan, image};
use crate::cases::support::{ensure_state, fill_pool, frames_aligned};
use crate::frames::Frames;
use crate::hypercall::HYPERVISOR;
use crate::registry::{Outcome, TestResult, ensure_eq, fail, succeed};
use alloc::collections::{BTreeMap, BTreeSet};
use alloc::vec::Vec;
use core::mem;
use core::sync::atomic::{AtomicU64, Ordering};
use host_shim::CallError;
use hyp_abi::vm::Permissions;
use hyp_abi::{FRAME_SIZE, FrameRange, FrameState, GuestRange, Status, VmCall};
use payload_protocol::layout;
use spin::mutex::TicketMutex;

/// What the host leaves in a frame before it gives it to a guest.
pub(crate) const GARBAGE: u64 = 0x6a5b_a6e0_6a5b_a6e0;

/// A VM, as long as it is not ended. If a case fails with it, its slot at least is freed, for the cases that follow; its
/// frames are then never used again.
#[derive(Debug)]
pub(crate) struct Vm {
    /// What it is.
    pub(crate) plan: Plan,
    handle: AtomicU64,
    /// Its vCPUs.
    pub(crate) vcpus: Vec<Vcpu>,
    memory: TicketMutex<Memory>,
    /// Held while a page is brought to where a vCPU lacks one: another may lack the same.
    pub(crate) providing: TicketMutex<()>,
}

/// The frames that are set aside for a VM.
#[derive(Debug)]
struct Memory {
    pool: Frames,
    /// Frames of the pool before this one have been given, from the front.
    next: u64,
    /// Of these, the ones that came back.
    spare: Vec<u64>,
    /// Guest frame number to frame of the pool.
    given: BTreeMap<u64, u64>,
}

impl Memory {
    fn take(&mut self) -> Result<u64, Outcome> {
        if let Some(index) = self.spare.pop() {
            return Ok(index);
        }
        self.take_run(1)
    }

    fn take_run(&mut self, frames: u64) -> Result<u64, Outcome> {
        let index = self.next;
        if frames > self.pool.range().frames - index {
            fail!(
                "no {frames} of {} frames are left for the guest",
                self.pool.range().frames
            );
        }
        self.next += frames;
        Ok(index)
    }
}

impl Vm {
    /// A VM that is created, and nothing more.
    pub(crate) fn create(plan: Plan) -> Result<Self, Outcome> {
        fill_pool()?;
        let [handle, ..] = call_supplied(
            0,
            VmCall::Create {
                flags: plan.flags.bits(),
                vcpus: plan.vcpus,
                ipa_bits: plan.ipa_bits,
            },
        )?;
        let vm = Self {
            plan,
            handle: AtomicU64::new(handle),
            vcpus: Vec::new(),
            memory: TicketMutex::new(Memory {
                pool: frames_aligned(plan.backing, plan.alignment)?,
                next: 0,
                spare: Vec::new(),
                given: BTreeMap::new(),
            }),
            providing: TicketMutex::new(()),
        };
        succeed!(call(VmCall::AddMemory {
            vm: handle,
            range: plan.declared()
        }));
        if plan.reserve > 0 {
            calls::top_up(handle, plan.reserve)?;
        }
        Ok(vm)
    }

    /// A VM with its vCPUs and the payload guest in its memory, not launched.
    pub(crate) fn load(plan: Plan) -> Result<Self, Outcome> {
        let mut vm = Self::create(plan)?;
        for _ in 0..plan.vcpus {
            vm.add_vcpu()?;
        }
        vm.load_image()?;
        Ok(vm)
    }

    /// A VM that is ready to run.
    pub(crate) fn launch(plan: Plan) -> Result<Self, Outcome> {
        let vm = Self::load(plan)?;
        vm.launch_loaded()?;
        Ok(vm)
    }

    /// Launches what [`Vm::load`] made.
    pub(crate) fn launch_loaded(&self) -> TestResult {
        succeed!(call(VmCall::Launch {
            vm: self.handle(),
            entry: layout::IMAGE,
            argument: self.plan.start.to_register()
        }));
        Ok(())
    }

    /// Its handle, as a register has it.
    pub(crate) fn handle(&self) -> u64 {
        self.handle.load(Ordering::Relaxed)
    }

    /// Gives it a new handle; returns the old one.
    pub(crate) fn rename(&self) -> Result<u64, Outcome> {
        let [handle, ..] = succeed!(call(VmCall::Rename { vm: self.handle() }));
        Ok(self.handle.swap(handle, Ordering::Relaxed))
    }

    /// Creates the next vCPU.
    pub(crate) fn add_vcpu(&mut self) -> TestResult {
        let page = RunPage::new()?;
        call_supplied(
            0,
            VmCall::CreateVcpu {
                vm: self.handle(),
                index: self.vcpus.len() as u64,
                run_page: page.address(),
            },
        )?;
        self.vcpus.push(Vcpu::new(page));
        Ok(())
    }

    /// The frames that are set aside for it, given or not.
    pub(crate) fn backing(&self) -> FrameRange {
        self.memory.lock().pool.range()
    }

    /// Gives the guest its image, before the launch.
    pub(crate) fn load_image(&self) -> TestResult {
        let frames = image::frames()?;
        let first = self.memory.lock().take_run(frames)?;
        for page in 0..frames {
            let frame = self.memory.lock().pool.part_of(first + page);
            image::copy_page(page, &frame)?;
        }
        self.hand_over(first, frames, layout::IMAGE / FRAME_SIZE)
    }

    /// Gives frames of the pool to the guest, as they are.
    fn hand_over(&self, first: u64, frames: u64, gfn: u64) -> TestResult {
        let range = FrameRange::new(self.memory.lock().pool.frame(first), frames);
        if self.plan.is_protected() {
            calls::donate(self.handle(), range, gfn)?;
        } else {
            calls::share(self.handle(), range, gfn, Permissions::all().bits())?;
        }
        let mut memory = self.memory.lock();
        for offset in 0..frames {
            memory.given.insert(gfn + offset, first + offset);
        }
        Ok(())
    }

    /// Gives the guest a page at `gfn`, full of garbage as far as the host goes. Returns the frame's address.
    pub(crate) fn give(&self, gfn: u64) -> Result<u64, Outcome> {
        self.give_filled(gfn, GARBAGE)
    }

    /// Gives the guest a page at `gfn` that the host has filled with `value` before.
    pub(crate) fn give_filled(&self, gfn: u64, value: u64) -> Result<u64, Outcome> {
        let index = self.memory.lock().take()?;
        let frame = self.memory.lock().pool.part_of(index);
        frame.fill(value);
        self.hand_over(index, 1, gfn)?;
        Ok(frame.frame(0))
    }

    /// Gives the guest pages in one piece, as they are. Returns the first frame's address.
    pub(crate) fn give_run(&self, gfn: u64, frames: u64) -> Result<u64, Outcome> {
        let first = self.memory.lock().take_run(frames)?;
        self.hand_over(first, frames, gfn)?;
        Ok(self.memory.lock().pool.frame(first))
    }

    /// Leaves frames of the pool unused, so that the next ones begin at a multiple of so many.
    pub(crate) fn skip_to_alignment(&self, frames: u64) -> TestResult {
        let mut memory = self.memory.lock();
        let address = memory.pool.range().base / FRAME_SIZE + memory.next;
        let skipped = address.next_multiple_of(frames) - address;
        if skipped > 0 {
            memory.take_run(skipped)?;
        }
        Ok(())
    }

    /// Takes frames of the pool that are not given to anybody: the case does with them what it likes.
    pub(crate) fn set_aside(&self, frames: u64) -> Result<FrameRange, Outcome> {
        let mut memory = self.memory.lock();
        let first = memory.take_run(frames)?;
        Ok(FrameRange::new(memory.pool.frame(first), frames))
    }

    /// The frame behind `gfn`, which must have one.
    pub(crate) fn frame(&self, gfn: u64) -> Result<u64, Outcome> {
        let memory = self.memory.lock();
        match memory.given.get(&gfn) {
            Some(index) => Ok(memory.pool.frame(*index)),
            None => fail!("the guest was given nothing at {gfn:#x}"),
        }
    }

    /// The frame behind `gfn`, to look at or fill.
    pub(crate) fn frame_view(&self, gfn: u64) -> Result<Frames, Outcome> {
        Ok(Frames::adopt(FrameRange::new(self.frame(gfn)?, 1)))
    }

    /// How many pages it has, as far as the host knows.
    pub(crate) fn pages(&self) -> u64 {
        self.memory.lock().given.len() as u64
    }

    /// The guest frame numbers of what the host has given it.
    pub(crate) fn gfns(&self) -> Vec<u64> {
        self.memory.lock().given.keys().copied().collect()
    }

    /// Whether the host has given it a page at `gfn`.
    pub(crate) fn has(&self, gfn: u64) -> bool {
        self.memory.lock().given.contains_key(&gfn)
    }

    /// The page at `gfn` is the host's again, by a call that the case has made.
    pub(crate) fn forget(&self, gfn: u64) -> TestResult {
        let mut memory = self.memory.lock();
        let Some(index) = memory.given.remove(&gfn) else {
            fail!("the guest was given nothing at {gfn:#x}")
        };
        memory.spare.push(index);
        Ok(())
    }

    /// The frame at `frame`, which the pool has, is the guest's at `gfn` now, by a call that the case has made.
    pub(crate) fn note(&self, gfn: u64, frame: u64) {
        let mut memory = self.memory.lock();
        let index = (frame - memory.pool.frame(0)) / FRAME_SIZE;
        memory.spare.retain(|spare| *spare != index);
        memory.given.insert(gfn, index);
    }

    /// Takes pages that the guest gave up; they must come zeroed.
    pub(crate) fn take_relinquished(&self, gfn: u64, frames: u64) -> TestResult {
        for gfn in gfn..gfn + frames {
            let frame = self.frame_view(gfn)?;
            ensure_state(frame.frame(0), FrameState::Relinquished, 0)?;
            calls::take_back(frame.range())?;
            ensure_state(frame.frame(0), FrameState::Host, 0)?;
            ensure_eq!(
                frame.find_wrong(|_| 0),
                None,
                "contents of a page that was given up"
            );
            self.forget(gfn)?;
        }
        Ok(())
    }

    /// Ends the VM: it must count the frames that it has, give every one back, private ones zeroed, and be gone.
    pub(crate) fn end(self) -> TestResult {
        let left = self.kill()?;
        ensure_eq!(left, self.pages(), "frames that the VM has left");
        self.bury()
    }

    /// Makes it dying, or gone if it has no frames. Returns how many it has left.
    pub(crate) fn kill(&self) -> Result<u64, Outcome> {
        match destroy(self.handle()) {
            Ok(()) => Ok(0),
            Err(CallError::Refused {
                status: Status::FramesLeft,
                detail,
            }) => Ok(detail),
            Err(error) => fail!("destroy: {error:?}"),
        }
    }

    /// Takes everything from a dying VM, looks at it, and has the VM gone.
    pub(crate) fn bury(mut self) -> TestResult {
        let (plan, handle) = (self.plan, self.handle());
        let vcpus = mem::take(&mut self.vcpus);
        let (pool, given) = {
            let mut memory = self.memory.lock();
            (Frames::adopt(memory.pool.range()), mem::take(&mut memory.given))
        };
        if !given.is_empty() {
            let shared = shared(&pool, &given)?;
            if plan.is_protected() {
                calls::reclaim(handle, plan.declared())?;
            } else {
                calls::unshare_all(handle, given.keys().copied())?;
            }
            for (gfn, index) in &given {
                let frame = pool.part_of(*index);
                ensure_state(frame.frame(0), FrameState::Host, 0)?;
                if plan.is_protected() && !shared.contains(gfn) {
                    ensure_eq!(frame.find_wrong(|_| 0), None, "contents of private page {gfn:#x}");
                }
            }
            succeed!(destroy(handle));
        }
        self.handle.store(0, Ordering::Relaxed);
        for vcpu in vcpus {
            vcpu.page.end()?;
        }
        pool.free();
        Ok(())
    }

    /// Everything that the VM declared must be in the table as it is in the map.
    pub(crate) fn audit(&self) -> TestResult {
        calls::ensure_audited(self.handle(), self.plan.declared())
    }

    /// The range of one page.
    pub(crate) fn page(gfn: u64) -> GuestRange {
        GuestRange::new(gfn, 1)
    }
}

/// Ends a VM, or goes on with that for as long as an interrupt keeps it from the end.
fn destroy(vm: u64) -> Result<(), CallError> {
    loop {
        match call(VmCall::Destroy { vm }) {
            Err(error) if error.status() == Some(Status::Busy) => {}
            result => return result.map(drop),
        }
    }
}

impl Drop for Vm {
    fn drop(&mut self) {
        let vm = self.handle();
        // The case has failed, or the VM is gone: what comes of the attempt is nobody's business.
        for _ in 0..1000 {
            if vm == 0 || !matches!(destroy(vm), Err(error) if error.status() == Some(Status::FramesLeft)) {
                return;
            }
            let range = self.plan.declared();
            let _ = match self.plan.is_protected() {
                true => calls::reclaim(vm, range),
                false => calls::unshare_all(vm, self.gfns().into_iter()),
            };
        }
    }
}

/// Those of the pages that the guest shares with the host.
fn shared(pool: &Frames, given: &BTreeMap<u64, u64>) -> Result<BTreeSet<u64>, Outcome> {
    let mut shared = BTreeSet::new();
    for (gfn, index) in given {
        if succeed!(HYPERVISOR.frame_state(pool.frame(*index))).state == FrameState::GuestSharedHost {
            shared.insert(*gfn);
        }
    }
    Ok(shared)
}
