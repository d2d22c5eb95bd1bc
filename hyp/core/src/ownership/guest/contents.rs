//! What happens to the contents of a frame that a guest is given: they are kept and digested before the VM's launch, and
//! zeroed afterwards.

use super::transit::Moving;
use crate::addr::FrameSpan;
use crate::geometry::Geometry;
use crate::hardware::Hardware;
use crate::ownership::Ownership;
use crate::ownership::reclaim::Scrubbed;
use crate::vm::Life;
use arrayvec::ArrayVec;
use hyp_abi::Counter;
use sha2::Digest as _;

/// The most frames of one step: 64 KiB.
const STEP: usize = 16;

/// The digests of the frames of one step.
type Digests = ArrayVec<[u8; 32], STEP>;

impl<H: Hardware> Ownership<'_, H> {
    /// Makes frames in transit ready for the guest, step by step, until all are, an interrupt waits, or the memory answers
    /// with an abort.
    pub(super) fn prepare(&self, moving: &Moving, keep: bool) -> Scrubbed {
        if keep {
            let kept = self.digest(moving);
            // The guest may execute what is kept.
            self.hw.invalidate_code();
            kept
        } else {
            self.zero(moving)
        }
    }

    /// Zeroes frames in transit, step by step as [`Ownership::scrub`] does, for whoever gets them next. Instruction caches
    /// need not see stores to memory, EL2's zeros among them, and would go on with what the last owner executed there: for
    /// the host that is a guest's code, for a guest it is the host's (Arm ARM DDI 0487, "Synchronization and coherency
    /// issues between data and instruction accesses").
    pub(super) fn zero(&self, moving: &Moving) -> Scrubbed {
        let hw = &self.hw;
        let zeroed = self.scrub(moving.frames(), 0);
        hw.invalidate_code();
        zeroed
    }

    /// Counts the contents of frames into the VM's digest. Each step is counted under the VM's lock, so that none is
    /// once the VM was launched: from there on the rest is zeroed.
    fn digest(&self, moving: &Moving) -> Scrubbed {
        let span = moving.frames();
        let mut done = 0;
        while done < span.frames() {
            let step = <H::Geometry as Geometry>::STEP_FRAMES
                .min(span.frames() - done)
                .min(STEP as u64);
            let Some(frames) = span
                .start()
                .checked_add(done)
                .and_then(|start| FrameSpan::new(start, step))
            else {
                break;
            };
            // What the host wrote last may be in a cache, where a guest with its caches off does not see it.
            self.hw.clean(frames);
            let (digests, poisoned) = self.digests_of(frames);
            if !self.count_digests(moving, done, &digests) {
                return self.scrub(span, done);
            }
            done += digests.len() as u64;
            if poisoned {
                return Scrubbed {
                    frames: done,
                    poisoned,
                };
            }
            if done < span.frames() && self.hw.interrupt_pending() {
                self.hw.count(Counter::CallsInterrupted, 1);
                break;
            }
        }
        Scrubbed {
            frames: done,
            poisoned: false,
        }
    }

    /// The digest of each frame, and whether the one after the last of them answered with an external abort.
    fn digests_of(&self, frames: FrameSpan) -> (Digests, bool) {
        let mut digests = Digests::new();
        for frame in frames.iter() {
            let Ok(digest) = self.hw.digest(frame) else {
                return (digests, true);
            };
            if digests.try_push(digest).is_err() {
                break;
            }
        }
        (digests, false)
    }

    /// Counts digests of frames from the `first` of those that move on. Answers `false`, and counts none, if the VM's
    /// digest is final.
    fn count_digests(&self, moving: &Moving, first: u64, digests: &Digests) -> bool {
        let Some(mut vm) = self.lock_guest(moving.slot()) else {
            return false;
        };
        if vm.life != Life::Created {
            return false;
        }
        let vm = &mut *vm;
        for (gfn, digest) in (moving.gfn() + first..).zip(digests) {
            vm.digest.update(gfn.to_le_bytes());
            vm.digest.update(digest);
        }
        true
    }
}
