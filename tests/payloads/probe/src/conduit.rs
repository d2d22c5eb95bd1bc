//! The way from this tool to EL2 and EL3: the module's HVC and SMC.

use crate::device::Device;
use crate::interface::Call;
use crate::outcome::Answer;
use anyhow::{Context, bail, ensure};
use host_shim::Hypercall;
use hyp_abi::HostCall;
use hyp_abi::host_call::{CALL_UID, FREEHOLD_UID};
use std::cell::Cell;

/// Which instruction.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Instruction {
    /// To EL2.
    Hvc,
    /// To EL3, unless EL2 takes it.
    Smc,
}

/// The first register that a call of the 64-bit convention preserves, if it is not a result (DEN0028, 2.6).
const FIRST_PRESERVED: usize = 4;

/// What the preserved registers hold before a call.
const PATTERN: u64 = 0x5afe_c0de_0000_0000;

/// Issues a call with `arguments` in x0 to x7 and a pattern in x8 to x17. Answers all of x0 to x17.
///
/// # Errors
/// What the module says.
pub(crate) fn issue(
    device: &Device,
    instruction: Instruction,
    arguments: &[u64],
) -> std::io::Result<[u64; 18]> {
    let mut call = Call {
        x: before(arguments),
        conduit: instruction as u32,
        ..Call::default()
    };
    device.call(&mut call)?;
    Ok(call.x)
}

/// The registers before a call.
fn before(arguments: &[u64]) -> [u64; 18] {
    std::array::from_fn(|number| arguments.get(number).copied().unwrap_or(PATTERN | number as u64))
}

/// The numbers of the registers from x4 that a call has changed.
pub(crate) fn changed(arguments: &[u64], after: &[u64; 18]) -> Vec<usize> {
    let before = before(arguments);
    (FIRST_PRESERVED..after.len())
        .filter(|&number| before[number] != after[number])
        .collect()
}

/// Carries the host's calls to EL2.
#[derive(Debug)]
pub(crate) struct Conduit<'a> {
    device: &'a Device,
    verbose: bool,
    not_preserved: Cell<Option<u64>>,
}

impl<'a> Conduit<'a> {
    /// The way to Freehold, once it is sure that Freehold is there. With `verbose` a line is printed for each step
    /// of a ranged call.
    ///
    /// # Errors
    /// If somebody else answers hypercalls, or nobody can be asked.
    pub(crate) fn connect(device: &'a Device, verbose: bool) -> anyhow::Result<Self> {
        let uid = ask_uid(device)?;
        ensure!(
            uid == FREEHOLD_UID.map(u64::from),
            "Freehold is absent: whoever answers hypercalls here is not it (its UID is {uid:x?})"
        );
        Ok(Self {
            device,
            verbose,
            not_preserved: Cell::new(None),
        })
    }

    /// Makes sure that every call so far preserved x4 to x17.
    ///
    /// # Errors
    /// If one did not.
    pub(crate) fn ensure_preserved(&self) -> anyhow::Result<()> {
        match self.not_preserved.get() {
            None => Ok(()),
            Some(function) => bail!("the call {function:#x} changed registers that it must preserve"),
        }
    }
}

/// What whoever answers hypercalls gives as its UID.
fn ask_uid(device: &Device) -> anyhow::Result<[u64; 4]> {
    let [x0, x1, x2, x3, ..] = issue(device, Instruction::Hvc, &[CALL_UID.into()])
        .context("Freehold is absent: this kernel issues no hypercalls, because it runs at EL2 itself")?;
    Ok([x0, x1, x2, x3])
}

impl Hypercall for Conduit<'_> {
    fn call(&self, registers: [u64; 7]) -> [u64; 4] {
        let after = issue(self.device, Instruction::Hvc, &registers)
            .expect("the module carried a hypercall when the conduit was made");
        if !changed(&registers, &after).is_empty() {
            self.not_preserved.set(Some(registers[0]));
        }
        let [x0, x1, x2, x3, ..] = after;
        if self.verbose
            && let Some(step) = step(registers, x0, x1)
        {
            println!("{step}");
        }
        [x0, x1, x2, x3]
    }
}

/// The line that tells of one step of a ranged call; `None` for other calls.
fn step(registers: [u64; 7], status: u64, done: u64) -> Option<String> {
    let (HostCall::PoolTopUp(range)
    | HostCall::ShareHyp(range)
    | HostCall::UnshareHyp(range)
    | HostCall::DonateHyp(range)
    | HostCall::ReclaimHyp(range)
    | HostCall::Collapse(range)
    | HostCall::Audit(range)) = HostCall::decode(registers).ok()?
    else {
        return None;
    };
    let status = Answer::from(status);
    Some(format!(
        "step base={:#x} frames={} x1={done} status={status}",
        range.base, range.frames
    ))
}

#[cfg(test)]
mod tests {
    use super::*;
    use hyp_abi::{FrameRange, Status};

    #[test]
    fn a_changed_register_is_seen() {
        let arguments = [1, 2, 3, 4, 5, 6, 7];
        let mut after = before(&arguments);
        assert_eq!(changed(&arguments, &after), []);
        after[0] = 0;
        after[3] = 9;
        assert_eq!(changed(&arguments, &after), []);
        after[4] = 0;
        after[17] = 0;
        assert_eq!(changed(&arguments, &after), [4, 17]);
    }

    #[test]
    fn a_step_tells_its_range() {
        let registers = HostCall::DonateHyp(FrameRange::new(0x4800_0000, 512)).encode();
        let line = "step base=0x48000000 frames=512 x1=64 status=Success";
        assert_eq!(step(registers, 0, 64).as_deref(), Some(line));
        let refused = Status::NotOwner.to_register();
        assert!(
            step(registers, refused, 0)
                .unwrap()
                .ends_with("x1=0 status=NotOwner")
        );
        assert_eq!(step(HostCall::Version.encode(), 0, 0), None);
    }
}
