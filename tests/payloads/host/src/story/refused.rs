//! Accesses that must be refused, with the fault that comes instead.

use super::say;
use crate::cases::support::{REFUSED, counter, ensure_all_refused};
use crate::exception::Fault;
use crate::probe::{self, Access, Level};
use crate::registry::{Outcome, TestResult, ensure_eq, fail};
use hyp_abi::Counter;
use payload_protocol::story::Step;

/// A load or a store.
pub(super) fn access(step: Step, level: Level, access: Access, physical: u64) -> TestResult {
    let address = level.address(physical);
    match probe::access(level, access, address, 0) {
        Ok(value) => fail!("{access:?} from {level:?} went through: {value:#x}"),
        Err(fault) => say_fault(step, fault, address),
    }
}

/// A jump.
pub(super) fn fetch(step: Step, level: Level, physical: u64) -> TestResult {
    let address = level.address(physical);
    match probe::fetch(level, address, 0) {
        Ok(value) => fail!("{level:?} ran the guest's code, which returned {value:#x}"),
        Err(fault) => say_fault(step, fault, address),
    }
}

/// The fault must be the one that Freehold promises, at the address that was tried.
fn say_fault(step: Step, fault: Fault, address: u64) -> TestResult {
    ensure_eq!((fault.status(), fault.far), (REFUSED, address), "status and FAR");
    say!(step, "fault, ESR {:#x}", fault.esr);
    Ok(())
}

/// Every kind of access, from both levels, to each of `frames`. EL2 must count each as refused. Answers how many there were.
pub(super) fn everything(frames: &[u64]) -> Result<u64, Outcome> {
    let before = counter(Counter::HostAbortsInjected)?;
    for frame in frames {
        ensure_all_refused(*frame)?;
    }
    let counted = counter(Counter::HostAbortsInjected)? - before;
    // A fetch, too.
    let tries = (frames.len() * Level::ALL.len() * (Access::ALL.len() + 1)) as u64;
    ensure_eq!(counted, tries, "accesses that EL2 counts as refused");
    Ok(tries)
}
