//! Guests that follow a program.

use super::calls::Answer;
use super::{Fake, Life, Owner, State, std};
use alloc::sync::Arc;
use core::sync::atomic::{AtomicBool, Ordering};
use hyp_abi::Status;
use hyp_abi::run_page::{
    AccessFlags, Answer as HostAnswer, ENTRY_ANSWER, ENTRY_FLAGS, ENTRY_LIST, ENTRY_LIST_COUNT, ENTRY_VALUES,
    EXIT_LIST, EXIT_LIST_COUNT, EXIT_VALUES, EntryFlags, ExitReason,
};
use hyp_abi::vm::Permissions;

/// What a guest does. Calls note what they answered.
#[derive(Clone, Debug)]
pub enum Act {
    /// Fills a page.
    Write(u64, u8),
    /// Finds every byte of a page to be that.
    Expect(u64, u8),
    /// Shares a page with the host.
    Share(u64),
    /// Ends that.
    Unshare(u64),
    /// Gives pages up: the first, and how many.
    Relinquish(u64, u64),
    /// Exits with these values.
    Exit(ExitReason, [u64; 7]),
    /// Runs without an exit until the flag is set; sets the other one when it is there.
    Loop(Arc<AtomicBool>, Arc<AtomicBool>),
}

/// What came of one act.
enum Outcome {
    Done,
    /// Done, and the call answered that.
    Result(i64),
    /// Exits. It is done again when the vCPU runs next.
    Stop(ExitReason, [u64; 7]),
    /// Exits, and is done.
    Leave(ExitReason, [u64; 7]),
}

fn stop(reason: ExitReason, v0: u64, v1: u64) -> Outcome {
    Outcome::Stop(reason, [v0, v1, 0, 0, 0, 0, 0])
}

impl Fake {
    pub(super) fn run(&self, register: u64, index: u64) -> Answer {
        let slot = self.state().enter(register, index)?;
        let (reason, values) = loop {
            let mut state = self.state();
            if core::mem::take(&mut state.interrupt) {
                break (ExitReason::Interrupt, [0; 7]);
            }
            let vcpu = state.vms.get_mut(&slot).unwrap().vcpus.get_mut(&index).unwrap();
            let Some(act) = vcpu.program.front().cloned() else {
                break (ExitReason::Interrupt, [0; 7]);
            };
            if let Act::Loop(go, there) = &act {
                drop(state);
                there.store(true, Ordering::SeqCst);
                while !go.load(Ordering::SeqCst) {
                    std::thread::yield_now();
                }
                state = self.state();
            }
            let retried = state.vms[&slot].vcpus[&index].retried;
            let outcome = state.act(slot, &act, retried);
            let vm = state.vms.get_mut(&slot).unwrap();
            let vcpu = vm.vcpus.get_mut(&index).unwrap();
            vcpu.retried = false;
            match outcome {
                Outcome::Stop(reason, values) => break (reason, values),
                Outcome::Done => {
                    vcpu.program.pop_front();
                }
                Outcome::Result(result) => {
                    vcpu.program.pop_front();
                    vm.results.push(result);
                }
                Outcome::Leave(reason, values) => {
                    vcpu.program.pop_front();
                    if matches!(reason, ExitReason::SystemOff | ExitReason::SystemReset) {
                        vm.life = Life::Off;
                    }
                    break (reason, values);
                }
            }
        };
        let mut state = self.state();
        let vcpu = state.vms.get_mut(&slot).unwrap().vcpus.get_mut(&index).unwrap();
        vcpu.running = false;
        let page = vcpu.run_page;
        for (at, value) in (EXIT_VALUES..).zip(values) {
            *state.word(page, at) = value;
        }
        Ok([reason.into(), values[0], values[1]])
    }
}

impl State {
    /// Begins a run, and applies the entry record.
    fn enter(&mut self, register: u64, index: u64) -> Result<u8, (Status, u64)> {
        let slot = self.vm(register)?;
        let vm = self.vms.get_mut(&slot).unwrap();
        if vm.life != Life::Launched {
            return Err((Status::WrongVmState, 0));
        }
        let vcpu = vm.vcpus.get_mut(&index).ok_or((Status::NoSuchVcpu, 0))?;
        if vcpu.running {
            return Err((Status::VcpuRunning, 0));
        }
        vcpu.running = true;
        let page = vcpu.run_page;
        let flags = EntryFlags::from_bits(*self.word(page, ENTRY_FLAGS)).unwrap();
        if flags.contains(EntryFlags::INTERRUPTS) {
            let count = *self.word(page, ENTRY_LIST_COUNT);
            *self.word(page, EXIT_LIST_COUNT) = count;
            for index in 0..count as usize {
                *self.word(page, EXIT_LIST + index) = *self.word(page, ENTRY_LIST + index);
            }
        }
        if flags.contains(EntryFlags::ANSWER) {
            let answer = HostAnswer::try_from(*self.word(page, ENTRY_ANSWER)).unwrap();
            let value = *self.word(page, ENTRY_VALUES);
            let vm = self.vms.get_mut(&slot).unwrap();
            let vcpu = vm.vcpus.get_mut(&index).unwrap();
            match answer {
                HostAnswer::Retry => vcpu.retried = true,
                HostAnswer::Refuse => {
                    vcpu.program.pop_front();
                    vm.results.push(-3);
                }
                HostAnswer::Done => vm.results.push(value.cast_signed()),
            }
        }
        Ok(slot)
    }

