//! Accesses and instructions that may fault, at EL1 and at EL0, and what came of them.
#![expect(
    unsafe_code,
    reason = "runs snippets of assembly, and code that an order names"
)]

use crate::exception::{Fault, Frame, class};
use crate::{MAX_VCPUS, sysreg};
use core::cell::UnsafeCell;
use core::sync::atomic::{AtomicBool, AtomicU64, Ordering::Relaxed};
use payload_protocol::layout::USER_ALIAS;
use payload_protocol::{Access, Level};

/// Bytes of a snippet's slot.
const SLOT: u64 = 16;

unsafe extern "C" {
    static snippets_el1: u8;
    static snippets_el0: u8;
    fn probe_call(registers: *mut [u64; 2], code: u64);
    fn probe_return();
    fn el0_enter(registers: *const [u64; 4], code: u64, spsr: u64);
}

/// What the last probe of a vCPU ran into. Only that vCPU uses it; its handler writes what the probe then reads.
struct Caught {
    is_fault: AtomicBool,
    fault: [AtomicU64; 4],
    registers: [AtomicU64; 2],
}

static CAUGHT: [Caught; MAX_VCPUS] = [const {
    Caught {
        is_fault: AtomicBool::new(false),
        fault: [const { AtomicU64::new(0) }; 4],
        registers: [const { AtomicU64::new(0) }; 2],
    }
}; MAX_VCPUS];

impl Caught {
    fn set(&self, fault: Fault) {
        for (place, value) in self
            .fault
            .iter()
            .zip([fault.esr, fault.far, fault.elr, fault.spsr])
        {
            place.store(value, Relaxed);
        }
        self.is_fault.store(true, Relaxed);
    }

    fn set_registers(&self, registers: [u64; 2]) {
        for (place, value) in self.registers.iter().zip(registers) {
            place.store(value, Relaxed);
        }
    }

    fn fault(&self) -> Option<Fault> {
        let [esr, far, elr, spsr] = self.fault.each_ref().map(|value| value.load(Relaxed));
        self.is_fault
            .load(Relaxed)
            .then_some(Fault { esr, far, elr, spsr })
    }

    fn registers(&self) -> [u64; 2] {
        self.registers.each_ref().map(|value| value.load(Relaxed))
    }
}

/// Where each vCPU writes its own code: a cache line each.
#[repr(C, align(4096))]
struct Code(UnsafeCell<[[u32; 16]; MAX_VCPUS]>);

// SAFETY: each vCPU writes only the line with its own index, and only in `execute`.
unsafe impl Sync for Code {}

static CODE: Code = Code(UnsafeCell::new([[0; 16]; MAX_VCPUS]));

const RET: u32 = 0xd65f_03c0;
const SVC_0: u32 = 0xd400_0001;

/// SPSR_EL1 of a user program: EL0t, exceptions masked.
const EL0_SPSR: u64 = 0b1111 << 6;

/// The address at which `level` sees what the kernel sees at `address`.
fn seen_by(level: Level, address: u64) -> u64 {
    match level {
        Level::El1 => address,
        Level::El0 => address + USER_ALIAS,
    }
}

/// Accesses the virtual address `address` of `level`. Returns what was loaded, or `value` for a store.
pub(crate) fn access(level: Level, access: Access, address: u64, value: u64) -> Result<u64, Fault> {
    let table = match level {
        Level::El1 => &raw const snippets_el1,
        Level::El0 => &raw const snippets_el0,
    };
    let snippet = table.addr() as u64 + access as u64 * SLOT;
    run(level, seen_by(level, snippet), [address, value]).map(|[_, data]| data)
}

/// Calls the code at the virtual address `address` of `level` with `x0`, and returns its x0. At EL1 the code ends
/// with `RET`, at EL0 with `SVC #0`.
pub(crate) fn fetch(level: Level, address: u64, x0: u64) -> Result<u64, Fault> {
    run(level, address, [x0, 0]).map(|[x0, _]| x0)
}

/// Executes one instruction with `x0` and `x1` and returns both as they are afterwards.
pub(crate) fn execute(level: Level, instruction: u32, registers: [u64; 2]) -> Result<[u64; 2], Fault> {
    let end = if level == Level::El1 { RET } else { SVC_0 };
    let line = CODE.0.get().addr() + sysreg::vcpu() * size_of::<[u32; 16]>();
    let code = core::ptr::with_exposed_provenance_mut::<[u32; 2]>(line);
    CODE.0.get().expose_provenance();
    // SAFETY: the line is this vCPU's own, see Code, and nothing runs in it now.
    unsafe { code.write_volatile([instruction, end]) };
    sysreg::synchronize_code(line as u64);
    run(level, seen_by(level, line as u64), registers)
}

fn run(level: Level, code: u64, registers: [u64; 2]) -> Result<[u64; 2], Fault> {
    let caught = &CAUGHT[sysreg::vcpu()];
    caught.is_fault.store(false, Relaxed);
    match level {
        Level::El1 => {
            let mut registers = registers;
            // SAFETY: a snippet changes x0 to x18 and flags only, which the calling convention lets it; what it
            // accesses is the order's affair.
            unsafe { probe_call(&raw mut registers, code) };
            caught.set_registers(registers);
        }
        Level::El0 => {
            let registers = [registers[0], registers[1], 0, 0];
            // SAFETY: as above; code at EL0 cannot do more than code at EL1.
            unsafe { el0_enter(&raw const registers, code, EL0_SPSR) };
        }
    }
    match caught.fault() {
        Some(fault) if !(level == Level::El0 && fault.class() == class::SVC) => Err(fault),
        _ => Ok(caught.registers()),
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
    CAUGHT[sysreg::vcpu()].set(fault);
    frame.elr = resume;
    true
}

/// Called by the handler for exceptions from EL0, all of which are probes.
pub(crate) fn caught_at_el0(frame: &mut Frame, fault: Fault) {
    let caught = &CAUGHT[sysreg::vcpu()];
    caught.set_registers([frame.x[0], frame.x[1]]);
    caught.set(fault);
}

core::arch::global_asm!(include_str!("../../asm/snippets.S"));
