//! Frames that come to a guest and go from it, by their guest frame numbers.

use super::super::{Demand, Holding, Memory, bad_range, refusal};
use super::answer::done;
use super::call::Case;
use super::{Life, Place};
use hyp_abi::vm::Permissions;
use hyp_abi::vm_call::GuestRange;
use hyp_abi::{FRAME_SIZE, FrameRange, HostReturn, Status};

/// The most borrowers of a frame.
const MOST_BORROWERS: u16 = 4095;

/// The permissions that a register names, if they are any.
fn permissions_of(register: u64) -> Option<Permissions> {
    Permissions::from_bits(register).filter(|permissions| permissions.contains(Permissions::READ))
}

impl Memory {
    /// Why a gfn cannot get a frame.
    fn no_room(&self, slot: u8, gfn: u64) -> Option<Status> {
        if gfn >= self.vms.live[&slot].gfns {
            return Some(Status::GfnOutOfRange);
        }
        match self.vms.live[&slot].places.get(&gfn)? {
            // Where the guest lets the host emulate a device, it wants no page.
            Place::Mine { .. } | Place::Borrowed { .. } | Place::Device => Some(Status::GfnMapped),
            Place::Lost => Some(Status::GfnLost),
        }
    }

    /// What is wrong with giving frames to a VM, whatever the frames are.
    fn bad_gift(&self, slot: u8, range: FrameRange, gfn: u64, protected: bool) -> Vec<Status> {
        let mut reasons: Vec<Status> = bad_range(range).into_iter().collect();
        let vm = &self.vms.live[&slot];
        // The range as a whole, before anything is done.
        if gfn >= vm.gfns || range.frames > vm.gfns - gfn {
            reasons.push(Status::GfnOutOfRange);
        }
        if vm.protected != protected {
            reasons.push(Status::WrongVmKind);
        }
        if vm.life == Life::Dying {
            reasons.push(Status::WrongVmState);
        }
        reasons
    }

    /// Frames that broke are found when they are touched, and are nobody's from then on.
    fn find_broken(&mut self, case: &mut Case<'_>, frames: impl Iterator<Item = u64>) {
        for frame in frames {
            if self.broken.contains(&frame) && case.facts.poisoned(frame) {
                self.turn(case, frame, Holding::Poisoned, false);
            }
        }
    }

    pub(super) fn donate_to_guest(
        &mut self,
        case: &mut Case<'_>,
        slot: u8,
        range: FrameRange,
        gfn: u64,
    ) -> Result<(), String> {
        let reasons = self.bad_gift(slot, range, gfn, true);
        if case.refused(&reasons)? {
            return Ok(());
        }
        let first = range.base / FRAME_SIZE;
        let bad = |index: u64| {
            let frame = first + index;
            let mut reasons: Vec<Status> = self.no_room(slot, gfn + index).into_iter().collect();
            match self.holding(case.layout, frame) {
                None => reasons.push(Status::NotMemory),
                Some(holding) => reasons.extend(refusal(Demand::PlainHost, holding)),
            }
            if self.broken.contains(&frame) {
                reasons.push(Status::Poisoned);
            }
            reasons
        };
        let done = done(case.answer, range.frames, &self.means(case, Some(slot)), bad)?;
        self.whole_answer(case, done)?;
        let zero = self.vms.live[&slot].life != Life::Created;
        for index in 0..done {
            let (frame, gfn) = (first + index, gfn + index);
            self.turn(case, frame, Holding::Guest { slot, gfn }, zero);
            let place = Place::Mine { frame, shared: false };
            self.vm(slot).places.insert(gfn, place);
        }
        let window = done..range.frames.min(done + case.layout.region);
        let layout = case.layout;
        let hosts: Vec<u64> = window
            .map(|index| first + index)
            .filter(|frame| self.holding(layout, *frame) == Some(Holding::Host))
            .collect();
        self.find_broken(case, hosts.into_iter());
        Ok(())
    }

