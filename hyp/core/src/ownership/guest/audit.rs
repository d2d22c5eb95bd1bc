//! The audit of guests' tables: what they say compared with the ownership map, from either side.

use super::range::Went;
use super::table::{OWN_MEMORY, RunAt, gfn_address};
use crate::addr::FrameSpan;
use crate::geometry::Geometry;
use crate::hardware::Hardware;
use crate::map::{Entry, OwnershipMap};
use crate::ownership::audit::AuditReport;
use crate::ownership::{Ownership, Refusal};
use crate::pgtable::{Descriptor, Stage2Memory};
use crate::state::{Piece, State};
use crate::vm::Vm;
use hyp_abi::Status;
use hyp_abi::vm_call::GuestRange;

impl<H: Hardware> Ownership<'_, H> {
    /// Compares the table of the VM that the register `vm` names with the map, for a range of guest frame numbers: each of
    /// them that leads to a frame leads to one that is the guest's at this number, or that it borrows.
    ///
    /// # Errors
    /// [`Status::EmptyRange`], [`Status::NoSuchVm`], [`Status::GfnOutOfRange`].
    pub fn guest_audit(&self, vm: u64, range: GuestRange) -> Result<AuditReport, Refusal> {
        if range.frames == 0 {
            return Err(Status::EmptyRange.into());
        }
        let mut disagreements = 0;
        let frames = self.each_run(range, |left| -> Result<Went, Refusal> {
            let vm = self.vms.lock(&self.hw, vm)?;
            let run = vm.run(&self.hw, vm.pages(left.gfn, left.frames)?);
            if let RunAt::Frames(frame) = run.at {
                let right = FrameSpan::new(frame, run.frames)
                    .map_or(0, |frames| self.agreeing_frames(&vm, frames, left.gfn));
                disagreements += run.frames - right;
            }
            Ok(run.frames.into())
        })?;
        Ok(AuditReport {
            frames,
            disagreements,
        })
    }

    /// How many frames of one region, to which a guest's table leads at numbers from `gfn` on, are the guest's by the map.
    pub(super) fn agreeing_frames(&self, vm: &Vm<H>, frames: FrameSpan, gfn: u64) -> u64 {
        let Some(region) = self.map.lock(&self.hw, frames.start()) else {
            return 0;
        };
        let (piece, _) = OwnershipMap::<H::Geometry>::first_piece(frames);
        let agrees = |offset: &usize| {
            let entry = region.entry(piece.first + offset);
            let gfn = gfn + *offset as u64;
            leads_to_its_own(vm, entry, gfn) && self.mapped_well(vm, gfn)
        };
        (0..piece.count).filter(agrees).count() as u64
    }

    /// Whether a guest's page is mapped in the way that its kind of VM may.
    fn mapped_well(&self, vm: &Vm<H>, gfn: u64) -> bool {
        let entry = gfn_address(gfn).and_then(|address| vm.table.walk(&self.hw, address));
        match entry.map(|entry| entry.descriptor) {
            Some(Descriptor::Leaf { attributes, .. }) if vm.config.protected => attributes == OWN_MEMORY,
            Some(Descriptor::Leaf { attributes, .. }) => attributes.memory() == Stage2Memory::WriteBack,
            _ => false,
        }
    }

    /// How many frames of a piece are a guest's by the map, at a number at which its table does not lead to them.
    ///
    /// Some frames at a time: they have no more owners than there are frames, and each owner is one look at the frames. A
    /// region at once, shared by all VMs, would take as many looks at all of it as there are VMs.
    pub(in crate::ownership) fn guest_disagreements(&self, piece: Piece) -> u64 {
        let mut wrong = 0;
        let mut rest = Some(piece.span);
        while let Some(todo) = rest {
            let (step, tail) = todo.split_at(<H::Geometry as Geometry>::STEP_FRAMES);
            wrong += self.disagreements_of_step(OwnershipMap::<H::Geometry>::first_piece(step).0);
            rest = tail;
        }
        wrong
    }

    /// The VM's lock comes before the region's, so the entries are looked at again under both.
    fn disagreements_of_step(&self, piece: Piece) -> u64 {
        let mut seen = [0_u64; 4];
        let mut wrong = 0;
        while let Some(slot) = self.next_owner(piece, &seen) {
            seen[usize::from(slot >> 6)] |= 1 << (slot & 63);
            let vm = self.lock_guest(slot);
            let Some(region) = self.map.lock(&self.hw, piece.span.start()) else {
                continue;
            };
            for (offset, frame) in piece.span.iter().enumerate() {
                let entry = region.entry(piece.first + offset);
                if !entry.state().is_numbered() || entry.slot() != slot {
                    continue;
                }
                let led = vm.as_ref().and_then(|vm| self.frame_of(vm, entry.gfn()));
                wrong += u64::from(led != Some(frame));
            }
        }
        wrong
    }

    /// A slot that owns frames of a piece and was not `seen`.
    fn next_owner(&self, piece: Piece, seen: &[u64; 4]) -> Option<u8> {
        let region = self.map.lock(&self.hw, piece.span.start())?;
        let mut entries = (piece.first..piece.first + piece.count).map(|index| region.entry(index));
        let entry = entries.find(|entry| {
            let slot = entry.slot();
            entry.state().is_numbered() && seen[usize::from(slot >> 6)] & 1 << (slot & 63) == 0
        });
        entry.map(Entry::slot)
    }
}

/// Whether a guest's table may lead to a frame with this entry, at this number.
fn leads_to_its_own<H: Hardware>(vm: &Vm<H>, entry: Entry, gfn: u64) -> bool {
    match entry.state() {
        State::Guest | State::GuestSharedHost => {
            vm.config.protected && entry.slot() == vm.handle.slot && entry.gfn() == gfn
        }
        State::HostSharedGuest => !vm.config.protected && entry.count() > 0,
        _ => false,
    }
}
