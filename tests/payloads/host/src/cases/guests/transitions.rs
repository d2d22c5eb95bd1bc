//! The hundred transitions of pKVM's own self-test, in Freehold's terms, a case for each of its states.
//!
//! pKVM has one page and two guest addresses, and asks in each state what every transition answers. Freehold tells
//! apart what pKVM calls −EPERM, has no FF-A (those calls are NOT_SUPPORTED), and tells protected VMs, which are donated
//! to, from others, which are shared with: so each guest transition is asked of a VM of its kind. Differences:
//!
//! - −EPERM is the reason: `NotOwner`, `SharedWithHyp`, `SharedWithGuest`, `NotShared`, `NotDonated`, `GfnMapped`,
//!   `GfnLost`, `GfnNotMapped`; −EBUSY is `Pinned`; −ENOENT is `GfnNotMapped`; −EHWPOISON is `GfnLost` to the host, and
//!   INVALID_PARAMETER to the guest that calls about the page.
//! - In pKVM EL2 can give a page away by itself; here it takes back what it gave only when the host asks: "hyp donates
//!   host" is the host's `ReclaimHyp`.
//! - EL2's pin is a trace ring's, one for each CPU.
//! - A second guest address of the same VM is shared as the first is: two borrowings of one VM.

use super::support::{
    INVALID, about_page, ensure_done, ensure_guest_refused, ensure_refused, force, running,
};
use crate::cases::support::{self, ensure_state, pooled_frames};
use crate::firmware;
use crate::frames::Frames;
use crate::guest::{Plan, Vm, calls};
use crate::hypercall::HYPERVISOR;
use crate::registry::{Outcome, TestResult, case, ensure_eq, succeed};
use hyp_abi::guest_call::GuestCallId;
use hyp_abi::vm::Permissions;
use hyp_abi::{FrameState, HostCall, Status, VmCall};

/// The two guest frame numbers, g0 and g1.
const G0: u64 = super::support::PAGE;
const G1: u64 = G0 + 1;

/// FF-A's calls by which pKVM shares and unshares (Arm DEN0077): FFA_MEM_SHARE, 64-bit, and FFA_MEM_RECLAIM.
const FFA_MEM_SHARE: u32 = 0xc400_0073;
const FFA_MEM_RECLAIM: u32 = 0x8400_0077;

/// The page, a protected VM that runs, and one that is not protected.
struct Scene {
    page: Frames,
    guest: Vm,
    open: Vm,
}

/// Everything that the self-test asks in one state, with what Freehold answers: `None` where the call succeeds and is
/// not made here, because the case makes it itself.
#[derive(Clone, Copy)]
struct Answers {
    donate_hyp: Option<Status>,
    reclaim_hyp: Option<Status>,
    share_hyp: Option<Status>,
    unshare_hyp: Option<Status>,
    pin: Option<Status>,
    donate_g0: Option<Status>,
    donate_g1: Option<Status>,
    share_g0: Option<Status>,
    unshare_g0: Option<Status>,
}

impl Answers {
    /// Every call that wants a page which is plainly the host's answers `status`.
    const fn not_plain(status: Status) -> Self {
        let status = Some(status);
        Self {
            donate_hyp: status,
            reclaim_hyp: Some(Status::NotDonated),
            share_hyp: status,
            unshare_hyp: status,
            pin: status,
            donate_g0: status,
            donate_g1: status,
            share_g0: status,
            unshare_g0: Some(Status::GfnNotMapped),
        }
    }
}

impl Scene {
    fn new() -> Result<Self, Outcome> {
        let page = pooled_frames(1)?;
        page.fill(0x1357);
        Ok(Self {
            page,
            guest: running(Plan::protected())?,
            open: Vm::create(Plan {
                backing: 1,
                ..Plan::open()
            })?,
        })
    }

    fn frame(&self) -> u64 {
        self.page.frame(0)
    }

    fn donate(&self, gfn: u64) -> VmCall {
        VmCall::Donate {
            vm: self.guest.handle(),
            range: self.page.range(),
            gfn,
        }
    }

    fn share(&self, gfn: u64) -> VmCall {
        VmCall::Share {
            vm: self.open.handle(),
            range: self.page.range(),
            gfn,
            permissions: Permissions::all().bits(),
        }
    }

    fn unshare(&self, gfn: u64) -> VmCall {
        VmCall::Unshare {
            vm: self.open.handle(),
            range: Vm::page(gfn),
        }
    }

    /// The state of the page, and how many of the two guest addresses lead to it.
    fn ensure(&self, state: FrameState, count: u64) -> TestResult {
        ensure_state(self.frame(), state, count)?;
        self.guest.audit()?;
        self.open.audit()
    }

