//! What happens in each step.

use super::stage::{Counts, GIVEN_UP, LENT, LETTER, Stage};
use super::{look, refused, say};
use crate::cases::support::{audit_everything, ensure_state, frames_aligned};
use crate::guest::drive::{hvc, take_interrupts};
use crate::guest::exit::Exit;
use crate::guest::vcpu::Answer;
use crate::guest::vm::GARBAGE;
use crate::guest::{Vm, calls, registers, scan};
use crate::hypercall::HYPERVISOR;
use crate::machine::machine;
use crate::probe::{Access, Level};
use crate::registry::{TestResult, ensure, ensure_eq, fail, succeed};
use crate::{sysreg, timer};
use core::fmt::{self, Display, Formatter};
use host_shim::CallError;
use hyp_abi::guest_call::{GuestCallId, HOST_SERVICE_LAST, INVALID_PARAMETER};
use hyp_abi::host_call::Statistic;
use hyp_abi::run_page::AccessFlags;
use hyp_abi::vm::VmStatistic;
use hyp_abi::{FRAME_SIZE, FrameRange, FrameState, REGION_SIZE, Status, VmCall};
use payload_protocol::story::{SEED, Step};
use payload_protocol::{Door, Order, Report, Secret, pattern};

/// What the guest's letter says: no secret, as it is for the host to read.
const LETTER_TEXT: u64 = 0x1e77_e410_1e77_e410;

/// What the host answers, mixed with the address of each word.
const ANSWER: u64 = 0x0000_00a2_5e2e_d000;

/// What the page says that the guest lends and never takes back.
const LENT_TEXT: u64 = 0x1e27_1e27_1e27_1e27;

/// What the other guest keeps in a page.
const OTHERS_TEXT: u64 = 0x07e2_07e2_07e2_07e2;

/// Pages that EL2's pool must have, so that nothing is given to it in the middle of the story.
const POOL: u64 = 200;

/// Ticks of the host that the guest, which never exits of its own accord, is interrupted by.
const TICKS: u64 = 5;

/// What a guest's call about one page returns if it did it, and if it is refused, with what it changed of x4 to x17.
const ONE_DONE: Report = Report::Done([0, 1, 0, 0, 0]);
const REFUSED: Report = Report::Done([INVALID_PARAMETER.cast_unsigned(), 0, 0, 0, 0]);

impl Stage {
    /// Plays a step.
    pub(super) fn play(&mut self, step: Step) -> TestResult {
        match step {
            Step::HostCountsFrames => self.counts_frames(step),
            Step::HostCreatesVm => self.creates_vm(step),
            Step::HostGivesImage => self.gives_image(step),
            Step::HostLoads => refused::access(step, Level::El1, Access::Load8, self.image()),
            Step::HostStores => refused::access(step, Level::El1, Access::Store8, self.image()),
            Step::HostJumps => refused::fetch(step, Level::El1, self.image()),
            Step::ProgramLoads => refused::access(step, Level::El0, Access::Load8, self.image()),
            Step::ProgramJumps => refused::fetch(step, Level::El0, self.image()),
            Step::HostTriesEverything => self.tries_everything(step),
            Step::HostSharesIt => self.shares_it(step),
            Step::HostGivesItToAnother => self.gives_it_to_another(step),
            Step::HostLaunches => self.launches(step),
            Step::HostReadsDigest => self.reads_digest(step),
            Step::GuestReadsDigest => self.guest_reads_digest(step),
            Step::GuestMissesPage => self.misses_page(step),
            Step::HostGivesPage => self.gives_page(step),
            Step::GuestFindsZeroes => self.finds_zeroes(step),
            Step::GuestHoldsSecret => self.holds_secret(step),
            Step::HostSearches => searches(step),
            Step::GuestStillKnows => self.still_knows(step),
            Step::GuestWritesLetter => self.writes_letter(step),
            Step::GuestLends => self.lends(step, LETTER),
            Step::HostReadsLetter => self.reads_letter(step),
            Step::HostAnswers => self.answers(step),
            Step::GuestReadsAnswer => self.reads_answer(step),
            Step::HostPins => self.pins(step),
            Step::HostShowsPinned => show(step, [self.vm()?, self.other()?]),
            Step::GuestIsRefused => self.is_refused(step),
            Step::GuestIsGranted => self.is_granted(step),
            Step::HostLoadsAgain => refused::access(step, Level::El1, Access::Load8, self.letter().frame(0)),
            Step::GuestGivesUp => self.gives_up(step),
            Step::HostLoadsGivenUp => {
                refused::access(step, Level::El1, Access::Load8, self.given_up().frame(0))
            }
            Step::HostTakesBack => self.takes_back(step),
            Step::HostFindsZeroes => self.host_finds_zeroes(step),
            Step::GuestLendsForGood => self.lends_for_good(step),
            Step::GuestSpins => self.spins(step),
            Step::HostKills => self.kills(step),
            Step::HostRunsDead => self.runs_dead(step),
            Step::HostLoadsFromDead => refused::access(step, Level::El1, Access::Load8, self.image()),
            Step::HostReclaims => self.reclaims(step),
            Step::HostComparesPages => self.compares_pages(step),
            Step::HostBuries => self.buries(step),
            Step::HostShowsOther => show(step, [self.other()?]),
            Step::OtherLives => self.other_lives(step),
            Step::HostEndsOther => self.ends_other(step),
            Step::HostCountsAgain => self.counts_again(step),
            Step::HostAudits => audits(step),
            Step::HostShowsEnd => show(step, []),
        }
    }

