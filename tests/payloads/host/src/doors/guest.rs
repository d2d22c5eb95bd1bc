//! A guest that does what it is told, and nothing else: so whoever plays it again knows everything that brings it to EL2.
//!
//! It has one page of code, uses no memory of its own, and leaves its MMU off. It calls the host's service, and the
//! answer is its next order; with the call after it, it reports what came of it.

use super::acts::{self, Deed, done, ranged, refused};
use super::host::regions;
use crate::frames::Frames;
use crate::guest::exit::Exit;
use crate::guest::run_page::RunPage;
use crate::guest::vcpu::Answer;
use crate::guest::vgic;
use crate::registry::{Outcome, TestResult, ensure_eq, fail};
use crate::{sysreg, timer};
use alloc::vec::Vec;
use core::sync::atomic::{AtomicU64, Ordering};
use hyp_abi::guest_call::GuestCallId;
use hyp_abi::vm::{Permissions, VmFlags};
use hyp_abi::{FRAME_SIZE, FrameRange, GuestRange, HostCall, Status, VmCall};
use payload_protocol::SERVICE;

/// The guest frame number of its code, with which its memory begins.
pub(super) const CODE: u64 = 0x200;

/// Where blocks can be, two in a row.
pub(super) const BLOCKS: [u64; 2] = [0x400, 0x600];

/// Frames of its memory.
const MEMORY: u64 = 0x800;

/// Pages for its reserve.
const RESERVE: u64 = 16;

/// Orders. Every other number is the function of a call to EL2.
const LOAD: u64 = 0;
const STORE: u64 = 1;
const USE_VECTORS: u64 = 2;

/// PSCI CPU_ON (Arm DEN0022).
const CPU_ON: u64 = 0xc400_0003;

/// Its code. An order is in x0 to x3; a report is in x1 to x4.
const PROGRAM: [u32; 23] = [
    0xd2a0_0609, //     mov   x9, #(3 << 20)            CPACR_EL1.FPEN: nothing of vectors traps at EL1
    0xd518_1049, //     msr   cpacr_el1, x9
    0xd503_3fdf, //     isb
    0x5288_d000, // 1:  mov   w0, #0x4680               the service
    0x72b8_c000, //     movk  w0, #0xc600, lsl #16
    0xd400_0002, //     hvc   #0
    0xf100_041f, //     cmp   x0, #1
    0x5400_0143, //     b.lo  2f
    0x5400_0160, //     b.eq  3f
    0xf100_081f, //     cmp   x0, #2
    0x5400_0160, //     b.eq  4f
    0xd400_0002, //     hvc   #0
    0xaa03_03e4, //     mov   x4, x3
    0xaa02_03e3, //     mov   x3, x2
    0xaa01_03e2, //     mov   x2, x1
    0xaa00_03e1, //     mov   x1, x0
    0x17ff_fff3, //     b     1b
    0xf940_0021, // 2:  ldr   x1, [x1]
    0x17ff_fff1, //     b     1b
    0xf900_0022, // 3:  str   x2, [x1]
    0x17ff_ffef, //     b     1b
    0x9e67_0020, // 4:  fmov  d0, x1
    0x17ff_ffed, //     b     1b
];

/// What vCPU 0 finds in x0, which it does not look at.
const ARGUMENT: u64 = 0x5eed;

/// A VM whose vCPUs wait for orders.
#[derive(Debug)]
pub(super) struct Guest {
    vm: AtomicU64,
    flags: VmFlags,
    vcpus: Vec<Vcpu>,
    /// The regions that the run pages and the code are in.
    regions: [Frames; 2],
}

/// A vCPU.
#[derive(Debug)]
struct Vcpu {
    page: RunPage,
    /// Its x4: what it last reported there. Its x5 and x6 stay 0.
    x4: AtomicU64,
}

/// Pages of a guest.
pub(super) const fn pages(gfn: u64, frames: u64) -> GuestRange {
    GuestRange::new(gfn, frames)
}

impl Guest {
    /// A VM with so many vCPUs, of which the first waits for its first order.
    pub(super) fn new(flags: VmFlags, vcpus: u64) -> Result<Self, Outcome> {
        let create = VmCall::Create {
            flags: flags.bits(),
            vcpus,
            ipa_bits: 32,
        };
        let [vm, ..] = done("create_vm", HostCall::Vm(create))?;
        let mut guest = Self {
            vm: AtomicU64::new(vm),
            flags,
            vcpus: Vec::new(),
            regions: [regions(1)?, regions(1)?],
        };
        let range = pages(CODE, MEMORY);
        guest.done("declare_memory", VmCall::AddMemory { vm, range })?;
        guest.done("top_up_vm", VmCall::TopUp { vm, pages: RESERVE })?;
        for index in 0..vcpus {
            guest.add_vcpu(index)?;
        }
        guest.load_code()?;
        let launch = VmCall::Launch {
            vm,
            entry: CODE * FRAME_SIZE,
            argument: ARGUMENT,
        };
        guest.done("launch", launch)?;
        guest.begin(0)?;
        Ok(guest)
    }