    /// A success says how many frames are done and nothing else; a refusal has no results but pages.
    pub(super) fn whole_answer(&self, case: &Case<'_>, done: u64) -> Result<(), String> {
        match case.answer.status {
            Status::Success => case.success([done, 0, 0]),
            Status::NoMemory | Status::VmNeedsMemory if case.answer.values[1..] == [0, 0] => Ok(()),
            status => {
                let plain = HostReturn::refused(status);
                (*case.answer == plain)
                    .then_some(())
                    .ok_or_else(|| format!("answered {:x?}", case.answer))
            }
        }
    }

    pub(super) fn share_with_guest(
        &mut self,
        case: &mut Case<'_>,
        slot: u8,
        range: FrameRange,
        gfn: u64,
        permissions: u64,
    ) -> Result<(), String> {
        let mut reasons = self.bad_gift(slot, range, gfn, false);
        let permissions = permissions_of(permissions);
        if permissions.is_none() {
            reasons.push(Status::InvalidParameter);
        }
        if case.refused(&reasons)? {
            return Ok(());
        }
        let permissions = permissions.unwrap_or(Permissions::empty());
        let first = range.base / FRAME_SIZE;
        let bad = |index: u64| {
            let mut reasons: Vec<Status> = self.no_room(slot, gfn + index).into_iter().collect();
            match self.holding(case.layout, first + index) {
                None => reasons.push(Status::NotMemory),
                Some(Holding::SharedGuest { borrowers }) if borrowers < MOST_BORROWERS => {}
                Some(Holding::SharedGuest { .. }) => reasons.push(Status::CountOverflow),
                Some(holding) => reasons.extend(refusal(Demand::PlainHost, holding)),
            }
            reasons
        };
        let done = done(case.answer, range.frames, &self.means(case, Some(slot)), bad)?;
        self.whole_answer(case, done)?;
        for index in 0..done {
            let (frame, gfn) = (first + index, gfn + index);
            let borrowers = match self.holding(case.layout, frame) {
                Some(Holding::SharedGuest { borrowers }) => borrowers + 1,
                _ => 1,
            };
            self.turn(case, frame, Holding::SharedGuest { borrowers }, false);
            self.vm(slot)
                .places
                .insert(gfn, Place::Borrowed { frame, permissions });
        }
        Ok(())
    }

    pub(super) fn unshare_from_guest(
        &mut self,
        case: &mut Case<'_>,
        slot: u8,
        range: GuestRange,
    ) -> Result<(), String> {
        let mut reasons = self.bad_gfns(slot, range);
        let vm = &self.vms.live[&slot];
        if vm.protected {
            reasons.push(Status::WrongVmKind);
        }
        if case.refused(&reasons)? {
            return Ok(());
        }
        let bad = |index: u64| match vm.places.get(&(range.gfn + index)) {
            Some(Place::Borrowed { .. }) => Vec::new(),
            _ => vec![Status::GfnNotMapped],
        };
        let done = done(case.answer, range.frames, &self.means(case, Some(slot)), bad)?;
        self.whole_answer(case, done)?;
        for gfn in range.gfn..range.gfn + done {
            let Some(Place::Borrowed { frame, .. }) = self.vm(slot).places.remove(&gfn) else {
                return Err(format!("{gfn:#x} was not borrowed"));
            };
            let holding = match self.holding(case.layout, frame) {
                Some(Holding::SharedGuest { borrowers: 2.. }) => {
                    let Some(Holding::SharedGuest { borrowers }) = self.holding(case.layout, frame) else {
                        return Err("a borrowed frame is not shared".to_owned());
                    };
                    Holding::SharedGuest {
                        borrowers: borrowers - 1,
                    }
                }
                _ => Holding::Host,
            };
            self.turn(case, frame, holding, false);
        }
        Ok(())
    }

