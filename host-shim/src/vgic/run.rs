//! Into list registers before a vCPU runs, and back after it.

use super::bank::Folded;
use super::choice::Choice;
use super::list::{ListRegister, Load, ended_elsewhere};
use super::vcpu_set::ones;
use super::{LocalState, PRIVATE, Spis, VcpuSet, Vgic};
use crate::vcpu::{Interrupts, ListRegisters};
use arrayvec::ArrayVec;
use core::mem;
use core::sync::atomic::Ordering;
use hyp_abi::run_page::MAX_LIST_REGISTERS;

/// The most that EOIcount can say.
const MAX_ENDED_ELSEWHERE: usize = 31;

/// What came back from a run.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Synced {
    /// Other vCPUs that must look.
    pub kicks: VcpuSet,
    /// Level-sensitive SPIs that the guest has ended: a line that is held up until then is to be looked at.
    pub ended: ArrayVec<u32, { MAX_LIST_REGISTERS + MAX_ENDED_ELSEWHERE }>,
}

impl Vgic {
    /// Fills list registers for a vCPU that is to run. `None`: they are as they should be already, which is empty.
    ///
    /// If the vCPU could not be entered with it, [`Vgic::cancel`] takes it back.
    #[must_use]
    pub fn flush(&self, vcpu: usize) -> Option<Load> {
        let local = self.local(vcpu)?;
        let state = &mut *local.state.lock();
        let back = self.fold_unseen(vcpu, state);
        state.owed |= back;
        let deliver = self.is_enabled();
        let mut choice = Choice::new(self.interface.list_registers);
        for at in ones(state.bank.deliverable() | state.bank.active) {
            choice.consider(&state.bank, at, 0, deliver);
        }
        let mut spis = self.needs_attention(vcpu).then(|| self.spis.lock());
        if let Some(spis) = &mut spis {
            let mut any = false;
            for (first, row) in spis.rows() {
                for at in ones(row.bank.deliverable() | row.bank.active) {
                    if row.whose(at, self.present).contains(vcpu) {
                        any = true;
                        choice.consider(&row.bank, at, first, deliver);
                    }
                }
            }
            if !any {
                let other = !VcpuSet::one(vcpu).bits();
                self.attention.fetch_and(other, Ordering::SeqCst);
            }
        }
        if choice.is_empty() && state.clean {
            return None;
        }
        let chosen = choice.choose();
        let mut list = ListRegisters::new();
        for candidate in &chosen.list {
            let at = (candidate.intid % 32) as usize;
            let bank = if candidate.intid < PRIVATE {
                &mut state.bank
            } else {
                let row = (spis.as_mut()).and_then(|spis| spis.row((candidate.intid / 32) as usize));
                let Some(row) = row else { continue };
                row.own(at, vcpu);
                &mut row.bank
            };
            let mut register = bank.list(at, candidate.offer);
            register.tell_end |= chosen.tell_ends;
            list.push(register.encode(candidate.intid));
        }
        state.left_out = chosen.active_left_out;
        state.clean = false;
        state.emptied = list.is_empty();
        state.loaded.clone_from(&list);
        Some(Load {
            control: chosen.control,
            list,
        })
    }

    /// Takes the list registers of a vCPU back after its last exit, and what that says of its timer.
    pub fn sync(&self, vcpu: usize, interrupts: &Interrupts) -> Synced {
        let Some(local) = self.local(vcpu) else {
            return Synced::default();
        };
        let state = &mut *local.state.lock();
        let mut synced = self.fold(vcpu, state, interrupts);
        synced.kicks |= mem::take(&mut state.owed);
        state.clean |= mem::take(&mut state.emptied);
        let timer = self.timer.load(Ordering::Relaxed) as usize;
        state.bank.drive(timer, interrupts.timer_is_due());
        synced
    }

    /// Takes back what a flush filled, as the vCPU was not entered with it. Returns the vCPUs that must look.
    pub fn cancel(&self, vcpu: usize) -> VcpuSet {
        let Some(local) = self.local(vcpu) else {
            return VcpuSet::EMPTY;
        };
        let state = &mut *local.state.lock();
        self.fold_unseen(vcpu, state) | mem::take(&mut state.owed)
    }