    fn counts_frames(&mut self, step: Step) -> TestResult {
        while succeed!(HYPERVISOR.statistic(Statistic::PoolFree)) < POOL {
            let region = frames_aligned(REGION_SIZE / FRAME_SIZE, REGION_SIZE)?;
            succeed!(HYPERVISOR.pool_top_up(region.range()));
        }
        let counts = Counts::ask()?;
        say!(step, "{counts}");
        self.counts = Some(counts);
        Ok(())
    }

    fn creates_vm(&mut self, step: Step) -> TestResult {
        let vm = self.create()?;
        let slot = slot(vm);
        say!(step, "Success, VM {slot}; vCPU 0 with a run page shared with EL2");
        Ok(())
    }

    fn gives_image(&mut self, step: Step) -> TestResult {
        let vm = self.vm()?;
        vm.load_image()?;
        let given = vm.pages();
        for expected in [self.letter(), self.given_up()] {
            ensure_eq!(vm.set_aside(1)?, expected.range(), "the next frame");
        }
        say!(step, "Success, {given} frames done");
        Ok(())
    }

    fn tries_everything(&self, step: Step) -> TestResult {
        let vm = self.vm()?;
        let mut frames = alloc::vec::Vec::new();
        for gfn in vm.gfns() {
            frames.push(vm.frame(gfn)?);
        }
        let count = frames.len();
        let tries = refused::everything(&frames)?;
        say!(step, "{tries} tries on {count} frames, {tries} such faults");
        Ok(())
    }

    fn shares_it(&self, step: Step) -> TestResult {
        let range = FrameRange::new(self.image(), 1);
        match HYPERVISOR.share(range) {
            Err(error) => say_refusal(step, error.error, Status::NotOwner),
            Ok(()) => fail!("the host shared a guest's page with EL2"),
        }
    }

    fn gives_it_to_another(&mut self, step: Step) -> TestResult {
        let frame = self.image();
        let other = self.create_other()?;
        other.launch_loaded()?;
        other.ready()?;
        other.fill(LETTER, OTHERS_TEXT)?;
        let donate = VmCall::Donate {
            vm: other.handle(),
            range: FrameRange::new(frame, 1),
            gfn: LENT,
        };
        match calls::call(donate) {
            Err(error) => say_refusal(step, error, Status::NotOwner),
            Ok(_) => fail!("a guest's page was given to another"),
        }
    }

    fn launches(&self, step: Step) -> TestResult {
        let vm = self.vm()?;
        vm.launch_loaded()?;
        vm.ready()?;
        say!(step, "Success; vCPU 0 has reported that it is up, at EL1");
        Ok(())
    }

    fn reads_digest(&self, step: Step) -> TestResult {
        let vm = self.vm()?.handle();
        let half = |half| calls::call(VmCall::Digest { vm, half });
        let ([a, b, _], [c, d, _]) = (succeed!(half(0)), succeed!(half(1)));
        say!(step, "digest {}", Digest([a, b, c, d]));
        Ok(())
    }

    fn guest_reads_digest(&self, step: Step) -> TestResult {
        let half = |half| self.vm()?.hvc(GuestCallId::LaunchDigest.into(), [half, 0, 0]);
        let ([x0, a, b, _], [y0, c, d, _]) = (half(0)?, half(1)?);
        ensure_eq!((x0, y0), (0, 0), "LAUNCH_DIGEST");
        say!(step, "digest {}", Digest([a, b, c, d]));
        Ok(())
    }