    fn add_vcpu(&mut self, index: u64) -> TestResult {
        let page = self.regions[0].part_of(index);
        ranged("share_run_page", HostCall::ShareHyp(page.range()), 1)?;
        let create = VmCall::CreateVcpu {
            vm: self.handle(),
            index,
            run_page: page.frame(0),
        };
        self.done("create_vcpu", create)?;
        self.vcpus.push(Vcpu {
            page: RunPage::of(page),
            x4: AtomicU64::new(0),
        });
        Ok(())
    }

    /// Gives it its code, and two pages more.
    fn load_code(&self) -> TestResult {
        let code = &self.regions[1];
        code.write_code(0, &PROGRAM);
        let range = FrameRange::new(code.frame(0), 3);
        if self.is_protected() {
            self.donate("donate_before_launch", range, CODE)
        } else {
            self.share("share_code_with_guest", range, CODE)
        }
    }

    fn is_protected(&self) -> bool {
        self.flags.contains(VmFlags::PROTECTED)
    }

    /// Its handle, as a register has it.
    pub(super) fn handle(&self) -> u64 {
        self.vm.load(Ordering::Relaxed)
    }

    /// A call about VMs that must succeed.
    pub(super) fn done(&self, name: &str, call: VmCall) -> Result<[u64; 3], Outcome> {
        done(name, HostCall::Vm(call))
    }

    /// One that must do `frames` frames at once.
    pub(super) fn ranged(&self, name: &str, call: VmCall, frames: u64) -> TestResult {
        ranged(name, HostCall::Vm(call), frames)
    }

    /// Donates frames.
    pub(super) fn donate(&self, name: &str, range: FrameRange, gfn: u64) -> TestResult {
        let vm = self.handle();
        self.ranged(name, VmCall::Donate { vm, range, gfn }, range.frames)
    }

    /// Shares frames, with which the guest may do everything.
    pub(super) fn share(&self, name: &str, range: FrameRange, gfn: u64) -> TestResult {
        let share = VmCall::Share {
            vm: self.handle(),
            range,
            gfn,
            permissions: Permissions::all().bits(),
        };
        self.ranged(name, share, range.frames)
    }

    /// Gives it another handle.
    pub(super) fn rename(&self) -> TestResult {
        let [vm, ..] = self.done("rename_vm", VmCall::Rename { vm: self.handle() })?;
        self.vm.store(vm, Ordering::Relaxed);
        Ok(())
    }

    /// Runs a vCPU. See [`acts::run`].
    pub(super) fn run(
        &self,
        name: &str,
        index: u64,
        answer: Answer,
        deeds: &[Deed],
    ) -> Result<Exit, Outcome> {
        let vcpu = &self.vcpus[index as usize];
        let exit = acts::run(name, (self.handle(), index), &vcpu.page, answer, deeds)?;
        if let Exit::Service { arguments, .. } = exit {
            vcpu.x4.store(arguments[3], Ordering::Relaxed);
        }
        Ok(exit)
    }

    /// Runs a vCPU that must then report.
    pub(super) fn reports(
        &self,
        name: &str,
        index: u64,
        answer: Answer,
        deeds: &[Deed],
    ) -> Result<[u64; 4], Outcome> {
        match self.run(name, index, answer, deeds)? {
            Exit::Service {
                function,
                arguments: [x1, x2, x3, x4, ..],
            } if function == u64::from(SERVICE) => Ok([x1, x2, x3, x4]),
            other => fail!("{name}: {other:x?}"),
        }
    }

    /// Runs a vCPU for the first time.
    pub(super) fn begin(&self, index: u64) -> TestResult {
        self.reports("run_for_the_first_time", index, Answer::None, &[])
            .map(|_| ())
    }

    /// Runs a vCPU with nothing to do.
    pub(super) fn turn(&self, name: &str, index: u64) -> TestResult {
        let version = u64::from(u32::from(GuestCallId::SmcccVersion));
        self.call(name, index, [version, 0, 0, 0]).map(|_| ())
    }

    /// Has vCPU 0 load from a page.
    pub(super) fn load(&self, name: &str, gfn: u64, deeds: &[Deed]) -> Result<Exit, Outcome> {
        self.run(name, 0, Answer::Done([LOAD, gfn * FRAME_SIZE, 0, 0]), deeds)
    }

    /// Has vCPU 0 store to a page.
    pub(super) fn store(&self, name: &str, gfn: u64, deeds: &[Deed]) -> Result<Exit, Outcome> {
        self.run(name, 0, Answer::Done([STORE, gfn * FRAME_SIZE, 7, 0]), deeds)
    }

