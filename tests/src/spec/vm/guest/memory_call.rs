//! The calls of a guest about pages: lent, taken back, given up; devices allowed, and no longer.

use super::super::super::{Holding, Memory};
use super::super::Place;
use super::super::answer::lacking;
use super::super::call::Case;
use super::{At, Instruction, NO_SUCH_CALL, REFUSED, Then, Waits, expect_x0, refused_call, wrong};
use hyp_abi::FRAME_SIZE;
use hyp_abi::guest_call::GuestCallId;
use hyp_abi::run_page::{AccessFlags, ExitReason};

/// What may come of one page that a guest's call names.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Page {
    Done,
    /// It may be done or refused: not said.
    Either,
    Refused,
    Absent,
    Pinned,
}

impl Memory {
    /// What one page of a range is to a call.
    fn page(&self, case: &Case<'_>, slot: u8, call: GuestCallId, gfn: u64) -> Page {
        let vm = &self.vms.live[&slot];
        if gfn >= vm.gfns {
            return Page::Refused;
        }
        let place = vm.places.get(&gfn).copied();
        let pinned = |frame: u64| {
            matches!(
                self.holding(case.layout, frame),
                Some(Holding::GuestShared { pins: 1.., .. })
            )
        };
        match (call, place) {
            (GuestCallId::MemShare, Some(Place::Mine { shared: false, .. }))
            | (GuestCallId::MmioGuardUnmap | GuestCallId::MmioGuardRangeUnmap, Some(Place::Device)) => {
                Page::Done
            }
            (GuestCallId::MemShare, None) if vm.is_memory(gfn) => Page::Absent,
            (
                GuestCallId::MemUnshare | GuestCallId::MemRelinquish,
                Some(Place::Mine { frame, shared: true }),
            ) if pinned(frame) => Page::Pinned,
            (GuestCallId::MemUnshare, Some(Place::Mine { shared: true, .. })) => Page::Done,
            (GuestCallId::MemRelinquish, Some(Place::Mine { .. })) => Page::Done,
            (GuestCallId::MmioGuardMap | GuestCallId::MmioGuardRangeMap, None) if !vm.is_memory(gfn) => {
                Page::Done
            }
            // To allow or end what is already so, or never was, is not spoken of.
            (GuestCallId::MmioGuardMap | GuestCallId::MmioGuardRangeMap, Some(Place::Device))
            | (GuestCallId::MmioGuardUnmap | GuestCallId::MmioGuardRangeUnmap, None) => Page::Either,
            _ => Page::Refused,
        }
    }

