//! The calls about VMs, as they are; ranged ones are resumed, and what EL2 lacks is given.

use crate::cases::support::fill_pool;
use crate::hypercall::HYPERVISOR;
use crate::registry::{Outcome, TestResult, fail, succeed};
use crate::sysreg;
use host_shim::CallError;
use hyp_abi::vm::VmStatistic;
use hyp_abi::{FrameRange, GuestRange, HostCall, Status, VmCall};

/// How often in a row a call may come back with nothing done: it may have let interrupts through, or another CPU may be
/// at work on the frames.
const PATIENCE: u32 = 100_000;

/// One call, once.
pub(crate) fn call(call: VmCall) -> Result<[u64; 3], CallError> {
    HYPERVISOR.call(HostCall::Vm(call))
}

/// One call that must succeed. If EL2 lacks pages for it, it gets them.
pub(crate) fn call_supplied(vm: u64, request: VmCall) -> Result<[u64; 3], Outcome> {
    for _ in 0..PATIENCE {
        match call(request) {
            Ok(values) => return Ok(values),
            Err(error) => supply(vm, request, error)?,
        }
    }
    fail!("{request:x?} comes to no end")
}

/// Gives EL2 or the VM the pages that a refusal asks for; any other refusal but one that passes fails the case.
fn supply(vm: u64, request: VmCall, error: CallError) -> TestResult {
    match error {
        CallError::Refused {
            status: Status::Busy, ..
        } => sysreg::relax(),
        CallError::Refused {
            status: Status::NoMemory,
            ..
        } => fill_pool()?,
        CallError::Refused {
            status: Status::VmNeedsMemory,
            detail,
        } => top_up(vm, detail.max(1))?,
        error => fail!("{request:x?}: {error:?}"),
    }
    Ok(())
}

/// Gives the VM's reserve so many pages.
pub(crate) fn top_up(vm: u64, pages: u64) -> TestResult {
    let request = VmCall::TopUp { vm, pages };
    loop {
        match call(request) {
            Ok(_) => return Ok(()),
            Err(CallError::Refused {
                status: Status::NoMemory,
                ..
            }) => fill_pool()?,
            Err(error) => fail!("{request:x?}: {error:?}"),
        }
    }
}

/// Makes a ranged call over `frames` frames until all are done. `at` makes the call for what follows the first so many.
fn resume(vm: u64, frames: u64, at: impl Fn(u64, u64) -> VmCall) -> TestResult {
    let (mut done, mut fruitless) = (0, 0);
    while done < frames {
        let request = at(done, frames - done);
        match call(request) {
            Ok([progress, ..]) if progress > frames - done => {
                fail!("{request:x?}: {progress} frames done")
            }
            Ok([0, ..]) => fruitless += 1,
            Ok([progress, ..]) => {
                done += progress;
                fruitless = 0;
            }
            Err(error) => {
                supply(vm, request, error)?;
                fruitless += 1;
            }
        }
        if fruitless > PATIENCE {
            fail!("{request:x?} comes to no end");
        }
    }
    Ok(())
}

fn rest(range: FrameRange, done: u64, frames: u64) -> FrameRange {
    FrameRange::new(range.base + done * hyp_abi::FRAME_SIZE, frames)
}

/// Donates frames from guest frame number `gfn` on.
pub(crate) fn donate(vm: u64, range: FrameRange, gfn: u64) -> TestResult {
    resume(vm, range.frames, |done, frames| VmCall::Donate {
        vm,
        range: rest(range, done, frames),
        gfn: gfn + done,
    })
}

/// Shares frames from guest frame number `gfn` on.
pub(crate) fn share(vm: u64, range: FrameRange, gfn: u64, permissions: u64) -> TestResult {
    resume(vm, range.frames, |done, frames| VmCall::Share {
        vm,
        range: rest(range, done, frames),
        gfn: gfn + done,
        permissions,
    })
}

/// Ends the sharing of frames.
pub(crate) fn unshare(vm: u64, range: GuestRange) -> TestResult {
    resume(vm, range.frames, |done, frames| VmCall::Unshare {
        vm,
        range: GuestRange::new(range.gfn + done, frames),
    })
}

/// Takes frames back from a dying VM.
pub(crate) fn reclaim(vm: u64, range: GuestRange) -> TestResult {
    resume(vm, range.frames, |done, frames| VmCall::Reclaim {
        vm,
        range: GuestRange::new(range.gfn + done, frames),
    })
}

/// Takes frames that a guest gave up.
pub(crate) fn take_back(range: FrameRange) -> TestResult {
    resume(0, range.frames, |done, frames| {
        VmCall::TakeBack(rest(range, done, frames))
    })
}

/// Pins frames that a guest shares.
pub(crate) fn pin(range: FrameRange) -> TestResult {
    resume(0, range.frames, |done, frames| {
        VmCall::PinShared(rest(range, done, frames))
    })
}

/// Takes a pin off.
pub(crate) fn unpin(range: FrameRange) -> TestResult {
    resume(0, range.frames, |done, frames| {
        VmCall::UnpinShared(rest(range, done, frames))
    })
}

/// Frames of a VM's table that disagree with the ownership map: must be none.
pub(crate) fn ensure_audited(vm: u64, range: GuestRange) -> TestResult {
    let mut done = 0;
    while done < range.frames {
        let rest = GuestRange::new(range.gfn + done, range.frames - done);
        match succeed!(call(VmCall::Audit { vm, range: rest })) {
            [frames, 0, _] => done += frames,
            [frames, wrong, _] => fail!(
                "{wrong} of {frames} guest frames from {:#x} on disagree",
                rest.gfn
            ),
        }
    }
    Ok(())
}

/// A figure of the VM.
pub(crate) fn statistic(vm: u64, statistic: VmStatistic) -> Result<u64, Outcome> {
    let request = VmCall::Statistics {
        vm,
        statistic: statistic.into(),
    };
    let [value, ..] = succeed!(call(request));
    Ok(value)
}

/// Ends the sharing of the pages at these guest frame numbers.
pub(crate) fn unshare_all(vm: u64, gfns: impl Iterator<Item = u64>) -> TestResult {
    for gfn in gfns {
        unshare(vm, GuestRange::new(gfn, 1))?;
    }
    Ok(())
}