    /// Every call must answer as it must here, and change nothing.
    fn ensure_answers(&self, answers: Answers) -> TestResult {
        let range = self.page.range();
        let asked = [
            (HostCall::DonateHyp(range), answers.donate_hyp),
            (HostCall::ReclaimHyp(range), answers.reclaim_hyp),
            (HostCall::ShareHyp(range), answers.share_hyp),
            (HostCall::UnshareHyp(range), answers.unshare_hyp),
            (
                HostCall::TraceAttach {
                    cpu: 0,
                    frame: self.frame(),
                },
                answers.pin,
            ),
            (HostCall::Vm(self.donate(G0)), answers.donate_g0),
            (HostCall::Vm(self.donate(G1)), answers.donate_g1),
            (HostCall::Vm(self.share(G0)), answers.share_g0),
            (HostCall::Vm(self.share(G1)), answers.share_g0),
            (HostCall::Vm(self.unshare(G0)), answers.unshare_g0),
        ];
        for (call, status) in asked {
            if let Some(status) = status {
                support::ensure_refused(call, status, &[self.frame()])?;
            }
        }
        // Sharing with the secure world and ending it.
        for function in [FFA_MEM_SHARE, FFA_MEM_RECLAIM] {
            let answer = firmware::call(function, [self.frame(), 1, 0]);
            ensure_eq!(answer, i64::from(Status::NotSupported), "FF-A call {function:#x}");
        }
        Ok(())
    }

    /// Every call that the page's owner refuses it: it is a guest's, as pKVM asks in three states. g0 is mapped.
    fn ensure_guests(&self) -> TestResult {
        self.ensure_answers(Answers {
            // The guest has the page there already; only its absence elsewhere leaves the frame to be judged.
            donate_g0: Some(Status::GfnMapped),
            ..Answers::not_plain(Status::NotOwner)
        })
    }

    fn guest_gets(&self, gfn: u64) -> TestResult {
        calls::donate(self.guest.handle(), self.page.range(), gfn)?;
        self.ensure(FrameState::NotYours, 0)
    }

    /// Gives everything up; the page is the host's.
    fn end(self) -> TestResult {
        self.ensure(FrameState::Host, 0)?;
        self.guest.end()?;
        self.open.end()?;
        self.page.free();
        Ok(())
    }

    /// The guest has the page at `gfn`; it dies of this.
    fn end_with_guest(self, gfn: u64) -> TestResult {
        let pages = self.guest.pages();
        ensure_eq!(self.guest.kill()?, pages + 1, "frames left");
        calls::reclaim(self.guest.handle(), Vm::page(gfn))?;
        self.ensure(FrameState::Host, 0)?;
        self.guest.bury()?;
        self.open.end()?;
        self.page.free();
        Ok(())
    }
}

case!(row_01_of_a_page_that_is_el2s, {
    let scene = Scene::new()?;
    succeed!(HYPERVISOR.donate(scene.page.range()));
    scene.ensure(FrameState::NotYours, 0)?;
    scene.ensure_answers(Answers {
        reclaim_hyp: None,
        ..Answers::not_plain(Status::NotOwner)
    })?;
    succeed!(HYPERVISOR.reclaim(scene.page.range()));
    scene.end()
});

case!(row_02_of_a_page_that_el2_gave_back, {
    let scene = Scene::new()?;
    succeed!(HYPERVISOR.donate(scene.page.range()));
    succeed!(HYPERVISOR.reclaim(scene.page.range()));
    scene.ensure(FrameState::Host, 0)?;
    scene.ensure_answers(Answers {
        donate_hyp: None,
        reclaim_hyp: Some(Status::NotDonated),
        share_hyp: None,
        unshare_hyp: Some(Status::NotShared),
        pin: Some(Status::NotShared),
        donate_g0: None,
        donate_g1: None,
        share_g0: None,
        unshare_g0: Some(Status::GfnNotMapped),
    })?;
    scene.end()
});

/// What every call answers while the page is shared with EL2.
const SHARED_WITH_HYP: Answers = Answers {
    unshare_hyp: None,
    pin: None,
    ..Answers::not_plain(Status::SharedWithHyp)
};

case!(row_03_of_a_page_shared_with_el2, {
    let scene = Scene::new()?;
    succeed!(HYPERVISOR.share(scene.page.range()));
    scene.ensure(FrameState::HostSharedHyp, 0)?;
    scene.ensure_answers(SHARED_WITH_HYP)?;
    succeed!(HYPERVISOR.unshare(scene.page.range()));
    scene.end()
});

