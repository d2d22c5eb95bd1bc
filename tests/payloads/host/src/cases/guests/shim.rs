//! The shim's own VMs, vCPUs and files on the machine: what its tests say of it in one process, with a guest that runs.

use super::support::{ONE_DONE, PAGE};
use crate::cases::support::{ensure_all_refused, ensure_state, fill_pool, frames_aligned};
use crate::frames::Frames;
use crate::guest::drive::{self, hvc, take_interrupts};
use crate::guest::image;
use crate::guest::kernel::PayloadKernel;
use crate::hypercall::HYPERVISOR;
use crate::registry::{Outcome, TestResult, case, ensure, ensure_eq, fail, succeed};
use alloc::sync::Arc;
use host_shim::account::{Counted, Purpose};
use host_shim::memfd::{Attribute, LivePunch};
use host_shim::provider::{Buddy, Source};
use host_shim::vcpu::{Entry, PinnedPolicy};
use host_shim::vm::{SlotConfig, VmConfig};
use host_shim::{Error, Exit, GuestMemfd, Host, MemfdConfig, Pfn, REGION_ORDER, Vcpu, Vm};
use hyp_abi::guest_call::GuestCallId;
use hyp_abi::vm::VmFlags;
use hyp_abi::{FRAME_SIZE, FrameState, GuestRange, REGION_SIZE, Status};
use payload_protocol::{Access, Order, Report, SERVICE, Start, layout, pattern};

/// Bytes of the guest's memory, all of it one file.
const SIZE: u64 = 16 << 20;

/// Frames that the host's source has: the file's, in regions, and as much again for EL2 and run pages.
const FRAMES: u64 = 2 * SIZE / FRAME_SIZE;

/// A pattern that no scrubbed page has.
const SECRET: u64 = 0x5ec2_e75e_c2e7_5ec2;

/// A guest that runs from a file.
struct Scene {
    host: Arc<Host<PayloadKernel>>,
    buddy: Arc<Buddy>,
    account: Arc<Counted>,
    vm: Vm<PayloadKernel>,
    file: GuestMemfd<PayloadKernel>,
    vcpu: Vcpu<PayloadKernel>,
}

impl Scene {
    /// A guest that is up. Its frames stay the source's: some are EL2's for good.
    fn new(config: MemfdConfig) -> Result<Self, Outcome> {
        fill_pool()?;
        let frames = frames_aligned(FRAMES, REGION_SIZE)?;
        let buddy = Arc::new(Buddy::new());
        let Some(first) = Pfn::containing(frames.frame(0)) else {
            fail!("a frame has no number")
        };
        buddy.add(first, FRAMES);
        let account = Arc::new(Counted::new(FRAMES));
        let source = Source::new(buddy.clone(), account.clone());
        let host = Host::new(PayloadKernel, source.clone());
        let memory = GuestRange::new(layout::MEMORY / FRAME_SIZE, SIZE / FRAME_SIZE);
        let vm = succeed!(Vm::create(
            &host,
            &VmConfig {
                flags: VmFlags::PROTECTED,
                vcpus: 1,
                ipa_bits: 32,
                memory: alloc::vec![memory],
            }
        ));
        let file = succeed!(GuestMemfd::create(&vm, config, source));
        succeed!(vm.add_slot(SlotConfig {
            slot: 0,
            flags: 0,
            ipa: layout::MEMORY,
            size: SIZE,
            file: &file,
            offset: 0,
        }));
        let vcpu = succeed!(vm.create_vcpu(0));
        succeed!(vm.load(layout::IMAGE, image::bytes()?));
        let start = Start::default().to_register();
        succeed!(vm.launch(layout::IMAGE, start));
        let mut scene = Self {
            host,
            buddy,
            account,
            vm,
            file,
            vcpu,
        };
        match scene.run(Entry::new())? {
            Report::Ready { start: got, .. } if got == start => Ok(scene),
            other => fail!("the guest began with {other:x?}"),
        }
    }

    /// Runs until an exit that is not about memory.
    fn exit(&mut self, entry: Entry, pinned: PinnedPolicy) -> Result<Exit, Outcome> {
        let mut exit = succeed!(self.vcpu.run_on(&entry, pinned));
        while exit == Exit::Interrupt {
            take_interrupts();
            exit = succeed!(self.vcpu.run_on(&Entry::new(), pinned));
        }
        Ok(exit)
    }

    fn run(&mut self, entry: Entry) -> Result<Report, Outcome> {
        match self.exit(entry, PinnedPolicy::Refuse)? {
            Exit::HostService { function, arguments } if function == u64::from(SERVICE) => {
                match Report::decode(arguments) {
                    Some(report) => Ok(report),
                    None => fail!("the guest reports {arguments:x?}"),
                }
            }
            other => fail!("the guest did not report, but left by {other:x?}"),
        }
    }

