//! The MMIO guard: a guest says at which pages the host may emulate devices.

use super::GuestOutcome;
use super::range::outcome;
use super::table::{RunAt, unmap};
use crate::addr::FRAME_SHIFT;
use crate::hardware::Hardware;
use crate::ownership::Ownership;
use crate::vm::GuestAnnotation;
use hyp_abi::vm_call::GuestRange;

impl<H: Hardware> Ownership<'_, H> {
    /// The guest in `slot` lets the host emulate devices at pages that are not its memory and hold nothing
    /// (MMIO_GUARD_MAP). From the first page on the guard is in force. Pages that are devices already count as done.
    ///
    /// A call that is refused has changed nothing, the guard included: a guest sees the refusal, and one that wants the
    /// guard in any case enrolls first, which nobody can refuse.
    pub fn guest_guard_map(&self, slot: u8, range: GuestRange) -> GuestOutcome {
        self.guard(slot, range, GuestAnnotation::Device)
    }

    /// The guest in `slot` no longer lets the host emulate devices at pages (MMIO_GUARD_UNMAP). Pages that were none count
    /// as done, if they hold nothing.
    pub fn guest_guard_unmap(&self, slot: u8, range: GuestRange) -> GuestOutcome {
        self.guard(slot, range, GuestAnnotation::Absent)
    }

    fn guard(&self, slot: u8, range: GuestRange, new: GuestAnnotation) -> GuestOutcome {
        outcome(self.each_run(range, |left| {
            let hw = &self.hw;
            let mut locked = self.lock_guest(slot).ok_or(GuestOutcome::Refused)?;
            let vm = &mut *locked;
            let refused = |_| GuestOutcome::Refused;
            let run = vm.run(hw, vm.pages(left.gfn, left.frames).map_err(refused)?);
            match run.at {
                RunAt::Hole(GuestAnnotation::Absent | GuestAnnotation::Device) => {}
                RunAt::Hole(GuestAnnotation::Busy) => return Err(GuestOutcome::Busy),
                RunAt::Hole(GuestAnnotation::Lost) | RunAt::Frames(_) => return Err(GuestOutcome::Refused),
            }
            // What the guest calls its memory is never a device.
            let outside = vm.outside_memory(left.gfn << FRAME_SHIFT, run.frames);
            if outside == 0 {
                return Err(GuestOutcome::Refused);
            }
            let span = vm.pages(left.gfn, outside).map_err(refused)?;
            if let Some(lacking) = vm.lacks(vm.tables_for(hw, span, unmap(new))) {
                return Err(GuestOutcome::NeedsPages(lacking));
            }
            vm.annotate(hw, span, new);
            if new == GuestAnnotation::Device {
                vm.guard = true;
            } else if range.frames > 1 {
                vm.fold(hw, span);
            }
            Ok(outside.into())
        }))
    }
}

impl<H: Hardware> crate::vm::Vm<H> {
    /// How many of `frames` pages from the IPA `start` on lie before the first one of the memory that it declared.
    fn outside_memory(&self, start: u64, frames: u64) -> u64 {
        if self.is_memory(start) {
            return 0;
        }
        let next = self
            .ranges
            .iter()
            .map(|range| range.start().value())
            .filter(|range| *range > start)
            .min();
        next.map_or(frames, |next| frames.min((next - start) >> FRAME_SHIFT))
    }
}
