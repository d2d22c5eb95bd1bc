//! One run of a vCPU: what the host said to the exit before, what the guest did, and why it stopped.

use super::super::Memory;
use super::call::Case;
use super::guest::{
    At, Event, Instruction, Reach, Registers, Then, Waits, answered, is_external_abort, narrow,
};
use hyp_abi::guest_call::INVALID_PARAMETER;
use hyp_abi::run_page::ExitReason;
use hyp_abi::{FRAME_SIZE, Status, VcpuRegister};

/// What the host writes to the entry record.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Entry {
    /// The flags.
    pub flags: u64,
    /// The answer, and its values.
    pub answer: u64,
    /// The answer's values.
    pub values: [u64; 4],
    /// How many list registers.
    pub list: u64,
}

/// `EntryFlags::ANSWER` and `EntryFlags::INTERRUPTS`.
const ANSWER: u64 = 1;
const INTERRUPTS: u64 = 2;
const REFUSE: u64 = 1;
const DONE: u64 = 2;

/// Bytes of an instruction.
const INSTRUCTION: u64 = 4;

impl Entry {
    /// An answer to the last exit.
    #[must_use]
    pub const fn answer(answer: u64, values: [u64; 4]) -> Self {
        Self {
            flags: ANSWER,
            answer,
            values,
            list: 0,
        }
    }

    /// The number of the answer that it gives.
    const fn given(&self) -> u64 {
        if self.flags & ANSWER == 0 { 0 } else { self.answer }
    }

    /// Whether it has no meaning to a vCPU that waits so.
    fn is_senseless(&self, waits: &Waits) -> bool {
        let refusable = matches!(
            waits,
            Waits::For(
                ExitReason::Pinned | ExitReason::MemoryFault | ExitReason::MmioRead | ExitReason::MmioWrite,
                _
            )
        );
        let doable = matches!(
            waits,
            Waits::For(
                ExitReason::MmioRead | ExitReason::MmioWrite | ExitReason::HostService,
                _
            )
        );
        let fits = match self.given() {
            0 => true,
            REFUSE => refusable,
            DONE => doable,
            _ => false,
        };
        !fits || self.flags & !(ANSWER | INTERRUPTS) != 0
    }
}

/// A run as it was seen.
#[derive(Clone, Debug)]
pub struct Seen {
    /// What the CPU saw.
    pub events: Vec<Event>,
    /// The reason of the exit record, and its values; `None` if the call was refused.
    pub exit: Option<(u64, [u64; 7])>,
}

/// The events of a run, and in the end its exit.
struct Story<'a> {
    events: &'a [Event],
    exit: (ExitReason, [u64; 7]),
}

impl Story<'_> {
    /// What follows a trap.
    fn then(&mut self) -> Result<Then, String> {
        match self.events.split_first() {
            Some((Event::Entered(registers), rest)) => {
                self.events = rest;
                Ok(Then::Entered(*registers))
            }
            None => Ok(Then::Exit(self.exit.0, self.exit.1)),
            Some((event, _)) => Err(format!("{event:x?} came without an entry")),
        }
    }
}

impl Memory {
    /// Follows a run.
    ///
    /// # Errors
    /// What is wrong with it.
    pub(in crate::spec) fn run(
        &mut self,
        case: &mut Case<'_>,
        slot: u8,
        index: u64,
        entry: &Entry,
        list_registers: u64,
        seen: &Seen,
    ) -> Result<(), String> {
        let mut reasons = self.cannot_run(slot, index);
        let vcpu = self.vms.live[&slot].vcpus.get(&index);
        let senseless = vcpu.is_some_and(|vcpu| entry.is_senseless(&vcpu.waits))
            || (entry.flags & INTERRUPTS != 0 && entry.list > list_registers);
        if vcpu.is_some_and(|vcpu| self.broken.contains(&vcpu.run_page)) {
            // What the record says is not known, then.
            reasons.push(Status::Poisoned);
        } else if senseless {
            reasons.push(Status::InvalidParameter);
        }
        if case.refused(&reasons)? {
            if !seen.events.is_empty() {
                return Err("a run that is refused ran".to_owned());
            }
            return Ok(());
        }
        let (reason, values) = seen.exit.ok_or("there is no exit record")?;
        let [first, second, ..] = values;
        case.success([reason, first, second])?;
        let reason = ExitReason::try_from(reason).map_err(|_| "an exit without a reason")?;
        let mut story = Story {
            events: &seen.events,
            exit: (reason, values),
        };
        let waits = self.follow(case, slot, index, entry, &mut story)?;
        if let Some(vcpu) = self.vm(slot).vcpus.get_mut(&index) {
            vcpu.waits = waits;
            vcpu.registers.forget();
        }
        Ok(())
    }

    fn follow(
        &mut self,
        case: &mut Case<'_>,
        slot: u8,
        index: u64,
        entry: &Entry,
        story: &mut Story<'_>,
    ) -> Result<Waits, String> {
        let vcpu = self.vms.live[&slot].vcpus[&index].clone();
        let mut second = false;
        match vcpu.waits {
            Waits::For(ExitReason::Pinned, instruction) if entry.given() == 0 => {
                // The host says that the page is free; the guest's call is made once more, by the guest or for it.
                second = true;
                let entered_at = match story.events.first() {
                    Some(Event::Entered(registers)) => Some(registers.at),
                    _ => None,
                };
                if entered_at != Some(At::Same) {
                    let then = story.then()?;
                    let waits = self.trapped(case, slot, index, instruction, true, &then)?;
                    if matches!(then, Then::Exit(..)) {
                        return Ok(waits);
                    }
                    second = false;
                } else {
                    story.then()?;
                }
            }
            waits => {
                let then = story.then()?;
                match then {
                    Then::Entered(registers) => first_entry(&vcpu, index, waits, entry, &registers)?,
                    Then::Exit(reason, values) => {
                        // Only an interrupt comes before the guest does.
                        return ends(case, reason, values, waits);
                    }
                }
            }
        }
        if let Some(vcpu) = self.vm(slot).vcpus.get_mut(&index) {
            vcpu.start = None;
        }
        self.go_on(case, slot, index, second, story)
    }

