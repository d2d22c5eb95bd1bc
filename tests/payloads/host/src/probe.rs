//! Accesses and instructions that may fault, at EL1 and at EL0, and what came of them.
//!
//! Each runs as a snippet of one instruction. If it faults, the handler records the [`Fault`] as it arrived and the
//! probe returns it; nothing is retried or hidden.
#![expect(
    unsafe_code,
    reason = "runs snippets of assembly, and code that a case writes"
)]

use crate::exception::{Fault, Frame, class};
use crate::paging::USER_ALIAS;
use crate::{cpu, sysreg};
use core::cell::UnsafeCell;
pub(crate) use payload_protocol::Access;
use spin::mutex::TicketMutex;

/// Where a probe runs.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Level {
    /// As the kernel does.
    El1,
    /// As a user program does.
    El0,
}

impl Level {
    /// Both.
    pub(crate) const ALL: [Self; 2] = [Self::El1, Self::El0];

    /// The address at which this level sees a physical address.
    pub(crate) fn address(self, physical: u64) -> u64 {
        match self {
            Self::El1 => physical,
            Self::El0 => physical + USER_ALIAS,
        }
    }

    /// The class of a data abort that comes from here.
    pub(crate) fn data_abort(self) -> u64 {
        match self {
            Self::El1 => class::DATA_ABORT_SAME,
            Self::El0 => class::DATA_ABORT_LOWER,
        }
    }

    /// The class of an instruction abort that comes from here.
    pub(crate) fn instruction_abort(self) -> u64 {
        match self {
            Self::El1 => class::INSTRUCTION_ABORT_SAME,
            Self::El0 => class::INSTRUCTION_ABORT_LOWER,
        }
    }
}

/// Bytes of a snippet's slot.
const SLOT: u64 = 16;

unsafe extern "C" {
    static snippets_el1: u8;
    static snippets_el0: u8;
    fn probe_call(registers: *mut [u64; 2], code: u64);
    fn probe_return();
    fn el0_enter(registers: *const [u64; 4], code: u64, spsr: u64);
}

/// What the last probe of a CPU ran into.
struct Caught {
    fault: TicketMutex<Option<Fault>>,
    registers: TicketMutex<[u64; 2]>,
}

static CAUGHT: [Caught; cpu::MAX] = [const {
    Caught {
        fault: TicketMutex::new(None),
        registers: TicketMutex::new([0; 2]),
    }
}; cpu::MAX];

/// A page that each CPU writes its own snippets to.
#[repr(C, align(4096))]
struct CodePage(UnsafeCell<[u32; 1024]>);

// SAFETY: each CPU writes only the page with its own number, and only in `execute`.
unsafe impl Sync for CodePage {}

static CODE: [CodePage; cpu::MAX] = [const { CodePage(UnsafeCell::new([0; 1024])) }; cpu::MAX];

const RET: u32 = 0xd65f_03c0;
const SVC_0: u32 = 0xd400_0001;

/// SPSR_EL1 of a user program: EL0t, exceptions masked, and flags that a faithful exception hands on.
pub(crate) const EL0_SPSR: u64 = 0b1010 << 28 | 0b1111 << 6;

/// Where the snippet for an access at a level stands, as that level sees it.
pub(crate) fn snippet(level: Level, access: Access) -> u64 {
    let table = match level {
        Level::El1 => &raw const snippets_el1,
        Level::El0 => &raw const snippets_el0,
    };
    level.address(table.addr() as u64 + access as u64 * SLOT)
}

/// Accesses the virtual address `address` of `level`. Returns what was loaded, or `value` for a store.
pub(crate) fn access(level: Level, access: Access, address: u64, value: u64) -> Result<u64, Fault> {
    run(level, snippet(level, access), [address, value]).map(|[_, data]| data)
}

/// Calls the code at the virtual address `address` of `level` with `x0`, and returns its x0. At EL1 the code ends
/// with `RET`, at EL0 with `SVC #0`.
pub(crate) fn fetch(level: Level, address: u64, x0: u64) -> Result<u64, Fault> {
    run(level, address, [x0, 0]).map(|[x0, _]| x0)
}

/// Where [`execute`] puts its instruction, as `level` sees it.
pub(crate) fn code_address(level: Level) -> u64 {
    level.address(CODE[cpu::number()].0.get().addr() as u64)
}

/// Executes one instruction with `x0` and `x1` and returns both as they are afterwards.
///
/// The instruction must leave all other registers, the stack and the memory that Rust relies on alone; the
/// callers name system instructions and calls only.
pub(crate) fn execute(level: Level, instruction: u32, registers: [u64; 2]) -> Result<[u64; 2], Fault> {
    let page = CODE[cpu::number()].0.get();
    let end = if level == Level::El1 { RET } else { SVC_0 };
    // SAFETY: the page is this CPU's own, see CodePage, and nothing runs in it now.
    unsafe { page.cast::<[u32; 2]>().write_volatile([instruction, end]) };
    sysreg::synchronize_code(page.addr() as u64);
    run(level, code_address(level), registers)
}

/// The code that ends a snippet at `level`.
pub(crate) fn end_of_code(level: Level) -> u32 {
    match level {
        Level::El1 => RET,
        Level::El0 => SVC_0,
    }
}

fn run(level: Level, code: u64, registers: [u64; 2]) -> Result<[u64; 2], Fault> {
    // An interrupt between the snippet and the look at what was caught is harmless: its handler runs no probe.
    let caught = &CAUGHT[cpu::number()];
    *caught.fault.lock() = None;
    match level {
        Level::El1 => {
            let mut registers = registers;
            // SAFETY: a snippet changes x0 to x18 and flags only, which the calling convention lets it; what it
            // accesses is the case's affair: frames it owns, device registers, or memory that is refused.
            unsafe { probe_call(&raw mut registers, code) };
            *caught.registers.lock() = registers;
        }
        Level::El0 => {
            let registers = [registers[0], registers[1], 0, 0];
            // SAFETY: as above; code at EL0 cannot do more than code at EL1.
            unsafe { el0_enter(&raw const registers, code, EL0_SPSR) };
        }
    }
    match caught.fault.lock().take() {
        Some(fault) if !(level == Level::El0 && fault.class() == class::SVC) => Err(fault),
        _ => Ok(*caught.registers.lock()),
    }
}

/// Called by the handler for exceptions from EL1. Returns whether the exception was a probe's; if so it is recorded
/// and the frame goes back to the probe.
pub(crate) fn caught_at_el1(frame: &mut Frame, fault: Fault) -> bool {
    let resume = probe_return as *const () as usize as u64;
    // A snippet calls nothing, so x30 still says that a probe called it.
    if frame.x[30] != resume {
        return false;
    }
    *CAUGHT[cpu::number()].fault.lock() = Some(fault);
    frame.elr = resume;
    true
}

/// Called by the handler for exceptions from EL0, all of which are probes.
pub(crate) fn caught_at_el0(frame: &mut Frame, fault: Fault) {
    let caught = &CAUGHT[cpu::number()];
    *caught.registers.lock() = [frame.x[0], frame.x[1]];
    *caught.fault.lock() = Some(fault);
}

core::arch::global_asm!(include_str!("../../asm/snippets.S"));