case!(row_04_of_a_page_that_el2_pins, {
    let scene = Scene::new()?;
    let cpus = crate::cpu::count().min(2) as u64;
    succeed!(HYPERVISOR.share(scene.page.range()));
    for cpu in 0..cpus {
        succeed!(HYPERVISOR.trace_attach(cpu, scene.frame()));
        scene.ensure(FrameState::HostSharedHyp, cpu + 1)?;
    }
    for cpu in (0..cpus).rev() {
        scene.ensure_answers(Answers {
            unshare_hyp: Some(Status::Pinned),
            pin: Some(Status::WrongTraceState),
            ..SHARED_WITH_HYP
        })?;
        succeed!(HYPERVISOR.trace_detach(cpu));
        scene.ensure(FrameState::HostSharedHyp, cpu)?;
    }
    succeed!(HYPERVISOR.unshare(scene.page.range()));
    scene.end()
});

case!(row_05_of_a_page_no_longer_shared_with_el2, {
    let scene = Scene::new()?;
    succeed!(HYPERVISOR.share(scene.page.range()));
    succeed!(HYPERVISOR.unshare(scene.page.range()));
    scene.ensure(FrameState::Host, 0)?;
    support::ensure_refused(
        HostCall::UnshareHyp(scene.page.range()),
        Status::NotShared,
        &[scene.frame()],
    )?;
    scene.end()
});

case!(row_06_and_07_of_a_page_for_the_secure_world, {
    // There is no FF-A: the calls answer so in every state, and change nothing.
    let scene = Scene::new()?;
    let before = support::Seen::look(&[scene.frame()])?;
    for function in [FFA_MEM_SHARE, FFA_MEM_RECLAIM, FFA_MEM_SHARE] {
        let answer = firmware::call(function, [scene.frame(), 1, 0]);
        ensure_eq!(answer, i64::from(Status::NotSupported), "FF-A call {function:#x}");
    }
    before.ensure_unchanged(&[scene.frame()])?;
    scene.end()
});

/// What every call answers while a guest borrows the page at g0.
const BORROWED: Answers = Answers {
    unshare_g0: None,
    share_g0: None,
    ..Answers::not_plain(Status::SharedWithGuest)
};

case!(row_08_of_a_page_shared_with_a_guest, {
    let scene = Scene::new()?;
    succeed!(calls::call(scene.share(G0)));
    scene.ensure(FrameState::HostSharedGuest, 1)?;
    scene.ensure_answers(BORROWED)?;
    ensure_refused(scene.share(G0), Status::GfnMapped, &[scene.frame()])?;
    succeed!(calls::call(scene.unshare(G0)));
    scene.end()
});

case!(row_09_of_a_page_shared_twice, {
    let scene = Scene::new()?;
    succeed!(calls::call(scene.share(G0)));
    succeed!(calls::call(scene.share(G1)));
    scene.ensure(FrameState::HostSharedGuest, 2)?;
    scene.ensure_answers(BORROWED)?;
    succeed!(calls::call(scene.unshare(G0)));
    succeed!(calls::call(scene.unshare(G1)));
    scene.end()
});

case!(row_10_of_a_page_that_one_of_two_gave_back, {
    let scene = Scene::new()?;
    succeed!(calls::call(scene.share(G0)));
    succeed!(calls::call(scene.share(G1)));
    succeed!(calls::call(scene.unshare(G0)));
    scene.ensure(FrameState::HostSharedGuest, 1)?;
    ensure_refused(scene.unshare(G0), Status::GfnNotMapped, &[scene.frame()])?;
    scene.ensure_answers(BORROWED)?;
    succeed!(calls::call(scene.unshare(G1)));
    scene.end()
});

case!(row_11_of_a_page_that_both_gave_back, {
    let scene = Scene::new()?;
    succeed!(calls::call(scene.share(G0)));
    succeed!(calls::call(scene.share(G1)));
    succeed!(calls::call(scene.unshare(G1)));
    succeed!(calls::call(scene.unshare(G0)));
    scene.ensure(FrameState::Host, 0)?;
    ensure_refused(scene.unshare(G1), Status::GfnNotMapped, &[scene.frame()])?;
    ensure_eq!(
        scene.page.find_wrong(|address| 0x1357 ^ address),
        None,
        "contents"
    );
    scene.end()
});

case!(row_12_of_a_page_donated_to_a_guest, {
    let scene = Scene::new()?;
    scene.guest_gets(G0)?;
    scene.ensure_guests()?;
    scene.end_with_guest(G0)
});

