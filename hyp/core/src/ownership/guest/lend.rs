//! A guest lends pages of its own to the host, and takes them back. Their contents stay, and so does the guest's own
//! mapping: of a block single pages can be lent without breaking it.

use super::GuestOutcome;
use super::range::{OwnRun, Went, outcome, told_to_guest};
use super::table::gfn_address;
use crate::addr::{FRAME_SHIFT, Frame};
use crate::hardware::Hardware;
use crate::map::{Entry, OwnershipMap, Region, Replaced};
use crate::ownership::Ownership;
use crate::ownership::permit::{Contingency, HostChange};
use crate::pgtable::{Descriptor, PageEntry, Stage2, Stage2Attributes};
use crate::state::State;
use crate::vm::{GuestAnnotation, Vm};
use hyp_abi::vm_call::GuestRange;

impl<H: Hardware> Ownership<'_, H> {
    /// The guest in `slot` shares private pages with the host (MEM_SHARE).
    pub fn guest_lend(&self, slot: u8, range: GuestRange) -> GuestOutcome {
        if range.frames == 1 && self.lend_one(slot, range.gfn).is_some() {
            return GuestOutcome::Done(1);
        }
        outcome(self.each_run(range, |left| {
            self.lend_run(slot, left, range.frames > 1).map(Went::from)
        }))
    }

    /// The guest in `slot` ends the sharing of pages with the host (MEM_UNSHARE).
    pub fn guest_unlend(&self, slot: u8, range: GuestRange) -> GuestOutcome {
        if range.frames == 1 && self.unlend_one(slot, range.gfn).is_some() {
            return GuestOutcome::Done(1);
        }
        outcome(self.each_run(range, |left| {
            self.unlend_run(slot, left, range.frames > 1).map(Went::from)
        }))
    }

    fn lend_run(&self, slot: u8, left: GuestRange, ranged: bool) -> Result<u64, GuestOutcome> {
        let mut vm = self.lock_guest(slot).ok_or(GuestOutcome::Refused)?;
        let run = self.own_frames(&vm, left)?;
        if run.entry.state() != State::Guest {
            return Err(GuestOutcome::Refused);
        }
        self.change_lending(&mut vm, run, HostChange::Grant, ranged)
    }

    fn unlend_run(&self, slot: u8, left: GuestRange, ranged: bool) -> Result<u64, GuestOutcome> {
        let mut vm = self.lock_guest(slot).ok_or(GuestOutcome::Refused)?;
        let run = self.own_frames(&vm, left)?;
        if run.entry.state() != State::GuestSharedHost {
            return Err(GuestOutcome::Refused);
        }
        if run.entry.count() > 0 {
            return Err(GuestOutcome::Pinned(left.gfn));
        }
        self.change_lending(&mut vm, run, HostChange::Revoke, ranged)
    }

    /// Grants the host access to a guest's pages, or revokes it.
    fn change_lending(
        &self,
        vm: &mut Vm<H>,
        run: OwnRun<'_, H>,
        change: HostChange,
        ranged: bool,
    ) -> Result<u64, GuestOutcome> {
        let OwnRun { region, piece, entry } = run;
        let frames = piece.span.frames();
        let lent = change == HostChange::Grant;
        let new = Entry::guest(lent, vm.handle.slot, entry.gfn());
        let mut permit = self
            .permit_from_vm(vm, region, piece, Contingency::Whole(change), 0)
            .map_err(told_to_guest)?;
        if !lent {
            permit.revoke().complete(&self.hw);
        }
        permit.enter(new);
        if lent {
            permit.grant();
        }
        permit.end(ranged).release_into(&self.hw, &mut vm.reserve);
        vm.left(entry.state(), frames);
        vm.arrived(new.state(), frames);
        Ok(frames)
    }

    /// The short way of [`Ownership::guest_lend`] for one page: `None`, and nothing has changed, if it must go the long way,
    /// which also says why it is refused.
    #[inline(always)]
    fn lend_one(&self, slot: u8, gfn: u64) -> Option<()> {
        let hw = &self.hw;
        let mut locked = self.lock_guest(slot)?;
        let vm = &mut *locked;
        let frame = self.frame_of(vm, gfn)?;
        let mut region = self.map.lock(hw, frame)?;
        let private = Entry::guest(false, slot, gfn);
        let lent = Entry::guest(true, slot, gfn);
        let host_page = match self.host.page(hw, frame.address().host_ipa()) {
            Some(page) if region.has_node() => {
                match region.replace_one(OwnershipMap::<H::Geometry>::index_of(frame), private, lent) {
                    Replaced::Done => page,
                    Replaced::Differs(_) | Replaced::NeedsNode => return None,
                }
            }
            page => self.enter_first(vm, &mut region, page, frame, [private, lent])?,
        };
        host_page.map(hw, frame.address(), Stage2Attributes::HOST_MEMORY);
        vm.left(State::Guest, 1);
        vm.arrived(State::GuestSharedHost, 1);
        Some(())
    }

    /// Gives the first frame that a guest lends out of a block its `new` entry, if it has the `old` one, and answers the
    /// host's entry for it. Node and table, where they are missing, come from the VM's reserve. `None`, and nothing has
    /// changed, if it must go the long way.
    #[inline(never)]
    fn enter_first(
        &self,
        vm: &mut Vm<H>,
        region: &mut Region<'_, H>,
        host_page: Option<PageEntry<Stage2>>,
        frame: Frame,
        [old, new]: [Entry; 2],
    ) -> Option<PageEntry<Stage2>> {
        let hw = &self.hw;
        let index = OwnershipMap::<H::Geometry>::index_of(frame);
        let needs_node = region.needs_node(1);
        let needed = u64::from(needs_node) + u64::from(host_page.is_none());
        if region.entry(index) != old || vm.lacks(needed).is_some() {
            return None;
        }
        let host_page = host_page.or_else(|| {
            self.host
                .add_page_table(hw, frame.address().host_ipa(), &mut vm.reserve)
        })?;
        let mut node = if needs_node { vm.reserve.pop(hw) } else { None };
        let folded = region.set(index, 1, new, &mut node);
        debug_assert!(
            folded.is_none() && node.is_none(),
            "a page is not all of a region, and the node is in use"
        );
        Some(host_page)
    }

    /// The short way of [`Ownership::guest_unlend`] for one page, as [`Ownership::lend_one`].
    #[inline(always)]
    fn unlend_one(&self, slot: u8, gfn: u64) -> Option<()> {
        let hw = &self.hw;
        let mut locked = self.lock_guest(slot)?;
        let vm = &mut *locked;
        let frame = self.frame_of(vm, gfn)?;
        let index = OwnershipMap::<H::Geometry>::index_of(frame);
        let mut region = self.map.lock(hw, frame)?;
        let lent = Entry::guest(true, slot, gfn);
        if !region.has_node() || region.entry(index) != lent {
            return None;
        }
        let host_page = self.host.page(hw, frame.address().host_ipa())?;
        host_page.unmap(hw, GuestAnnotation::Absent.encode());
        let _ = region.replace_one(index, lent, Entry::guest(false, slot, gfn));
        vm.left(State::GuestSharedHost, 1);
        vm.arrived(State::Guest, 1);
        Some(())
    }

    /// The frame behind a page of a protected guest, if there is one.
    #[inline(always)]
    pub(super) fn frame_of(&self, vm: &Vm<H>, gfn: u64) -> Option<Frame> {
        if !vm.config.protected {
            return None;
        }
        let address = gfn_address(gfn)?;
        let entry = vm.table.walk(&self.hw, address)?;
        match entry.descriptor {
            Descriptor::Leaf { pa, .. } => pa
                .frame()
                .checked_add((address.value() - entry.start.value()) >> FRAME_SHIFT),
            _ => None,
        }
    }
}