    fn order(&mut self, order: Order) -> Result<[u64; 5], Outcome> {
        match self.run(Entry::new().served(order.encode()))? {
            Report::Done(values) => Ok(values),
            other => fail!("{order:x?}: {other:x?}"),
        }
    }

    fn call(&mut self, call: GuestCallId) -> Result<[u64; 4], Outcome> {
        let [x0, x1, x2, x3, _] = self.order(hvc(call.into(), [layout::FREE, 0, 0]))?;
        Ok([x0, x1, x2, x3])
    }

    fn fill(&mut self, value: u64) -> TestResult {
        let order = Order::Fill {
            address: layout::FREE,
            frames: 1,
            value,
        };
        self.order(order).map(|_| ())
    }

    fn ensure_filled(&mut self, value: Option<u64>) -> TestResult {
        let order = Order::Verify {
            address: layout::FREE,
            frames: 1,
            value,
        };
        let [wrong, ..] = self.order(order)?;
        ensure_eq!(wrong, 0, "words that differ");
        Ok(())
    }

    /// The offset of the page at [`PAGE`] in the file.
    const fn offset() -> u64 {
        layout::FREE - layout::MEMORY
    }

    fn ensure_attribute(&self, attribute: Attribute) -> TestResult {
        ensure_eq!(
            succeed!(self.file.attribute(Self::offset())),
            attribute,
            "attribute"
        );
        Ok(())
    }

    /// The frame behind the page at [`PAGE`].
    fn frame(&self) -> Result<u64, Outcome> {
        Ok(succeed!(self.file.get_pfn(Self::offset())).pfn().address())
    }

    /// Ends the guest: every frame of the file must be free again, and what was private zero.
    fn end(self, zeroed: &[u64]) -> TestResult {
        let Self {
            host,
            buddy,
            account,
            vm,
            file,
            vcpu,
        } = self;
        succeed!(vm.destroy());
        ensure!(vm.is_gone(), "the VM is still there");
        for frame in zeroed {
            ensure_state(*frame, FrameState::Host, 0)?;
            let view = Frames::adopt(hyp_abi::FrameRange::new(*frame, 1));
            ensure_eq!(view.find_wrong(|_| 0), None, "contents of frame {frame:#x}");
        }
        drop(vcpu);
        drop(file);
        drop(vm);
        for purpose in [Purpose::Guest, Purpose::RunPage] {
            ensure_eq!(account.charged(purpose), 0, "frames charged for {purpose:?}");
        }
        ensure_eq!(
            buddy.free_frames() + account.charged(Purpose::Hypervisor),
            FRAMES,
            "frames that are free, or EL2's"
        );
        ensure_eq!(
            account.charged(Purpose::Hypervisor),
            host.given_frames(),
            "frames that EL2 was given"
        );
        Ok(())
    }
}

case!(a_guest_runs_from_its_file, {
    let mut scene = Scene::new(MemfdConfig::new(SIZE))?;
    scene.ensure_attribute(Attribute::Absent)?;
    scene.ensure_filled(None)?;
    scene.fill(SECRET)?;
    scene.ensure_attribute(Attribute::Private)?;
    let frame = scene.frame()?;
    ensure_all_refused(frame)?;
    scene.ensure_filled(Some(SECRET))?;
    let audit = succeed!(scene.vm.audit(GuestRange::new(PAGE, 1)));
    ensure_eq!(audit.disagreements, 0, "pages that disagree");
    scene.end(&[frame])
});

case!(a_guest_runs_from_a_file_of_huge_pages, {
    let mut scene = Scene::new(MemfdConfig {
        order: REGION_ORDER,
        ..MemfdConfig::new(SIZE)
    })?;
    scene.fill(SECRET)?;
    let frame = scene.frame()?;
    // The whole region came with the one page.
    let last = FRAME_SIZE * 511;
    let region = frame / REGION_SIZE * REGION_SIZE;
    ensure_all_refused(region)?;
    ensure_all_refused(region + last)?;
    ensure_eq!(scene.call(GuestCallId::MemShare)?, ONE_DONE, "MEM_SHARE");
    scene.ensure_attribute(Attribute::Shared)?;
    ensure_all_refused(region + last)?;
    ensure_eq!(scene.call(GuestCallId::MemUnshare)?, ONE_DONE, "MEM_UNSHARE");
    scene.ensure_filled(Some(SECRET))?;
    scene.end(&[frame, region, region + last])
});