case!(row_13_of_a_page_that_the_guest_lends, {
    let scene = Scene::new()?;
    scene.guest_gets(G0)?;
    ensure_done(&scene.guest, GuestCallId::MemShare, G0)?;
    scene.ensure(FrameState::GuestSharedHost, 0)?;
    ensure_guest_refused(&scene.guest, GuestCallId::MemShare, G0)?;
    scene.ensure_guests()?;
    scene.end_with_guest(G0)
});

case!(row_14_of_a_page_that_the_guest_took_back, {
    let scene = Scene::new()?;
    scene.guest_gets(G0)?;
    ensure_done(&scene.guest, GuestCallId::MemShare, G0)?;
    ensure_done(&scene.guest, GuestCallId::MemUnshare, G0)?;
    scene.ensure(FrameState::NotYours, 0)?;
    ensure_guest_refused(&scene.guest, GuestCallId::MemUnshare, G0)?;
    scene.ensure_guests()?;
    scene.end_with_guest(G0)
});

case!(row_15_of_a_page_taken_by_force, {
    let scene = Scene::new()?;
    scene.guest_gets(G0)?;
    let forced = VmCall::ForceReclaim { frame: scene.frame() };
    succeed!(calls::call(forced));
    scene.ensure(FrameState::Host, 0)?;
    for call in [GuestCallId::MemShare, GuestCallId::MemUnshare] {
        ensure_eq!(about_page(&scene.guest, call, G0)?, INVALID, "{call:?}");
    }
    ensure_refused(scene.donate(G0), Status::GfnLost, &[scene.frame()])?;
    ensure_refused(forced, Status::NotOwner, &[scene.frame()])?;
    scene.end()
});

case!(row_16_of_a_page_that_comes_back_elsewhere, {
    let scene = Scene::new()?;
    scene.guest_gets(G0)?;
    succeed!(calls::call(VmCall::ForceReclaim { frame: scene.frame() }));
    scene.guest_gets(G1)?;
    scene.ensure_answers(Answers {
        donate_g0: Some(Status::GfnLost),
        donate_g1: Some(Status::GfnMapped),
        ..Answers::not_plain(Status::NotOwner)
    })?;
    scene.end_with_guest(G1)
});

case!(row_17_of_a_lost_page_of_a_guest_that_gave_the_other_back, {
    // pKVM reclaims the other page while the guest lives; here the guest gives it up.
    let scene = Scene::new()?;
    scene.guest_gets(G0)?;
    succeed!(calls::call(VmCall::ForceReclaim { frame: scene.frame() }));
    scene.guest_gets(G1)?;
    let order = crate::guest::drive::hvc(
        GuestCallId::MemRelinquish.into(),
        [G1 * hyp_abi::FRAME_SIZE, 0, 0],
    );
    let exit = scene.guest.begin_order(0, order)?;
    ensure_eq!(
        exit,
        crate::guest::exit::Exit::Relinquished { gfn: G1, frames: 1 },
        "exit"
    );
    scene.ensure(FrameState::Relinquished, 0)?;
    calls::take_back(scene.page.range())?;
    scene.ensure(FrameState::Host, 0)?;
    ensure_refused(scene.donate(G0), Status::GfnLost, &[scene.frame()])?;
    scene.end()
});

case!(row_18_of_a_page_that_is_el2s_again, {
    let scene = Scene::new()?;
    scene.guest_gets(G0)?;
    let pages = scene.guest.pages();
    ensure_eq!(scene.guest.kill()?, pages + 1, "frames left");
    calls::reclaim(scene.guest.handle(), Vm::page(G0))?;
    succeed!(HYPERVISOR.donate(scene.page.range()));
    scene.ensure(FrameState::NotYours, 0)?;
    succeed!(HYPERVISOR.reclaim(scene.page.range()));
    let Scene { page, guest, open } = scene;
    guest.bury()?;
    open.end()?;
    page.free();
    Ok(())
});

case!(a_page_lost_by_a_living_guest_stays_lost_to_it, {
    let vm = super::support::running_with(1)?;
    force(&vm, G0)?;
    let exit = vm.begin_order(
        0,
        crate::guest::drive::access(payload_protocol::Access::Load8, G0 * hyp_abi::FRAME_SIZE, 0),
    )?;
    ensure_eq!(exit, crate::guest::exit::Exit::Lost(G0), "exit");
    for _ in 0..3 {
        let exit = vm.exit(0, crate::guest::vcpu::Answer::None)?;
        ensure_eq!(exit, crate::guest::exit::Exit::Lost(G0), "exit once more");
    }
    vm.end()
});