    fn misses_page(&self, step: Step) -> TestResult {
        let look = Order::Verify {
            address: LETTER * FRAME_SIZE,
            frames: 2,
            value: None,
        };
        let exit = self.vm()?.begin_order(0, look)?;
        let expected = Exit::MemoryFault {
            gfn: LETTER,
            access: AccessFlags::empty(),
        };
        ensure_eq!(exit, expected, "exit");
        say!(step, "exit: MemoryFault, gfn {LETTER:#x}, a load");
        Ok(())
    }

    fn gives_page(&self, step: Step) -> TestResult {
        let vm = self.vm()?;
        for frame in [self.letter(), self.given_up()] {
            frame.fill(GARBAGE);
        }
        let range = FrameRange::new(self.letter().frame(0), 2);
        calls::donate(vm.handle(), range, LETTER)?;
        vm.note(LETTER, self.letter().frame(0));
        vm.note(GIVEN_UP, self.given_up().frame(0));
        say!(step, "Success, 2 frames done");
        Ok(())
    }

    fn finds_zeroes(&self, step: Step) -> TestResult {
        let report = self.vm()?.finish(0, Answer::Retry)?;
        ensure_eq!(report, Report::Done([0; 5]), "words that are not zero");
        say!(step, "1024 words, 0 are not zero");
        Ok(())
    }

    /// The guest leaves with its secret in every register that can hold it. The host's registers are all set before and
    /// looked at afterwards.
    fn holds_secret(&self, step: Step) -> TestResult {
        let vm = self.vm()?;
        let hold = Order::Hold {
            seed: SEED,
            door: Door::Call,
            argument: HOST_SERVICE_LAST.into(),
        };
        let mut answer = Answer::Done(hold.encode());
        let expected = Exit::Service {
            function: HOST_SERVICE_LAST.into(),
            arguments: [0; 6],
        };
        loop {
            vm.vcpus[0].enter(answer);
            answer = Answer::None;
            let after = registers::run(vm.handle(), 0, Secret::new(SEED));
            let [status, results @ ..] = after.results;
            ensure_eq!(status, Status::Success.to_register(), "status of the run");
            let seen = [after.general, after.vectors, after.system, after.leaked as u64];
            ensure_eq!(seen, [0; 4], "registers of the host that changed, and leaks");
            let exit = vm.vcpus[0].leave(results)?;
            if exit == expected {
                break;
            }
            ensure!(vm.handle_exit(0, exit)?, "the guest left by {exit:x?}");
        }
        say!(
            step,
            "exit: HostService; no word of it in the host's registers, which are as they were"
        );
        Ok(())
    }

    fn still_knows(&self, step: Step) -> TestResult {
        let report = self.vm()?.finish(0, Answer::Done([7, 8, 9, 10]))?;
        let expected = Report::Done([0, 0, 0, 7, 8]);
        ensure_eq!(report, expected, "registers that the guest lost, and x0 and x1");
        say!(
            step,
            "x7 to x30, 32 vector and 6 system registers compared, 0 lost"
        );
        Ok(())
    }

    fn writes_letter(&self, step: Step) -> TestResult {
        self.vm()?.fill(LETTER, LETTER_TEXT)?;
        say!(step, "512 words written");
        Ok(())
    }

    fn lends(&self, step: Step, gfn: u64) -> TestResult {
        let report = self.vm()?.order(0, call(GuestCallId::MemShare, gfn))?;
        ensure_eq!(report, ONE_DONE, "MEM_SHARE");
        say!(step, "MEM_SHARE returns 0, 1 page done");
        Ok(())
    }

    fn reads_letter(&self, step: Step) -> TestResult {
        let wrong = self.letter().find_wrong(|address| pattern(LETTER_TEXT, address));
        ensure_eq!(wrong, None, "contents of the letter");
        say!(step, "512 words read, all as the guest wrote them");
        Ok(())
    }

    fn answers(&self, step: Step) -> TestResult {
        self.letter().fill(ANSWER);
        say!(step, "512 words written");
        Ok(())
    }

    fn reads_answer(&self, step: Step) -> TestResult {
        let word = self.vm()?.load8(LETTER * FRAME_SIZE)?;
        ensure_eq!(word, ANSWER ^ self.letter().frame(0), "the answer's first word");
        say!(step, "value {word:#x}, as the host wrote it");
        Ok(())
    }

    fn pins(&self, step: Step) -> TestResult {
        if !self.is_spoiled {
            calls::pin(self.letter().range())?;
        }
        let info = succeed!(HYPERVISOR.frame_state(self.letter().frame(0)));
        ensure!(
            self.is_spoiled || info.count == 1,
            "there are {} pins",
            info.count
        );
        say!(step, "pins: {}", info.count);
        Ok(())
    }

