//! How a VM begins, and begins again.

use super::Vm;
use crate::linux::Signals;
use crate::{Errno, Linux};
use alloc::vec::Vec;
use core::sync::atomic::{AtomicU8, AtomicU64, Ordering};
use host_shim::Error;
use host_shim::vgic::VcpuSet;
use hyp_abi::VcpuRegister;
use hyp_abi::vm::{MAX_MEMORY_RANGES, MAX_VCPUS};

/// It has not begun.
const NEW: u8 = 0;
/// It has begun.
const LAUNCHED: u8 = 1;
/// The guest has ended itself.
const OVER: u8 = 2;

/// What a VM is at.
#[derive(Debug)]
pub(super) struct Life {
    now: AtomicU8,
    /// How often it was launched.
    launches: AtomicU64,
}

impl Life {
    pub(super) const fn new() -> Self {
        Self {
            now: AtomicU8::new(NEW),
            launches: AtomicU64::new(0),
        }
    }
}

impl<L: Linux> Vm<L> {
    fn life(&self) -> u8 {
        self.life.now.load(Ordering::SeqCst)
    }

    /// Whether it was ever launched.
    pub fn has_begun(&self) -> bool {
        self.life() != NEW
    }

    /// Whether it is launched, and the guest has not ended itself: EL2 has the registers of its vCPUs.
    pub fn is_launched(&self) -> bool {
        self.life() == LAUNCHED
    }

    /// Whether the registers of its vCPUs are its own.
    pub fn is_closed(&self) -> bool {
        self.protected && self.has_begun()
    }

    /// Whether a guest frame number is what EL2 knows to be memory.
    pub(in crate::kvm) fn is_declared(&self, gfn: u64) -> bool {
        let declared = self.declared.lock();
        declared.iter().any(|range| {
            gfn.checked_sub(range.gfn)
                .is_some_and(|offset| offset < range.frames)
        })
    }

    /// How often it was launched.
    pub(in crate::kvm) fn launches(&self) -> u64 {
        self.life.launches.load(Ordering::SeqCst)
    }

    /// The guest has ended itself: no vCPU runs again before the VM is launched anew.
    pub(in crate::kvm) fn set_over(&self) {
        self.life.now.store(OVER, Ordering::SeqCst);
        self.tell(VcpuSet::first(MAX_VCPUS));
    }

    /// Does something that must be done before the VM is launched.
    ///
    /// # Errors
    /// Those of `work`; [`Errno::BUSY`] if it is launched; [`Errno::INTR`] if the caller was killed while another launched it.
    pub(in crate::kvm) fn before_launch<R>(
        &self,
        work: impl FnOnce() -> Result<R, Errno>,
    ) -> Result<R, Errno> {
        let _alone = self.beginning.enter(Signals::Fatal)?;
        if self.has_begun() {
            return Err(Errno::BUSY);
        }
        work()
    }

    /// Launches it: EL2 is told what is memory, gets what is in it if the guest is protected, and the registers of all vCPUs
    /// if it is not. A protected guest begins at `entry`, with `argument` in x0. Where it fails it can be tried again.
    ///
    /// A VM that is not protected is launched again after its guest has ended itself. EL2 then gets a new one.
    ///
    /// # Errors
    /// [`Errno::PERM`] for a protected one that is over: its memory has nothing that it could begin with. [`Errno::INTR`] if
    /// a signal came while a vCPU still ran, or another launched it. [`Errno::INVAL`] for a register's value that the machine does not take.
    pub(in crate::kvm) fn launch(&self, entry: u64, argument: u64) -> Result<(), Errno> {
        let _alone = self.beginning.enter(Signals::All)?;
        if self.is_launched() {
            return Ok(());
        }
        let shim = self.shim()?;
        if self.life() == OVER {
            if self.protected {
                return Err(Errno::PERM);
            }
            self.declared.lock().clear();
            self.renew()?;
            self.life.now.store(NEW, Ordering::SeqCst);
        }
        if let Some(controller) = self.controller() {
            controller.start()?;
        }
        self.declare(shim)?;
        if self.protected {
            shim.give_resident()?;
            shim.launch(entry, argument)?;
        } else {
            if !shim.is_launched() {
                // Where it begins is among the registers, and need not be where EL2 can begin a vCPU.
                shim.launch(0, 0)?;
            }
            shim.write_register(0, VcpuRegister::CounterOffset, self.offset())?;
        }
        let vcpus = self.all_vcpus();
        let mut own: Vec<_> = vcpus.iter().map(|vcpu| vcpu.own.lock()).collect();
        if !self.protected {
            for (vcpu, own) in vcpus.iter().zip(&own) {
                vcpu.hand_over(own)?;
            }
        }
        for own in &mut own {
            own.forget();
        }
        self.life.launches.fetch_add(1, Ordering::SeqCst);
        self.life.now.store(LAUNCHED, Ordering::SeqCst);
        drop(own);
        self.tell(VcpuSet::first(MAX_VCPUS));
        Ok(())
    }

    /// Tells EL2 what is memory. What is declared stays so until EL2 gets a new VM, and so does a launch whose end failed.
    fn declare(&self, shim: &host_shim::Vm<L>) -> Result<(), Errno> {
        let ranges = shim.slot_ranges();
        if ranges.len() > MAX_MEMORY_RANGES {
            return Err(Errno::TOOBIG);
        }
        let mut declared = self.declared.lock();
        for range in ranges {
            if !shim.is_launched() && !declared.contains(&range) {
                shim.add_memory(range)?;
                declared.push(range);
            }
        }
        Ok(())
    }

    /// Has EL2 begin with a new VM. vCPUs that ran when the guest ended itself are on their way out.
    fn renew(&self) -> Result<(), Errno> {
        loop {
            match self.shim()?.renew() {
                Err(Error::Running) if self.linux().has_signal() => return Err(Errno::INTR),
                Err(Error::Running) => self.linux().relax(),
                result => return Ok(result?),
            }
        }
    }
}