    fn act(&mut self, slot: u8, act: &Act, retried: bool) -> Outcome {
        match act {
            Act::Exit(reason, values) => Outcome::Leave(*reason, *values),
            Act::Loop(..) => Outcome::Done,
            Act::Write(gfn, byte) => match self.access(slot, *gfn, Permissions::WRITE) {
                Ok(frame) => {
                    let word = u64::from_le_bytes([*byte; 8]);
                    self.frames.get_mut(&frame).unwrap().contents().fill(word);
                    Outcome::Done
                }
                Err(outcome) => outcome,
            },
            Act::Expect(gfn, byte) => match self.access(slot, *gfn, Permissions::READ) {
                Ok(frame) => {
                    let word = u64::from_le_bytes([*byte; 8]);
                    let contents = self.frames.get_mut(&frame).unwrap().contents();
                    assert!(contents.iter().all(|there| *there == word), "gfn {gfn:#x}");
                    Outcome::Done
                }
                Err(outcome) => outcome,
            },
            Act::Share(gfn) => {
                let frame = match self.access(slot, *gfn, Permissions::READ) {
                    Ok(frame) => frame,
                    Err(outcome) => return outcome,
                };
                let vm = self.vms.get_mut(&slot).unwrap();
                if !vm.tables.contains(&(gfn >> 9)) {
                    if vm.reserve == 0 {
                        return stop(ExitReason::MemoryNeeded, 1, 0);
                    }
                    vm.reserve -= 1;
                    vm.tables.insert(gfn >> 9);
                }
                if self.owner(frame) != Ok(Owner::Guest { slot }) {
                    return Outcome::Result(-3);
                }
                self.set(frame, Owner::GuestShared { slot, pins: 0 });
                Outcome::Result(0)
            }
            Act::Unshare(gfn) => {
                let Some((frame, _)) = self.vms[&slot].map.get(gfn).copied() else {
                    return Outcome::Result(-3);
                };
                match self.owner(frame).unwrap() {
                    Owner::GuestShared { pins: 0, .. } => {
                        self.set(frame, Owner::Guest { slot });
                        Outcome::Result(0)
                    }
                    Owner::GuestShared { .. } if !retried => stop(ExitReason::Pinned, *gfn, 0),
                    _ => Outcome::Result(-3),
                }
            }
            Act::Relinquish(gfn, count) => {
                for gfn in *gfn..gfn + count {
                    let Some((frame, _)) = self.vms[&slot].map.get(&gfn).copied() else {
                        return Outcome::Result(-3);
                    };
                    if matches!(self.owner(frame), Ok(Owner::GuestShared { pins: 1.., .. })) {
                        return if retried {
                            Outcome::Result(-3)
                        } else {
                            stop(ExitReason::Pinned, gfn, 0)
                        };
                    }
                }
                for gfn in *gfn..gfn + count {
                    let vm = self.vms.get_mut(&slot).unwrap();
                    let (frame, _) = vm.map.remove(&gfn).unwrap();
                    vm.relinquished += 1;
                    if self.broken.contains(&frame) {
                        self.set(frame, Owner::Poisoned);
                        continue;
                    }
                    self.scrub(frame);
                    self.set(frame, Owner::Relinquished);
                }
                Outcome::Leave(ExitReason::Relinquished, [*gfn, *count, 0, 0, 0, 0, 0])
            }
        }
    }

    fn access(&mut self, slot: u8, gfn: u64, permission: Permissions) -> Result<u64, Outcome> {
        let vm = self.vms.get_mut(&slot).unwrap();
        let write = permission == Permissions::WRITE;
        let flags = if write {
            AccessFlags::WRITE
        } else {
            AccessFlags::empty()
        };
        match vm.map.get(&gfn) {
            _ if vm.lost.contains(&gfn) => Err(stop(ExitReason::Lost, gfn, 0)),
            Some((frame, permissions)) if permissions.contains(permission) => {
                vm.used.insert(gfn);
                Ok(*frame)
            }
            _ => Err(stop(ExitReason::MemoryFault, gfn, flags.bits())),
        }
    }
}
