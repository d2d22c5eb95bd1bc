//! A VM that lives for a moment, and that nobody else knows of: what its calls answer is certain.

use super::{destroy, life, state, vm};
use crate::attack::attacker::Attacker;
use crate::attack::call::checked;
use crate::attack::ground::{Holding, REGION_FRAMES};
use crate::attack::tally::{self, Kind};
use crate::frames::Frames;
use crate::probe::{self, Level};
use hyp_abi::vm::VmFlags;
use hyp_abi::{FRAME_SIZE, FrameRange, FrameState, GuestRange, HostCall, REGION_SIZE, Status, VmCall};
use payload_protocol::layout;

impl Attacker<'_> {
    /// A VM is made, given frames of this CPU's own, and ended.
    pub(super) fn brief_vm(&mut self) {
        let Some(index) = self.plot_in(&[Holding::Host]) else {
            return;
        };
        let is_protected = self.random.one_in(2);
        let flags = if is_protected {
            VmFlags::PROTECTED
        } else {
            VmFlags::empty()
        };
        let create = VmCall::Create {
            flags: flags.bits(),
            vcpus: 1 + self.random.below(64),
            ipa_bits: 32 + self.random.below(9),
        };
        let Some([handle, ..]) = self.supplied(0, create) else {
            return;
        };
        self.before_the_launch(handle);
        let range = if self.random.one_in(6) {
            self.plots[index].range
        } else {
            FrameRange::new(self.plots[index].any_frame(&mut self.random), 1)
        };
        let value = self.random.next();
        Frames::adopt(range).fill(value);
        // Aligned as the frames are, so that a region of them is a block.
        let regions = layout::MEMORY / REGION_SIZE + self.random.below(1 << 9);
        let gfn = regions * REGION_FRAMES + range.base / FRAME_SIZE % REGION_FRAMES;
        // EL2 may lack pages for some.
        let given = self.hand_over(handle, is_protected, range, gfn);
        // At once, before anything else rids the CPU of what it remembers of the frames, which it has just written to.
        if is_protected && given == range.frames {
            self.ensure_out_of_reach(range);
        }
        let taken = match is_protected {
            true => (FrameState::NotYours, 0),
            false => (FrameState::HostSharedGuest, 1),
        };
        let last = range.base + (range.frames - 1) * FRAME_SIZE;
        for (frame, number) in [(range.base, 0), (last, range.frames - 1)] {
            let expected = if number < given {
                taken
            } else {
                (FrameState::Host, 0)
            };
            self.ensure(handle, "a frame", state(frame), Some(expected));
        }
        if given > 0 {
            self.ensure_taken(handle, is_protected, range.base, gfn);
            let left = destroy(handle);
            self.ensure(handle, "Destroy", left, Err(Status::FramesLeft));
            self.get_back(handle, is_protected, GuestRange::new(gfn, given));
            for frame in [range.base, last] {
                self.ensure(handle, "a frame", state(frame), Some((FrameState::Host, 0)));
            }
            let given = FrameRange::new(range.base, given);
            let kept = |address| if is_protected { 0 } else { value ^ address };
            if let Some((address, got)) = Frames::adopt(given).find_wrong(kept) {
                self.fail(format_args!("after a brief VM, {address:#x} holds {got:#x}"));
            }
        }
        let gone = destroy(handle);
        self.ensure(handle, "the last Destroy", gone, Ok(()));
        let figure = vm(VmCall::Statistics {
            vm: handle,
            statistic: 0,
        });
        self.ensure(handle, "a dead VM", figure, Err(Status::NoSuchVm));
    }

    /// What is a guest's is not the host's, nor any part of it.
    fn ensure_out_of_reach(&mut self, range: FrameRange) {
        let frame = range.base + self.random.below(range.frames) * FRAME_SIZE;
        for level in Level::ALL {
            let access = self.any_access();
            let address = frame + self.random.below(FRAME_SIZE / 64) * 64;
            let result = probe::access(level, access, level.address(address), 0);
            tally::attack(Kind::PrivateMemory, result.is_ok());
            self.must_be_refused(
                format_args!("{access:?} by {level:?} of {address:#x}, which was just donated"),
                level,
                result,
            );
        }
    }

    /// What a VM has is not given to EL2, and its place in the VM is not given to another frame.
    fn ensure_taken(&mut self, handle: u64, is_protected: bool, frame: u64, gfn: u64) {
        let owned = match is_protected {
            true => Status::NotOwner,
            false => Status::SharedWithGuest,
        };
        let share = checked(HostCall::ShareHyp(FrameRange::new(frame, 1)));
        self.ensure(handle, "ShareHyp", share, Err(owned));
        let spare = FrameRange::new(self.scratch_frame(), 1);
        let call = life::giving(handle, is_protected, spare, gfn);
        let answer = vm(call);
        // Whether EL2 has the pages for it is judged first.
        if !matches!(
            answer,
            Err(Status::GfnMapped | Status::NoMemory | Status::VmNeedsMemory)
        ) {
            self.fail(format_args!("{call:x?}, where a frame is, answered {answer:x?}"));
        }
    }

    fn get_back(&mut self, handle: u64, is_protected: bool, range: GuestRange) {
        let mut done = 0;
        for _ in 0..life::PATIENCE {
            let range = GuestRange::new(range.gfn + done, range.frames - done);
            let call = if is_protected {
                VmCall::Reclaim { vm: handle, range }
            } else {
                VmCall::Unshare { vm: handle, range }
            };
            let Some([finished, ..]) = self.supplied(handle, call) else {
                return;
            };
            done += finished;
            if range.frames == finished {
                return;
            }
        }
    }

    /// Calls that a VM without a vCPU and a launch refuses.
    fn before_the_launch(&mut self, handle: u64) {
        let run = VmCall::Run { vm: handle, index: 0 };
        let launch = VmCall::Launch {
            vm: handle,
            entry: 0,
            argument: 0,
        };
        let digest = VmCall::Digest { vm: handle, half: 0 };
        let reclaim = VmCall::Reclaim {
            vm: handle,
            range: life::MEMORY,
        };
        self.ensure(handle, "Run", vm(run), Err(Status::WrongVmState));
        self.ensure(handle, "Launch", vm(launch), Err(Status::NoSuchVcpu));
        self.ensure(handle, "Digest", vm(digest), Err(Status::WrongVmState));
        let refused = vm(reclaim);
        if !matches!(refused, Err(Status::WrongVmState | Status::WrongVmKind)) {
            self.fail(format_args!("a VM that lives answered Reclaim by {refused:x?}"));
        }
    }

    fn ensure<T: PartialEq + core::fmt::Debug>(&self, handle: u64, what: &str, got: T, expected: T) {
        if got != expected {
            self.fail(format_args!(
                "brief VM {handle:#x}: {what}: {got:x?}, not {expected:x?}"
            ));
        }
    }
}