    fn fold_unseen(&self, vcpu: usize, state: &mut LocalState) -> VcpuSet {
        state.emptied = false;
        if state.loaded.is_empty() {
            return VcpuSet::EMPTY;
        }
        let unseen = Interrupts {
            list: state.loaded.clone(),
            ..Interrupts::default()
        };
        self.fold(vcpu, state, &unseen).kicks
    }

    /// Takes back what was loaded. Which interrupt a list register is for is known here; what is read back says only
    /// what became of it.
    fn fold(&self, vcpu: usize, state: &mut LocalState, interrupts: &Interrupts) -> Synced {
        let loaded = mem::take(&mut state.loaded);
        let left_out = mem::take(&mut state.left_out);
        let mut synced = Synced::default();
        let has_spis = loaded.iter().any(|was| ListRegister::intid(*was) >= PRIVATE);
        let mut spis = (has_spis || left_out > 0).then(|| self.spis.lock());
        for (index, was) in loaded.iter().enumerate() {
            let now = ListRegister::decode(*interrupts.list.get(index).unwrap_or(was));
            let intid = ListRegister::intid(*was);
            let at = (intid % 32) as usize;
            if intid < PRIVATE {
                state.bank.fold(at, now);
                continue;
            }
            let row = (spis.as_mut()).and_then(|spis| spis.row((intid / 32) as usize));
            let Some(row) = row else { continue };
            let Folded { level_ended } = row.bank.fold(at, now);
            if level_ended {
                synced.ended.push(intid);
            }
            synced.kicks |= self.settle(row, 1 << at);
        }
        if let Some(spis) = &mut spis {
            for _ in 0..left_out.min(ended_elsewhere(interrupts.control)) {
                self.end_most_urgent(vcpu, state, spis, &loaded, &mut synced);
            }
        }
        synced.kicks = synced.kicks.without(vcpu);
        synced
    }

    /// Ends the most urgent of the active interrupts that were in no list register.
    fn end_most_urgent(
        &self,
        vcpu: usize,
        state: &mut LocalState,
        spis: &mut Spis,
        loaded: &ListRegisters,
        synced: &mut Synced,
    ) {
        let was_loaded = |intid: u32| loaded.iter().any(|was| ListRegister::intid(*was) == intid);
        let private = ones(state.bank.active).map(|at| (state.bank.urgency(at), at as u32));
        let shared = spis.rows().flat_map(|(first, row)| {
            let row = &*row;
            ones(row.bank.active)
                .filter(move |at| row.whose(*at, self.present).contains(vcpu))
                .map(move |at| (row.bank.urgency(at), first + at as u32))
        });
        let urgent = private
            .chain(shared)
            .filter(|(_, intid)| !was_loaded(*intid))
            .min();
        let Some((_, intid)) = urgent else { return };
        let (bank, bit) = ((intid / 32) as usize, 1 << (intid % 32));
        if intid < PRIVATE {
            state.bank.end(bit);
        } else if let Some(row) = spis.row(bank) {
            row.bank.end(bit);
            if row.bank.edge & bit == 0 {
                synced.ended.push(intid);
            }
            // Its line may be high still, and it may go to another vCPU by now.
            synced.kicks |= self.settle(row, bit);
        }
    }

    /// Whether an interrupt is pending, enabled, and not in a list register of the vCPU: it must not wait.
    ///
    /// The CPU interface can hold it back (priority mask, groups), which only EL2 knows: then the guest waits again.
    pub fn is_pending(&self, vcpu: usize) -> bool {
        let Some(local) = self.local(vcpu) else {
            return false;
        };
        if !self.is_enabled() {
            return false;
        }
        let bank = &local.state.lock().bank;
        if bank.deliverable() & !bank.active != 0 {
            return true;
        }
        self.needs_attention(vcpu)
            && (self.spis.lock().rows()).any(|(_, row)| {
                ones(row.bank.deliverable() & !row.bank.active)
                    .any(|at| row.whose(at, self.present).contains(vcpu))
            })
    }
}
