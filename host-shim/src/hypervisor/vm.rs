//! The calls about VMs: one method a call of [`VmCall`].

use super::Hypervisor;
use crate::{Audit, CallError, Hypercall, RangeError};
use hyp_abi::run_page::ExitReason;
use hyp_abi::vm::{Permissions, TOP_UP_STEP, VmFlags, VmStatistic};
use hyp_abi::{FrameRange, GuestRange, HostCall, Status, VcpuRegister, VmCall, VmHandle};

impl<H: Hypercall> Hypervisor<H> {
    /// Creates a VM with at most `vcpus` vCPUs and IPAs of `ipa_bits` bits.
    ///
    /// # Errors
    /// Those of [`VmCall::Create`]; [`CallError::BadResult`] if the answer is no handle.
    pub fn create_vm(&self, flags: VmFlags, vcpus: u64, ipa_bits: u64) -> Result<VmHandle, CallError> {
        let [handle, ..] = self.vm_call(VmCall::Create {
            flags: flags.bits(),
            vcpus,
            ipa_bits,
        })?;
        VmHandle::from_register(handle).ok_or(CallError::BadResult(handle))
    }

    /// Declares a range of a VM's memory.
    ///
    /// # Errors
    /// Those of [`VmCall::AddMemory`].
    pub fn add_memory(&self, vm: VmHandle, range: GuestRange) -> Result<(), CallError> {
        let vm = vm.to_register();
        self.vm_call(VmCall::AddMemory { vm, range }).map(drop)
    }

    /// Creates a vCPU whose run page is at the physical address `run_page`.
    ///
    /// # Errors
    /// Those of [`VmCall::CreateVcpu`].
    pub fn create_vcpu(&self, vm: VmHandle, index: u64, run_page: u64) -> Result<(), CallError> {
        let vm = vm.to_register();
        self.vm_call(VmCall::CreateVcpu { vm, index, run_page }).map(drop)
    }

    /// Launches a VM: its vCPU 0 begins at the IPA `entry` with `argument` in x0.
    ///
    /// # Errors
    /// Those of [`VmCall::Launch`].
    pub fn launch(&self, vm: VmHandle, entry: u64, argument: u64) -> Result<(), CallError> {
        let vm = vm.to_register();
        self.vm_call(VmCall::Launch { vm, entry, argument }).map(drop)
    }

    /// Asks for the whole launch digest.
    ///
    /// # Errors
    /// Those of [`VmCall::Digest`].
    pub fn digest(&self, vm: VmHandle) -> Result<[u8; 32], CallError> {
        let vm = vm.to_register();
        let mut digest = [0; 32];
        for (half, bytes) in [0, 1].into_iter().zip(digest.chunks_exact_mut(16)) {
            let [low, high, _] = self.vm_call(VmCall::Digest { vm, half })?;
            for (to, from) in bytes
                .iter_mut()
                .zip(low.to_le_bytes().into_iter().chain(high.to_le_bytes()))
            {
                *to = from;
            }
        }
        Ok(digest)
    }

    /// Runs a vCPU on this CPU until it exits. Returns the reason and its first two values; the others are in the
    /// run page.
    ///
    /// # Errors
    /// Those of [`VmCall::Run`]; [`CallError::BadResult`] if the answer is no known reason.
    pub fn run_vcpu(&self, vm: VmHandle, index: u64) -> Result<(ExitReason, [u64; 2]), CallError> {
        let vm = vm.to_register();
        let [reason, values @ ..] = self.vm_call(VmCall::Run { vm, index })?;
        let reason = ExitReason::try_from(reason).map_err(|_| CallError::BadResult(reason))?;
        Ok((reason, values))
    }

    /// Ends a VM, or goes on with it.
    ///
    /// # Errors
    /// Those of [`VmCall::Destroy`]: `FramesLeft` until the host has everything back.
    pub fn destroy_vm(&self, vm: VmHandle) -> Result<(), CallError> {
        let vm = vm.to_register();
        let mut left = u64::MAX;
        loop {
            match self.vm_call(VmCall::Destroy { vm }) {
                // The interrupt that waited has been taken by now. As long as pages come back, so does the end.
                Err(CallError::Refused {
                    status: Status::Busy,
                    detail,
                }) if detail < left => {
                    left = detail;
                    self.hypercall.pause();
                }
                result => return result.map(drop),
            }
        }
    }

