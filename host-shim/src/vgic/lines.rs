//! Lines of devices, and interrupts that vCPUs send.

use super::{PRIVATE, VcpuSet, Vgic};
use core::sync::atomic::Ordering;
use hyp_abi::run_page::SgiRegister;
use hyp_abi::vm::vcpu_at;
use thiserror::Error;

/// How many SGIs there are.
pub(super) const SGIS: u32 = 16;

/// There is no such line: the number is that of an SGI or of no interrupt, or there is no such vCPU.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Error)]
#[error("there is no such line")]
pub struct NoSuchLine;

/// The value of a register by which interrupts are sent (IHI 0069, 12.2: ICC_SGI1R_EL1).
#[derive(Clone, Copy, Debug)]
struct Sent(u64);

impl Sent {
    const fn intid(self) -> usize {
        (self.0 >> 24 & 0xf) as usize
    }

    /// IRM: to all but the sender.
    const fn to_all_others(self) -> bool {
        self.0 >> 40 & 1 != 0
    }

    /// Aff3, Aff2 and Aff1, and the Aff0 of the target list's bit `aff0`.
    const fn affinity(self, aff0: usize) -> u32 {
        let (aff3, aff2, aff1) = (self.0 >> 48 & 0xff, self.0 >> 32 & 0xff, self.0 >> 16 & 0xff);
        (aff3 << 24 | aff2 << 16 | aff1 << 8) as u32 | aff0 as u32
    }

    fn targets(self, sender: usize, present: VcpuSet) -> VcpuSet {
        if self.to_all_others() {
            return present.without(sender);
        }
        (0..16)
            .filter(|aff0| self.0 >> aff0 & 1 != 0)
            .filter_map(|aff0| vcpu_at(self.affinity(aff0)))
            .filter(|vcpu| present.contains(*vcpu))
            .collect()
    }
}

impl Vgic {
    /// A device says that its line is high or low. `vcpu` counts for a private interrupt (16 to 31). An edge-triggered
    /// interrupt becomes pending each time its line is said to be high. Returns the vCPUs that must look.
    ///
    /// # Errors
    /// [`NoSuchLine`].
    pub fn set_level(&self, intid: u32, vcpu: usize, high: bool) -> Result<VcpuSet, NoSuchLine> {
        let at = (intid % 32) as usize;
        if intid < SGIS || intid >= self.interrupts {
            return Err(NoSuchLine);
        }
        if intid < PRIVATE {
            let state = &mut *self.local(vcpu).ok_or(NoSuchLine)?.state.lock();
            let touched = state.bank.drive(at, high);
            return Ok(if high && state.must_look(touched) {
                VcpuSet::one(vcpu)
            } else {
                VcpuSet::EMPTY
            });
        }
        let mut spis = self.spis.lock();
        let row = spis
            .row((intid / 32) as usize)
            .filter(|row| row.bank.has(at))
            .ok_or(NoSuchLine)?;
        let touched = row.bank.drive(at, high);
        // What is listed while its line falls is offered for one time more at most; nobody is stopped for that.
        Ok(if high {
            self.settle(row, touched)
        } else {
            VcpuSet::EMPTY
        })
    }

    /// The vCPU `sender` wrote `value` to a register by which it sends software-generated interrupts. As there is one
    /// Security state, ICC_SGI1R_EL1 sends them in whatever group the target has them, the others only those of group 0.
    /// Returns the vCPUs that must look; the sender may be among them.
    pub fn send(&self, sender: usize, register: SgiRegister, value: u64) -> VcpuSet {
        let sent = Sent(value);
        let bit = 1 << sent.intid();
        let mut kicks = VcpuSet::EMPTY;
        for vcpu in sent.targets(sender, self.present).iter() {
            let Some(local) = self.local(vcpu) else { continue };
            let state = &mut *local.state.lock();
            if state.bank.group1 & bit != 0 && register != SgiRegister::Group1 {
                continue;
            }
            state.bank.latch |= bit;
            if state.must_look(bit) {
                kicks |= VcpuSet::one(vcpu);
            }
        }
        kicks
    }

    /// Which PPI the virtual timer has.
    #[must_use]
    pub fn timer(&self) -> u32 {
        self.timer.load(Ordering::Relaxed)
    }

    /// Which PPI the virtual timer has, 27 if nothing else is said. Not for a vCPU that runs.
    ///
    /// # Errors
    /// [`NoSuchLine`] if it is no PPI.
    pub fn set_timer(&self, intid: u32) -> Result<(), NoSuchLine> {
        if !(SGIS..PRIVATE).contains(&intid) {
            return Err(NoSuchLine);
        }
        self.timer.store(intid, Ordering::Relaxed);
        Ok(())
    }
}
