//! Which of the frames that a VM borrows were used since the last look.

use super::range::Went;
use super::table::RunAt;
use crate::addr::FRAME_SHIFT;
use crate::hardware::Hardware;
use crate::ownership::{Ownership, Refusal};
use hyp_abi::Status;
use hyp_abi::vm_call::GuestRange;

/// What a look at the access flags of a range came to.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Default)]
pub struct Aged {
    /// How many guest frame numbers were looked at.
    pub frames: u64,
    /// How many of them are mapped by a descriptor that was used.
    pub used: u64,
}

impl<H: Hardware> Ownership<'_, H> {
    /// Asks which of the frames that the VM that the register `vm` names, which is not protected, borrows were used since
    /// the last look, and begins anew. A block counts as used for each of its frames, and begins anew as a whole.
    ///
    /// # Errors
    /// [`Status::EmptyRange`], [`Status::NoSuchVm`], [`Status::WrongVmKind`], [`Status::GfnOutOfRange`].
    pub fn guest_test_age(&self, vm: u64, range: GuestRange) -> Result<Aged, Refusal> {
        if range.frames == 0 {
            return Err(Status::EmptyRange.into());
        }
        let mut used = 0;
        let frames = self.each_run(range, |left| -> Result<Went, Refusal> {
            let mut locked = self.vms.lock(&self.hw, vm)?;
            let vm = &mut *locked;
            vm.must_be_protected(false)?;
            let run = vm.run(&self.hw, vm.pages(left.gfn, left.frames)?);
            if let RunAt::Frames(_) = run.at {
                let span = vm.pages(left.gfn, run.frames)?;
                let owed = vm.table.take_accessed(&self.hw, span, |entry| {
                    let start = entry.start.value().max(span.start().value());
                    let end = (entry.start.value() + (entry.pages << FRAME_SHIFT)).min(span.end());
                    used += (end - start) >> FRAME_SHIFT;
                });
                vm.pay(&self.hw, owed);
            }
            Ok(run.frames.into())
        })?;
        Ok(Aged { frames, used })
    }
}