    pub(super) fn reclaim_from_guest(
        &mut self,
        case: &mut Case<'_>,
        slot: u8,
        range: GuestRange,
    ) -> Result<(), String> {
        let mut reasons = self.bad_gfns(slot, range);
        let vm = &self.vms.live[&slot];
        if !vm.protected {
            reasons.push(Status::WrongVmKind);
        }
        if vm.life != Life::Dying {
            reasons.push(Status::WrongVmState);
        }
        if case.refused(&reasons)? {
            return Ok(());
        }
        let bad = |index: u64| {
            let Some(Place::Mine { frame, shared }) = vm.places.get(&(range.gfn + index)) else {
                return Vec::new();
            };
            match self.holding(case.layout, *frame) {
                Some(Holding::GuestShared { pins: 1.., .. }) => vec![Status::Pinned],
                _ if !shared && self.broken.contains(frame) => vec![Status::Poisoned],
                _ => Vec::new(),
            }
        };
        let done = done(case.answer, range.frames, &self.means(case, Some(slot)), bad)?;
        self.whole_answer(case, done)?;
        let inside: Vec<(u64, Place)> = vm
            .places
            .range(range.gfn..range.gfn + range.frames)
            .map(|(gfn, place)| (*gfn, *place))
            .collect();
        for (gfn, place) in inside {
            let Place::Mine { frame, shared } = place else {
                continue;
            };
            if gfn < range.gfn + done {
                self.turn(case, frame, Holding::Host, !shared);
                self.vm(slot).places.remove(&gfn);
            } else if gfn < range.gfn + done + case.layout.region {
                self.lose_if_broken(case, slot, gfn, frame);
            }
        }
        Ok(())
    }

    /// A private frame that was found to be broken is no longer the guest's.
    pub(in crate::spec) fn lose_if_broken(&mut self, case: &mut Case<'_>, slot: u8, gfn: u64, frame: u64) {
        if !self.broken.contains(&frame) || !case.facts.poisoned(frame) {
            return;
        }
        self.turn(case, frame, Holding::Poisoned, false);
        let lost = case.facts.lost(slot, gfn);
        let counted = case.facts.lost_count(slot);
        let vm = self.vm(slot);
        vm.places.remove(&gfn);
        if lost {
            vm.places.insert(gfn, Place::Lost);
        }
        if counted == vm.lost + 1 {
            vm.lost = counted;
        }
    }

    pub(super) fn set_permissions(
        &mut self,
        case: &Case<'_>,
        slot: u8,
        range: GuestRange,
        permissions: u64,
    ) -> Result<(), String> {
        let mut reasons = self.bad_gfns(slot, range);
        let wanted = permissions_of(permissions);
        if wanted.is_none() {
            reasons.push(Status::InvalidParameter);
        }
        if self.vms.live[&slot].protected {
            reasons.push(Status::WrongVmKind);
        }
        if case.refused(&reasons)? {
            return Ok(());
        }
        let done = done(case.answer, range.frames, &self.means(case, Some(slot)), |_| {
            Vec::new()
        })?;
        self.whole_answer(case, done)?;
        for (_, place) in self.vm(slot).places.range_mut(range.gfn..range.gfn + done) {
            if let Place::Borrowed { permissions, .. } = place {
                *permissions = wanted.unwrap_or(Permissions::empty());
            }
        }
        Ok(())
    }

    pub(super) fn test_age(&self, case: &Case<'_>, slot: u8, range: GuestRange) -> Result<(), String> {
        let mut reasons = self.bad_gfns(slot, range);
        if self.vms.live[&slot].protected {
            reasons.push(Status::WrongVmKind);
        }
        if case.refused(&reasons)? {
            return Ok(());
        }
        let done = done(case.answer, range.frames, &self.means(case, Some(slot)), |_| {
            Vec::new()
        })?;
        if done == range.frames {
            return case.success([done, case.facts.used(), 0]);
        }
        case.success([done, case.answer.values[1].min(done), 0])
    }

    pub(super) fn audit_guest(&self, case: &Case<'_>, slot: u8, range: GuestRange) -> Result<(), String> {
        if case.refused(&self.bad_gfns(slot, range))? {
            return Ok(());
        }
        let done = done(case.answer, range.frames, &self.means(case, Some(slot)), |_| {
            Vec::new()
        })?;
        case.success([done, 0, 0])
    }
}
