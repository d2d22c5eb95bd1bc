//! One act: a call or an access between two marker instructions, and the line that says what it was.

use crate::bench::mark;
use crate::cases::support::REFUSED;
use crate::console::println;
use crate::cpu;
use crate::guest::exit::Exit;
use crate::guest::run_page::RunPage;
use crate::guest::vcpu::Answer;
use crate::hypercall::Hvc;
use crate::probe::{self, Access, Level};
use crate::registry::{Outcome, TestResult, ensure_eq, fail};
use core::fmt;
use host_shim::Hypercall;
use hyp_abi::run_page::{AccessFlags, ENTRY_ANSWER, ENTRY_FLAGS, ENTRY_VALUES, EXIT_REASON, EXIT_VALUES};
use hyp_abi::{HostCall, Status, VmCall};

/// The marker before an act.
const BEGIN: u16 = 1;

/// The marker after it.
const END: u16 = 2;

/// Words of the entry record that acts use: the flags, the answer and its values.
const ENTRY_WORDS: usize = 6;

/// What a guest does that brings it to EL2.
#[derive(Clone, Copy, Debug)]
pub(super) enum Deed {
    /// `HVC #0` with these registers.
    Call([u64; 7]),
    /// It reaches for a page that its table does not have.
    Fault(u64, AccessFlags),
    /// It reaches for a page that its table does not have for this.
    Denied(u64, AccessFlags),
    /// It reaches for a page that it has not used since the host looked.
    Unused(u64),
    /// It is interrupted.
    Interrupt,
    /// It uses the vector registers for the first time in this run.
    Vectors,
}

impl fmt::Display for Deed {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match *self {
            Self::Call([x0, x1, x2, x3, x4, x5, x6]) => {
                write!(f, "call:{x0:x},{x1:x},{x2:x},{x3:x},{x4:x},{x5:x},{x6:x}")
            }
            Self::Fault(gfn, access) => write!(f, "fault:{gfn:x},{:x}", access.bits()),
            Self::Denied(gfn, access) => write!(f, "denied:{gfn:x},{:x}", access.bits()),
            Self::Unused(gfn) => write!(f, "unused:{gfn:x}"),
            Self::Interrupt => write!(f, "interrupt:"),
            Self::Vectors => write!(f, "vectors:"),
        }
    }
}

/// Makes a call as an act.
pub(super) fn call(name: &str, call: HostCall) -> [u64; 4] {
    let registers = call.encode();
    mark::<BEGIN>();
    let answer = Hvc.call(registers);
    mark::<END>();
    let ([x0, x1, x2, x3, x4, x5, x6], [r0, r1, r2, r3]) = (registers, answer);
    println!(
        "D {} call {name} {x0:x} {x1:x} {x2:x} {x3:x} {x4:x} {x5:x} {x6:x} = {r0:x} {r1:x} {r2:x} {r3:x}",
        cpu::number()
    );
    answer
}

/// Makes a call as an act that must succeed.
pub(super) fn done(name: &str, what: HostCall) -> Result<[u64; 3], Outcome> {
    let [status, values @ ..] = call(name, what);
    ensure_eq!(status, Status::Success.to_register(), "{name}: status");
    Ok(values)
}

/// Makes a call as an act that must do `frames` frames at once.
pub(super) fn ranged(name: &str, what: HostCall, frames: u64) -> TestResult {
    let [progress, ..] = done(name, what)?;
    ensure_eq!(progress, frames, "{name}: frames done");
    Ok(())
}

/// Makes a call as an act that must be refused.
pub(super) fn refused(name: &str, what: HostCall, expected: Status) -> TestResult {
    let [status, ..] = call(name, what);
    ensure_eq!(status, expected.to_register(), "{name}: status");
    Ok(())
}

/// Reads from a physical address, which is mapped at `at`, as an act, and says whether that was let through.
pub(super) fn load(name: &str, address: u64, at: u64) -> Result<bool, Outcome> {
    mark::<BEGIN>();
    let result = probe::access(Level::El1, Access::Load4, at, 0);
    mark::<END>();
    if let Err(fault) = result {
        ensure_eq!(fault.status(), REFUSED, "{name}: status of the abort");
    }
    let outcome = if result.is_ok() { "done" } else { "refused" };
    println!("D {} load {name} {address:x} {outcome}", cpu::number());
    Ok(result.is_ok())
}

/// Runs vCPU `index` of a VM with an answer to its last exit as an act. `deeds` are what brings the guest to EL2 before
/// that which it exits with; if there are none, a fault is added, which says itself what it is, and so is always a call of
/// the host's service.
pub(super) fn run(
    name: &str,
    (vm, index): (u64, u64),
    page: &RunPage,
    answer: Answer,
    deeds: &[Deed],
) -> Result<Exit, Outcome> {
    let entry = enter(page, answer);
    let registers = HostCall::Vm(VmCall::Run { vm, index }).encode();
    mark::<BEGIN>();
    let answer = Hvc.call(registers);
    mark::<END>();
    let [status, reason, ..] = answer;
    ensure_eq!(status, Status::Success.to_register(), "{name}: status");
    ensure_eq!(page.read(EXIT_REASON), reason, "{name}: reason");
    let values = core::array::from_fn(|word| page.read(EXIT_VALUES + word));
    let Some(exit) = Exit::decode(reason, values) else {
        fail!("{name}: exit {reason:#x} with {values:x?} has no meaning")
    };
    tell_run(name, (vm, index), page, entry, deeds, exit, answer);
    Ok(exit)
}

fn tell_run(
    name: &str,
    (vm, index): (u64, u64),
    page: &RunPage,
    entry: [u64; ENTRY_WORDS],
    deeds: &[Deed],
    exit: Exit,
    [r0, r1, r2, r3]: [u64; 4],
) {
    let last = match exit {
        Exit::Service {
            function,
            arguments: [x1, x2, x3, x4, x5, x6],
        } => Some(Deed::Call([function, x1, x2, x3, x4, x5, x6])),
        Exit::MemoryFault { gfn, access } if deeds.is_empty() => Some(Deed::Fault(gfn, access)),
        _ => None,
    };
    let [e0, e1, e2, e3, e4, e5] = entry;
    println!(
        "D {} run {name} {vm:x} {index:x} {:x} {e0:x} {e1:x} {e2:x} {e3:x} {e4:x} {e5:x}{} = {r0:x} {r1:x} {r2:x} {r3:x}",
        cpu::number(),
        page.address(),
        Deeds(deeds, last),
    );
}

/// What a guest does, each after a space.
struct Deeds<'a>(&'a [Deed], Option<Deed>);

impl fmt::Display for Deeds<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self(deeds, last) = self;
        deeds.iter().chain(last).try_for_each(|deed| write!(f, " {deed}"))
    }
}

/// Writes the entry record, and returns it.
fn enter(page: &RunPage, answer: Answer) -> [u64; ENTRY_WORDS] {
    let (flags, number, [v0, v1, v2, v3]) = answer.record();
    page.write(ENTRY_FLAGS, flags.bits());
    page.write(ENTRY_ANSWER, number);
    for (word, value) in (ENTRY_VALUES..).zip([v0, v1, v2, v3]) {
        page.write(word, value);
    }
    [flags.bits(), number, v0, v1, v2, v3]
}