    /// The guest asks for its page back, and must leave for the host first.
    fn asks_back(&self) -> TestResult {
        let unshare = call(GuestCallId::MemUnshare, LETTER);
        let exit = self.vm()?.begin_order(0, unshare)?;
        ensure_eq!(exit, Exit::Pinned(LETTER), "exit");
        Ok(())
    }

    fn is_refused(&self, step: Step) -> TestResult {
        self.asks_back()?;
        let report = self.vm()?.finish(0, Answer::Refuse)?;
        ensure_eq!(report, REFUSED, "MEM_UNSHARE");
        say!(
            step,
            "exit: Pinned, gfn {LETTER:#x}; the host refuses; MEM_UNSHARE returns −3"
        );
        Ok(())
    }

    fn is_granted(&self, step: Step) -> TestResult {
        self.asks_back()?;
        calls::unpin(self.letter().range())?;
        let report = self.vm()?.finish(0, Answer::Retry)?;
        ensure_eq!(report, ONE_DONE, "MEM_UNSHARE");
        say!(
            step,
            "exit: Pinned, gfn {LETTER:#x}; the host unpins; MEM_UNSHARE returns 0"
        );
        Ok(())
    }

    fn gives_up(&self, step: Step) -> TestResult {
        let vm = self.vm()?;
        vm.fill(GIVEN_UP, LETTER_TEXT)?;
        let exit = vm.begin_order(0, call(GuestCallId::MemRelinquish, GIVEN_UP))?;
        let expected = Exit::Relinquished {
            gfn: GIVEN_UP,
            frames: 1,
        };
        ensure_eq!(exit, expected, "exit");
        say!(step, "exit: Relinquished, gfn {GIVEN_UP:#x}, 1 page");
        Ok(())
    }

    fn takes_back(&self, step: Step) -> TestResult {
        let vm = self.vm()?;
        calls::take_back(self.given_up().range())?;
        vm.forget(GIVEN_UP)?;
        let report = vm.finish(0, Answer::None)?;
        ensure_eq!(report, ONE_DONE, "MEM_RELINQUISH");
        say!(step, "Success, 1 frame done; MEM_RELINQUISH returns 0");
        Ok(())
    }

    fn host_finds_zeroes(&self, step: Step) -> TestResult {
        ensure_eq!(self.given_up().find_wrong(|_| 0), None, "contents");
        say!(step, "512 words, 0 are not zero");
        Ok(())
    }

    fn lends_for_good(&self, step: Step) -> TestResult {
        let vm = self.vm()?;
        vm.give(LENT)?;
        vm.fill(LENT, LENT_TEXT)?;
        self.lends(step, LENT)
    }

    fn spins(&self, step: Step) -> TestResult {
        let vm = self.vm()?;
        let first = timer::interrupts();
        timer::interrupt_every(sysreg::counter_frequency() / 100);
        let mut answer = Answer::Done(Order::Spin { rounds: u64::MAX }.encode());
        let mut exits = 0;
        let ended: TestResult = loop {
            match vm.run(0, answer) {
                Ok(Exit::Interrupt) => exits += 1,
                Ok(other) => break unexpected(other),
                Err(outcome) => break Err(outcome),
            }
            answer = Answer::None;
            take_interrupts();
            if timer::interrupts() - first >= TICKS {
                break Ok(());
            }
        };
        timer::stop();
        ended?;
        say!(
            step,
            "{TICKS} ticks of the host, {exits} exits: Interrupt; no other exit"
        );
        Ok(())
    }

    fn kills(&self, step: Step) -> TestResult {
        let vm = self.vm()?;
        let left = vm.kill()?;
        ensure_eq!(left, vm.pages(), "frames left");
        say!(step, "FramesLeft, {left} frames");
        Ok(())
    }

    fn runs_dead(&self, step: Step) -> TestResult {
        let vm = self.vm()?.handle();
        match calls::call(VmCall::Run { vm, index: 0 }) {
            Err(error) => say_refusal(step, error, Status::WrongVmState),
            Ok(_) => fail!("a dead guest ran"),
        }
    }

    fn reclaims(&self, step: Step) -> TestResult {
        let vm = self.vm()?;
        calls::reclaim(vm.handle(), vm.plan.declared())?;
        for gfn in vm.gfns() {
            ensure_state(vm.frame(gfn)?, FrameState::Host, 0)?;
        }
        say!(step, "Success, every one of {} frames", vm.pages());
        Ok(())
    }

