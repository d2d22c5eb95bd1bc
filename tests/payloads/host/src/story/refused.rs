//! Accesses that must be refused, with the fault that comes instead.

use super::say;
use crate::cases::support::{REFUSED, ensure_access_refused, ensure_fetch_refused};
use crate::exception::Fault;
use crate::probe::{self, Access, Level};
use crate::registry::{TestResult, ensure_eq, fail};
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

/// Every kind of access, from both levels, to each of `frames`. Answers how many were tried.
pub(super) fn everything(frames: impl Iterator<Item = u64>) -> Result<u64, crate::registry::Outcome> {
    let mut tries = 0;
    for frame in frames {
        for level in Level::ALL {
            for kind in Access::ALL {
                ensure_access_refused(level, kind, frame)?;
            }
            ensure_fetch_refused(level, frame)?;
            tries += Access::ALL.len() as u64 + 1;
        }
    }
    Ok(tries)
}