    fn go_on(
        &mut self,
        case: &mut Case<'_>,
        slot: u8,
        index: u64,
        mut second: bool,
        story: &mut Story<'_>,
    ) -> Result<Waits, String> {
        while let Some((event, rest)) = story.events.split_first() {
            story.events = rest;
            match *event {
                Event::Entered(_) => return Err("the guest was entered out of turn".to_owned()),
                Event::Answered(call, answer) => {
                    answered(call, self.vms.live[&slot].protected, &answer)?;
                }
                Event::Reached(instruction, frame) => {
                    self.reached(slot, instruction, frame)?;
                    if let Instruction::Access {
                        reach: Reach::Store(value),
                        ..
                    } = instruction
                    {
                        case.effect.contents.push((frame, Some(value)));
                    }
                }
                Event::Trapped(instruction) => {
                    let then = story.then()?;
                    if let Then::Exit(ExitReason::Interrupt, values) = then
                        && case.world.interrupt_after.is_some()
                    {
                        // It was stopped on the way: nothing is known of what it waits for but that it goes on.
                        return ends(
                            case,
                            ExitReason::Interrupt,
                            values,
                            Waits::For(ExitReason::Interrupt, instruction),
                        );
                    }
                    let waits = self.trapped(case, slot, index, instruction, second, &then)?;
                    second = false;
                    if matches!(then, Then::Exit(..)) {
                        return Ok(waits);
                    }
                }
                Event::Interrupted => {
                    let (reason, values) = story.exit;
                    if !story.events.is_empty() || (reason, values) != (ExitReason::Interrupt, [0; 7]) {
                        return Err(format!("an interrupt ended in {reason:?} {values:x?}"));
                    }
                    return Ok(Waits::Nothing);
                }
            }
        }
        Err("the guest stopped without a reason".to_owned())
    }
}

/// The vCPU stopped for an interrupt before the guest did anything.
fn ends(case: &Case<'_>, reason: ExitReason, values: [u64; 7], waits: Waits) -> Result<Waits, String> {
    if (reason, values) == (ExitReason::Interrupt, [0; 7]) && case.world.interrupt_after.is_some() {
        return Ok(waits);
    }
    Err(format!("{reason:?} {values:x?} came before the guest ran"))
}

/// What a vCPU finds in its registers as its run begins.
fn first_entry(
    vcpu: &super::Vcpu,
    index: u64,
    waits: Waits,
    entry: &Entry,
    registers: &Registers,
) -> Result<(), String> {
    let wrong = || {
        Err(format!(
            "it waited {waits:x?}, was told {entry:x?}, and found {registers:x?}; known were {:x?}",
            vcpu.registers
        ))
    };
    if let Some((start, argument)) = vcpu.start {
        let right = is_at(registers.at, start) && registers.x == [argument, 0, 0, 0];
        return if right { Ok(()) } else { wrong() };
    }
    let known = |register| vcpu.registers.get(index, register);
    let pc = known(VcpuRegister::Pc);
    // `bytes` behind where it was put, or else where its instruction and its exit have left it.
    let at = |bytes: u64, usual: At| match pc {
        Some(pc) => is_at(registers.at, pc.wrapping_add(bytes)),
        None => registers.at == usual,
    };
    let holds = |usual: [Option<u64>; 4]| {
        (0..).zip(usual).zip(registers.x).all(|((number, usual), found)| {
            let expected = known(VcpuRegister::General(number)).or(usual);
            expected.is_none_or(|expected| expected == found)
        })
    };
    let right = match waits {
        Waits::Nothing | Waits::For(ExitReason::Interrupt, _) => {
            (pc.is_none() || at(0, At::Same)) && holds([None; 4])
        }
        Waits::Next => at(0, At::Next) && holds([None; 4]),
        Waits::Results(values) => at(0, At::Next) && holds(values.map(Some)),
        Waits::For(reason, instruction) => match (entry.given(), instruction) {
            (0, _) => at(0, At::Same) && holds([None; 4]),
            (DONE, Instruction::Access { reach, bytes, .. }) => {
                let read = reach == Reach::Load && !vcpu.registers.odd;
                at(INSTRUCTION, At::Next)
                    && holds([None; 4])
                    && (!read || registers.loaded == narrow(entry.values[0], u64::from(bytes)))
            }
            (DONE, _) => at(INSTRUCTION, At::Next) && registers.x == entry.values,
            (_, Instruction::Access { .. }) if vcpu.registers.odd => true,
            (_, Instruction::Access { reach, .. }) => return is_external_abort(*registers, reach),
            _ => {
                reason != ExitReason::HostService
                    && at(INSTRUCTION, At::Next)
                    && registers.x[0] == INVALID_PARAMETER.cast_unsigned()
            }
        },
    };
    if right { Ok(()) } else { wrong() }
}

/// Whether `at` is this address. The first pages are where the CPU puts what a guest does, and its vectors.
fn is_at(at: At, pc: u64) -> bool {
    at == At::Address(pc) || pc < 2 * FRAME_SIZE
}