    /// Runs a vCPU with nothing to do while an interrupt waits for this CPU, and then again.
    pub(super) fn interrupt(&self, name: &str, index: u64) -> TestResult {
        let version = [u64::from(u32::from(GuestCallId::SmcccVersion)), 0, 0, 0];
        timer::interrupt_every(1);
        while sysreg::pending_interrupts() == 0 {
            sysreg::relax();
        }
        let exit = self.run(name, index, Answer::Done(version), &[Deed::Interrupt]);
        timer::stop();
        ensure_eq!(exit?, Exit::Interrupt, "exit");
        let deed = self.deed(index, version);
        self.reports("go_on_after_an_exit", index, Answer::None, &[deed])
            .map(|_| ())
    }

    /// Has a vCPU use the vector registers.
    pub(super) fn use_vectors(&self, name: &str, index: u64) -> TestResult {
        self.reports(
            name,
            index,
            Answer::Done([USE_VECTORS, 1, 0, 0]),
            &[Deed::Vectors],
        )
        .map(|_| ())
    }

    /// A call of a vCPU's that EL2 answers.
    pub(super) fn call(&self, name: &str, index: u64, order: [u64; 4]) -> Result<[u64; 4], Outcome> {
        let deed = self.deed(index, order);
        self.reports(name, index, Answer::Done(order), &[deed])
    }

    /// A call of a vCPU's about pages, which EL2 must do.
    pub(super) fn about(&self, name: &str, call: GuestCallId, gfn: u64, frames: u64) -> TestResult {
        let got = self.call(name, 0, about(call, gfn, frames))?;
        ensure_eq!(got, [0, frames, 0, 0], "{name}");
        Ok(())
    }

    /// A call of vCPU 0 about pages that makes it exit.
    pub(super) fn exits(
        &self,
        name: &str,
        call: GuestCallId,
        gfn: u64,
        frames: u64,
    ) -> Result<Exit, Outcome> {
        let order = about(call, gfn, frames);
        self.run(name, 0, Answer::Done(order), &[self.deed(0, order)])
    }

    /// vCPU 0 makes that call again, which EL2 must do now.
    pub(super) fn again(&self, name: &str, call: GuestCallId, gfn: u64, frames: u64) -> TestResult {
        let deed = self.deed(0, about(call, gfn, frames));
        let got = self.reports(name, 0, Answer::Retry, &[deed])?;
        ensure_eq!(got, [0, frames, 0, 0], "{name}");
        Ok(())
    }

    fn deed(&self, index: u64, [x0, x1, x2, x3]: [u64; 4]) -> Deed {
        let x4 = self.vcpus[index as usize].x4.load(Ordering::Relaxed);
        Deed::Call([x0, x1, x2, x3, x4, 0, 0])
    }

    /// vCPU 0 turns another on, which begins.
    pub(super) fn turn_on(&self, index: u64) -> TestResult {
        let order = [CPU_ON, vgic::affinity(index), CODE * FRAME_SIZE, ARGUMENT];
        let exit = self.run("turn_vcpu_on", 0, Answer::Done(order), &[self.deed(0, order)])?;
        ensure_eq!(exit, Exit::CpuOn(index), "exit");
        self.reports("go_on_after_an_exit", 0, Answer::None, &[])?;
        self.begin(index)
    }

    /// Makes it dying.
    pub(super) fn kill(&self) -> TestResult {
        let destroy = VmCall::Destroy { vm: self.handle() };
        refused("make_vm_dying", HostCall::Vm(destroy), Status::FramesLeft)
    }

    /// Ends it, and gives back what it lived in. It must not have frames but for its code, and be dying if it is protected.
    pub(super) fn end(self) -> TestResult {
        let vm = self.handle();
        let range = pages(CODE, 3);
        if self.is_protected() {
            self.ranged("reclaim_pages", VmCall::Reclaim { vm, range }, 3)?;
        } else {
            self.ranged("unshare_pages_with_guest", VmCall::Unshare { vm, range }, 3)?;
        }
        self.done("destroy_vm", VmCall::Destroy { vm })?;
        for vcpu in &self.vcpus {
            ranged("unshare_run_page", HostCall::UnshareHyp(vcpu.page.range()), 1)?;
        }
        for region in self.regions {
            give_back(region)?;
        }
        Ok(())
    }
}

/// A region whose frames are all the host's own again is one block again.
pub(super) fn give_back(region: Frames) -> TestResult {
    ranged(
        "collapse",
        HostCall::Collapse(region.range()),
        region.range().frames,
    )?;
    region.free();
    Ok(())
}

/// The registers of a guest's call about pages.
pub(super) const fn about(call: GuestCallId, gfn: u64, frames: u64) -> [u64; 4] {
    [call as u32 as u64, gfn * FRAME_SIZE, frames, 0]
}