case!(a_lent_page_is_pinned_read_written_and_given_back, {
    let mut scene = Scene::new(MemfdConfig::new(SIZE))?;
    scene.fill(SECRET)?;
    let refused = scene.file.pin(Scene::offset(), FRAME_SIZE).err();
    ensure_eq!(
        refused,
        Some(Error::NotShared {
            offset: Scene::offset()
        }),
        "a pin on a private page"
    );
    ensure_eq!(scene.call(GuestCallId::MemShare)?, ONE_DONE, "MEM_SHARE");
    scene.ensure_attribute(Attribute::Shared)?;
    let pin = succeed!(scene.file.pin(Scene::offset(), FRAME_SIZE));
    ensure_state(scene.frame()?, FrameState::GuestSharedHost, 1)?;
    let mut word = [0; 8];
    succeed!(pin.read(0x40, &mut word));
    ensure_eq!(
        u64::from_le_bytes(word),
        pattern(SECRET, 0x40),
        "what the guest wrote"
    );
    succeed!(pin.write(0x40, &7_u64.to_le_bytes()));
    // While it is pinned the guest is refused; unpinned in time, it is not.
    ensure_eq!(
        scene.call(GuestCallId::MemUnshare)?,
        super::support::INVALID,
        "MEM_UNSHARE of a pinned page"
    );
    let again = hvc(GuestCallId::MemUnshare.into(), [layout::FREE, 0, 0]);
    let exit = scene.exit(Entry::new().served(again.encode()), PinnedPolicy::Return)?;
    ensure_eq!(exit, Exit::Pinned { gfn: PAGE }, "exit");
    drop(pin);
    let report = scene.run(Entry::new().retry())?;
    ensure_eq!(report, Report::Done([0, 1, 0, 0, 0]), "MEM_UNSHARE");
    scene.ensure_attribute(Attribute::Private)?;
    let [value, ..] = scene.order(drive::access(Access::Load8, layout::FREE + 0x40, 0))?;
    ensure_eq!(value, 7, "what the host wrote");
    let frame = scene.frame()?;
    scene.end(&[frame])
});

case!(a_page_that_is_given_up_is_freed_and_comes_back_zeroed, {
    let mut scene = Scene::new(MemfdConfig::new(SIZE))?;
    scene.fill(SECRET)?;
    let charged = scene.account.charged(Purpose::Guest);
    ensure_eq!(
        scene.call(GuestCallId::MemRelinquish)?,
        ONE_DONE,
        "MEM_RELINQUISH"
    );
    scene.ensure_attribute(Attribute::Absent)?;
    ensure_eq!(
        scene.account.charged(Purpose::Guest),
        charged - 1,
        "frames charged for the guest"
    );
    scene.ensure_filled(None)?;
    scene.ensure_attribute(Attribute::Private)?;
    scene.end(&[])
});

case!(a_page_of_a_living_guest_is_not_punched, {
    let mut scene = Scene::new(MemfdConfig::new(SIZE))?;
    scene.fill(SECRET)?;
    let refused = scene.file.punch(Scene::offset(), FRAME_SIZE).err();
    ensure_eq!(
        refused,
        Some(Error::InUse {
            offset: Scene::offset()
        }),
        "a punch"
    );
    scene.ensure_filled(Some(SECRET))?;
    scene.end(&[])
});

case!(a_page_that_is_punched_by_force_is_lost, {
    let mut scene = Scene::new(MemfdConfig {
        live_punch: LivePunch::Force,
        ..MemfdConfig::new(SIZE)
    })?;
    scene.fill(SECRET)?;
    let frame = scene.frame()?;
    succeed!(scene.file.punch(Scene::offset(), FRAME_SIZE));
    scene.ensure_attribute(Attribute::Absent)?;
    ensure_state(frame, FrameState::Host, 0)?;
    let order = drive::access(Access::Load8, layout::FREE, 0);
    let exit = scene.exit(Entry::new().served(order.encode()), PinnedPolicy::Refuse)?;
    ensure_eq!(exit, Exit::Lost { gfn: PAGE }, "exit");
    scene.end(&[frame])
});

case!(a_guest_that_is_dropped_is_gone, {
    let mut scene = Scene::new(MemfdConfig::new(SIZE))?;
    scene.fill(SECRET)?;
    let (frame, handle) = (scene.frame()?, scene.vm.handle());
    let Scene { vm, file, vcpu, .. } = scene;
    drop(vm);
    let gone = HYPERVISOR.vm_statistic(handle, hyp_abi::vm::VmStatistic::Vcpus);
    ensure_eq!(
        gone.err().and_then(|error| error.status()),
        Some(Status::NoSuchVm),
        "a figure of a VM that was dropped"
    );
    ensure_state(frame, FrameState::Host, 0)?;
    drop(vcpu);
    drop(file);
    Ok(())
});