    pub(in crate::spec::vm) fn memory_call(
        &mut self,
        case: &mut Case<'_>,
        slot: u8,
        call: GuestCallId,
        x: [u64; 4],
        second: bool,
        then: &Then,
    ) -> Result<Waits, String> {
        let instruction = Instruction::Call(0, x);
        let [_, address, count, zero] = x;
        let is_guard = !matches!(
            call,
            GuestCallId::MemShare | GuestCallId::MemUnshare | GuestCallId::MemRelinquish
        );
        let single = matches!(call, GuestCallId::MmioGuardMap | GuestCallId::MmioGuardUnmap);
        let protected = self.vms.live[&slot].protected;
        if !protected && !is_guard {
            return expect_x0(then, NO_SUCH_CALL, &instruction);
        }
        let (count, zero) = if single { (1, count | zero) } else { (count, zero) };
        let granules = if count == 0 && !is_guard { 1 } else { count };
        let first = address / FRAME_SIZE;
        let bad = !address.is_multiple_of(FRAME_SIZE) || zero != 0 || granules == 0;
        let head = self.page(case, slot, call, first);
        // A range that runs out of what the VM has may be refused as a whole.
        let overlong = granules > self.vms.live[&slot].gfns.saturating_sub(first);
        let guarded = case.facts.guard(slot);
        let judge = || match *then {
            _ if bad => refused_call(then, &instruction).map(|()| (0, Waits::Next)),
            Then::Entered(registers) if registers.at == At::Next && registers.x[0] == REFUSED => {
                let may = overlong
                    || matches!(head, Page::Refused | Page::Either)
                    || (head == Page::Pinned && second);
                if !may || registers.x[1..] != [0; 3] {
                    return Err(format!("{}: the page is {head:?}", wrong(then, &instruction)));
                }
                Ok((0, Waits::Next))
            }
            Then::Entered(registers)
                if registers.at == At::Next
                    && registers.x[0] == 0
                    && call != GuestCallId::MemRelinquish
                    && registers.x[2..] == [0; 2] =>
            {
                let done = if single { 1 } else { registers.x[1] };
                Ok((done, Waits::Next))
            }
            Then::Exit(ExitReason::Relinquished, [gfn, done, rest @ ..])
                if call == GuestCallId::MemRelinquish && gfn == first && rest == [0; 5] =>
            {
                Ok((done, Waits::Results([0, done, 0, 0])))
            }
            Then::Exit(reason @ ExitReason::MemoryFault, values)
                if head == Page::Absent && values == [first, AccessFlags::CALL.bits(), 0, 0, 0, 0, 0] =>
            {
                Ok((0, Waits::For(reason, instruction)))
            }
            Then::Exit(reason @ ExitReason::Pinned, values)
                if head == Page::Pinned && !second && values == [first, 0, 0, 0, 0, 0, 0] =>
            {
                Ok((0, Waits::For(reason, instruction)))
            }
            Then::Exit(reason @ ExitReason::MemoryNeeded, [pages, rest @ ..]) if rest == [0; 6] => {
                lacking("pages of the reserve", pages, self.vms.live[&slot].reserve)?;
                if !matches!(head, Page::Done | Page::Either) {
                    return Err(format!("{}: the page is {head:?}", wrong(then, &instruction)));
                }
                Ok((0, Waits::For(reason, instruction)))
            }
            _ => Err(format!("{}: the page is {head:?}", wrong(then, &instruction))),
        };
        let (done, waits) = judge()?;
        if matches!(call, GuestCallId::MmioGuardMap | GuestCallId::MmioGuardRangeMap) {
            // Done in part is done; refused changes nothing. Whether the guard is in force is known at the end of the run
            // only, where it is compared; until then another call may have put it there.
            self.vm(slot).guard |= done > 0;
            if self.vm(slot).guard && !guarded {
                return Err(format!(
                    "{done} devices are allowed, and the guard is not in force"
                ));
            }
        }
        let finished = !matches!(waits, Waits::For(..));
        let success = finished && !matches!(*then, Then::Entered(registers) if registers.x[0] != 0);
        if success && !(1..=granules).contains(&done) {
            return Err(format!("{done} of {granules} pages are done"));
        }
        for gfn in first..first + done {
            let page = self.page(case, slot, call, gfn);
            if !matches!(page, Page::Done | Page::Either) {
                return Err(format!("{gfn:#x} is said to be done, and is {page:?}"));
            }
            self.finish_page(case, slot, call, gfn);
        }
        Ok(waits)
    }

    fn finish_page(&mut self, case: &mut Case<'_>, slot: u8, call: GuestCallId, gfn: u64) {
        let place = self.vms.live[&slot].places.get(&gfn).copied();
        match (call, place) {
            (GuestCallId::MemShare, Some(Place::Mine { frame, .. })) => {
                let holding = Holding::GuestShared { slot, gfn, pins: 0 };
                self.turn(case, frame, holding, false);
                self.vm(slot)
                    .places
                    .insert(gfn, Place::Mine { frame, shared: true });
            }
            (GuestCallId::MemUnshare, Some(Place::Mine { frame, .. })) => {
                self.turn(case, frame, Holding::Guest { slot, gfn }, false);
                self.vm(slot)
                    .places
                    .insert(gfn, Place::Mine { frame, shared: false });
            }
            (GuestCallId::MemRelinquish, Some(Place::Mine { frame, .. }))
                if self.broken.contains(&frame) && case.facts.poisoned(frame) =>
            {
                // A page that turns out to be broken is given up all the same, and nobody's.
                self.turn(case, frame, Holding::Poisoned, false);
                let vm = self.vm(slot);
                vm.places.remove(&gfn);
                vm.relinquished += 1;
            }
            (GuestCallId::MemRelinquish, Some(Place::Mine { frame, .. })) => {
                self.turn(case, frame, Holding::Relinquished, true);
                let vm = self.vm(slot);
                vm.places.remove(&gfn);
                vm.relinquished += 1;
            }
            (GuestCallId::MmioGuardMap | GuestCallId::MmioGuardRangeMap, _) => {
                self.vm(slot).places.insert(gfn, Place::Device);
            }
            (GuestCallId::MmioGuardUnmap | GuestCallId::MmioGuardRangeUnmap, _) => {
                self.vm(slot).places.remove(&gfn);
            }
            _ => {}
        }
    }
}
