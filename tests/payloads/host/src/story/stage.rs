//! Who plays: the guest, another guest, and the frames that the story is about.

use crate::frames::Frames;
use crate::guest::{Plan, Vm};
use crate::hypercall::HYPERVISOR;
use crate::registry::{Outcome, fail, succeed};
use hyp_abi::host_call::Statistic;
use hyp_abi::{FRAME_SIZE, FrameRange, REGION_SIZE};
use payload_protocol::{layout, story, story::Step};

/// Where the guest's letter to the host is.
pub(super) const LETTER: u64 = layout::FREE / FRAME_SIZE;

/// The page that it gives up.
pub(super) const GIVEN_UP: u64 = LETTER + 1;

/// The page that it lends and never takes back.
pub(super) const LENT: u64 = LETTER + 2;

/// What the story remembers from step to step.
#[derive(Debug)]
pub(super) struct Stage {
    /// Whether the host forgets to pin.
    pub(super) is_spoiled: bool,
    /// Frames by their owner, before there was a guest.
    pub(super) counts: Option<Counts>,
    /// The guest.
    vm: Option<Vm>,
    /// Another guest, which sees the end of the first.
    other: Option<Vm>,
    /// The first frame of the guest's image, and frames for the pages that the story is about.
    frames: [u64; 3],
}

/// Frames by their owner, as EL2 counts them: the host's, shared with EL2, EL2's, anybody else's.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Counts(pub(super) [u64; 4]);

impl Counts {
    /// Asks EL2.
    pub(super) fn ask() -> Result<Self, Outcome> {
        let mut counts = [0; 4];
        let which = [
            Statistic::FramesHost,
            Statistic::FramesSharedHyp,
            Statistic::FramesHyp,
            Statistic::FramesOther,
        ];
        for (count, which) in counts.iter_mut().zip(which) {
            *count = succeed!(HYPERVISOR.statistic(which));
        }
        Ok(Self(counts))
    }
}

/// What a guest of the story is to be.
fn plan(vcpus: u64) -> Plan {
    Plan {
        vcpus,
        ipa_bits: story::IPA_BITS,
        memory: story::MEMORY,
        start: story::START,
        // In a region of its own, so that a picture shows it in one piece.
        alignment: REGION_SIZE,
        ..Plan::protected()
    }
}

impl Stage {
    /// An empty stage.
    pub(super) const fn new(is_spoiled: bool) -> Self {
        Self {
            is_spoiled,
            counts: None,
            vm: None,
            other: None,
            frames: [0; 3],
        }
    }

    /// The guest comes on: a VM without memory.
    pub(super) fn create(&mut self) -> Result<&Vm, Outcome> {
        let mut vm = Vm::create(plan(story::VCPUS))?;
        vm.add_vcpu()?;
        let image = crate::guest::image::frames()?;
        let first = vm.backing().base;
        // The image comes first, the pages that the story is about right behind it.
        self.frames = [
            first,
            first + image * FRAME_SIZE,
            first + (image + 1) * FRAME_SIZE,
        ];
        Ok(self.vm.insert(vm))
    }

    /// The other guest comes on, loaded.
    pub(super) fn create_other(&mut self) -> Result<&Vm, Outcome> {
        let vm = Vm::load(plan(story::VCPUS))?;
        Ok(self.other.insert(vm))
    }

    /// The guest.
    pub(super) fn vm(&self) -> Result<&Vm, Outcome> {
        on_stage(self.vm.as_ref())
    }

    /// The other guest.
    pub(super) fn other(&self) -> Result<&Vm, Outcome> {
        on_stage(self.other.as_ref())
    }

    /// The guest goes.
    pub(super) fn take_vm(&mut self) -> Result<Vm, Outcome> {
        on_stage(self.vm.take())
    }

    /// The other guest goes.
    pub(super) fn take_other(&mut self) -> Result<Vm, Outcome> {
        on_stage(self.other.take())
    }

    /// The first frame of the image.
    pub(super) const fn image(&self) -> u64 {
        self.frames[0]
    }

    /// The frame of the letter.
    pub(super) fn letter(&self) -> Frames {
        Frames::adopt(FrameRange::new(self.frames[1], 1))
    }

    /// The frame of the page that is given up.
    pub(super) fn given_up(&self) -> Frames {
        Frames::adopt(FrameRange::new(self.frames[2], 1))
    }

    /// The frame whose state is told before a step and after it.
    pub(super) fn watched(&self, step: Step) -> Option<u64> {
        Some(match step {
            Step::HostGivesImage
            | Step::HostLoads
            | Step::HostStores
            | Step::HostJumps
            | Step::ProgramLoads
            | Step::ProgramJumps
            | Step::HostSharesIt
            | Step::HostGivesItToAnother
            | Step::HostLaunches
            | Step::HostKills
            | Step::HostRunsDead
            | Step::HostLoadsFromDead
            | Step::HostReclaims => self.image(),
            Step::HostGivesPage
            | Step::GuestFindsZeroes
            | Step::GuestWritesLetter
            | Step::GuestLends
            | Step::HostReadsLetter
            | Step::HostAnswers
            | Step::GuestReadsAnswer
            | Step::HostPins
            | Step::GuestIsRefused
            | Step::GuestIsGranted
            | Step::HostLoadsAgain => self.frames[1],
            Step::GuestGivesUp | Step::HostLoadsGivenUp | Step::HostTakesBack | Step::HostFindsZeroes => {
                self.frames[2]
            }
            _ => return None,
        })
    }
}

fn on_stage<T>(vm: Option<T>) -> Result<T, Outcome> {
    match vm {
        Some(vm) => Ok(vm),
        None => fail!("there is no guest at this point of the story"),
    }
}