    /// Moves `pages` pages from EL2's pool to the VM's reserve, and returns how many that holds.
    ///
    /// # Errors
    /// Those of [`VmCall::TopUp`], with how many were moved by then.
    pub fn top_up_vm(&self, vm: VmHandle, pages: u64) -> Result<u64, RangeError> {
        let vm = vm.to_register();
        let mut done = 0;
        loop {
            // So many are moved whatever interrupts.
            let step = (pages - done).min(TOP_UP_STEP);
            let [held, ..] = self
                .vm_call(VmCall::TopUp { vm, pages: step })
                .map_err(|error| RangeError { done, error })?;
            done += step;
            if done == pages {
                return Ok(held);
            }
            self.hypercall.pause();
        }
    }

    /// Gives a VM a new handle.
    ///
    /// # Errors
    /// Those of [`VmCall::Rename`]; [`CallError::BadResult`] if the answer is no handle.
    pub fn rename_vm(&self, vm: VmHandle) -> Result<VmHandle, CallError> {
        let vm = vm.to_register();
        let [handle, ..] = self.vm_call(VmCall::Rename { vm })?;
        VmHandle::from_register(handle).ok_or(CallError::BadResult(handle))
    }

    /// Donates frames to a protected VM, the first of them to guest frame number `gfn`.
    ///
    /// # Errors
    /// Those of [`VmCall::Donate`], with the progress made.
    pub fn donate_guest(&self, vm: VmHandle, range: FrameRange, gfn: u64) -> Result<(), RangeError> {
        let vm = vm.to_register();
        self.resume_each(
            range.frames,
            |done| {
                let (range, gfn) = (rest(range, done)?, gfn.checked_add(done)?);
                Some(HostCall::Vm(VmCall::Donate { vm, range, gfn }))
            },
            |_| (),
        )
    }

    /// Shares frames with a VM that is not protected, the first of them at guest frame number `gfn`.
    ///
    /// # Errors
    /// Those of [`VmCall::Share`], with the progress made.
    pub fn share_guest(
        &self,
        vm: VmHandle,
        range: FrameRange,
        gfn: u64,
        permissions: Permissions,
    ) -> Result<(), RangeError> {
        let vm = vm.to_register();
        let permissions = permissions.bits();
        self.resume_each(
            range.frames,
            |done| {
                let (range, gfn) = (rest(range, done)?, gfn.checked_add(done)?);
                Some(HostCall::Vm(VmCall::Share {
                    vm,
                    range,
                    gfn,
                    permissions,
                }))
            },
            |_| (),
        )
    }

    /// Ends the sharing of frames with a VM that is not protected.
    ///
    /// # Errors
    /// Those of [`VmCall::Unshare`], with the progress made.
    pub fn unshare_guest(&self, vm: VmHandle, range: GuestRange) -> Result<(), RangeError> {
        let vm = vm.to_register();
        self.resume_guest(range, |range| VmCall::Unshare { vm, range }, |_| ())
    }

    /// Takes frames back from a dying VM.
    ///
    /// # Errors
    /// Those of [`VmCall::Reclaim`], with the progress made.
    pub fn reclaim_guest(&self, vm: VmHandle, range: GuestRange) -> Result<(), RangeError> {
        let vm = vm.to_register();
        self.resume_guest(range, |range| VmCall::Reclaim { vm, range }, |_| ())
    }

    /// Takes the private frame at the physical address `frame` from a guest that lives.
    ///
    /// # Errors
    /// Those of [`VmCall::ForceReclaim`].
    pub fn force_reclaim(&self, frame: u64) -> Result<(), CallError> {
        self.vm_call(VmCall::ForceReclaim { frame }).map(drop)
    }

    /// Changes what a VM that is not protected may do with frames that it borrows.
    ///
    /// # Errors
    /// Those of [`VmCall::SetPermissions`], with the progress made.
    pub fn set_permissions(
        &self,
        vm: VmHandle,
        range: GuestRange,
        permissions: Permissions,
    ) -> Result<(), RangeError> {
        let vm = vm.to_register();
        let permissions = permissions.bits();
        let call = |range| VmCall::SetPermissions {
            vm,
            range,
            permissions,
        };
        self.resume_guest(range, call, |_| ())
    }