    fn compares_pages(&self, step: Step) -> TestResult {
        let vm = self.vm()?;
        let mut private = 0;
        for gfn in vm.gfns() {
            let view = vm.frame_view(gfn)?;
            let wrong = match gfn {
                LENT => view.find_wrong(|address| pattern(LENT_TEXT, address)),
                _ => {
                    private += 1;
                    view.find_wrong(|_| 0)
                }
            };
            ensure_eq!(wrong, None, "contents of page {gfn:#x}");
        }
        say!(
            step,
            "{private} private pages, all zero; 1 lent page, as the guest left it"
        );
        Ok(())
    }

    fn buries(&mut self, step: Step) -> TestResult {
        let vm = self.take_vm()?;
        let handle = vm.handle();
        for gfn in vm.gfns() {
            vm.forget(gfn)?;
        }
        ensure_eq!(vm.kill()?, 0, "frames left");
        vm.bury()?;
        let figure = VmCall::Statistics {
            vm: handle,
            statistic: VmStatistic::FramesPrivate.into(),
        };
        match calls::call(figure) {
            Err(error) if error.status() == Some(Status::NoSuchVm) => {
                say!(step, "Success; its handle {handle:#x} from now on: NoSuchVm");
                Ok(())
            }
            other => fail!("a figure of a VM that is gone: {other:x?}"),
        }
    }

    fn other_lives(&self, step: Step) -> TestResult {
        self.other()?.ensure_filled(LETTER, Some(OTHERS_TEXT))?;
        say!(step, "512 words read, all as it wrote them");
        Ok(())
    }

    fn ends_other(&mut self, step: Step) -> TestResult {
        let other = self.take_other()?;
        let pages = other.pages();
        other.end()?;
        say!(step, "Success, {pages} frames back, all zero");
        Ok(())
    }

    fn counts_again(&self, step: Step) -> TestResult {
        let counts = Counts::ask()?;
        ensure_eq!(Some(counts), self.counts, "frames by their owner");
        say!(step, "{counts}");
        Ok(())
    }
}

/// No memory that the host can read may hold a word of the secret.
fn searches(step: Step) -> TestResult {
    let found = scan::all_memory(Secret::new(SEED));
    let all = machine().memory_size() / FRAME_SIZE;
    ensure_eq!(found.frames + found.refused, all, "frames that were tried");
    ensure!(found.refused > 0, "the host reads everything");
    ensure_eq!(
        found.words,
        0,
        "words of the secret, the first at {:x?}",
        found.first
    );
    say!(
        step,
        "{} frames read, 0 words of the secret; {} frames refused",
        found.frames,
        found.refused
    );
    Ok(())
}

fn audits(step: Step) -> TestResult {
    audit_everything()?;
    let frames = machine().memory_size() / FRAME_SIZE;
    say!(step, "Success, {frames} frames, 0 disagree");
    Ok(())
}

/// Says what EL2 counts for each VM, and has the ownership map shown from outside.
fn show<const N: usize>(step: Step, vms: [&Vm; N]) -> TestResult {
    for vm in vms {
        vm.audit()?;
        let [private, lent] = [VmStatistic::FramesPrivate, VmStatistic::FramesShared]
            .map(|which| calls::statistic(vm.handle(), which));
        say!(step, "vm {} private {} lent {}", slot(vm), private?, lent?);
    }
    look()
}

fn slot(vm: &Vm) -> u64 {
    vm.handle() & 0xff
}

/// The order for a call of the guest's about the page at `gfn`.
fn call(id: GuestCallId, gfn: u64) -> Order {
    hvc(id.into(), [gfn * FRAME_SIZE, 0, 0])
}

fn say_refusal(step: Step, error: CallError, expected: Status) -> TestResult {
    ensure_eq!(error.status(), Some(expected), "status");
    say!(step, "{expected:?}");
    Ok(())
}

fn unexpected(exit: Exit) -> TestResult {
    fail!("the guest left by {exit:x?}")
}

/// A launch digest, byte by byte.
struct Digest([u64; 4]);

impl Display for Digest {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        self.0
            .iter()
            .flat_map(|word| word.to_le_bytes())
            .try_for_each(|byte| write!(f, "{byte:02x}"))
    }
}

impl Display for Counts {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        let Self([host, shared, hyp, other]) = self;
        write!(
            f,
            "frames: host {host}, shared with EL2 {shared}, EL2 {hyp}, others {other}"
        )
    }
}
