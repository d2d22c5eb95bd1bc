//! The page through which host and EL2 pass what belongs to a run.
#![expect(unsafe_code, reason = "reads and writes the page, which EL2 uses too")]

use crate::cases::support;
use crate::frames::Frames;
use crate::hypercall::HYPERVISOR;
use crate::registry::{Outcome, TestResult, succeed};
use core::ptr::with_exposed_provenance_mut;
use hyp_abi::{FRAME_SIZE, FrameRange};

/// A frame that is shared with EL2.
#[derive(Debug)]
pub(crate) struct RunPage(Frames);

impl RunPage {
    /// How many words it has.
    pub(crate) const WORDS: usize = (FRAME_SIZE / 8) as usize;

    /// A page of zeroes.
    pub(crate) fn new() -> Result<Self, Outcome> {
        let frame = support::frames(1)?;
        frame.zero();
        succeed!(HYPERVISOR.share(frame.range()));
        Ok(Self(frame))
    }

    /// A frame that is shared with EL2 already.
    pub(crate) fn of(frame: Frames) -> Self {
        Self(frame)
    }

    /// Its physical address.
    pub(crate) fn address(&self) -> u64 {
        self.0.frame(0)
    }

    /// Its frame.
    pub(crate) fn range(&self) -> FrameRange {
        self.0.range()
    }

    /// Word number `word`.
    pub(crate) fn read(&self, word: usize) -> u64 {
        assert!(word < Self::WORDS, "a page has fewer words");
        let at = with_exposed_provenance_mut::<u64>(self.address() as usize + 8 * word);
        // SAFETY: the frame is this value's; EL2 may write to it at the same time, which is what volatile is for.
        unsafe { at.read_volatile() }
    }

    /// Sets word number `word`.
    pub(crate) fn write(&self, word: usize, value: u64) {
        assert!(word < Self::WORDS, "a page has fewer words");
        let at = with_exposed_provenance_mut::<u64>(self.address() as usize + 8 * word);
        // SAFETY: as in `read`.
        unsafe { at.write_volatile(value) };
    }

    /// Ends the sharing and gives the frame up. EL2 must not use it any more.
    pub(crate) fn end(self) -> TestResult {
        succeed!(HYPERVISOR.unshare(self.0.range()));
        self.0.free();
        Ok(())
    }
}
