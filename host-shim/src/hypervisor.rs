//! The typed client: one method a call of [`HostCall`]. Those about VMs are in a file of their own.

use crate::{CallError, Hypercall, RangeError};
use hyp_abi::{
    Counter, Features, FrameRange, FrameState, GuestSupport, HostCall, Status, Version, host_call::Statistic,
};

/// How often in a row a ranged call may come back without a frame done. An interrupt that waits lets EL2 stop
/// early, and the host takes it between two tries; more than a few in a row is a defect, not an interrupt.
const TRIES_WITHOUT_PROGRESS: u32 = 64;

/// EL2, as the host kernel speaks to it.
#[derive(Clone, Copy, Debug)]
pub struct Hypervisor<H> {
    hypercall: H,
}

/// What [`Hypervisor::version`] answers.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct HypervisorInfo {
    /// Version of the host's calls.
    pub version: Version,
    /// What this Freehold can do on this machine. Bits that this client does not know are kept.
    pub features: Features,
    /// How many CPUs the machine has.
    pub cpus: u64,
}

/// What [`Hypervisor::frame_state`] answers.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct FrameInfo {
    /// The state of the frame.
    pub state: FrameState,
    /// Pins or borrowers, whichever the state counts.
    pub count: u64,
    /// How many bytes around the frame are known to agree with it, aligned to that size.
    pub extent: u64,
}

/// What [`Hypervisor::audit`] answers.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Audit {
    /// Frames that were looked at.
    pub frames: u64,
    /// Frames whose ownership and tables disagree.
    pub disagreements: u64,
}

impl<H: Hypercall> Hypervisor<H> {
    /// A client that reaches EL2 through `hypercall`.
    pub const fn new(hypercall: H) -> Self {
        Self { hypercall }
    }

    /// What carries the calls.
    pub const fn hypercall(&self) -> &H {
        &self.hypercall
    }

    /// Issues one call, once, and returns its three results.
    ///
    /// # Errors
    /// [`CallError::Refused`] with EL2's reason, [`CallError::UnknownStatus`] if it gave none that is known.
    pub fn call(&self, call: HostCall) -> Result<[u64; 3], CallError> {
        let [x0, values @ ..] = self.hypercall.call(call.encode());
        match Status::from_register(x0) {
            Some(Status::Success) => Ok(values),
            Some(status) => Err(CallError::Refused {
                status,
                detail: values[0],
            }),
            None => Err(CallError::UnknownStatus(x0)),
        }
    }

    /// Asks for version, features and number of CPUs.
    ///
    /// # Errors
    /// Those of [`Hypervisor::call`]; there is no Freehold below if it is refused.
    pub fn version(&self) -> Result<HypervisorInfo, CallError> {
        let [version, features, cpus] = self.call(HostCall::Version)?;
        Ok(HypervisorInfo {
            version: Version::from_register(version),
            features: Features::from_bits_retain(features),
            cpus,
        })
    }

    /// Donates frames to EL2's pool of table and node pages.
    ///
    /// # Errors
    /// Those of [`HostCall::PoolTopUp`], with the progress made.
    pub fn pool_top_up(&self, range: FrameRange) -> Result<(), RangeError> {
        self.resume(range, HostCall::PoolTopUp)
    }

    /// Takes back up to `frames` frames that EL2's pool does not use, in one call. They are zero.
    /// Returns `None` if none is free.
    ///
    /// # Errors
    /// Those of [`HostCall::PoolDrain`]; [`CallError::BadResult`] if more came back than was asked.
    pub fn pool_drain(&self, frames: u64) -> Result<Option<FrameRange>, CallError> {
        match self.call(HostCall::PoolDrain { frames })? {
            [_, 0, _] => Ok(None),
            [base, count, _] if count <= frames => Ok(Some(FrameRange::new(base, count))),
            [_, count, _] => Err(CallError::BadResult(count)),
        }
    }

    /// Shares frames with EL2.
    ///
    /// # Errors
    /// Those of [`HostCall::ShareHyp`], with the progress made.
    pub fn share(&self, range: FrameRange) -> Result<(), RangeError> {
        self.resume(range, HostCall::ShareHyp)
    }

    /// Ends the sharing of frames with EL2.
    ///
    /// # Errors
    /// Those of [`HostCall::UnshareHyp`], with the progress made.
    pub fn unshare(&self, range: FrameRange) -> Result<(), RangeError> {
        self.resume(range, HostCall::UnshareHyp)
    }

    /// Gives frames to EL2. The host must not touch them until it has them back.
    ///
    /// # Errors
    /// Those of [`HostCall::DonateHyp`], with the progress made.
    pub fn donate(&self, range: FrameRange) -> Result<(), RangeError> {
        self.resume(range, HostCall::DonateHyp)
    }

    /// Takes donated frames back. They are zero.
    ///
    /// # Errors
    /// Those of [`HostCall::ReclaimHyp`], with the progress made.
    pub fn reclaim(&self, range: FrameRange) -> Result<(), RangeError> {
        self.resume(range, HostCall::ReclaimHyp)
    }

    /// Rebuilds the largest blocks that the ownership of the frames allows.
    ///
    /// # Errors
    /// Those of [`HostCall::Collapse`], with the progress made.
    pub fn collapse(&self, range: FrameRange) -> Result<(), RangeError> {
        self.resume(range, HostCall::Collapse)
    }