    /// Asks how many of the frames that a VM borrows there are mapped by a descriptor that was used since the last
    /// look, and begins anew.
    ///
    /// # Errors
    /// Those of [`VmCall::TestAge`], with the progress made.
    pub fn test_age(&self, vm: VmHandle, range: GuestRange) -> Result<u64, RangeError> {
        let vm = vm.to_register();
        let mut used = 0_u64;
        self.resume_guest(
            range,
            |range| VmCall::TestAge { vm, range },
            |[_, more, _]| used = used.saturating_add(more),
        )?;
        Ok(used)
    }

    /// Pins frames that a guest shares with the host.
    ///
    /// # Errors
    /// Those of [`VmCall::PinShared`], with the progress made.
    pub fn pin_shared(&self, range: FrameRange) -> Result<(), RangeError> {
        self.resume(range, |range| HostCall::Vm(VmCall::PinShared(range)))
    }

    /// Takes one pin off each frame.
    ///
    /// # Errors
    /// Those of [`VmCall::UnpinShared`], with the progress made.
    pub fn unpin_shared(&self, range: FrameRange) -> Result<(), RangeError> {
        self.resume(range, |range| HostCall::Vm(VmCall::UnpinShared(range)))
    }

    /// Takes frames that a guest gave up. They are zero.
    ///
    /// # Errors
    /// Those of [`VmCall::TakeBack`], with the progress made.
    pub fn take_back(&self, range: FrameRange) -> Result<(), RangeError> {
        self.resume(range, |range| HostCall::Vm(VmCall::TakeBack(range)))
    }

    /// Asks for a figure of a VM.
    ///
    /// # Errors
    /// Those of [`VmCall::Statistics`].
    pub fn vm_statistic(&self, vm: VmHandle, statistic: VmStatistic) -> Result<u64, CallError> {
        let [value, ..] = self.vm_call(VmCall::Statistics {
            vm: vm.to_register(),
            statistic: statistic.into(),
        })?;
        Ok(value)
    }

    /// Compares a VM's table with the ownership of the frames in it.
    ///
    /// # Errors
    /// Those of [`VmCall::Audit`], with the progress made.
    pub fn audit_vm(&self, vm: VmHandle, range: GuestRange) -> Result<Audit, RangeError> {
        let vm = vm.to_register();
        let mut audit = Audit::default();
        self.resume_guest(
            range,
            |range| VmCall::Audit { vm, range },
            |[frames, disagreements, _]| {
                audit.frames = audit.frames.saturating_add(frames);
                audit.disagreements = audit.disagreements.saturating_add(disagreements);
            },
        )?;
        Ok(audit)
    }

    /// Asks for a register of a vCPU of a VM that is not protected.
    ///
    /// # Errors
    /// Those of [`VmCall::ReadRegister`].
    pub fn read_register(&self, vm: VmHandle, index: u64, register: VcpuRegister) -> Result<u64, CallError> {
        let (vm, register) = (vm.to_register(), register.to_register());
        self.vm_call(VmCall::ReadRegister { vm, index, register })
            .map(|[value, ..]| value)
    }

    /// Sets a register of a vCPU of a VM that is not protected.
    ///
    /// # Errors
    /// Those of [`VmCall::WriteRegister`].
    pub fn write_register(
        &self,
        vm: VmHandle,
        index: u64,
        register: VcpuRegister,
        value: u64,
    ) -> Result<(), CallError> {
        let (vm, register) = (vm.to_register(), register.to_register());
        self.vm_call(VmCall::WriteRegister {
            vm,
            index,
            register,
            value,
        })
        .map(drop)
    }

    fn vm_call(&self, call: VmCall) -> Result<[u64; 3], CallError> {
        self.call(HostCall::Vm(call))
    }

    fn resume_guest(
        &self,
        range: GuestRange,
        call: impl Fn(GuestRange) -> VmCall,
        each: impl FnMut([u64; 3]),
    ) -> Result<(), RangeError> {
        self.resume_each(
            range.frames,
            |done| {
                let left = if done == 0 { range } else { range.after(done)? };
                Some(HostCall::Vm(call(left)))
            },
            each,
        )
    }
}

/// What is left of a range; all of it, even if it is empty, if nothing is done: EL2 judges it.
fn rest(range: FrameRange, done: u64) -> Option<FrameRange> {
    if done == 0 { Some(range) } else { range.after(done) }
}
