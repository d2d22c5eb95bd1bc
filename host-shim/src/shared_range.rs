//! Frames that are shared with EL2 for as long as a value lives.

use crate::{Hypercall, Hypervisor, RangeError};
use hyp_abi::FrameRange;

/// Frames that the host shares with EL2. Dropping it unshares them.
///
/// A drop cannot report: if EL2 still pins a frame, the frames stay shared. Use [`SharedRange::end`] where
/// that matters.
#[must_use = "dropping it ends the sharing"]
#[derive(Debug)]
pub struct SharedRange<'a, H: Hypercall> {
    hypervisor: &'a Hypervisor<H>,
    range: FrameRange,
}

impl<'a, H: Hypercall> SharedRange<'a, H> {
    /// Shares the whole of `range`, or nothing of it.
    ///
    /// # Errors
    /// Those of [`Hypervisor::share`]. The frames that were shared before the refusal are unshared again; the
    /// error still tells how many there were.
    pub fn new(hypervisor: &'a Hypervisor<H>, range: FrameRange) -> Result<Self, RangeError> {
        match hypervisor.share(range) {
            Ok(()) => Ok(Self { hypervisor, range }),
            Err(error) => {
                if error.done > 0 {
                    // This call shared them a moment ago. Should EL2 refuse, the first error is the one to report.
                    let _ = hypervisor.unshare(FrameRange::new(range.base, error.done));
                }
                Err(error)
            }
        }
    }

    /// The frames.
    #[must_use]
    pub const fn range(&self) -> FrameRange {
        self.range
    }

    /// Ends the sharing.
    ///
    /// # Errors
    /// Those of [`Hypervisor::unshare`]; the frames after the error's progress stay shared.
    pub fn end(mut self) -> Result<(), RangeError> {
        let range = core::mem::replace(&mut self.range, FrameRange::new(0, 0));
        self.hypervisor.unshare(range)
    }
}

impl<H: Hypercall> Drop for SharedRange<'_, H> {
    fn drop(&mut self) {
        if self.range.frames > 0 {
            // See the type's documentation: there is nobody to tell.
            let _ = self.hypervisor.unshare(self.range);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use core::cell::Cell;
    use hyp_abi::{HostCall, Status};

    /// An EL2 that lets up to `limit` frames be shared and counts how many are.
    #[derive(Debug)]
    struct Limited {
        limit: u64,
        shared: Cell<u64>,
    }

    impl Hypercall for Limited {
        fn call(&self, registers: [u64; 7]) -> [u64; 4] {
            let shared = self.shared.get();
            match HostCall::decode(registers).unwrap() {
                HostCall::ShareHyp(range) => {
                    let done = range.frames.min(self.limit - shared);
                    if done == 0 {
                        return [Status::NotOwner.to_register(), 0, 0, 0];
                    }
                    self.shared.set(shared + done);
                    [0, done, 0, 0]
                }
                HostCall::UnshareHyp(range) => {
                    self.shared.set(shared - range.frames);
                    [0, range.frames, 0, 0]
                }
                other => panic!("unexpected {other:?}"),
            }
        }
    }

    fn limited(limit: u64) -> Hypervisor<Limited> {
        Hypervisor::new(Limited {
            limit,
            shared: Cell::new(0),
        })
    }

    #[test]
    fn the_sharing_ends_with_the_value() {
        let el2 = Limited {
            limit: 8,
            shared: Cell::new(0),
        };
        let hypervisor = Hypervisor::new(&el2);
        let shared = SharedRange::new(&hypervisor, FrameRange::new(0, 8)).unwrap();
        assert_eq!(el2.shared.get(), 8);
        drop(shared);
        assert_eq!(el2.shared.get(), 0);
        SharedRange::new(&hypervisor, FrameRange::new(0, 4))
            .unwrap()
            .end()
            .unwrap();
        assert_eq!(el2.shared.get(), 0);
    }

    #[test]
    fn a_refused_range_leaves_nothing_shared() {
        let hypervisor = limited(3);
        let error = SharedRange::new(&hypervisor, FrameRange::new(0, 5)).unwrap_err();
        assert_eq!((error.done, error.error.status()), (3, Some(Status::NotOwner)));
        // All three are free to be shared again, so none was left behind.
        SharedRange::new(&hypervisor, FrameRange::new(0, 3))
            .unwrap()
            .end()
            .unwrap();
    }
}
