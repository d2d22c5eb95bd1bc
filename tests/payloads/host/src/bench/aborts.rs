//! Accesses that stage 2 refuses: from the fault to the exception in the host.
//!
//! What is counted here includes the payload's own handler, so only what EL2 executes is worth comparing.

use super::bracket::{Figure, Mark, sample};
use super::calls::{MANY, nothing};
use crate::cases::support::{REFUSED, fill_pool, frames};
use crate::exception::Fault;
use crate::hypercall::HYPERVISOR;
use crate::probe::{self, Access, Level};
use crate::registry::{Outcome, TestResult, ensure_eq, fail, succeed};

fn refused(mark: Mark, reach: impl Fn(u64) -> Result<u64, Fault>) -> Result<Figure, Outcome> {
    fill_pool()?;
    let frame = frames(1)?;
    succeed!(HYPERVISOR.donate(frame.range()));
    let address = frame.frame(0);
    let judge = |result: Result<u64, Fault>| -> TestResult {
        let Err(fault) = result else {
            fail!("an access to a donated frame went through")
        };
        ensure_eq!(
            (fault.status(), fault.far),
            (REFUSED, address),
            "status and address"
        );
        Ok(())
    };
    let figure = sample(MANY, mark, nothing, || reach(address), judge)?;
    succeed!(HYPERVISOR.reclaim(frame.range()));
    frame.free();
    Ok(figure)
}

pub(super) fn load(mark: Mark) -> Result<Figure, Outcome> {
    refused(mark, |address| {
        probe::access(Level::El1, Access::Load8, address, 0)
    })
}

pub(super) fn store(mark: Mark) -> Result<Figure, Outcome> {
    refused(mark, |address| {
        probe::access(Level::El1, Access::Store8, address, 0)
    })
}

pub(super) fn fetch(mark: Mark) -> Result<Figure, Outcome> {
    refused(mark, |address| probe::fetch(Level::El1, address, 0))
}
