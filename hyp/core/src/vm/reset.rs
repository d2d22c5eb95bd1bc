//! The state in which a vCPU begins.

use super::context::{GicInterface, VcpuContext};
use super::vcpu::Start;
use crate::trap::guest_id::mpidr;
use crate::trap::inject::{SPSR_DAIF, SPSR_EL1H};

/// SCTLR_EL1 out of reset: MMU and caches off, little-endian, its RES1 bits 11, 20, 22, 23, 28 and 29 set (Arm ARM DDI
/// 0487, D24.2.150).
pub const SCTLR_EL1_RESET: u64 = 0x30d0_0800;

impl VcpuContext {
    /// The registers of the vCPU with `index`, which begins at `start`: at EL1 with its own stack pointer, everything
    /// masked, the MMU off (DEN0022, 6.4). What is not named is zero: nothing is left of what the vCPU did before.
    #[must_use]
    pub fn reset(index: u8, start: Start) -> Self {
        let mut context = Self::default();
        context.begin_at(index, start);
        context
    }

    /// Sets those registers that are not zero as the vCPU with `index` begins at `start`.
    #[inline]
    pub(super) const fn begin_at(&mut self, index: u8, start: Start) {
        self.x[0] = start.argument;
        self.pc = start.entry;
        self.pstate = SPSR_EL1H | SPSR_DAIF;
        self.system.sctlr_el1 = SCTLR_EL1_RESET;
        self.system.vmpidr_el2 = mpidr(index);
        self.gic.control = GicInterface::ENABLE;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_vcpu_begins_masked_with_its_mmu_off() {
        let context = VcpuContext::reset(
            17,
            Start {
                entry: 0x8000_0000,
                argument: 7,
            },
        );
        assert_eq!(
            (context.pc, context.x[0], context.pstate),
            (0x8000_0000, 7, 0x3c5)
        );
        assert_eq!(context.system.sctlr_el1 & 1, 0);
        assert_eq!(context.system.vmpidr_el2, 0x8000_0101);
        assert!(context.x[1..].iter().all(|x| *x == 0));
    }
}