    /// Asks for the state of the frame at the physical address `frame`.
    ///
    /// # Errors
    /// Those of [`HostCall::FrameState`]; [`CallError::BadResult`] if the answer is no known state.
    pub fn frame_state(&self, frame: u64) -> Result<FrameInfo, CallError> {
        let [state, count, extent] = self.call(HostCall::FrameState { frame })?;
        let state = FrameState::try_from(state).map_err(|_| CallError::BadResult(state))?;
        Ok(FrameInfo { state, count, extent })
    }

    /// Asks for a statistic.
    ///
    /// # Errors
    /// Those of [`HostCall::Statistics`].
    pub fn statistic(&self, statistic: Statistic) -> Result<u64, CallError> {
        let [value, ..] = self.call(HostCall::Statistics {
            statistic: statistic.into(),
        })?;
        Ok(value)
    }

    /// Asks for a counter of the CPU with number `cpu` in the device tree's order.
    ///
    /// # Errors
    /// Those of [`HostCall::Counter`].
    pub fn counter(&self, cpu: u64, counter: Counter) -> Result<u64, CallError> {
        let [value, ..] = self.call(HostCall::Counter {
            cpu,
            counter: counter.into(),
        })?;
        Ok(value)
    }

    /// Compares the ownership of the frames with the tables made from it.
    ///
    /// # Errors
    /// Those of [`HostCall::Audit`], with the progress made.
    pub fn audit(&self, range: FrameRange) -> Result<Audit, RangeError> {
        let mut audit = Audit::default();
        self.resume_with(range, HostCall::Audit, |[frames, disagreements, _]| {
            audit.frames = audit.frames.saturating_add(frames);
            audit.disagreements = audit.disagreements.saturating_add(disagreements);
        })?;
        Ok(audit)
    }

    /// Lets EL2 write the trace records of a CPU to a shared frame. See [`hyp_abi::trace`].
    ///
    /// # Errors
    /// Those of [`HostCall::TraceAttach`].
    pub fn trace_attach(&self, cpu: u64, frame: u64) -> Result<(), CallError> {
        self.call(HostCall::TraceAttach { cpu, frame }).map(|_| ())
    }

    /// Ends what [`Hypervisor::trace_attach`] began.
    ///
    /// # Errors
    /// Those of [`HostCall::TraceDetach`].
    pub fn trace_detach(&self, cpu: u64) -> Result<(), CallError> {
        self.call(HostCall::TraceDetach { cpu }).map(|_| ())
    }

    /// Asks what guests can be on this machine.
    ///
    /// # Errors
    /// Those of [`Hypervisor::call`].
    pub fn guest_support(&self) -> Result<GuestSupport, CallError> {
        self.call(HostCall::GuestSupport)
            .map(GuestSupport::from_registers)
    }

    /// Asks what a guest whose IPAs have so many bits reads from a feature ID register. Its name is one that
    /// [`hyp_abi::guest_support::system_register`] makes.
    ///
    /// # Errors
    /// Those of [`HostCall::GuestRegister`].
    pub fn guest_register(&self, register: u64, ipa_bits: u64) -> Result<u64, CallError> {
        let [value, ..] = self.call(HostCall::GuestRegister { register, ipa_bits })?;
        Ok(value)
    }

    fn resume(&self, range: FrameRange, call: fn(FrameRange) -> HostCall) -> Result<(), RangeError> {
        self.resume_with(range, call, |_| ())
    }

    /// Calls until the whole range is done. The range goes to EL2 as it is, even if it is nonsense: judging
    /// it is EL2's business, and a client that judged first would hide what EL2 says.
    fn resume_with(
        &self,
        range: FrameRange,
        call: impl Fn(FrameRange) -> HostCall,
        each: impl FnMut([u64; 3]),
    ) -> Result<(), RangeError> {
        self.resume_each(
            range.frames,
            |done| match done {
                0 => Some(call(range)),
                _ => range.after(done).map(&call),
            },
            each,
        )
    }

    /// Calls until all of `frames` frames are done. `call` makes the call for what is left after the first so many
    /// of them.
    fn resume_each(
        &self,
        frames: u64,
        call: impl Fn(u64) -> Option<HostCall>,
        mut each: impl FnMut([u64; 3]),
    ) -> Result<(), RangeError> {
        let mut done = 0;
        let mut fruitless = 0;
        loop {
            let stopped = |error| RangeError { done, error };
            // EL2 finished a part, so the whole lies in the address space, and what is left has an address.
            let next = call(done).ok_or(stopped(CallError::BadResult(done)))?;
            let values = self.call(next).map_err(stopped)?;
            each(values);
            let [finished, ..] = values;
            if finished > frames - done {
                return Err(stopped(CallError::BadResult(finished)));
            }
            if finished == 0 {
                fruitless += 1;
                if fruitless > TRIES_WITHOUT_PROGRESS {
                    return Err(stopped(CallError::NoProgress));
                }
            } else {
                fruitless = 0;
            }
            done += finished;
            if done == frames {
                return Ok(());
            }
            self.hypercall.pause();
        }
    }
}

mod vm;

#[cfg(test)]
mod tests;
